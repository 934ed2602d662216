"""The table in memory alone: five ports, one writer, and a memory that is late, wrong or not to be believed."""

import random

import pytest
from amaranth.sim import Simulator

from flexserve_hw.tzasc.cache import CachedTable
from flexserve_hw.tzasc.line import PORTS, line_beats, table_line
from tests.hw.tzasc.bench import PAGE, small
from tests.hw.tzasc.table_memory import TABLE_PFN


def test_answer_that_was_given_stays_when_the_table_breaks():
    """A verdict that waits downstream must not change under its address; what is asked afterwards reads as zeros."""
    params = small(cache_lines=2)
    table = CachedTable(params=params)
    states = (1 << params.group) - 1

    async def scenario(ctx):
        await ctx.tick().repeat(4)
        for channel in (table.bus.aw, table.bus.w):
            ctx.set(channel.ready, 1)
        ctx.set(table.write_data, states)
        ctx.set(table.write_en, 1)
        await ctx.tick()
        ctx.set(table.write_en, 0)
        ctx.set(table.ar.en, 1)
        await ctx.tick()
        ctx.set(table.ar.en, 0)
        ctx.set(table.bus.b.payload.resp, 2)
        ctx.set(table.bus.b.valid, 1)
        for _ in range(4):
            *_, valid, data = await ctx.tick().sample(table.ar.valid, table.ar.data)
            assert (valid, data) == (1, states)
            ctx.set(table.bus.b.valid, 0)
        ctx.set(table.ar.en, 1)
        await ctx.tick()
        ctx.set(table.ar.en, 0)
        *_, valid, data = await ctx.tick().sample(table.ar.valid, table.ar.data)
        assert (valid, data) == (1, 0)
        ctx.set(table.write_en, 1)
        *_, ready, aw = await ctx.tick().sample(table.write_ready, table.bus.aw.valid)
        assert (ready, aw) == (1, 0)

    simulator = Simulator(table)
    simulator.add_clock(1e-9)
    simulator.add_testbench(scenario)
    simulator.run()


@pytest.mark.parametrize("delay", range(8))
def test_line_fetched_for_a_corrupt_window_is_not_believed(delay):
    """SEC-11: a bit of the table's place flips while a word is awaited; a line that fits its check lies there too."""
    params = small(cache_lines=2)
    table = CachedTable(params=params)
    forged = table_line(params, 0, (1 << params.group) - 1)

    async def scenario(ctx):
        ctx.set(table.base, TABLE_PFN)
        await ctx.tick().repeat(4)
        ctx.set(table.ar.word, 0)
        ctx.set(table.ar.en, 1)
        await ctx.tick()
        ctx.set(table.ar.en, 0)
        requested = None
        for cycle in range(40):
            corrupt = cycle == delay
            ctx.set(table.corrupt, corrupt)
            ctx.set(table.base, TABLE_PFN ^ corrupt)
            ctx.set(table.bus.ar.ready, cycle > 6)
            ctx.set(table.bus.r.valid, requested is not None and requested[0])
            ctx.set(table.bus.r.payload, {"id": 0, "data": forged, "resp": 0, "last": 1})
            ctx.set(table.write_en, cycle > 12)
            *_, valid, data, ar, ar_ready, address, aw = await ctx.tick().sample(
                table.ar.valid, table.ar.data, table.bus.ar.valid, table.bus.ar.ready, table.bus.ar.payload.addr,
                table.bus.aw.valid,
            )  # fmt: skip
            if cycle >= delay:
                assert valid
                assert data == 0
            if ar:
                assert requested is None or not requested[0]
                assert requested is None or requested[1] == address
                assert address == TABLE_PFN * PAGE
                requested = ar_ready, address
            assert not aw

    simulator = Simulator(table)
    simulator.add_clock(1e-9)
    simulator.add_testbench(scenario)
    simulator.run()


def _states(rng, params):
    """A word in which every page has some state."""
    group = params.group
    return sum(1 << rng.randrange(6) * group + n for n in range(group))


@pytest.mark.parametrize(("lines", "seed", "slow"), [(1, 1, 0), (2, 2, 3), (4, 3, 9)])
def test_five_ports_and_a_writer_see_one_table(lines, seed, slow):
    """Eviction storms: every answer is what the word held in some cycle since the question, and only then."""
    params = small(cache_lines=lines)
    table, rng = CachedTable(params=params), random.Random(seed)
    words = params.pages // params.group
    truth = [_states(rng, params) for _ in range(words)]
    memory = {n: table_line(params, n, truth[n]) for n in range(words)}
    history = [[(0, truth[n])] for n in range(words)]
    answers = {name: 0 for name in PORTS}
    now = 0

    async def serve(ctx):
        bus, shift = table.bus, (line_beats(params) * params.bus.data_width // 8).bit_length() - 1
        reads, beats, stores = [], [], []
        r, b, aw = None, None, []
        while True:
            if r is None and reads and reads[0][0] <= now:
                r = reads.pop(0)[1]
                ctx.set(bus.r.payload, {"id": 0, "data": r, "resp": 0, "last": 1})
            if b is None and stores and stores[0] <= now:
                b = stores.pop(0)
            ready = {name: rng.random() < 0.7 for name in ("ar", "aw", "w")}
            for name, value in ready.items():
                ctx.set(getattr(bus, name).ready, value)
            ctx.set(bus.r.valid, r is not None)
            ctx.set(bus.b.valid, b is not None)
            _, _, ar_valid, ar, aw_valid, aw_now, w_valid, w, r_ready = await ctx.tick().sample(
                bus.ar.valid, bus.ar.payload, bus.aw.valid, bus.aw.payload, bus.w.valid, bus.w.payload, bus.r.ready
            )
            b = None
            if r_ready:
                r = None
            if ar_valid and ready["ar"]:
                reads.append((now + rng.randrange(1, 2 + slow), memory[ar.addr >> shift]))
            if aw_valid and ready["aw"]:
                aw.append(aw_now.addr >> shift)
            if w_valid and ready["w"]:
                beats.append(w.data)
            # A line reaches memory late, and is answered after that.
            if aw and beats and rng.random() < 0.3:
                memory[aw.pop(0)] = beats.pop(0)
                stores.append(now + rng.randrange(1, 2 + slow))

    async def ask(ctx, name):
        port = getattr(table, name)
        nonlocal answers
        while True:
            for _ in range(rng.choice([0, 0, 0, 5])):
                await ctx.tick()
            word = rng.choice([0, 2, 4, rng.randrange(words)])
            ctx.set(port.en, 1)
            ctx.set(port.word, word)
            ctx.set(port.nonsecure, rng.randrange(2))
            asked = now
            _, _ = await ctx.tick()
            ctx.set(port.en, 0)
            while True:
                _, _, valid, data = await ctx.tick().sample(port.valid, port.data)
                if valid:
                    break
                assert now - asked < 400 + 200 * slow, f"{name} is not answered"
            # What it held when asked, or got since then until the cycle before the answer.
            before = [value for at, value in history[word] if at <= asked][-1:]
            during = [value for at, value in history[word] if asked < at < now]
            assert data in before + during, f"{name} got {data:x} for word {word} in cycle {now} (seed {seed})"
            answers[name] += 1

    async def change(ctx):
        await ctx.tick().repeat(lines + 2)
        for _ in range(250):
            await ctx.tick().repeat(1 + rng.randrange(12))
            word, value = rng.choice([0, 2, 4, rng.randrange(words)]), _states(rng, params)
            ctx.set(table.write_en, 1)
            ctx.set(table.write_word, word)
            ctx.set(table.write_data, value)
            while True:
                _, _, ready = await ctx.tick().sample(table.write_ready)
                if ready:
                    break
            ctx.set(table.write_en, 0)
            history[word].append((now - 1, value))

    async def clock(ctx):
        nonlocal now
        while True:
            await ctx.tick()
            now += 1

    sim = Simulator(table)
    sim.add_clock(1e-9)
    sim.add_testbench(clock, background=True)
    sim.add_testbench(serve, background=True)
    for name in PORTS:

        async def port(ctx, name=name):
            await ctx.tick().repeat(lines + 2)
            await ask(ctx, name)

        sim.add_testbench(port, background=True)
    sim.add_testbench(change)
    sim.run()
    assert all(count > 40 for count in answers.values()), answers


@pytest.mark.parametrize("ahead", [0, 3, 10, 17])
def test_how_soon_a_word_comes_does_not_tell_which_one_the_other_world_fetches(ahead):
    """SEC-12: a line answers those alone who share the bank of who asked for it."""

    def delay(other):
        """Cycles until the normal world's question about word 1 is answered, ``ahead`` cycles after the secure one."""
        params = small(cache_lines=2)
        table = CachedTable(params=params)
        beats, latency, found = line_beats(params), 20, []

        async def memory(ctx):
            due, now = [], 0
            ctx.set(table.bus.ar.ready, 1)
            while True:
                ripe = bool(due) and due[0][0] <= now
                ctx.set(table.bus.r.valid, ripe)
                if ripe:
                    ctx.set(table.bus.r.payload.data, due[0][1])
                *_, valid, address, taken = await ctx.tick().sample(
                    table.bus.ar.valid, table.bus.ar.payload.addr, table.bus.r.ready
                )
                now += 1
                if ripe and taken:
                    due.pop(0)
                if valid:
                    line = table_line(params, (address - TABLE_PFN * PAGE) // (beats * params.bus.data_width // 8), 0)
                    width = params.bus.data_width
                    due += [(now + latency, line >> width * n & ((1 << width) - 1)) for n in range(beats)]

        async def scenario(ctx):
            ctx.set(table.base, TABLE_PFN)
            await ctx.tick().repeat(8)
            for port, word, nonsecure in ((table.ar, other, 0), (table.aw, 1, 1)):
                ctx.set(port.word, word)
                ctx.set(port.nonsecure, nonsecure)
                ctx.set(port.en, 1)
                await ctx.tick()
                ctx.set(port.en, 0)
                for _ in range(ahead if port is table.ar else 0):
                    await ctx.tick()
            while not ctx.get(table.aw.valid):
                found.append(0)
                assert len(found) < 200
                await ctx.tick()

        simulator = Simulator(table)
        simulator.add_clock(1e-9)
        simulator.add_testbench(memory, background=True)
        simulator.add_testbench(scenario)
        simulator.run()
        return len(found)

    assert delay(1) == delay(2) > 20

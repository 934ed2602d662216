"""The interconnect stamps identities, routes responses and leaves no gaps."""

import random
from collections import deque

import pytest
from amaranth.sim import Simulator

from flexserve_hw.bus.identity import Identity
from flexserve_hw.bus.interconnect import Interconnect

MASTERS = {
    "cpu_n": Identity(nsaid=0),
    "cpu_s": Identity(nsaid=0, may_be_secure=True),
    "npu": Identity(nsaid=1, may_be_secure=True),
    "storage": Identity(nsaid=2),
    "hostile": Identity(nsaid=3),
}
NAMES = list(MASTERS)


def make():
    return Interconnect(masters=MASTERS, addr_width=32, data_width=32, id_width=3)


def run(dut, *testbenches):
    sim = Simulator(dut)
    sim.add_clock(1e-9)
    for testbench in testbenches:
        sim.add_testbench(testbench)
    sim.run()


async def send(ctx, stream, payload):
    ctx.set(stream.payload, payload)
    ctx.set(stream.valid, 1)
    await ctx.tick().until(stream.ready)
    ctx.set(stream.valid, 0)


async def receive(ctx, stream):
    ctx.set(stream.ready, 1)
    (payload,) = await ctx.tick().sample(stream.payload).until(stream.valid)
    ctx.set(stream.ready, 0)
    return payload


@pytest.mark.parametrize("channel", ["ar", "aw"])
@pytest.mark.parametrize("asked", [0, 2, 7])
def test_world_nsaid_and_master_number_are_forced(channel, asked):
    dut = make()

    async def drive(ctx):
        for name in NAMES:
            prot = {"privileged": asked & 1, "nonsecure": asked >> 1 & 1, "instruction": asked >> 2}
            payload = {"id": 5, "addr": 0x8000_1230, "len": 3, "size": 2, "prot": prot, "user": 0xF}
            await send(ctx, getattr(getattr(dut, name), channel), payload)

    async def check(ctx):
        for number, (name, rule) in enumerate(MASTERS.items()):
            got = await receive(ctx, getattr(dut.o, channel))
            assert got.id == number << 3 | 5
            assert got.user == rule.nsaid
            assert got.prot.nonsecure == (asked >> 1 & 1 if name in ("cpu_s", "npu") else 1)
            assert (got.prot.privileged, got.prot.instruction) == (asked & 1, asked >> 2)
            assert (got.addr, got.len, got.size) == (0x8000_1230, 3, 2)

    run(dut, drive, check)


def test_lone_master_sends_an_address_and_a_beat_every_cycle():
    dut = make()
    beats = 40
    seen = []

    async def addresses(ctx):
        for index in range(beats):
            await send(ctx, dut.storage.aw, {"addr": index, "len": 0})

    async def data(ctx):
        for index in range(beats):
            await send(ctx, dut.storage.w, {"data": index, "strb": 0xF, "last": 1})

    async def check(ctx):
        ctx.set(dut.o.aw.ready, 1)
        ctx.set(dut.o.w.ready, 1)
        async for _, _, aw, w in ctx.tick().sample(dut.o.aw.valid, dut.o.w.valid):
            seen.append((aw, w))
            if len(seen) == beats + 1:
                return

    run(dut, addresses, data, check)
    assert seen == [(0, 0)] + [(1, 1)] * beats


def test_write_data_are_offered_even_if_downstream_waits_for_them_before_taking_the_address():
    dut = make()

    async def drive(ctx):
        ctx.set(dut.npu.w.valid, 1)
        ctx.set(dut.npu.w.payload.last, 1)
        await send(ctx, dut.npu.aw, {"addr": 0x40})

    async def check(ctx):
        await ctx.tick().until(dut.o.w.valid)
        assert ctx.get(dut.o.aw.valid)

    run(dut, drive, check)


@pytest.mark.parametrize("lie", ["first beat", "every beat", "late", "never"])
def test_wlast_that_contradicts_awlen_shifts_no_beat_into_another_masters_burst(lie):
    """The hostile device lies about the end of its burst; the secure CPU's beats keep their burst and their WLAST."""
    dut = make()
    lasts = {
        "first beat": [1, 0, 0, 0] * 2,
        "every beat": [1] * 8,
        "late": [0, 0, 0, 0, 1, 0, 0, 0],
        "never": [0] * 8,
    }[lie]
    order = [("hostile", 4), ("cpu_s", 2), ("hostile", 4), ("cpu_s", 3)]
    tags = {"hostile": 0xBAD00, "cpu_s": 0x5EC00}
    seen = []

    async def addresses(ctx):
        for name, beats in order:
            await send(ctx, getattr(dut, name).aw, {"id": 1, "addr": 0x1000, "len": beats - 1})

    def data(name, flags):
        async def drive(ctx):
            for beat, last in enumerate(flags):
                await send(ctx, getattr(dut, name).w, {"data": tags[name] + beat, "strb": 0xF, "last": last})

        return drive

    async def memory_aw(ctx):
        for _ in order:
            await receive(ctx, dut.o.aw)

    async def memory_w(ctx):
        for _ in range(sum(beats for _, beats in order)):
            got = await receive(ctx, dut.o.w)
            seen.append((got.data, got.last))

    run(dut, addresses, data("hostile", lasts), data("cpu_s", [0, 1, 0, 0, 1]), memory_aw, memory_w)
    expected, sent = [], {"hostile": 0, "cpu_s": 0}
    for name, beats in order:
        expected += [(tags[name] + sent[name] + beat, int(beat == beats - 1)) for beat in range(beats)]
        sent[name] += beats
    assert seen == expected


def test_response_shows_on_the_port_of_its_master_alone():
    dut = make()
    response = {"id": 1 << 3 | 5, "data": 0x5EC2E7, "resp": 0, "last": 1}

    async def check(ctx):
        for valid in (1, 0):
            ctx.set(dut.o.r.payload, response)
            ctx.set(dut.o.r.valid, valid)
            ctx.set(dut.o.b.payload, {"id": 1 << 3 | 5, "resp": 2})
            ctx.set(dut.o.b.valid, valid)
            await ctx.tick()
            for name in NAMES:
                port, mine = getattr(dut, name), bool(valid) and name == "cpu_s"
                assert (ctx.get(port.r.valid), ctx.get(port.b.valid)) == (mine, mine)
                got = ctx.get(port.r.payload)
                assert (got.id, got.data, got.last) == ((5, 0x5EC2E7, 1) if mine else (0, 0, 0))
                assert ctx.get(port.b.payload.as_value()) == (2 << 3 | 5 if mine else 0)

    run(dut, check)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_mixed_traffic_of_all_masters_keeps_data_with_addresses_and_responses_with_masters(seed):
    """Every master writes and reads bursts; the memory checks write data and answers in random order of IDs."""
    dut = make()
    rng = random.Random(seed)
    bursts, done = 12, {name: [0, 0] for name in NAMES}
    writes, reads, awaiting = deque(), deque(), deque()

    async def idle(ctx):
        while rng.random() < 0.4:
            await ctx.tick()

    def plan(name):
        return [(rng.randrange(8), rng.randrange(6), NAMES.index(name) << 8 | index) for index in range(bursts)]

    def master(name, jobs):
        port = getattr(dut, name)

        async def addresses(ctx):
            for own, length, tag in jobs:
                await idle(ctx)
                await send(ctx, port.aw, {"id": own, "addr": tag, "len": length})

        async def data(ctx):
            for _, length, tag in jobs:
                for beat in range(length + 1):
                    await idle(ctx)
                    await send(ctx, port.w, {"data": tag << 8 | beat, "strb": 0xF, "last": beat == length})

        async def responses(ctx):
            expected = deque(jobs)
            for _ in jobs:
                await idle(ctx)
                got = await receive(ctx, port.b)
                own, _, _ = next(job for job in expected if job[0] == got.id)
                expected.remove(next(job for job in expected if job[0] == own))
                done[name][0] += 1

        async def read_addresses(ctx):
            for own, length, tag in jobs:
                await idle(ctx)
                await send(ctx, port.ar, {"id": own, "addr": tag, "len": length})

        async def read_data(ctx):
            by_id = {own: deque(job for job in jobs if job[0] == own) for own in range(8)}
            for _ in jobs:
                beat, current = 0, None
                while True:
                    await idle(ctx)
                    got = await receive(ctx, port.r)
                    current = current or by_id[got.id].popleft()
                    assert got.data == current[2] << 8 | beat, f"seed {seed}"
                    beat += 1
                    if got.last:
                        break
                assert beat == current[1] + 1
                done[name][1] += 1

        return addresses, data, responses, read_addresses, read_data

    async def memory_aw(ctx):
        for _ in range(bursts * len(NAMES)):
            await idle(ctx)
            got = await receive(ctx, dut.o.aw)
            assert got.addr >> 8 == got.id >> 3, f"seed {seed}"
            writes.append(got)

    async def memory_w(ctx):
        for _ in range(bursts * len(NAMES)):
            while not writes:
                await ctx.tick()
            address = writes.popleft()
            for beat in range(address.len + 1):
                await idle(ctx)
                got = await receive(ctx, dut.o.w)
                assert got.data == address.addr << 8 | beat, f"seed {seed}"
                assert got.last == (beat == address.len), f"seed {seed}"
            awaiting.append(address.id)

    async def memory_b(ctx):
        for _ in range(bursts * len(NAMES)):
            while not awaiting:
                await ctx.tick()
            await send(ctx, dut.o.b, {"id": awaiting.popleft(), "resp": 0})

    async def memory_ar(ctx):
        for _ in range(bursts * len(NAMES)):
            await idle(ctx)
            reads.append(await receive(ctx, dut.o.ar))

    async def memory_r(ctx):
        for _ in range(bursts * len(NAMES)):
            while not reads:
                await ctx.tick()
            address = reads.popleft()
            for beat in range(address.len + 1):
                payload = {"id": address.id, "data": address.addr << 8 | beat, "last": beat == address.len}
                await send(ctx, dut.o.r, payload)

    parts = [part for name in NAMES for part in master(name, plan(name))]
    run(dut, *parts, memory_aw, memory_w, memory_b, memory_ar, memory_r)
    assert all(counts == [bursts, bursts] for counts in done.values())


def test_impossible_parameters_are_refused():
    with pytest.raises(ValueError, match=r"not 9$"):
        Interconnect(masters={str(n): Identity(nsaid=0) for n in range(9)}, addr_width=32, data_width=32, id_width=3)
    with pytest.raises(ValueError, match=r"not 16$"):
        Identity(nsaid=16)

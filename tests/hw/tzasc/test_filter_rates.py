"""What the filter costs: latency, throughput, command and scrub rates, in cycles."""

import itertools

import pytest

from flexserve_sw.regs import FLEX_NORMAL
from tests.hw.tzasc.bench import NORMAL, PAGE, SECURE, WINDOW_PFN, C, R, S, make_filter_bench, small

P = WINDOW_PFN
LATENCY = 4


def test_reads_and_writes_get_at_most_two_cycles_of_latency():
    async def scenario(bench, ctx):
        await bench.boot(ctx)
        read = bench.read(P * PAGE)
        await bench.done(ctx, read)
        write = bench.write(P * PAGE)
        await bench.done(ctx, write)
        # The memory alone: address in cycle 0, first beat or answer offered LATENCY cycles after the last handshake.
        assert read.answered - read.accepted - LATENCY == 1
        assert write.answered - write.accepted - LATENCY == 2

    make_filter_bench(latency=LATENCY).run(scenario)


def test_single_beats_of_mixed_ids_and_worlds_flow_one_per_cycle():
    async def scenario(bench, ctx):
        await bench.boot(ctx)
        await bench.lend(ctx, P, 4)
        reads = [bench.read((P + n % 8) * PAGE, SECURE if n % 8 < 4 else NORMAL, id=n % 8) for n in range(60)]
        writes = [bench.write((P + n % 8) * PAGE, SECURE if n % 8 < 4 else NORMAL, id=n % 8) for n in range(60)]
        await bench.done(ctx, *reads, *writes)
        for bursts in (reads, writes):
            assert all(b.allowed for b in bursts)
            assert bursts[-1].accepted - bursts[0].accepted == len(bursts) - 1
            assert bursts[-1].answered - bursts[0].answered == len(bursts) - 1

    make_filter_bench(latency=LATENCY).run(scenario)


def test_bursts_follow_each_other_without_a_gap_while_commands_and_expiries_run():
    async def scenario(bench, ctx):
        await bench.boot(ctx, grace=50)
        await bench.lend(ctx, P, 4)
        reads = [bench.read((P + 8 + n % 4) * PAGE, id=n % 8, beats=4) for n in range(80)]
        await bench.command(ctx, NORMAL, C.RECALL, P, 4)
        await bench.command(ctx, NORMAL, C.DELEGATE, P + 4, 4)
        await bench.command(ctx, SECURE, C.ACCEPT, P + 4, 4)
        await bench.done(ctx, *reads)
        assert bench.expiries
        assert reads[-1].answered - reads[0].answered == 4 * (len(reads) - 1)

    make_filter_bench(latency=LATENCY).run(scenario)


def test_idle_bus_is_scrubbed_at_95_percent_of_its_bandwidth():
    async def scenario(bench, ctx):
        await bench.boot(ctx)
        await bench.lend(ctx, P, 12)
        await bench.command(ctx, SECURE, C.RELEASE, P, 12)
        await bench.until(ctx, lambda: len(bench.memory.scrub_addresses) > 2 * (12 + 2), "the start")
        start, beats = bench.cycle, bench.memory.busy_writes
        await bench.until(ctx, lambda: bench.state(P + 8) is S.NORMAL, "the scrub")
        share = (bench.memory.busy_writes - beats) / (bench.cycle - start)
        assert share >= 0.95, share

    make_filter_bench(params=small(freed_depth=16), latency=8).run(scenario)


@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_memory_that_takes_an_address_only_with_its_data_gets_them(stall):
    """A manager must not wait for AWREADY before it asserts WVALID: masters' bursts and the scrubber's."""

    async def scenario(bench, ctx):
        bench.memory.data_first = True
        await bench.boot(ctx)
        writes = [bench.write((P + n % 12) * PAGE, id=n % 8, beats=1 + n % 5) for n in range(40)]
        await bench.lend(ctx, P, 4)
        await bench.command(ctx, SECURE, C.RELEASE, P, 4)
        await bench.until(ctx, lambda: bench.state(P + 3) is S.NORMAL, "the scrub")
        await bench.done(ctx, *writes)

    make_filter_bench(stall=stall).run(scenario)


@pytest.mark.parametrize("beats", [(1,), (8,), (32,), (1, *[-32] * 7)])
def test_scrubber_keeps_its_share_under_full_load_and_no_more(beats):
    """SEC-07: writers that never pause cannot keep a page from coming back, nor can denied writes (lengths below 0)."""

    async def scenario(bench, ctx):
        await bench.boot(ctx)
        await bench.lend(ctx, P, 8)
        before = len(bench.memory.scrub_addresses)
        bursts = 60 + 1600 * len(beats) // sum(map(abs, beats))
        for n, length in enumerate(itertools.islice(itertools.cycle(beats), bursts)):
            bench.write((P + 8) * PAGE, NORMAL if length > 0 else SECURE, id=n % 8, beats=abs(length))
        await bench.command(ctx, SECURE, C.RELEASE, P, 8)
        await bench.until(ctx, lambda: bench.state(P + 7) is S.NORMAL, "the scrub")
        assert bench.w, "the load ended before the scrub"
        # The first go ahead of the data of what was accepted before there was anything to scrub.
        cycles = [cycle for cycle, _ in bench.memory.scrub_addresses[before + 4 :]]
        share = 16 * (len(cycles) - 1) / (cycles[-1] - cycles[0])
        # Denied beats leave slots below idle, which the scrubber takes besides.
        assert 0.9 / 4 <= share <= (1.1 / 4 if min(beats) > 0 else 1), share

    make_filter_bench(params=small(scrub_share=4)).run(scenario)


def test_commands_check_and_apply_a_group_of_pages_per_cycle():
    async def scenario(bench, ctx):
        await bench.boot(ctx)
        for count in (4, 12):
            await bench.start(ctx, NORMAL, C.DELEGATE, P, count)
            start = bench.cycle
            await bench.until(ctx, lambda: bench.decided[0], "the decision")
            spent[count] = bench.decided[0][0] - start
            assert (await bench.finished(ctx, NORMAL))[0] is R.OK
            assert (await bench.command(ctx, NORMAL, C.CANCEL, P, count))[0] is R.OK
        assert await bench.peek(ctx, FLEX_NORMAL.LENT) == 0

    spent = {}
    make_filter_bench().run(scenario)
    assert spent[12] - spent[4] == 2 * (12 - 4) // 4
    assert spent[4] <= 8


def test_denied_writes_behind_allowed_ones_of_their_id_leave_the_scrubber_its_share():
    """SEC-07: a denied write is answered after the allowed ones of its ID; while it waits for memory, zeros go on."""

    async def scenario(bench, ctx):
        await bench.boot(ctx)
        await bench.lend(ctx, P, 8)
        for n in range(400):
            bench.write((P + 8) * PAGE, SECURE if n % 2 else NORMAL, id=n // 2 % 8)
        await bench.command(ctx, SECURE, C.RELEASE, P, 8)
        before = len(bench.memory.scrub_addresses)
        await bench.until(ctx, lambda: bench.state(P + 7) is S.NORMAL, "the scrub")
        assert bench.w, "the load ended before the scrub"
        cycles = [cycle for cycle, _ in bench.memory.scrub_addresses[before + 4 :]]
        share = 16 * (len(cycles) - 1) / (cycles[-1] - cycles[0])
        assert share >= 1 / 4, share

    make_filter_bench(params=small(scrub_share=4), latency=60).run(scenario)


@pytest.mark.parametrize("keeper", ["memory", "master"])
def test_write_data_go_on_while_no_denied_write_can_be_answered(keeper):
    """SEC-07: whoever keeps answers back, every write whose address was taken gets its data through."""

    async def scenario(bench, ctx):
        def answers(go):
            bench.b_ready = go or keeper != "master"
            bench.memory.hold_answers = keeper == "memory" and not go

        await bench.boot(ctx)
        answers(False)
        first = bench.write((P + 8) * PAGE, id=0, beats=4)
        denied = [bench.write((P + 8) * PAGE, SECURE, id=0, beats=4) for _ in range(3)]
        passed = bench.write((P + 8) * PAGE, id=1, beats=4)
        waiting = bench.write((P + 8) * PAGE, SECURE, id=2)
        last = bench.write((P + 8) * PAGE, id=3)
        taken = [first, *denied, passed]
        await bench.until(ctx, lambda: all(b.sent == b.beats for b in taken), "data of what was accepted")
        assert [b.allowed for b in taken] == [True, False, False, False, True]
        # The next denied one finds no room; it and what comes after it wait.
        await ctx.tick().repeat(50)
        assert waiting.allowed is last.allowed is None
        assert not any(b.answered >= 0 for b in [*taken, waiting, last])
        answers(True)
        await bench.done(ctx, *taken, waiting, last)
        assert first.answered < min(b.answered for b in denied)

    make_filter_bench(params=small(denied_writes=3)).run(scenario)


def test_as_many_denied_writes_as_have_room_cost_no_cycle():
    """Denied single beats flow one per cycle, between allowed ones too."""

    async def scenario(bench, ctx):
        await bench.boot(ctx)
        writes = [bench.write((P + 8) * PAGE, SECURE if n % 3 else NORMAL, id=n % 3 + 3 * (n % 2)) for n in range(60)]
        await bench.done(ctx, *writes)
        assert sum(not b.allowed for b in writes) == 40
        assert writes[-1].accepted - writes[0].accepted == len(writes) - 1

    make_filter_bench(latency=LATENCY).run(scenario)

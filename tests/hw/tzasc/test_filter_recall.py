"""Recall by range and by size, grace periods, the freed queue."""

import pytest

from flexserve_sw.regs import FLEX_NORMAL, FLEX_SECURE
from tests.hw.tzasc.bench import NORMAL, PAGE, SECURE, WINDOW_PFN, C, R, S, make_filter_bench, small

P = WINDOW_PFN
CACHE_LINES = [None, 2]


def test_recall_gives_the_grace_period_and_then_takes_the_pages():
    """SEC-07: the secure world keeps access for the grace period; then it loses it whatever it does."""

    async def scenario(bench, ctx):
        await bench.boot(ctx, grace=300)
        await bench.lend(ctx, P, 5)
        assert await bench.peek(ctx, FLEX_NORMAL.GRACE) == 300
        assert (await bench.command(ctx, NORMAL, C.RECALL, P + 1, 4))[0] is R.OK
        recalled = bench.cycle
        during = bench.write((P + 1) * PAGE, SECURE)
        await bench.done(ctx, during)
        assert during.allowed
        assert await bench.peek(ctx, FLEX_SECURE.IRQ_STATUS) & 4
        timer = FLEX_SECURE.TIMER[0]
        assert await bench.peek(ctx, timer.FIRST) == P + 1
        assert await bench.peek(ctx, timer.COUNT) == 4
        assert 0 < await bench.peek(ctx, timer.LEFT) < 300
        await bench.until(ctx, lambda: bench.state(P + 1) is S.SCRUBBING, "the end of the grace period")
        assert 290 <= bench.cycle - recalled + 10 <= 330
        after = bench.write((P + 2) * PAGE, SECURE)
        await bench.done(ctx, after)
        assert not after.allowed
        await bench.until(ctx, lambda: bench.state(P + 4) is S.NORMAL, "the scrub")
        assert await bench.peek(ctx, FLEX_SECURE.IRQ_STATUS) & 8
        assert await bench.peek(ctx, timer.COUNT) == 0
        assert bench.state(P) is S.FLEX

    make_filter_bench().run(scenario)


def test_recall_ends_in_time_while_the_secure_world_floods_commands_and_holds_writes():
    """SEC-07: expiry goes before commands, and waits for no command's drain."""

    async def scenario(bench, ctx):
        await bench.boot(ctx, grace=200)
        await bench.lend(ctx, P, 8)
        held = bench.write((P + 7) * PAGE, SECURE, beats=2, gap=300)
        await bench.until(ctx, lambda: held.accepted >= 0, "acceptance")
        await bench.start(ctx, NORMAL, C.RECALL, P, 4)
        await bench.until(ctx, lambda: bench.state(P + 3) is S.RECALLING, "the recall")
        recalled = bench.cycle
        await bench.start(ctx, SECURE, C.RELEASE, P + 6)
        await bench.until(ctx, lambda: bench.state(P) is S.SCRUBBING, "the expiry")
        assert bench.cycle - recalled <= 200 + 20, "the expiry waited for the release that cannot drain"
        assert held.answered < 0
        await bench.finished(ctx, NORMAL)
        await bench.finished(ctx, SECURE)
        while bench.state(P + 3) is not S.NORMAL:
            await bench.command(ctx, SECURE, C.ACCEPT, P)
        assert bench.cycle - held.answered < 40 * 7 + 100, "scrubbing waited for commands"

    bench = make_filter_bench()
    bench.max_wait = 3000
    bench.run(scenario)


def test_timer_is_free_as_soon_as_all_its_pages_are_released():
    async def scenario(bench, ctx):
        await bench.boot(ctx, grace=4000)
        await bench.lend(ctx, P, 12)
        for first in (0, 2, 4, 6):
            assert (await bench.command(ctx, NORMAL, C.RECALL, P + first, 2))[0] is R.OK
        assert await bench.command(ctx, NORMAL, C.RECALL, P + 8, 2) == (R.NO_SLOT, P + 8)
        assert (await bench.command(ctx, SECURE, C.RELEASE, P + 1, 3))[0] is R.OK
        assert (await bench.command(ctx, NORMAL, C.RECALL, P + 8, 2))[0] is R.OK
        assert await bench.command(ctx, NORMAL, C.RECALL, P + 10, 1) == (R.NO_SLOT, P + 10)
        assert (await bench.command(ctx, SECURE, C.RELEASE, P, 1))[0] is R.OK
        assert (await bench.command(ctx, NORMAL, C.RECALL, P + 10, 1))[0] is R.OK
        assert (await bench.command(ctx, SECURE, C.RELEASE, P + 4, 7))[0] is R.OK

    make_filter_bench().run(scenario)


def test_recall_over_part_of_a_running_timer_is_refused():
    async def scenario(bench, ctx):
        await bench.boot(ctx, grace=4000)
        await bench.lend(ctx, P, 4)
        assert (await bench.command(ctx, NORMAL, C.RECALL, P, 3))[0] is R.OK
        assert (await bench.command(ctx, SECURE, C.RELEASE, P + 1))[0] is R.OK
        await bench.until(ctx, lambda: bench.state(P + 1) is S.NORMAL, "the scrub")
        await bench.lend(ctx, P + 1)
        assert await bench.command(ctx, NORMAL, C.RECALL, P + 1, 1) == (R.NO_SLOT, P + 1)
        assert (await bench.command(ctx, NORMAL, C.RECALL, P + 3, 1))[0] is R.OK

    make_filter_bench().run(scenario)


def test_grace_period_is_kept_within_its_limits():
    """SEC-07: the secure world cannot ask for more than the hardware's limit."""

    async def scenario(bench, ctx):
        await bench.boot(ctx, grace=4_000_000_000)
        assert await bench.peek(ctx, FLEX_NORMAL.GRACE) == 5000
        bench.golden.grace = 5000

    async def tiny(bench, ctx):
        await bench.boot(ctx, grace=0)
        assert await bench.peek(ctx, FLEX_NORMAL.GRACE) == 50

    make_filter_bench().run(scenario)
    make_filter_bench().run(tiny)


def test_recall_by_size_is_paid_by_the_pages_that_come_back():
    async def scenario(bench, ctx):
        await bench.boot(ctx)
        await bench.lend(ctx, P, 6)
        await bench.poke(ctx, FLEX_NORMAL.SIZE_REQUEST, 2)
        await bench.poke(ctx, FLEX_NORMAL.SIZE_REQUEST, 1)
        assert await bench.peek(ctx, FLEX_SECURE.SIZE_OWED) == 3
        assert await bench.peek(ctx, FLEX_SECURE.IRQ_STATUS) & 2
        assert await bench.peek(ctx, FLEX_NORMAL.LENT) == 6
        await bench.command(ctx, SECURE, C.RELEASE, P + 4, 2)
        await bench.until(ctx, lambda: bench.state(P + 5) is S.NORMAL, "the scrub")
        assert await bench.peek(ctx, FLEX_NORMAL.SIZE_REQUEST) == 1
        assert not await bench.peek(ctx, FLEX_NORMAL.IRQ_STATUS) & 4
        await bench.command(ctx, SECURE, C.RELEASE, P, 2)
        await bench.until(ctx, lambda: bench.state(P + 1) is S.NORMAL, "the scrub")
        assert await bench.peek(ctx, FLEX_NORMAL.SIZE_REQUEST) == 0
        assert await bench.peek(ctx, FLEX_NORMAL.IRQ_STATUS) & 6 == 6
        assert await bench.peek(ctx, FLEX_NORMAL.LENT) == 2
        freed = [await bench.peek(ctx, FLEX_NORMAL.FREED_POP) & 0xFFFFF for _ in range(4)]
        assert freed == [P + 4, P + 5, P, P + 1]

    make_filter_bench().run(scenario)


def test_full_freed_queue_holds_the_scrubber_and_loses_no_report():
    async def scenario(bench, ctx):
        await bench.boot(ctx)
        await bench.lend(ctx, P, 8)
        await bench.command(ctx, SECURE, C.RELEASE, P, 8)
        await ctx.tick().repeat(500)
        assert await bench.peek(ctx, FLEX_NORMAL.FREED_COUNT) == 4
        assert await bench.peek(ctx, FLEX_NORMAL.SCRUB_BACKLOG) == 4
        freed = []
        while len(freed) < 8:
            value = await bench.peek(ctx, FLEX_NORMAL.FREED_POP)
            if value >> 31:
                freed.append(value & 0xFFFFF)
        assert sorted(freed) == list(range(P, P + 8))
        assert freed == bench.golden.freed

    make_filter_bench(params=small(freed_depth=4)).run(scenario)


@pytest.mark.parametrize("failures", [1, 3])
def test_page_whose_scrub_fails_stays_and_is_scrubbed_again(failures):
    """SEC-01: NORMAL is reported only after memory said OKAY to every zero."""

    async def scenario(bench, ctx):
        await bench.boot(ctx)
        await bench.lend(ctx, P, 1)
        bench.memory.fail_scrubs = failures
        before = len(bench.memory.scrub_addresses)
        await bench.command(ctx, SECURE, C.RELEASE, P, 1)
        await bench.until(ctx, lambda: bench.state(P) is S.NORMAL, "the scrub")
        bursts = len(bench.memory.scrub_addresses) - before
        assert bursts == 2 * (1 + (failures + 1) // 2), "a failed page is written over in full"
        assert bench.memory.fail_scrubs == 0

    make_filter_bench().run(scenario)


def test_state_query_tells_the_state_and_whether_the_page_is_in_the_window():
    async def scenario(bench, ctx):
        await bench.boot(ctx)
        await bench.lend(ctx, P + 2)
        for frame in (FLEX_NORMAL, FLEX_SECURE):
            for pfn, answer in ((P + 2, S.FLEX | 1 << 8), (P + 3, S.NORMAL | 1 << 8), (P - 1, 0), (P + 12, 0)):
                await bench.poke(ctx, frame.QUERY_PAGE, pfn)
                await ctx.tick().repeat(4)
                assert await bench.peek(ctx, frame.QUERY_STATE) == answer

    make_filter_bench().run(scenario)


def test_command_registers_hold_still_while_the_command_is_busy():
    """SEC-06: a write to them answers SLVERR and changes nothing."""

    async def scenario(bench, ctx):
        await bench.boot(ctx)
        bench.memory.hold_answers = True
        old = bench.write(P * PAGE)
        await bench.until(ctx, lambda: old.accepted >= 0, "acceptance")
        await bench.start(ctx, NORMAL, C.DELEGATE, P, 2)
        for register in ("FIRST", "COUNT", "TICKET", "COMMAND"):
            assert await bench.poke(ctx, getattr(FLEX_NORMAL.CMD, register), C.CANCEL)
        assert await bench.peek(ctx, FLEX_NORMAL.CMD.FIRST) == P
        assert not await bench.peek(ctx, FLEX_NORMAL.IRQ_STATUS) & 1
        bench.memory.hold_answers = False
        assert (await bench.finished(ctx, NORMAL))[0] is R.OK
        assert await bench.peek(ctx, FLEX_NORMAL.IRQ_STATUS) & 1
        assert not await bench.poke(ctx, FLEX_NORMAL.CMD.FIRST, P + 1)

    make_filter_bench().run(scenario)

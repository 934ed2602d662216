"""The filter at work: boot, lending, denial, recall."""

from flexserve_sw.regs import FLEX_NORMAL
from tests.hw.tzasc.bench import NORMAL, PAGE, SECURE, WINDOW_PFN, C, R, S, make_filter_bench

P = WINDOW_PFN
CACHE_LINES = [None, 2]


def test_window_is_zeroed_at_boot_and_nothing_is_reported_as_freed():
    async def scenario(bench, ctx):
        await bench.boot(ctx)
        assert len(bench.scrubbed) == bench.pages
        assert await bench.peek(ctx, FLEX_NORMAL.FREED_COUNT) == 0
        assert await bench.peek(ctx, FLEX_NORMAL.WINDOW_PAGES) == bench.pages

    make_filter_bench().run(scenario)


def test_lent_page_belongs_to_the_secure_world_alone():
    async def scenario(bench, ctx):
        await bench.boot(ctx)
        await bench.lend(ctx, P + 1, 3)
        secret = bench.write(P * PAGE + PAGE, SECURE, beats=4)
        await bench.done(ctx, secret)
        stolen, smashed = bench.read(P * PAGE + PAGE, NORMAL, beats=4), bench.write(P * PAGE + PAGE, NORMAL, beats=4)
        own = bench.read(P * PAGE + PAGE, SECURE, beats=4)
        await bench.done(ctx, stolen, smashed, own)
        assert (stolen.allowed, smashed.allowed, own.allowed) == (False, False, True)
        assert stolen.got == [0] * 4
        assert own.got == secret.data

    make_filter_bench().run(scenario)


def test_released_page_comes_back_zeroed_and_is_reported():
    async def scenario(bench, ctx):
        await bench.boot(ctx)
        await bench.lend(ctx, P, 2)
        secret = bench.write(P * PAGE, SECURE, beats=4)
        await bench.done(ctx, secret)
        assert await bench.command(ctx, SECURE, C.RELEASE, P, 2) == (R.OK, 0)
        await bench.until(ctx, lambda: bench.state(P) is S.NORMAL and bench.state(P + 1) is S.NORMAL, "the scrub")
        freed = [await bench.peek(ctx, FLEX_NORMAL.FREED_POP) for _ in range(3)]
        assert freed == [P | 1 << 31, P + 1 | 1 << 31, 0]
        back = bench.read(P * PAGE, NORMAL, beats=4)
        await bench.done(ctx, back)
        assert back.allowed
        assert back.got == [0] * 4

    make_filter_bench().run(scenario)

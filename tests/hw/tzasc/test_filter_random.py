"""Random traffic and random commands of both worlds against the golden model, under back-pressure."""

import pytest

from flexserve_sw.regs import FLEX_NORMAL, FLEX_SECURE
from tests.hw.tzasc.bench import NORMAL, PAGE, SECURE, WINDOW_PFN, C, R, S, make_filter_bench
from tests.hw.tzasc.table_memory import TABLE_PFN

CACHE_LINES = [None, 1, 2]
_NORMAL_COMMANDS = (C.DELEGATE, C.RECALL, C.CANCEL)
_SECURE_COMMANDS = (C.ACCEPT, C.RELEASE)


def _burst(bench):
    """A burst of any kind, mostly legal, in or next to the window."""
    rng = bench.random
    size = rng.choice([7, 7, 7, rng.randrange(8)])
    pfn = WINDOW_PFN + rng.randrange(-1, bench.pages + 1)
    if bench.table and rng.random() < 0.05:
        pfn = TABLE_PFN
    kind = rng.choice([1, 1, 1, 1, 0, 2])
    beats = rng.choice([1, 1, 2, 3, 4, 8]) if kind != 2 else rng.choice([2, 4, 8, 3])
    offset = rng.randrange(PAGE >> size) << size
    if kind == 1 and rng.random() < 0.9:
        offset = min(offset, PAGE - (beats << size))
    options = {
        "world": rng.choice([NORMAL, SECURE]),
        "id": rng.randrange(8),
        "nsaid": rng.randrange(4),
        "beats": beats,
        "size": size,
        "kind": kind,
    }
    bench.write(pfn * PAGE + offset, **options) if rng.random() < 0.5 else bench.read(pfn * PAGE + offset, **options)


def _command(bench, world):
    """A command of ``world``: often one that the states permit, sometimes any."""
    rng = bench.random
    first = WINDOW_PFN + rng.randrange(bench.pages)
    count = rng.choice([1, 1, 2, 3, 5])
    if rng.random() < 0.08:
        return (
            rng.randrange(16),
            WINDOW_PFN + rng.randrange(-2, bench.pages + 2),
            rng.choice([0, 1, 2, 30, (1 << 32) - 1]),
        )
    if world is NORMAL:
        code = {S.NORMAL: C.DELEGATE, S.FLEX: C.RECALL}.get(bench.state(first), C.DELEGATE)
        return (C.CANCEL if rng.random() < 0.1 else code), first, count
    return {S.DELEGATED: C.ACCEPT}.get(bench.state(first), C.RELEASE), first, count


def _is_seal_of_normal(bench, code, first, count):
    return code == C.SEAL and any(bench.state(p) is not S.FLEX for p in range(first, first + min(count, 40)))


async def _adversity(bench, ctx, *, cycles):
    rng = bench.random
    await bench.boot(ctx, lock=False, grace=150)
    running, finished = [False, False], 0
    while bench.cycle < cycles:
        while len(bench.aw) < 4 and len(bench.ar) < 4:
            _burst(bench)
        for n, world in enumerate((NORMAL, SECURE)):
            frame = FLEX_SECURE if world is SECURE else FLEX_NORMAL
            if running[n]:
                if not await bench.peek(ctx, frame.CMD.STATUS) & 1:
                    await bench.finished(ctx, world)
                    running[n], finished = False, finished + 1
            elif rng.random() < 0.3:
                code, first, count = _command(bench, world)
                if not _is_seal_of_normal(bench, code, first, count):
                    await bench.start(ctx, world, code, first, count)
                    running[n] = True
        if rng.random() < 0.05:
            pages = rng.randrange(3)
            await bench.poke(ctx, FLEX_NORMAL.SIZE_REQUEST, pages)
            bench.golden.owed += pages
        if rng.random() < 0.1:
            await _pop(bench, ctx)
        await ctx.tick().repeat(rng.randrange(1, 9))
    for n, world in enumerate((NORMAL, SECURE)):
        if running[n]:
            await bench.finished(ctx, world)
    await bench.idle(ctx)
    allowed = sum(b.allowed for b in bench.accepted)
    assert len(bench.accepted) > 200, "too little traffic to mean anything"
    assert 0.1 < allowed / len(bench.accepted) < 0.9
    assert finished > 30
    assert bench.scrubbed[bench.pages :], "nothing was scrubbed after boot"
    assert bench.expiries, "no grace period ran out"


async def _pop(bench, ctx):
    """The queue gives what the golden model freed, in its order, or is behind by what arrives in this very cycle."""
    value = await bench.peek(ctx, FLEX_NORMAL.FREED_POP)
    if value >> 31:
        assert bench.golden.freed
        assert value & ~(1 << 31) == bench.golden.freed.pop(0)
    else:
        assert len(bench.golden.freed) <= 1


@pytest.mark.parametrize(("seed", "stall"), [(11, 0.0), (12, 0.3)])
def test_random_adversity_agrees_with_the_golden_model(seed, stall):
    async def scenario(bench, ctx):
        await _adversity(bench, ctx, cycles=3600 if bench.table else 2400)

    bench = make_filter_bench(seed=seed, stall=stall, latency=6).run(scenario)
    if bench.table:
        assert any(b.pfn == TABLE_PFN for b in bench.accepted)
        assert sum(b.missed for b in bench.accepted) > 50, "too few lookups were fetched to mean anything"
    results = {R(r) for r in bench.results}
    assert {R.OK, R.BAD_STATE, R.OUT_OF_WINDOW} <= results

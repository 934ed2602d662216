"""Who can reach which page in which state, and what stands in the way of transactions in flight."""

import pytest

from flexserve_sw.recall import ACCESS
from flexserve_sw.regs import FLEX_NORMAL, TZC
from tests.hw.tzasc.bench import DRAM_PFN, NORMAL, PAGE, SECURE, WINDOW_PFN, C, R, S, make_filter_bench, small

P = WINDOW_PFN
CACHE_LINES = [None, 2]


async def _into(bench, ctx, state, pfn):
    """Bring a page from NORMAL into ``state`` by commands. A held write answer keeps SCRUBBING from ending."""
    if state is S.NORMAL:
        return
    await bench.command(ctx, NORMAL, C.DELEGATE, pfn)
    if state is S.DELEGATED:
        return
    await bench.command(ctx, SECURE, C.ACCEPT, pfn)
    steps = {S.RECALLING: (NORMAL, C.RECALL), S.SCRUBBING: (SECURE, C.RELEASE), S.SEALED: (SECURE, C.SEAL)}
    if state in steps:
        assert (await bench.command(ctx, *steps[state], pfn))[0] is R.OK


@pytest.mark.parametrize("state", [s for s in S if s is not S.CORRUPT])
def test_each_state_gives_access_to_its_world_alone(state):
    """SEC-01, SEC-02 and SEC-03 in rest: every state, both worlds, both directions."""

    async def scenario(bench, ctx):
        await bench.boot(ctx, lock=False, grace=2000)
        bench.memory.hold_scrub_answers = True
        await _into(bench, ctx, state, P + 5)
        assert bench.state(P + 5) is state
        for world in (NORMAL, SECURE):
            write, read = bench.write((P + 5) * PAGE, world, beats=2), bench.read((P + 5) * PAGE + 256, world, beats=2)
            await bench.done(ctx, write, read)
            assert write.allowed == read.allowed == (world in ACCESS[state])
            assert (read.got == [0, 0]) or read.allowed
        bench.memory.hold_scrub_answers = False

    make_filter_bench().run(scenario)


def test_pages_outside_the_window_follow_the_regions_alone():
    async def scenario(bench, ctx):
        await bench.boot(ctx)
        bursts = []
        for pfn in (P - 1, P + bench.pages, DRAM_PFN):
            for world in (NORMAL, SECURE):
                bursts += [bench.read(pfn * PAGE, world), bench.write(pfn * PAGE + PAGE - 128, world)]
        await bench.done(ctx, *bursts)
        assert all(b.allowed for b in bursts)

    make_filter_bench().run(scenario)


@pytest.mark.parametrize("answered_late", ["write", "read"])
def test_command_is_reported_only_after_old_transactions_are_answered(answered_late):
    """SEC-06: the state takes effect at once, the report waits; the next command of the other world waits too."""

    async def scenario(bench, ctx):
        await bench.boot(ctx)
        bench.memory.hold_answers = answered_late == "write"
        bench.memory.hold_reads = answered_late == "read"
        old = bench.write(P * PAGE, beats=2) if answered_late == "write" else bench.read(P * PAGE, beats=2)
        await bench.until(ctx, lambda: old.accepted >= 0, "acceptance")
        await bench.start(ctx, NORMAL, C.DELEGATE, P)
        await bench.until(ctx, lambda: bench.state(P) is S.DELEGATED, "the new state")
        await bench.start(ctx, SECURE, C.ACCEPT, P)
        await ctx.tick().repeat(60)
        assert await bench.peek(ctx, FLEX_NORMAL.CMD.STATUS) & 1, "reported while an old transaction is in flight"
        assert bench.state(P) is S.DELEGATED, "accepted while a write from before the lending is in flight"
        bench.memory.hold_answers = bench.memory.hold_reads = False
        assert (await bench.finished(ctx, NORMAL))[0] is R.OK
        assert (await bench.finished(ctx, SECURE))[0] is R.OK
        assert old.allowed
        assert old.answered >= 0

    make_filter_bench().run(scenario)


def test_unrelated_traffic_is_not_stalled_while_a_command_drains():
    """SEC-06: one address is accepted per cycle, before, during and after a drain that takes long."""

    async def scenario(bench, ctx):
        await bench.boot(ctx)
        await bench.done(ctx, bench.read((P + 4) * PAGE))
        bench.memory.hold_answers = True
        old = bench.write(P * PAGE, id=7)
        await bench.until(ctx, lambda: old.accepted >= 0, "acceptance")
        await bench.start(ctx, NORMAL, C.DELEGATE, P, 4)
        reads = [bench.read((P + 4) * PAGE + 128 * n, id=n % 4) for n in range(24)]
        await bench.done(ctx, *reads)
        assert [b.accepted for b in reads] == list(range(reads[0].accepted, reads[0].accepted + 24))
        assert await bench.peek(ctx, FLEX_NORMAL.CMD.STATUS) & 1
        bench.memory.hold_answers = False
        await bench.finished(ctx, NORMAL)

    make_filter_bench().run(scenario)


@pytest.mark.parametrize("offset", range(0, 15, 3))
def test_state_change_around_an_acceptance_never_leaks(offset):
    """SEC-01, SEC-02: normal reads and writes flow in every cycle around a DELEGATE, ACCEPT and first secret."""

    async def scenario(bench, ctx):
        await bench.boot(ctx)
        normal = []
        for n in range(40):
            normal += [bench.read(P * PAGE, id=n % 2), bench.write(P * PAGE, id=n % 2)]
        await ctx.tick().repeat(offset + 1)
        await bench.start(ctx, NORMAL, C.DELEGATE, P)
        await bench.start(ctx, SECURE, C.ACCEPT, P)
        secret = [bench.write(P * PAGE, SECURE, id=4 + n % 2) for n in range(20)]
        own = [bench.read(P * PAGE, SECURE, id=4 + n % 2) for n in range(20)]
        await bench.done(ctx, *normal, *secret, *own)
        await bench.finished(ctx, NORMAL)
        await bench.finished(ctx, SECURE)

    make_filter_bench(latency=offset % 5).run(scenario)


def test_write_data_that_comes_late_goes_by_the_verdict_of_its_address():
    """SEC-01, SEC-02: a secure write accepted in FLEX, its beats after RELEASE, lands before the first scrub beat."""

    async def scenario(bench, ctx):
        await bench.boot(ctx)
        await bench.lend(ctx, P, 1)
        late = bench.write(P * PAGE, SECURE, beats=4, gap=40)
        await bench.until(ctx, lambda: late.accepted >= 0, "acceptance")
        scrubs = len(bench.memory.scrub_addresses)
        await bench.start(ctx, SECURE, C.RELEASE, P)
        await bench.until(ctx, lambda: late.answered >= 0, "the late write")
        assert len(bench.memory.scrub_addresses) == scrubs, "scrubbing began before the old write was answered"
        await bench.finished(ctx, SECURE)
        await bench.until(ctx, lambda: bench.state(P) is S.NORMAL, "the scrub")
        assert late.allowed

    make_filter_bench().run(scenario)


def test_denied_write_beats_do_not_reach_a_page_permitted_meanwhile():
    """SEC-02: an address denied stays denied, however late its data."""

    async def scenario(bench, ctx):
        await bench.boot(ctx)
        await bench.command(ctx, NORMAL, C.DELEGATE, P)
        late = bench.write(P * PAGE, NORMAL, beats=3, gap=30)
        await bench.until(ctx, lambda: late.accepted >= 0, "acceptance")
        await bench.start(ctx, NORMAL, C.CANCEL, P)
        await bench.until(ctx, lambda: bench.state(P) is S.NORMAL, "the cancellation")
        await bench.done(ctx, late)
        await bench.finished(ctx, NORMAL)
        assert not late.allowed
        assert set(bench.memory.page(P)) == {(0, NORMAL)}

    make_filter_bench().run(scenario)


def test_recalled_page_delegated_again_needs_a_new_acceptance():
    """SEC-04: between the second DELEGATE and the second ACCEPT the secure world has no access."""

    async def scenario(bench, ctx):
        await bench.boot(ctx, grace=60)
        await bench.lend(ctx, P)
        assert (await bench.command(ctx, NORMAL, C.RECALL, P))[0] is R.OK
        await bench.until(ctx, lambda: bench.state(P) is S.NORMAL, "the recall")
        assert (await bench.command(ctx, NORMAL, C.DELEGATE, P))[0] is R.OK
        stale = bench.read(P * PAGE, SECURE)
        await bench.done(ctx, stale)
        assert not stale.allowed
        assert (await bench.command(ctx, SECURE, C.ACCEPT, P))[0] is R.OK
        fresh = bench.read(P * PAGE, SECURE)
        await bench.done(ctx, fresh)
        assert fresh.allowed

    make_filter_bench().run(scenario)


_DELEGATIONS = (
    (P - 1, 2, R.OUT_OF_WINDOW, P - 1),
    (P + 10, 3, R.OUT_OF_WINDOW, P + 12),
    (P, 0, R.OUT_OF_WINDOW, P),
    (P, 0xFFFFFFFF, R.OUT_OF_WINDOW, P + 12),
    (0x10, 1, R.OUT_OF_WINDOW, 0x10),
    (P + 0x100000, 1, R.OUT_OF_WINDOW, P + 0x100000),
    (P, 12, R.BAD_STATE, P + 6),
    (P + 6, 1, R.BAD_STATE, P + 6),
    (P + 7, 5, R.OK, 0),
    (P, 6, R.OK, 0),
)


def test_delegate_is_refused_as_a_whole_and_names_the_first_offender():
    """SEC-05: MMIO, wrapping, empty and too long ranges, and a page lent already."""

    async def scenario(bench, ctx):
        await bench.boot(ctx)
        await bench.lend(ctx, P + 6)
        for first, count, result, offender in _DELEGATIONS:
            before = dict(bench.shadow)
            assert await bench.command(ctx, NORMAL, C.DELEGATE, first, count) == (result, offender)
            changed = {p for p in before if bench.shadow[p] is not before[p]}
            assert changed == (set(range(first, first + count)) if result is R.OK else set())

    make_filter_bench().run(scenario)


def test_nothing_passes_and_commands_are_refused_until_the_window_is_ready():
    """Fail closed: until the last page is scrubbed the gate stays closed though it is asked to open."""

    async def scenario(bench, ctx):
        await bench.boot(ctx, wait=False, lock=False)
        burst = bench.read((P + 11) * PAGE, NORMAL), bench.write((P - 1) * PAGE, SECURE)
        await ctx.tick().repeat(40)
        assert await bench.peek(ctx, TZC.GATE_KEEPER) == 1
        assert [b.accepted for b in burst] == [-1, -1]
        bench.windowless = True
        assert await bench.command(ctx, NORMAL, C.DELEGATE, P) == (R.OUT_OF_WINDOW, P)
        bench.windowless = False
        await bench.ready(ctx)
        assert await bench.peek(ctx, TZC.GATE_KEEPER) == 1 << 16 | 1
        await bench.done(ctx, *burst)
        ready = next(cycle for cycle, pfn, _, _ in reversed(bench.events) if pfn in range(P, P + bench.pages))
        assert all(b.allowed and b.accepted > ready for b in burst)
        assert await bench.command(ctx, NORMAL, C.DELEGATE, P) == (R.OK, 0)

    make_filter_bench().run(scenario)


def test_lie_about_the_last_beat_shifts_no_data_into_another_burst():
    """SEC-02: WLAST is not believed; a denied burst cannot push its beats into an allowed or scrubbed page."""

    async def scenario(bench, ctx):
        await bench.boot(ctx)
        await bench.lend(ctx, P)
        bench.write(P * PAGE, NORMAL, beats=4, last=[True] * 4)
        bench.write((P + 1) * PAGE, NORMAL, beats=4, last=[False] * 4, id=1)
        bench.write(P * PAGE, SECURE, beats=2, id=2)
        bench.write((P + 2) * PAGE, NORMAL, beats=3, last=[True, False, False], id=3)
        await bench.idle(ctx)
        assert [b.allowed for b in bench.accepted] == [False, True, True, True]

    make_filter_bench(params=small(), stall=0.2).run(scenario)

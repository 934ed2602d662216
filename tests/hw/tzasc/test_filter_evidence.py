"""Denial, its record and its timing; upsets of stored state; configuration and gate."""

import pytest
from amaranth.hdl import Value

from flexserve_hw.bus.axi4 import Resp
from flexserve_hw.tzasc.states import CODE_WIDTH
from flexserve_sw.regs import FLEX_NORMAL, FLEX_SECURE, TZC
from tests.hw.tzasc.bench import NORMAL, PAGE, SECURE, WINDOW_PFN, C, R, S, make_filter_bench

P = WINDOW_PFN


def test_first_violation_is_kept_and_later_ones_are_counted():
    """SEC-13: a flood of later violations erases nothing."""

    async def scenario(bench, ctx):
        await bench.boot(ctx, action=3)
        await bench.lend(ctx, P, 2)
        first = bench.write(P * PAGE + 0x280, NORMAL, id=5, nsaid=3, beats=2)
        await bench.done(ctx, first)
        flood = [bench.read((P + 1) * PAGE + 128 * n, NORMAL, id=n % 8, nsaid=2) for n in range(20)]
        flood.append(bench.read((P + 4) * PAGE, SECURE))
        await bench.done(ctx, *flood)
        assert await bench.peek(ctx, TZC.INT_STATUS) == 0x101
        assert ctx.get(bench.dut.irq_tzc) == 1
        assert await bench.peek(ctx, TZC.FAIL_ADDRESS_LOW) == P * PAGE + 0x280
        assert await bench.peek(ctx, TZC.FAIL_CONTROL) == 1 << 24 | 1 << 21
        assert await bench.peek(ctx, TZC.FAIL_ID) == 5 | 3 << 24
        assert await bench.peek(ctx, FLEX_SECURE.VIOLATIONS) == 22
        await bench.poke(ctx, TZC.INT_CLEAR, 1)
        assert await bench.peek(ctx, TZC.INT_STATUS) == 0
        assert ctx.get(bench.dut.irq_tzc) == 0
        second = bench.read((P + 4) * PAGE, SECURE, id=1)
        await bench.done(ctx, second)
        assert await bench.peek(ctx, TZC.INT_STATUS) == 1
        assert await bench.peek(ctx, TZC.FAIL_ADDRESS_LOW) == (P + 4) * PAGE
        assert await bench.peek(ctx, TZC.FAIL_CONTROL) == 0
        assert await bench.peek(ctx, FLEX_SECURE.VIOLATIONS) == 23

    make_filter_bench().run(scenario)


def test_action_decides_response_and_interrupt():
    async def scenario(bench, ctx):
        await bench.boot(ctx)
        for action, resp in enumerate((Resp.OKAY, Resp.DECERR, Resp.OKAY, Resp.DECERR)):
            bench.denied_resp = resp
            await bench.poke(ctx, TZC.INT_CLEAR, 1)
            await bench.poke(ctx, TZC.ACTION, action)
            denied = bench.read(P * PAGE, SECURE, beats=3), bench.write(P * PAGE, SECURE, beats=3)
            await bench.done(ctx, *denied)
            assert denied[0].resp == [resp] * 3
            assert denied[1].resp == [resp]
            assert ctx.get(bench.dut.irq_tzc) == action >> 1
            assert await bench.peek(ctx, TZC.INT_STATUS) == 0x101

    make_filter_bench().run(scenario)


def test_every_upset_bit_of_a_stored_state_denies_both_worlds_and_raises_the_alarm():
    """SEC-11: each of the six bits, in two states; nothing but boot overwrites what is corrupt."""

    async def scenario(bench, ctx):
        await bench.boot(ctx)
        await bench.lend(ctx, P, 4)
        group, row = bench.params.group, bench.dut.core.table.states.data[0]
        for pfn in (P + 1, P + 3):
            for bit in range(CODE_WIDTH):
                flip = 1 << (bit * group + pfn - P)
                good = ctx.get(row)
                ctx.set(row, good ^ flip)
                await ctx.tick()
                bench.corrupt = pfn
                reads = [bench.read(pfn * PAGE, world) for world in (NORMAL, SECURE)]
                writes = [bench.write(pfn * PAGE, world) for world in (NORMAL, SECURE)]
                await bench.done(ctx, *reads, *writes)
                assert not any(b.allowed for b in reads + writes)
                assert await bench.peek(ctx, FLEX_SECURE.ALARM) == 1
                assert await bench.peek(ctx, FLEX_SECURE.ALARM_PAGE) == pfn
                assert await bench.peek(ctx, FLEX_SECURE.IRQ_STATUS) & 16
                await bench.poke(ctx, FLEX_SECURE.QUERY_PAGE, pfn)
                await ctx.tick().repeat(4)
                assert await bench.peek(ctx, FLEX_SECURE.QUERY_STATE) == S.CORRUPT | 1 << 8
                bench.golden.states[pfn - P] = bench.shadow[pfn] = S.CORRUPT
                assert await bench.command(ctx, SECURE, C.RELEASE, P, 4) == (R.CORRUPT_STATE, pfn)
                assert await bench.command(ctx, NORMAL, C.RECALL, pfn) == (R.CORRUPT_STATE, pfn)
                bench.golden.states[pfn - P] = bench.shadow[pfn] = S.FLEX
                bench.corrupt = None
                assert ctx.get(row) == good ^ flip
                ctx.set(row, good)
                await bench.poke(ctx, FLEX_SECURE.ALARM, 1)
                assert await bench.peek(ctx, FLEX_SECURE.ALARM) == 0
        own = bench.read(P * PAGE, SECURE)
        await bench.done(ctx, own)
        assert own.allowed

    make_filter_bench().run(scenario)


@pytest.mark.parametrize("copy", ["stored", "complement"])
def test_every_upset_bit_of_the_window_denies_everything_and_raises_the_alarm(copy):
    """SEC-11: pages, base and initialisation, in both copies; no page of the window drops out of its protection."""

    async def scenario(bench, ctx):
        await bench.boot(ctx)
        await bench.lend(ctx, P, 4)
        secret = bench.write(P * PAGE, SECURE)
        await bench.done(ctx, secret)
        await bench.idle(ctx)
        signal = Value.cast(getattr(bench.dut.core.window, copy))
        good = ctx.get(signal)
        bench.region_allows = lambda burst: False
        bench.windowless = True
        for bit in range(len(signal)):
            ctx.set(signal, good ^ 1 << bit)
            await ctx.tick().repeat(2)
            assert await bench.peek(ctx, FLEX_SECURE.ALARM) == 1
            assert await bench.peek(ctx, FLEX_SECURE.ALARM_PAGE) == 0
            assert await bench.peek(ctx, FLEX_SECURE.IRQ_STATUS) & 16
            bursts = [bench.read(pfn * PAGE, world) for pfn in (P - 1, P, P + 4) for world in (NORMAL, SECURE)]
            bursts += [bench.write(pfn * PAGE, world) for pfn in (P - 1, P, P + 4) for world in (NORMAL, SECURE)]
            await bench.done(ctx, *bursts)
            assert not any(b.allowed for b in bursts)
            result = await bench.command(ctx, NORMAL, C.DELEGATE, P + 4)
            assert result == (R.OUT_OF_WINDOW, P + 4)
            await bench.poke(ctx, FLEX_SECURE.QUERY_PAGE, P)
            await ctx.tick().repeat(4)
            assert await bench.peek(ctx, FLEX_SECURE.QUERY_STATE) == 0
            ctx.set(signal, good)
            await ctx.tick()
            await bench.poke(ctx, FLEX_SECURE.ALARM, 1)
            assert await bench.peek(ctx, FLEX_SECURE.ALARM) == 0
            await bench.poke(ctx, FLEX_SECURE.IRQ_STATUS, 16)
        bench.region_allows = lambda burst: True
        bench.windowless = False
        own = bench.read(P * PAGE, SECURE)
        await bench.done(ctx, own)
        assert own.got == secret.data

    make_filter_bench().run(scenario)


def test_upset_of_the_window_stops_the_scrubber_from_writing_anywhere():
    async def scenario(bench, ctx):
        await bench.boot(ctx)
        await bench.lend(ctx, P, 8)
        await bench.start(ctx, SECURE, C.RELEASE, P, 8)
        scrubs = len(bench.memory.scrub_addresses)
        await bench.until(ctx, lambda: len(bench.memory.scrub_addresses) > scrubs + 1, "the scrub")
        signal = Value.cast(bench.dut.core.window.stored)
        ctx.set(signal, ctx.get(signal) ^ 1 << 6)
        await ctx.tick().repeat(2)
        sent = len(bench.memory.scrub_addresses)
        await ctx.tick().repeat(300)
        assert len(bench.memory.scrub_addresses) == sent
        assert S.SCRUBBING in bench.shadow.values()

    make_filter_bench().run(scenario)


def test_latency_of_a_denied_access_tells_nothing_about_the_page():
    """SEC-12: the same cycles in every state that denies, for a region's denial, and whatever the page holds."""
    seen = {}

    async def scenario(bench, ctx):
        await bench.boot(ctx, lock=False, grace=4000)
        bench.memory.hold_scrub_answers = True
        await bench.command(ctx, NORMAL, C.DELEGATE, P, 5)
        await bench.command(ctx, SECURE, C.ACCEPT, P + 1, 4)
        await bench.command(ctx, NORMAL, C.RECALL, P + 2)
        await bench.command(ctx, SECURE, C.RELEASE, P + 3)
        await bench.command(ctx, SECURE, C.SEAL, P + 4)
        await bench.done(ctx, *(bench.write((P + 1) * PAGE, SECURE, data=[(1 << 1024) - 1]) for _ in range(2)))
        await bench.idle(ctx)
        for pfn, state in enumerate((S.DELEGATED, S.FLEX, S.RECALLING, S.SCRUBBING, S.SEALED), P):
            assert bench.state(pfn) is state
            read = bench.read(pfn * PAGE, NORMAL, beats=4)
            await bench.done(ctx, read)
            write = bench.write(pfn * PAGE, NORMAL, beats=4)
            await bench.done(ctx, write)
            seen[state] = (read.answered - read.accepted, write.answered - write.accepted)
        outside = bench.read((P + 1) * PAGE - 128, NORMAL, beats=4)
        await bench.done(ctx, outside)
        seen["burst across pages"] = (outside.answered - outside.accepted, seen[S.FLEX][1])
        bench.memory.hold_scrub_answers = False

    make_filter_bench().run(scenario)
    assert len(seen) == 6
    assert len(set(seen.values())) == 1, seen


def test_lock_freezes_configuration_and_refuses_seal():
    """SEC-08: after the lock, window, grace, managers and sealing are out of reach until reset."""

    async def scenario(bench, ctx):
        await bench.boot(ctx, lock=False)
        await bench.lend(ctx, P, 2)
        assert (await bench.command(ctx, SECURE, C.SEAL, P))[0] is R.OK
        await bench.poke(ctx, FLEX_SECURE.MANAGERS, 0b11)
        assert ctx.get(bench.dut.managers) == 0b11
        await bench.lock(ctx)
        before = [await bench.peek(ctx, r) for r in _configuration()]
        for register in _configuration():
            await bench.poke(ctx, register, 0x7777)
        await bench.poke(ctx, FLEX_SECURE.CONTROL, 0)
        assert [await bench.peek(ctx, r) for r in _configuration()] == before
        assert await bench.peek(ctx, FLEX_SECURE.CONTROL) == 7
        assert await bench.command(ctx, SECURE, C.SEAL, P + 1) == (R.NOT_PERMITTED, P + 1)
        for world, code in ((NORMAL, C.ACCEPT), (NORMAL, C.RELEASE), (SECURE, C.DELEGATE), (SECURE, C.RECALL)):
            assert await bench.command(ctx, world, code, P) == (R.NOT_PERMITTED, P)

    make_filter_bench().run(scenario)


def _configuration():
    return (FLEX_SECURE.WINDOW_BASE, FLEX_SECURE.WINDOW_PAGES, FLEX_SECURE.GRACE, FLEX_SECURE.MANAGERS)


@pytest.mark.parametrize(
    ("base", "pages"),
    [(P, 0), (P, 36), (P + 1, 8), (P, 6), (0xFFFFC, 8), (0x100000, 4), (0xFFFFFFFC, 4)],
)
def test_unsound_window_never_becomes_ready_and_keeps_the_gate_closed(base, pages):
    """Fail closed: empty, beyond the table, unaligned, or past the end of the address space."""

    async def scenario(bench, ctx):
        await bench.poke(ctx, FLEX_SECURE.WINDOW_BASE, base)
        await bench.poke(ctx, FLEX_SECURE.WINDOW_PAGES, pages)
        await bench.poke(ctx, FLEX_SECURE.CONTROL, 2)
        for register, value in ((TZC.REGION[0].ATTRIBUTES, 3 << 30), (TZC.REGION[0].ID_ACCESS, 0xFFFFFFFF)):
            await bench.poke(ctx, register, value)
        await bench.poke(ctx, TZC.GATE_KEEPER, 1)
        held = bench.read(P * PAGE), bench.write(P * PAGE, SECURE)
        await ctx.tick().repeat(100)
        assert await bench.peek(ctx, TZC.GATE_KEEPER) == 1
        assert [b.accepted for b in held] == [-1, -1]
        for queue in (bench.ar, bench.aw, bench.w):
            queue.clear()
        assert await bench.peek(ctx, FLEX_SECURE.CONTROL) == 2
        assert await bench.peek(ctx, FLEX_NORMAL.WINDOW_PAGES) == 0
        assert not bench.memory.scrub_addresses

    make_filter_bench().run(scenario)


def test_gate_is_closed_at_reset_and_closing_waits_for_what_was_accepted():
    async def scenario(bench, ctx):
        early = bench.read(0x8000_0000)
        await ctx.tick().repeat(40)
        assert early.accepted < 0
        assert await bench.peek(ctx, TZC.GATE_KEEPER) == 0
        await bench.boot(ctx)
        await bench.done(ctx, early)
        bench.memory.hold_answers = True
        old = bench.write(0x8000_0000)
        await bench.until(ctx, lambda: old.accepted >= 0, "acceptance")
        await bench.poke(ctx, TZC.GATE_KEEPER, 0)
        late = bench.write(0x8000_0000), bench.read(0x8000_0000)
        await ctx.tick().repeat(20)
        assert await bench.peek(ctx, TZC.GATE_KEEPER) == 1 << 16
        bench.memory.hold_answers = False
        await bench.done(ctx, old)
        assert await bench.peek(ctx, TZC.GATE_KEEPER) == 0
        assert [b.accepted for b in late] == [-1, -1]
        await bench.lend(ctx, P)
        await bench.command(ctx, SECURE, C.RELEASE, P)
        await bench.until(ctx, lambda: bench.state(P) is S.NORMAL, "scrubbing behind a closed gate")
        await bench.poke(ctx, TZC.GATE_KEEPER, 1)
        await bench.done(ctx, *late)

    make_filter_bench().run(scenario)


def test_access_needs_both_region_and_page():
    """A region that names other NSAIDs, or an overlap, denies what the page would allow; and never the reverse."""

    async def scenario(bench, ctx):
        await bench.boot(ctx)
        one, two = TZC.REGION[1], TZC.REGION[2]
        for region, base, top in ((one, P, P + 3), (two, P + 3, P + 5)):
            await bench.poke(ctx, region.BASE_LOW, base * PAGE)
            await bench.poke(ctx, region.TOP_LOW, top * PAGE)
            await bench.poke(ctx, region.ATTRIBUTES, 1 << 30 | 1)
            await bench.poke(ctx, region.ID_ACCESS, 0b0100 << 16 | 0b0110)

        def allows(burst):
            inside = [base <= burst.pfn <= top for base, top in ((P, P + 3), (P + 3, P + 5))]
            if all(inside):
                return False
            if not any(inside):
                return True
            if burst.world is SECURE:
                return not burst.write
            return bool((0b0100 if burst.write else 0b0110) >> burst.nsaid & 1)

        bench.region_allows = allows
        await bench.lend(ctx, P + 2, 4)
        bursts = []
        for pfn in range(P - 1, P + 7):
            for nsaid in range(4):
                bursts += [bench.read(pfn * PAGE, NORMAL, nsaid=nsaid), bench.write(pfn * PAGE, NORMAL, nsaid=nsaid)]
            bursts += [bench.read(pfn * PAGE, SECURE), bench.write(pfn * PAGE, SECURE)]
        await bench.done(ctx, *bursts)
        assert await bench.peek(ctx, TZC.INT_STATUS) == 1 << 16 | 1 << 8 | 1
        allowed = [b for b in bursts if b.allowed]
        assert 10 < len(allowed) < 50

    make_filter_bench().run(scenario)

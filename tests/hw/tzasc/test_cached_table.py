"""The page-state table in memory: what a hit and a miss cost, who may touch it, and what happens when it is wrong."""


import pytest
from amaranth.hdl import Value

from flexserve_hw.tzasc.cache_port import entry_layout
from flexserve_hw.tzasc.line import CHECK_WIDTH, line_beats, memory_pages
from flexserve_sw.regs import FLEX_NORMAL, FLEX_SECURE, TZC
from tests.hw.tzasc.bench import NORMAL, PAGE, SECURE, WINDOW_PFN, C, R, S, make_filter_bench
from tests.hw.tzasc.table_memory import TABLE_PFN

P = WINDOW_PFN
CACHE_LINES = [2]
LATENCY = 4


def test_hit_adds_no_latency_and_miss_adds_one_fetch():
    """Page n lies in word n / 4; words 0 and 2 share an entry of the cache."""

    async def scenario(bench, ctx):
        await bench.boot(ctx)
        await bench.idle(ctx)
        for _ in range(2):
            for write in (False, True):
                spent = []
                for pfn in (P, P, P + 8, P + 8, P):
                    burst = bench.write(pfn * PAGE) if write else bench.read(pfn * PAGE)
                    await bench.done(ctx, burst)
                    spent.append((burst.missed, burst.answered - burst.accepted - LATENCY))
                # On chip: 1 for reads, 2 for writes. A fetch: 3 cycles, a beat, and memory's latency.
                hit, miss = (False, 1 + write), (True, 1 + write + 3 + 1 + LATENCY)
                assert spent[1:] == [hit, miss, hit, miss]

    make_filter_bench(latency=LATENCY).run(scenario)


def test_hits_of_mixed_ids_and_worlds_flow_one_per_cycle():
    async def scenario(bench, ctx):
        await bench.boot(ctx)
        await bench.lend(ctx, P, 4)
        await bench.done(ctx, bench.read((P + 4) * PAGE), bench.read(P * PAGE, SECURE))
        reads = [bench.read((P + n % 8) * PAGE, SECURE if n % 8 < 4 else NORMAL, id=n % 8) for n in range(60)]
        await bench.done(ctx, *reads)
        assert not any(b.missed for b in reads)
        assert reads[-1].accepted - reads[0].accepted == len(reads) - 1

    make_filter_bench(latency=LATENCY).run(scenario)


def test_miss_of_one_direction_leaves_the_other_alone():
    async def scenario(bench, ctx):
        await bench.boot(ctx)
        await bench.done(ctx, bench.write(P * PAGE), bench.write((P + 4) * PAGE))
        bench.table.hold = True
        stuck = bench.read((P + 8) * PAGE)
        writes = [bench.write((P + n % 8) * PAGE, id=n % 8) for n in range(30)]
        await bench.done(ctx, *writes)
        assert writes[-1].accepted - writes[0].accepted == len(writes) - 1
        assert stuck.missed
        assert stuck.allowed is None
        bench.table.hold = False
        await bench.done(ctx, stuck)

    make_filter_bench(latency=LATENCY).run(scenario)


def test_fetch_waits_neither_for_write_data_nor_for_read_data_of_masters():
    """A copying master may withhold write data until its read is answered, and stop reading until a write is taken."""

    async def scenario(bench, ctx):
        await bench.boot(ctx)
        starved = bench.write(P * PAGE, gap=400, beats=2)
        await bench.until(ctx, lambda: starved.allowed, "the verdict on the first write")
        read = bench.read((P + 8) * PAGE)
        await bench.done(ctx, read)
        assert read.missed
        assert starved.sent == 0
        bench.r_ready = False
        stopped = bench.read(P * PAGE, beats=4)
        await bench.until(ctx, lambda: stopped.allowed, "the verdict on the second read")
        write = bench.write((P + 8) * PAGE, id=1)
        await bench.until(ctx, lambda: write.allowed, "the verdict on the write")
        assert write.missed
        bench.r_ready = True
        await bench.done(ctx, starved, stopped, write)

    make_filter_bench(latency=LATENCY).run(scenario)


@pytest.mark.parametrize("world", [NORMAL, SECURE])
def test_nobody_reaches_the_table_in_memory(world):
    """Regions wide open, every NSAID, reads and writes, first and last byte; the neighbours are open."""

    async def scenario(bench, ctx):
        await bench.boot(ctx)
        lines = dict(bench.table.lines)
        last = TABLE_PFN * PAGE + memory_pages(bench.params) * PAGE - 128
        inside = [TABLE_PFN * PAGE, last]
        bursts = [make(at, world, nsaid=n) for make in (bench.read, bench.write) for at in inside for n in range(4)]
        bursts.append(bench.write(last, world, size=0))
        outside = [bench.read(at, world) for at in (TABLE_PFN * PAGE - 128, last + 128)]
        await bench.done(ctx, *bursts, *outside)
        assert not any(b.allowed for b in bursts)
        assert all(b.allowed for b in outside)
        assert bench.table.lines == lines
        assert await bench.peek(ctx, TZC.FAIL_ADDRESS_LOW) == TABLE_PFN * PAGE
        result = await bench.command(ctx, NORMAL, C.DELEGATE, TABLE_PFN) if world is NORMAL else None
        assert result in (None, (R.OUT_OF_WINDOW, TABLE_PFN))

    make_filter_bench().run(scenario)


@pytest.mark.parametrize("table", [P, P + 11, 0x100000, 0xFFFFFFFF])
def test_table_that_overlaps_its_window_or_lies_nowhere_is_never_taken_over(table):
    async def scenario(bench, ctx):
        for register, value in (
            (FLEX_SECURE.WINDOW_BASE, P),
            (FLEX_SECURE.WINDOW_PAGES, 12),
            (FLEX_SECURE.TABLE_BASE, table),
            (FLEX_SECURE.CONTROL, 2),
            (TZC.GATE_KEEPER, 1),
        ):
            await bench.poke(ctx, register, value)
        held = bench.read(P * PAGE)
        await ctx.tick().repeat(200)
        assert held.accepted < 0
        assert (bench.table.fetches, bench.table.stores) == (0, 0)
        assert await bench.peek(ctx, FLEX_SECURE.CONTROL) == 2
        bench.ar.clear()

    make_filter_bench().run(scenario)


def test_table_base_is_frozen_with_the_window():
    async def scenario(bench, ctx):
        await bench.poke(ctx, FLEX_SECURE.TABLE_BASE, 0x123)
        assert await bench.peek(ctx, FLEX_SECURE.TABLE_BASE) == 0x123
        await bench.boot(ctx, lock=False)
        await bench.poke(ctx, FLEX_SECURE.TABLE_BASE, 0x123)
        assert await bench.peek(ctx, FLEX_SECURE.TABLE_BASE) == TABLE_PFN
        assert await bench.peek(ctx, FLEX_SECURE.TABLE_PAGES) == memory_pages(bench.params)

    make_filter_bench().run(scenario)


async def _denied_with_alarm(bench, ctx, pfn, first=None):
    """Both worlds are denied page ``pfn``, commands are refused, and the alarm names it (or ``first``)."""
    bench.corrupt = pfn
    bursts = [make(pfn * PAGE, world) for make in (bench.read, bench.write) for world in (NORMAL, SECURE)]
    await bench.done(ctx, *bursts)
    assert not any(b.allowed for b in bursts)
    assert await bench.peek(ctx, FLEX_SECURE.ALARM) == 1
    assert await bench.peek(ctx, FLEX_SECURE.ALARM_PAGE) == (pfn if first is None else first)
    await bench.poke(ctx, FLEX_SECURE.QUERY_PAGE, pfn)
    await ctx.tick().repeat(30)
    assert await bench.peek(ctx, FLEX_SECURE.QUERY_STATE) == S.CORRUPT | 1 << 8
    golden = bench.golden.states[pfn - P], bench.shadow[pfn]
    bench.golden.states[pfn - P] = bench.shadow[pfn] = S.CORRUPT
    assert await bench.command(ctx, SECURE, C.RELEASE, pfn) == (R.CORRUPT_STATE, pfn)
    bench.golden.states[pfn - P], bench.shadow[pfn] = golden
    bench.corrupt = None
    await bench.poke(ctx, FLEX_SECURE.ALARM, 1)
    assert await bench.peek(ctx, FLEX_SECURE.ALARM) == 0


async def _evict(bench, ctx):
    """Give the entry of word 0 to word 2 in every bank, so that word 0 must be fetched."""
    await bench.done(ctx, *(bench.read((P + 8) * PAGE, world) for world in (NORMAL, SECURE)))
    await bench.poke(ctx, FLEX_SECURE.QUERY_PAGE, P + 8)
    await ctx.tick().repeat(30)


def test_every_upset_bit_of_a_line_in_memory_denies_both_worlds_and_raises_the_alarm():
    """SEC-11: states, check bits and padding; mended, the line is believed again."""

    async def scenario(bench, ctx):
        await bench.boot(ctx)
        await bench.lend(ctx, P, 4)
        await bench.idle(ctx)
        width = line_beats(bench.params) * bench.params.bus.data_width
        known = bench.params.group * 6 + CHECK_WIDTH
        good = bench.table.lines[0]
        for bit in [*range(known), width - 1]:
            await _evict(bench, ctx)
            bench.table.lines[0] = good ^ 1 << bit
            if bit % 8 == 0:
                await _denied_with_alarm(bench, ctx, P + bit % 4)
            else:
                bench.corrupt = P
                stolen = bench.read(P * PAGE, SECURE)
                await bench.done(ctx, stolen)
                assert not stolen.allowed
                assert await bench.peek(ctx, FLEX_SECURE.ALARM) == 1
                await bench.poke(ctx, FLEX_SECURE.ALARM, 1)
                bench.corrupt = None
            bench.table.lines[0] = good
        own = bench.read(P * PAGE, SECURE)
        await bench.done(ctx, own)
        assert own.allowed

    make_filter_bench().run(scenario)


def test_line_of_another_word_is_not_believed():
    """SEC-11: the word's number is part of the check. Word 1 is all NORMAL, which word 0 no longer is."""

    async def scenario(bench, ctx):
        await bench.boot(ctx)
        await bench.lend(ctx, P, 4)
        await bench.idle(ctx)
        await _evict(bench, ctx)
        good, bench.table.lines[0] = bench.table.lines[0], bench.table.lines[1]
        await _denied_with_alarm(bench, ctx, P)
        bench.table.lines[0] = 0
        await _denied_with_alarm(bench, ctx, P + 1)
        bench.table.lines[0] = good

    make_filter_bench().run(scenario)


def test_every_upset_bit_of_a_cached_word_denies_and_raises_the_alarm():
    """SEC-11: the page's six bits, and the mark in both copies; an upset mark never passes for another word's."""

    async def scenario(bench, ctx):
        await bench.boot(ctx)
        await bench.lend(ctx, P, 4)
        await bench.done(ctx, bench.read(P * PAGE, SECURE))
        await bench.idle(ctx)
        layout, group = entry_layout(bench.params), bench.params.group
        rows = [Value.cast(bank.data[0]) for bank in bench.dut.core.table.banks.values()]
        states = layout["states"].offset
        good = [ctx.get(row) for row in rows]
        marks = range(states)
        for bit in [*marks, *(states + plane * group for plane in range(6))]:
            for row, entry in zip(rows, good, strict=True):
                ctx.set(row, entry ^ 1 << bit)
            await ctx.tick()
            await _denied_with_alarm(bench, ctx, P)
            if bit in marks:
                # Word 2 belongs in the same entry.
                await _denied_with_alarm(bench, ctx, P + 8)
            for row, entry in zip(rows, good, strict=True):
                ctx.set(row, entry)
            await ctx.tick()
        own = bench.read(P * PAGE, SECURE)
        await bench.done(ctx, own)
        assert own.allowed

    make_filter_bench().run(scenario)


def test_fetch_answered_with_an_error_denies_and_raises_the_alarm_and_is_tried_again():
    async def scenario(bench, ctx):
        await bench.boot(ctx)
        await bench.lend(ctx, P, 4)
        await bench.idle(ctx)
        await _evict(bench, ctx)
        bench.table.fail_reads = 1000
        await _denied_with_alarm(bench, ctx, P)
        bench.table.fail_reads = 0
        own = bench.read(P * PAGE, SECURE)
        await bench.done(ctx, own)
        assert own.allowed

    make_filter_bench().run(scenario)


def test_failed_write_closes_the_window_until_reset():
    """Memory may hold the word's old state with a check that fits: nothing of the table is believed any more."""

    async def scenario(bench, ctx):
        await bench.boot(ctx)
        await bench.lend(ctx, P, 4)
        await bench.idle(ctx)
        bench.table.fail_writes = 1
        assert await bench.command(ctx, SECURE, C.RELEASE, P + 1) == (R.OK, 0)
        await ctx.tick().repeat(40)
        assert await bench.peek(ctx, FLEX_SECURE.ALARM) == 1
        assert await bench.peek(ctx, FLEX_SECURE.ALARM_PAGE) == P
        await bench.poke(ctx, FLEX_SECURE.ALARM, 1)
        for pfn in (P, P + 1, P + 5, P + 9):
            await _denied_with_alarm(bench, ctx, pfn)
        outside = bench.read((P - 1) * PAGE)
        await bench.done(ctx, outside)
        assert outside.allowed

    make_filter_bench().run(scenario)


def test_table_that_cannot_be_written_at_boot_never_becomes_ready():
    async def scenario(bench, ctx):
        bench.table.fail_writes = 1
        await bench.boot(ctx, wait=False, lock=False)
        held = bench.read((P - 1) * PAGE)
        await ctx.tick().repeat(2000)
        assert held.accepted < 0
        assert not await bench.peek(ctx, FLEX_SECURE.CONTROL) & 4
        assert await bench.peek(ctx, FLEX_SECURE.ALARM) == 1
        bench.ar.clear()

    make_filter_bench().run(scenario)


def test_latency_of_a_denied_access_does_not_tell_what_the_secure_world_touched():
    """SEC-12: words 0 and 2 share an entry; the secure world uses a page of one of them, and a device asks for both."""

    async def scenario(bench, ctx):
        await bench.boot(ctx)
        await bench.lend(ctx, P, 12)
        seen = set()
        for used in (P, P + 8):
            await bench.done(ctx, *(bench.read((P + 4) * PAGE, world) for world in (NORMAL, SECURE)))
            await bench.done(ctx, bench.read(P * PAGE, nsaid=3))
            await bench.done(ctx, bench.read(used * PAGE, SECURE), bench.write(used * PAGE, SECURE))
            spent = []
            for pfn in (P, P + 8):
                probe = bench.read(pfn * PAGE, nsaid=3)
                await bench.done(ctx, probe)
                assert not probe.allowed
                spent.append(probe.answered - probe.accepted)
            seen.add(tuple(spent))
        assert len(seen) == 1
        (hit, miss) = seen.pop()
        assert miss > hit

    make_filter_bench(latency=LATENCY).run(scenario)


def test_command_over_words_that_must_be_fetched_is_all_or_nothing():
    async def scenario(bench, ctx):
        await bench.boot(ctx)
        await bench.lend(ctx, P + 11)
        assert await bench.command(ctx, NORMAL, C.DELEGATE, P, 12) == (R.BAD_STATE, P + 11)
        assert [bench.state(P + n) for n in range(11)] == [S.NORMAL] * 11
        assert await bench.command(ctx, NORMAL, C.DELEGATE, P, 11) == (R.OK, 0)
        assert await bench.command(ctx, SECURE, C.ACCEPT, P, 11) == (R.OK, 0)
        assert await bench.command(ctx, SECURE, C.RELEASE, P, 12) == (R.OK, 0)
        # The queue of freed pages is shorter than the range.
        freed = []
        while len(freed) < 12:
            assert bench.cycle < 6000
            if word := await bench.peek(ctx, FLEX_NORMAL.FREED_POP):
                freed.append(word & ~(1 << 31))
        assert sorted(freed) == list(range(P, P + 12))

    make_filter_bench().run(scenario)

"""Parts of the NPU alone: array, accumulators, scratchpads, burst walker."""

import numpy as np
import pytest
from amaranth.sim import Simulator

from flexserve_hw.npu.accumulator import Accumulator
from flexserve_hw.npu.array import SystolicArray
from flexserve_hw.npu.dma import BurstWalker
from flexserve_hw.npu.scratchpad import Scratchpad


def simulate(dut, *testbenches):
    simulator = Simulator(dut)
    simulator.add_clock(1e-9)
    for testbench, background in testbenches:
        simulator.add_testbench(testbench, background=background)
    simulator.run()


def pack(lanes, bits=8):
    return sum((int(value) & (1 << bits) - 1) << bits * i for i, value in enumerate(lanes))


@pytest.mark.parametrize(("n", "rows"), [(4, 4), (4, 1), (4, 9), (8, 8), (8, 11)])
def test_array_multiplies_tile_after_tile_without_a_pause(n, rows):
    rng = np.random.default_rng(n * rows)
    tiles = 5
    weights = rng.integers(-128, 128, (tiles, n, n))
    words = rng.integers(-128, 128, (tiles, rows, n))
    period = max(n, rows)
    dut = SystolicArray(n=n)
    expected = {}
    schedule = {}
    for tile in range(tiles):
        for row in range(rows):
            time = 2 + tile * period + row
            schedule[time] = (words[tile, row], row == 0)
            expected[time + n + 2] = words[tile, row] @ weights[tile]

    async def testbench(ctx):
        valid = swap = 0
        for time in range(2 + tiles * period + n + 5):
            word, first = schedule.get(time, (None, False))
            valid = (valid << 1 | (word is not None)) & (1 << n + 2) - 1
            swap = (swap << 1 | first) & (1 << n) - 1
            ctx.set(dut.valid, valid)
            ctx.set(dut.swap, swap)
            ctx.set(dut.a, pack(word if word is not None else rng.integers(-128, 128, n)))
            # Row r of a tile is loaded in the last cycle that is allowed: the one before its swap.
            tile, row = divmod(time - 1, period)
            ctx.set(dut.w_en, tile < tiles and row < n)
            ctx.set(dut.w_row, row % n)
            ctx.set(dut.w_data, pack(weights[min(tile, tiles - 1), row % n]))
            if time in expected:
                assert [ctx.get(dut.sums[c]) for c in range(n)] == list(expected.pop(time)), f"{time=}"
            await ctx.tick()

    simulate(dut, (testbench, False))
    assert not expected


@pytest.mark.parametrize("period", [1, 2, 3, 4, 5, 6])
def test_accumulators_add_in_place_however_soon_a_row_comes_again_while_the_other_half_is_read(period):
    n, rows = 4, 32
    rng = np.random.default_rng(3)
    dut = Accumulator(n=n, rows=rows)
    model = np.zeros((rows, n), dtype=np.int64)
    granted = []

    async def writer(ctx):
        asked = [None, None, None]
        for step in range(60):
            row, add = (step % period, step >= period) if step < 57 else (None, False)
            ctx.set(dut.ahead_en, bool(add))
            ctx.set(dut.ahead_row, row or 0)
            asked.append(None if row is None else (row, add))
            due = asked.pop(0)
            ctx.set(dut.en, due is not None)
            if due is not None:
                sums = rng.integers(-(1 << 17), 1 << 17, n)
                ctx.set(dut.row, due[0])
                for lane in range(n):
                    ctx.set(dut.sums[lane], int(sums[lane]))
                model[due[0]] = sums + (model[due[0]] if due[1] else 0)
            ctx.set(dut.read_row, 8 + step % 8 if step % 2 else step % period)
            ctx.set(dut.read_en, 1)
            granted.append((ctx.get(dut.read_ok), step % 2, bool(add)))
            ctx.set(dut.read_en, ctx.get(dut.read_ok))
            await ctx.tick()
        ctx.set(dut.en, 0)
        await ctx.tick().repeat(3)
        for row in range(period):
            ctx.set(dut.read_row, row)
            await ctx.tick().repeat(2)
            got = [(ctx.get(dut.read_data) >> 32 * lane & 0xFFFF_FFFF) for lane in range(n)]
            assert got == [int(value) & 0xFFFF_FFFF for value in model[row]]

    simulate(dut, (writer, False))
    # The same half waits exactly while it is read for accumulation; the other half never does.
    assert all(ok == (other or not adding) for ok, other, adding in granted)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("width", "depth"), [(32, 8), (128, 2048)])
def test_a_scrub_zeroes_every_bank_and_the_read_register(width, depth, late):
    dut = Scratchpad(width=width, depth=depth, late=late)
    bank = min(depth, 1024)
    places = [0, 1, bank - 1, depth // 2, depth - 1]

    async def testbench(ctx):
        for place in places:
            ctx.set(dut.w_en, 1)
            ctx.set(dut.w_addr, place)
            ctx.set(dut.w_data, (1 << width) - 1 - place)
            await ctx.tick()
        ctx.set(dut.w_en, 0)
        ctx.set(dut.r_en, 1)
        for place in places:
            ctx.set(dut.r_addr, place)
            await ctx.tick().repeat(1 + late)
            assert ctx.get(dut.r_data) == (1 << width) - 1 - place
        ctx.set(dut.scrub, 1)
        for place in range(bank):
            ctx.set(dut.scrub_addr, place)
            await ctx.tick()
        await ctx.tick().repeat(2 + late)
        ctx.set(dut.scrub, 0)
        ctx.set(dut.r_en, 0)
        assert ctx.get(dut.r_data) == 0
        ctx.set(dut.r_en, 1)
        for place in places:
            ctx.set(dut.r_addr, place)
            await ctx.tick().repeat(1 + late)
            assert ctx.get(dut.r_data) == 0

    simulate(dut, (testbench, False))


@pytest.mark.parametrize("most", [8, 16, 32])
def test_bursts_cover_the_rows_and_never_cross_their_limit(most):
    rng = np.random.default_rng(most)
    dut = BurstWalker(addr_width=32, most=most)

    async def testbench(ctx):
        for _ in range(25):
            rows, beats = int(rng.integers(1, 6)), int(rng.integers(1, 80))
            linear = bool(rng.integers(2))
            addr = int(rng.integers(0, 4096)) * 16
            stride = beats * 16 if linear else int(rng.integers(0, 300)) * 16
            expected = [addr + r * stride + 16 * b for r in range(rows) for b in range(beats)]
            start = {"addr": addr, "stride": stride, "rows": rows, "beats": beats, "linear": rows * beats * linear}
            ctx.set(dut.rows.payload, start)
            ctx.set(dut.rows.valid, 1)
            assert ctx.get(dut.rows.ready)
            await ctx.tick()
            ctx.set(dut.rows.valid, 0)
            await ctx.tick()
            covered, ends = [], []
            while ctx.get(dut.bursts.valid):
                burst = ctx.get(dut.bursts.payload)
                assert not burst.beyond
                assert burst.addr // (16 * most) == (burst.addr + 16 * burst.beats - 1) // (16 * most)
                go = int(rng.integers(2))
                covered += [burst.addr + 16 * b for b in range(burst.beats)] * go
                ends += [burst.ends] * go
                ctx.set(dut.bursts.ready, go)
                await ctx.tick()
            ctx.set(dut.bursts.ready, 0)
            assert covered == expected
            assert ends == [0] * (len(ends) - 1) + [1]

    simulate(dut, (testbench, False))


def test_a_row_past_the_end_of_the_address_space_is_beyond_and_stays_so():
    dut = BurstWalker(addr_width=32, most=32)

    async def testbench(ctx):
        start = {"addr": 0xFFFF_FF00, "stride": 0x8000_0000, "rows": 4, "beats": 20, "linear": 0}
        ctx.set(dut.rows.payload, start)
        ctx.set(dut.rows.valid, 1)
        await ctx.tick()
        ctx.set(dut.rows.valid, 0)
        ctx.set(dut.bursts.ready, 1)
        await ctx.tick()
        beyond = []
        while ctx.get(dut.bursts.valid):
            beyond.append(ctx.get(dut.bursts.payload.beyond))
            await ctx.tick()
        assert beyond == [0] + [1] * (len(beyond) - 1)
        assert len(beyond) >= 4

    simulate(dut, (testbench, False))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: SystolicArray(n=1), r"not 1$"),
        (lambda: Scratchpad(width=8, depth=12), r"not 12$"),
        (lambda: Accumulator(n=4, rows=3), r"not 3$"),
        (lambda: BurstWalker(addr_width=32, most=64), r"not 64$"),
    ],
)
@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_impossible_parameters_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()

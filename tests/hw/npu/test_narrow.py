"""The NPU on buses of 32 and 64 bits: the same results, faults and changes of hands, only later."""

import dataclasses

import numpy as np
import pytest
from harness import REG, Bench

from flexserve_hw.params import BusParams, NpuParams
from flexserve_sw import npu
from flexserve_sw.regs import NpuFault, NpuSpace

IN, OUT, LIST = 0x10000, 0x20000, 0x1000

LOAD = npu.Load(space=NpuSpace.WEIGHTS, address=IN, stride=64, rows=4, row_bytes=64, base=0, row_step=8, word_step=1)
STORE = npu.Store(address=OUT, stride=32, rows=8, n=8, c_base=0, c_step=8)


def params(n, width):
    """A small NPU on a bus of ``width`` bits."""
    sizes = {4: (256, 256, 32), 8: (128, 128, 64), 16: (128, 128, 64)}[n]
    names = ("a_words", "w_words", "c_rows")
    return NpuParams(n=n, bus=BusParams(data_width=width, id_width=3), **dict(zip(names, sizes, strict=True)))


async def works(bench, ctx, rng):
    """The NPU still computes."""
    job, expected = bench.place_gemm(5, 12, 9, rng=rng, a=0x50000, w=0x60000, c=0x70000)
    assert await bench.job(ctx, job, address=0x3000) == 1, await bench.fault(ctx)
    np.testing.assert_array_equal(bench.product(5, 9)[0], expected)


@pytest.mark.parametrize(("n", "width", "seed"), [(4, 64, 1), (8, 64, 2), (16, 64, 3), (4, 32, 4), (8, 32, 5)])
def test_products_are_exact_with_both_kinds_of_results(n, width, seed):
    rng = np.random.default_rng(seed)
    bench = Bench(params(n, width), latency=int(rng.integers(1, 70)), stall=[0.0, 0.3, 0.6][seed % 3], seed=seed)

    async def testbench(ctx):
        for _ in range(3 if n <= 8 else 1):
            m, k, columns = (int(rng.integers(1, 3 * n)) for _ in range(3))
            job, expected = bench.place_gemm(m, k, columns, rng=rng)
            assert await bench.job(ctx, job) == 1, await bench.fault(ctx)
            got, around = bench.product(m, columns)
            np.testing.assert_array_equal(got, expected, err_msg=f"{(m, k, columns)}")
            assert (around == 0xA5).all()
            job, expected = bench.place_quantised_gemm(m, k, columns, rng=rng)
            assert await bench.job(ctx, job) == 1, await bench.fault(ctx)
            got, around = bench.quantised(m, columns)
            np.testing.assert_array_equal(got, expected, err_msg=f"{(m, k, columns)}")
            assert (around == 0xA5).all()

    bench.run(testbench)


def test_a_narrower_bus_takes_as_much_longer_as_its_beats_are_more():
    """One row of weights that stream: what a job takes is what its bytes take, and latencies."""
    cycles = {}
    for width in (32, 64, 128):
        bench = Bench(params(16, width), latency=8)
        rng = np.random.default_rng(1)

        async def testbench(ctx, bench=bench, rng=rng, width=width):
            job, _ = bench.place_gemm(1, 128, 128, rng=rng)
            begin = bench.ram.now
            assert await bench.job(ctx, job) == 1
            cycles[width] = bench.ram.now - begin

        bench.run(testbench)
    least = {width: 128 * 128 * 8 // width for width in cycles}
    assert all(least[width] < cycles[width] < 1.6 * least[width] + 400 for width in cycles)
    assert cycles[32] > 1.5 * cycles[64] > 2 * cycles[128]


@pytest.mark.parametrize("width", [32, 64])
@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize(
    ("job", "page", "where", "index"),
    [
        ([LOAD._replace(address=IN + 0xFC0, stride=0x40)], 0x11, 0x11000, 0),
        ([LOAD, LOAD._replace(address=0x11000, stride=0x1000, row_bytes=20)], 0x12, 0x12000, 1),
        ([STORE._replace(address=OUT + 0xFC0)], 0x21, 0x21000, 0),
    ],
)
def test_a_denied_page_in_mid_job_ends_it_with_its_address(width, job, page, where, index, stall):
    bench = Bench(params(8, width), latency=30, stall=stall, seed=page)
    bench.ram.denied.add(page)
    rng = np.random.default_rng(page)

    async def testbench(ctx):
        assert await bench.job(ctx, job, address=LIST) == 2
        assert await bench.fault(ctx) == (NpuFault.BUS_ERROR, index, where)
        assert bench.ram.quiet()
        await works(bench, ctx, rng)

    bench.run(testbench)


@pytest.mark.parametrize("width", [32, 64])
def test_a_job_stopped_anywhere_leaves_a_quiet_bus_and_the_other_world_a_fresh_npu(width):
    bench = Bench(params(8, width), latency=20, stall=0.2, seed=width)
    rng = np.random.default_rng(width)

    async def testbench(ctx):
        for secure, when in enumerate(range(20, 1500, 137)):
            program, _ = bench.place_gemm(40, 24, 56, rng=rng)
            bench.write(LIST, npu.encode_program(program))
            await bench.ring(ctx, LIST, len(program))
            await ctx.tick().repeat(when)
            await bench.access(ctx, bench.is_secure, REG.CONTROL, 1)
            await bench.finish(ctx)
            await bench.hand_over(ctx, secure=secure % 2 == 0)
            await works(bench, ctx, rng)

    bench.run(testbench)


def test_sizes_and_widths_are_checked_together():
    for width in (8, 16, 256):
        with pytest.raises(ValueError, match=rf"\(32, 64, 128\) data bits, not {width}$"):
            Bench(dataclasses.replace(params(8, 64), bus=BusParams(data_width=width, id_width=3)))

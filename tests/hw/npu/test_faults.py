"""How jobs end early: the right report, a clean bus, an NPU that works afterwards."""

import numpy as np
import pytest
from harness import REG, Bench

from flexserve_hw.params import NpuParams
from flexserve_sw import npu
from flexserve_sw.regs import NpuFault, NpuOp, NpuSpace

PARAMS = NpuParams(n=8, a_words=128, w_words=128, c_rows=64)
IN, OUT, LIST = 0x10000, 0x20000, 0x1000

LOAD = npu.Load(space=NpuSpace.WEIGHTS, address=IN, stride=64, rows=4, row_bytes=64, base=0, row_step=8, word_step=1)
MATMUL = npu.Matmul(m=8, k=8, n=8, a_base=0, a_step=8, w_base=0, w_step=0, c_base=0, c_step=8)
STORE = npu.Store(address=OUT, stride=32, rows=8, n=8, c_base=0, c_step=8)


async def works(bench, ctx, seed=9):
    """The NPU still computes."""
    rng = np.random.default_rng(seed)
    job, expected = bench.place_gemm(5, 12, 9, rng=rng, a=0x50000, w=0x60000, c=0x70000)
    assert await bench.job(ctx, job, address=0x3000) == 1, await bench.fault(ctx)
    np.testing.assert_array_equal(bench.product(5, 9)[0], expected)


ILLEGAL = [
    (LOAD._replace(address=IN + 8), NpuFault.BAD_DESCRIPTOR),
    (LOAD._replace(stride=72), NpuFault.BAD_DESCRIPTOR),
    (LOAD._replace(rows=0), NpuFault.BAD_DESCRIPTOR),
    (LOAD._replace(row_bytes=0), NpuFault.BAD_DESCRIPTOR),
    (LOAD._replace(signal_prev=True), NpuFault.BAD_DESCRIPTOR),
    (MATMUL._replace(m=0), NpuFault.BAD_DESCRIPTOR),
    (STORE._replace(wait_next=True), NpuFault.BAD_DESCRIPTOR),
    (npu.Fence(signal_next=True), NpuFault.BAD_DESCRIPTOR),
    (LOAD._replace(base=97), NpuFault.SCRATCHPAD_RANGE),
    (LOAD._replace(rows=65535, row_step=65535), NpuFault.SCRATCHPAD_RANGE),
    (MATMUL._replace(a_base=121), NpuFault.SCRATCHPAD_RANGE),
    (MATMUL._replace(w_base=121), NpuFault.SCRATCHPAD_RANGE),
    (MATMUL._replace(n=16, w_step=121), NpuFault.SCRATCHPAD_RANGE),
    (MATMUL._replace(n=16, c_step=57), NpuFault.SCRATCHPAD_RANGE),
    (MATMUL._replace(k=65535, n=65535), NpuFault.SCRATCHPAD_RANGE),
    (STORE._replace(c_base=57), NpuFault.SCRATCHPAD_RANGE),
    (STORE._replace(relu=True), NpuFault.BAD_DESCRIPTOR),
    (STORE._replace(quantise=True, q_base=2), NpuFault.BAD_DESCRIPTOR),
    (STORE._replace(quantise=True, q_base=1020), NpuFault.SCRATCHPAD_RANGE),
    (LOAD._replace(space=NpuSpace.PARAMETERS, base=1023), NpuFault.SCRATCHPAD_RANGE),
    (LOAD._replace(address=0x1_0000_0000), NpuFault.BUS_ERROR),
]


def test_illegal_descriptors_are_reported_and_what_was_before_them_is_done():
    bench = Bench(PARAMS, latency=5)
    bench.write(IN, bytes(range(256)))

    async def testbench(ctx):
        for count, (bad, code) in enumerate(ILLEGAL):
            bench.write(OUT, b"\xa5" * 0x2000)
            job = [LOAD, npu.Fence(), STORE, bad, STORE._replace(address=OUT + 0x1000)]
            assert await bench.job(ctx, job, address=LIST) == 2, bad
            where = bad.address if code is NpuFault.BUS_ERROR else LIST + 3 * 32
            assert await bench.fault(ctx) == (code, 3, where), bad
            assert bench.ram.quiet()
            assert (bench.ram.bytes[OUT : OUT + 256] != 0xA5).any(), bad
            assert (bench.ram.bytes[OUT + 0x1000 : OUT + 0x1100] == 0xA5).all(), bad
            if count % 5 == 0:
                done = await bench.access(ctx, False, REG.DONE_COUNT)
                await works(bench, ctx)
                assert await bench.access(ctx, False, REG.DONE_COUNT) == done + 1

    bench.run(testbench)


def test_unassigned_operations_empty_lists_and_odd_addresses_are_bad_descriptors():
    bench = Bench(PARAMS)

    async def testbench(ctx):
        for head in (bytes([0, 0]), bytes([5, 0]), bytes([15, 0]), bytes([NpuOp.LOAD, 3])):
            bench.write(LIST, head + LOAD.encode()[2:])
            await bench.ring(ctx, LIST, 1)
            assert await bench.finish(ctx) == 2
            assert await bench.fault(ctx) == (NpuFault.BAD_DESCRIPTOR, 0, LIST)
        for address, count in ((LIST, 0), (LIST + 16, 1)):
            await bench.ring(ctx, address, count)
            assert await bench.finish(ctx) == 2
            assert await bench.fault(ctx) == (NpuFault.BAD_DESCRIPTOR, 0, address)
        await works(bench, ctx)

    bench.run(testbench)


@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize(
    ("job", "page", "where", "index"),
    [
        ([LOAD._replace(address=IN + 0xFC0, stride=0x40)], 0x11, 0x11000, 0),
        ([LOAD, LOAD._replace(address=0x11000, stride=0x1000, row_bytes=20)], 0x12, 0x12000, 1),
        ([MATMUL, npu.Fence(), STORE._replace(address=OUT + 0xFC0)], 0x21, 0x21000, 2),
        ([MATMUL, npu.Fence(), STORE._replace(stride=0x800)], 0x21, 0x21000, 2),
    ],
)
def test_a_denied_page_in_mid_job_ends_it_with_its_address(job, page, where, index, stall):
    bench = Bench(PARAMS, latency=30, stall=stall, seed=page)
    bench.ram.denied.add(page)
    long = [*job, npu.Fence(), STORE._replace(address=0x30000)]
    bench.write(0x30000, b"\xa5" * 64)

    async def testbench(ctx):
        assert await bench.job(ctx, long, address=LIST) == 2
        assert await bench.fault(ctx) == (NpuFault.BUS_ERROR, index, where)
        assert bench.ram.quiet()
        assert (bench.ram.bytes[0x30000:0x30040] == 0xA5).all()
        await works(bench, ctx)

    bench.run(testbench)


def test_a_row_past_the_end_of_the_address_space_is_a_bus_error():
    bench = Bench(PARAMS)
    bench.ram.bad = lambda addr: addr < 0xFFFF_0000 and addr >= bench.ram.bytes.size
    bench.ram.bytes = np.zeros(1 << 20, dtype=np.uint8)

    async def testbench(ctx):
        job = [LOAD._replace(address=0x8_0000, stride=0xFFFF_0000, rows=3, row_bytes=16)]
        assert await bench.job(ctx, job, address=LIST) == 2
        assert await bench.fault(ctx) == (NpuFault.BUS_ERROR, 0, 0x1_0007_0000)
        await works(bench, ctx)

    bench.run(testbench)


def test_a_denied_descriptor_is_a_fetch_error_after_what_came_before():
    bench = Bench(PARAMS)
    bench.ram.denied.add(3)
    bench.write(OUT, b"\xa5" * 256)
    bench.write(0x3000 - 32, STORE.encode())

    async def testbench(ctx):
        await bench.ring(ctx, 0x3000 - 32, 2)
        assert await bench.finish(ctx) == 2
        assert await bench.fault(ctx) == (NpuFault.FETCH_ERROR, 1, 0x3000)
        assert not bench.ram.bytes[OUT : OUT + 256].any()
        bench.ram.denied.clear()
        await works(bench, ctx)

    bench.run(testbench)


@pytest.mark.parametrize("data_first", [False, True])
@pytest.mark.parametrize("when", [0, 3, 60, 91, 150, 210])
def test_an_abort_at_any_time_leaves_the_bus_clean_and_the_queue_empty(when, data_first):
    bench = Bench(PARAMS, latency=25, stall=0.3, seed=when, data_first=data_first)
    rng = np.random.default_rng(4)
    job, _ = bench.place_gemm(24, 24, 24, rng=rng)

    async def testbench(ctx):
        bench.write(LIST, npu.encode_program(job))
        for tag in range(3):
            await bench.ring(ctx, LIST, len(job), tag=tag)
        await ctx.tick().repeat(when + 1)
        await bench.access(ctx, False, REG.CONTROL, 1)
        assert await bench.finish(ctx) == 2
        assert (await bench.fault(ctx))[0] == NpuFault.ABORTED
        assert bench.ram.quiet()
        assert REG.STATUS__BUSY.get(await bench.access(ctx, False, REG.STATUS)) == 0
        assert await bench.access(ctx, False, REG.DONE_COUNT) == 0
        await works(bench, ctx)

    bench.run(testbench)


def test_a_job_that_waits_for_a_token_nobody_gives_can_be_aborted():
    bench = Bench(PARAMS)

    async def testbench(ctx):
        bench.write(LIST, MATMUL._replace(wait_prev=True).encode())
        await bench.ring(ctx, LIST, 1)
        await ctx.tick().repeat(500)
        assert REG.STATUS__BUSY.get(await bench.access(ctx, False, REG.STATUS))
        await bench.access(ctx, False, REG.CONTROL, 1)
        assert await bench.finish(ctx) == 2
        await works(bench, ctx)

    bench.run(testbench)


def test_the_first_fault_is_kept_until_its_flag_is_cleared():
    bench = Bench(PARAMS)

    async def testbench(ctx):
        bench.write(LIST, bytes(32))
        await bench.ring(ctx, LIST, 1)
        while not await bench.access(ctx, False, REG.IRQ_STATUS):
            pass
        await bench.ring(ctx, LIST + 16, 1)
        await ctx.tick().repeat(50)
        assert await bench.fault(ctx) == (NpuFault.BAD_DESCRIPTOR, 0, LIST)
        await bench.access(ctx, False, REG.IRQ_STATUS, 3)
        await bench.ring(ctx, LIST + 16, 1)
        await ctx.tick().repeat(50)
        assert await bench.fault(ctx) == (NpuFault.BAD_DESCRIPTOR, 0, LIST + 16)

    bench.run(testbench)

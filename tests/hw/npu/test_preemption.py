"""A job that is stopped to give the NPU away tells how far it came, and goes on from there when the NPU is back."""

import numpy as np
import pytest
from harness import REG, Bench

from flexserve_hw.params import NpuParams
from flexserve_sw import npu
from flexserve_sw.regs import NpuFault, NpuSpace

PARAMS = NpuParams(n=8, a_words=128, w_words=128, c_rows=64, q_words=128)
LIST, AGAIN = 0x1000, 0x8000
SIZES = (40, 24, 56)


def stored(bench, program, expected, kept):
    """Whether every STORE before ``kept`` is in memory."""
    m, _, n = SIZES
    got = bench.product(m, n)[0]
    done = np.zeros((m, n), bool)
    for store in program[:kept]:
        if isinstance(store, npu.Store):
            row, column = divmod(store.address - bench.c, bench.c_stride)
            done[row : row + store.rows, column // 4 : column // 4 + store.n] = True
    return (got == expected)[done].all(), done.sum()


@pytest.mark.parametrize("memory", [{"latency": 5}, {"latency": 40, "stall": 0.3}], ids=str)
def test_a_stopped_job_goes_on_after_the_other_world_had_the_npu(memory):
    bench = Bench(PARAMS, seed=3, **memory)
    rng = np.random.default_rng(11)
    m, k, n = SIZES
    progress = []

    async def testbench(ctx):
        ticket = 0
        for when in (0, 450, 700, 950, 1400):
            program, expected = bench.place_gemm(m, k, n, rng=rng)
            ticket += 1
            await bench.hand_over(ctx, secure=True, ticket=ticket)
            bench.write(LIST, npu.encode_program(program))
            await bench.ring(ctx, LIST, len(program), ticket=ticket)
            await ctx.tick().repeat(when + 1)
            await bench.access(ctx, True, REG.CONTROL, 1)
            await ctx.tick()
            if await bench.finish(ctx) == 1:
                assert when
                continue
            code, kept, address = await bench.fault(ctx)
            assert (code, address) == (NpuFault.ABORTED, 0)
            right, count = stored(bench, program, expected, kept)
            assert right
            progress.append(count)
            # The other world uses every memory, and gives nothing back but zeros.
            await bench.hand_over(ctx, secure=False)
            other, product = bench.place_gemm(20, 30, 20, rng=rng, a=0xA0000, w=0xB0000, c=0xC0000)
            assert await bench.job(ctx, other, address=AGAIN) == 1
            np.testing.assert_array_equal(bench.product(20, 20)[0], product)
            await bench.hand_over(ctx, secure=True, ticket=ticket + 1)
            bench.c, bench.c_stride = 0x80000, -(-program[-1].stride // 16) * 16
            rest = npu.remainder(program, kept, bench.caps)
            # A job of the lending that was interrupted is not taken any more.
            assert await bench.job(ctx, rest, address=AGAIN, ticket=ticket) == 2
            assert (await bench.fault(ctx))[0] == NpuFault.BAD_TICKET
            ticket += 1
            assert await bench.job(ctx, rest, address=AGAIN, ticket=ticket) == 1
            got, around = bench.product(m, n)
            np.testing.assert_array_equal(got, expected)
            assert (around == 0xA5).all()

    bench.run(testbench)
    assert len(progress) >= 3
    assert progress[0] == 0
    assert len(set(progress)) >= 2


def test_a_write_that_fails_after_the_stop_is_not_counted_as_done():
    bench = Bench(PARAMS, latency=60)
    store = npu.Store(address=0x20000, stride=32, rows=8, n=8, c_base=0, c_step=8)
    bad = npu.Store(address=0x30000, stride=0x1000, rows=2, n=8, c_base=0, c_step=8)
    program = [store, npu.Fence(), bad, npu.Store(address=0x40000, stride=32, rows=8, n=8, c_base=0, c_step=8)]
    bench.ram.denied.add(0x30)
    seen = set()

    async def testbench(ctx):
        for when in range(90, 330, 6):
            bench.write(LIST, npu.encode_program(program))
            await bench.ring(ctx, LIST, len(program))
            await ctx.tick().repeat(when)
            await bench.access(ctx, False, REG.CONTROL, 1)
            assert await bench.finish(ctx) == 2
            code, index, _ = await bench.fault(ctx)
            seen.add((NpuFault(code), index))

    bench.run(testbench)
    assert seen == {(NpuFault.ABORTED, 0), (NpuFault.ABORTED, 1), (NpuFault.BUS_ERROR, 2)}


def test_a_job_that_reads_all_the_time_is_drained_after_512_beats():
    latency = 700
    bench = Bench(PARAMS, latency=latency)
    load = npu.Load(
        space=NpuSpace.WEIGHTS, address=0, stride=1024, rows=500, row_bytes=1024, base=0, row_step=0, word_step=1
    )
    most = []

    async def testbench(ctx):
        bench.write(LIST, npu.encode_program([load] * 4))
        await bench.ring(ctx, LIST, 4)
        for _ in range(latency + 200):
            await ctx.tick()
            most.append(sum(left for *_, left in bench.ram.reads))
        drained, _ = await bench.hand_over(ctx, secure=True)
        assert drained <= latency + 512 + 10

    bench.run(testbench)
    assert 480 < max(most) <= 512

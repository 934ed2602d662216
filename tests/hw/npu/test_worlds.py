"""What the two worlds see of each other through the NPU: nothing."""

import numpy as np
import pytest
from harness import REG, Bench

from flexserve_hw.params import NpuParams
from flexserve_sw import npu
from flexserve_sw.regs import NpuFault, NpuSpace

PARAMS = NpuParams(n=8, a_words=128, w_words=128, c_rows=64, q_words=128)
LIST, OUT = 0x1000, 0x20000
ALL_REGISTERS = [value.offset for value in type(REG).__dict__.values() if hasattr(value, "offset")]


def residue_job():
    """Stores what is in the accumulators, then the scratchpads as the product with an identity sees them.

    Then sums as they come out with the requantisation parameters that are there.
    """
    identity = np.eye(8, dtype=np.int8)
    job = [npu.Store(address=OUT, stride=32, rows=64, n=8, c_base=0, c_step=1), npu.Fence()]
    # Activation words times identity weights, then identity activations times weight words.
    load = dict(stride=64, rows=1, row_bytes=64, row_step=0, word_step=1)
    job.append(npu.Load(space=NpuSpace.WEIGHTS, address=0x8000, base=120, **load))
    job.append(npu.Fence())
    job.append(npu.Matmul(m=64, k=8, n=8, a_base=0, a_step=0, w_base=120, w_step=0, c_base=0, c_step=0))
    job.append(npu.Fence())
    job.append(npu.Store(address=OUT + 0x1000, stride=32, rows=64, n=8, c_base=0, c_step=1))
    job.append(npu.Load(space=NpuSpace.ACTIVATIONS, address=0x8000, base=64, **load))
    job.append(npu.Fence())
    for tile in range(8):
        job.append(npu.Matmul(m=8, k=8, n=8, a_base=64, a_step=0, w_base=8 * tile, w_step=0, c_base=8 * tile, c_step=0))
    job.append(npu.Fence())
    job.append(npu.Store(address=OUT + 0x2000, stride=32, rows=64, n=8, c_base=0, c_step=1))
    job.append(npu.Store(address=OUT + 0x3000, stride=32, rows=16, n=32, c_base=0, c_step=16, quantise=True))
    return job, identity.tobytes()


def secrets_job():
    """Fills scratchpads, parameters and accumulators with non-zero values."""
    load = dict(address=0x9000, stride=64, rows=16, row_bytes=64, base=0, row_step=8, word_step=1)
    return [
        npu.Load(space=NpuSpace.ACTIVATIONS, **load),
        npu.Load(space=NpuSpace.WEIGHTS, **load),
        npu.Load(space=NpuSpace.PARAMETERS, **load),
        npu.Fence(),
        npu.Matmul(m=32, k=8, n=16, a_base=0, a_step=0, w_base=0, w_step=8, c_base=0, c_step=32),
    ]


@pytest.mark.parametrize("owner", [True, False], ids=["secure", "normal"])
@pytest.mark.parametrize("scrubbed", [True, False], ids=["scrubbed", "control"])
def test_nothing_of_a_job_outlives_a_hand_over(owner, scrubbed):
    bench = Bench(PARAMS)

    async def testbench(ctx):
        job, identity = residue_job()
        bench.write(0x8000, identity)
        bench.write(0x9000, b"\x55" * 1024)
        if owner:
            await bench.hand_over(ctx, secure=True, ticket=1)
        assert await bench.job(ctx, secrets_job(), ticket=1) == 1
        if scrubbed:
            await bench.hand_over(ctx, secure=not owner, ticket=1)
            for register in (REG.DONE_COUNT, REG.DONE_TAG, REG.PERF_BUSY, REG.PERF_ROWS, REG.PERF_READ, REG.PERF_WRITE):
                assert await bench.access(ctx, bench.is_secure, register) == 0
        assert await bench.job(ctx, job, ticket=1) == 1
        seen = bench.ram.bytes[OUT : OUT + 0x4000].reshape(4, -1)
        # Without a scrub every one of the four memories is readable, so the check above is known to be able to fail.
        assert [bool(part.any()) for part in seen] == [not scrubbed] * 4

    bench.run(testbench)


def test_a_scrub_takes_no_longer_than_the_largest_bank():
    bench = Bench(PARAMS)
    rng = np.random.default_rng(1)

    async def testbench(ctx):
        job, _ = bench.place_gemm(30, 30, 30, rng=rng)
        await bench.hand_over(ctx, secure=True, ticket=1)
        assert await bench.job(ctx, job, ticket=1) == 1
        _, cycles = await bench.hand_over(ctx, secure=False)
        assert cycles <= 128 + 6

    bench.run(testbench)


def test_the_frame_that_is_not_live_reads_zero_and_does_nothing():
    bench = Bench(PARAMS)
    rng = np.random.default_rng(1)

    async def testbench(ctx):
        job, expected = bench.place_gemm(20, 20, 20, rng=rng)
        bench.write(LIST, npu.encode_program(job))
        bench.write(0x2000, npu.encode_program([npu.Store(address=OUT, stride=32, rows=1, n=8, c_base=0, c_step=1)]))
        bench.write(OUT, b"\xa5" * 64)
        for secure in (True, False):
            await bench.hand_over(ctx, secure=secure, ticket=5)
            await bench.ring(ctx, LIST, len(job), tag=3, ticket=5)
            other = not secure
            before = {r: await bench.access(ctx, other, r) for r in ALL_REGISTERS}
            assert {r for r, value in before.items() if value} == {REG.ID, REG.CAPS}
            await bench.ring(ctx, 0x2000, 1, ticket=5, secure=other)
            await bench.access(ctx, other, REG.CONTROL, 1)
            await bench.access(ctx, other, REG.IRQ_ENABLE, 3)
            assert {r: await bench.access(ctx, other, r) for r in ALL_REGISTERS} == before
            assert await bench.finish(ctx) == 1
            assert await bench.access(ctx, secure, REG.DONE_COUNT) == 1
            np.testing.assert_array_equal(bench.product(20, 20)[0], expected)
            assert (bench.ram.bytes[OUT : OUT + 32] == 0xA5).all()

    bench.run(testbench)


def test_a_secure_job_needs_the_present_ticket_and_a_replayed_one_does_nothing():
    bench = Bench(PARAMS)
    store = [npu.Store(address=OUT, stride=32, rows=1, n=8, c_base=0, c_step=1)]

    async def testbench(ctx):
        bench.write(OUT, b"\xa5" * 64)
        await bench.hand_over(ctx, secure=True, ticket=7)
        for ticket in (6, 8, 0):
            assert await bench.job(ctx, store, ticket=ticket) == 2
            assert await bench.fault(ctx) == (NpuFault.BAD_TICKET, 0, 0)
        assert (bench.ram.bytes[OUT : OUT + 64] == 0xA5).all()
        assert await bench.job(ctx, store, ticket=7) == 1
        assert not bench.ram.bytes[OUT : OUT + 32].any()

    bench.run(testbench)


@pytest.mark.parametrize("when", [0, 77, 150])
def test_draining_a_busy_npu_aborts_its_jobs_and_reports_it_to_their_owner(when):
    bench = Bench(PARAMS, latency=40, stall=0.2, seed=when)
    rng = np.random.default_rng(when)

    async def testbench(ctx):
        job, expected = bench.place_gemm(24, 24, 24, rng=rng)
        bench.write(LIST, npu.encode_program(job))
        await bench.access(ctx, False, REG.IRQ_ENABLE, 3)
        for tag in range(2):
            await bench.ring(ctx, LIST, len(job), tag=tag)
        await ctx.tick().repeat(when + 1)
        drained, _ = await bench.hand_over(ctx, secure=True, ticket=1)
        assert drained < 1500
        assert not ctx.get(bench.dut.irq_n)
        assert await bench.job(ctx, job, ticket=1) == 1
        np.testing.assert_array_equal(bench.product(24, 24)[0], expected)
        await bench.hand_over(ctx, secure=False)
        assert ctx.get(bench.dut.irq_n)
        assert (await bench.fault(ctx))[0] == NpuFault.ABORTED
        assert await bench.access(ctx, True, REG.FAULT) == 0

    bench.run(testbench)


@pytest.mark.parametrize("ahead", range(4))
def test_doorbell_of_the_last_live_cycles_is_aborted_before_the_npu_is_reported_as_drained(ahead):
    """The doorbell is on its way when the gate takes the NPU: drained must not be told and taken back."""
    bench = Bench(PARAMS)

    async def testbench(ctx):
        dut = bench.dut
        await bench.access(ctx, False, REG.IRQ_ENABLE, 3)
        await bench.ring(ctx, LIST, 4)
        if ahead:
            await ctx.tick().repeat(ahead)
        ctx.set(dut.live_normal, 0)
        ctx.set(dut.drain, 1)
        seen = []
        for _ in range(60):
            seen.append(ctx.get(dut.drained))
            await ctx.tick()
        assert seen == sorted(seen), "drained was told and taken back"
        assert seen[-1]
        assert not seen[0]
        assert bench.ram.quiet()
        await bench.hand_over(ctx, secure=True, ticket=1)
        assert not ctx.get(dut.irq_s)
        await bench.hand_over(ctx, secure=False)
        assert (await bench.fault(ctx))[0] == NpuFault.ABORTED

    bench.run(testbench)

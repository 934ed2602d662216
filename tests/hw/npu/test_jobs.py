"""Whole NPU: products against numpy, jobs against the golden executor."""

import dataclasses

import numpy as np
import pytest
from harness import REG, Bench

from flexserve_cosim.npubench.lists import descriptor
from flexserve_hw.params import NpuParams
from flexserve_sw import npu
from flexserve_sw.machine import BusFault, Response
from flexserve_sw.regs import NpuSpace

SMALL = {
    4: NpuParams(n=4, a_words=64, w_words=64, c_rows=32),
    8: NpuParams(n=8, a_words=128, w_words=128, c_rows=64),
    16: NpuParams(n=16, a_words=128, w_words=128, c_rows=64),
    32: NpuParams(n=32, a_words=128, w_words=128, c_rows=64),
}


@pytest.mark.parametrize(("n", "seed"), [(4, 1), (4, 2), (8, 3), (16, 4), (32, 5)])
def test_ragged_products_are_exact_under_back_pressure(n, seed):
    rng = np.random.default_rng(seed)
    bench = Bench(SMALL[n], latency=int(rng.integers(1, 70)), stall=[0.0, 0.3, 0.6][seed % 3], seed=seed)

    async def testbench(ctx):
        for tag in range(4 if n <= 8 else 1):
            m, k, columns = (int(rng.integers(1, 3 * n)) for _ in range(3))
            job, expected = bench.place_gemm(m, k, columns, rng=rng)
            assert await bench.job(ctx, job, tag=tag) == 1, f"{seed=} {(m, k, columns)} {await bench.fault(ctx)}"
            got, around = bench.product(m, columns)
            np.testing.assert_array_equal(got, expected, err_msg=f"{seed=} {(m, k, columns)}")
            assert (around == 0xA5).all()
            assert await bench.access(ctx, False, REG.DONE_TAG) == tag
            assert await bench.access(ctx, False, REG.DONE_COUNT) == tag + 1

    bench.run(testbench)


@pytest.mark.parametrize(("n", "seed"), [(4, 1), (8, 2), (16, 3), (32, 4)])
def test_weights_that_lie_row_by_row_are_multiplied_as_they_lie(n, seed):
    """Scratchpad words of rows beyond k hold what an earlier job left there."""
    rng = np.random.default_rng(seed)
    params = dataclasses.replace(SMALL[n], w_words=256) if n == 4 else SMALL[n]
    bench = Bench(params, latency=int(rng.integers(1, 70)), stall=[0.0, 0.3][seed % 2], seed=seed)

    async def testbench(ctx):
        for _ in range(4 if n <= 8 else 2):
            m, k, columns = (int(rng.integers(1, 3 * n)) for _ in range(3))
            job, expected = bench.place_gemm(m, k, columns, rng=rng, by_row=True)
            assert await bench.job(ctx, job) == 1, f"{seed=} {(m, k, columns)} {await bench.fault(ctx)}"
            got, around = bench.product(m, columns)
            np.testing.assert_array_equal(got, expected, err_msg=f"{seed=} {(m, k, columns)}")
            assert (around == 0xA5).all()

    bench.run(testbench)


@pytest.mark.parametrize(("n", "seed"), [(4, 1), (8, 2), (16, 3), (32, 4)])
def test_int8_results_are_exact_and_touch_nothing_else(n, seed):
    rng = np.random.default_rng(seed)
    # Four tiles of four columns make a beat: half of the weights must hold them.
    params = dataclasses.replace(SMALL[n], w_words=256) if n == 4 else SMALL[n]
    bench = Bench(params, latency=int(rng.integers(1, 70)), stall=[0.0, 0.3][seed % 2], seed=seed)

    async def testbench(ctx):
        for number in range(4 if n <= 8 else 2):
            m, k, columns = (int(rng.integers(1, 3 * n)) for _ in range(3))
            relu = bool(number % 2)
            job, expected = bench.place_quantised_gemm(m, k, columns, rng=rng, relu=relu)
            assert await bench.job(ctx, job) == 1, f"{seed=} {(m, k, columns)} {await bench.fault(ctx)}"
            got, around = bench.quantised(m, columns)
            np.testing.assert_array_equal(got, expected, err_msg=f"{seed=} {(m, k, columns, relu)}")
            assert (around == 0xA5).all()

    bench.run(testbench)


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_write_data_do_not_wait_for_their_address_to_be_taken(stall):
    bench = Bench(SMALL[8], latency=6, stall=stall, seed=1, data_first=True)
    rng = np.random.default_rng(8)

    async def testbench(ctx):
        for m, k, columns in ((1, 1, 1), (20, 9, 30)):
            job, expected = bench.place_gemm(m, k, columns, rng=rng)
            assert await bench.job(ctx, job, limit=5_000) == 1
            got, around = bench.product(m, columns)
            np.testing.assert_array_equal(got, expected)
            assert (around == 0xA5).all()

    bench.run(testbench)


def agrees(bench, job, results, *, limit=5_000):
    """Run ``job`` on RTL and golden executor, and compare ``results``, a slice of memory."""
    memory = bench.ram.bytes
    golden = memory.copy()

    def read(address, length):
        return golden[address : address + length].tobytes()

    def write(address, payload):
        golden[address : address + len(payload)] = np.frombuffer(payload, np.uint8)

    npu.execute(job, read, write, bench.caps)

    async def testbench(ctx):
        assert await bench.job(ctx, job, limit=limit) == 1
        np.testing.assert_array_equal(memory[results], golden[results])

    bench.run(testbench)


@pytest.mark.parametrize(("rows", "again"), [(1, 0), (2, 0), (3, 0), (1, 1), (2, 1), (2, 2), (3, 3)])
@pytest.mark.parametrize("n", [4, 8])
def test_few_rows_behind_many_add_to_the_sums_before_them_however_fresh(n, rows, again):
    """While the many are computed, the weights of the few are loaded already; ``again`` of them are the last rows."""
    bench = Bench(SMALL[n])
    k, before = 4 * n, 4 * n
    load = dict(stride=0, rows=1, row_step=0, word_step=1, base=0)
    shape = dict(k=k, n=n, a_base=0, a_step=0, w_base=0, w_step=0, c_step=0)
    job = [
        npu.Load(space=NpuSpace.ACTIVATIONS, address=0x10000, row_bytes=before * n, **load),
        npu.Load(space=NpuSpace.WEIGHTS, address=0x11000, row_bytes=k * n, **load),
        npu.Fence(),
        npu.Matmul(m=before, c_base=0, **shape),
        npu.Matmul(m=rows, c_base=before - again, accumulate=again > 0, **shape),
        npu.Fence(),
        npu.Store(address=0x20000, stride=4 * n, rows=before + rows - again, n=n, c_base=0, c_step=0),
    ]
    bench.ram.bytes[0x10000:0x12000] = np.random.default_rng(n).integers(0, 256, 0x2000)
    agrees(bench, job, slice(0x20000, 0x21000))


@pytest.mark.parametrize("held_back", [0, 1_500])
def test_parameters_are_not_replaced_before_the_last_row_is_requantised_with_them(held_back):
    """Rows wait for memory to take the data before them; the token that lets new parameters in waits with them."""
    rows, one = 69, dict(k=4, n=4, a_base=0, a_step=0, w_base=0, w_step=0, c_step=0)
    bench = Bench(NpuParams(n=4, a_words=128, w_words=16, c_rows=512, q_words=8))
    bench.ram.w_from = held_back
    channels = np.full(4, 1)
    for address, shift in ((0x15000, 3), (0x16000, 63)):
        packed = npu.pack_parameters(np.zeros(4, np.int32), channels, np.full(4, shift), 4)
        bench.write(address, packed)
    bench.ram.bytes[0x10000:0x12000] = np.random.default_rng(1).integers(0, 256, 0x2000)

    def parameters(address, **tokens):
        place = dict(address=address, stride=32, rows=1, row_bytes=32, base=0, row_step=8, word_step=1)
        return npu.Load(space=NpuSpace.PARAMETERS, **place, **tokens)

    load = dict(stride=16, rows=1, base=0, row_step=0, word_step=1)
    store = dict(stride=16, n=4, c_base=0, c_step=0, quantise=True, q_base=0)
    job = [
        npu.Load(space=NpuSpace.ACTIVATIONS, address=0x10000, row_bytes=rows * 4, **load),
        parameters(0x15000),
        npu.Load(space=NpuSpace.WEIGHTS, address=0x11000, row_bytes=16, signal_next=True, **load),
        npu.Matmul(m=rows, c_base=0, wait_prev=True, signal_next=True, **one),
        npu.Store(address=0x20000, rows=rows, wait_prev=True, signal_prev=True, **store),
        npu.Matmul(m=1, c_base=0, wait_next=True, signal_prev=True, **one),
        parameters(0x16000, wait_next=True, signal_next=True),
        npu.Matmul(m=1, c_base=0, wait_prev=True, signal_next=True, **one),
        npu.Store(address=0x22000, rows=1, wait_prev=True, **store),
    ]
    agrees(bench, job, slice(0x20000, 0x23000))


def random_job(rng, caps):
    """A job of any legal descriptors, fenced but for STOREs in a row: memory 0x10000 to 0x1FFFF in, 0x20000 on out."""
    job = []
    for _ in range(8):
        drawn = descriptor((npu.Load, npu.Matmul, npu.Store)[rng.integers(3)], rng, caps)
        if drawn is None:
            continue
        if isinstance(drawn, npu.Store) and len(job) > 1 and isinstance(job[-2], npu.Store):
            job.pop()
        job += [drawn, npu.Fence()]
    return job


@pytest.mark.parametrize(("n", "seed"), [(4, 1), (8, 2), (16, 3), (32, 4)])
def test_any_legal_job_agrees_with_the_golden_executor(n, seed):
    rng = np.random.default_rng(seed)
    bench = Bench(SMALL[n], latency=3, stall=0.2, seed=seed)
    state = npu.NpuState(bench.caps)
    memory = bench.ram.bytes
    memory[0x10000:0x30000] = rng.integers(0, 256, 0x20000)
    golden = memory.copy()

    def read(address, length):
        return golden[address : address + length].tobytes()

    def write(address, payload):
        golden[address : address + len(payload)] = np.frombuffer(payload, dtype=np.uint8)

    async def testbench(ctx):
        for _ in range(6 if n <= 8 else 3):
            job = random_job(rng, bench.caps)
            npu.execute(job, read, write, bench.caps, state=state)
            assert await bench.job(ctx, job) == 1, f"{seed=} {job}"
            np.testing.assert_array_equal(memory[0x10000:0x30000], golden[0x10000:0x30000], err_msg=f"{seed=} {job}")

    bench.run(testbench)


def test_queued_jobs_run_in_order_and_one_too_many_is_refused():
    bench = Bench(dataclasses.replace(SMALL[8], queue_depth=3), latency=20)
    rng = np.random.default_rng(1)
    job, expected = bench.place_gemm(20, 30, 20, rng=rng)

    async def testbench(ctx):
        bench.write(0x1000, npu.encode_program(job))
        for tag in range(5):
            await bench.ring(ctx, 0x1000, len(job), tag=tag)
        status = await bench.access(ctx, False, REG.STATUS)
        assert (REG.STATUS__BUSY.get(status), REG.STATUS__FREE.get(status)) == (1, 0)
        assert REG.IRQ_STATUS__FAULT.get(await bench.access(ctx, False, REG.IRQ_STATUS))
        assert (await bench.fault(ctx))[0] == 7
        while await bench.access(ctx, False, REG.DONE_COUNT) < 4:
            pass
        assert await bench.access(ctx, False, REG.DONE_TAG) == 3
        np.testing.assert_array_equal(bench.product(20, 20)[0], expected)

    bench.run(testbench)


def test_overlap_comes_near_the_arithmetic_limit():
    bench = Bench(SMALL[8], latency=60)
    rng = np.random.default_rng(2)
    job, expected = bench.place_gemm(32, 32, 96, rng=rng)

    async def testbench(ctx):
        assert await bench.job(ctx, job) == 1
        np.testing.assert_array_equal(bench.product(32, 96)[0], expected)
        rows = await bench.access(ctx, False, REG.PERF_ROWS)
        busy = await bench.access(ctx, False, REG.PERF_BUSY)
        assert rows == 32 * 4 * 12
        assert await bench.access(ctx, False, REG.PERF_READ) >= 32 * 2 + 32 * 96 // 16
        assert await bench.access(ctx, False, REG.PERF_WRITE) == 32 * 96 // 4
        assert busy < 1.45 * rows
        # The estimate used by the transaction-level machine stays near the hardware.
        assert abs(npu.job_cycles(job, bench.caps, latency=61) / busy - 1) < 0.1

    bench.run(testbench)


def test_a_ragged_product_agrees_between_denied_memory_of_model_and_hardware():
    """A fault at a page in mid-job names the same descriptor and address as the golden executor."""
    params = SMALL[8]
    bench = Bench(params, latency=10)
    rng = np.random.default_rng(3)
    job, _ = bench.place_gemm(24, 40, 24, rng=rng, w=0x40F00)
    bench.ram.denied.add(0x41)

    def read(address, length):
        if address // 4096 in bench.ram.denied:
            raise BusFault(address, Response.DECERR)
        return bench.ram.bytes[address : address + length].tobytes()

    async def testbench(ctx):
        with pytest.raises(npu.NpuFaulted) as caught:
            npu.execute(job, read, lambda address, payload: None, bench.caps)
        assert await bench.job(ctx, job) == 2
        expected = caught.value
        assert await bench.fault(ctx) == (expected.code, expected.index, expected.address)

    bench.run(testbench)

"""NPU, its gate and the storage device on the transaction-level machine."""

import numpy as np
import pytest

from flexserve_sw.fast import FastMachine, FlashTiming
from flexserve_sw.fast.job import Port
from flexserve_sw.fast.program import Program
from flexserve_sw.machine import PAGE_BYTES, BusFault, Interrupt, Response
from flexserve_sw.npu import (
    Caps,
    Descriptor,
    Fence,
    Load,
    Matmul,
    Store,
    encode_program,
    gemm_program,
    job_cycles,
    pack_weights,
)
from flexserve_sw.regs import (
    GATE_NORMAL,
    GATE_SECURE,
    NPU_NORMAL,
    NPU_SECURE,
    STORAGE,
    NpuFault,
    NpuFrame,
    NpuSpace,
    RecallCommand,
    RecallResult,
    RecallState,
)
from tests.sw.fast_bench import OUTSIDE, WINDOW, N, S, answer, command, lend, run

C, R = RecallCommand, RecallResult
A, W, OUT, JOBS = OUTSIDE, OUTSIDE + 0x1_0000, OUTSIDE + 0x3_0000, OUTSIDE + 0x8_0000


async def ring(machine: FastMachine, address: int, count: int, *, tag: int = 7) -> None:
    """Queue a job in the normal frame."""
    for register, value in (
        (NPU_NORMAL.IRQ_ENABLE, 3), (NPU_NORMAL.JOB_ADDR_LO, address), (NPU_NORMAL.JOB_COUNT, count),
        (NPU_NORMAL.DOORBELL, tag),
    ):  # fmt: skip
        await machine.write_register(register, value, by=N)


async def prepare(machine: FastMachine, m: int, k: int, n: int, *, seed: int = 3) -> tuple[int, np.ndarray, Caps]:
    """Operands and job list of a random GEMM in memory; returns descriptors, the product, and the NPU's sizes."""
    caps = Caps.from_register(await machine.read_register(NPU_NORMAL.CAPS, by=N))
    rng = np.random.default_rng(seed)
    a, w = rng.integers(-128, 128, (m, k), dtype=np.int8), rng.integers(-128, 128, (k, n), dtype=np.int8)
    padded = np.zeros((m, -(-k // 16) * 16), dtype=np.int8)
    padded[:, :k] = a
    stride = -(-n * 4 // 16) * 16
    await machine.store(A, padded.tobytes(), by=N)
    await machine.store(W, pack_weights(w, caps.n), by=N)
    program = gemm_program(
        m=m, k=k, n=n, a_addr=A, a_stride=padded.shape[1], w_addr=W, c_addr=OUT, c_stride=stride, caps=caps
    )
    await machine.store(JOBS, encode_program(program), by=N)
    return len(program), a.astype(np.int32) @ w.astype(np.int32), caps


async def product(machine: FastMachine, m: int, n: int) -> np.ndarray:
    """What the job has stored."""
    stride = -(-n * 4 // 16) * 16
    return np.frombuffer(await machine.load(OUT, m * stride, by=N), "<i4").reshape(m, stride // 4)[:, :n]


@pytest.mark.parametrize("array", [4, 8, 16, 32])
@pytest.mark.parametrize(("m", "k", "n"), [(1, 16, 16), (3, 172, 5), (65, 40, 33)])
def test_job_computes_what_numpy_computes(array: int, m: int, k: int, n: int) -> None:
    async def program(machine: FastMachine) -> None:
        count, expected, _ = await prepare(machine, m, k, n)
        await ring(machine, JOBS, count)
        await machine.wait_interrupt(Interrupt.NPU_NORMAL)
        assert await machine.read_register(NPU_NORMAL.FAULT, by=N) == 0
        assert await machine.read_register(NPU_NORMAL.DONE_TAG, by=N) == 7
        assert np.array_equal(await product(machine, m, n), expected)

    run(program, caps=Caps(n=array))


def test_job_takes_as_long_as_the_timing_model_says() -> None:
    async def program(machine: FastMachine) -> tuple[int, int]:
        count, _, caps = await prepare(machine, 64, 172, 64)
        begin = machine.now
        await ring(machine, JOBS, count)
        await machine.wait_interrupt(Interrupt.NPU_NORMAL)
        took = machine.now - begin
        listed = gemm_program(m=64, k=172, n=64, a_addr=A, a_stride=176, w_addr=W, c_addr=OUT, c_stride=256, caps=caps)
        return took, job_cycles(listed, caps)

    took, expected = run(program)
    assert abs(took - expected) < 0.05 * expected


def test_both_sides_of_a_product_may_begin_at_the_same_place() -> None:
    """What the NPU keeps of a job is what it read of each, though one reaches further than the other."""
    operands, sums, lists = OUTSIDE + 0x1000, OUTSIDE + 0x3000, OUTSIDE
    values = np.random.default_rng(1).integers(-128, 128, (32, 16), dtype=np.int8)

    def load(space: NpuSpace, rows: int, signal: bool) -> Load:
        return Load(
            space=space, address=operands, stride=16, rows=rows, row_bytes=16, base=0, row_step=1, word_step=rows,
            signal_next=signal,
        )  # fmt: skip

    one = dict(m=32, k=16, n=16, a_base=0, a_step=32, w_base=0, w_step=16, c_base=0, c_step=32)
    last = Store(address=sums, stride=64, rows=32, n=16, c_base=0, c_step=32)
    job: list[Descriptor] = [
        load(NpuSpace.ACTIVATIONS, 32, False),
        load(NpuSpace.WEIGHTS, 16, True),
        Matmul(**one, wait_prev=True, signal_next=True),
        last._replace(wait_prev=True),
    ]

    async def program(machine: FastMachine) -> None:
        await machine.store(operands, values.tobytes(), by=N)
        for number, each in enumerate((job, [last], [Matmul(**one, accumulate=True), Fence(), last]), 1):
            await machine.store(sums, bytes(32 * 64), by=N)
            await machine.store(lists, encode_program(each), by=N)
            await ring(machine, lists, len(each))
            await machine.delay(5_000)
            assert await machine.read_register(NPU_NORMAL.DONE_COUNT, by=N) == number
            found = np.frombuffer(await machine.load(sums, 32 * 64, by=N), "<i4").reshape(32, 16)
            expected = values.astype(np.int32) @ values[:16].astype(np.int32)
            np.testing.assert_array_equal(found, expected * (2 if number == 3 else 1))

    run(program)


@pytest.mark.interpreted
def test_a_job_that_met_a_page_in_its_scrub_is_done_at_once_when_the_page_is_there_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing begins when a page comes back, so what was refused is asked again: else its time would stay a guess."""
    reaches, asked = Port.reaches_all, list[bool]()

    def listen(port: Port, program: Program) -> bool:
        asked.append(reaches(port, program))
        return asked[-1]

    monkeypatch.setattr(Port, "reaches_all", listen)
    job = [Store(address=WINDOW * PAGE_BYTES, stride=64, rows=32, n=16, c_base=0, c_step=32)]

    async def program(machine: FastMachine) -> None:
        await lend(machine, WINDOW, 1)
        await machine.store(JOBS, encode_program(job), by=N)
        await command(machine, C.RELEASE, WINDOW, by=S)
        for _ in range(2):
            await ring(machine, JOBS, len(job))
            await machine.delay(6_000)

    run(program)
    assert asked == [False, True]


def test_denied_page_in_a_job_is_a_bus_error_at_its_address_and_the_npu_stays_usable() -> None:
    async def program(machine: FastMachine) -> None:
        count, expected, caps = await prepare(machine, 4, 16, 16)
        lent = gemm_program(
            m=4, k=16, n=16, a_addr=WINDOW * PAGE_BYTES, a_stride=16, w_addr=W, c_addr=OUT, c_stride=64, caps=caps
        )
        await lend(machine, WINDOW)
        await machine.store(JOBS + PAGE_BYTES, encode_program(lent), by=N)
        await ring(machine, JOBS + PAGE_BYTES, len(lent))
        await machine.wait_interrupt(Interrupt.NPU_NORMAL)
        fault = await machine.read_register(NPU_NORMAL.FAULT, by=N)
        assert NpuFrame.FAULT__CODE.get(fault) == NpuFault.BUS_ERROR
        assert await machine.read_register(NPU_NORMAL.FAULT_ADDR_LO, by=N) == WINDOW * PAGE_BYTES
        await machine.write_register(NPU_NORMAL.IRQ_STATUS, 3, by=N)
        await ring(machine, JOBS, count)
        await machine.wait_interrupt(Interrupt.NPU_NORMAL)
        assert np.array_equal(await product(machine, 4, 16), expected)

    run(program)


async def again(machine: FastMachine, count: int) -> int:
    """Ring for the list of before; the fault that the job ends with."""
    await machine.write_register(NPU_NORMAL.IRQ_STATUS, 3, by=N)
    await ring(machine, JOBS, count)
    await machine.wait_interrupt(Interrupt.NPU_NORMAL)
    word = await machine.read_register(NPU_NORMAL.FAULT, by=N)
    return int(NpuFrame.FAULT__CODE.get(word)) if await machine.read_register(NPU_NORMAL.IRQ_STATUS, by=N) & 2 else 0


def test_list_and_weights_that_changed_since_the_job_ran_are_read_again() -> None:
    async def program(machine: FastMachine) -> None:
        count, expected, caps = await prepare(machine, 2, 16, 16)
        for _ in range(2):
            assert await again(machine, count) == 0
            assert np.array_equal(await product(machine, 2, 16), expected)
        weights = np.frombuffer(await machine.load(W, 256, by=N), np.int8)
        await machine.store(W, (weights // 2).tobytes(), by=N)
        assert await again(machine, count) == 0
        halved = await product(machine, 2, 16)
        assert not np.array_equal(halved, expected)
        a = np.frombuffer(await machine.load(A, 32, by=N), np.int8).reshape(2, 16).astype(np.int32)
        assert np.array_equal(halved, a @ (weights // 2).reshape(16, 16).astype(np.int32))
        elsewhere = gemm_program(
            m=2, k=16, n=16, a_addr=A, a_stride=16, w_addr=W, c_addr=OUT + 0x1000, c_stride=64, caps=caps
        )
        await machine.store(JOBS, encode_program(elsewhere), by=N)
        await machine.store(OUT, bytes(128), by=N)
        assert await again(machine, count) == 0
        assert not (await product(machine, 2, 16)).any()
        assert await machine.load(OUT + 0x1000, 128, by=N) == halved.astype("<i4").tobytes()

    run(program)


def test_list_in_a_page_that_was_lent_since_it_ran_is_refused() -> None:
    async def program(machine: FastMachine) -> None:
        count, _, _ = await prepare(machine, 2, 16, 16)
        listed = await machine.load(JOBS, count * 32, by=N)
        await machine.store(WINDOW * PAGE_BYTES, listed, by=N)
        for lent in (False, False, True):
            if lent:
                await lend(machine, WINDOW)
            await machine.write_register(NPU_NORMAL.IRQ_STATUS, 3, by=N)
            await ring(machine, WINDOW * PAGE_BYTES, count)
            await machine.wait_interrupt(Interrupt.NPU_NORMAL)
            assert await machine.read_register(NPU_NORMAL.IRQ_STATUS, by=N) == (2 if lent else 1)
        assert NpuFrame.FAULT__CODE.get(await machine.read_register(NPU_NORMAL.FAULT, by=N)) == NpuFault.FETCH_ERROR

    run(program)


def test_event_is_set_when_the_line_rises_or_at_once_if_it_is_high() -> None:
    async def program(machine: FastMachine) -> None:
        count, _, _ = await prepare(machine, 2, 16, 16)
        before, after = machine.event(), machine.event()
        machine.announce(Interrupt.NPU_NORMAL, before)
        await ring(machine, JOBS, count)
        assert not before.is_set()
        await before.wait()
        assert machine.pending(Interrupt.NPU_NORMAL)
        machine.announce(Interrupt.NPU_NORMAL, after)
        assert after.is_set()

    run(program)


def test_registers_written_together_are_written_one_after_the_other() -> None:
    async def program(machine: FastMachine) -> tuple[int, int]:
        values = [(NPU_NORMAL.JOB_ADDR_LO, 64), (NPU_NORMAL.JOB_COUNT, 1), (NPU_NORMAL.IRQ_ENABLE, 3)]
        begin = machine.now
        for address, value in values:
            await machine.write_register(address, value, by=N)
        middle = machine.now
        await machine.write_registers([(address, value + 1) for address, value in values], by=N)
        for address, value in values:
            assert await machine.read_register(address, by=N) == (value + 1) & (3 if value == 3 else 0xFFFF)
        return middle - begin, machine.now - middle

    one_by_one, together = run(program)
    assert together == one_by_one * 2

    async def refused(machine: FastMachine) -> None:
        values = ((NPU_NORMAL.JOB_COUNT, 5), (NPU_SECURE.JOB_COUNT, 5), (NPU_NORMAL.JOB_COUNT, 6))
        with pytest.raises(BusFault):
            await machine.write_registers(values, by=N)
        assert await machine.read_register(NPU_NORMAL.JOB_COUNT, by=N) == 5

    run(refused)


@pytest.mark.parametrize(
    ("address", "count", "code"),
    [
        (WINDOW * PAGE_BYTES, 4, NpuFault.FETCH_ERROR),
        (OUTSIDE + 16, 4, NpuFault.BAD_DESCRIPTOR),
        (OUTSIDE, 0, NpuFault.BAD_DESCRIPTOR),
        (OUTSIDE, 1, NpuFault.BAD_DESCRIPTOR),
    ],
)
def test_bad_job_is_reported(address: int, count: int, code: NpuFault) -> None:
    async def program(machine: FastMachine) -> None:
        await lend(machine, WINDOW)
        await machine.store(OUTSIDE, bytes(4096), by=N)
        await ring(machine, address, count)
        await machine.wait_interrupt(Interrupt.NPU_NORMAL)
        assert NpuFrame.FAULT__CODE.get(await machine.read_register(NPU_NORMAL.FAULT, by=N)) == code

    run(program)


def test_full_queue_takes_no_more_jobs_and_abort_empties_it() -> None:
    async def program(machine: FastMachine) -> None:
        count, _, _ = await prepare(machine, 64, 172, 64)
        for tag in range(6):
            await ring(machine, JOBS, count, tag=tag)
        fault = await machine.read_register(NPU_NORMAL.FAULT, by=N)
        assert NpuFrame.FAULT__CODE.get(fault) == NpuFault.QUEUE_OVERFLOW
        await machine.write_register(NPU_NORMAL.IRQ_STATUS, 3, by=N)
        await machine.write_register(NPU_NORMAL.CONTROL, 1, by=N)
        fault = await machine.read_register(NPU_NORMAL.FAULT, by=N)
        assert NpuFrame.FAULT__CODE.get(fault) == NpuFault.ABORTED
        await machine.delay(20_000)
        assert await machine.read_register(NPU_NORMAL.STATUS, by=N) == 4 << 8 | 1
        assert await machine.read_register(NPU_NORMAL.DONE_COUNT, by=N) == 0

    run(program)


async def gate(machine: FastMachine, code: RecallCommand, *, ticket: int = 0) -> RecallResult:
    """Command through the frame of the world that may give it."""
    by = S if code in (C.ACCEPT, C.RELEASE) else N
    return await command(machine, code, 0, by=by, ticket=ticket, port=(GATE_SECURE if by is S else GATE_NORMAL).CMD)


def test_only_the_owners_frame_is_live() -> None:
    async def live(machine: FastMachine) -> tuple[int, int]:
        return (
            await machine.read_register(NPU_NORMAL.STATUS, by=N) & 1,
            await machine.read_register(NPU_SECURE.STATUS, by=S) & 1,
        )

    async def program(machine: FastMachine) -> None:
        await machine.write_register(NPU_NORMAL.JOB_COUNT, 5, by=N)
        assert await live(machine) == (1, 0)
        assert await gate(machine, C.DELEGATE) is R.OK
        assert await live(machine) == (0, 0)
        assert await gate(machine, C.ACCEPT, ticket=1) is R.OK
        assert await live(machine) == (0, 1)
        await machine.write_register(NPU_NORMAL.JOB_COUNT, 9, by=N)
        assert await machine.read_register(NPU_NORMAL.JOB_COUNT, by=N) == 0
        assert (await answer_register(machine, NPU_SECURE.STATUS))[0] is Response.DECERR
        assert await gate(machine, C.RELEASE, ticket=1) is R.OK
        while await machine.read_register(GATE_NORMAL.STATE, by=N) != RecallState.NORMAL:
            assert await live(machine) == (0, 0)
        assert await live(machine) == (1, 0)
        assert await machine.read_register(NPU_NORMAL.JOB_COUNT, by=N) == 5

    run(program)


async def answer_register(machine: FastMachine, address: int) -> tuple[Response, bytes]:
    """A register read by the normal world that may fault."""

    async def read() -> bytes:
        return (await machine.read_register(address, by=N)).to_bytes(4, "little")

    return await answer(read())


def test_lending_aborts_the_running_job_and_reports_delegated_only_when_the_npu_is_scrubbed() -> None:
    async def program(machine: FastMachine) -> None:
        count, _, _ = await prepare(machine, 64, 172, 64)
        await ring(machine, JOBS, count)
        await machine.delay(1_500)
        lending = machine.spawn(gate(machine, C.DELEGATE), name="lend")
        while await machine.read_register(GATE_NORMAL.STATE, by=N) != RecallState.DELEGATED:
            pass
        assert not machine.soc.npu.state.a.any()
        assert await lending.join() is R.OK
        assert await gate(machine, C.CANCEL) is R.OK
        fault = await machine.read_register(NPU_NORMAL.FAULT, by=N)
        assert NpuFrame.FAULT__CODE.get(fault) == NpuFault.ABORTED

    run(program)


def test_recalled_npu_comes_back_when_its_grace_ends() -> None:
    async def program(machine: FastMachine) -> int:
        await gate(machine, C.DELEGATE)
        await gate(machine, C.ACCEPT, ticket=1)
        await machine.write_register(GATE_NORMAL.IRQ_ENABLE, 2, by=N)
        begin = machine.now
        assert await gate(machine, C.RECALL) is R.OK
        await machine.wait_interrupt(Interrupt.GATE_NORMAL)
        assert await machine.read_register(GATE_SECURE.IRQ_STATUS, by=S) & 8
        return machine.now - begin

    assert 2_000 < run(program) < 2_500


def test_storage_moves_pages_both_ways_with_the_time_of_its_flash() -> None:
    async def program(machine: FastMachine) -> int:
        machine.flash.bytes[4096:8192] = np.arange(4096) % 251
        begin = machine.now
        await move(machine, 4096, OUTSIDE, 4096, to_flash=False)
        took = machine.now - begin
        assert await machine.load(OUTSIDE, 4096, by=N) == machine.flash.bytes[4096:8192].tobytes()
        await move(machine, 0, OUTSIDE, 4096, to_flash=True)
        assert np.array_equal(machine.flash.bytes[:4096], machine.flash.bytes[4096:8192])
        return took

    assert 1_000 + 1_024 < run(program, flash=FlashTiming(latency=1_000, bytes_per_cycle=4.0)) < 2_600


async def move(machine: FastMachine, offset: int, address: int, length: int, *, to_flash: bool) -> int:
    """One transfer; returns STATUS after it."""
    write = machine.write_register
    await write(STORAGE.IRQ_ENABLE, 1, by=N)
    await write(STORAGE.FLASH_OFFSET, offset, by=N)
    await write(STORAGE.MEM_ADDR_LO, address, by=N)
    await write(STORAGE.LENGTH, length, by=N)
    await write(STORAGE.COMMAND, int(to_flash), by=N)
    if length % 16 == 0:
        assert (await answer(write(STORAGE.COMMAND, 0, by=N)))[0] is Response.SLVERR
    await machine.wait_interrupt(Interrupt.STORAGE)
    await write(STORAGE.IRQ_STATUS, 1, by=N)
    return await machine.read_register(STORAGE.STATUS, by=N)


def test_storage_can_not_reach_lent_pages_nor_move_odd_lengths() -> None:
    async def program(machine: FastMachine) -> None:
        await lend(machine, WINDOW)
        await machine.store(WINDOW * PAGE_BYTES, b"secret__" * 512, by=S)
        assert await move(machine, 0, WINDOW * PAGE_BYTES, 4096, to_flash=True) == 2
        assert not machine.flash.bytes[:4096].any()
        assert await move(machine, 0, WINDOW * PAGE_BYTES, 4096, to_flash=False) == 2
        assert await machine.load(WINDOW * PAGE_BYTES, 16, by=S) == b"secret__" * 2
        assert await move(machine, 0, OUTSIDE, 24, to_flash=False) == 2
        assert await move(machine, 0, OUTSIDE, 4096, to_flash=False) == 0

    run(program)


def test_sealed_npu_belongs_to_the_secure_world_for_good() -> None:
    async def program(machine: FastMachine) -> None:
        assert await command(machine, C.SEAL, 0, by=S, port=GATE_SECURE.CMD) is R.OK
        assert await machine.read_register(NPU_SECURE.STATUS, by=S) & 1
        assert await gate(machine, C.DELEGATE) is R.BAD_STATE
        assert await gate(machine, C.RECALL) is R.BAD_STATE

    run(program)


def test_npu_is_scrubbed_after_a_reset_before_anybody_owns_it() -> None:
    async def program(machine: FastMachine) -> None:
        assert machine.soc.npu.state.w.any()
        assert await machine.read_register(GATE_NORMAL.STATE, by=N) == RecallState.SCRUBBING
        assert await machine.read_register(NPU_NORMAL.STATUS, by=N) == 0
        assert await gate(machine, C.DELEGATE) is R.BAD_STATE
        while await machine.read_register(GATE_NORMAL.STATE, by=N) != RecallState.NORMAL:
            assert await machine.read_register(NPU_NORMAL.STATUS, by=N) == 0
        assert not machine.soc.npu.state.w.any()

    run(program, booted=False)

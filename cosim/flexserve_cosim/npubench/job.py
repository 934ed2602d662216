"""What runs inside the simulator: GEMMs by either world, each compared value by value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from flexserve_sw.drivers.command import CommandPort
from flexserve_sw.drivers.npu import NpuDriver
from flexserve_sw.machine import BEAT_BYTES, PAGE_BYTES, Initiator, Interrupt, Machine, World
from flexserve_sw.npu import (
    DESCRIPTOR_BYTES,
    Caps,
    Descriptor,
    Gemm,
    Requantise,
    encode_program,
    job_cycles,
    pack_parameters,
    pack_weights,
    packed_program,
    requantise,
    single_program,
)
from flexserve_sw.regs import (
    FLEX_NORMAL,
    FLEX_SECURE,
    GATE_NORMAL,
    GATE_SECURE,
    TZC,
    FlexmemSecure,
    NpuFrame,
    RecallCommand,
    Tzc400Region,
)

__all__ = ["Workplace", "measure"]

_NORMAL, _SECURE = Initiator.NORMAL_CPU, Initiator.SECURE_CPU
_EVERYTHING = 0xFFFF_FFFF
_PIECE = 64 * 1024


@dataclass
class Workplace:
    """Memory and NPU in the hands of one world: pages lent and accepted, or the normal world's own."""

    machine: Machine
    base: int
    size: int
    by: Initiator
    ticket: int
    caps: Caps

    @classmethod
    async def open(cls, machine: Machine, *, secure: bool, pages: int, bypass: bool = False) -> Workplace:
        """Boot the filter with a window of ``pages`` pages; lend it and the NPU if the work is the secure world's.

        With ``bypass`` nothing leads through the filter, so there is nothing to boot.
        """
        ticket = 0
        if not bypass:
            ticket = await cls._boot(machine, secure=secure, pages=pages)
        by = _SECURE if secure else _NORMAL
        driver = NpuDriver(machine, by=by)
        # After reset the NPU is scrubbed before anybody's frame is live.
        while not NpuFrame.STATUS__LIVE.get(await machine.read_register(driver.frame.STATUS, by=by)):
            await machine.delay(100)
        await driver.enable_interrupts()
        return cls(machine, machine.dram.base, pages * PAGE_BYTES, by, ticket, await driver.capabilities())

    @staticmethod
    async def _boot(machine: Machine, *, secure: bool, pages: int) -> int:
        """Open the filter; returns the ticket if the work is the secure world's."""
        region = TZC.REGION[0]
        attributes = Tzc400Region.ATTRIBUTES__S_RD_EN.put(1) | Tzc400Region.ATTRIBUTES__S_WR_EN.put(1)
        first = machine.dram.base // PAGE_BYTES
        for address, value in (
            (region.ATTRIBUTES, attributes),
            (region.ID_ACCESS, _EVERYTHING),
            (FLEX_SECURE.WINDOW_BASE, first),
            (FLEX_SECURE.WINDOW_PAGES, pages),
            (FLEX_SECURE.CONTROL, FlexmemSecure.CONTROL__ENABLE.put(1)),
            (TZC.GATE_KEEPER, 1),
        ):
            await machine.write_register(address, value, by=_SECURE)
        while not FlexmemSecure.CONTROL__READY.get(await machine.read_register(FLEX_SECURE.CONTROL, by=_SECURE)):
            await machine.delay(1000)
        ticket = 0
        if secure:
            for port, by, code, ranges in (
                (FLEX_NORMAL.CMD, _NORMAL, RecallCommand.DELEGATE, (first, pages)),
                (FLEX_SECURE.CMD, _SECURE, RecallCommand.ACCEPT, (first, pages)),
                (GATE_NORMAL.CMD, _NORMAL, RecallCommand.DELEGATE, (0, 1)),
            ):
                await CommandPort(machine, port, by=by).command(code, *ranges)
            ticket = await machine.read_register(GATE_SECURE.TICKET, by=_SECURE)
            await CommandPort(machine, GATE_SECURE.CMD, by=_SECURE).command(RecallCommand.ACCEPT, 0, 1, ticket=ticket)
        return ticket

    async def put(self, offset: int, payload: bytes) -> None:
        """Write into memory, across the bus."""
        for start in range(0, len(payload), _PIECE):
            await self.machine.store(self.base + offset + start, payload[start : start + _PIECE], by=self.by)

    async def get(self, offset: int, length: int) -> bytes:
        """Read from memory, across the bus."""
        pieces = [
            await self.machine.load(self.base + offset + start, min(_PIECE, length - start), by=self.by)
            for start in range(0, length, _PIECE)
        ]
        return b"".join(pieces)

    async def run(self, program: list[Descriptor], offset: int) -> int:
        """Run a job whose list goes to ``offset``; cycles from the doorbell's write to the interrupt."""
        machine, by = self.machine, self.by
        driver = NpuDriver(machine, by=by)
        frame = driver.frame
        await self.put(offset, encode_program(program))
        for address, value in (
            (frame.JOB_ADDR_LO, (self.base + offset) & _EVERYTHING),
            (frame.JOB_ADDR_HI, (self.base + offset) >> 32),
            (frame.JOB_COUNT, len(program)),
            (frame.JOB_TICKET, self.ticket),
        ):
            await machine.write_register(address, value, by=by)
        begin = machine.now
        await machine.write_register(frame.DOORBELL, 1, by=by)
        await machine.wait_interrupt(Interrupt.NPU_SECURE if by is _SECURE else Interrupt.NPU_NORMAL)
        cycles = machine.now - begin
        status = await machine.read_register(frame.IRQ_STATUS, by=by)
        fault = await machine.read_register(frame.FAULT, by=by)
        await machine.write_register(frame.IRQ_STATUS, status, by=by)
        if status != frame.IRQ_STATUS__DONE.put(1):
            raise RuntimeError(f"NPU job ended with status {status:#x} and fault {fault:#x}")
        return cycles


@dataclass(frozen=True)
class Product:
    """A GEMM, its operands by offset in memory, and what must come out where."""

    gemm: Gemm
    operands: dict[int, bytes]
    result: int
    expected: npt.NDArray[Any]
    end: int


def place(size: Sequence[int], *, base: int, at: int, caps: Caps, seed: int) -> Product:
    """A random GEMM (m, k, n, whether results are int8) laid out from offset ``at`` on."""
    m, k, n, int8 = size
    rng = np.random.default_rng(seed)
    a = rng.integers(-128, 128, (m, k), dtype=np.int8)
    w = rng.integers(-128, 128, (k, n), dtype=np.int8)
    a_stride = -(-k // BEAT_BYTES) * BEAT_BYTES
    rows = np.zeros((m, a_stride), np.int8)
    rows[:, :k] = a
    bias = rng.integers(-10_000, 10_000, n).astype(np.int32)
    multiplier = rng.integers(1 << 15, 1 << 16, n).astype(np.uint16)
    shift = np.full(n, 16 + max(0, (k.bit_length() + 1) // 2), np.uint8)
    sums = (a.astype(np.float64) @ w.astype(np.float64)).astype(np.int32)
    stride = -(-n * (1 if int8 else 4) // BEAT_BYTES) * BEAT_BYTES
    operands: dict[int, bytes] = {}

    def lay(payload: bytes) -> int:
        nonlocal at
        here = at
        operands[here] = payload
        at += -(-len(payload) // PAGE_BYTES) * PAGE_BYTES
        return here

    a_at, w_at = lay(rows.tobytes()), lay(pack_weights(w, caps.n))
    q_at = lay(pack_parameters(bias, multiplier, shift, caps.n)) if int8 else 0
    c_at = lay(b"\xa5" * (m * stride))
    gemm = Gemm(
        m=m, k=k, n=n, a_addr=base + a_at, a_stride=a_stride, w_addr=base + w_at, c_addr=base + c_at, c_stride=stride,
        requantise=Requantise(address=base + q_at) if int8 else None,
    )  # fmt: skip
    wide = (values.astype(np.int64) for values in (bias, multiplier, shift))
    return Product(gemm, operands, c_at, requantise(sums, *wide) if int8 else sums, at)


async def _check(work: Workplace, product: Product) -> None:
    """Every value is what numpy says."""
    g, expected = product.gemm, product.expected
    rows = np.frombuffer(await work.get(product.result, g.m * g.c_stride), np.uint8).reshape(g.m, g.c_stride)
    got = rows[:, : g.n * expected.itemsize].copy().view(expected.dtype)
    np.testing.assert_array_equal(got, expected)


async def measure(machine: Machine, argument: dict[str, Any], emit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Run the ``jobs`` of ``argument``, each a list of GEMMs, in the world that ``secure`` names.

    A list of one GEMM is run by its own plan, a longer one packed. ``bypass``: the SoC leads past the filter.
    """
    bypass = bool(argument.get("bypass"))
    work = await Workplace.open(machine, secure=argument["secure"], pages=argument["pages"], bypass=bypass)
    results = []
    for sizes in argument["jobs"]:
        products: list[Product] = []
        at = 0
        for number, size in enumerate(sizes):
            products.append(place(size, base=work.base, at=at, caps=work.caps, seed=number))
            at = products[-1].end
        gemms = [product.gemm for product in products]
        alone = len(gemms) == 1
        program = single_program(gemms[0], work.caps) if alone else packed_program(gemms, work.caps)
        if at + len(program) * DESCRIPTOR_BYTES > work.size:
            raise ValueError(f"GEMMs {sizes!r} do not fit {work.size} bytes")
        for product in products:
            for offset, payload in product.operands.items():
                await work.put(offset, payload)
        cycles = await work.run(program, at)
        for product in products:
            await _check(work, product)
        n = work.caps.n
        result = {
            "sizes": sizes,
            "cycles": cycles,
            "ideal": sum(work.caps.tiles(g.k) * work.caps.tiles(g.n) * max(g.m, n) for g in gemms),
            "macs": sum(g.m * g.k * g.n for g in gemms),
            "weight_bytes": sum(g.k * g.n for g in gemms),
            "bytes": sum(g.k * g.n + g.m * (g.k + g.n * g.value_bytes) for g in gemms),
            "estimate": job_cycles(program, work.caps),
            "descriptors": len(program),
        }
        emit(result)
        results.append(result)
    return {"results": results, "world": (World.SECURE if argument["secure"] else World.NORMAL).name}

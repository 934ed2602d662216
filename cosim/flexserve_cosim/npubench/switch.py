"""How long the NPU takes to change hands, idle and in the middle of the longest jobs that it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from flexserve_sw.drivers.npu import NpuDriver
from flexserve_sw.machine import Initiator, Interrupt, Machine, World
from flexserve_sw.npu import Caps, Descriptor, Load, Matmul, Store, encode_program
from flexserve_sw.regs import (
    GATE_NORMAL,
    GATE_SECURE,
    GateNormal,
    GateSecure,
    NpuFrame,
    NpuSpace,
    RecallCommand,
    RecallCommandPort,
    RecallResult,
)

from .job import Workplace

__all__ = ["GRACE_MIN", "JOBS", "measure_switches"]

GRACE_MIN = 1_000
"""Shortest grace period that hardware allows: what is measured beyond it is drain and scrub."""

_NORMAL, _SECURE = Initiator.NORMAL_CPU, Initiator.SECURE_CPU
_LONGEST = 65_535
_BUFFERS = 64 * 4096
"""Bytes in front of a job's list, for what it reads and writes."""


def _computing(caps: Caps, base: int) -> Iterator[Descriptor]:
    """MATMULs of all weights and as many rows as there are accumulators."""
    rows = min(caps.a_words, caps.c_rows)
    n = caps.w_words // caps.n * caps.n
    yield Matmul(m=rows, k=caps.n, n=n, a_base=0, a_step=0, w_base=0, w_step=caps.n, c_base=0, c_step=0)


def _moving(caps: Caps, base: int) -> Iterator[Descriptor]:
    """LOADs of a whole scratchpad and STOREs of all accumulators: bursts wait in both directions all the time."""
    row = min(4096, caps.a_words * caps.n)
    rows = caps.a_words * caps.n // row
    step = row // caps.n
    yield Load(
        space=NpuSpace.ACTIVATIONS,
        address=base,
        stride=row,
        rows=rows,
        row_bytes=row,
        base=0,
        row_step=step,
        word_step=1,
    )
    yield Store(address=base + rows * row, stride=4 * caps.n, rows=caps.c_rows, n=caps.n, c_base=0, c_step=0)


def _reading(caps: Caps, base: int) -> Iterator[Descriptor]:
    """LOADs alone."""
    yield next(_moving(caps, base))


def _writing(caps: Caps, base: int) -> Iterator[Descriptor]:
    """STOREs alone."""
    yield list(_moving(caps, base))[1]


JOBS: dict[str, Callable[[Caps, int], Iterator[Descriptor]]] = {
    "computing": _computing,
    "reading": _reading,
    "writing": _writing,
    "reading and writing": _moving,
}
"""Jobs of as many descriptors as a list can have, each a repetition of these."""


@dataclass
class _Scene:
    """NPU and memory of both worlds, timed by the gate's interrupts."""

    machine: Machine
    secure: Workplace
    normal: Workplace

    @classmethod
    async def open(cls, machine: Machine, *, pages: int) -> _Scene:
        secure = await Workplace.open(machine, secure=True, pages=pages)
        normal = replace(secure, base=secure.base + secure.size, by=_NORMAL)
        await machine.write_register(GATE_SECURE.GRACE, GRACE_MIN, by=_SECURE)
        await machine.write_register(GATE_SECURE.IRQ_ENABLE, GateSecure.IRQ_ENABLE__COMMAND.put(1), by=_SECURE)
        scene = cls(machine, secure, normal)
        await scene.release()
        return scene

    async def _command(self, by: Initiator, code: RecallCommand, *, until: int | None = None) -> int:
        """Cycles from a command's write to its interrupt; with ``until`` to this one of the normal frame instead."""
        machine = self.machine
        secure = by is _SECURE
        frame: GateNormal | GateSecure = GATE_SECURE if secure else GATE_NORMAL
        line = Interrupt.GATE_SECURE if secure and until is None else Interrupt.GATE_NORMAL
        everything = 0xFFFF_FFFF
        await machine.write_register(GATE_NORMAL.IRQ_STATUS, everything, by=_NORMAL)
        await machine.write_register(GATE_SECURE.IRQ_STATUS, everything, by=_SECURE)
        wanted = GateNormal.IRQ_ENABLE__COMMAND.put(1) if until is None else until
        await machine.write_register(GATE_NORMAL.IRQ_ENABLE, wanted, by=_NORMAL)
        ticket = await machine.read_register(GATE_SECURE.TICKET, by=_SECURE)
        for register, value in ((frame.CMD.FIRST, 0), (frame.CMD.COUNT, 1), (frame.CMD.TICKET, ticket)):
            await machine.write_register(register, value, by=by)
        begin = machine.now
        await machine.write_register(frame.CMD.COMMAND, RecallCommandPort.COMMAND__CODE.put(code), by=by)
        await machine.wait_interrupt(line)
        cycles = machine.now - begin
        result = RecallCommandPort.STATUS__RESULT.get(await machine.read_register(frame.CMD.STATUS, by=by))
        if result != RecallResult.OK:
            raise RuntimeError(f"{code.name} must be answered with OK, not {RecallResult(result).name}")
        self.secure.ticket = await machine.read_register(GATE_SECURE.TICKET, by=_SECURE)
        return cycles

    async def lend(self) -> int:
        """Cycles of DELEGATE, which drains and scrubs, and ACCEPT."""
        delegate = await self._command(_NORMAL, RecallCommand.DELEGATE)
        return delegate + await self._command(_SECURE, RecallCommand.ACCEPT)

    async def release(self) -> int:
        """Cycles from RELEASE to the NPU being the normal world's."""
        return await self._command(_SECURE, RecallCommand.RELEASE, until=GateNormal.IRQ_ENABLE__RETURNED.put(1))

    async def recall(self) -> int:
        """Cycles from RECALL, which nobody answers, to the NPU being the normal world's."""
        return await self._command(_NORMAL, RecallCommand.RECALL, until=GateNormal.IRQ_ENABLE__RETURNED.put(1))

    async def start(self, place: Workplace) -> None:
        """Ring the doorbell for the job whose list is behind the buffers of ``place``."""
        machine, by = self.machine, place.by
        frame = NpuDriver(machine, by=by).frame
        at = place.base + _BUFFERS
        for address, value in (
            (frame.JOB_ADDR_LO, at & 0xFFFF_FFFF),
            (frame.JOB_ADDR_HI, at >> 32),
            (frame.JOB_COUNT, _LONGEST),
            (frame.JOB_TICKET, self.secure.ticket),
            (frame.DOORBELL, 1),
        ):
            await machine.write_register(address, value, by=by)

    async def runs(self, place: Workplace) -> bool:
        """Whether a job of this world runs."""
        frame = NpuDriver(self.machine, by=place.by).frame
        return bool(NpuFrame.STATUS__BUSY.get(await self.machine.read_register(frame.STATUS, by=place.by)))


async def measure_switches(
    machine: Machine, argument: dict[str, Any], emit: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Change hands idle, and out of the middle of each job of ``jobs`` at each of ``after`` cycles.

    ``pages`` are the secure world's; the rest of memory is the normal world's.
    """
    names = argument["jobs"]
    scene = await _Scene.open(machine, pages=argument["pages"])
    idle = [(await scene.lend(), await scene.release()) for _ in range(3)]
    results: dict[str, Any] = {
        "to_secure_idle": max(lend for lend, _ in idle),
        "to_normal_idle": max(release for _, release in idle),
        "busy": [],
    }
    for name in names:
        for place in (scene.secure, scene.normal):
            once = list(JOBS[name](place.caps, place.base))
            await place.put(_BUFFERS, encode_program((once * -(-_LONGEST // len(once)))[:_LONGEST]))
        lends, recalls = [], []
        for after in argument["after"]:
            await scene.start(scene.normal)
            await machine.delay(after)
            if not await scene.runs(scene.normal):
                raise RuntimeError(f"The normal world's job {name!r} must run still after {after} cycles")
            lends.append(await scene.lend())
            await scene.start(scene.secure)
            await machine.delay(after)
            if not await scene.runs(scene.secure):
                raise RuntimeError(f"The secure world's job {name!r} must run still after {after} cycles")
            recalls.append(await scene.recall() - GRACE_MIN)
        entry = {
            "job": name,
            "to_secure": max(lends),
            "recall_beyond_grace": max(recalls),
            "recall_beyond_grace_median": median(recalls),
        }
        emit(entry)
        results["busy"].append(entry)
    results["world"] = World.NORMAL.name
    return results

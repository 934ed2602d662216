"""Driver of a Flex-NPU command frame, in either world."""

from __future__ import annotations

from dataclasses import dataclass

from ..machine import Initiator, Interrupt, Machine
from ..npu import Caps
from ..regs import NPU_NORMAL, NPU_SECURE, NpuFault, NpuFrame
from ..sync import Mutex

__all__ = ["NpuCounters", "NpuDriver", "NpuJobFailed"]


_ABORT_AGAIN = 256
"""Cycles after which an abort is repeated: it may have come before the doorbell."""


class NpuJobFailed(Exception):
    """The NPU ended a job with a fault. After ABORTED every STORE before descriptor ``index`` is in memory."""

    def __init__(self, fault: NpuFault, index: int, address: int) -> None:
        super().__init__(f"The NPU ended a job with {fault.name} at descriptor {index}, address {address:#x}")
        self.fault = fault
        self.index = index
        self.address = address


@dataclass(frozen=True)
class NpuCounters:
    """Performance counters since this world took the NPU: cycles busy, rows taken, data beats read and written."""

    busy: int
    rows: int
    read: int
    written: int

    def since(self, earlier: NpuCounters) -> NpuCounters:
        """What was counted after ``earlier``; counters wrap at 32 bits."""
        wrap = 0xFFFF_FFFF
        return NpuCounters(
            (self.busy - earlier.busy) & wrap,
            (self.rows - earlier.rows) & wrap,
            (self.read - earlier.read) & wrap,
            (self.written - earlier.written) & wrap,
        )


class NpuDriver:
    """Runs jobs one after the other on the frame of the initiator's world."""

    def __init__(self, machine: Machine, *, by: Initiator) -> None:
        self._machine, self._by = machine, by
        secure = by is Initiator.SECURE_CPU
        self.frame: NpuFrame = NPU_SECURE if secure else NPU_NORMAL
        self._line = Interrupt.NPU_SECURE if secure else Interrupt.NPU_NORMAL
        self._turn = Mutex(machine)
        self._over = machine.event()
        self._tag = 0
        self._running = 0
        self.jobs = 0

    @property
    def busy(self) -> bool:
        """Whether a job runs or waits for its turn."""
        return self._running > 0

    async def capabilities(self) -> Caps:
        """Array size and depths of the NPU's memories."""
        return Caps.from_register(await self._machine.read_register(self.frame.CAPS, by=self._by))

    async def enable_interrupts(self) -> None:
        """Let the frame's interrupt line tell of finished and faulted jobs; to be done whenever the NPU was taken."""
        both = NpuFrame.IRQ_ENABLE__DONE.put(1) | NpuFrame.IRQ_ENABLE__FAULT.put(1)
        await self._machine.write_register(self.frame.IRQ_ENABLE, both, by=self._by)

    async def run(self, address: int, count: int, *, ticket: int = 0) -> None:
        """Run ``count`` descriptors at byte ``address``; return when the last write is answered.

        Raises :class:`NpuJobFailed`.
        """
        machine, frame, by = self._machine, self.frame, self._by
        self._running += 1
        try:
            async with self._turn:
                self._tag = (self._tag + 1) & 0xFFFF
                self.jobs += 1
                self._over.clear()
                order = (
                    (frame.JOB_ADDR_LO, address & 0xFFFF_FFFF),
                    (frame.JOB_ADDR_HI, address >> 32),
                    (frame.JOB_COUNT, count),
                    (frame.JOB_TICKET, ticket),
                    (frame.DOORBELL, self._tag),
                )
                await machine.write_registers(order, by=by)
                # A job is over, too, when it is revoked: interrupts of an NPU that changed hands never come.
                machine.announce(self._line, self._over)
                await self._over.wait()
                if not machine.pending(self._line):
                    raise NpuJobFailed(NpuFault.ABORTED, 0, address)
                status = await machine.read_register(frame.IRQ_STATUS, by=by)
                failure = await self._failure() if NpuFrame.IRQ_STATUS__FAULT.get(status) else None
                await machine.write_register(frame.IRQ_STATUS, status, by=by)
                if failure is not None:
                    raise failure
        finally:
            self._running -= 1

    async def live(self) -> bool:
        """Whether this world has the NPU."""
        return bool(NpuFrame.STATUS__LIVE.get(await self._machine.read_register(self.frame.STATUS, by=self._by)))

    async def abort(self) -> bool:
        """Stop the job that runs and wait for its end, as ABORTED or well.

        False: it will not end by itself, as the NPU has changed hands; see :meth:`revoke`.
        """
        job = self.jobs

        def runs() -> bool:
            return self.busy and self.jobs == job

        while runs():
            await self._machine.write_register(self.frame.CONTROL, NpuFrame.CONTROL__ABORT.put(1), by=self._by)
            await self._machine.delay(_ABORT_AGAIN)
            if runs() and not await self.live() and runs():
                return False
        return True

    def revoke(self) -> None:
        """The NPU was taken away: a job that runs ends as aborted."""
        self._over.set()

    async def _failure(self) -> NpuJobFailed:
        machine, frame, by = self._machine, self.frame, self._by
        word = await machine.read_register(frame.FAULT, by=by)
        low = await machine.read_register(frame.FAULT_ADDR_LO, by=by)
        high = await machine.read_register(frame.FAULT_ADDR_HI, by=by)
        return NpuJobFailed(NpuFault(NpuFrame.FAULT__CODE.get(word)), NpuFrame.FAULT__INDEX.get(word), high << 32 | low)

    async def counters(self) -> NpuCounters:
        """Read the performance counters."""
        machine, frame, by = self._machine, self.frame, self._by
        return NpuCounters(
            await machine.read_register(frame.PERF_BUSY, by=by),
            await machine.read_register(frame.PERF_ROWS, by=by),
            await machine.read_register(frame.PERF_READ, by=by),
            await machine.read_register(frame.PERF_WRITE, by=by),
        )

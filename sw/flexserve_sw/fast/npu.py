"""Flex-NPU: one command frame per world, of which the owner's alone is live, over one array and its memories."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import partial

from ..machine import World
from ..npu import NpuFaulted, NpuState
from ..regs import NPU_NORMAL, NPU_SECURE, NpuFault, NpuFrame
from .filter import Filter
from .job import Counters, Job, Memories, Port
from .kernel import Hardware, Line, Routine
from .memory import Dram
from .registers import FULL, Frame, Interrupts, Register, Trigger, Value, View

__all__ = ["Npu"]

QUEUE_DEPTH = 4
"""Jobs that wait behind the running one."""
SCRUB_CYCLES = 1_024
"""Cycles to zero every memory of the NPU, all banks at once."""

_DONE, _FAULT = range(2)


@dataclass(slots=True)
class _Order:
    """A job as the doorbell takes it."""

    address: int
    count: int
    ticket: int
    tag: int


class _Side:
    """One world's frame. Its interrupt line is low while the frame is not live."""

    def __init__(self, npu: Npu, world: World, line: Line, block: NpuFrame) -> None:
        self._npu, self.world = npu, world
        self.irq = Interrupts(line, width=2, shown=lambda: self.live)
        self.queue: deque[_Order] = deque()
        self._fault = (NpuFault.NONE, 0, 0)
        self._low, self._high, self._ticket = Value(), Value(), Value()
        self._count = Value(mask=0xFFFF)
        always = frozenset(address - block.base for address in (block.ID, block.CAPS, block.STATUS))
        registers = {address - block.base: register for address, register in self._registers(block).items()}
        self.frame = Frame(registers, always=always)
        self.frame.live = False

    @property
    def live(self) -> bool:
        """Whether this world owns the NPU."""
        return self.frame.live

    def _registers(self, block: NpuFrame) -> dict[int, Register]:
        counters = self._npu.counters
        return {
            block.ID: View(lambda: 0x464C4E50),
            block.CAPS: View(self._npu.caps.to_register),
            block.STATUS: View(self._status),
            block.CONTROL: Trigger(self._abort, mask=1),
            block.JOB_ADDR_LO: self._low,
            block.JOB_ADDR_HI: self._high,
            block.JOB_COUNT: self._count,
            block.JOB_TICKET: self._ticket,
            block.DOORBELL: Trigger(self._ring, mask=0xFFFF),
            block.DONE_COUNT: View(lambda: counters.done),
            block.DONE_TAG: View(lambda: counters.tag),
            block.FAULT: View(lambda: NpuFrame.FAULT__CODE.put(self._fault[0]) | self._fault[1] << 16),
            block.FAULT_ADDR_LO: View(lambda: self._fault[2]),
            block.FAULT_ADDR_HI: View(lambda: self._fault[2] >> 32),
            block.PERF_BUSY: View(lambda: counters.busy),
            block.PERF_ROWS: View(lambda: counters.rows),
            block.PERF_READ: View(lambda: counters.read),
            block.PERF_WRITE: View(lambda: counters.written),
            block.IRQ_STATUS: self.irq.status,
            block.IRQ_ENABLE: self.irq.enable,
        }

    def _status(self) -> int:
        if not self.live:
            return 0
        busy = self._npu.job is not None or bool(self.queue)
        return (
            NpuFrame.STATUS__LIVE.put(1)
            | NpuFrame.STATUS__BUSY.put(int(busy))
            | NpuFrame.STATUS__FREE.put(QUEUE_DEPTH - len(self.queue))
        )

    def _ring(self, tag: int) -> None:
        order = _Order(self._high.value << 32 | self._low.value, self._count.value, self._ticket.value, tag)
        if len(self.queue) == QUEUE_DEPTH:
            self.report_fault(NpuFault.QUEUE_OVERFLOW, 0, order.address)
        else:
            self.queue.append(order)
            self._npu.wake()

    def _abort(self, word: int) -> None:
        if word:
            self._npu.abort()

    def report_fault(self, code: NpuFault, index: int, address: int) -> None:
        """Keep the first fault until software has cleared its interrupt bit."""
        if not self.irq.value >> _FAULT & 1:
            self._fault = (code, index, address)
        self.irq.post(_FAULT)

    def report_done(self, tag: int) -> None:
        """Count a job that ended well."""
        self._npu.counters.done += 1
        self._npu.counters.tag = tag
        self.irq.post(_DONE)

    def clear(self) -> None:
        """Return every register to its reset value."""
        for value in (self._low, self._high, self._count, self._ticket, self.irq.enable):
            value.value = 0
        self._fault = (NpuFault.NONE, 0, 0)
        self.irq.clear(FULL)


class Npu:
    """The accelerator. The gate gives it an owner; nobody owns it while it changes hands, and after a reset.

    ``memories`` keep their contents over a reset. Counters and queue are the owner's.
    """

    def __init__(
        self, hardware: Hardware, normal: Line, secure: Line, *, filter_: Filter, dram: Dram, memories: Memories
    ) -> None:
        self._hardware, self._filter, self._dram = hardware, filter_, dram
        self._memories = memories
        self.caps = memories.state.caps
        self.counters = Counters()
        self.owner: World | None = None
        self.ticket = 0
        self.job: Job | None = None
        self._begun = 0
        self._sides = {
            World.NORMAL: _Side(self, World.NORMAL, normal, NPU_NORMAL),
            World.SECURE: _Side(self, World.SECURE, secure, NPU_SECURE),
        }
        self._filter.changing = self._changing
        self._port = {world: Port(hardware, filter_, dram, world) for world in World}

    @property
    def state(self) -> NpuState:
        """Contents of the memories now."""
        return self._memories.state

    def _changing(self) -> None:
        if self.job is not None:
            self.job.changing()

    def frame(self, world: World) -> Frame:
        """Command frame of a world."""
        return self._sides[world].frame

    def give(self, world: World) -> None:
        """Make the frame of ``world`` live."""
        self._own(world)
        self.wake()

    def _own(self, owner: World | None) -> None:
        self.owner = owner
        for world, side in self._sides.items():
            side.frame.live = world is owner
            side.irq.drive()

    def wake(self) -> None:
        """Start the owner's next job, if it has one and none runs. A closed gate makes it wait."""
        side = self._sides[self.owner] if self.owner is not None else None
        if side is None or not side.queue or self.job is not None:
            return
        if not self._filter.regions.open:
            self._filter.regions.opened.add(self.wake)
            return
        order = side.queue.popleft()
        if side.world is World.SECURE and order.ticket != self.ticket:
            side.queue.clear()
            side.report_fault(NpuFault.BAD_TICKET, 0, order.address)
            return
        self._begun, over = self._hardware.now, partial(self._over, side, order.tag)
        self.job = Job(
            self._port[side.world], self._memories, self.counters, over, address=order.address, count=order.count
        )
        self._filter.touching = self.job.touched

    def _over(self, side: _Side, tag: int, fault: NpuFaulted | None) -> None:
        """The running job has ended."""
        self.job = self._filter.touching = None
        self.counters.busy += self._hardware.now - self._begun
        if fault is None:
            side.report_done(tag)
        else:
            side.queue.clear()
            side.report_fault(fault.code, fault.index, fault.address)
        self.wake()

    def abort(self) -> None:
        """Stop the running job and empty the owner's queue."""
        if self.job is not None:
            self.job.stop(NpuFault.ABORTED)
        for side in self._sides.values():
            side.queue.clear()

    def drain(self) -> Routine:
        """Take both frames from their worlds, stop the running job and wait for its accesses to be answered."""
        self._own(None)
        if self.job is not None:
            self._filter.occupy(self._hardware.now + self._dram.timing.latency)
        self.abort()
        yield max(1, self._filter.drained() - self._hardware.now)

    def scrub(self) -> Routine:
        """Zero every memory and register that a job could have left something in.

        The normal frame keeps what its own world wrote there, and what became of its last job.
        """
        yield SCRUB_CYCLES
        self._memories.scrub()
        self.counters.clear()
        self._sides[World.SECURE].clear()

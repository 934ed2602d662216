"""One NPU job in time.

When each descriptor is done is known from the start. What a job does to memory it does at its end, all at once, unless
somebody could tell the difference: then descriptors are carried out one by one as they come due.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..machine import PAGE_BYTES, BusFault, Response, World
from ..npu import DESCRIPTOR_BYTES, NpuFaulted, NpuState, job_bursts, perform
from ..regs import NpuFault
from .filter import Filter
from .kernel import Hardware
from .master import Master
from .memory import Dram, DramTiming
from .product import Matrices, Operands
from .program import Program, Traffic

__all__ = ["Counters", "Job", "Memories", "Port"]

REFUSAL_CYCLES = 4
"""From the doorbell to the fault of a list that is empty or misaligned: nothing is fetched."""

_PROGRAMS = 512
"""Job lists that are kept worked out."""


@dataclass
class Counters:
    """What was counted since the NPU changed hands: jobs ``done``, the last one's ``tag``, and performance."""

    done: int = 0
    tag: int = 0
    busy: int = 0
    rows: int = 0
    read: int = 0
    written: int = 0

    def clear(self) -> None:
        """Start at zero."""
        self.done = self.tag = self.busy = self.rows = self.read = self.written = 0

    def add(self, traffic: Traffic) -> None:
        """Count what descriptors did."""
        self.rows += traffic.rows
        self.read += traffic.read
        self.written += traffic.written


class Memories:
    """Scratchpads and accumulators. What products left in them is worked out only when somebody looks."""

    def __init__(self, state: NpuState) -> None:
        self._state = state
        self._left: dict[Program, Operands] = {}
        self.programs: dict[bytes, Program] = {}
        self.matrices = Matrices()
        self._listed: dict[tuple[Port, int, int], tuple[int, Program]] = {}

    @property
    def state(self) -> NpuState:
        """Contents now."""
        for program, left in self._left.items():
            product = program.found
            if product is not None:
                product.leave(program.descriptors, self._state, left)
        self._left.clear()
        return self._state

    def leave(self, program: Program, left: Operands) -> None:
        """Note that ``program`` ran. What an earlier run of the same list has left is all written over."""
        self._left.pop(program, None)
        self._left[program] = left

    def scrub(self) -> None:
        """Zero everything."""
        self._left.clear()
        self._state.scrub()

    def program(self, encoded: bytes, memory: DramTiming) -> Program:
        """A list, worked out."""
        program = self.programs.get(encoded)
        if program is None:
            if len(self.programs) == _PROGRAMS:
                self.programs.pop(next(iter(self.programs)))
            program = self.programs[encoded] = Program(encoded, self._state.caps, memory)
        return program

    def listed(self, port: Port, address: int, count: int) -> Program | None:
        """The list at a place, if it was fetched before and nothing of it was written to, nor could be refused, since.

        Not if somebody listens, who is to be told of every fetch.
        """
        epoch, program = self._listed.get((port, address, count), (-1, None))
        return program if epoch == port.filter.epoch and Filter.listener is None else None

    def note(self, port: Port, address: int, count: int, program: Program) -> None:
        """The list at a place was fetched."""
        key = port, address, count
        self._listed[key] = port.filter.epoch, program
        pages = range(address // PAGE_BYTES, (address + count * DESCRIPTOR_BYTES - 1) // PAGE_BYTES + 1)

        def forget() -> None:
            self._listed.pop(key, None)

        port.dram.watch(pages, forget)


@dataclass(eq=False)
class Port:
    """The NPU's way to memory: world of its accesses, filter, contents."""

    hardware: Hardware
    filter: Filter
    dram: Dram
    world: World

    def read(self, address: int, length: int) -> bytes:
        """Bytes that a read gets now; :class:`BusFault` if the filter or the memory refuses."""
        if not self._reaches(address, length, write=False):
            return bytes(length)
        return self.dram.read(address, length)

    def write(self, address: int, payload: bytes) -> None:
        """Write now; :class:`BusFault` if the filter or the memory refuses."""
        if self._reaches(address, len(payload), write=True):
            self.dram.write(address, payload)

    def _reaches(self, address: int, length: int, *, write: bool) -> bool:
        """Whether the access gets to memory; one that is denied with OKAY does not, and nobody is told."""
        denial = self.filter.refusal(Master.NPU, self.world, address, length, write=write)
        if denial is not None and denial.response is not Response.OKAY:
            raise denial
        return denial is None

    def reaches_all(self, program: Program) -> bool:
        """Whether nothing that a job does would be refused now."""
        circumstances = self, self.filter.epoch
        # A page that comes back zeroed begins no epoch, so what is refused is asked again.
        if program.circumstances != circumstances or not program.reaches:
            program.circumstances, program.reaches = circumstances, self._reaches_all(program)
        return program.reaches

    def _reaches_all(self, program: Program) -> bool:
        return all(
            self.dram.holds_pages(pages) and self.filter.lets(Master.NPU, self.world, pages, write=write)
            for pages, write in ((program.reads, False), (program.writes, True))
        )


class Job:
    """Runs a descriptor list, and calls ``over`` when it has ended, well or with a fault.

    The list is fetched as a whole when the job starts. The bus is shared: while a job runs, transfers of others get the
    share of a direction that it leaves them, half of it at least, as of an arbiter that takes turns; and a job that
    wants more than half of a direction is held up by as much as they took of its part.
    """

    def __init__(
        self, port: Port, memories: Memories, counters: Counters, over: Callable[[NpuFaulted | None], None],
        *, address: int, count: int,
    ) -> None:  # fmt: skip
        self._port, self._memories, self._counters, self._over = port, memories, counters, over
        self._address = address
        self._start = port.hardware.now
        self._next = 0
        self._stepwise = False
        self._running = True
        self._missing = -1  # descriptor whose fetch was refused
        if count == 0 or address % DESCRIPTOR_BYTES:
            self._program = memories.program(b"", port.dram.timing)
            self._plan(REFUSAL_CYCLES, lambda: self._fail(NpuFault.BAD_DESCRIPTOR, 0, address))
            return
        self._program = program = memories.listed(port, address, count) or self._find(count)
        reads, writes = port.dram.reads, port.dram.writes
        self._before = reads.moved, writes.moved
        reads.wanted, writes.wanted = program.wanted
        if Filter.listener is not None:
            for burst, write in job_bursts(program.descriptors):
                port.filter.heard(burst, port.world, write=write)
        if self._missing < 0 and program.whole and port.reaches_all(program):
            self._plan(program.cycles, self._end)
            return
        self._stepwise = True
        self._step()

    def _find(self, count: int) -> Program:
        """Fetch the list."""
        program = self._memories.program(self._fetch(count), self._port.dram.timing)
        if self._missing < 0:
            self._memories.note(self._port, self._address, count, program)
        return program

    def _fetch(self, count: int) -> bytes:
        """The list, up to where a fetch is refused."""
        encoded = bytearray()
        while len(encoded) < count * DESCRIPTOR_BYTES:
            at = self._address + len(encoded)
            length = min(count * DESCRIPTOR_BYTES - len(encoded), PAGE_BYTES - at % PAGE_BYTES)
            self._port.filter.heard(at, self._port.world, write=False)
            try:
                encoded += self._port.read(at, length)
            except BusFault:
                self._missing = len(encoded) // DESCRIPTOR_BYTES
                break
        return bytes(encoded)

    def _plan(self, cycle: int, action: Callable[[], None]) -> None:
        """Do something ``cycle`` cycles after the doorbell, which must be nothing if the job is over then."""
        self._port.hardware.at(self._start + cycle, action)

    def stop(self, code: NpuFault) -> None:
        """End the job at once with a fault, unless it has ended. Every STORE before the fault's index is in memory."""
        if self._running:
            self.catch_up()
        if self._running:
            self._fail(code, self._next, 0)

    def _fail(self, code: NpuFault, index: int, address: int) -> None:
        self._ended(NpuFaulted(code, index, address))

    def _ended(self, fault: NpuFaulted | None) -> None:
        if not self._running:
            return
        self._running = False
        self._port.dram.reads.wanted = self._port.dram.writes.wanted = 0.0
        self._over(fault)

    # All at once

    def _end(self) -> None:
        """The last descriptor is done, unless others held the job up meanwhile."""
        if self._stepwise or not self._running:
            return
        held_up = self._held_up()
        if self._start + self._program.cycles + held_up > self._port.hardware.now:
            self._plan(self._program.cycles + held_up, self._end)
            return
        product = self._program.product(self._memories.matrices) if self._next == 0 else None
        if product is None:
            self._carry_out(len(self._program.descriptors))
        else:
            self._memories.leave(self._program, product.run(self._port.dram))
            self._counters.add(self._program.traffic)
        self._ended(None)

    def _held_up(self) -> int:
        """Cycles that traffic of others has cost so far."""
        reads, writes = self._port.dram.reads, self._port.dram.writes
        return round(reads.holds_up(reads.moved - self._before[0]) + writes.holds_up(writes.moved - self._before[1]))

    # One by one

    def touched(self, page: int) -> None:
        """Somebody else is about to move data in a page."""
        if page in self._program.writes or page in self._program.reads:
            self.catch_up()

    def changing(self) -> None:
        """Who may access what is about to change."""
        self.catch_up()
        if self._running and not self._stepwise:
            self._stepwise = True
            self._step()

    def catch_up(self) -> None:
        """Carry out what is done by now."""
        now, when = self._port.hardware.now - self._start, self._program.when
        due = self._next
        while due < len(when) and when[due] <= now and due != self._program.stalls:
            due += 1
        self._carry_out(due)

    def _carry_out(self, end: int) -> None:
        """Carry out the descriptors before number ``end``."""
        descriptors, port = self._program.descriptors, self._port
        while self._running and self._next < end:
            descriptor = descriptors[self._next]
            try:
                perform(descriptor, self._next, self._memories.state, port.read, port.write)
            except NpuFaulted as fault:
                self._ended(fault)
                return
            self._counters.add(Traffic.of(descriptor, self._program.caps))
            self._next += 1

    def _step(self) -> None:
        """Carry out what is due, and plan for what comes next."""
        self.catch_up()
        if not self._running:
            return
        program = self._program
        if self._next == program.stalls:
            return
        if self._next < len(program.descriptors):
            self._plan(program.when[self._next], self._step)
            return
        now = self._port.hardware.now - self._start
        if self._missing >= 0 and program.cut is None:
            place = self._address + self._missing * DESCRIPTOR_BYTES
            missing = self._missing
            self._plan(max(now, program.handed), lambda: self._fail(NpuFault.FETCH_ERROR, missing, place))
        elif program.cut is not None:
            code, offset = program.cut
            index = offset // DESCRIPTOR_BYTES
            self._plan(max(now, program.handed), lambda: self._fail(code, index, self._address + offset))
        else:
            self._plan(max(now, program.cycles), lambda: self._ended(None))

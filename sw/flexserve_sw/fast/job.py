"""One NPU job in time: three units that run their descriptors in order and wait for each other by tokens only."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import simpy

from ..machine import BEAT_BYTES, PAGE_BYTES, BusFault, Response, World
from ..npu import DESCRIPTOR_BYTES, Descriptor, Fence, Load, Matmul, NpuFaulted, NpuState, Store, decode, execute
from ..npu.model import check
from ..regs import NpuFault
from .filter import FILTER_LATENCY, Filter, Master
from .kernel import Hardware, Routine, Steps
from .memory import Dram

__all__ = ["Counters", "Job", "Port"]

FETCH_BURST = 4
"""Descriptors that one burst brings."""
FETCH_ROOM = 8
"""Descriptors fetched ahead."""
DISPATCH_CYCLES = 6
"""From descriptor to descriptor in the dispatcher."""
FILL_CYCLES = 4
"""Beyond N, from the array's last row to its sum being in the accumulators."""
UNIT_QUEUE = 4
"""Descriptors that a unit can have waiting."""

LINKS: dict[type, tuple[str | None, str | None, str | None, str | None]] = {
    Load: (None, "execute_to_load", None, "load_to_execute"),
    Matmul: ("load_to_execute", "store_to_execute", "execute_to_load", "execute_to_store"),
    Store: ("execute_to_store", None, "store_to_execute", None),
}
"""Tokens that wait_prev, wait_next, signal_prev and signal_next mean to each unit."""


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


@dataclass
class Port:
    """The NPU's way to memory: world of its accesses, filter, DRAM bandwidth."""

    hardware: Hardware
    filter: Filter
    dram: Dram
    world: World

    def read(self, address: int, length: int) -> bytes:
        """Bytes that a read gets now; :class:`BusFault` if the filter or the memory refuses."""
        if not self._reaches(address, length, write=False):
            return bytes(length)
        return self.dram.view(address, length).tobytes()

    def write(self, address: int, payload: bytes) -> None:
        """Write now; :class:`BusFault` if the filter or the memory refuses."""
        if self._reaches(address, len(payload), write=True):
            self.dram.view(address, len(payload))[:] = memoryview(payload)

    def _reaches(self, address: int, length: int, *, write: bool) -> bool:
        """Whether the access gets to memory; one that is denied with OKAY does not, and nobody is told."""
        denial = self.filter.refusal(Master.NPU, self.world, address, length, write=write)
        if denial is not None and denial.response is not Response.OKAY:
            raise denial
        return denial is None

    def occupy(self, beats: int, *, write: bool) -> Steps[int]:
        """Take bandwidth for ``beats`` and wait until the last has passed; return the cycle in which it is answered."""
        while not self.filter.regions.gate.is_set():
            yield self.filter.regions.gate.event
        channel = self.dram.writes if write else self.dram.reads
        slot = channel.take(self.hardware.now + FILTER_LATENCY, beats * BEAT_BYTES)
        self.filter.occupy(slot.done)
        yield self.hardware.env.timeout(slot.clear - self.hardware.now)
        return slot.done


class Job:
    """Runs a descriptor list; ``over`` fires when it has ended, well or with ``fault`` set."""

    def __init__(self, port: Port, state: NpuState, counters: Counters, *, address: int, count: int) -> None:
        self._port, self._state, self._counters = port, state, counters
        self._address, self._count = address, count
        env = port.hardware.env
        self.over = env.event()
        self.fault: NpuFaulted | None = None
        self._started = self._finished = self._kept = 0
        self._progress = env.event()
        self._tokens = {link: simpy.Container(env) for links in LINKS.values() for link in links if link is not None}
        self._queues = {kind: simpy.Store(env, capacity=UNIT_QUEUE) for kind in (Load, Matmul, Store)}
        self._room = simpy.Container(env, capacity=FETCH_ROOM, init=FETCH_ROOM)
        self._arrived = simpy.Store(env)
        routines = [self._fetch(), self._dispatcher(), *(self._unit(queue) for queue in self._queues.values())]
        self._processes: list[simpy.Process] = []
        for routine in routines:
            self._start(routine)

    def _start(self, routine: Routine) -> None:
        self._processes = [process for process in self._processes if process.is_alive]
        self._processes.append(self._port.hardware.start(self._guard(routine)))

    def stop(self, code: NpuFault) -> None:
        """End the job at once with a fault, unless it has ended. Every STORE before the fault's index is in memory."""
        self._fail(NpuFaulted(code, self._kept, 0))

    def _fail(self, fault: NpuFaulted) -> None:
        if not self.over.triggered:
            self.fault = fault
            self._end()

    def _end(self) -> None:
        self.over.succeed()
        for process in self._processes:
            if process.is_alive and process is not self._port.hardware.env.active_process:
                process.interrupt()

    def _guard(self, routine: Routine) -> Routine:
        try:
            yield from routine
        except simpy.Interrupt:
            return
        except NpuFaulted as fault:
            self._fail(fault)

    def _done(self) -> None:
        self._finished += 1
        progress, self._progress = self._progress, self._port.hardware.env.event()
        progress.succeed()
        if self._finished == self._count:
            self._end()

    def _fetch(self) -> Routine:
        """Request descriptors ahead of the dispatcher, as far as there is room for them."""
        if self._count == 0 or self._address % DESCRIPTOR_BYTES:
            raise NpuFaulted(NpuFault.BAD_DESCRIPTOR, 0, self._address)
        at = 0
        while at < self._count:
            place = self._address + at * DESCRIPTOR_BYTES
            many = min(FETCH_BURST, self._count - at, (PAGE_BYTES - place % PAGE_BYTES) // DESCRIPTOR_BYTES)
            yield self._room.get(many)
            answered = yield from self._port.occupy(many * DESCRIPTOR_BYTES // BEAT_BYTES, write=False)
            self._start(self._arrive(range(at, at + many), answered))
            at += many

    def _arrive(self, indices: range, answered: int) -> Routine:
        """Take what a fetch has brought; one that failed is a fault when its turn comes."""
        yield self._port.hardware.env.timeout(answered - self._port.hardware.now)
        place = self._address + indices.start * DESCRIPTOR_BYTES
        try:
            encoded: bytes | None = self._port.read(place, len(indices) * DESCRIPTOR_BYTES)
        except BusFault:
            encoded = None
        for i in range(len(indices)):
            self._arrived.put(None if encoded is None else encoded[i * DESCRIPTOR_BYTES : (i + 1) * DESCRIPTOR_BYTES])

    def _dispatcher(self) -> Routine:
        """Hand each descriptor to its unit."""
        for index in range(self._count):
            encoded = yield self._arrived.get()
            if encoded is None:
                raise NpuFaulted(NpuFault.FETCH_ERROR, index, self._address + index * DESCRIPTOR_BYTES)
            yield self._room.put(1)
            yield self._port.hardware.env.timeout(DISPATCH_CYCLES)
            yield from self._dispatch(index, encoded)

    def _dispatch(self, index: int, encoded: bytes) -> Routine:
        place = self._address + index * DESCRIPTOR_BYTES
        try:
            descriptor = decode(encoded)
        except ValueError as error:
            raise NpuFaulted(NpuFault.BAD_DESCRIPTOR, index, place) from error
        fault = check(descriptor, self._state.caps)
        if fault is not NpuFault.NONE:
            raise NpuFaulted(fault, index, place)
        self._started += 1
        if isinstance(descriptor, Fence):
            while self._finished < self._started - 1:
                yield self._progress
            self._done()
        else:
            yield self._queues[type(descriptor)].put((index, descriptor))

    def _unit(self, queue: simpy.Store) -> Routine:
        while True:
            index, descriptor = yield queue.get()
            wait_prev, wait_next, _, _ = LINKS[type(descriptor)]
            for flag, link in ((descriptor.wait_prev, wait_prev), (descriptor.wait_next, wait_next)):
                if flag and link is not None:
                    yield self._tokens[link].get(1)
            done = yield from self._spend(descriptor)
            late = isinstance(descriptor, Load)
            if not late:
                self._execute(index, descriptor)
                yield from self._signal(descriptor, before=True)
            self._start(self._land(index, descriptor, done, late=late))

    def _land(self, index: int, descriptor: Descriptor, done: int, *, late: bool) -> Routine:
        """End a descriptor while its unit is at the next already; a LOAD takes effect when its data is there."""
        yield self._port.hardware.env.timeout(done - self._port.hardware.now)
        if late:
            self._execute(index, descriptor)
        yield from self._signal(descriptor, before=False)
        if isinstance(descriptor, Store):
            self._kept = index + 1
        self._done()

    def _signal(self, descriptor: Descriptor, *, before: bool) -> Routine:
        """Give the token to the unit before, or after, if the descriptor says so."""
        link = LINKS[type(descriptor)][2 if before else 3]
        if link is not None and (descriptor.signal_prev if before else descriptor.signal_next):
            yield self._tokens[link].put(1)

    def _spend(self, descriptor: Load | Matmul | Store) -> Steps[int]:
        """Wait until the unit is free again and return the cycle in which the descriptor is done.

        LOAD and STORE take their beats of bus bandwidth and are done a memory latency later; MATMUL takes M cycles per
        weight tile, at least N for the next tile to shift in, and is done when the array has emptied. Sources are free
        for the unit before as soon as the unit is.
        """
        caps, hardware = self._state.caps, self._port.hardware
        match descriptor:
            case Load():
                beats = descriptor.rows * -(-descriptor.row_bytes // BEAT_BYTES)
                self._counters.read += beats
                return (yield from self._port.occupy(beats, write=False))
            case Store():
                beats = descriptor.rows * -(-4 * descriptor.n // BEAT_BYTES)
                self._counters.written += beats
                return (yield from self._port.occupy(beats, write=True))
            case Matmul():
                tiles = caps.tiles(descriptor.k) * caps.tiles(descriptor.n)
                self._counters.rows += tiles * descriptor.m
                yield hardware.env.timeout(tiles * max(descriptor.m, caps.n) + 2)
                return hardware.now + caps.n + FILL_CYCLES

    def _execute(self, index: int, descriptor: Descriptor) -> None:
        """Do what the golden executor does for this one descriptor, its tokens being taken care of here."""
        alone = dataclasses.replace(descriptor, wait_prev=False, wait_next=False, signal_prev=False, signal_next=False)
        try:
            execute([alone], self._port.read, self._port.write, self._state.caps, state=self._state)
        except NpuFaulted as fault:
            raise NpuFaulted(fault.code, index, fault.address) from fault

"""Linear layers on the NPU: programs over scattered pages, and the right to run them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ..drivers.command import CommandPort, CommandRefused
from ..drivers.npu import NpuDriver, NpuJobFailed
from ..llm.arithmetic import Int8, Int32
from ..llm.image import Tensor
from ..machine import BEAT_BYTES, PAGE_BYTES, Initiator, Machine
from ..monitor.monitor import Monitor
from ..monitor.smc import Request
from ..npu import DESCRIPTOR_BYTES, Caps, decode, encode_program, remainder
from ..platforms import Platform
from ..regs import GATE_SECURE, NpuFault, RecallCommand, RecallResult
from ..timeline import Timeline
from .joblists import JobLists
from .parts import ListTooLong, in_parts
from .segments import PagedSegment, whole_pages
from .space import Space

__all__ = ["BorrowedNpu", "NpuLease", "NpuProducts", "OwnNpu", "RESULT_BYTES", "ROW_BLOCK"]

ROW_BLOCK = 128
"""Rows of activations that one job takes at most: bounds the working memory."""

RESULT_BYTES = 256 * 1024
"""Results of one job at most, for the same reason."""


class NpuLease(Protocol):
    """The right to run jobs."""

    driver: NpuDriver

    async def take(self) -> int:
        """Make sure that the NPU is ours; return the ticket that jobs must quote."""

    async def yielded(self) -> bool:
        """Whether the NPU was wanted back while a job ran, so that the job is to go on later. It is given back then."""

    async def give(self) -> None:
        """Let it go."""


class OwnNpu:
    """The normal world's own NPU: nothing to borrow."""

    def __init__(self, machine: Machine, platform: Platform) -> None:
        self._machine = machine
        self._init = platform.seconds(platform.system.npu_driver_init, machine.clock_hz)
        self.driver = NpuDriver(machine, by=Initiator.NORMAL_CPU)
        self._ready = False

    async def take(self) -> int:
        """Bring the driver up at the first use."""
        if not self._ready:
            await self._machine.delay(self._init)
            await self.driver.enable_interrupts()
            self._ready = True
        return 0

    async def yielded(self) -> bool:
        """Nobody wants it back."""
        return False

    async def give(self) -> None:
        """Nothing to give back."""


class BorrowedNpu:
    """The OS's NPU, lent to the secure world through the gate.

    ``held`` tells whether the secure world has it; after a recall the next :meth:`take` borrows it anew, with a new
    ticket. ``borrowed`` counts lendings.
    """

    def __init__(self, machine: Machine, monitor: Monitor, platform: Platform, timeline: Timeline) -> None:
        self._machine, self._monitor, self._timeline = machine, monitor, timeline
        self._init = platform.seconds(platform.system.npu_driver_init, machine.clock_hz)
        self.driver = NpuDriver(machine, by=Initiator.SECURE_CPU)
        self.port = CommandPort(machine, GATE_SECURE.CMD, by=Initiator.SECURE_CPU)
        self.held = False
        self.ticket = 0
        self.borrowed = 0
        self._ready = False
        self._wanted = False

    async def take(self) -> int:
        """Borrow the NPU unless it is ours; raises :class:`~..monitor.Refused` if the OS keeps it."""
        while not self.held:
            with self._timeline.span("npu", "borrow"):
                if not self._ready:
                    await self._machine.delay(self._init)
                    self._ready = True
                await self._monitor.request(Request.LEND_NPU)
                self.ticket = await self._machine.read_register(GATE_SECURE.TICKET, by=Initiator.SECURE_CPU)
                await self.port.command(RecallCommand.ACCEPT, 0, 1, ticket=self.ticket)
                self.held = True
                self.borrowed += 1
                await self.driver.enable_interrupts()
        return self.ticket

    async def recall(self) -> None:
        """The OS wants the NPU: stop the job that runs, if one does, and give it back.

        Whoever runs the job gives the NPU back itself, once it knows how far the job came.
        """
        lending = self.borrowed
        while self.held and self.borrowed == lending:
            if self.driver.busy:
                self._wanted = True
                if not await self.driver.abort():
                    self._revoke()
            else:
                await self.give()

    async def yielded(self) -> bool:
        """Give the NPU back if a job ended because the OS wants it or has taken it."""
        wanted, self._wanted = self._wanted, False
        if wanted:
            await self.give()
        return wanted

    async def expired(self) -> None:
        """The grace period of a recall ran out: unless it is lent anew already, the NPU is gone, and its job."""
        lending = self.borrowed
        if self.held and not await self.driver.live() and self.borrowed == lending:
            self._revoke()

    def _revoke(self) -> None:
        self.held = False
        self._wanted = self.driver.busy
        self.driver.revoke()

    async def give(self) -> None:
        """Return the NPU. Hardware drains and scrubs it before the OS sees it."""
        if self.held:
            self.held = False
            outcome = await self.port.try_command(RecallCommand.RELEASE, 0, 1, ticket=self.ticket)
            # BAD_STATE: the grace period ended in this moment, so it is on its way back already.
            if outcome.result not in (RecallResult.OK, RecallResult.BAD_STATE):
                raise CommandRefused(RecallCommand.RELEASE, outcome)


@dataclass
class _DescriptorPool:
    """Job lists in memory, kept until a page of theirs moves: of the list, or of what its job reads and writes.

    A list must be contiguous on the bus.
    """

    space: Space
    segment: PagedSegment
    _epoch: int = -1
    _programs: dict[tuple[str, int, int], tuple[int, int, int]] = field(default_factory=dict)
    _runs: list[list[int]] = field(default_factory=list)
    _longest: int = 0

    def find(self, key: tuple[str, int, int], operands: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
        """Physical address and number of descriptors of a list that is still valid.

        ``operands`` are the ranges that its job reads and writes: address in the space, and length.
        """
        if self._epoch != self.space.epoch:
            if self._epoch < self.space.changed(self.segment.address, self.segment.length):
                self.clear()
            self._epoch = self.space.epoch
        address, count, epoch = self._programs.get(key, (0, 0, -1))
        if epoch != self.space.epoch:
            if epoch < max(self.space.changed(at, length) for at, length in operands):
                return None
            self._programs[key] = address, count, self.space.epoch
        return address, count

    def keep(self, key: tuple[str, int, int], place: int, count: int) -> tuple[int, int]:
        """Note a list that was put at ``place``; return what :meth:`find` will."""
        self._programs[key] = self.space.physical(place), count, self.space.epoch
        return self._programs[key][:2]

    def clear(self) -> None:
        """Forget all lists and look at which pages are neighbours now."""
        self._epoch = self.space.epoch
        self._programs.clear()
        frames = [self.space.frame(self.segment.first + page) for page in range(self.segment.pages)]
        runs, page = [], 0
        while page < len(frames):
            count = 1
            while page + count < len(frames) and frames[page + count] == (frames[page] or 0) + count:
                count += 1
            runs.append([self.segment.address + page * PAGE_BYTES, count * PAGE_BYTES])
            page += count
        self._runs = runs
        self._longest = max(length for _, length in runs)

    def place(self, length: int) -> int:
        """Room for a list, as an address of the space. Old lists make way if there is none.

        Raises :class:`ListTooLong`.
        """
        if length > self._longest:
            raise ListTooLong(f"No contiguous run of {length} bytes is left for a list of descriptors")
        for _ in range(2):
            for run in self._runs:
                if run[1] >= length:
                    address = run[0]
                    run[0] += length
                    run[1] -= length
                    return address
            self.clear()
        raise AssertionError("The longest run is empty now")


@dataclass(frozen=True)
class _Part:
    """Some rows and columns of a product. Its text is what its job's name ends with."""

    rows: range
    columns: range

    def halves(self, tile: int) -> tuple[_Part, _Part] | None:
        """Two parts, in whole tiles of columns; only what is one such tile is cut by rows. None for a single row."""
        middle = self.columns.start + -(-len(self.columns) // tile) // 2 * tile
        if middle > self.columns.start:
            halves = range(self.columns.start, middle), range(middle, self.columns.stop)
            return _Part(self.rows, halves[0]), _Part(self.rows, halves[1])
        if len(self.rows) == 1:
            return None
        middle = self.rows.start + len(self.rows) // 2
        halves = range(self.rows.start, middle), range(middle, self.rows.stop)
        return _Part(halves[0], self.columns), _Part(halves[1], self.columns)

    def __str__(self) -> str:
        return "".join(f"[{cut.start}:{cut.stop}]" for cut in (self.rows, self.columns))


class NpuProducts:
    """Products ``x[T, K] W[K, N]`` by jobs: rows into memory, doorbell, interrupt, sums out of memory.

    ``work`` has room for :meth:`work_bytes` bytes; ``descriptors`` holds the job lists.
    """

    def __init__(
        self,
        *,
        space: Space,
        lease: NpuLease,
        caps: Caps,
        work: PagedSegment,
        descriptors: PagedSegment,
        timeline: Timeline,
    ) -> None:
        self._space, self._lease, self._caps, self._work = space, lease, caps, work
        self._timeline = timeline
        self._pool = _DescriptorPool(space, descriptors)
        self._lists = JobLists(space, caps)
        self.macs = 0
        self.resumed = 0

    @staticmethod
    def strides(k: int, n: int, caps: Caps) -> tuple[int, int]:
        """Bytes from row to row of activations and of sums; both can be cut at any page boundary."""
        word = max(BEAT_BYTES, caps.n)
        return -(-k // word) * word, -(-n // caps.n) * caps.n * 4

    @classmethod
    def rows_at_once(cls, rows: int, k: int, n: int, caps: Caps) -> int:
        """Rows per job."""
        return max(1, min(rows, ROW_BLOCK, RESULT_BYTES // cls.strides(k, n, caps)[1]))

    @classmethod
    def work_bytes(cls, shapes: list[tuple[int, int]], rows: int, caps: Caps) -> int:
        """Working memory for products of these (K, N) with up to ``rows`` rows."""
        most = 0
        for k, n in shapes:
            a_stride, c_stride = cls.strides(k, n, caps)
            block = cls.rows_at_once(rows, k, n, caps)
            most = max(most, whole_pages(block * a_stride) + whole_pages(block * c_stride))
        return most

    async def product(self, name: str, tensor: Tensor, weights: int, x: Int8) -> Int32:
        """Exact int32 product with the packed matrix at address ``weights`` of the space."""
        k, n = tensor.shape
        block = self.rows_at_once(len(x), k, n, self._caps)
        if len(x) <= block:
            return await self._block(name, tensor, weights, x)
        return np.concatenate(
            [await self._block(name, tensor, weights, x[start : start + block]) for start in range(0, len(x), block)]
        )

    async def _block(self, name: str, tensor: Tensor, weights: int, x: Int8) -> Int32:
        (k, n), rows = tensor.shape, len(x)
        a_stride, c_stride = self.strides(k, n, self._caps)
        a = self._work.address
        c = a + whole_pages(rows * a_stride)
        padded = np.zeros((rows, a_stride), np.int8)
        padded[:, :k] = x
        await self._space.store(a, padded.tobytes())
        tile = self._caps.n

        async def job(part: _Part) -> None:
            # Of the packed weights, some tiles' columns lie together.
            count, columns = len(part.rows), len(part.columns)
            tiles = self._caps.tiles(k) * tile * tile
            w, w_bytes = weights + part.columns.start // tile * tiles, self._caps.tiles(columns) * tiles
            left, into = a + part.rows.start * a_stride, c + part.rows.start * c_stride + part.columns.start * 4
            stored = (count - 1) * c_stride + self._caps.tiles(columns) * tile * 4
            touched = ((left, count * a_stride), (into, stored), (w, w_bytes))

            def encoded() -> bytes:
                return self._lists.gemm(count, k, columns, a=(left, a_stride), w=(w, w_bytes), c=(into, c_stride))

            whole = part == _Part(range(rows), range(n))
            await self.job((name if whole else f"{name}{part}", rows, weights), touched, encoded, rows=count)

        await in_parts(name, _Part(range(rows), range(n)), job, lambda part: part.halves(tile))
        self.macs += rows * k * n
        raw = await self._space.load(c, rows * c_stride)
        return np.frombuffer(raw, "<i4").reshape(rows, c_stride // 4)[:, :n]

    async def job(
        self,
        key: tuple[str, int, int],
        operands: Sequence[tuple[int, int]],
        encode: Callable[[], bytes],
        *,
        rows: int,
    ) -> None:
        """Run a job over addresses of the space, named by the first part of its key, to its end.

        Its list is made by ``encode`` unless that of this key is still valid; ``operands`` are the ranges that it
        reads and writes. Raises :class:`ListTooLong`.
        """
        found = self._pool.find(key, operands)
        if found is None:
            encoded = encode()
            place = self._pool.place(len(encoded))
            await self._space.store(place, encoded)
            found = self._pool.keep(key, place, len(encoded) // DESCRIPTOR_BYTES)
        await self._run(key[0], *found, rows=rows)

    async def _run(self, name: str, address: int, count: int, *, rows: int) -> None:
        """Run a job to its end, in as many parts as the OS takes the NPU away in the middle.

        Inputs are untouched, so what is done later gives what it would have given.
        """
        while count:
            ticket = await self._lease.take()
            try:
                with self._timeline.span("npu", name, rows=rows, descriptors=count):
                    await self._lease.driver.run(address, count, ticket=ticket)
                return
            except NpuJobFailed as error:
                if error.fault is not NpuFault.ABORTED or not await self._lease.yielded():
                    raise
                self.resumed += 1
                if error.index:
                    address, count = await self._rest(address, count, error.index)

    async def _rest(self, address: int, count: int, kept: int) -> tuple[int, int]:
        """Write the list of what is left of a job whose STOREs before ``kept`` are done; return its place and count."""
        size = DESCRIPTOR_BYTES
        encoded = await self._space.load_physical(address, count * size)
        program = [decode(encoded[at : at + size]) for at in range(0, len(encoded), size)]
        rest = encode_program(remainder(program, kept, self._caps))
        if not rest:
            return address, 0
        place = self._pool.place(len(rest))
        await self._space.store(place, rest)
        return self._space.physical(place), len(rest) // size

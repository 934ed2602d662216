"""Linear layers on the NPU: programs over scattered pages, and the right to run them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from ..drivers.command import CommandPort, CommandRefused
from ..drivers.npu import NpuDriver, NpuJobFailed
from ..llm.arithmetic import Int8, Int32
from ..llm.image import Tensor
from ..machine import Initiator, Machine
from ..monitor.monitor import Monitor
from ..monitor.smc import Request
from ..npu import DESCRIPTOR_BYTES, Caps, decode, encode_program, remainder
from ..platforms import Platform
from ..regs import GATE_SECURE, NpuFault, RecallCommand, RecallResult
from ..timeline import Timeline
from .joblists import JobLists
from .listpool import JobKey, ListPool
from .parts import in_parts
from .products import PackedProduct, strides
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
        self._pool = ListPool(space, descriptors)
        self._known: dict[JobKey, PackedProduct] = {}
        self._lists = JobLists(space, caps)
        self.macs = 0
        self.resumed = 0

    @classmethod
    def rows_at_once(cls, rows: int, k: int, n: int, caps: Caps) -> int:
        """Rows per job."""
        return max(1, min(rows, ROW_BLOCK, RESULT_BYTES // strides(k, n, caps)[1]))

    @classmethod
    def work_bytes(cls, shapes: list[tuple[int, int]], rows: int, caps: Caps) -> int:
        """Working memory for products of these (K, N) with up to ``rows`` rows."""
        most = 0
        for k, n in shapes:
            a_stride, c_stride = strides(k, n, caps)
            block = cls.rows_at_once(rows, k, n, caps)
            most = max(most, whole_pages(block * a_stride) + whole_pages(block * c_stride))
        return most

    async def product(self, name: str, tensor: Tensor, weights: int, x: Int8) -> Int32:
        """Exact int32 product with the packed matrix at address ``weights`` of the space."""
        if (name, len(x), weights) in self._known:
            return await self._block(name, tensor, weights, x)
        k, n = tensor.shape
        block = self.rows_at_once(len(x), k, n, self._caps)
        return np.concatenate(
            [await self._block(name, tensor, weights, x[start : start + block]) for start in range(0, len(x), block)]
        )

    async def _block(self, name: str, tensor: Tensor, weights: int, x: Int8) -> Int32:
        rows = len(x)
        product = self._known.get((name, rows, weights))
        if product is None:
            product = PackedProduct.whole(
                name, rows, tensor.shape, self._caps, left=self._work.address, weights=weights
            )
            self._known[name, rows, weights] = product
        await self._space.store(product.left, product.payload(x))
        found = self._pool.find(product.key, product.operands)
        if found is not None:
            await self._run(name, *found, rows=rows)
        else:
            await in_parts(name, product, self._part, PackedProduct.halves)
        self.macs += x.size * product.all_columns
        return product.sums(await self._space.load(product.into, product.stored))

    async def _part(self, part: PackedProduct) -> None:
        await self.job(part.key, part.operands, lambda: part.encoded(self._lists), rows=len(part.rows))

    async def job(
        self, key: JobKey, operands: Sequence[tuple[int, int]], encode: Callable[[], bytes], *, rows: int
    ) -> None:
        """Run a job over addresses of the space, named by the first part of its key, to its end.

        Its list is made by ``encode`` unless that of this key is still valid; ``operands`` are the ranges that it
        reads and writes. Raises :class:`ListTooLong`.
        """
        found = self._pool.find(key, operands) or await self._pool.put(key, operands, encode)
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
                failed = error
            if failed.fault is not NpuFault.ABORTED or not await self._lease.yielded():
                raise failed
            self.resumed += 1
            if failed.index:
                address, count = await self._rest(address, count, failed.index)

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

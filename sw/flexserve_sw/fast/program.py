"""A job list worked out once: its descriptors, when each is done, and what it touches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import accumulate

import numpy as np

from ..machine import BEAT_BYTES, PAGE_BYTES
from ..npu import (
    DESCRIPTOR_BYTES,
    Caps,
    Descriptor,
    Load,
    Matmul,
    NpuStalled,
    Store,
    check,
    decode,
    job_times,
    stalls,
)
from ..regs import NpuDependence, NpuFault, NpuOp
from .memory import DramTiming
from .product import Matrices, Product
from .tracer import PAGE_SHIFT, ProductShape

__all__ = ["Program", "Traffic"]


@dataclass(frozen=True)
class Traffic:
    """What descriptors add to the performance counters: beats read, beats written, rows taken by the array."""

    read: int = 0
    written: int = 0
    rows: int = 0

    @classmethod
    def of(cls, descriptors: Iterable[Descriptor], caps: Caps) -> Traffic:
        """Traffic of all of them."""
        read = written = rows = 0
        for descriptor in descriptors:
            match descriptor:
                case Load():
                    read += descriptor.rows * -(-descriptor.row_bytes // BEAT_BYTES)
                case Store():
                    written += descriptor.rows * -(-_row_bytes(descriptor) // BEAT_BYTES)
                case Matmul():
                    rows += caps.tiles(descriptor.k) * caps.tiles(descriptor.n) * descriptor.m
        return cls(read, written, rows)


def _row_bytes(store: Store) -> int:
    return store.n if store.quantise else 4 * store.n


@dataclass(eq=False)
class _Shape:
    """What a job list is but for the pages that it is about.

    ``transfers`` are the indices of its LOADs and STOREs, in whose addresses pages are numbered as they come up, each
    far from the others. What is said of pages here is their number, and how many pages behind that. The other members
    are those of :class:`Program`.
    """

    descriptors: tuple[Descriptor, ...]
    cut: tuple[NpuFault, int] | None
    when: tuple[int, ...]
    handed: int
    cycles: int
    stalls: int | None
    traffic: Traffic
    reads: tuple[tuple[int, int], ...]
    writes: tuple[tuple[int, int], ...]
    caps: Caps
    _sought: bool = False
    _product: ProductShape | None = None

    def product(self) -> ProductShape | None:
        """The job as a product of matrices; None if it is none."""
        if not self._sought and self.cut is None and self.stalls is None:
            self._product = ProductShape.find(self.descriptors, self.caps)
        self._sought = True
        return self._product


@lru_cache(maxsize=256)
def _shape(encoded: bytes, caps: Caps, memory: DramTiming) -> _Shape:
    """Work out a list whose addresses are those of :func:`_abstract`."""
    descriptors: list[Descriptor] = []
    cut = None
    for place in range(0, len(encoded), DESCRIPTOR_BYTES):
        try:
            descriptor = decode(encoded[place : place + DESCRIPTOR_BYTES])
        except ValueError:
            cut = NpuFault.BAD_DESCRIPTOR, place
            break
        fault = check(descriptor, caps)
        if fault is not NpuFault.NONE:
            cut = fault, place
            break
        descriptors.append(descriptor)
    times = job_times(descriptors, caps, latency=memory.latency)
    traffic = Traffic.of(descriptors, caps)
    streaming = max(traffic.read, traffic.written) * BEAT_BYTES / memory.mean_bytes_per_cycle
    stalled = None
    try:
        stalls(descriptors)
    except NpuStalled as stall:
        stalled = stall.index
    return _Shape(
        descriptors=tuple(descriptors),
        cut=cut,
        when=tuple(accumulate(times.done, max)),
        handed=times.handed[-1] if descriptors else 0,
        cycles=max(times.cycles, round(streaming)),
        stalls=stalled,
        traffic=traffic,
        reads=_pages(d for d in descriptors if isinstance(d, Load)),
        writes=_pages(d for d in descriptors if isinstance(d, Store)),
        caps=caps,
    )


_MOST_PAGES = 1 << 62 - PAGE_SHIFT
"""Pages of a product at most: so many numbers fit a place."""


def _abstract(encoded: bytes) -> tuple[bytes, list[int]]:
    """A list with pages numbered in the order in which its transfers name them; and the pages by number."""
    abstract = np.frombuffer(encoded, "<u4").reshape(-1, DESCRIPTOR_BYTES // 4).copy()
    op = abstract[:, 0] >> NpuDependence.HEAD__OP.lsb & (1 << NpuDependence.HEAD__OP.width) - 1
    rows = np.flatnonzero((op == NpuOp.LOAD) | (op == NpuOp.STORE))
    addresses = abstract[rows, 1] | abstract[rows, 2].astype(np.uint64) << np.uint64(32)
    numbers: dict[int, int] = {}
    places = [numbers.setdefault(page, len(numbers)) for page in (addresses // PAGE_BYTES).tolist()]
    local = (np.array(places, np.uint64) << np.uint64(PAGE_SHIFT)) + addresses % PAGE_BYTES
    abstract[rows, 1] = local & 0xFFFF_FFFF
    abstract[rows, 2] = local >> np.uint64(32)
    return abstract.tobytes(), list(numbers)


@dataclass(eq=False)
class Program:
    """A job list as the NPU finds it in memory.

    Lists that differ only in which pages they are about are worked out together, as the layers of a model have many of
    them: how long a job takes does not depend on it.

    Parameters
    ----------
    encoded
        Its bytes.
    caps
        Sizes of the NPU.
    memory
        Timing of memory. Whatever its units do, a job takes the time that its bytes need in either direction.

    Members
    -------
    descriptors
        Those that can run: up to one that the hardware refuses, of which ``cut`` says why and at which byte.
    when
        For each of them the cycle since the doorbell by which it and all before it are done.
    handed
        When the dispatcher would hand the one after them out; ``cycles`` when the interrupt rises.
    stalls
        The descriptor that waits for a token which none before it gives: there the job hangs.
    traffic
        Of all of them.
    reads, writes
        Pages.
    whole
        Whether the list runs to its end.
    wanted
        Share of each direction of memory that it takes: of reads, and of writes.
    found
        What :meth:`product` has found.
    circumstances, reaches
        Who ran it last, and when things were as they are; and whether nothing of it was refused then.
    """

    encoded: bytes
    caps: Caps
    memory: DramTiming
    cut: tuple[NpuFault, int] | None = field(init=False)
    when: tuple[int, ...] = field(init=False)
    handed: int = field(init=False)
    cycles: int = field(init=False)
    stalls: int | None = field(init=False)
    traffic: Traffic = field(init=False)
    reads: frozenset[int] = field(init=False)
    writes: frozenset[int] = field(init=False)
    whole: bool = field(init=False)
    wanted: tuple[float, float] = field(init=False)
    found: Product | None = field(init=False, default=None)
    circumstances: object = field(init=False, default=None)
    reaches: bool = field(init=False, default=False)
    _sought: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        abstract, self._pages = _abstract(self.encoded)
        shape = self._shape = _shape(abstract, self.caps, self.memory)
        self.cut, self.when, self.handed, self.cycles = shape.cut, shape.when, shape.handed, shape.cycles
        self.stalls, self.traffic = shape.stalls, shape.traffic
        self.whole = shape.cut is None and shape.stalls is None
        cycles = max(1, shape.cycles)
        self.wanted = shape.traffic.read / cycles, shape.traffic.written / cycles
        self.reads, self.writes = (
            frozenset([self._pages[number] + behind for number, behind in pages])
            for pages in (shape.reads, shape.writes)
        )

    @cached_property
    def descriptors(self) -> tuple[Descriptor, ...]:
        """With addresses in memory."""
        starts = range(0, len(self._shape.descriptors) * DESCRIPTOR_BYTES, DESCRIPTOR_BYTES)
        return tuple(decode(self.encoded[start : start + DESCRIPTOR_BYTES]) for start in starts)

    def product(self, matrices: Matrices) -> Product | None:
        """The job as a product of matrices, of which those on the right may be known; None if it is none."""
        if not self._sought and len(self._pages) <= _MOST_PAGES and not self.reads & self.writes:
            shape = self._shape.product()
            self.found = None if shape is None else Product.place(shape, self._pages, self.writes, matrices)
        self._sought = True
        return self.found


def _pages(transfers: Iterable[Load | Store]) -> tuple[tuple[int, int], ...]:
    """Pages that rows of transfers lie in: number, and how many pages behind."""
    pages: set[int] = set()
    for transfer in transfers:
        length = _row_bytes(transfer) if isinstance(transfer, Store) else transfer.row_bytes
        length = -(-length // BEAT_BYTES) * BEAT_BYTES
        rows, stride = transfer.rows, transfer.stride
        if stride <= PAGE_BYTES:  # rows leave no page out
            rows, length = 1, (rows - 1) * stride + length
        for row in range(rows):
            first = transfer.address + row * stride
            pages.update(range(first // PAGE_BYTES, (first + length - 1) // PAGE_BYTES + 1))
    far = (1 << PAGE_SHIFT) // PAGE_BYTES
    return tuple([divmod(page, far) for page in pages])

"""A job list worked out once: its descriptors, when each is done, and what it touches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from ..machine import BEAT_BYTES, PAGE_BYTES
from ..npu import (
    DESCRIPTOR_BYTES,
    Caps,
    Descriptor,
    Fence,
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


class Traffic(NamedTuple):
    """What descriptors add to the performance counters: beats read, beats written, rows taken by the array."""

    read: int = 0
    written: int = 0
    rows: int = 0

    @classmethod
    def of(cls, descriptor: Descriptor, caps: Caps) -> Traffic:
        """Traffic of one."""
        match descriptor:
            case Load():
                return cls(read=descriptor.rows * -(-descriptor.row_bytes // BEAT_BYTES))
            case Store():
                return cls(written=descriptor.rows * -(-_row_bytes(descriptor) // BEAT_BYTES))
            case Matmul():
                return cls(rows=caps.tiles(descriptor.k) * caps.tiles(descriptor.n) * descriptor.m)
        return cls()

    @classmethod
    def sum(cls, parts: Iterable[Traffic]) -> Traffic:
        """Traffic of all."""
        read = written = rows = 0
        for part in parts:
            read, written, rows = read + part.read, written + part.written, rows + part.rows
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
    reads: frozenset[tuple[int, int]]
    writes: frozenset[tuple[int, int]]
    caps: Caps
    _sought: bool = False
    _product: ProductShape | None = None

    def product(self) -> ProductShape | None:
        """The job as a product of matrices; None if it is none."""
        if not self._sought and self.cut is None and self.stalls is None:
            self._product = ProductShape.find(self.descriptors, self.caps)
        self._sought = True
        return self._product


class _Read(NamedTuple):
    """A descriptor as the NPU finds it, whether and why it refuses it, and what it does otherwise."""

    descriptor: Descriptor
    fault: NpuFault
    traffic: Traffic = Traffic()
    pages: frozenset[tuple[int, int]] = frozenset()


@lru_cache(maxsize=4)
def _reader(caps: Caps) -> Callable[[bytes], _Read]:
    """Reads descriptors, most of which lists have in common."""

    @lru_cache(maxsize=1 << 14)
    def read(encoded: bytes) -> _Read:
        try:
            descriptor = decode(encoded)
        except ValueError:
            return _Read(Fence(), NpuFault.BAD_DESCRIPTOR)
        fault = check(descriptor, caps)
        if fault is not NpuFault.NONE:
            return _Read(descriptor, fault)
        pages = _pages(descriptor) if isinstance(descriptor, Load | Store) else frozenset[tuple[int, int]]()
        return _Read(descriptor, fault, Traffic.of(descriptor, caps), pages)

    return read


@lru_cache(maxsize=256)
def _shape(encoded: bytes, caps: Caps, memory: DramTiming) -> _Shape:
    """Work out a list whose addresses are those of :func:`_abstract`."""
    found: list[_Read] = []
    cut, read = None, _reader(caps)
    for place in range(0, len(encoded), DESCRIPTOR_BYTES):
        one = read(encoded[place : place + DESCRIPTOR_BYTES])
        if one.fault is not NpuFault.NONE:
            cut = one.fault, place
            break
        found.append(one)
    descriptors = tuple([one.descriptor for one in found])
    times = job_times(descriptors, caps, latency=memory.latency)
    traffic = Traffic.sum(one.traffic for one in found)
    streaming = max(traffic.read, traffic.written) * BEAT_BYTES / memory.mean_bytes_per_cycle
    stalled = None
    try:
        stalls(descriptors)
    except NpuStalled as stall:
        stalled = stall.index
    return _Shape(
        descriptors=descriptors,
        cut=cut,
        when=tuple(accumulate(times.done, max)),
        handed=times.handed[-1] if descriptors else 0,
        cycles=max(times.cycles, round(streaming)),
        stalls=stalled,
        traffic=traffic,
        reads=frozenset().union(*[one.pages for one in found if isinstance(one.descriptor, Load)]),
        writes=frozenset().union(*[one.pages for one in found if isinstance(one.descriptor, Store)]),
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

    def __init__(self, encoded: bytes, caps: Caps, memory: DramTiming) -> None:
        self.encoded, self.caps, self.memory = encoded, caps, memory
        abstract, self._pages = _abstract(encoded)
        shape = self._shape = _shape(abstract, caps, memory)
        self.cut, self.when, self.handed, self.cycles = shape.cut, shape.when, shape.handed, shape.cycles
        self.stalls, self.traffic = shape.stalls, shape.traffic
        self.whole = shape.cut is None and shape.stalls is None
        cycles = max(1, shape.cycles)
        self.wanted = shape.traffic.read / cycles, shape.traffic.written / cycles
        self.reads, self.writes = (
            frozenset([self._pages[number] + behind for number, behind in pages])
            for pages in (shape.reads, shape.writes)
        )
        self.found: Product | None = None
        self.circumstances: Any = None
        self.reaches = self._sought = False
        self._descriptors: tuple[Descriptor, ...] | None = None

    @property
    def descriptors(self) -> tuple[Descriptor, ...]:
        """With addresses in memory."""
        if self._descriptors is None:
            starts = range(0, len(self._shape.descriptors) * DESCRIPTOR_BYTES, DESCRIPTOR_BYTES)
            self._descriptors = tuple([decode(self.encoded[start : start + DESCRIPTOR_BYTES]) for start in starts])
        return self._descriptors

    def product(self, matrices: Matrices) -> Product | None:
        """The job as a product of matrices, of which those on the right may be known; None if it is none."""
        if not self._sought and len(self._pages) <= _MOST_PAGES and not self.reads & self.writes:
            shape = self._shape.product()
            self.found = None if shape is None else Product.place(shape, self._pages, self.writes, matrices)
        self._sought = True
        return self.found


def _pages(transfer: Load | Store) -> frozenset[tuple[int, int]]:
    """Pages that rows of a transfer lie in: number, and how many pages behind."""
    length = _row_bytes(transfer) if isinstance(transfer, Store) else transfer.row_bytes
    length = -(-length // BEAT_BYTES) * BEAT_BYTES
    address, rows, stride, far = transfer.address, transfer.rows, transfer.stride, (1 << PAGE_SHIFT) // PAGE_BYTES
    if stride <= PAGE_BYTES:  # rows leave no page out
        rows, length = 1, (rows - 1) * stride + length
    pages: set[int] = set()
    for first in range(address, address + rows * stride, stride) if rows > 1 else (address,):
        pages.update(range(first // PAGE_BYTES, (first + length - 1) // PAGE_BYTES + 1))
    return frozenset([divmod(page, far) for page in pages])

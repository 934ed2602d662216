"""A job list worked out once: its descriptors, when each is done, and what it touches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

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
from ..regs import NpuFault
from .memory import DramTiming
from .product import Product

__all__ = ["Program", "Traffic"]

_decode = lru_cache(maxsize=1 << 14)(decode)


@dataclass(frozen=True)
class Traffic:
    """What a descriptor adds to the performance counters: beats read, beats written, rows taken by the array."""

    read: int = 0
    written: int = 0
    rows: int = 0

    @classmethod
    def of(cls, descriptor: Descriptor, caps: Caps) -> Traffic:
        """Traffic of one descriptor."""
        match descriptor:
            case Load():
                return cls(read=descriptor.rows * -(-descriptor.row_bytes // BEAT_BYTES))
            case Store():
                return cls(written=descriptor.rows * -(-_row_bytes(descriptor) // BEAT_BYTES))
            case Matmul():
                return cls(rows=caps.tiles(descriptor.k) * caps.tiles(descriptor.n) * descriptor.m)
            case _:
                return cls()

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.read + other.read, self.written + other.written, self.rows + other.rows)


def _row_bytes(store: Store) -> int:
    return store.n if store.quantise else 4 * store.n


@dataclass(eq=False)
class Program:
    """A job list as the NPU finds it in memory.

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
    found
        What :meth:`product` has found.
    circumstances, reaches
        Who ran it last, and when things were as they are; and whether nothing of it was refused then.
    """

    encoded: bytes
    caps: Caps
    memory: DramTiming
    descriptors: tuple[Descriptor, ...] = field(init=False)
    cut: tuple[NpuFault, int] | None = field(init=False, default=None)
    when: tuple[int, ...] = field(init=False)
    handed: int = field(init=False)
    cycles: int = field(init=False)
    stalls: int | None = field(init=False, default=None)
    traffic: Traffic = field(init=False)
    reads: frozenset[int] = field(init=False)
    writes: frozenset[int] = field(init=False)
    _sought: bool = field(init=False, default=False)
    found: Product | None = field(init=False, default=None)
    circumstances: object = field(init=False, default=None)
    reaches: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        descriptors: list[Descriptor] = []
        for place in range(0, len(self.encoded), DESCRIPTOR_BYTES):
            try:
                descriptor = _decode(self.encoded[place : place + DESCRIPTOR_BYTES])
            except ValueError:
                self.cut = NpuFault.BAD_DESCRIPTOR, place
                break
            fault = check(descriptor, self.caps)
            if fault is not NpuFault.NONE:
                self.cut = fault, place
                break
            descriptors.append(descriptor)
        self.descriptors = tuple(descriptors)
        times = job_times(descriptors, self.caps, latency=self.memory.latency)
        latest, when = 0, []
        for done in times.done:
            latest = max(latest, done)
            when.append(latest)
        self.traffic = sum((Traffic.of(d, self.caps) for d in descriptors), Traffic())
        streaming = max(self.traffic.read, self.traffic.written) * BEAT_BYTES / self.memory.mean_bytes_per_cycle
        self.when, self.handed = tuple(when), times.handed[-1] if descriptors else 0
        self.cycles = max(times.cycles, round(streaming))
        try:
            stalls(descriptors)
        except NpuStalled as stall:
            self.stalls = stall.index
        self.reads = _pages(d for d in descriptors if isinstance(d, Load))
        self.writes = _pages(d for d in descriptors if isinstance(d, Store))

    def product(self, base: int) -> Product | None:
        """The job as a product of matrices in memory that begins at ``base``; None if it is none."""
        if not self._sought and self.cut is None and self.stalls is None and not self.reads & self.writes:
            self.found = Product.find(self.descriptors, self.caps, base)
        self._sought = True
        return self.found


def _pages(transfers: Iterable[Load | Store]) -> frozenset[int]:
    """Pages that rows of transfers lie in."""
    pages: set[int] = set()
    for transfer in transfers:
        length = _row_bytes(transfer) if isinstance(transfer, Store) else transfer.row_bytes
        length = -(-length // BEAT_BYTES) * BEAT_BYTES
        for row in range(transfer.rows):
            first = transfer.address + row * transfer.stride
            pages.update(range(first // PAGE_BYTES, (first + length - 1) // PAGE_BYTES + 1))
    return frozenset(pages)

"""DRAM and flash of the transaction-level machine: contents and timing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ..machine import BEAT_BYTES, PAGE_BYTES, Memory

__all__ = ["DRAM_BASE", "Channel", "Dram", "DramTiming", "FlashTiming"]

DRAM_BASE = 0x8000_0000
"""Byte address at which memory begins."""


@dataclass(frozen=True, kw_only=True)
class DramTiming:
    """Memory as the filter sees it: cycles to the first beat, and bytes per cycle in each direction.

    Every ``refresh_interval`` cycles no data moves for ``refresh_cycles``; 0 is memory without refresh.
    """

    latency: int = 60
    bytes_per_cycle: float = 16.0
    refresh_interval: int = 0
    refresh_cycles: int = 0

    def __post_init__(self) -> None:
        if self.latency < 1:
            raise ValueError(f"DRAM latency must be at least 1 cycle, not {self.latency!r}")
        if not 0 < self.bytes_per_cycle <= BEAT_BYTES:
            raise ValueError(
                f"DRAM bandwidth must be above 0 and at most 16 bytes per cycle, not {self.bytes_per_cycle!r}"
            )
        if not 0 <= self.refresh_cycles <= self.refresh_interval or 0 < self.refresh_interval == self.refresh_cycles:
            refresh = (self.refresh_interval, self.refresh_cycles)
            raise ValueError(f"DRAM refresh must take less than its interval, not {refresh!r}")

    @property
    def mean_bytes_per_cycle(self) -> float:
        """Bandwidth that refresh leaves."""
        busy = self.refresh_cycles / self.refresh_interval if self.refresh_interval else 0.0
        return self.bytes_per_cycle * (1 - busy)


@dataclass(frozen=True, kw_only=True)
class FlashTiming:
    """Storage as its DMA device sees it: cycles to the first beat of a request, and bytes per cycle."""

    latency: int = 20_000
    bytes_per_cycle: float = 2.0

    def __post_init__(self) -> None:
        if self.latency < 1:
            raise ValueError(f"Flash latency must be at least 1 cycle, not {self.latency!r}")
        if not 0 < self.bytes_per_cycle <= BEAT_BYTES:
            raise ValueError(
                f"Flash bandwidth must be above 0 and at most 16 bytes per cycle, not {self.bytes_per_cycle!r}"
            )


class Channel:
    """One direction of a memory port: transfers take their turn, and each is answered ``latency`` after its data.

    ``moved`` counts their bytes. ``wanted`` is the share of the direction that a running NPU job wants, whose own
    traffic is not counted here. The interconnect grants the port burst by burst in turn, so a transfer beside the job
    gets what that leaves, and half of the direction at least; see :meth:`holds_up` for the other side of it.
    """

    def __init__(self, *, latency: int, bytes_per_cycle: float) -> None:
        self.latency = latency
        self._cycles_per_byte = 1 / bytes_per_cycle
        self.free = self.moved = 0
        self.wanted = 0.0

    def take(self, now: int, length: int) -> int:
        """Reserve the next place for ``length`` bytes, of which the last moves at ``free``; the cycle of its answer."""
        return self.take_until(self.clear(now, length), length)

    def take_until(self, clear: int, length: int) -> int:
        """:meth:`take` for a caller who has asked when the last byte would move: at ``clear``."""
        self.free = clear
        self.moved += length
        return clear + self.latency

    def clear(self, now: int, length: int, *, after: int | None = None) -> int:
        """When the last of ``length`` bytes would move, behind what is taken or what moves until ``after``."""
        free = self.free if after is None else after
        return (free if free > now else now) + self.cycles(length)

    def cycles(self, length: int) -> int:
        """What ``length`` bytes take now."""
        cycles = length * self._cycles_per_byte
        if self.wanted:
            cycles /= 1 - min(self.wanted, 0.5)
        return round(cycles) or 1

    def holds_up(self, length: int) -> float:
        """Cycles by which ``length`` bytes of others hold up a job that wants more than half of the direction.

        They take twice their own time, in which the job gets half of the direction instead of what it wants.
        """
        cycles = length * self._cycles_per_byte
        return cycles * (2 * self.wanted - 1) / self.wanted if self.wanted > 0.5 else 0.0


class Dram:
    """Memory behind the filter. Contents at power-up are unknown: random bytes of ``seed``.

    ``bytes`` and ``words`` are the contents as signed integers, to be read; writers go through :meth:`write`, or tell
    before with :meth:`change`, so that whoever keeps what it has made of some bytes can :meth:`watch` them.
    """

    def __init__(self, *, size: int, timing: DramTiming, seed: int) -> None:
        # Copied at power-up and not when it is first written to, which would be in the middle of a job.
        contents = np.frombuffer(_power_up(size, seed), np.uint8).copy()
        self._contents = contents
        self._watched: dict[int, list[Callable[[], None]]] = {}
        shown = contents.view()
        shown.flags.writeable = False
        self.memory = Memory(DRAM_BASE, shown)
        self._end = DRAM_BASE + size
        self.timing = timing
        self.bytes: npt.NDArray[np.int8] = contents.view(np.int8)
        self.words: npt.NDArray[np.int32] = contents.view("<i4")
        self.reads = Channel(latency=timing.latency, bytes_per_cycle=timing.mean_bytes_per_cycle)
        self.writes = Channel(latency=timing.latency, bytes_per_cycle=timing.mean_bytes_per_cycle)

    def holds(self, address: int, length: int) -> bool:
        """Whether the bytes exist."""
        return address >= DRAM_BASE and address + length <= self._end

    def holds_pages(self, pages: Collection[int]) -> bool:
        """Whether all of these pages exist."""
        return not pages or (
            min(pages) * PAGE_BYTES >= DRAM_BASE and (max(pages) + 1) * PAGE_BYTES <= self._end
        )

    def read(self, address: int, length: int) -> bytes:
        """``length`` bytes that exist."""
        start = address - DRAM_BASE
        return self._contents[start : start + length].tobytes()

    def write(self, address: int, payload: bytes | memoryview) -> None:
        """Put bytes where some exist."""
        start, length = address - DRAM_BASE, len(payload)
        if self._watched:
            self.change(range(address // PAGE_BYTES, (address + length - 1) // PAGE_BYTES + 1))
        self._contents[start : start + length] = np.frombuffer(payload, np.uint8)

    def clear(self, address: int, length: int) -> None:
        """Zero bytes that exist."""
        start = address - DRAM_BASE
        if self._watched:
            self.change(range(address // PAGE_BYTES, (address + length - 1) // PAGE_BYTES + 1))
        self._contents[start : start + length] = 0

    def watch(self, pages: Iterable[int], changing: Callable[[], None]) -> None:
        """Have ``changing`` called before anything is written to one of these pages, at least the next time."""
        for page in pages:
            self._watched.setdefault(page, []).append(changing)

    def change(self, pages: Iterable[int]) -> None:
        """Something is about to be written to these pages."""
        watched = self._watched
        for page in pages:
            if page in watched:
                for changing in watched.pop(page):
                    changing()


@lru_cache(maxsize=1)
def _power_up(size: int, seed: int) -> bytes:
    """What memory of a size holds at power-up."""
    return np.random.default_rng(seed).bytes(size)

"""Where the NPU's job lists are in memory, and which of them still hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..machine import PAGE_BYTES
from ..npu import DESCRIPTOR_BYTES
from .parts import ListTooLong
from .segments import PagedSegment
from .space import Space

__all__ = ["JobKey", "ListPool"]

JobKey = tuple[str, int, int]
"""What tells a job from others."""

_Ranges = Sequence[tuple[int, int]]
"""Address in the space, and length."""


@dataclass(slots=True)
class _List:
    """A list that held in ``epoch``, and its address on the bus; None if it had to make way."""

    encoded: bytes
    epoch: int
    address: int | None = None


@dataclass
class ListPool:
    """Job lists in memory, kept until a page of theirs moves: of the list, or of what its job reads and writes.

    A list must be contiguous on the bus. ``operands`` are everywhere the ranges that a job reads and writes.
    """

    space: Space
    segment: PagedSegment
    _epoch: int = -1
    _lists: dict[JobKey, _List] = field(default_factory=dict)
    _runs: list[list[int]] = field(default_factory=list)
    _longest: int = 0

    def find(self, key: JobKey, operands: _Ranges) -> tuple[int, int] | None:
        """Physical address and number of descriptors of a list that is in memory and still holds."""
        if self._epoch != self.space.epoch:
            if self._epoch < self.space.changed(self.segment.address, self.segment.length):
                self._clear()
            self._epoch = self.space.epoch
        found = self._holds(key, operands)
        if found is None or found.address is None:
            return None
        return found.address, len(found.encoded) // DESCRIPTOR_BYTES

    def _holds(self, key: JobKey, operands: _Ranges) -> _List | None:
        """A list that would be the same if it were made anew."""
        found = self._lists.get(key)
        if found is not None and found.epoch != self.space.epoch:
            if found.epoch < max([self.space.changed(at, length) for at, length in operands]):
                del self._lists[key]
                return None
            found.epoch = self.space.epoch
        return found

    async def put(self, key: JobKey, operands: _Ranges, encode: Callable[[], bytes]) -> tuple[int, int]:
        """Put a list, made by ``encode`` unless it still holds, into memory; return what :meth:`find` will.

        Raises :class:`ListTooLong`.
        """
        found = self._holds(key, operands)
        encoded = encode() if found is None else found.encoded
        address = self.place(len(encoded))
        await self.space.store(address, encoded)
        physical = self.space.physical(address)
        self._lists[key] = _List(encoded, self.space.epoch, physical)
        return physical, len(encoded) // DESCRIPTOR_BYTES

    def _clear(self) -> None:
        """Give up the room of all lists, and look at which pages are neighbours now."""
        self._epoch = self.space.epoch
        for kept in self._lists.values():
            kept.address = None
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
            self._clear()
        raise AssertionError("The longest run is empty now")

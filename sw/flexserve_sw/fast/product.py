"""A job recognised as what it nearly always is: products of matrices that lie scattered in memory.

What is left to be done is to gather, multiply and scatter. A job that is anything else, say one that reads what an
earlier job left in the scratchpads, is not found, and is played descriptor by descriptor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from ..integers import as_exact_float, exact_product
from ..machine import PAGE_BYTES
from ..npu import Descriptor, NpuState, execute
from .memory import DRAM_BASE, Dram
from .reach import Places, Reached
from .tracer import PAGE_SHIFT, GroupShape, ProductShape

__all__ = ["Operands", "Product"]

Operands = dict[int, bytes]
"""Bytes of memory by where they begin."""


class _Group:
    """A :class:`GroupShape` in memory: its runs of left side, right side and results begin at these places."""

    def __init__(self, shape: GroupShape, left: Places, right: Places, put: Places) -> None:
        self._shape = shape
        self._left, self._right = Reached(shape.left, left, 1), Reached(shape.right, right, 1)
        self._put = Reached(shape.put, put, 4)
        self._weights: npt.NDArray[Any] | None = None

    def forget(self) -> None:
        """The bytes of the right side change."""
        self._weights = None

    def run(self, memory: _Bytes, words: npt.NDArray[np.int32]) -> None:
        """Multiply, and store."""
        shape = self._shape
        if self._weights is None:
            self._weights = as_exact_float(shape.matrix(self._right.take(memory.bytes, memory.words)))
        left = self._left.take(memory.bytes, memory.words).reshape(shape.m, -1)
        sums = exact_product(left[:, : shape.k], self._weights).reshape(-1)
        self._put.put(words, sums if shape.taken is None else sums[shape.taken])


class _Bytes:
    """Memory as bytes, and as the words of ``size`` bytes that begin at each of them."""

    def __init__(self, contents: npt.NDArray[np.int8], size: int) -> None:
        self.bytes, self._size = contents, size
        self._words: npt.NDArray[np.int8] | None = None

    def words(self) -> npt.NDArray[np.int8]:
        """The words."""
        if self._words is None:
            count = len(self.bytes) - self._size + 1
            self._words = as_strided(self.bytes, (count, self._size), (1, 1), writeable=False)
        return self._words


class Product:
    """Products of one job; :meth:`place` makes it. ``writes`` are the pages that its results go to."""

    def __init__(
        self,
        groups: list[_Group],
        left: list[tuple[int, int]],
        right: list[tuple[int, int]],
        size: int,
        writes: frozenset[int],
    ) -> None:
        self._groups, self._left, self._right, self._size, self._writes = groups, left, right, size, writes
        self._kept: list[bytes] = []
        self._dram: Dram | None = None
        self._memory = _Bytes(np.zeros(0, np.int8), size)

    def run(self, dram: Dram) -> Operands:
        """Do what the job does to memory; return the left sides that it has read."""
        if self._dram is not dram:
            self._watch(dram)
        contents = dram.bytes
        left = {first: contents[first:end].tobytes() for first, end in self._left}
        dram.change(self._writes)
        for group in self._groups:
            group.run(self._memory, dram.words)
        return left

    def _watch(self, dram: Dram) -> None:
        """Take right sides from there, and keep what is made of them until they change."""
        self._dram = dram
        if self._memory.bytes is not dram.bytes:
            self._memory = _Bytes(dram.bytes, self._size)
        for group in self._groups:
            group.forget()
        first = DRAM_BASE // PAGE_BYTES
        for begin, end in self._right:
            dram.watch(range(first + begin // PAGE_BYTES, first + (end - 1) // PAGE_BYTES + 1), self._changing)

    def _changing(self) -> None:
        """Right sides are about to change: keep what the last run has read."""
        if self._dram is not None:
            self._kept = self._read_right(self._dram)
            self._dram = None

    def _read_right(self, dram: Dram) -> list[bytes]:
        return [dram.bytes[first:end].tobytes() for first, end in self._right]

    def leave(self, descriptors: Sequence[Descriptor], state: NpuState, left: Operands) -> None:
        """Leave in the NPU's own memories what the last run, which read ``left``, has left there."""
        right = self._kept if self._dram is None else self._read_right(self._dram)
        # Both sides may begin at the same place and reach differently far.
        spans = [*left.items(), *((first, kept) for (first, _), kept in zip(self._right, right, strict=True))]

        def read(address: int, length: int) -> bytes:
            offset = address - DRAM_BASE
            for first, content in spans:
                if first <= offset and offset + length <= first + len(content):
                    return content[offset - first : offset - first + length]
            raise AssertionError(f"The job reads {length} bytes at {address:#x}, which it was not found to do")

        execute(descriptors, read, lambda address, payload: None, state.caps, state=state)

    @classmethod
    def place(cls, shape: ProductShape, pages: Sequence[int], writes: frozenset[int]) -> Product | None:
        """A shape whose ``pages`` are these, by number; None if it would store twice to a place.

        ``writes`` are the pages that it stores to.
        """
        begins = np.array(pages) * PAGE_BYTES - DRAM_BASE

        def place(places: Places) -> Places:
            found: Places = begins[places >> PAGE_SHIFT] + (places & (1 << PAGE_SHIFT) - 1)
            return found

        groups, starts, ends = [], [], []
        for group in shape.groups:
            put = place(group.put.starts)
            groups.append(_Group(group, place(group.left.starts), place(group.right.starts), put))
            starts.append(put)
            ends.append(group.put.ends(put))
        every = np.concatenate(starts)
        order = np.argsort(every)
        if (every[order][1:] < np.concatenate(ends)[order][:-1]).any():
            return None
        left, right = (_spans(place(rows), lengths) for rows, lengths in (shape.left, shape.right))
        return cls(groups, left, right, shape.size, writes)


def _spans(starts: Places, lengths: Places) -> list[tuple[int, int]]:
    """Rows as spans from first to last byte, as few as possible."""
    merged: list[tuple[int, int]] = []
    order = np.argsort(starts)
    for first, length in zip(starts[order].tolist(), lengths[order].tolist(), strict=True):
        if merged and first <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(first + length, merged[-1][1])
        else:
            merged.append((first, first + length))
    return merged

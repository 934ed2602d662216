"""A job recognised as what it nearly always is: products of matrices that lie scattered in memory.

What is left to be done is to gather, multiply and scatter. A job that is anything else, say one that reads what an
earlier job left in the scratchpads, is not found, and is played descriptor by descriptor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..integers import as_exact_float, exact_product
from ..machine import PAGE_BYTES
from ..npu import Descriptor, NpuState, execute
from .memory import DRAM_BASE, Dram
from .reach import Places, Reach, Reached
from .tracer import GroupShape, ProductShape, ShapePages

__all__ = ["Matrices", "Operands", "Product"]

_MATRICES = 512
"""Right sides that are kept."""

Operands = dict[int, bytes]
"""Bytes of memory by where they begin."""


class Contents:
    """Memory as bytes, and as the words of ``size`` bytes that begin at each of them."""

    def __init__(self, dram: Dram, size: int) -> None:
        self.dram, self.bytes, self._size = dram, dram.bytes, size
        self._words: npt.NDArray[Any] | None = None

    def words(self) -> npt.NDArray[Any]:
        """The words."""
        if self._words is None:
            count = len(self.bytes) - self._size + 1
            self._words = np.ndarray((count,), f"V{self._size}", self.bytes, strides=(1,))
        return self._words


class Matrix:
    """The right side of products, whose words lie tile of n by tile of n in memory, as floats until it changes."""

    def __init__(self, reach: Reach, starts: Places, k: int, pages: frozenset[int]) -> None:
        self._words, self._size, self._k, self._pages = Reached(reach, starts, 1), reach.size, k, pages
        self._found: npt.NDArray[Any] | None = None
        self._dram: Dram | None = None

    def floats(self, contents: Contents) -> npt.NDArray[Any]:
        """As the right side of :func:`~..integers.exact_product`."""
        if self._found is None or self._dram is not contents.dram:
            self._dram = contents.dram
            self._dram.watch(self._pages, self._forget)
            words = self._words.take(contents.bytes, contents.words).view(f"V{self._size}").reshape(-1, self._k)
            self._found = as_exact_float(np.ascontiguousarray(words.T).view(np.int8).reshape(self._k, -1))
        return self._found

    def _forget(self) -> None:
        self._found = None


class Matrices:
    """Right sides by where they lie: jobs of several rows and of one multiply with the same."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, bytes, bytes], Matrix] = {}

    def find(self, shape: GroupShape, starts: Places, pages: Sequence[int]) -> Matrix:
        """The right side of a group whose runs begin at these places; one that was let go is not shared any more."""
        reach = shape.right
        key = shape.k, starts.tobytes(), reach.lengths.tobytes()
        matrix = self._known.get(key)
        if matrix is None:
            if len(self._known) == _MATRICES:
                self._known.pop(next(iter(self._known)))
            matrix = self._known[key] = Matrix(reach, starts, shape.k, _placed(shape.pages, pages))
        return matrix


class _Group:
    """A :class:`GroupShape` in memory, with its right side: runs of its left side and results begin at these places."""

    def __init__(self, shape: GroupShape, left: Places, put: Places, matrix: Matrix) -> None:
        self._shape, self._matrix = shape, matrix
        self._left, self._put = Reached(shape.left, left, 1), Reached(shape.put, put, 4)

    def run(self, contents: Contents) -> None:
        """Multiply, and store."""
        shape = self._shape
        left = self._left.take(contents.bytes, contents.words).view(np.int8).reshape(shape.m, -1)
        sums = exact_product(left[:, : shape.k], self._matrix.floats(contents)).reshape(-1)
        self._put.put(contents.dram.words, sums if shape.taken is None else sums[shape.taken])


class Product:
    """Products of one job; :meth:`place` makes it.

    ``left`` and ``right`` are the rows that are loaded: where they begin, and their bytes; ``reads`` the pages of the
    right ones, ``writes`` those that results go to.
    """

    def __init__(
        self,
        groups: list[_Group],
        left: tuple[Places, Places],
        right: tuple[Places, Places],
        size: int,
        reads: frozenset[int],
        writes: frozenset[int],
    ) -> None:
        self._groups, self._left, self._size, self._writes = groups, _spans(*left), size, writes
        self._rows, self._pages = right, reads
        self._kept: list[tuple[int, bytes]] = []
        self._contents: Contents | None = None

    def run(self, dram: Dram) -> Operands:
        """Do what the job does to memory; return the left sides that it has read."""
        contents = self._contents
        if contents is None or contents.dram is not dram:
            contents = self._contents = Contents(dram, self._size)
            dram.watch(self._pages, self._changing)
        left = {first: contents.bytes[first:end].tobytes() for first, end in self._left}
        dram.change(self._writes)
        for group in self._groups:
            group.run(contents)
        return left

    def _changing(self) -> None:
        """Right sides are about to change: keep what the last run has read."""
        if self._contents is not None:
            self._kept = self._read_right(self._contents)
            self._contents = None

    def _read_right(self, contents: Contents) -> list[tuple[int, bytes]]:
        return [(first, contents.bytes[first:end].tobytes()) for first, end in _spans(*self._rows)]

    def leave(self, descriptors: Sequence[Descriptor], state: NpuState, left: Operands) -> None:
        """Leave in the NPU's own memories what the last run, which read ``left``, has left there."""
        right = self._kept if self._contents is None else self._read_right(self._contents)
        # Both sides may begin at the same place and reach differently far.
        spans = [*left.items(), *right]

        def read(address: int, length: int) -> bytes:
            offset = address - DRAM_BASE
            for first, content in spans:
                if first <= offset and offset + length <= first + len(content):
                    return content[offset - first : offset - first + length]
            raise AssertionError(f"The job reads {length} bytes at {address:#x}, which it was not found to do")

        execute(descriptors, read, lambda address, payload: None, state.caps, state=state)

    @classmethod
    def place(
        cls, shape: ProductShape, pages: Sequence[int], writes: frozenset[int], matrices: Matrices
    ) -> Product | None:
        """A shape whose ``pages`` are these, by number; None if it would store twice to a place.

        ``writes`` are the pages that it stores to.
        """
        *places, left, right = shape.place(np.array(pages) * PAGE_BYTES - DRAM_BASE)
        groups, starts, ends = [], [], []
        for group, from_left, from_right, put in zip(
            shape.groups, places[::3], places[1::3], places[2::3], strict=True
        ):
            groups.append(_Group(group, from_left, put, matrices.find(group, from_right, pages)))
            starts.append(put)
            ends.append(put + group.put.lengths)
        every = np.concatenate(starts)
        order = np.argsort(every)
        if (every[order][1:] < np.concatenate(ends)[order][:-1]).any():
            return None
        reads = _placed(shape.pages, pages)
        return cls(groups, (left, shape.left_bytes), (right, shape.right_bytes), shape.size, reads, writes)


_GAP = 256
"""Bytes between rows that are kept with them rather than that each row is kept alone."""


def _spans(starts: Places, lengths: Places) -> list[tuple[int, int]]:
    """Spans from first to one past the last byte in which rows lie, in order."""
    merged: list[tuple[int, int]] = []
    order = np.argsort(starts)
    for first, length in zip(starts[order].tolist(), lengths[order].tolist(), strict=True):
        if merged and first <= merged[-1][1] + _GAP:
            merged[-1] = merged[-1][0], max(first + length, merged[-1][1])
        else:
            merged.append((first, first + length))
    return merged


def _placed(numbers: ShapePages, pages: Sequence[int]) -> frozenset[int]:
    """Pages of a shape where they are."""
    return frozenset([pages[number] + behind for number, behind in numbers])

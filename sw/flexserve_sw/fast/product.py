"""A job recognised as what it nearly always is: products of matrices that lie scattered in memory.

The descriptors are played once with places instead of values: which byte of memory does each operand come from, and
where does each sum go. What is left is to gather, multiply and scatter. A job that is anything else, say one that reads
what an earlier job left in the scratchpads, is not found, and is played descriptor by descriptor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from ..integers import as_exact_float, exact_product
from ..machine import BEAT_BYTES, PAGE_BYTES
from ..npu import Caps, Descriptor, Load, Matmul, NpuState, Store, execute
from ..regs import NpuSpace

__all__ = ["PAGE_SHIFT", "Operands", "Product", "ProductShape"]

PAGE_SHIFT = 48
"""Binary places by which numbers of pages are shifted: more than a transfer reaches."""

Places = npt.NDArray[np.int64]
"""Offsets in memory, or places of a shape."""

Operands = dict[int, bytes]
"""Bytes of memory by where they begin."""


@dataclass(frozen=True, eq=False)
class _Sums:
    """Sums of one MATMUL, and of those that it adds to: words of ``a[m, k tiles]`` and ``w[k, n tiles]``, of each one.

    Left sides of the same words are the same object.
    """

    a: tuple[Places, ...]
    w: tuple[Places, ...]
    m: int
    n: int


@dataclass(frozen=True, eq=False)
class _GroupShape:
    """Products with the same left side: ``a[m, k tiles]`` times ``w[k, n tiles]``, in places of a shape.

    Of the sums, values ``taken`` go to ``put``; None: all of them in order.
    """

    a: Places
    w: Places
    taken: Places | None
    put: Places


class _Group:
    """A :class:`_GroupShape` in memory; ``put`` are int32 words of it."""

    def __init__(self, shape: _GroupShape, place: Callable[[Places], Places], size: int) -> None:
        self._a, self._w, self._taken = place(shape.a), place(shape.w), shape.taken
        self.put = place(shape.put) // 4
        self._from, self._to = _run(self._a.reshape(-1), size), _run(self.put, 1)
        self._weights: npt.NDArray[Any] | None = None

    def forget(self) -> None:
        """The bytes of the right side have changed."""
        self._weights = None

    def run(
        self, memory: npt.NDArray[np.int8], every: npt.NDArray[np.int8], words: npt.NDArray[np.int32]
    ) -> None:
        """Multiply, and store. ``every`` are the words of memory that begin at each of its bytes."""
        if self._weights is None:
            self._weights = as_exact_float(every[self._w].reshape(len(self._w), -1))
        read = every[self._a] if self._from is None else memory[self._from]
        left = read.reshape(len(self._a), -1)[:, : len(self._w)]
        sums = exact_product(left, self._weights).reshape(-1)
        words[self.put if self._to is None else self._to] = sums if self._taken is None else sums[self._taken]


@dataclass(frozen=True, eq=False)
class ProductShape:
    """Products of a job in places that are a number of a page, shifted by ``PAGE_SHIFT``, and an offset from its begin.

    ``left`` and ``right`` are the rows that are loaded: where they begin, and their bytes.
    """

    groups: tuple[_GroupShape, ...]
    left: tuple[Places, Places]
    right: tuple[Places, Places]
    size: int

    @classmethod
    def find(cls, descriptors: Sequence[Descriptor], caps: Caps) -> ProductShape | None:
        """Play the descriptors with places; None if that can't be done."""
        tracer = _Tracer(caps)
        try:
            for descriptor in descriptors:
                tracer.step(descriptor)
            groups = tuple(tracer.group(key) for key in tracer.stores)
        except _Untraceable:
            return None
        if not groups:
            return None
        loads = [d for d in descriptors if isinstance(d, Load)]
        return cls(groups, _rows(loads, NpuSpace.ACTIVATIONS), _rows(loads, NpuSpace.WEIGHTS), caps.n)


class Product:
    """Products of one job in memory that begins at ``base``; :meth:`place` makes it."""

    def __init__(
        self, groups: list[_Group], left: list[tuple[int, int]], right: list[tuple[int, int]], size: int, base: int
    ) -> None:
        self._groups, self._left, self._right, self._size, self._base = groups, left, right, size, base
        self._kept: list[bytes] = []
        self._memory: npt.NDArray[np.int8] | None = None
        self._every: npt.NDArray[np.int8] = np.zeros((0, size), np.int8)

    def run(self, memory: npt.NDArray[np.int8], words: npt.NDArray[np.int32]) -> Operands:
        """Do what the job does to memory; return the left sides that it has read."""
        found = [memory[first:end].tobytes() for first, end in self._right]
        if found != self._kept:
            self._kept = found
            for group in self._groups:
                group.forget()
        left = {first: memory[first:end].tobytes() for first, end in self._left}
        if self._memory is not memory:
            self._memory = memory
            self._every = as_strided(memory, (len(memory) - self._size + 1, self._size), (1, 1), writeable=False)
        for group in self._groups:
            group.run(memory, self._every, words)
        return left

    def leave(self, descriptors: Sequence[Descriptor], state: NpuState, left: Operands) -> None:
        """Leave in the NPU's own memories what the last run, which read ``left``, has left there."""
        # Both sides may begin at the same place and reach differently far.
        spans = [*left.items(), *((first, kept) for (first, _), kept in zip(self._right, self._kept, strict=True))]

        def read(address: int, length: int) -> bytes:
            offset = address - self._base
            for first, content in spans:
                if first <= offset and offset + length <= first + len(content):
                    return content[offset - first : offset - first + length]
            raise AssertionError(f"The job reads {length} bytes at {address:#x}, which it was not found to do")

        execute(descriptors, read, lambda address, payload: None, state.caps, state=state)

    @classmethod
    def place(cls, shape: ProductShape, pages: Sequence[int], base: int) -> Product | None:
        """A shape whose ``pages`` are these, by number; None if it would store twice to a place."""
        begins = np.array(pages) * PAGE_BYTES - base

        def place(places: Places) -> Places:
            found: Places = begins[places >> PAGE_SHIFT] + (places & (1 << PAGE_SHIFT) - 1)
            return found

        groups = [_Group(group, place, shape.size) for group in shape.groups]
        put = np.sort(np.concatenate([group.put for group in groups]))
        if not (put[1:] > put[:-1]).all():
            return None
        left, right = (_spans(place(starts), lengths) for starts, lengths in (shape.left, shape.right))
        return cls(groups, left, right, shape.size, base)


_SUMS, _ROW = 1 << 40, 1 << 20
"""What an accumulator row holds: number of the sums times the one, row times the other, and tile."""


class _Untraceable(Exception):
    """The job is not only a product."""


class _Tracer:
    """Scratchpads and accumulators that hold places instead of values.

    ``_words`` are the places of a scratchpad's words, negative if nothing was loaded, and ``_lanes`` how many bytes of
    each are from there, the ``_least`` of them in any word that was loaded; ``_held`` tells of which of ``_sums`` an
    accumulator row is part, and which row and tile of it. ``_lefts`` are the left sides read since the last LOAD of
    activations, ``_known`` all of them by content.
    """

    def __init__(self, caps: Caps) -> None:
        self._caps = caps
        depths = {NpuSpace.ACTIVATIONS: caps.a_words, NpuSpace.WEIGHTS: caps.w_words}
        self._words = {space: np.full(depth, -1, np.int64) for space, depth in depths.items()}
        self._lanes = {space: np.zeros(depth, np.int64) for space, depth in depths.items()}
        self._least = dict.fromkeys(depths, caps.n)
        self._sums: list[_Sums] = []
        self._held = np.full(caps.c_rows, -1, np.int64)
        self._lefts: dict[tuple[int, int, int, int], Places] = {}
        self._known: dict[bytes, Places] = {}
        self.stores: dict[tuple[int, ...], list[tuple[int, int, int, Store]]] = {}

    def step(self, descriptor: Descriptor) -> None:
        """Play one descriptor."""
        match descriptor:
            case Load():
                self._load(descriptor)
            case Matmul():
                self._matmul(descriptor)
            case Store():
                self._store(descriptor)

    def _load(self, load: Load) -> None:
        if load.space not in self._words:
            raise _Untraceable
        size, count = self._caps.n, self._caps.tiles(load.row_bytes)
        words, lanes = self._words[load.space], self._lanes[load.space]
        last = load.row_bytes % size
        if load.word_step == 1:  # weights: word after word, row by row
            for row in range(load.rows):
                begin = load.base + row * load.row_step
                end = begin + count
                np.add(_ramp(size)[:count], load.address + row * load.stride, out=words[begin:end])
                lanes[begin:end] = size
                if last:
                    lanes[end - 1] = last
        else:
            places = load.base + _grid(load.rows, load.row_step, count, load.word_step)
            words[places] = load.address + _grid(load.rows, load.stride, count, size)
            lanes[places] = size
            if last:
                lanes[places[:, -1]] = last
        self._least[load.space] = min(self._least[load.space], last or size)
        if load.space is NpuSpace.ACTIVATIONS:
            self._lefts.clear()

    def _read(self, space: NpuSpace, places: Places, last: int) -> Places:
        """Words of a scratchpad ``[rows, tiles]``, of the last tile of which ``last`` lanes are needed."""
        found: Places = self._words[space][places]
        size = self._caps.n
        if self._least[space] == size:
            return found  # whole words, or places that are none, which group() sees
        lanes = self._lanes[space][places]
        if lanes[:, -1].min() < last or lanes[:, :-1].min(initial=size) < size:
            raise _Untraceable
        return found

    def _matmul(self, matmul: Matmul) -> None:
        m, n, n_tiles = matmul.m, matmul.n, self._caps.tiles(matmul.n)
        a: tuple[Places, ...] = (self._left(matmul),)
        w: tuple[Places, ...] = (self._right(matmul, n_tiles),)
        into = matmul.c_base + _grid(m, 1, n_tiles, matmul.c_step)
        if matmul.accumulate:
            number, row, tile = self._find(into)
            before = self._sums[number]
            if (row, tile, before.m, before.n) != (0, 0, m, n) or len(before.w[-1]) % self._caps.n:
                raise _Untraceable
            a, w = before.a + a, before.w + w
        self._held[into] = len(self._sums) * _SUMS + _grid(m, _ROW, n_tiles, 1)
        self._sums.append(_Sums(a, w, m, n))

    def _left(self, matmul: Matmul) -> Places:
        """Activations of a MATMUL."""
        place = matmul.a_base, matmul.a_step, matmul.m, matmul.k
        left = self._lefts.get(place)
        if left is None:
            words = matmul.a_base + _grid(matmul.m, 1, self._caps.tiles(matmul.k), matmul.a_step)
            left = self._read(NpuSpace.ACTIVATIONS, words, (matmul.k - 1) % self._caps.n + 1)
            left = self._lefts[place] = self._known.setdefault(len(left).to_bytes(4, "little") + left.tobytes(), left)
        return left

    def _right(self, matmul: Matmul, n_tiles: int) -> Places:
        """Weights of a MATMUL. Those of columns that nobody asks for are multiplied, too, so they are to be there."""
        space, base, step, k = NpuSpace.WEIGHTS, matmul.w_base, matmul.w_step, matmul.k
        end = base + n_tiles * step
        if self._least[space] == self._caps.n and k <= step and end <= len(self._words[space]):
            right: Places = self._words[space][base:end].reshape(n_tiles, step)[:, :k].T.copy()
            return right
        return self._read(space, base + _grid(k, 1, n_tiles, step), self._caps.n)

    def _find(self, spots: Places) -> tuple[int, int, int]:
        """The sums that the accumulators ``spots`` hold, all of one MATMUL in order; and the first row and tile."""
        held = self._held[spots]
        first = int(held[0, 0])
        rows, tiles = spots.shape
        if first < 0 or not np.array_equal(held, first + _grid(rows, _ROW, tiles, 1)):
            raise _Untraceable
        return first // _SUMS, first % _SUMS // _ROW, first % _ROW

    def _store(self, store: Store) -> None:
        if store.quantise:
            raise _Untraceable
        tiles = self._caps.tiles(store.n)
        number, row, tile = self._find(store.c_base + _grid(store.rows, 1, tiles, store.c_step))
        sums = self._sums[number]
        if tile * self._caps.n + store.n > sums.n:
            raise _Untraceable
        key = sum(map(len, sums.w)), *map(id, sums.a)
        self.stores.setdefault(key, []).append((number, row, tile, store))

    def group(self, key: tuple[int, ...]) -> _GroupShape:
        """The product behind all stores of one left side."""
        size = self._caps.n
        numbers = list(dict.fromkeys(number for number, _, _, _ in self.stores[key]))
        parts = [self._sums[number] for number in numbers]
        starts = np.cumsum([0, *(self._caps.tiles(part.n) for part in parts)])
        first = dict(zip(numbers, starts.tolist(), strict=False))
        width, taken, put = int(starts[-1]) * size, [], []
        for number, row, tile, store in self.stores[key]:
            begin = row * width + (first[number] + tile) * size
            taken.append((begin + _grid(store.rows, width, store.n, 1)).reshape(-1))
            put.append((store.address + _grid(store.rows, store.stride, store.n, 4)).reshape(-1))
        # In the order of the sums, so that all of them in order need not be picked.
        every = np.concatenate(taken)
        order = np.argsort(every, kind="stable")
        a, w = np.hstack(parts[0].a), np.empty((key[0], starts[-1]), np.int64)
        for part, start in zip(parts, starts.tolist(), strict=False):
            k = 0
            for piece in part.w:
                w[k : k + len(piece), start : start + piece.shape[1]] = piece
                k += len(piece)
        if a.min() < 0 or w.min() < 0:
            raise _Untraceable
        picked = every[order]
        whole = np.array_equal(picked, np.arange(len(a) * width))
        return _GroupShape(a, w, None if whole else picked, np.concatenate(put)[order])


@lru_cache(maxsize=4)
def _ramp(step: int) -> Places:
    """Distances of words from the first, to be read only."""
    ramp: Places = _grid(1, 0, 1 << 16, step)[0]
    return ramp


@lru_cache(maxsize=256)
def _grid(rows: int, row_step: int, columns: int, column_step: int) -> Places:
    """``[rows, columns]`` of distances from the first, to be read only."""
    grid: Places = np.arange(rows)[:, None] * row_step + np.arange(columns) * column_step
    grid.flags.writeable = False
    return grid


def _rows(loads: Sequence[Load], space: NpuSpace) -> tuple[Places, Places]:
    """Where the rows begin that loads of a space read, and their bytes."""
    starts = [load.address + row * load.stride for load in loads if load.space is space for row in range(load.rows)]
    lengths = [
        -(-load.row_bytes // BEAT_BYTES) * BEAT_BYTES for load in loads if load.space is space for _ in range(load.rows)
    ]
    return np.array(starts, np.int64), np.array(lengths, np.int64)


def _run(places: Places, size: int) -> slice | None:
    """Places of things of ``size`` as a slice, if they lie one behind the other."""
    first, count = int(places[0]), len(places)
    if not np.array_equal(places, np.arange(first, first + count * size, size)):
        return None
    return slice(first, first + count * size)


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

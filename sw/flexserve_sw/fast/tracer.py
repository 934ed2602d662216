"""What a job multiplies: its descriptors played once with places instead of values.

Which byte of memory does each operand come from, and where does each sum go?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np

from ..machine import BEAT_BYTES, PAGE_BYTES
from ..npu import Caps, Descriptor, Load, Matmul, Store
from ..regs import NpuSpace
from .reach import Places, Reach

__all__ = ["PAGE_SHIFT", "GroupShape", "ProductShape", "ShapePages"]

PAGE_SHIFT = 48
"""Binary places by which numbers of pages are shifted: more than a transfer reaches."""

ShapePages = tuple[tuple[int, int], ...]
"""Pages of a shape: the number of one, and how many pages behind it."""


class _Sums(NamedTuple):
    """Sums of one MATMUL, and of those that it adds to: words of ``a[m, k tiles]`` and ``w[n tiles, k]``, of each one.

    Left sides of the same words are the same object, so ``key``, their identities after the terms of a sum, tells which
    sums have the same.
    """

    a: tuple[Places, ...]
    w: tuple[Places, ...]
    m: int
    n: int
    key: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class GroupShape:
    """Products with the same left side: ``left[m, k tiles]`` times ``right[k, n tiles]``, of words in a shape's places.

    Words of the right side come tile of n by tile of n; ``pages`` are those that they lie in. Of the sums, values
    ``taken`` go to ``put``; None: all of them in order.
    """

    left: Reach
    right: Reach
    put: Reach
    m: int
    k: int
    taken: Places | None
    pages: ShapePages


class ProductShape:
    """Products of a job in places that are a number of a page, shifted by ``PAGE_SHIFT``, and an offset from its begin.

    ``left`` and ``right`` are the rows that are loaded: where they begin, and their bytes. ``pages`` are those in which
    the right ones lie.
    """

    def __init__(
        self, groups: Sequence[GroupShape], left: tuple[Places, Places], right: tuple[Places, Places], size: int
    ) -> None:
        self.groups, self.size, self.pages = groups, size, _pages(*right)
        self.left_bytes, self.right_bytes = left[1], right[1]
        parts = [reach.starts for group in groups for reach in (group.left, group.right, group.put)]
        parts += [left[0], right[0]]
        places = np.concatenate(parts)
        self._numbers, self._offsets = places >> PAGE_SHIFT, places & (1 << PAGE_SHIFT) - 1
        self._edges = [0, *accumulate(map(len, parts))]

    def place(self, begins: Places) -> list[Places]:
        """Offsets in memory if pages by number begin at these: where runs of each group's left side, right side and
        results begin, group by group, then rows on the left, then on the right.
        """
        found = begins[self._numbers] + self._offsets
        return [found[first:end] for first, end in pairwise(self._edges)]

    @classmethod
    def find(cls, descriptors: Sequence[Descriptor], caps: Caps) -> ProductShape | None:
        """Play the descriptors with places; None if that can't be done."""
        tracer = _Tracer(caps)
        try:
            for descriptor in descriptors:
                tracer.step(descriptor)
            groups = [tracer.group(key) for key in tracer.stores]
        except _Untraceable:
            return None
        if not groups:
            return None
        loads = [d for d in descriptors if isinstance(d, Load)]
        return cls(groups, _rows(loads, NpuSpace.ACTIVATIONS), _rows(loads, NpuSpace.WEIGHTS), caps.n)


class _Block(NamedTuple):
    """Accumulators from row ``base`` up to ``end`` that hold the sums ``number``: ``m`` rows every ``step`` rows."""

    number: int
    base: int
    end: int
    step: int
    m: int
    tiles: int


class _Untraceable(Exception):
    """The job is not only a product."""


class _Tracer:
    """Scratchpads and accumulators that hold places instead of values.

    ``_words`` are the places of a scratchpad's words, negative if nothing was loaded, and ``_lanes`` how many bytes of
    each are from there, the ``_least`` of them in any word that was loaded; ``_blocks`` tells, by first row, which
    accumulators hold which of ``_sums``. ``_lefts`` are the left sides read since the last LOAD of activations,
    ``_known`` all of them by content.
    """

    def __init__(self, caps: Caps) -> None:
        self._caps = caps
        depths = {NpuSpace.ACTIVATIONS: caps.a_words, NpuSpace.WEIGHTS: caps.w_words}
        self._words = {space: np.full(depth, -1, np.int64) for space, depth in depths.items()}
        self._lanes = {space: np.full(depth, caps.n, np.int64) for space, depth in depths.items()}
        self._least = dict.fromkeys(depths, caps.n)
        self._sums: list[_Sums] = []
        self._blocks: dict[int, _Block] = {}
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
        space, address, stride, rows, row_bytes, base, row_step, word_step, *_ = load
        if space not in self._words:
            raise _Untraceable
        size, count = self._caps.n, self._caps.tiles(row_bytes)
        words, last = self._words[space], row_bytes % size
        self._least[space] = min(self._least[space], last or size)
        ragged = self._least[space] < size
        if word_step == 1 and not ragged:  # weights: word after word, row by row
            if row_step == count and stride == row_bytes:
                rows, count = 1, rows * count
            for row in range(rows):
                begin = base + row * row_step
                np.add(_ramp(size)[:count], address + row * stride, out=words[begin : begin + count])
        else:
            places = base + _grid(rows, row_step, count, word_step)
            words[places] = address + _grid(rows, stride, count, size)
            if ragged:
                lanes = self._lanes[space]
                lanes[places] = size
                lanes[places[:, -1]] = last or size
        if space is NpuSpace.ACTIVATIONS:
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
        left, right = self._left(matmul), self._right(matmul, n_tiles)
        a: tuple[Places, ...] = (left,)
        w: tuple[Places, ...] = (right,)
        key: tuple[int, ...] = (right.shape[1], id(left))
        base, step = matmul.c_base, matmul.c_step
        if matmul.accumulate:
            number, row, tile = self._find(base, step, m, n_tiles)
            before = self._sums[number]
            if (row, tile, before.m, before.n) != (0, 0, m, n) or before.w[-1].shape[1] % self._caps.n:
                raise _Untraceable
            a, w = before.a + a, before.w + w
            key = (before.key[0] + key[0], *before.key[1:], key[1])
        if n_tiles > 1 and step < m:
            raise _Untraceable
        end = base + (n_tiles - 1) * step + m
        before_it = self._blocks.get(base)
        if before_it is None or before_it.end != end:
            self._blocks = {b.base: b for b in self._blocks.values() if b.end <= base or end <= b.base}
        self._blocks[base] = _Block(len(self._sums), base, end, step, m, n_tiles)
        self._sums.append(_Sums(a, w, m, n, key))

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
            right: Places = self._words[space][base:end].reshape(n_tiles, step)[:, :k].copy()
            return right
        return self._read(space, base + _grid(k, 1, n_tiles, step), self._caps.n).T

    def _find(self, first: int, step: int, rows: int, tiles: int) -> tuple[int, int, int]:
        """Number of the sums that accumulators hold, all of one MATMUL in order; and the first row and tile."""
        exact = self._blocks.get(first)
        for block in (exact,) if exact is not None else self._blocks.values():
            tile, row = divmod(first - block.base, block.step) if block.tiles > 1 else (0, first - block.base)
            inside = 0 <= row <= block.m - rows and 0 <= tile <= block.tiles - tiles
            if inside and (tiles == 1 or step == block.step):
                return block.number, row, tile
        raise _Untraceable

    def _store(self, store: Store) -> None:
        if store.quantise:
            raise _Untraceable
        tiles = self._caps.tiles(store.n)
        number, row, tile = self._find(store.c_base, store.c_step, store.rows, tiles)
        sums = self._sums[number]
        if tile * self._caps.n + store.n > sums.n:
            raise _Untraceable
        self.stores.setdefault(sums.key, []).append((number, row, tile, store))

    def group(self, key: tuple[int, ...]) -> GroupShape:
        """The product behind all stores of one left side."""
        size = self._caps.n
        numbers = list(dict.fromkeys(number for number, _, _, _ in self.stores[key]))
        parts = [self._sums[number] for number in numbers]
        starts = np.cumsum([0, *(self._caps.tiles(part.n) for part in parts)])
        first = dict(zip(numbers, starts.tolist(), strict=False))
        width = int(starts[-1]) * size
        rows: list[tuple[int, int, int]] = []  # of stores: first of the sums, where they go, and how many
        for number, row, tile, store in self.stores[key]:
            begin = row * width + (first[number] + tile) * size
            rows += [(begin + r * width, store.address + r * store.stride, store.n) for r in range(store.rows)]
        # In the order of the sums, so that all of them in order need not be picked.
        taken, put, counts = np.array(sorted(rows), np.int64).T
        a, w = np.hstack(parts[0].a), np.empty((starts[-1], key[0]), np.int64)
        for part, start in zip(parts, starts.tolist(), strict=False):
            k = 0
            for piece in part.w:
                tiles, more = piece.shape
                w[start : start + tiles, k : k + more] = piece
                k += more
        if a.min() < 0 or w.min() < 0:
            raise _Untraceable
        ends = np.cumsum(counts)
        whole = ends[-1] == len(a) * width and np.array_equal(taken[1:], ends[:-1])
        every = None if whole else np.arange(ends[-1]) + np.repeat(taken - ends + counts, counts)
        left, right = (Reach.of_things(words.reshape(-1), size) for words in (a, w))
        pages = _pages(right.starts, right.lengths)
        return GroupShape(left, right, Reach.of_runs(put, counts, 4), len(a), key[0], every, pages)


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


def _pages(starts: Places, lengths: Places) -> ShapePages:
    """Pages in which runs lie."""
    pages: set[tuple[int, int]] = set()
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        number, offset = start >> PAGE_SHIFT, start & (1 << PAGE_SHIFT) - 1
        pages.update([(number, behind) for behind in range(offset // PAGE_BYTES, -(-(offset + length) // PAGE_BYTES))])
    return tuple(pages)


def _rows(loads: Sequence[Load], space: NpuSpace) -> tuple[Places, Places]:
    """Where the rows begin that loads of a space read, and their bytes; rows that lie end to end count as one."""
    starts: list[int] = []
    lengths: list[int] = []
    for load in loads:
        if load.space is space:
            length = -(-load.row_bytes // BEAT_BYTES) * BEAT_BYTES
            rows, length = (1, length * load.rows) if load.stride == length else (load.rows, length)
            starts += [load.address + row * load.stride for row in range(rows)]
            lengths += [length] * rows
    return np.array(starts, np.int64), np.array(lengths, np.int64)

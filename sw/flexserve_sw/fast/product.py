"""A job recognised as what it nearly always is: products of matrices that lie scattered in memory.

The descriptors are played once with places instead of values: which byte of memory does each operand come from, and
where does each sum go. What is left is to gather, multiply and scatter. A job that is anything else, say one that reads
what an earlier job left in the scratchpads, is not found, and is played descriptor by descriptor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..integers import as_exact_float, exact_product
from ..machine import BEAT_BYTES
from ..npu import Caps, Descriptor, Load, Matmul, NpuState, Store, execute
from ..regs import NpuSpace

__all__ = ["Operands", "Product"]

Places = npt.NDArray[np.int64]
"""Offsets in memory."""

Operands = dict[int, bytes]
"""Bytes of memory by where they begin."""


@dataclass(frozen=True, eq=False)
class _Sums:
    """Sums of one MATMUL, and of those that it adds to: ``a[m, K]`` times ``w[K, n]``."""

    a: Places
    w: Places


class _Group:
    """Products with the same left side: ``a[m, K]`` times ``w[K, n]``, of which values ``taken`` go to ``put``."""

    def __init__(self, a: Places, w: Places, taken: Places, put: Places) -> None:
        self.put = put
        self._a, self._w = a, w
        self._taken = None if np.array_equal(taken, np.arange(len(a) * w.shape[1])) else taken
        self._weights: npt.NDArray[Any] | None = None

    def forget(self) -> None:
        """The bytes of the right side have changed."""
        self._weights = None

    def run(self, memory: npt.NDArray[np.int8], words: npt.NDArray[np.int32]) -> None:
        """Multiply, and store."""
        if self._weights is None:
            self._weights = as_exact_float(memory[self._w])
        sums = exact_product(memory[self._a], self._weights).reshape(-1)
        words[self.put] = sums if self._taken is None else sums[self._taken]


class Product:
    """Products of one job; :meth:`find` makes it. Places are offsets from ``base``."""

    def __init__(self, groups: list[_Group], loads: Sequence[Load], base: int) -> None:
        self._groups, self._base = groups, base
        self._left = _spans(loads, NpuSpace.ACTIVATIONS, base)
        self._right = _spans(loads, NpuSpace.WEIGHTS, base)
        self._kept: list[bytes] = []

    def run(self, memory: npt.NDArray[np.int8], words: npt.NDArray[np.int32]) -> Operands:
        """Do what the job does to memory; return the left sides that it has read."""
        found = [memory[first:end].tobytes() for first, end in self._right]
        if found != self._kept:
            self._kept = found
            for group in self._groups:
                group.forget()
        left = {first: memory[first:end].tobytes() for first, end in self._left}
        for group in self._groups:
            group.run(memory, words)
        return left

    def leave(self, descriptors: Sequence[Descriptor], state: NpuState, left: Operands) -> None:
        """Leave in the NPU's own memories what the last run, which read ``left``, has left there."""
        spans = left | {first: kept for (first, _), kept in zip(self._right, self._kept, strict=True)}

        def read(address: int, length: int) -> bytes:
            offset = address - self._base
            for first, content in spans.items():
                if first <= offset and offset + length <= first + len(content):
                    return content[offset - first : offset - first + length]
            raise AssertionError(f"The job reads {length} bytes at {address:#x}, which it was not found to do")

        execute(descriptors, read, lambda address, payload: None, state.caps, state=state)

    @classmethod
    def find(cls, descriptors: Sequence[Descriptor], caps: Caps, base: int) -> Product | None:
        """Play the descriptors with places; None if that can't be done."""
        tracer = _Tracer(caps, base)
        try:
            for descriptor in descriptors:
                tracer.step(descriptor)
        except _Untraceable:
            return None
        groups = [tracer.group(key) for key in tracer.stores]
        put = np.concatenate([np.zeros(0, np.int64), *(group.put for group in groups)])
        if not groups or len(np.unique(put)) != len(put):
            return None
        return cls(groups, [d for d in descriptors if isinstance(d, Load)], base)


class _Untraceable(Exception):
    """The job is not only a product."""


class _Tracer:
    """Scratchpads that hold places, and accumulators that tell which of ``_sums`` they hold, at which row and tile."""

    def __init__(self, caps: Caps, base: int) -> None:
        self._caps, self._base = caps, base
        self._spaces = {
            NpuSpace.ACTIVATIONS: np.full((caps.a_words, caps.n), -1, np.int64),
            NpuSpace.WEIGHTS: np.full((caps.w_words, caps.n), -1, np.int64),
        }
        self._sums: list[_Sums] = []
        self._held = np.full((caps.c_rows, 3), -1, np.int64)
        self.stores: dict[bytes, list[tuple[int, int, int, Store]]] = {}

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
        if load.space not in self._spaces:
            raise _Untraceable
        words = self._caps.tiles(load.row_bytes)
        content = np.full((load.rows, words * self._caps.n), -1, np.int64)
        rows = np.arange(load.rows)[:, None]
        content[:, : load.row_bytes] = load.address - self._base + rows * load.stride + np.arange(load.row_bytes)
        places = load.base + rows * load.row_step + np.arange(words) * load.word_step
        self._spaces[load.space][places.reshape(-1)] = content.reshape(-1, self._caps.n)

    def _accumulators(self, base: int, step: int, rows: int, tiles: int) -> npt.NDArray[np.int64]:
        """Rows of the accumulators, ``[rows, tiles]``."""
        return base + np.arange(rows)[:, None] + step * np.arange(tiles)

    def _matmul(self, matmul: Matmul) -> None:
        caps, m, k, n = self._caps, matmul.m, matmul.k, matmul.n
        k_tiles, n_tiles = caps.tiles(k), caps.tiles(n)
        places = matmul.a_base + np.arange(k_tiles) * matmul.a_step + np.arange(m)[:, None]
        a = self._spaces[NpuSpace.ACTIVATIONS][places].reshape(m, k_tiles * caps.n)[:, :k]
        places = matmul.w_base + np.arange(n_tiles) * matmul.w_step + np.arange(k)[:, None]
        w = self._spaces[NpuSpace.WEIGHTS][places].reshape(k, n_tiles * caps.n)[:, :n]
        if a.min() < 0 or w.min() < 0:
            raise _Untraceable
        into = self._accumulators(matmul.c_base, matmul.c_step, m, n_tiles)
        if matmul.accumulate:
            before = self._find(into)
            if before[1:] != (0, 0) or (len(self._sums[before[0]].a), self._sums[before[0]].w.shape[1]) != (m, n):
                raise _Untraceable
            a = np.hstack((self._sums[before[0]].a, a))
            w = np.vstack((self._sums[before[0]].w, w))
        self._held[into, 0] = len(self._sums)
        self._held[into, 1] = np.arange(m)[:, None]
        self._held[into, 2] = np.arange(n_tiles)
        self._sums.append(_Sums(a, w))

    def _find(self, spots: npt.NDArray[np.int64]) -> tuple[int, int, int]:
        """The sums that the accumulators ``spots`` hold, all of one MATMUL in order; and the first row and tile."""
        held = self._held[spots]
        number, row, tile = (int(part) for part in held[0, 0])
        rows, tiles = spots.shape
        if (
            number < 0
            or (held[:, :, 0] != number).any()
            or (held[:, :, 1] != row + np.arange(rows)[:, None]).any()
            or (held[:, :, 2] != tile + np.arange(tiles)).any()
        ):
            raise _Untraceable
        return number, row, tile

    def _store(self, store: Store) -> None:
        if store.quantise:
            raise _Untraceable
        tiles = self._caps.tiles(store.n)
        number, row, tile = self._find(self._accumulators(store.c_base, store.c_step, store.rows, tiles))
        sums = self._sums[number]
        if tile * self._caps.n + store.n > sums.w.shape[1]:
            raise _Untraceable
        self.stores.setdefault(sums.a.tobytes(), []).append((number, row, tile, store))

    def group(self, key: bytes) -> _Group:
        """The product behind all stores of one left side."""
        numbers = list(dict.fromkeys(number for number, _, _, _ in self.stores[key]))
        parts = [self._sums[number] for number in numbers]
        starts = np.cumsum([0, *(part.w.shape[1] for part in parts)])
        first = dict(zip(numbers, starts.tolist(), strict=False))
        width, taken, put = int(starts[-1]), [], []
        for number, row, tile, store in self.stores[key]:
            rows, columns = np.arange(store.rows)[:, None], np.arange(store.n)
            taken.append(((row + rows) * width + first[number] + tile * self._caps.n + columns).reshape(-1))
            put.append(((store.address - self._base + rows * store.stride) // 4 + columns).reshape(-1))
        # In the order of the sums, so that all of them in order need not be picked.
        order = np.argsort(np.concatenate(taken), kind="stable")
        w = np.hstack([part.w for part in parts])
        return _Group(parts[0].a, w, np.concatenate(taken)[order], np.concatenate(put)[order])


def _spans(loads: Sequence[Load], space: NpuSpace, base: int) -> list[tuple[int, int]]:
    """The bytes that loads of a space read, as offsets, in as few spans as possible."""
    spans: list[tuple[int, int]] = []
    for load in loads:
        if load.space is space:
            length = -(-load.row_bytes // BEAT_BYTES) * BEAT_BYTES
            starts = (load.address - base + row * load.stride for row in range(load.rows))
            spans += [(start, start + length) for start in starts]
    merged: list[tuple[int, int]] = []
    for first, end in sorted(spans):
        if merged and first <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((first, end))
    return merged

"""A product of activations with a packed matrix, or a part of one: where its operands lie, and how it is cut."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..llm.arithmetic import Int8, Int32
from ..machine import BEAT_BYTES
from ..npu import Caps
from .joblists import JobLists
from .listpool import JobKey
from .segments import whole_pages

__all__ = ["PackedProduct", "strides"]


def strides(k: int, n: int, caps: Caps) -> tuple[int, int]:
    """Bytes from row to row of activations and of sums; both can be cut at any page boundary."""
    word = max(BEAT_BYTES, caps.n)
    return -(-k // word) * word, -(-n // caps.n) * caps.n * 4


@dataclass(frozen=True, kw_only=True)
class PackedProduct:
    """``x[T, K]`` times a matrix ``[K, N]`` that is packed for an NPU.

    ``rows`` and ``columns`` are those of this part, of ``all_rows`` and ``all_columns``. Activations lie at ``left``,
    the matrix at ``weights``, sums go to ``into``: addresses of the space at which the whole begins.
    """

    name: str
    caps: Caps
    k: int
    all_rows: int
    all_columns: int
    rows: range
    columns: range
    left: int
    weights: int

    @classmethod
    def whole(
        cls, name: str, rows: int, shape: tuple[int, ...], caps: Caps, *, left: int, weights: int
    ) -> PackedProduct:
        """All of it."""
        k, n = shape
        return cls(
            name=name, caps=caps, k=k, all_rows=rows, all_columns=n, rows=range(rows), columns=range(n), left=left,
            weights=weights,
        )  # fmt: skip

    @cached_property
    def key(self) -> JobKey:
        """Names the job of this part."""
        whole = len(self.rows) == self.all_rows and len(self.columns) == self.all_columns
        cut = "" if whole else "".join(f"[{part.start}:{part.stop}]" for part in (self.rows, self.columns))
        return f"{self.name}{cut}", self.all_rows, self.weights

    @cached_property
    def _strides(self) -> tuple[int, int]:
        return strides(self.k, self.all_columns, self.caps)

    @cached_property
    def into(self) -> int:
        """Where all sums begin: behind the activations."""
        return self.left + whole_pages(self.all_rows * self._strides[0])

    @cached_property
    def stored(self) -> int:
        """Bytes of all sums."""
        return self.all_rows * self._strides[1]

    @cached_property
    def operands(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        """Where this part's activations, weights and sums begin, and how long they are: all that its job touches."""
        (a_stride, c_stride), tile = self._strides, self.caps.n
        # Of the packed weights, some tiles' columns lie together.
        tiles = self.caps.tiles(self.k) * tile * tile
        columns = self.caps.tiles(len(self.columns))
        return (
            (self.left + self.rows.start * a_stride, len(self.rows) * a_stride),
            (self.weights + self.columns.start // tile * tiles, columns * tiles),
            (
                self.into + self.rows.start * c_stride + self.columns.start * 4,
                (len(self.rows) - 1) * c_stride + columns * tile * 4,
            ),
        )

    def encoded(self, lists: JobLists) -> bytes:
        """The list of this part's job."""
        (left, _), weights, (into, _) = self.operands
        a_stride, c_stride = self._strides
        return lists.gemm(
            len(self.rows), self.k, len(self.columns), a=(left, a_stride), w=weights, c=(into, c_stride)
        )

    def halves(self) -> tuple[PackedProduct, PackedProduct] | None:
        """Two parts, in whole tiles of columns; only what is one such tile is cut by rows. None for a single row."""
        rows, columns, tile = self.rows, self.columns, self.caps.n
        middle = columns.start + -(-len(columns) // tile) // 2 * tile
        if middle > columns.start:
            cuts = range(columns.start, middle), range(middle, columns.stop)
            return replace(self, columns=cuts[0]), replace(self, columns=cuts[1])
        if len(rows) == 1:
            return None
        middle = rows.start + len(rows) // 2
        return replace(self, rows=range(rows.start, middle)), replace(self, rows=range(middle, rows.stop))

    def payload(self, x: Int8) -> bytes:
        """All activations as they lie in memory."""
        a_stride = self._strides[0]
        if a_stride == self.k:
            return x.tobytes()
        padded = np.zeros((self.all_rows, a_stride), np.int8)
        padded[:, : self.k] = x
        return padded.tobytes()

    def sums(self, raw: bytes) -> Int32:
        """All sums in what lies in memory."""
        return np.frombuffer(raw, "<i4").reshape(self.all_rows, -1)[:, : self.all_columns]

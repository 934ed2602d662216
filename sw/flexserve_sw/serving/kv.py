"""Keys and values in int8: where they lie in pages, and products with them, compared with the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np

from ..llm.arithmetic import Float, Int8, Int32
from ..llm.attention import (
    Int8KvCache,
    KvArithmetic,
    attend_int8,
    causal_pairs,
    score_products,
    seen_positions,
    value_products,
)
from ..llm.config import ModelConfig
from ..llm.model import Cpu, Work
from ..machine import BEAT_BYTES, PAGE_BYTES
from .pager import Pager
from .segments import Kind, PagedSegment
from .side import CpuClock
from .space import Space
from .tensors import ComputeTrack, Paged

__all__ = ["AttentionProducts", "CpuAttention", "Kv", "KvLayout", "PagedInt8Cache"]


class Kv(StrEnum):
    """In what keys and values are kept, and who multiplies with them."""

    FLOAT = "float"
    """float32; attention on the CPU."""
    INT8 = "int8"
    """int8; products on the NPU, in a design without one on the CPU."""
    INT8_CPU = "int8-cpu"
    """The same integers; products on the CPU."""

    @property
    def arithmetic(self) -> KvArithmetic:
        """That of the reference."""
        return "float" if self is Kv.FLOAT else "int8"


@dataclass(frozen=True, kw_only=True)
class KvLayout:
    """A layer's keys and values: a segment of int8 rows, and one of their float32 scales.

    The row of a position has its keys of all heads, then its values, each filled up to whole words of an NPU with an
    ``array`` wide array, so that it can be cut at any page boundary. Keys are then the left side of a product as they
    are, and values the right side.
    """

    heads: int
    kv_heads: int
    head_dim: int
    array: int

    @classmethod
    def of(cls, config: ModelConfig, array: int) -> KvLayout:
        """The layout for a model."""
        return cls(heads=config.heads, kv_heads=config.kv_heads, head_dim=config.head_dim, array=array)

    @property
    def word(self) -> int:
        """Bytes of a word, in whole beats."""
        return max(BEAT_BYTES, self.array)

    @property
    def half(self) -> int:
        """Bytes of a position's keys, and of its values."""
        return -(-self.kv_heads * self.head_dim // self.word) * self.word

    @property
    def row_bytes(self) -> int:
        """Bytes of a position."""
        return 2 * self.half

    @property
    def scale_bytes(self) -> int:
        """Bytes of a position's scales."""
        return -(-2 * self.kv_heads * 4 // BEAT_BYTES) * BEAT_BYTES

    def whole(self, positions: int) -> int:
        """Positions that products take: whole tiles, so that a job list serves for several tokens.

        What lies in the rows beyond the last position goes into sums that nobody looks at, or is multiplied by 0.
        """
        return -(-positions // self.array) * self.array

    def pages(self, positions: int) -> tuple[int, int]:
        """Pages of the rows, and of the scales."""
        rows, scales = self.whole(positions) * self.row_bytes, positions * self.scale_bytes
        return -(-rows // PAGE_BYTES), -(-scales // PAGE_BYTES)


class AttentionProducts(Protocol):
    """Who multiplies with keys and values. ``rows`` is the address of a layer's rows, of which ``count`` are used."""

    async def scores(self, name: str, rows: int, count: int, queries: Int8, position: int) -> Int32:
        """``queries[T, heads, d]``, the first at ``position``, times the keys: ``[T, heads, count]``.

        What a query does not see is 0.
        """

    async def mix(self, name: str, rows: int, count: int, weights: Int8, position: int) -> Int32:
        """``weights[T, heads, count]`` times the values: ``[T, heads, d]``."""


class CpuAttention:
    """Reads a layer's rows over the bus, once for both products, and multiplies."""

    def __init__(self, *, space: Space, clock: CpuClock, layout: KvLayout) -> None:
        self._space, self._clock, self._layout = space, clock, layout
        self._rows = np.zeros((0, 2, 0, 0), np.int8)

    async def scores(self, name: str, rows: int, count: int, queries: Int8, position: int) -> Int32:
        """Products with the keys."""
        layout = self._layout
        raw = np.frombuffer(await self._space.load(rows, count * layout.row_bytes), np.int8).reshape(count, 2, -1)
        self._rows = raw[..., : layout.kv_heads * layout.head_dim].reshape(count, 2, layout.kv_heads, -1)
        self._charge(len(queries), position)
        return score_products(queries, self._rows[:, 0], position)

    async def mix(self, name: str, rows: int, count: int, weights: Int8, position: int) -> Int32:
        """Products with the values."""
        self._charge(len(weights), position)
        return value_products(weights, self._rows[:, 1])

    def _charge(self, rows: int, position: int) -> None:
        pairs = causal_pairs(self._layout.heads, rows, position)
        self._clock.charge(Work.INT8_MAC, pairs * self._layout.head_dim)


class PagedInt8Cache(Paged):
    """Two segments per layer, laid out by :class:`KvLayout`.

    ``check`` is given every product with what the reference makes of the same integers, and the bits of scales that
    are read with those that were appended; ``scratch`` are the segments that products work in.
    """

    def __init__(
        self,
        *,
        pager: Pager,
        clock: CpuClock,
        track: ComputeTrack,
        config: ModelConfig,
        layout: KvLayout,
        positions: int,
        products: AttentionProducts,
        scratch: Sequence[PagedSegment],
        check: Callable[[Int32, Int32], None],
    ) -> None:
        super().__init__(pager, clock, track)
        self._layout, self._products, self._scratch, self._check = layout, products, scratch, check
        self._reference = Int8KvCache(config)
        self._used = [0] * config.layers
        row_pages, scale_pages = layout.pages(positions)
        self._segments = [
            (pager.add(f"kv.{layer}", Kind.KV, row_pages), pager.add(f"kv.{layer}.scales", Kind.KV, scale_pages))
            for layer in range(config.layers)
        ]

    async def attend(self, layer: int, q: Float, k: Float, v: Float, position: int, *, cpu: Cpu) -> Float:
        """Attention in int8."""
        return await attend_int8(self, layer, q, k, v, position, cpu=cpu)

    def _pages(self, count: int) -> range:
        """Pages of rows that products over ``count`` positions read."""
        return range(self._layout.pages(count)[0])

    async def append(self, layer: int, rows: Int8, scales: Float) -> None:
        """Add rows; pages are got as they are needed."""
        layout, start, count = self._layout, self._used[layer], len(rows)
        padded = np.zeros((count, 2, layout.half), np.int8)
        padded[:, :, : layout.kv_heads * layout.head_dim] = rows.reshape(count, 2, -1)
        floats = np.zeros((count, layout.scale_bytes // 4), "<f4")
        floats[:, : 2 * layout.kv_heads] = scales.reshape(count, -1)
        for segment, size, pages, payload in zip(
            self._segments[layer],
            (layout.row_bytes, layout.scale_bytes),
            layout.pages(start + count),
            (padded.tobytes(), floats.tobytes()),
            strict=True,
        ):
            await self._put(segment, start * size, pages, payload)
        self._used[layer] = start + count
        await self._reference.append(layer, rows, scales)

    async def _put(self, segment: PagedSegment, offset: int, pages: int, payload: bytes) -> None:
        await self._attempt(
            segment,
            lambda: self._pager.space.store(segment.address + offset, payload),
            pages=range(offset // PAGE_BYTES, pages),
        )

    async def scales(self, layer: int) -> Float:
        """All scales so far."""
        layout, used, (_, segment) = self._layout, self._used[layer], self._segments[layer]
        length = used * layout.scale_bytes
        raw = await self._attempt(
            segment, lambda: self._pager.space.load(segment.address, length), pages=range(layout.pages(used)[1])
        )
        floats = np.frombuffer(raw, "<f4").reshape(used, -1)[:, : 2 * layout.kv_heads]
        scales = floats.reshape(used, 2, layout.kv_heads).astype(np.float32)
        self._check(scales.view(np.int32), (await self._reference.scales(layer)).view(np.int32))
        return scales

    async def scores(self, layer: int, queries: Int8, position: int) -> Int32:
        """Exact products with the keys."""
        segment, used = self._segments[layer][0], self._used[layer]
        sums = await self._attempt(
            segment,
            lambda: self._products.scores(f"layers.{layer}.scores", segment.address, used, queries, position),
            pages=self._pages(used),
            scratch=self._scratch,
        )
        seen = np.broadcast_to(seen_positions(len(queries), used, position), sums.shape)
        self._check(sums[seen], (await self._reference.scores(layer, queries, position))[seen])
        return sums

    async def mix(self, layer: int, weights: Int8, position: int) -> Int32:
        """Exact products with the values."""
        segment, used = self._segments[layer][0], self._used[layer]
        sums = await self._attempt(
            segment,
            lambda: self._products.mix(f"layers.{layer}.mix", segment.address, used, weights, position),
            pages=self._pages(used),
            scratch=self._scratch,
        )
        self._check(sums, await self._reference.mix(layer, weights, position))
        return sums

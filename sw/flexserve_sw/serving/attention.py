"""Score and value products of attention as NPU jobs over keys and values where they lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from ..llm.arithmetic import Int8, Int32
from ..llm.attention import causal_pairs, seen_positions
from ..machine import BEAT_BYTES
from ..npu import Caps, Descriptor, Gemm, encode_program, pack_weights, packed_program, single_program
from .kv import KvLayout
from .npu import RESULT_BYTES, NpuProducts
from .parts import in_parts
from .segments import PagedSegment, whole_pages
from .space import Space

__all__ = ["NpuAttention"]

_ROWS = 32
"""Queries per head that one job takes at most: a job costs less than computing and moving what later ones don't see."""


_Part = tuple[range, range]
"""Queries of a prompt, and positions."""


class NpuAttention:
    """All score products of a layer in one job, all value products in a second; those of a long prompt in several, of
    which each goes over the positions that its queries see.

    Scores are computed as keys times queries, ``[positions, queries]``: keys stream through the array from where they
    lie, and queries are its weights. Values are its weights, row by row where they lie, and stream nothing but the
    weights of attention. So neither is ever moved or packed.

    Heads of keys that are multiplied together share a GEMM: queries are zero beside the rows of their own head, and of
    the value products only those with the own head are looked at. As long as their queries fit the array's width this
    costs no cycle of it, and saves GEMMs.
    """

    def __init__(
        self, *, products: NpuProducts, space: Space, caps: Caps, layout: KvLayout, work: PagedSegment
    ) -> None:
        self._products, self._space, self._caps, self._layout, self._work = products, space, caps, layout, work
        self._known: dict[tuple[int, int], _Sizes] = {}

    @staticmethod
    def most_positions(caps: Caps) -> int:
        """Positions over which a packed GEMM of values fits the scratchpads."""
        return caps.a_words // 4 * caps.n

    @staticmethod
    def heads_at_once(layout: KvLayout, rows: int) -> int:
        """Heads of keys that share a GEMM, for ``rows`` queries per head: rows of theirs begin at whole words."""
        count = layout.kv_heads
        choices = [
            n for n in range(1, count + 1) if count % n == 0 and (n * layout.head_dim % layout.word == 0 or n == count)
        ]
        lanes = layout.heads // count * rows
        return max((n for n in choices if n * lanes <= layout.array), default=choices[0])

    @staticmethod
    def blocks(layout: KvLayout, rows: int, position: int) -> Iterator[range]:
        """Cut ``rows`` queries per head, the first at ``position``, into what one job takes."""
        per_row = layout.whole(position + rows) * layout.heads * 4
        most = max(1, min(rows, _ROWS, RESULT_BYTES // per_row))
        size = -(-rows // -(-rows // most))
        for start in range(0, rows, size):
            yield range(start, min(rows, start + size))

    @classmethod
    def work_bytes(cls, layout: KvLayout, rows: int, caps: Caps, *, position: int = 0) -> int:
        """Working memory for ``rows`` queries per head, the first at ``position``."""
        sizes = {(len(block), block.stop) for block in cls.blocks(layout, rows, position)}
        # Jobs whose lists are too long are halved.
        halves = {(-(-size // (1 << n)), stop) for size, stop in sizes for n in range(size.bit_length() + 1)}
        return max(_Sizes(layout, size, position + stop, caps).work for size, stop in halves)

    async def scores(self, name: str, rows: int, count: int, queries: Int8, position: int) -> Int32:
        """``queries[T, heads, d]``, the first at ``position``, times the keys: ``[T, heads, count]``."""
        out = np.zeros((len(queries), self._layout.heads, count), np.int32)

        async def job(part: _Part) -> None:
            block, seen = (slice(cut.start, cut.stop) for cut in part)
            out[block, :, seen] = await self._score_job(name, rows, part[1], queries[block])

        for block in self.blocks(self._layout, len(queries), position):
            await in_parts(name, (block, range(position + block.stop)), job, self._halves)
        self._count(len(queries), position)
        return np.where(seen_positions(len(queries), count, position), out, np.int32(0))

    async def mix(self, name: str, rows: int, count: int, weights: Int8, position: int) -> Int32:
        """``weights[T, heads, count]`` times the values: ``[T, heads, d]``."""
        out = np.zeros((len(weights), self._layout.heads, self._layout.head_dim), np.int32)

        async def job(part: _Part) -> None:
            block, seen = (slice(cut.start, cut.stop) for cut in part)
            out[block] += await self._mix_job(name, rows, part[1], weights[block, :, seen])

        for block in self.blocks(self._layout, len(weights), position):
            await in_parts(name, (block, range(position + block.stop)), job, self._halves)
        self._count(len(weights), position)
        return out

    def _sizes(self, rows: int, count: int) -> _Sizes:
        sizes = self._known.get((rows, count))
        if sizes is not None:
            return sizes
        sizes = _Sizes(self._layout, rows, count, self._caps)
        if sizes.work > self._work.length:
            raise ValueError(f"Working memory must have {sizes.work} bytes, not {self._work.length!r}")
        self._known[rows, count] = sizes
        return sizes

    def _count(self, rows: int, position: int) -> None:
        self._products.macs += causal_pairs(self._layout.heads, rows, position) * self._layout.head_dim

    def _halves(self, part: _Part) -> tuple[_Part, _Part] | None:
        """Two parts: by queries, those of a single query by positions in whole tiles; None for a single tile."""
        queries, seen = part
        middle = queries.start + len(queries) // 2
        if middle > queries.start:
            return (range(queries.start, middle), seen), (range(middle, queries.stop), seen)
        middle = seen.start + self._layout.whole(len(seen)) // self._layout.array // 2 * self._layout.array
        if middle == seen.start:
            return None
        return (queries, range(seen.start, middle)), (queries, range(middle, seen.stop))

    async def _score_job(self, name: str, rows: int, seen: range, queries: Int8) -> Int32:
        layout, caps = self._layout, self._caps
        sizes = self._sizes(len(queries), len(seen))
        rows += seen.start * layout.row_bytes
        operands = b"".join(pack_weights(part, caps.n) for part in sizes.diagonal(queries))
        result = sizes.positions * sizes.scores_stride

        def gemm(block: int, at: int, into: int) -> Gemm:
            return Gemm(
                m=sizes.positions,
                k=sizes.width,
                n=sizes.lanes,
                a_addr=rows + block * sizes.width,
                a_stride=layout.row_bytes,
                w_addr=at + block * (len(operands) // sizes.blocks),
                c_addr=into + block * result,
                c_stride=sizes.scores_stride,
            )

        sums = await self._job(name, rows, seen, sizes, operands, sizes.scores_left, result, gemm)
        by_block = sums.reshape(sizes.blocks, sizes.positions, -1)
        return sizes.rows_first(by_block[:, : len(seen), : sizes.queries].swapaxes(1, 2))

    async def _mix_job(self, name: str, rows: int, seen: range, weights: Int8) -> Int32:
        layout = self._layout
        sizes = self._sizes(len(weights), len(seen))
        rows += seen.start * layout.row_bytes
        left = np.zeros((sizes.blocks, sizes.queries, sizes.mix_row), np.int8)
        left[..., : len(seen)] = sizes.blocks_first(weights)
        result = sizes.queries * sizes.mix_stride

        def gemm(block: int, at: int, into: int) -> Gemm:
            return Gemm(
                m=sizes.queries,
                k=sizes.positions,
                n=sizes.width,
                a_addr=at + block * sizes.queries * sizes.mix_row,
                a_stride=sizes.mix_row,
                w_addr=rows + layout.half + block * sizes.width,
                w_stride=layout.row_bytes,
                c_addr=into + block * result,
                c_stride=sizes.mix_stride,
            )

        sums = await self._job(name, rows, seen, sizes, left.tobytes(), sizes.mix_left, result, gemm)
        return sizes.own_heads(sums.reshape(sizes.blocks, sizes.queries, -1)[..., : sizes.width])

    async def _job(
        self,
        name: str,
        rows: int,
        seen: range,
        sizes: _Sizes,
        operands: bytes,
        room: int,
        result: int,
        gemm: Callable[[int, int, int], Gemm],
    ) -> Int32:
        """One job with ``operands`` beside the cached rows at ``rows``; returns the sums as they lie in memory.

        ``room`` bytes of working memory are for the operands, the sums come behind, ``result`` bytes of them per block;
        ``gemm`` makes the GEMM of a block, for operands and sums at these addresses.
        """
        at, stored, space = self._work.address, sizes.blocks * result, self._space
        into = at + room
        await space.store(at, operands)

        def encode() -> bytes:
            descriptors = _descriptors([gemm(block, at, into) for block in range(sizes.blocks)], self._caps)
            return encode_program(space.scatter(descriptors, self._caps))

        touched = ((at, room + stored), (rows, sizes.positions * self._layout.row_bytes))
        # Parts of a job have names of their own.
        key = name if seen.start == 0 else f"{name}.{seen.start}", sizes.rows, sizes.positions
        await self._products.job(key, touched, encode, rows=sizes.rows)
        return np.frombuffer(await space.load(into, stored), "<i4")


class _Sizes:
    """Sizes of the GEMMs for ``rows`` queries per head over ``count`` positions, and the order of their operands.

    ``blocks`` GEMMs of ``together`` heads of keys, ``width`` bytes of a row, with ``queries`` queries, of which the
    first ``lanes`` of whole beats of sums are computed. Strides are in bytes.
    """

    def __init__(self, layout: KvLayout, rows: int, count: int, caps: Caps) -> None:
        self._layout, self.rows = layout, rows
        self.together = NpuAttention.heads_at_once(layout, rows)
        self.blocks = layout.kv_heads // self.together
        self.group = layout.heads // layout.kv_heads
        self.width = self.together * layout.head_dim
        self.queries = rows * self.together * self.group
        self.lanes = -(-self.queries // 4) * 4
        self.positions = layout.whole(count)
        self.scores_stride, self.mix_stride = (_stride(columns, caps) for columns in (self.lanes, self.width))
        self.mix_row = -(-self.positions // layout.word) * layout.word
        tiles = caps.tiles(self.width) * caps.tiles(self.lanes)
        self.scores_left = whole_pages(self.blocks * tiles * caps.n * caps.n)
        self.scores_sums = whole_pages(self.blocks * self.positions * self.scores_stride)
        self.mix_left = whole_pages(self.blocks * self.queries * self.mix_row)
        self.mix_sums = whole_pages(self.blocks * self.queries * self.mix_stride)
        self.work = max(self.scores_left + self.scores_sums, self.mix_left + self.mix_sums)

    def blocks_first(self, heads: Int8) -> Int8:
        """``[rows, heads, x]`` as ``[blocks, queries, x]``."""
        by_block = heads.reshape(self.rows, self.blocks, self.together * self.group, -1)
        return by_block.swapaxes(0, 1).reshape(self.blocks, self.queries, -1)

    def rows_first(self, sums: Int32) -> Int32:
        """``[blocks, queries, x]`` as ``[rows, heads, x]``."""
        by_row = sums.reshape(self.blocks, self.rows, self.together * self.group, -1)
        return by_row.swapaxes(0, 1).reshape(self.rows, self._layout.heads, -1).astype(np.int32)

    def diagonal(self, queries: Int8) -> Iterator[Int8]:
        """Per block ``[width, lanes]``: a query in each column, beside the rows of its head's keys zeros."""
        shape = (self.blocks, self.rows, self.together, self.group, -1)
        by_head = queries.reshape(self.rows, self.blocks, *shape[2:]).swapaxes(0, 1)
        for block in by_head:
            columns = np.zeros((self.rows, self.together, self.group, self.together, block.shape[-1]), np.int8)
            for head in range(self.together):
                columns[:, head, :, head] = block[:, head]
            whole = np.zeros((self.width, self.lanes), np.int8)
            whole[:, : self.queries] = columns.reshape(self.queries, self.width).T
            yield whole

    def own_heads(self, sums: Int32) -> Int32:
        """``[rows, heads, d]`` of sums ``[blocks, queries, width]`` with the values of several heads."""
        every = sums.reshape(self.blocks, self.rows, self.together, self.group, self.together, -1)
        own = np.stack([every[:, :, head, :, head] for head in range(self.together)], axis=2)
        return self.rows_first(own.reshape(self.blocks, self.queries, -1))


def _descriptors(gemms: Sequence[Gemm], caps: Caps) -> list[Descriptor]:
    """One job: a single GEMM by the best of all plans; of several each cut to what can be packed."""
    if len(gemms) == 1:
        return single_program(gemms[0], caps)
    return packed_program([part for gemm in gemms for part in _parts(gemm, caps)], caps)


def _parts(gemm: Gemm, caps: Caps) -> Iterator[Gemm]:
    """Rows of a GEMM by as many as can be packed."""
    columns = max(1, BEAT_BYTES // (caps.n * gemm.column_bytes))
    most = min(caps.c_rows // 2 // columns, caps.a_words // 4 // caps.tiles(gemm.k))
    for start in range(0, gemm.m, most):
        yield replace(
            gemm,
            m=min(most, gemm.m - start),
            a_addr=gemm.a_addr + start * gemm.a_stride,
            c_addr=gemm.c_addr + start * gemm.c_stride,
        )


def _stride(columns: int, caps: Caps) -> int:
    """Bytes from row to row of sums: no row, or none but at whole tiles, crosses a page boundary."""
    if columns > caps.n:
        return -(-columns // caps.n) * caps.n * 4
    return max(BEAT_BYTES, 4 << (columns - 1).bit_length())

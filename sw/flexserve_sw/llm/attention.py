"""Attention over cached keys and values: in float32, or with int8 operands and exact int32 products.

The int8 arithmetic, in which an accelerator can do both products. All scales are those of
:func:`~.arithmetic.quantise_rows` (peak / 127, round half to even), one per row and head:

1. Queries, keys (both rotated) and values are quantised per position and head; int8 rows and their scales are kept.
2. Score sums ``q8 . k8`` are exact; ``score = ((float32(sum) * q_scale) * k_scale) / sqrt(head_dim)``.
3. ``e = exp(score - max)`` over the positions that a query may see, 0 for the others; ``total`` is their ordered sum.
4. A value's scale depends on its position, so it goes into the weights: ``e * v_scale`` is quantised per query and
   head. The largest becomes 127, however many positions share the probability; none is negative; what is less than
   1/254 of the largest is lost.
5. Weighted sums ``w8 . v8`` are exact; ``out = float32(sum) * (w_scale / total)``.
"""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from ..integers import as_exact_float, exact_product
from .arithmetic import Float, Int8, Int32, attention, exp, ordered_sum, quantise_rows
from .config import ModelConfig
from .model import Cpu, Work

__all__ = [
    "FloatStore", "Int8KvCache", "Int8Store", "KvArithmetic", "attend_float", "attend_int8", "causal_pairs",
    "score_products", "seen_positions", "value_products",
]  # fmt: skip

Bool = npt.NDArray[np.bool_]

KvArithmetic = Literal["float", "int8"]
"""In what keys and values are kept and multiplied."""


class FloatStore(Protocol):
    """Keys and values of every layer and position, float32 rows of ``kv_dim``; keys are stored rotated."""

    async def append(self, layer: int, keys: Float, values: Float) -> None:
        """Add the rows ``[T, kv_dim]`` of the next T positions."""

    async def view(self, layer: int) -> tuple[Float, Float]:
        """All rows of the layer so far, ``[n, kv_dim]`` each, exactly as appended."""


class Int8Store(Protocol):
    """Quantised keys and values, and whoever multiplies with them."""

    async def append(self, layer: int, rows: Int8, scales: Float) -> None:
        """Add the next T positions: ``rows[T, 2, kv_heads, d]``, keys and values, and ``scales[T, 2, kv_heads]``."""

    async def scales(self, layer: int) -> Float:
        """All scales of the layer so far, ``[n, 2, kv_heads]``, exactly as appended."""

    async def scores(self, layer: int, queries: Int8, position: int) -> Int32:
        """``queries[T, heads, d]``, the first at ``position``, times the keys of their groups: ``[T, heads, n]``.

        What a query does not see is 0.
        """

    async def mix(self, layer: int, weights: Int8, position: int) -> Int32:
        """``weights[T, heads, n]`` times the values of their groups: ``[T, heads, d]``."""


def causal_pairs(heads: int, rows: int, position: int) -> int:
    """Pairs of a head's query, of which the first of ``rows`` is at ``position``, and a position that it sees."""
    return heads * (rows * position + rows * (rows + 1) // 2)


def seen_positions(rows: int, count: int, position: int) -> Bool:
    """Which of ``count`` positions each of ``rows`` queries sees, the first being at ``position``: ``[T, 1, n]``."""
    seen: Bool = (np.arange(count) <= position + np.arange(rows)[:, None])[:, None]
    return seen


async def attend_float(
    store: FloatStore, layer: int, q: Float, k: Float, v: Float, position: int, *, cpu: Cpu
) -> Float:
    """Append ``k`` and ``v[T, kv_heads, d]`` and attend with ``q[T, heads, d]``: ``[T, heads * d]``."""
    rows, heads, size = q.shape
    await store.append(layer, k.reshape(rows, -1), v.reshape(rows, -1))
    keys, values = (stored.reshape(-1, *k.shape[1:]) for stored in await store.view(layer))
    mixed = attention(q, keys, values, position)
    # Per head, query and visible position: two products of head_dim; scale, max, subtract, sum, divide.
    pairs = causal_pairs(heads, rows, position)
    cpu.charge(Work.FLOP, pairs * (4 * size + 5))
    cpu.charge(Work.EXP, pairs)
    return mixed


def _quantise(x: Float) -> tuple[Int8, Float]:
    """Quantise over the last axis."""
    rows, scale = quantise_rows(x.reshape(-1, x.shape[-1]))
    return rows.reshape(x.shape), scale.reshape(x.shape[:-1])


async def attend_int8(store: Int8Store, layer: int, q: Float, k: Float, v: Float, position: int, *, cpu: Cpu) -> Float:
    """Append ``k`` and ``v[T, kv_heads, d]`` and attend with ``q[T, heads, d]``: ``[T, heads * d]``."""
    rows, heads, size = q.shape
    queries, q_scale = _quantise(q)
    stored, scales = _quantise(np.stack((k, v), axis=1))
    cpu.charge(Work.FLOP, 4 * (queries.size + stored.size))
    await store.append(layer, stored, scales)
    every = (await store.scales(layer)).repeat(heads // k.shape[1], axis=-1)
    k_scale, v_scale = every[:, 0].T, every[:, 1].T

    sums = await store.scores(layer, queries, position)
    scores = (sums.astype(np.float32) * q_scale[..., None]) * k_scale / np.sqrt(np.float32(size))
    seen = seen_positions(rows, scores.shape[-1], position)
    peak = np.where(seen, scores, np.float32(-np.inf)).max(axis=-1, keepdims=True)
    shares = np.where(seen, exp(scores - peak), np.float32(0))
    total = ordered_sum(shares)
    weights, w_scale = _quantise(shares * v_scale)
    # Per head, query and visible position: convert, two scales, divide; max, subtract, sum; scale; quantise.
    pairs = causal_pairs(heads, rows, position)
    cpu.charge(Work.FLOP, pairs * 12)
    cpu.charge(Work.EXP, pairs)

    mixed = await store.mix(layer, weights, position)
    cpu.charge(Work.FLOP, 2 * mixed.size)
    out: Float = mixed.astype(np.float32) * (w_scale / total)[..., None]
    return out.reshape(rows, heads * size)


def score_products(queries: Int8, keys: Int8, position: int) -> Int32:
    """``queries[T, heads, d]``, the first at ``position``, times ``keys[n, kv_heads, d]``, exactly: ``[T, heads, n]``.

    What a query does not see is 0.
    """
    rows, heads, size = queries.shape
    groups = keys.shape[1]
    by_group = queries.reshape(rows, groups, -1, size)
    sums = [
        exact_product(by_group[:, g].reshape(-1, size), as_exact_float(keys[:, g].T)).reshape(rows, -1, len(keys))
        for g in range(groups)
    ]
    seen = seen_positions(rows, len(keys), position)
    return np.where(seen, np.stack(sums, axis=1).reshape(rows, heads, len(keys)), np.int32(0))


def value_products(weights: Int8, values: Int8) -> Int32:
    """``weights[T, heads, n]`` times ``values[n, kv_heads, d]``, exactly: ``[T, heads, d]``."""
    rows, heads, count = weights.shape
    groups, size = values.shape[1:]
    by_group = weights.reshape(rows, groups, -1, count)
    sums = [
        exact_product(by_group[:, g].reshape(-1, count), as_exact_float(values[:, g])).reshape(rows, -1, size)
        for g in range(groups)
    ]
    return np.stack(sums, axis=1).reshape(rows, heads, size)


class Int8KvCache:
    """Quantised keys and values in this computer's memory: the reference."""

    def __init__(self, config: ModelConfig) -> None:
        rows = np.zeros((0, 2, config.kv_heads, config.head_dim), np.int8)
        self._layers = [(rows, np.zeros(rows.shape[:3], np.float32))] * config.layers

    async def attend(self, layer: int, q: Float, k: Float, v: Float, position: int, *, cpu: Cpu) -> Float:
        """Attention in int8."""
        return await attend_int8(self, layer, q, k, v, position, cpu=cpu)

    async def append(self, layer: int, rows: Int8, scales: Float) -> None:
        """Add rows."""
        old_rows, old_scales = self._layers[layer]
        self._layers[layer] = np.concatenate((old_rows, rows)), np.concatenate((old_scales, scales))

    async def scales(self, layer: int) -> Float:
        """All scales so far."""
        return self._layers[layer][1]

    async def scores(self, layer: int, queries: Int8, position: int) -> Int32:
        """Exact products with the keys."""
        return score_products(queries, self._layers[layer][0][:, 0], position)

    async def mix(self, layer: int, weights: Int8, position: int) -> Int32:
        """Exact products with the values."""
        return value_products(weights, self._layers[layer][0][:, 1])

"""Float32 arithmetic of the model in one fixed order.

Everything that is not an integer product is elementwise IEEE arithmetic or a strict left-to-right sum, never a BLAS
call or a pairwise reduction. A row of a batch therefore has the same bits as the row alone, prefill and decode agree
exactly, and whoever takes int32 products from the NPU reproduces the reference bit by bit.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from .config import ModelConfig

__all__ = [
    "attention", "dequantise", "exp", "ordered_sum", "product", "quantise_rows", "rms_norm", "rope",
    "silu_product",
]  # fmt: skip

Float = npt.NDArray[np.float32]
Int8 = npt.NDArray[np.int8]
Int32 = npt.NDArray[np.int32]

LOG2_E = 1.4426950408889634
LN2_HIGH = 0.693147180369123816490
LN2_LOW = 1.90821492927058770002e-10
EXP_COEFFICIENTS = tuple(1.0 / math.factorial(n) for n in range(13))
EXP_RANGE = 104.0
ROPE_BLOCK = 256
INT8_MAX = np.float32(127.0)
SMALLEST_SCALE = np.finfo(np.float32).tiny

_TERMS = 1 << 18


# Arrays are small here, so a call costs more than its arithmetic: constants are arrays, which NumPy takes as they are,
# and results go where operands were.
_LOWEST, _HIGHEST, _LOG2_E = np.array(-EXP_RANGE), np.array(EXP_RANGE), np.array(LOG2_E)
_LN2_HIGH, _LN2_LOW = np.array(LN2_HIGH), np.array(LN2_LOW)
_FIRST, _SECOND, *_OTHERS = (np.array(coefficient) for coefficient in reversed(EXP_COEFFICIENTS))
_INT8_MOST, _SMALLEST = np.array(INT8_MAX), np.array(SMALLEST_SCALE)
_ZERO, _ONE = np.array(np.float32(0)), np.array(np.float32(1))


def exp(x: Float) -> Float:
    """e to the x: range reduction and a fixed polynomial in float64, rounded once; the same bits on every machine.

    What is too large for float32 becomes infinite, of which NumPy warns unless it is told not to.
    """
    rest = x.astype(np.float64)
    np.maximum(rest, _LOWEST, out=rest)
    np.minimum(rest, _HIGHEST, out=rest)
    power = rest * _LOG2_E
    np.rint(power, out=power)
    value = power * _LN2_HIGH
    rest -= value
    np.multiply(power, _LN2_LOW, out=value)
    rest -= value
    np.multiply(rest, _FIRST, out=value)
    value += _SECOND
    for coefficient in _OTHERS:
        value *= rest
        value += coefficient
    rounded: Float = np.ldexp(value, power.astype(np.int32)).astype(np.float32)
    return rounded


def ordered_sum(x: Float) -> Float:
    """Sum over the last axis, strictly left to right, in float32: zeros at the end change nothing."""
    total: Float = np.add.accumulate(x, axis=-1, dtype=np.float32)[..., -1]
    return total


def product(x: Float, weights: Float) -> Float:
    """``x[T, K] @ weights[K, N]`` in float32, each output summed over K from 0 up."""
    out = np.zeros((x.shape[0], weights.shape[1]), np.float32)
    for k in range(weights.shape[0]):
        out += x[:, k, None] * weights[k]
    return out


def check_finite(values: Float) -> None:
    """Raise :class:`UserError` unless every value is finite: a damaged checkpoint makes the arithmetic overflow."""
    if not np.isfinite(values).all():
        raise UserError("The model's values overflow float32; the checkpoint is damaged or not of this architecture.")


def _check_rows(values: Float) -> None:
    """:func:`check_finite` for a value per row, quicker for few rows."""
    if not all(map(math.isfinite, values.tolist())):
        check_finite(values)


def rms_norm(x: Float, weight: Float, eps: float) -> Float:
    """``x / sqrt(mean(x * x) + eps) * weight`` per row. Raises :class:`UserError` when a square overflows."""
    mean = ordered_sum(x * x) / x.shape[-1]
    _check_rows(mean)
    mean += eps
    np.sqrt(mean, out=mean)
    normed: Float = x / mean[..., None]
    normed *= weight
    return normed


@lru_cache(maxsize=64)
def _rope_block(head_dim: int, theta: float, block: int) -> tuple[Float, Float]:
    """Cosines and sines of ``ROPE_BLOCK`` positions; by blocks, so that a huge context costs what is used of it."""
    pairs = np.arange(head_dim // 2, dtype=np.float64)
    frequency = np.power(theta, -2.0 * pairs / head_dim)
    positions = np.arange(block * ROPE_BLOCK, (block + 1) * ROPE_BLOCK, dtype=np.float64)
    angle = positions[:, None] * frequency
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def rope(x: Float, position: int, config: ModelConfig) -> Float:
    """Rotate the pairs (2i, 2i + 1) of each head; ``x[T, heads, head_dim]``, row 0 at ``position``."""
    block, first = divmod(position, ROPE_BLOCK)
    end = first + x.shape[0]
    cos, sin = _rope_block(x.shape[-1], config.rope_theta, block)
    while end > len(cos):
        more = _rope_block(x.shape[-1], config.rope_theta, block + len(cos) // ROPE_BLOCK)
        cos, sin = (np.concatenate(parts) for parts in zip((cos, sin), more, strict=True))
    cos, sin = cos[first:end, None], sin[first:end, None]
    even, odd = x[..., 0::2], x[..., 1::2]
    out = np.empty_like(x)
    np.subtract(even * cos, odd * sin, out=out[..., 0::2])
    np.add(even * sin, odd * cos, out=out[..., 1::2])
    return out


def attention(q: Float, keys: Float, values: Float, position: int) -> Float:
    """Causal attention of ``q[T, heads, d]``, row 0 at ``position``, over ``keys`` and ``values[n, kv_heads, d]``.

    Scores are summed over d from 0 up, then divided by sqrt(d); weighted values are summed over positions from 0 up.
    """
    count, heads, size = q.shape
    # Whole sums at once, of as many rows as the terms of a megabyte; how many those are changes no bit.
    rows = max(1, _TERMS // (heads * size * len(keys)))
    parts = [
        _attention(q[start : start + rows], keys, values, position + start) for start in range(0, count, rows)
    ]
    return (parts[0] if len(parts) == 1 else np.concatenate(parts)).reshape(count, heads * size)


def _attention(q: Float, keys: Float, values: Float, position: int) -> Float:
    """Attention of a few rows."""
    (count, heads, size), (total, groups, _) = q.shape, keys.shape
    # By d, row, group, head of the group, and position.
    left = q.reshape(count, groups, heads // groups, size).transpose(3, 0, 1, 2)[..., None]
    right = np.ascontiguousarray(keys.transpose(2, 1, 0))[:, None, :, None, :]
    scores = _first_axis_sum(np.multiply(left, right, order="C"))
    scores /= math.sqrt(size)
    unseen = None
    if total > position + 1:
        unseen = (np.arange(total) > position + np.arange(count)[:, None])[:, None, None, :]
        np.copyto(scores, np.float32(-np.inf), where=unseen)
    scores -= np.maximum.reduce(scores, axis=-1, keepdims=True)
    weights = exp(scores)
    if unseen is not None:
        np.copyto(weights, _ZERO, where=unseen)
    weights /= ordered_sum(weights)[..., None]
    # By position, row, group, head of the group, and d.
    return _first_axis_sum(
        np.multiply(weights.transpose(3, 0, 1, 2)[..., None], values[:, None, :, None, :], order="C")
    )


def _first_axis_sum(terms: Float) -> Float:
    """Sum over the first axis of an array in C order, strictly from 0.0 and the first term up, in float32.

    NumPy adds rows in order; only along the axis that is contiguous in memory it would sum by pairs.
    """
    if terms[0].size == 1:
        return ordered_sum(terms.T).T + np.float32(0)
    total: Float = np.add.reduce(terms, axis=0)
    total += _ZERO
    return total


def silu_product(gate: Float, up: Float) -> Float:
    """``gate / (1 + exp(-gate)) * up``."""
    with np.errstate(over="ignore"):
        scale = exp(-gate)
        scale += _ONE
        np.divide(gate, scale, out=scale)
        scale *= up
    return scale


def quantise_rows(x: Float) -> tuple[Int8, Float]:
    """Symmetric int8 per row: ``scale = max|x| / 127``, ``q = round-half-even(x / scale)``.

    ``x[T, K]`` gives ``q[T, K]`` and ``scale[T]``. Raises :class:`UserError` when a value is not finite.
    """
    peak: Float = np.maximum.reduce(np.abs(x), axis=-1)
    _check_rows(peak)
    scale = np.maximum(peak / _INT8_MOST, _SMALLEST)
    # Never beyond 127: normal quotients are off by less than a ten-millionth of them.
    steps = x / scale[:, None]
    np.rint(steps, out=steps)
    return steps.astype(np.int8), scale


def dequantise(sums: Int32, row_scale: Float, column_scale: Float) -> Float:
    """``(float32(sum) * row_scale) * column_scale``: in this order, each step rounded to float32."""
    values = sums.astype(np.float32)
    values *= row_scale[:, None]
    values *= column_scale
    return values

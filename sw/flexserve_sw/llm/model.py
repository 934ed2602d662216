"""The forward pass, written once: float32 reference, int8 reference and the serving framework all run this coroutine.

They differ in what they pass in: who holds the weights and multiplies (:class:`Weights`), where keys and values live
(:class:`Cache`), and what CPU work costs (:class:`Cpu`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from enum import StrEnum
from typing import Any, Protocol, TypeVar

import numpy as np

from ..errors import UserError
from .arithmetic import (
    Float,
    Int8,
    Int32,
    check_finite,
    dequantise,
    exp,
    ordered_sum,
    quantise_rows,
    rms_norm,
    rope,
    silu_product,
)
from .config import ModelConfig

__all__ = [
    "Cache", "Choose", "Cpu", "FreeCpu", "QuantTensors", "QuantWeights", "Sampler", "Weights", "Work",
    "check_length", "drive", "forward", "generate", "greedy",
]  # fmt: skip

T = TypeVar("T")


class Work(StrEnum):
    """Kind of CPU work that a platform puts a price on; counts are of single operations."""

    __hash__ = str.__hash__  # an enumeration's own takes longer, and work is charged all the time

    FLOP = "flop"
    """Float32 addition, multiplication, division, comparison or conversion, softmax and quantisation included."""
    EXP = "exp"
    """Exponential."""
    INT8_MAC = "int8_mac"
    """Int8 multiply-accumulate into int32: a linear layer that the CPU computes itself."""


class Cpu(Protocol):
    """Where the cost of CPU work goes."""

    def charge(self, work: Work, count: int) -> None:
        """Spend the time of ``count`` operations."""


class FreeCpu:
    """Charges nothing: for references."""

    def charge(self, work: Work, count: int) -> None:
        """Spend no time."""


class Weights(Protocol):
    """What the forward pass asks of a model's weights. Names are those of :attr:`ModelConfig.linears`, and
    ``layers.{i}.attention_norm``, ``layers.{i}.ffn_norm`` and ``norm`` for vectors.
    """

    async def embed(self, tokens: Sequence[int]) -> Float:
        """Rows ``[T, dim]``."""

    async def vector(self, name: str) -> Float:
        """A norm's weight, ``[dim]``."""

    async def linear(self, name: str, x: Float) -> Float:
        """``x[T, K]`` times a weight matrix: ``[T, N]``."""


class Cache(Protocol):
    """Keys and values of every layer and position, and the arithmetic of :mod:`.attention` over them."""

    async def attend(self, layer: int, q: Float, k: Float, v: Float, position: int, *, cpu: Cpu) -> Float:
        """Add ``k`` and ``v[T, kv_heads, d]`` of the next T positions, the first being ``position``, and attend.

        ``q[T, heads, d]`` and ``k`` are rotated; returns ``[T, heads * d]``.
        """


class QuantTensors(Protocol):
    """What int8 arithmetic asks of whoever holds the quantised tensors and multiplies."""

    async def rows(self, name: str, indices: Sequence[int]) -> Int8:
        """Rows of an int8 table, ``[T, dim]``; the only table is ``embedding``."""

    async def vector(self, name: str) -> Float:
        """A float32 vector: a norm, or ``{linear}.scale`` or ``embedding.scale``: one per output channel or row."""

    async def product(self, name: str, x: Int8) -> Int32:
        """``x[T, K]`` times the int8 matrix of a linear layer, exactly: ``[T, N]`` int32."""


class QuantWeights:
    """W8A8: int8 weights per output channel, int8 activations per token, exact int32 sums.

    Rows are quantised by :func:`~.arithmetic.quantise_rows` and sums scaled by :func:`~.arithmetic.dequantise`, so the
    result depends on nothing but the exact integer products.
    """

    def __init__(self, *, tensors: QuantTensors, cpu: Cpu) -> None:
        self._tensors = tensors
        self._cpu = cpu

    async def embed(self, tokens: Sequence[int]) -> Float:
        """Rows ``[T, dim]``: int8 row times its scale."""
        rows = await self._tensors.rows("embedding", tokens)
        scale = (await self._tensors.vector("embedding.scale"))[np.asarray(tokens)]
        self._cpu.charge(Work.FLOP, 2 * rows.size)
        embedded: Float = rows.astype(np.float32) * scale[:, None]
        return embedded

    async def vector(self, name: str) -> Float:
        """A norm's weight."""
        return await self._tensors.vector(name)

    async def linear(self, name: str, x: Float) -> Float:
        """Quantise, multiply, scale."""
        quantised, row_scale = quantise_rows(x)
        self._cpu.charge(Work.FLOP, 4 * x.size)
        sums = await self._tensors.product(name, quantised)
        column_scale = await self._tensors.vector(f"{name}.scale")
        self._cpu.charge(Work.FLOP, 3 * sums.size)
        return dequantise(sums, row_scale, column_scale)


async def forward(
    config: ModelConfig,
    tokens: Sequence[int],
    position: int,
    *,
    weights: Weights,
    cache: Cache,
    cpu: Cpu,
    every_row: bool = False,
) -> Float:
    """Run ``tokens``, the first at ``position``, through the model: prefill for many, decode for one.

    Returns logits ``[1, vocab]`` of the last token, or ``[T, vocab]`` with ``every_row``. The bits of a row do not
    depend on which tokens share its batch. Raises :class:`UserError` when values overflow.
    """
    if not tokens or position < 0 or position + len(tokens) > config.seq_len:
        raise ValueError(f"tokens must lie within the context of {config.seq_len}, not {len(tokens)} at {position!r}")
    rows, dim, kv_dim = len(tokens), config.dim, config.kv_dim
    with np.errstate(over="ignore", invalid="ignore"):
        x = await weights.embed(tokens)
        for layer in range(config.layers):
            name = f"layers.{layer}"
            normed = rms_norm(x, await weights.vector(f"{name}.attention_norm"), config.norm_eps)
            cpu.charge(Work.FLOP, 4 * normed.size)
            qkv = await weights.linear(f"{name}.qkv", normed)
            heads = qkv[:, : dim + kv_dim].reshape(rows, config.heads + config.kv_heads, config.head_dim)
            rotated = rope(heads, position, config)
            q, k = rotated[:, : config.heads], rotated[:, config.heads :]
            cpu.charge(Work.FLOP, 3 * rotated.size)
            v = np.ascontiguousarray(qkv[:, dim + kv_dim :]).reshape(k.shape)
            mixed = await cache.attend(layer, q, k, v, position, cpu=cpu)
            x = x + await weights.linear(f"{name}.o", mixed)
            normed = rms_norm(x, await weights.vector(f"{name}.ffn_norm"), config.norm_eps)
            cpu.charge(Work.FLOP, 5 * normed.size)
            gate_up = await weights.linear(f"{name}.gate_up", normed)
            hidden = silu_product(gate_up[:, : config.hidden], gate_up[:, config.hidden :])
            cpu.charge(Work.EXP, hidden.size)
            cpu.charge(Work.FLOP, 4 * hidden.size)
            x = x + await weights.linear(f"{name}.down", hidden)
            cpu.charge(Work.FLOP, x.size)
        if not every_row:
            x = x[-1:]
        x = rms_norm(x, await weights.vector("norm"), config.norm_eps)
        cpu.charge(Work.FLOP, 4 * x.size)
        logits = await weights.linear("classifier", x)
    check_finite(logits)
    return logits


Choose = Callable[[Float], int]
"""Picks a token from logits ``[vocab]``."""


def greedy(logits: Float) -> int:
    """The likeliest token; the lowest of equals."""
    return int(np.argmax(logits))


class Sampler:
    """Seeded sampling at a temperature above 0.

    Parameters
    ----------
    temperature
        Logits are divided by it.
    seed
        Of the generator that all choices of this sampler draw from.
    """

    def __init__(self, *, temperature: float, seed: int) -> None:
        if not 0.0 < temperature <= 100.0:
            raise ValueError(f"temperature must be above 0 and at most 100, not {temperature!r}")
        self._temperature = np.float32(temperature)
        self._random = np.random.default_rng(seed)

    def __call__(self, logits: Float) -> int:
        scaled = logits / self._temperature
        weights = exp(scaled - scaled.max())
        point = np.float32(self._random.random()) * ordered_sum(weights)
        return min(int(np.searchsorted(np.add.accumulate(weights), point, side="right")), logits.size - 1)


def check_length(config: ModelConfig, prompt: Sequence[int], count: int) -> None:
    """Raise :class:`UserError` unless ``prompt`` and ``count`` more tokens fit the context."""
    if not prompt:
        raise UserError("The prompt is empty; give at least one character.")
    if len(prompt) + 1 > config.seq_len:
        raise UserError(
            f"The prompt has {len(prompt)} tokens but the model's context holds {config.seq_len},"
            " one of them for the answer; shorten the prompt."
        )
    if count < 1 or len(prompt) + count > config.seq_len:
        raise UserError(
            f"{count} new tokens after a prompt of {len(prompt)} do not fit the context;"
            f" ask for 1 to {config.seq_len - len(prompt)}."
        )


async def generate(
    config: ModelConfig,
    prompt: Sequence[int],
    count: int,
    *,
    weights: Weights,
    cache: Cache,
    cpu: Cpu,
    stops: frozenset[int],
    choose: Choose = greedy,
    on_token: Callable[[int], Awaitable[None]] | None = None,
) -> list[int]:
    """Prefill ``prompt`` at once, then decode up to ``count`` new tokens; returns those before a stop token.

    ``cache`` is empty at the start; ``on_token`` is awaited for each token as soon as it is known.
    """
    check_length(config, prompt, count)
    answer: list[int] = []
    pending = list(prompt)
    position = 0
    while len(answer) < count:
        logits = await forward(config, pending, position, weights=weights, cache=cache, cpu=cpu)
        position += len(pending)
        cpu.charge(Work.FLOP, logits.size)
        token = choose(logits[0])
        if token in stops:
            break
        answer.append(token)
        if on_token is not None:
            await on_token(token)
        pending = [token]
    return answer


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never really waits, as those over reference weights do, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise RuntimeError("The coroutine waited for something; only a machine can run it")

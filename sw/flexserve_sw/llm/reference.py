"""The float32 and the int8 reference: what an answer must be, and how good the model is, without any machine."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .arithmetic import Float, product
from .attention import Int8KvCache, KvArithmetic, attend_float
from .checkpoint import Checkpoint
from .config import ModelConfig
from .image import ImageTensors, QuantModel, quantise
from .model import Cache, Choose, Cpu, FreeCpu, QuantWeights, Weights, drive, forward, generate, greedy

__all__ = [
    "Arithmetic", "Completion", "FloatWeights", "KvCache", "complete", "perplexity", "reference_cache",
    "reference_weights",
]  # fmt: skip

Arithmetic = Literal["float32", "int8"]
"""Which of the two references."""


class FloatWeights:
    """Float32 weights, multiplied in the fixed order of :func:`~.arithmetic.product`."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._linears: dict[str, Float] = {}

    async def embed(self, tokens: Sequence[int]) -> Float:
        """Rows of the embedding."""
        rows: Float = self._checkpoint.tensors["embedding"][np.asarray(tokens)]
        return rows

    async def vector(self, name: str) -> Float:
        """A norm's weight."""
        return self._checkpoint.tensors[name]

    async def linear(self, name: str, x: Float) -> Float:
        """``x[T, K]`` times the matrix."""
        if name not in self._linears:
            self._linears[name] = self._checkpoint.linear(name)
        return product(x, self._linears[name])


class KvCache:
    """Keys and values in this computer's memory."""

    def __init__(self, config: ModelConfig) -> None:
        empty = np.zeros((0, config.kv_dim), np.float32)
        self._layers = [(empty, empty)] * config.layers

    async def attend(self, layer: int, q: Float, k: Float, v: Float, position: int, *, cpu: Cpu) -> Float:
        """Attention in float32."""
        return await attend_float(self, layer, q, k, v, position, cpu=cpu)

    async def append(self, layer: int, keys: Float, values: Float) -> None:
        """Add rows."""
        old_keys, old_values = self._layers[layer]
        self._layers[layer] = np.concatenate((old_keys, keys)), np.concatenate((old_values, values))

    async def view(self, layer: int) -> tuple[Float, Float]:
        """All rows so far."""
        return self._layers[layer]


@dataclass(frozen=True, kw_only=True)
class Completion:
    """An answer: ``prompt`` and ``tokens`` as token numbers, ``text`` the prompt and what follows it."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    text: str


def reference_weights(
    checkpoint: Checkpoint, arithmetic: Arithmetic = "int8", *, model: QuantModel | None = None
) -> Weights:
    """Weights for :func:`~.model.forward`; ``model`` saves quantising anew."""
    if arithmetic == "float32":
        return FloatWeights(checkpoint)
    return QuantWeights(tensors=ImageTensors(model or quantise(checkpoint)), cpu=FreeCpu())


def reference_cache(config: ModelConfig, kv: KvArithmetic = "float") -> Cache:
    """An empty cache for :func:`~.model.forward`."""
    return KvCache(config) if kv == "float" else Int8KvCache(config)


def complete(
    checkpoint: Checkpoint,
    prompt: str,
    count: int,
    *,
    arithmetic: Arithmetic = "int8",
    kv: KvArithmetic = "float",
    choose: Choose = greedy,
    model: QuantModel | None = None,
) -> Completion:
    """Continue ``prompt`` by up to ``count`` tokens.

    Raises :class:`~flexserve_sw.errors.UserError` if they do not fit the context.
    """
    config, tokenizer = checkpoint.config, checkpoint.tokenizer
    tokens = tokenizer.encode(prompt)
    answer = drive(
        generate(
            config,
            tokens,
            count,
            weights=reference_weights(checkpoint, arithmetic, model=model),
            cache=reference_cache(config, kv),
            cpu=FreeCpu(),
            stops=tokenizer.stops,
            choose=choose,
        )
    )
    return Completion(prompt=tuple(tokens), tokens=tuple(answer), text=tokenizer.decode([*tokens, *answer]))


def perplexity(
    checkpoint: Checkpoint, texts: Iterable[str], *, arithmetic: Arithmetic = "int8", kv: KvArithmetic = "float"
) -> float:
    """exp of the mean negative log likelihood per token of ``texts``, each read alone from ``bos``.

    The token after a text must be ``bos`` and counts too. A text longer than the context is cut.
    """
    config, tokenizer = checkpoint.config, checkpoint.tokenizer
    weights = reference_weights(checkpoint, arithmetic)
    total, count = 0.0, 0
    for text in texts:
        tokens = [*tokenizer.encode(text), tokenizer.bos][: config.seq_len + 1]
        cache = reference_cache(config, kv)
        logits = drive(forward(config, tokens[:-1], 0, weights=weights, cache=cache, cpu=FreeCpu(), every_row=True))
        wide = logits.astype(np.float64)
        peak = wide.max(axis=-1)
        likelihood = wide[np.arange(len(wide)), tokens[1:]] - peak - np.log(np.exp(wide - peak[:, None]).sum(axis=-1))
        total -= float(likelihood.sum())
        count += len(wide)
    if not count:
        raise ValueError("texts must hold at least one text, not none")
    return math.exp(total / count)

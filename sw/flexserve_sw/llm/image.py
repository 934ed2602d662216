"""The quantised model as it lies in flash and in protected memory: a segment per layer, each loaded and released alone.

A segment is a run of bytes: int8 matrices packed in the NPU's tile order, their float32 scales, and the layer's norms.
Every tensor begins on a bus beat, and on a word of the NPU's scratchpad. What the bytes mean is in the directory, which
holds sizes and offsets and no values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..integers import as_exact_float, exact_product
from ..machine import BEAT_BYTES
from ..npu import pack_weights
from .arithmetic import Float, Int8, Int32, quantise_rows
from .checkpoint import Checkpoint
from .config import ModelConfig

__all__ = ["ImageTensors", "QuantModel", "Segment", "Tensor", "TensorKind", "quantise"]

INT32_SAFE_K = (2**31 - 1) // (127 * 127)
"""Longest sum of int8 products that cannot overflow int32."""


class TensorKind(Enum):
    """How a tensor's bytes are laid out."""

    TILES = "tiles"
    """int8 matrix ``[K, N]`` as :func:`flexserve_sw.npu.pack_weights` packs it."""
    ROWS = "rows"
    """int8 rows, each padded with zeros to whole beats."""
    VECTOR = "vector"
    """float32, little-endian."""


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """Directory entry: ``shape`` in elements, ``offset`` and ``size`` in bytes of its segment."""

    name: str
    kind: TensorKind
    shape: tuple[int, ...]
    offset: int
    size: int

    @property
    def row_bytes(self) -> int:
        """Bytes from one row of a ROWS tensor to the next."""
        return -(-self.shape[1] // BEAT_BYTES) * BEAT_BYTES

    def vector(self, raw: bytes) -> Float:
        """Values of a VECTOR tensor from its ``size`` bytes."""
        return np.frombuffer(raw, "<f4", self.shape[0])

    def row(self, raw: bytes) -> Int8:
        """Values of one row of a ROWS tensor from its ``row_bytes`` bytes."""
        return np.frombuffer(raw[: self.shape[1]], np.int8)


@dataclass(frozen=True, kw_only=True)
class Segment:
    """What is loaded, authenticated and dropped together: ``embedding``, ``layers.{i}`` or ``classifier``."""

    name: str
    payload: bytes = field(repr=False)
    tensors: tuple[Tensor, ...]

    def raw(self, tensor: Tensor) -> bytes:
        """A tensor's bytes."""
        return self.payload[tensor.offset : tensor.offset + tensor.size]


@dataclass(frozen=True, kw_only=True)
class QuantModel:
    """A W8A8 model.

    Parameters
    ----------
    config
        Sizes.
    array
        NPU array size that the matrices are packed for.
    segments
        In the order in which a forward pass needs them.
    weights
        The int8 matrices ``[K, N]`` unpacked, by name, for the reference.
    """

    config: ModelConfig
    array: int
    segments: tuple[Segment, ...]
    weights: dict[str, Int8] = field(repr=False)

    def find(self, name: str) -> tuple[Segment, Tensor]:
        """Where a tensor lies."""
        for segment in self.segments:
            for tensor in segment.tensors:
                if tensor.name == name:
                    return segment, tensor
        raise KeyError(name)

    @property
    def size(self) -> int:
        """Bytes of all segments."""
        return sum(len(segment.payload) for segment in self.segments)


class _Builder:
    def __init__(self, name: str, array: int) -> None:
        self.name = name
        # A word of a wide array is longer than a beat, and no word may lie across two pages.
        self._align = max(BEAT_BYTES, array)
        self.payload = bytearray()
        self.tensors: list[Tensor] = []

    def add(self, name: str, kind: TensorKind, shape: tuple[int, ...], raw: bytes) -> None:
        self.tensors.append(Tensor(name=name, kind=kind, shape=shape, offset=len(self.payload), size=len(raw)))
        self.payload += raw + bytes(-len(raw) % self._align)

    def add_vector(self, name: str, values: Float) -> None:
        self.add(name, TensorKind.VECTOR, values.shape, values.astype("<f4").tobytes())

    def done(self) -> Segment:
        return Segment(name=self.name, payload=bytes(self.payload), tensors=tuple(self.tensors))


def quantise(checkpoint: Checkpoint, *, array: int = 16) -> QuantModel:
    """Quantise a model: int8 per output channel for linear layers, per row for the embedding, float32 norms.

    Raises :class:`UserError` when a layer is too wide for exact int32 sums.
    """
    config = checkpoint.config
    if max(config.dim, config.hidden) > INT32_SAFE_K:
        raise UserError(
            f"Checkpoint {checkpoint.name} has layers wider than {INT32_SAFE_K}; int32 sums could overflow."
        )
    weights: dict[str, Int8] = {}

    def add_linear(builder: _Builder, name: str) -> None:
        columns, scale = quantise_rows(checkpoint.linear(name).T)
        weights[name] = np.ascontiguousarray(columns.T)
        k, n = weights[name].shape
        builder.add(name, TensorKind.TILES, (k, n), pack_weights(weights[name], array))
        builder.add_vector(f"{name}.scale", scale)

    embedding = _Builder("embedding", array)
    rows, scale = quantise_rows(checkpoint.tensors["embedding"])
    padded = np.pad(rows, ((0, 0), (0, -config.dim % BEAT_BYTES)))
    embedding.add("embedding", TensorKind.ROWS, (config.vocab, config.dim), padded.tobytes())
    embedding.add_vector("embedding.scale", scale)
    segments = [embedding.done()]
    for layer in range(config.layers):
        builder = _Builder(f"layers.{layer}", array)
        for norm in ("attention_norm", "ffn_norm"):
            builder.add_vector(f"{builder.name}.{norm}", checkpoint.tensors[f"{builder.name}.{norm}"])
        for kind in ("qkv", "o", "gate_up", "down"):
            add_linear(builder, f"{builder.name}.{kind}")
        segments.append(builder.done())
    classifier = _Builder("classifier", array)
    classifier.add_vector("norm", checkpoint.tensors["norm"])
    add_linear(classifier, "classifier")
    return QuantModel(config=config, array=array, segments=(*segments, classifier.done()), weights=weights)


class ImageTensors:
    """The quantised tensors in this computer's memory: the reference that the serving framework is held to."""

    def __init__(self, model: QuantModel) -> None:
        self._model = model
        self._vectors: dict[str, Float] = {}
        self._rows: Int8 | None = None
        self._matrices: dict[str, npt.NDArray[Any]] = {}

    async def rows(self, name: str, indices: Sequence[int]) -> Int8:
        """Rows of the embedding."""
        if self._rows is None:
            segment, tensor = self._model.find(name)
            table = np.frombuffer(segment.raw(tensor), np.int8).reshape(tensor.shape[0], tensor.row_bytes)
            self._rows = table[:, : tensor.shape[1]]
        rows: Int8 = self._rows[np.asarray(indices)]
        return rows

    async def vector(self, name: str) -> Float:
        """A norm or scale."""
        if name not in self._vectors:
            segment, tensor = self._model.find(name)
            self._vectors[name] = tensor.vector(segment.raw(tensor))
        return self._vectors[name]

    def matrix(self, name: str) -> Int8:
        """The matrix ``[K, N]`` of a linear layer."""
        return self._model.weights[name]

    async def product(self, name: str, x: Int8) -> Int32:
        """Exact int32 product."""
        if name not in self._matrices:
            self._matrices[name] = as_exact_float(self.matrix(name))
        return exact_product(x, self._matrices[name])

"""NPU job descriptors, capabilities and weight packing. Layouts are those of the register reference."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..regs import NpuDependence, NpuDescriptorLoad, NpuFrame, NpuOp, NpuSpace

__all__ = [
    "CHANNEL_BYTES",
    "DESCRIPTOR_BYTES",
    "Caps",
    "Descriptor",
    "Fence",
    "Load",
    "Matmul",
    "Store",
    "decode",
    "encode_program",
    "pack_parameters",
    "pack_weights",
    "unpack_parameters",
]

DESCRIPTOR_BYTES = NpuDescriptorLoad.SIZE_BYTES
"""Bytes of a descriptor; job lists are aligned to it."""

CHANNEL_BYTES = 8
"""Bytes of the requantisation parameters of one output channel."""

_TRANSFER = struct.Struct("<IQI5H6x")
"""LOAD and STORE: head, address, stride, and five half words of sizes and places."""

_MULTIPLY = struct.Struct("<I3H2x6H8x")
"""MATMUL: head, three sizes, and six places and steps."""

_ALONE = struct.Struct("<I28x")
"""FENCE: nothing but a head."""


@dataclass(frozen=True, kw_only=True)
class Caps:
    """Sizes of one NPU: array N, scratchpads and parameters in words of N bytes, accumulators in rows of N int32."""

    n: int = 16
    a_words: int = 4096
    w_words: int = 4096
    c_rows: int = 2048
    q_words: int = 1024

    def __post_init__(self) -> None:
        if self.n not in (4, 8, 16, 32):
            raise ValueError(f"Array size must be 4, 8, 16 or 32, not {self.n!r}")
        for name in ("a_words", "w_words", "c_rows"):
            value = getattr(self, name)
            if value < 2 * self.n or value & (value - 1):
                raise ValueError(f"Depth {name} must be a power of two of at least 2 N, not {value!r}")
        if self.q_words < 8 or self.q_words & (self.q_words - 1):
            raise ValueError(f"Depth q_words must be a power of two of at least 8, not {self.q_words!r}")

    @property
    def channels(self) -> int:
        """Output channels whose requantisation parameters fit at once."""
        return self.q_words * self.n // CHANNEL_BYTES

    @classmethod
    def from_register(cls, word: int) -> Caps:
        """Decode the CAPS register."""
        return cls(
            n=NpuFrame.CAPS__ARRAY.get(word),
            a_words=1 << NpuFrame.CAPS__LOG2_A.get(word),
            w_words=1 << NpuFrame.CAPS__LOG2_W.get(word),
            c_rows=1 << NpuFrame.CAPS__LOG2_C.get(word),
            q_words=1 << NpuFrame.CAPS__LOG2_Q.get(word),
        )

    def to_register(self) -> int:
        """Value of the CAPS register."""
        return (
            NpuFrame.CAPS__ARRAY.put(self.n)
            | NpuFrame.CAPS__LOG2_A.put(self.a_words.bit_length() - 1)
            | NpuFrame.CAPS__LOG2_W.put(self.w_words.bit_length() - 1)
            | NpuFrame.CAPS__LOG2_C.put(self.c_rows.bit_length() - 1)
            | NpuFrame.CAPS__LOG2_Q.put(self.q_words.bit_length() - 1)
        )

    def tiles(self, size: int) -> int:
        """Tiles of N that cover ``size``."""
        return -(-size // self.n)


@lru_cache(maxsize=256)
def _head(op: NpuOp, tokens: tuple[bool, ...]) -> int:
    """Operation and tokens, as the first word has them."""
    head = NpuDependence
    wait_prev, wait_next, signal_prev, signal_next = tokens
    return (
        head.HEAD__OP.put(op)
        | head.HEAD__WAIT_PREV.put(wait_prev)
        | head.HEAD__WAIT_NEXT.put(wait_next)
        | head.HEAD__SIGNAL_PREV.put(signal_prev)
        | head.HEAD__SIGNAL_NEXT.put(signal_next)
    )


# Descriptors are named tuples as many are made: a frozen dataclass takes five times as long to make. All of them have
# tokens: ``wait_*`` are taken before the descriptor starts, ``signal_*`` given when it is done.


class Fence(NamedTuple):
    """Later descriptors start when every earlier one is finished and its writes are answered."""

    wait_prev: bool = False
    wait_next: bool = False
    signal_prev: bool = False
    signal_next: bool = False

    def encode(self) -> bytes:
        """The 32 bytes in memory."""
        return _ALONE.pack(_head(NpuOp.FENCE, self))


class Load(NamedTuple):
    """Memory to scratchpad: ``rows`` rows of ``row_bytes`` bytes; see the register reference for placement."""

    space: NpuSpace
    address: int
    stride: int
    rows: int
    row_bytes: int
    base: int
    row_step: int
    word_step: int
    wait_prev: bool = False
    wait_next: bool = False
    signal_prev: bool = False
    signal_next: bool = False

    def encode(self) -> bytes:
        """The 32 bytes in memory."""
        head = _head(NpuOp.LOAD, self[-4:]) | NpuDependence.HEAD__SPACE.put(self.space)
        return _TRANSFER.pack(head, *self[1:8])


class Matmul(NamedTuple):
    """Scratchpads to accumulators: C[m][n] (+)= sum over k of A[m][k] * W[k][n]."""

    m: int
    k: int
    n: int
    a_base: int
    a_step: int
    w_base: int
    w_step: int
    c_base: int
    c_step: int
    accumulate: bool = False
    wait_prev: bool = False
    wait_next: bool = False
    signal_prev: bool = False
    signal_next: bool = False

    def encode(self) -> bytes:
        """The 32 bytes in memory."""
        head = _head(NpuOp.MATMUL, self[-4:]) | NpuDependence.HEAD__ACCUMULATE.put(self.accumulate)
        return _MULTIPLY.pack(head, *self[:9])


class Store(NamedTuple):
    """Accumulators to memory: ``rows`` rows of ``n`` values, int32 or with ``quantise`` int8.

    ``q_base`` is the parameter word at which the first channel's parameters begin, a multiple of four.
    """

    address: int
    stride: int
    rows: int
    n: int
    c_base: int
    c_step: int
    quantise: bool = False
    relu: bool = False
    q_base: int = 0
    wait_prev: bool = False
    wait_next: bool = False
    signal_prev: bool = False
    signal_next: bool = False

    def encode(self) -> bytes:
        """The 32 bytes in memory."""
        d = NpuDependence
        head = _head(NpuOp.STORE, self[-4:]) | d.HEAD__QUANTISE.put(self.quantise) | d.HEAD__RELU.put(self.relu)
        return _TRANSFER.pack(head, *self[:6], self.q_base)


Descriptor = Fence | Load | Matmul | Store


_SPACES = {space.value: space for space in NpuSpace}


def _space(code: int) -> NpuSpace:
    if code not in _SPACES:
        raise ValueError(f"Space of a LOAD must be one of {[*_SPACES]}, not {code!r}")
    return _SPACES[code]


class _Head(NamedTuple):
    """First word of a descriptor."""

    op: int
    space: int
    accumulate: bool
    quantise: bool
    relu: bool
    tokens: tuple[bool, bool, bool, bool]


@lru_cache(maxsize=1024)
def _read_head(encoded: bytes) -> _Head:
    word, d = int.from_bytes(encoded, "little"), NpuDependence
    flags = d.HEAD__WAIT_PREV, d.HEAD__WAIT_NEXT, d.HEAD__SIGNAL_PREV, d.HEAD__SIGNAL_NEXT
    wait_prev, wait_next, signal_prev, signal_next = (bool(flag.get(word)) for flag in flags)
    return _Head(
        op=d.HEAD__OP.get(word),
        space=d.HEAD__SPACE.get(word),
        accumulate=bool(d.HEAD__ACCUMULATE.get(word)),
        quantise=bool(d.HEAD__QUANTISE.get(word)),
        relu=bool(d.HEAD__RELU.get(word)),
        tokens=(wait_prev, wait_next, signal_prev, signal_next),
    )


_LOAD, _STORE, _MATMUL, _FENCE = NpuOp.LOAD.value, NpuOp.STORE.value, NpuOp.MATMUL.value, NpuOp.FENCE.value


def decode(encoded: bytes) -> Descriptor:
    """Descriptor in 32 bytes. ``ValueError`` if operation or space is unassigned; sizes are not checked here."""
    if len(encoded) != DESCRIPTOR_BYTES:
        raise ValueError(f"A descriptor must have {DESCRIPTOR_BYTES} bytes, not {len(encoded)!r}")
    op, space, accumulate, quantise, relu, tokens = _read_head(encoded[:4])
    if op == _LOAD:
        _, address, stride, rows, row_bytes, base, row_step, word_step = _TRANSFER.unpack(encoded)
        return Load(_space(space), address, stride, rows, row_bytes, base, row_step, word_step, *tokens)
    if op == _STORE:
        _, address, stride, rows, n, c_base, c_step, q_base = _TRANSFER.unpack(encoded)
        return Store(address, stride, rows, n, c_base, c_step, quantise, relu, q_base, *tokens)
    if op == _MATMUL:
        _, m, k, n, a_base, a_step, w_base, w_step, c_base, c_step = _MULTIPLY.unpack(encoded)
        return Matmul(m, k, n, a_base, a_step, w_base, w_step, c_base, c_step, accumulate, *tokens)
    if op == _FENCE:
        return Fence(*tokens)
    raise ValueError(f"Operation of a descriptor must be one of {[o.value for o in NpuOp]}, not {op!r}")


def encode_program(descriptors: Sequence[Descriptor]) -> bytes:
    """The job list in memory. ``ValueError`` if a size or place does not fit its field."""
    try:
        return b"".join([descriptor.encode() for descriptor in descriptors])
    except struct.error as error:
        raise ValueError(f"Sizes and places of descriptors must fit their fields: {error}") from None


def pack_weights(weights: npt.NDArray[np.int8], n: int) -> bytes:
    """Tile-pack ``weights`` (K, N) for array size ``n``: [n tile][k tile][n rows][n lanes], filled up with zeros."""
    if weights.ndim != 2 or weights.dtype != np.int8:
        raise ValueError(f"Weights must be a two-dimensional int8 array, not {weights.dtype!r} of {weights.shape!r}")
    k, columns = weights.shape
    k_tiles, n_tiles = -(-k // n), -(-columns // n)
    full = np.zeros((k_tiles * n, n_tiles * n), dtype=np.int8)
    full[:k, :columns] = weights
    return full.reshape(k_tiles, n, n_tiles, n).transpose(2, 0, 1, 3).tobytes()


_CHANNEL = np.dtype([("bias", "<i4"), ("multiplier", "<u2"), ("shift", "u1"), ("reserved", "u1")])


def pack_parameters(
    bias: npt.NDArray[np.int32], multiplier: npt.NDArray[np.uint16], shift: npt.NDArray[np.uint8], n: int
) -> bytes:
    """Requantisation parameters, one of each per output channel, as memory holds them for array size ``n``.

    A sum becomes ``saturate((sum + bias) * multiplier / 2**shift)``, rounded to the nearest with halves upwards;
    ``shift`` is at most 63. The channels are filled up with zeros to whole tiles.
    """
    if not bias.shape == multiplier.shape == shift.shape or bias.ndim != 1:
        raise ValueError(
            f"Parameters must be one of each per channel, not {bias.shape!r}, {multiplier.shape!r} and {shift.shape!r}"
        )
    if shift.size and shift.max() > 63:
        raise ValueError(f"Shifts must be 0 to 63, not {int(shift.max())!r}")
    channels = np.zeros(-(-bias.size // n) * n, _CHANNEL)
    for name, values in (("bias", bias), ("multiplier", multiplier), ("shift", shift)):
        channels[name][: bias.size] = values
    return channels.tobytes()


def unpack_parameters(words: npt.NDArray[np.int8]) -> tuple[npt.NDArray[np.int64], ...]:
    """Bias, multiplier and shift of each channel in parameter words (words, N), in int64."""
    channels = np.frombuffer(words.tobytes(), _CHANNEL)
    return (
        channels["bias"].astype(np.int64),
        channels["multiplier"].astype(np.int64),
        (channels["shift"] & 63).astype(np.int64),
    )

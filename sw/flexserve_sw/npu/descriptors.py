"""NPU job descriptors, capabilities and weight packing. Layouts are those of the register reference."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..regs import (
    NpuDependence,
    NpuDescriptorLoad,
    NpuDescriptorMatmul,
    NpuDescriptorStore,
    NpuFrame,
    NpuOp,
    NpuSpace,
)

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

_LAYOUT, _HALVES = struct.Struct("<8I"), struct.Struct("<I14H")


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
        return _LAYOUT.pack(_head(NpuOp.FENCE, self), 0, 0, 0, 0, 0, 0, 0)


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
        d = NpuDescriptorLoad
        return _LAYOUT.pack(
            _head(NpuOp.LOAD, self[-4:]) | NpuDependence.HEAD__SPACE.put(self.space),
            self.address & 0xFFFF_FFFF,
            self.address >> 32,
            d.STRIDE__VALUE.put(self.stride),
            d.SIZE__ROWS.put(self.rows) | d.SIZE__ROW_BYTES.put(self.row_bytes),
            d.PLACE__BASE.put(self.base) | d.PLACE__ROW_STEP.put(self.row_step),
            d.STEP__WORD_STEP.put(self.word_step),
            0,
        )


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
        d = NpuDescriptorMatmul
        return _LAYOUT.pack(
            _head(NpuOp.MATMUL, self[-4:]) | NpuDependence.HEAD__ACCUMULATE.put(self.accumulate),
            d.SIZE_MK__M.put(self.m) | d.SIZE_MK__K.put(self.k),
            d.SIZE_N__N.put(self.n),
            d.A__BASE.put(self.a_base) | d.A__STEP.put(self.a_step),
            d.W__BASE.put(self.w_base) | d.W__STEP.put(self.w_step),
            d.C__BASE.put(self.c_base) | d.C__STEP.put(self.c_step),
            0,
            0,
        )


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
        d, head = NpuDescriptorStore, NpuDependence
        return _LAYOUT.pack(
            _head(NpuOp.STORE, self[-4:]) | head.HEAD__QUANTISE.put(self.quantise) | head.HEAD__RELU.put(self.relu),
            self.address & 0xFFFF_FFFF,
            self.address >> 32,
            d.STRIDE__VALUE.put(self.stride),
            d.SIZE__ROWS.put(self.rows) | d.SIZE__N.put(self.n),
            d.C__BASE.put(self.c_base) | d.C__STEP.put(self.c_step),
            d.Q__BASE.put(self.q_base),
            0,
        )


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
def _read_head(word: int) -> _Head:
    d = NpuDependence
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


def decode(encoded: bytes) -> Descriptor:
    """Descriptor in 32 bytes. ``ValueError`` if operation or space is unassigned; sizes are not checked here."""
    if len(encoded) != DESCRIPTOR_BYTES:
        raise ValueError(f"A descriptor must have {DESCRIPTOR_BYTES} bytes, not {len(encoded)!r}")
    # Sizes and places are half words, the lower first, as the fields that encode() puts them into say.
    word, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11, x12, _, _, _ = _HALVES.unpack(encoded)
    head = _read_head(word)
    match head.op:
        case NpuOp.FENCE:
            return Fence(*head.tokens)
        case NpuOp.LOAD:
            address, stride = x2 | x3 << 16 | x4 << 32 | x5 << 48, x6 | x7 << 16
            return Load(_space(head.space), address, stride, x8, x9, x10, x11, x12, *head.tokens)
        case NpuOp.MATMUL:
            return Matmul(x2, x3, x4, x6, x7, x8, x9, x10, x11, head.accumulate, *head.tokens)
        case NpuOp.STORE:
            address, stride = x2 | x3 << 16 | x4 << 32 | x5 << 48, x6 | x7 << 16
            return Store(address, stride, x8, x9, x10, x11, head.quantise, head.relu, x12, *head.tokens)
        case op:
            raise ValueError(f"Operation of a descriptor must be one of {[o.value for o in NpuOp]}, not {op!r}")


def encode_program(descriptors: Sequence[Descriptor]) -> bytes:
    """The job list in memory."""
    return b"".join([descriptor.encode() for descriptor in descriptors])


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

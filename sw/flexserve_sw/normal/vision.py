"""A vision-like program of the normal world: a stream of frames, each a few int8 GEMMs on the OS's NPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..machine import BEAT_BYTES, PAGE_BYTES, Initiator, Machine
from ..monitor.layout import Extent
from ..npu import (
    DESCRIPTOR_BYTES,
    Caps,
    Requantise,
    encode_program,
    gemm_program,
    pack_parameters,
    pack_weights,
    requantise,
)
from .npu import NpuTurn
from .system import NormalOs

__all__ = ["LAYERS", "VisionStream"]

LAYERS = ((196, 144, 64), (49, 256, 128))
"""Rows, K and N of a frame's layers: 3 x 3 convolutions of 16 channels to 14 x 14, then 1 x 1 of 256 to 7 x 7."""

_BY = Initiator.NORMAL_CPU
_ORDER = 4
"""Pages of a layer's block of memory, as a power of two."""
_PIECE = 64 * 1024
"""Bytes that are written at once."""

Int8 = npt.NDArray[np.int8]


@dataclass(frozen=True)
class _Layer:
    """One GEMM in memory: its list, where rows go and come from, and what the results are made with."""

    block: Extent
    rows: int
    weights: Int8
    bias: npt.NDArray[np.int32]
    multiplier: npt.NDArray[np.uint16]
    shift: npt.NDArray[np.uint8]
    a_at: int
    c_at: int
    job: tuple[int, int]

    @property
    def strides(self) -> tuple[int, int]:
        """Bytes from row to row of activations and of results."""
        return _stride(self.weights.shape[0]), _stride(self.weights.shape[1])

    def expected(self, x: Int8) -> Int8:
        """What the NPU must give."""
        sums = (x.astype(np.float64) @ self.weights.astype(np.float64)).astype(np.int32)
        return requantise(sums, *(v.astype(np.int64) for v in (self.bias, self.multiplier, self.shift)), relu=True)


def _stride(row: int) -> int:
    return -(-row // BEAT_BYTES) * BEAT_BYTES


@dataclass
class VisionStream:
    """Frames every ``period`` cycles, computed one after the other, each value checked.

    A frame that comes while an earlier one is not done waits for it; its latency counts from when it was due.
    """

    machine: Machine
    os: NormalOs
    caps: Caps
    period: int
    seed: int = 1
    latencies: list[int] = field(default_factory=list)
    turns: list[NpuTurn] = field(default_factory=list)
    wrong: int = 0
    stopped: bool = False

    def __post_init__(self) -> None:
        self._dice = np.random.default_rng(self.seed)
        self._layers: list[_Layer] = []

    async def open(self) -> None:
        """Take memory and put weights and job lists into it. Raises :class:`OutOfMemory`."""
        for rows, k, n in LAYERS:
            self._layers.append(await self._place(rows, k, n))

    async def _place(self, rows: int, k: int, n: int) -> _Layer:
        dice, block = self._dice, self.os.ordinary.take_block(_ORDER)
        weights = dice.integers(-128, 128, (k, n), dtype=np.int8)
        bias = dice.integers(-10_000, 10_000, n).astype(np.int32)
        multiplier = dice.integers(1 << 15, 1 << 16, n).astype(np.uint16)
        shift = np.full(n, 16 + k.bit_length() // 2 + 1, np.uint8)
        packed, parameters = pack_weights(weights, self.caps.n), pack_parameters(bias, multiplier, shift, self.caps.n)
        w_at = block.first * PAGE_BYTES
        q_at = w_at + len(packed)
        a_at = q_at + _stride(len(parameters))
        c_at = a_at + rows * _stride(k)
        list_at = -(-(c_at + rows * _stride(n)) // DESCRIPTOR_BYTES) * DESCRIPTOR_BYTES
        program = gemm_program(
            m=rows, k=k, n=n, a_addr=a_at, a_stride=_stride(k), w_addr=w_at, c_addr=c_at, c_stride=_stride(n),
            caps=self.caps, requantise=Requantise(address=q_at, relu=True),
        )  # fmt: skip
        encoded = encode_program(program)
        if list_at + len(encoded) > (block.first + block.count) * PAGE_BYTES:
            raise ValueError(f"A layer must fit {block.count} pages, not {(rows, k, n)!r}")
        for address, content in ((w_at, packed), (q_at, parameters), (list_at, encoded)):
            await self._write(address, content)
        return _Layer(block, rows, weights, bias, multiplier, shift, a_at, c_at, (list_at, len(program)))

    async def _write(self, address: int, content: bytes) -> None:
        for start in range(0, len(content), _PIECE):
            await self.machine.store(address + start, content[start : start + _PIECE], by=_BY)

    async def serve(self, frames: int | None = None) -> None:
        """Compute ``frames`` of them, or until ``stopped``."""
        due = self.machine.now
        while not self.stopped and (frames is None or len(self.latencies) < frames):
            await self.machine.delay(max(0, due - self.machine.now))
            await self._frame()
            self.latencies.append(self.machine.now - due)
            due += self.period

    async def _frame(self) -> None:
        """Layers do not feed each other: shapes and traffic are those of a network, values are random."""
        inputs = [
            self._dice.integers(-128, 128, (layer.rows, layer.weights.shape[0]), dtype=np.int8)
            for layer in self._layers
        ]
        for layer, x in zip(self._layers, inputs, strict=True):
            rows = np.zeros((layer.rows, layer.strides[0]), np.int8)
            rows[:, : x.shape[1]] = x
            await self._write(layer.a_at, rows.tobytes())
        self.turns.append(await self.os.npu.run([layer.job for layer in self._layers]))
        for layer, x in zip(self._layers, inputs, strict=True):
            stride, columns = layer.strides[1], layer.weights.shape[1]
            raw = await self.machine.load(layer.c_at, layer.rows * stride, by=_BY)
            got = np.frombuffer(raw, np.int8).reshape(layer.rows, stride)[:, :columns]
            self.wrong += int((got != layer.expected(x)).sum())

    def as_json(self) -> dict[str, Any]:
        """What became of the frames, in cycles."""
        return {
            "frames": len(self.latencies),
            "wrong_values": self.wrong,
            "latency": self.latencies,
            "waited": [turn.waited for turn in self.turns],
            "recalled": [turn.recalled for turn in self.turns],
            "computed": [turn.computed for turn in self.turns],
        }

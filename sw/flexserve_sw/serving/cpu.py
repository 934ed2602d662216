"""Linear layers on the CPU: what a system without an NPU in its trusted part has to do."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..integers import as_exact_float, exact_product
from ..llm.arithmetic import Int8, Int32
from ..llm.image import Tensor
from ..llm.model import Work
from ..timeline import Timeline
from .side import CpuClock, Side
from .space import Space

__all__ = ["CpuProducts", "unpack_weights"]


def unpack_weights(raw: bytes, shape: tuple[int, int], array: int) -> Int8:
    """The matrix ``[K, N]`` that :func:`flexserve_sw.npu.pack_weights` packed."""
    k, n = shape
    tiles = np.frombuffer(raw, np.int8).reshape(-(-n // array), -(-k // array), array, array)
    return np.ascontiguousarray(tiles.transpose(1, 2, 0, 3).reshape(-(-k // array) * array, -1)[:k, :n])


class CpuProducts:
    """Reads the weights over the bus and multiplies.

    A product takes as long as its multiply-accumulates or as its weights take to stream, whichever is longer; the time
    the bus transfers take in the simulation is part of that.
    """

    def __init__(self, *, side: Side, space: Space, clock: CpuClock, array: int, timeline: Timeline) -> None:
        self._side, self._space, self._clock, self._array, self._timeline = side, space, clock, array, timeline
        self.macs = 0
        self._matrices: dict[str, tuple[bytes, npt.NDArray[Any]]] = {}

    def _matrix(self, name: str, raw: bytes, shape: tuple[int, int]) -> npt.NDArray[Any]:
        """The matrix in the bytes that were read, unpacked anew unless they are those of the last time."""
        kept, matrix = self._matrices.get(name, (b"", np.zeros(0)))
        if kept != raw or matrix.shape != shape:
            matrix = as_exact_float(unpack_weights(raw, shape, self._array))
            self._matrices[name] = raw, matrix
        return matrix

    async def product(self, name: str, tensor: Tensor, weights: int, x: Int8) -> Int32:
        """Exact int32 product with the packed matrix at address ``weights`` of the space."""
        machine, platform = self._side.machine, self._side.platform
        k, n = tensor.shape
        with self._timeline.span("cpu", name, rows=len(x)):
            begin = machine.now
            sums = exact_product(x, self._matrix(name, await self._space.load(weights, tensor.size), (k, n)))
            macs = len(x) * k * n
            streaming = platform.at_rate(tensor.size, platform.cpu.stream_rate, machine.clock_hz)
            cost = max(round(self._clock.cost(Work.INT8_MAC, macs)), streaming)
            if (rest := cost - (machine.now - begin)) > 0:
                await machine.delay(rest)
        self.macs += macs
        return sums

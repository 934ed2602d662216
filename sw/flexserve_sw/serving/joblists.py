"""Job lists over scattered pages, as bytes. Lists that differ only in which frames their pages are in are made once."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ..machine import PAGE_BYTES
from ..npu import Caps, Descriptor, Load, Store, encode_program, gemm_program
from .space import Space

__all__ = ["JobLists"]

_LOW = 0xFFFF_FFFF


@dataclass(frozen=True)
class _Pattern:
    """A list with the addresses left open: descriptors ``rows`` transfer at ``offsets`` in pages number ``pages``."""

    words: npt.NDArray[np.uint32]
    rows: npt.NDArray[np.int64]
    pages: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]

    def at(self, frames: npt.NDArray[np.int64]) -> bytes:
        """The list for pages in these frames."""
        words, places = self.words.copy(), frames[self.pages] * PAGE_BYTES + self.offsets
        words[self.rows, 1] = places & _LOW
        words[self.rows, 2] = places >> 32
        return words.tobytes()


class JobLists:
    """Job lists for GEMMs in a space.

    What a list looks like depends on its sizes, on where in their pages the operands begin, and on which of their pages
    are neighbours on the bus, as a transfer over pages that are not becomes several. The layers of a model have all
    that in common more often than not; then their lists differ in addresses alone.
    """

    def __init__(self, space: Space, caps: Caps) -> None:
        self._space, self._caps = space, caps
        self._programs: dict[tuple[object, ...], list[Descriptor]] = {}
        self._known: dict[tuple[object, ...], _Pattern] = {}

    def gemm(self, m: int, k: int, n: int, *, a: tuple[int, int], w: tuple[int, int], c: tuple[int, int]) -> bytes:
        """The list for C = A W; of A and C the address and the bytes from row to row, of W the address and its bytes.

        Operands are whole pages apart.
        """
        (a_addr, a_stride), (w_addr, w_bytes), (c_addr, c_stride) = a, w, c
        ranges = ((a_addr, m * a_stride), (w_addr, w_bytes), (c_addr, m * c_stride))
        frames: list[int] = []
        local: list[int] = []
        for address, length in ranges:
            local.append(len(frames) * PAGE_BYTES + address % PAGE_BYTES)
            frames += self._space.frames(address, length)
        neighbours = bytes(after == before + 1 for before, after in pairwise(frames))
        key = (m, k, n, a_stride, w_bytes, c_stride, *local, neighbours)
        pattern = self._known.get(key)
        if pattern is None:
            program = self._programs.get(key[:-1])
            if program is None:
                program = self._programs[key[:-1]] = gemm_program(
                    m=m, k=k, n=n, a_addr=local[0], a_stride=a_stride, w_addr=local[1],
                    c_addr=local[2], c_stride=c_stride, caps=self._caps,
                )  # fmt: skip
            pattern = self._known[key] = self._pattern(self._space.moved(frames).scatter(program, self._caps), frames)
        return pattern.at(np.array(frames))

    @staticmethod
    def _pattern(program: list[Descriptor], frames: list[int]) -> _Pattern:
        number = {frame: page for page, frame in enumerate(frames)}
        if len(number) != len(frames):
            raise ValueError("Operands of a job must lie in pages of their own")
        transfers = [(row, d.address) for row, d in enumerate(program) if isinstance(d, Load | Store)]
        return _Pattern(
            np.frombuffer(encode_program(program), "<u4").reshape(-1, 8),
            np.array([row for row, _ in transfers]),
            np.array([number[address // PAGE_BYTES] for _, address in transfers]),
            np.array([address % PAGE_BYTES for _, address in transfers]),
        )

"""Job lists over scattered pages, as bytes. Lists that differ only in which frames their pages are in are made once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ..machine import PAGE_BYTES
from ..npu import Caps, Descriptor, Load, Store, encode_program, gemm_program
from .pagemap import PageMap

__all__ = ["JobLists"]

_LOW = 0xFFFF_FFFF


@dataclass(frozen=True)
class _Sizes:
    """A GEMM over whole pages, those of A, W and C one after the other: ``a``, ``w`` and ``c`` are where they begin."""

    m: int
    k: int
    n: int
    a: int
    a_stride: int
    w: int
    c: int
    c_stride: int


@dataclass(frozen=True)
class _Pattern:
    """A list with the addresses left open: descriptors ``rows`` transfer at ``offsets`` in pages number ``pages``."""

    words: npt.NDArray[np.uint32]
    rows: npt.NDArray[np.int64]
    pages: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]

    def at(self, frames: Sequence[int]) -> bytes:
        """The list for pages in these frames."""
        words, places = self.words.copy(), np.array(frames)[self.pages] * PAGE_BYTES + self.offsets
        words[self.rows, 1] = places & _LOW
        words[self.rows, 2] = places >> 32
        return words.tobytes()


@lru_cache(maxsize=256)
def _program(sizes: _Sizes, caps: Caps) -> tuple[Descriptor, ...]:
    return tuple(
        gemm_program(
            m=sizes.m, k=sizes.k, n=sizes.n, a_addr=sizes.a, a_stride=sizes.a_stride, w_addr=sizes.w,
            c_addr=sizes.c, c_stride=sizes.c_stride, caps=caps,
        )
    )  # fmt: skip


@lru_cache(maxsize=1024)
def _pattern(sizes: _Sizes, neighbours: bytes, caps: Caps) -> _Pattern:
    """``neighbours`` tells of each page but the first whether it lies right behind the one before it."""
    frames = [0]
    for neighbour in neighbours:
        frames.append(frames[-1] + (1 if neighbour else 2))
    number = {frame: page for page, frame in enumerate(frames)}
    program = PageMap(frames).scatter(_program(sizes, caps), caps)
    transfers = [(row, d.address) for row, d in enumerate(program) if isinstance(d, Load | Store)]
    return _Pattern(
        np.frombuffer(encode_program(program), "<u4").reshape(-1, 8),
        np.array([row for row, _ in transfers]),
        np.array([number[address // PAGE_BYTES] for _, address in transfers]),
        np.array([address % PAGE_BYTES for _, address in transfers]),
    )


class JobLists:
    """Job lists for GEMMs in a space.

    What a list looks like depends on its sizes, on where in their pages the operands begin, and on which of their pages
    are neighbours on the bus, as a transfer over pages that are not becomes several. The layers of a model have all
    that in common more often than not; then their lists differ in addresses alone.
    """

    def __init__(self, space: PageMap, caps: Caps) -> None:
        self._space, self._caps = space, caps

    def gemm(self, m: int, k: int, n: int, *, a: tuple[int, int], w: tuple[int, int], c: tuple[int, int]) -> bytes:
        """The list for C = A W; of A and C the address and the bytes from row to row, of W the address and its bytes.

        They lie in pages of their own.
        """
        (a_addr, a_stride), (w_addr, w_bytes), (c_addr, c_stride) = a, w, c
        stored = (m - 1) * c_stride + self._caps.tiles(n) * self._caps.n * 4
        frames: list[int] = []
        begins: list[int] = []
        for address, length in ((a_addr, m * a_stride), (w_addr, w_bytes), (c_addr, stored)):
            begins.append(len(frames) * PAGE_BYTES + address % PAGE_BYTES)
            frames += self._space.frames(address, length)
        sizes = _Sizes(m, k, n, begins[0], a_stride, begins[1], begins[2], c_stride)
        neighbours = bytes([after == before + 1 for before, after in pairwise(frames)])
        return _pattern(sizes, neighbours, self._caps).at(frames)

"""Plans of a GEMM: in which order blocks of it are loaded and computed, and which order is the quickest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from ..machine import BEAT_BYTES
from .descriptors import Caps

__all__ = ["FIELD_MAX", "Step", "plans"]

FIELD_MAX = 65535
"""Largest value of the 16-bit size fields."""

_FIRST_BYTES = 64
"""Activation bytes per row that the first step of a block loads: enough to start on, bursts still worth their cost."""

_STEP_CYCLES = 512
"""Array cycles that a step should take, so that loading the next one hides behind it and little waits at the end."""

_SEARCHED_CYCLES = 16_384
"""Array cycles up to which several plans are compared: beyond, what they differ in is less than a percent."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One MATMUL and what is loaded for it. Rows in units of one, k and n in tiles: start and count each.

    ``a_tiles`` tiles of k of the activations, from ``k0`` on, must be loaded for this step, and its weights with
    ``load_w``; ``waits`` tells whether that must wait for a token of an earlier MATMUL, ``frees`` whether this MATMUL
    gives such a token. ``first`` and ``last`` tell whether it begins and
    ends the sum over k of its output block; ``block`` numbers output blocks; ``a_base`` and ``w_base`` are where the
    operands lie.
    """

    m0: int
    mc: int
    k0: int
    kc: int
    n0: int
    nc: int
    a_tiles: int
    load_w: bool
    waits: bool
    frees: bool
    first: bool
    last: bool
    block: int
    a_base: int
    w_base: int


@dataclass(frozen=True)
class _Problem:
    """Sizes in rows and tiles. ``unit`` tiles of k make whole beats of activations, ``columns`` of n of a result."""

    m: int
    k_tiles: int
    n_tiles: int
    unit: int
    columns: int
    caps: Caps

    @property
    def cycles(self) -> int:
        """Array cycles if nothing ever waits."""
        return self.k_tiles * self.n_tiles * max(self.m, self.caps.n)


def plans(m: int, k: int, n: int, caps: Caps, *, value_bytes: int) -> Iterator[list[Step]]:
    """Plans for C (m, n) = A (m, k) W (k, n) with results of ``value_bytes``, the all-round one first.

    Raises :class:`ValueError` if the NPU's memories are too small for any.
    """
    size = caps.n
    n_tiles = caps.tiles(n)
    problem = _Problem(
        m,
        caps.tiles(k),
        n_tiles,
        max(1, BEAT_BYTES // size),
        min(n_tiles, max(1, BEAT_BYTES // (size * value_bytes))),
        caps,
    )
    yield _columns_first(problem, share=8, start=2)
    if problem.cycles > _SEARCHED_CYCLES:
        return
    for share, start in product((2, 4, 16), (1, 2)):
        yield _columns_first(problem, share=share, start=start)
    if m > size:
        yield from _rows_first(problem)


def _chunks(total: int, size: int, first: int | None = None) -> Iterator[tuple[int, int]]:
    """Cut ``total`` into (start, count) of at most ``size``, the first of at most ``first``."""
    start, take = 0, size if first is None else first
    while start < total:
        count = min(take, total - start)
        yield start, count
        start, take = start + count, size


def _piece(problem: _Problem) -> int:
    """Tiles of k that a load of activations takes at least, so that its bursts are worth their cost."""
    return max(problem.unit, _FIRST_BYTES // problem.caps.n)


def _arriving(problem: _Problem, *, first: bool) -> Iterator[tuple[int, int]]:
    """Cut the k of a block into (start, count), the ``first`` piece of all into 1, 1, 2 and so on."""
    for start, count in _chunks(problem.k_tiles, _piece(problem)):
        done = 0
        while done < count:
            step = min(max(1, done), count - done) if first and start == 0 else count
            yield start + done, step
            done += step


def _taper(total: int, size: int, least: int) -> Iterator[tuple[int, int]]:
    """Cut ``total`` into (start, count) of ``size``, the last of them into halves down to ``least``."""
    start = 0
    while start < total:
        count = min(size, total - start)
        if start + count == total and count >= 2 * least:
            count = count // 2 // least * least
        yield start, count
        start += count


def _rows(problem: _Problem) -> tuple[int, bool]:
    """Rows per chunk of m, and whether the activations of a chunk stay in the scratchpad for all of n."""
    m, k_tiles, caps = problem.m, problem.k_tiles, problem.caps
    c_half = caps.c_rows // 2 // problem.columns
    if m <= c_half and m * k_tiles <= caps.a_words:
        return m, True
    most = min(c_half, caps.a_words // 2 // k_tiles)
    if most >= min(m, 2 * caps.n):
        return -(-m // -(-m // most)), True
    most = min(m, c_half, 8 * caps.n, caps.a_words // 2 // problem.unit)
    return -(-m // -(-m // most)), False


def _columns_first(problem: _Problem, *, share: int, start: int) -> list[Step]:
    """All of n for a chunk of rows: weights stream through two halves of their scratchpad.

    A step takes a ``share``-th of a small problem, so that even there loading overlaps computing; the first one is of
    at most ``start`` tiles of n.
    """
    caps, k_tiles, n_tiles, unit = problem.caps, problem.k_tiles, problem.n_tiles, problem.unit
    size, columns = caps.n, problem.columns
    mc_max, resident = _rows(problem)
    wanted = min(_STEP_CYCLES, max(4 * size, problem.cycles // share))
    w_tiles = min(caps.w_words // 2 // size, FIELD_MAX // (size * size))
    if w_tiles < columns * min(unit, k_tiles) or caps.a_words // 2 < min(unit, k_tiles) or caps.c_rows // 2 < columns:
        raise ValueError(f"Half a memory must hold {unit} tiles of k and {columns} of n, not {caps!r}")
    k_most = w_tiles // columns if resident else min(w_tiles // columns, caps.a_words // 2 // mc_max)
    k_most = min(k_most, FIELD_MAX // size)
    kc_max = k_tiles if k_most >= k_tiles else max(unit, k_most // unit * unit)
    # Activations that stay for all of n take the whole scratchpad if there is but one chunk of them.
    a_half = 0 if resident and mc_max == problem.m else caps.a_words // 2
    pieces: list[tuple[int, int, int, int, int, int, int, int]] = []
    block = 0
    for m_index, (m0, mc) in enumerate(_chunks(problem.m, mc_max)):
        cost = max(mc, size)  # array cycles per tile
        c_tiles = caps.c_rows // 2 // mc
        nc_max = max(1, min(c_tiles, w_tiles // kc_max, -(-wanted // (kc_max * cost))))
        split = resident and mc * k_tiles > 4 * size
        nc_first = max(1, min(start, c_tiles, n_tiles, w_tiles // min(unit, k_tiles))) if split else nc_max
        nc_max, nc_first = (max(1, nc // columns) * columns for nc in (nc_max, nc_first))
        for n0, nc in _chunks(n_tiles, nc_max, nc_first):
            kc_here = kc_max
            if split and n0 == 0:
                kc_here = min(kc_max, max(unit, _FIRST_BYTES // size), w_tiles // nc)
                kc_here = kc_here if kc_here == k_tiles else kc_here // unit * unit
            for k0, kc in _chunks(k_tiles, kc_here):
                a_base = a_half * (m_index % 2) + k0 * mc if resident else a_half * (len(pieces) % 2)
                pieces.append((m0, mc, k0, kc, n0, nc, block, a_base))
            block += 1
    return [
        Step(
            m0=m0, mc=mc, k0=k0, kc=kc, n0=n0, nc=nc, a_tiles=kc if n0 == 0 or not resident else 0,
            load_w=True, waits=index >= 2,
            frees=index + 2 < len(pieces), first=k0 == 0, last=k0 + kc == k_tiles, block=block, a_base=a_base,
            w_base=index % 2 * (caps.w_words // 2),
        )
        for index, (m0, mc, k0, kc, n0, nc, block, a_base) in enumerate(pieces)
    ]  # fmt: skip


def _rows_first(problem: _Problem) -> Iterator[list[Step]]:
    """Weights stay in the scratchpad, activations stream: little is loaded before the start and stored at the end."""
    caps, k_tiles, n_tiles, columns = problem.caps, problem.k_tiles, problem.n_tiles, problem.columns
    size, m = caps.n, problem.m
    c_half = caps.c_rows // 2
    if k_tiles * n_tiles * size > caps.w_words or k_tiles * size * size > FIELD_MAX:
        return
    for mc, end in ((size, size), (2 * size, size), (2 * size, 2 * size), (4 * size, size), (m - size, size)):
        if mc > c_half or mc * k_tiles > caps.a_words // 2 or mc >= m:
            continue
        rows = [*_chunks(m - end, mc), (m - end, end)] if m > end else [(0, m)]
        most = c_half // mc // columns * columns
        choices = {
            tuple(min(n_tiles, tiles * columns, most) for tiles in tile_counts)
            for tile_counts in product((1, 2), (2, 4, n_tiles), (1, 2, 4))
        }
        for begin, middle, final in sorted(choices):
            if min(begin, middle, final):
                widths = [begin, *[middle] * (len(rows) - 2), final]
                yield _resident(problem, rows, widths)


def _resident(problem: _Problem, rows: list[tuple[int, int]], widths: list[int]) -> list[Step]:
    """One plan of :func:`_rows_first`: chunks of rows, and tiles of n per block in each."""
    caps, k_tiles, n_tiles = problem.caps, problem.k_tiles, problem.n_tiles
    plan: list[Step] = []
    block = 0
    for chunk, ((m0, mc), width) in enumerate(zip(rows, widths, strict=False)):
        for n0, count in _taper(n_tiles, width, problem.columns) if chunk == len(rows) - 1 else _chunks(n_tiles, width):
            # While weights come, a block of one tile is cut so that it is computed as they arrive.
            fine = chunk == 0 and count == 1
            for k0, kc in _arriving(problem, first=block == 0) if fine else [(0, k_tiles)]:
                piece = _piece(problem) if fine else k_tiles
                a_tiles = 0 if n0 or k0 % piece else min(piece, k_tiles - k0)
                step = Step(
                    m0=m0, mc=mc, k0=k0, kc=kc, n0=n0, nc=count, a_tiles=a_tiles, load_w=chunk == 0,
                    waits=chunk >= 2, frees=False, first=k0 == 0, last=k0 + kc == k_tiles, block=block,
                    a_base=chunk % 2 * (caps.a_words // 2) + k0 * mc, w_base=(n0 * k_tiles + k0) * caps.n,
                )  # fmt: skip
                plan.append(step)
            block += 1
        if chunk + 2 < len(rows):
            plan[-1] = replace(plan[-1], frees=True)
    return plan

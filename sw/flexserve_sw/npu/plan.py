"""Plans of a GEMM: in which order blocks of it are loaded and computed, and which order is the quickest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from ..machine import BEAT_BYTES
from .descriptors import Caps

__all__ = ["FIELD_MAX", "Step", "accumulator_slots", "packed", "plans"]

FIELD_MAX = 65535
"""Largest value of the 16-bit size fields."""

_FIRST_BYTES = 64
"""Activation bytes per row that the first step of a block loads: enough to start on, bursts still worth their cost."""

_STEP_CYCLES = 512
"""Array cycles that a step should take, so that loading the next one hides behind it and little waits at the end."""

_SLOTS = 8
"""Output blocks that are in the accumulators at most."""

_MOST_BUFFERS = 4
"""Parts that scratchpads are cut into at most: so many loads may be under way or waiting to be computed."""

_MOST_CHUNKS = 8
"""Chunks of rows that a plan with resident weights cuts at most: each costs descriptors."""

_K_PIECES = ((1, 1, 2), (1, 2, 4), (2, 2, 4), (2,), (4,))
"""Ways to cut the activations of the first rows along k, in the least number of tiles that makes whole beats."""

_SEARCHED_CYCLES = 16_384
"""Array cycles up to which several plans are compared: beyond, what they differ in is less than a percent."""


class Step(NamedTuple):
    """One MATMUL and what is loaded for it. Rows in units of one, k and n in tiles: start and count each.

    ``a_tiles`` tiles of k of the activations, from ``k0`` on, must be loaded for this step, and its weights with
    ``load_w``; ``waits`` tells whether that must wait for a token of an earlier MATMUL, ``frees`` whether this MATMUL
    gives such a token. ``first`` and ``last`` tell whether it begins and
    ends the sum over k of its output block; ``block`` numbers output blocks; ``a_base`` and ``w_base`` are where the
    operands lie, ``w_step`` the words from one of its tiles of n to the next. ``gemm`` is the GEMM's number in the job.
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
    w_step: int
    gemm: int = 0


@dataclass(frozen=True)
class _Problem:
    """Sizes in rows and tiles. ``unit`` tiles of k make whole beats of activations, ``columns`` of n of a result."""

    m: int
    k_tiles: int
    n_tiles: int
    unit: int
    columns: int
    caps: Caps

    def fits(self, buffers: int) -> bool:
        """Whether the scratchpads can be cut into ``buffers`` parts."""
        caps, k_tiles, columns = self.caps, min(self.unit, self.k_tiles), self.columns
        w_tiles, a_words = caps.w_words // buffers // caps.n, caps.a_words // buffers
        return w_tiles >= columns * k_tiles and a_words >= k_tiles and caps.c_rows // 2 >= columns

    def step(self, share: int) -> int:
        """Array cycles of a step: a ``share``-th of a small problem, so that even there loading overlaps computing."""
        return min(_STEP_CYCLES, max(4 * self.caps.n, self.cycles // share))

    @property
    def cycles(self) -> int:
        """Array cycles if nothing ever waits."""
        return self.k_tiles * self.n_tiles * max(self.m, self.caps.n)


def _problem(m: int, k: int, n: int, caps: Caps, value_bytes: int) -> _Problem:
    n_tiles = caps.tiles(n)
    columns = min(n_tiles, max(1, BEAT_BYTES // (caps.n * value_bytes)))
    return _Problem(m, caps.tiles(k), n_tiles, max(1, BEAT_BYTES // caps.n), columns, caps)


def plans(m: int, k: int, n: int, caps: Caps, *, value_bytes: int) -> Iterator[list[Step]]:
    """Plans for C (m, n) = A (m, k) W (k, n) with results of ``value_bytes``, the all-round one first.

    Raises :class:`ValueError` if the NPU's memories are too small for any.
    """
    size = caps.n
    problem = _problem(m, k, n, caps, value_bytes)
    if not problem.fits(2):
        raise ValueError(f"Half a memory must hold {problem.unit} tiles of k and {problem.columns} of n, not {caps!r}")
    buffers = [count for count in (2, _MOST_BUFFERS) if problem.fits(count)]
    yield _columns_first(problem, wanted=problem.step(8), start=2, buffers=2)
    if problem.cycles > _SEARCHED_CYCLES:
        if m <= size:  # as quick as the bus
            yield _columns_first(problem, wanted=_STEP_CYCLES // 2, start=2, buffers=buffers[-1])
        return
    # Where the first step is not cut, it does not matter how it would be.
    starts = (1, 2) if any(_splits(problem, *_rows(problem, count)) for count in buffers) else (1,)
    for wanted, start, count in product({problem.step(share) for share in (2, 4, 8, 16)}, starts, buffers):
        yield _columns_first(problem, wanted=wanted, start=start, buffers=count)
    if m > size:
        yield from _rows_first(problem)


def packed(sizes: Sequence[tuple[int, int, int, int]], caps: Caps) -> Iterator[list[Step]]:
    """Plans of several GEMMs of (m, k, n, bytes of a result): the weights of the next load while one is computed.

    They differ in how long steps are: what is loaded last is computed last, and each step costs descriptors.
    Raises :class:`ValueError` if the activations of one of them are too large.
    """
    for wanted in (4 * caps.n, 8 * caps.n, 16 * caps.n, _STEP_CYCLES):
        yield _packed(sizes, caps, wanted)


def _packed(sizes: Sequence[tuple[int, int, int, int]], caps: Caps, wanted: int) -> list[Step]:
    steps: list[Step] = []
    buffers = _MOST_BUFFERS
    for number, (m, k, n, value_bytes) in enumerate(sizes):
        problem = _problem(m, k, n, caps, value_bytes)
        part = caps.a_words // buffers
        if not problem.fits(buffers) or m * problem.k_tiles > part or _rows(problem, buffers) != (m, True):
            raise ValueError(f"Activations of a packed GEMM must fit {part} words, not {m!r} rows of {k!r}")
        block = steps[-1].block + 1 if steps else 0
        for step in _columns_first(problem, wanted=wanted, start=1, buffers=buffers):
            a_base = step.a_base + number % buffers * part
            w_base = len(steps) % buffers * (caps.w_words // buffers)
            steps.append(step._replace(block=step.block + block, a_base=a_base, w_base=w_base, gemm=number))
    count = len(steps)
    return [step._replace(waits=index >= buffers, frees=index + buffers < count) for index, step in enumerate(steps)]


def accumulator_slots(plan: Sequence[Step], caps: Caps) -> list[int]:
    """First rows of the slots that output blocks take in turn.

    Reading a block out waits while the array adds to rows of the same bank, so slots alternate between the four banks,
    or between the halves if a block needs more than a bank.
    """
    most = max(step.mc * step.nc for step in plan)
    banks = 4 if most <= caps.c_rows // 4 else 2
    bank = caps.c_rows // banks
    return [
        place * most + number * bank for place in range(min(_SLOTS // banks, bank // most)) for number in range(banks)
    ]


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


def _rows(problem: _Problem, buffers: int) -> tuple[int, bool]:
    """Rows per chunk of m, and whether the activations of a chunk stay in the scratchpad for all of n."""
    m, k_tiles, caps = problem.m, problem.k_tiles, problem.caps
    c_half = caps.c_rows // 2 // problem.columns
    if m <= c_half and m * k_tiles <= caps.a_words:
        return m, True
    most = min(c_half, caps.a_words // buffers // k_tiles)
    if most >= min(m, 2 * caps.n):
        return -(-m // -(-m // most)), True
    most = min(m, c_half, 8 * caps.n, caps.a_words // buffers // problem.unit)
    return -(-m // -(-m // most)), False


def _splits(problem: _Problem, rows: int, resident: bool) -> bool:
    """Whether the first step of a chunk of rows is cut, as its activations take long to load."""
    return resident and rows * problem.k_tiles > 4 * problem.caps.n


def _columns_first(problem: _Problem, *, wanted: int, start: int, buffers: int) -> list[Step]:
    """All of n for a chunk of rows: weights stream through ``buffers`` parts of their scratchpad.

    With two a step's weights load while the one before is computed. Where loading takes as long as computing, the
    latency of memory shows between steps unless more of them are asked for ahead.

    A step takes about ``wanted`` array cycles; the first one is of at most ``start`` tiles of n.
    """
    caps, k_tiles, n_tiles, unit = problem.caps, problem.k_tiles, problem.n_tiles, problem.unit
    size, columns = caps.n, problem.columns
    mc_max, resident = _rows(problem, buffers)
    w_tiles = min(caps.w_words // buffers // size, FIELD_MAX // (size * size))
    k_most = w_tiles // columns if resident else min(w_tiles // columns, caps.a_words // buffers // mc_max)
    k_most = min(k_most, FIELD_MAX // size)
    kc_max = k_tiles if k_most >= k_tiles else max(unit, k_most // unit * unit)
    # Activations that stay for all of n take the whole scratchpad if there is but one chunk of them.
    a_part = 0 if resident and mc_max == problem.m else caps.a_words // buffers
    pieces: list[tuple[int, int, int, int, int, int, int, int]] = []
    block = 0
    for m_index, (m0, mc) in enumerate(_chunks(problem.m, mc_max)):
        cost = max(mc, size)  # array cycles per tile
        c_tiles = caps.c_rows // 2 // mc
        nc_max = max(1, min(c_tiles, w_tiles // kc_max, -(-wanted // (kc_max * cost))))
        split = _splits(problem, mc, resident)
        nc_first = max(1, min(start, c_tiles, n_tiles, w_tiles // min(unit, k_tiles))) if split else nc_max
        nc_max, nc_first = (max(1, nc // columns) * columns for nc in (nc_max, nc_first))
        for n0, nc in _chunks(n_tiles, nc_max, nc_first):
            kc_here = kc_max
            if split and n0 == 0:
                kc_here = min(kc_max, max(unit, _FIRST_BYTES // size), w_tiles // nc)
                kc_here = kc_here if kc_here == k_tiles else kc_here // unit * unit
            elif cost == size:  # weights come no faster than they are used, so steps may be short in k too
                kc_here = min(kc_here, max(unit, wanted // (nc * cost) // unit * unit))
            for k0, kc in _chunks(k_tiles, kc_here):
                number = m_index if resident else len(pieces)
                a_base = a_part * (number % buffers) + (k0 * mc if resident else 0)
                pieces.append((m0, mc, k0, kc, n0, nc, block, a_base))
            block += 1
    count, w_part = len(pieces), caps.w_words // buffers
    return [
        Step(
            m0, mc, k0, kc, n0, nc, kc if n0 == 0 or not resident else 0, True, index >= buffers,
            index + buffers < count, k0 == 0, k0 + kc == k_tiles, block, a_base, index % buffers * w_part, kc * size,
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
    end = size
    for mc in sorted({size, 2 * size, 4 * size, -(-m // (4 * size)) * size, -(-m // (2 * size)) * size, m - end}):
        if mc > c_half or mc * k_tiles > caps.a_words // 2 or not mc < m <= _MOST_CHUNKS * mc:
            continue
        rows = [*_chunks(m - end, mc), (m - end, end)]
        most = c_half // mc // columns * columns
        widths = {min(n_tiles, tiles * columns, most) for tiles in (1, 2, 4, n_tiles)} - {0}
        begins = [list(_by_columns(problem, mc, width)) for width in sorted(widths)[:2]]
        for across in {columns, min(n_tiles, 2 * columns), n_tiles}:
            if across * mc <= c_half:
                begins += [list(_by_pieces(problem, mc, across, pieces)) for pieces in _K_PIECES]
        middles = sorted(widths)[1:] if len(rows) > 2 and len(widths) > 1 else [max(widths, default=0)]
        for begin, middle, final in product(begins, middles, sorted(widths)[:3]):
            plan = _resident(problem, rows, [middle] * (len(rows) - 2) + [final], list(begin))
            # Blocks side by side are all unfinished until the last piece of k.
            if begin[-1].block < len(accumulator_slots(plan, caps)):
                yield plan


def _by_columns(problem: _Problem, mc: int, width: int) -> Iterator[Step]:
    """The first ``mc`` rows while weights come: column by column."""
    # A block of one tile is cut so that it is computed as its operands arrive.
    fine = width == 1
    for block, (n0, nc) in enumerate(_chunks(problem.n_tiles, width)):
        for k0, kc in _arriving(problem, first=block == 0) if fine else [(0, problem.k_tiles)]:
            piece = _piece(problem) if fine else problem.k_tiles
            a_tiles = 0 if n0 or k0 % piece else min(piece, problem.k_tiles - k0)
            yield _first_rows(problem, mc, (k0, kc), (n0, nc), a_tiles, block)


def _by_pieces(problem: _Problem, mc: int, width: int, pieces: tuple[int, ...]) -> Iterator[Step]:
    """The first ``mc`` rows while weights come: all of n side by side in blocks of ``width``, piece by piece of k.

    Of each piece of activations more is computed than with one column after the other, so that the bus is ahead sooner.
    """
    k0 = 0
    unit = problem.unit
    sizes = [*pieces, *[pieces[-1]] * (problem.k_tiles // pieces[-1])]
    for size in sizes:
        kc = min(size * unit, problem.k_tiles - k0)
        if kc <= 0:
            return
        for block, (n0, nc) in enumerate(_chunks(problem.n_tiles, width)):
            yield _first_rows(problem, mc, (k0, kc), (n0, nc), 0 if n0 else kc, block)
        k0 += kc


def _first_rows(problem: _Problem, mc: int, k: tuple[int, int], n: tuple[int, int], a_tiles: int, block: int) -> Step:
    (k0, kc), (n0, nc) = k, n
    return Step(
        m0=0, mc=mc, k0=k0, kc=kc, n0=n0, nc=nc, a_tiles=a_tiles, load_w=True, waits=False, frees=False,
        first=k0 == 0, last=k0 + kc == problem.k_tiles, block=block, a_base=k0 * mc,
        w_base=(n0 * problem.k_tiles + k0) * problem.caps.n, w_step=problem.k_tiles * problem.caps.n,
    )  # fmt: skip


def _resident(problem: _Problem, rows: list[tuple[int, int]], widths: list[int], begin: list[Step]) -> list[Step]:
    """One plan of :func:`_rows_first`: the steps of the first chunk of rows, and tiles of n per block in the others."""
    caps, k_tiles, n_tiles = problem.caps, problem.k_tiles, problem.n_tiles
    plan = begin
    block = begin[-1].block + 1
    for chunk, ((m0, mc), width) in enumerate(zip(rows[1:], widths, strict=True), 1):
        if chunk + 1 < len(rows):  # this chunk's end makes room for the one after the next
            plan[-1] = plan[-1]._replace(frees=True)
        for n0, count in _taper(n_tiles, width, problem.columns) if chunk == len(rows) - 1 else _chunks(n_tiles, width):
            step = Step(
                m0=m0, mc=mc, k0=0, kc=k_tiles, n0=n0, nc=count, a_tiles=0 if n0 else k_tiles, load_w=False,
                waits=chunk >= 2, frees=False, first=True, last=True, block=block,
                a_base=chunk % 2 * (caps.a_words // 2), w_base=n0 * k_tiles * caps.n, w_step=k_tiles * caps.n,
            )  # fmt: skip
            plan.append(step)
            block += 1
    return plan

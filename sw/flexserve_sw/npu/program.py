"""Job programs for whole GEMMs: tiling to the scratchpads and overlap of load, execute and store through tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..machine import BEAT_BYTES
from ..regs import NpuSpace
from .descriptors import Caps, Descriptor, Load, Matmul, Store

__all__ = ["Step", "gemm_program", "steps"]

_FIELD_MAX = 65535
"""Largest value of the 16-bit size fields."""

_FIRST_BYTES = 64
"""Activation bytes per row that the first step of a block loads: enough to start on, bursts still worth their cost."""

_STEP_CYCLES = 512
"""Array cycles that a step should take, so that loading the next one hides behind it and little waits at the end."""


@dataclass(frozen=True)
class Step:
    """One MATMUL and what is loaded for it. Rows in units of one, k and n in tiles: start and count each.

    ``load_a`` tells whether the activations must be loaded for this step, ``first`` and ``last`` whether it begins and
    ends the sum over k of its output block; ``block`` numbers output blocks; ``a_base`` is where the activations lie.
    """

    m0: int
    mc: int
    k0: int
    kc: int
    n0: int
    nc: int
    load_a: bool
    first: bool
    last: bool
    block: int
    a_base: int


def _chunks(total: int, size: int, first: int | None = None) -> Iterator[tuple[int, int]]:
    """Cut ``total`` into (start, count) of at most ``size``, the first of at most ``first``."""
    start, take = 0, size if first is None else first
    while start < total:
        count = min(take, total - start)
        yield start, count
        start, take = start + count, size


def _rows(m: int, k_tiles: int, unit: int, caps: Caps) -> tuple[int, bool]:
    """Rows per chunk of m, and whether the activations of a chunk stay in the scratchpad for all of n."""
    c_half = caps.c_rows // 2
    if m <= c_half and m * k_tiles <= caps.a_words:
        return m, True
    most = min(c_half, caps.a_words // 2 // k_tiles)
    if most >= min(m, 2 * caps.n):
        return -(-m // -(-m // most)), True
    most = min(m, c_half, 8 * caps.n, caps.a_words // 2 // unit)
    return -(-m // -(-m // most)), False


def steps(m: int, k: int, n: int, caps: Caps) -> list[Step]:
    """Order of the computation C (m, n) = A (m, k) W (k, n) for an NPU of ``caps``."""
    size = caps.n
    k_tiles, n_tiles = caps.tiles(k), caps.tiles(n)
    unit = max(1, BEAT_BYTES // size)  # k tiles that make whole beats of an activation row
    mc_max, resident = _rows(m, k_tiles, unit, caps)
    # Steps of a small problem are cut shorter, so that even there loading overlaps computing.
    wanted = min(_STEP_CYCLES, max(4 * size, k_tiles * n_tiles * max(m, size) // 8))
    w_tiles = min(caps.w_words // 2 // size, _FIELD_MAX // (size * size))
    if w_tiles < min(unit, k_tiles) or caps.a_words // 2 < min(unit, k_tiles):
        raise ValueError(f"Half a scratchpad must hold {unit} tiles of k, not {caps!r}")
    k_most = w_tiles if resident else min(w_tiles, caps.a_words // 2 // mc_max)
    k_most = min(k_most, _FIELD_MAX // size)
    kc_max = k_tiles if k_most >= k_tiles else max(unit, k_most // unit * unit)
    # Activations that stay for all of n take the whole scratchpad if there is but one chunk of them.
    a_half = 0 if resident and mc_max == m else caps.a_words // 2
    plan: list[Step] = []
    block = 0
    for m_index, (m0, mc) in enumerate(_chunks(m, mc_max)):
        cost = max(mc, size)  # array cycles per tile
        c_tiles = caps.c_rows // 2 // mc
        nc_max = max(1, min(c_tiles, w_tiles // kc_max, -(-wanted // (kc_max * cost))))
        split = resident and mc * k_tiles > 4 * size
        nc_first = max(1, min(2, c_tiles, n_tiles, w_tiles // min(unit, k_tiles))) if split else nc_max
        for n0, nc in _chunks(n_tiles, nc_max, nc_first):
            starting = split and n0 == 0
            kc_here = kc_max
            if starting:
                kc_here = min(kc_max, max(unit, _FIRST_BYTES // size), w_tiles // nc)
                kc_here = kc_here if kc_here == k_tiles else kc_here // unit * unit
            for k0, kc in _chunks(k_tiles, kc_here):
                plan.append(
                    Step(
                        m0=m0,
                        mc=mc,
                        k0=k0,
                        kc=kc,
                        n0=n0,
                        nc=nc,
                        load_a=n0 == 0 or not resident,
                        first=k0 == 0,
                        last=k0 + kc == k_tiles,
                        block=block,
                        a_base=a_half * (m_index % 2) + k0 * mc if resident else a_half * (len(plan) % 2),
                    )
                )
            block += 1
    return plan


def gemm_program(
    *,
    m: int,
    k: int,
    n: int,
    a_addr: int,
    a_stride: int,
    w_addr: int,
    c_addr: int,
    c_stride: int,
    caps: Caps,
) -> list[Descriptor]:
    """Job that computes C (m, n) int32 = A (m, k) int8 times W (k, n) int8.

    Parameters
    ----------
    m, k, n
        Sizes, at least 1.
    a_addr, a_stride
        Address of A and bytes from row to row. Rows are read in whole beats of 16 bytes, so ``a_stride`` is at least k
        rounded up to 16; what fills a row up is ignored.
    w_addr
        Address of the weights as :func:`~flexserve_sw.npu.pack_weights` packs them for ``caps.n``.
    c_addr, c_stride
        Address of C and bytes from row to row, at least 4 n.

    All addresses and strides are multiples of 16 bytes. Loading the operands of a step waits for the step two before
    it, so two steps' weights fit the scratchpad; output blocks alternate between the halves of the accumulators.
    """
    for name, value in (("m", m), ("k", k), ("n", n)):
        if not 1 <= value <= _FIELD_MAX:
            raise ValueError(f"GEMM size {name} must be 1 to {_FIELD_MAX}, not {value!r}")
    for name, value in (("a_addr", a_addr), ("a_stride", a_stride), ("w_addr", w_addr), ("c_addr", c_addr)):
        if value < 0 or value % BEAT_BYTES:
            raise ValueError(f"GEMM operand {name} must be a multiple of {BEAT_BYTES}, not {value!r}")
    if c_stride % BEAT_BYTES or c_stride < 4 * n:
        raise ValueError(f"GEMM operand c_stride must be a multiple of {BEAT_BYTES} and at least 4 n, not {c_stride!r}")
    if a_stride < -(-k // BEAT_BYTES) * BEAT_BYTES:
        raise ValueError(f"GEMM operand a_stride must be at least k rounded up to {BEAT_BYTES}, not {a_stride!r}")
    size, k_tiles = caps.n, caps.tiles(k)
    tile_bytes = size * size
    plan = steps(m, k, n, caps)
    blocks = plan[-1].block + 1
    job: list[Descriptor] = []
    for index, s in enumerate(plan):
        w_base = index % 2 * (caps.w_words // 2)
        c_base = s.block % 2 * (caps.c_rows // 2)
        ready = index < 2
        if s.load_a:
            job.append(
                Load(
                    wait_next=not ready,
                    space=NpuSpace.ACTIVATIONS,
                    address=a_addr + s.m0 * a_stride + s.k0 * size,
                    stride=a_stride,
                    rows=s.mc,
                    row_bytes=min(k - s.k0 * size, s.kc * size),
                    base=s.a_base,
                    row_step=1,
                    word_step=s.mc,
                )
            )
            ready = True
        job.append(
            Load(
                wait_next=not ready,
                signal_next=True,
                space=NpuSpace.WEIGHTS,
                address=w_addr + (s.n0 * k_tiles + s.k0) * tile_bytes,
                stride=k_tiles * tile_bytes,
                rows=s.nc,
                row_bytes=s.kc * tile_bytes,
                base=w_base,
                row_step=s.kc * size,
                word_step=1,
            )
        )
        columns = min(n - s.n0 * size, s.nc * size)
        job.append(
            Matmul(
                wait_prev=True,
                wait_next=s.first and s.block >= 2,
                signal_prev=index + 2 < len(plan),
                signal_next=s.last,
                m=s.mc,
                k=min(k - s.k0 * size, s.kc * size),
                n=columns,
                a_base=s.a_base,
                a_step=s.mc,
                w_base=w_base,
                c_base=c_base,
                c_step=s.mc,
                accumulate=not s.first,
            )
        )
        if s.last:
            job.append(
                Store(
                    wait_prev=True,
                    signal_prev=s.block + 2 < blocks,
                    address=c_addr + s.m0 * c_stride + s.n0 * size * 4,
                    stride=c_stride,
                    rows=s.mc,
                    n=columns,
                    c_base=c_base,
                    c_step=s.mc,
                )
            )
    return job

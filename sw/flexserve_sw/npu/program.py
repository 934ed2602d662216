"""Job programs for whole GEMMs: tiling to the scratchpads and overlap of load, execute and store through tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from ..machine import BEAT_BYTES
from ..regs import NpuSpace
from .descriptors import CHANNEL_BYTES, Caps, Descriptor, Load, Matmul, Store
from .plan import FIELD_MAX, Step, plans
from .timing import job_cycles

__all__ = ["Requantise", "gemm_program"]

_SLOTS = 4
"""Blocks of sums that wait in one half of the accumulators."""


@dataclass(frozen=True, kw_only=True)
class Requantise:
    """int8 results: ``address`` of the channels' parameters as ``pack_parameters`` packs them, a multiple of 16."""

    address: int
    relu: bool = False


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
    requantise: Requantise | None = None,
) -> list[Descriptor]:
    """Job that computes C (m, n) int32 = A (m, k) int8 times W (k, n) int8, or C in int8 with ``requantise``.

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
        Address of C and bytes from row to row, at least 4 n, or n with ``requantise``.
    requantise
        Where the parameters of the channels are; ``caps.channels`` of them fit.

    All addresses and strides are multiples of 16 bytes. Loading the operands of a step waits for the step two before
    it, so two steps' weights fit the scratchpad; output blocks alternate between the halves of the accumulators.
    """
    for name, value in (("m", m), ("k", k), ("n", n)):
        if not 1 <= value <= FIELD_MAX:
            raise ValueError(f"GEMM size {name} must be 1 to {FIELD_MAX}, not {value!r}")
    for name, value in (("a_addr", a_addr), ("a_stride", a_stride), ("w_addr", w_addr), ("c_addr", c_addr)):
        if value < 0 or value % BEAT_BYTES:
            raise ValueError(f"GEMM operand {name} must be a multiple of {BEAT_BYTES}, not {value!r}")
    value_bytes = 4 if requantise is None else 1
    if c_stride % BEAT_BYTES or c_stride < value_bytes * n:
        raise ValueError(
            f"GEMM operand c_stride must be a multiple of {BEAT_BYTES} and at least {value_bytes * n}, not {c_stride!r}"
        )
    if requantise is not None and (requantise.address < 0 or requantise.address % BEAT_BYTES):
        raise ValueError(f"Parameters must begin at a multiple of {BEAT_BYTES}, not {requantise.address!r}")
    if requantise is not None and n > caps.channels:
        raise ValueError(f"GEMM with int8 results must have at most {caps.channels} columns, not {n!r}")
    if a_stride < -(-k // BEAT_BYTES) * BEAT_BYTES:
        raise ValueError(f"GEMM operand a_stride must be at least k rounded up to {BEAT_BYTES}, not {a_stride!r}")
    operands = _Operands(a_addr, a_stride, w_addr, c_addr, c_stride, requantise)
    return _program(_plan(m, k, n, caps, requantise is not None), k, n, operands, caps)


@dataclass(frozen=True)
class _Operands:
    """Where a GEMM's operands are."""

    a_addr: int
    a_stride: int
    w_addr: int
    c_addr: int
    c_stride: int
    requantise: Requantise | None


@lru_cache(maxsize=1024)
def _plan(m: int, k: int, n: int, caps: Caps, int8: bool) -> tuple[Step, ...]:
    """The plan that the estimate finds quickest, with operands that lie end to end."""
    value_bytes = 1 if int8 else 4
    a_stride, c_stride = (-(-row // BEAT_BYTES) * BEAT_BYTES for row in (k, n * value_bytes))
    operands = _Operands(0, a_stride, 0, 0, c_stride, Requantise(address=0) if int8 else None)
    candidates = list(plans(m, k, n, caps, value_bytes=value_bytes))

    def cost(plan: list[Step]) -> int:
        return job_cycles(_program(plan, k, n, operands, caps), caps)

    best = candidates[0] if len(candidates) == 1 else min(candidates, key=cost)
    return tuple(best)


def _program(plan: Sequence[Step], k: int, n: int, operands: _Operands, caps: Caps) -> list[Descriptor]:
    """The descriptors of a plan."""
    size, k_tiles = caps.n, caps.tiles(k)
    tile_bytes = size * size
    requantise = operands.requantise
    value_bytes = 4 if requantise is None else 1
    blocks = plan[-1].block + 1
    # Blocks of sums take turns in both halves of the accumulators, several to a half if they are small.
    most = max(s.mc * s.nc for s in plan)
    slots = 2 * min(_SLOTS, caps.c_rows // 2 // most)
    first_end = next(index for index, s in enumerate(plan) if s.last)
    job: list[Descriptor] = []
    for index, s in enumerate(plan):
        c_base = s.block % 2 * (caps.c_rows // 2) + s.block % slots // 2 * most
        waits = s.waits
        if s.a_tiles:
            job.append(
                Load(
                    wait_next=waits,
                    signal_next=not s.load_w,
                    space=NpuSpace.ACTIVATIONS,
                    address=operands.a_addr + s.m0 * operands.a_stride + s.k0 * size,
                    stride=operands.a_stride,
                    rows=s.mc,
                    row_bytes=min(k - s.k0 * size, s.a_tiles * size),
                    base=s.a_base,
                    row_step=1,
                    word_step=s.mc,
                )
            )
            waits = False
        if requantise is not None and index == first_end:
            # Loads keep their order: the parameters are there before the MATMUL of this step, so before any STORE.
            job.append(_parameters(requantise, n, caps))
        if s.load_w:
            job.append(
                Load(
                    wait_next=waits,
                    signal_next=True,
                    space=NpuSpace.WEIGHTS,
                    address=operands.w_addr + (s.n0 * k_tiles + s.k0) * tile_bytes,
                    stride=k_tiles * tile_bytes,
                    rows=s.nc,
                    row_bytes=s.kc * tile_bytes,
                    base=s.w_base,
                    row_step=s.kc * size,
                    word_step=1,
                )
            )
        columns = min(n - s.n0 * size, s.nc * size)
        job.append(
            Matmul(
                wait_prev=s.a_tiles > 0 or s.load_w,
                wait_next=s.first and s.block >= slots,
                signal_prev=s.frees,
                signal_next=s.last,
                m=s.mc,
                k=min(k - s.k0 * size, s.kc * size),
                n=columns,
                a_base=s.a_base,
                a_step=s.mc,
                w_base=s.w_base,
                c_base=c_base,
                c_step=s.mc,
                accumulate=not s.first,
            )
        )
        if s.last:
            job.append(
                Store(
                    wait_prev=True,
                    signal_prev=s.block + slots < blocks,
                    address=operands.c_addr + s.m0 * operands.c_stride + s.n0 * size * value_bytes,
                    stride=operands.c_stride,
                    rows=s.mc,
                    n=columns,
                    c_base=c_base,
                    c_step=s.mc,
                    quantise=requantise is not None,
                    relu=requantise is not None and requantise.relu,
                    q_base=0 if requantise is None else s.n0 * CHANNEL_BYTES,
                )
            )
    return job


def _parameters(requantise: Requantise, n: int, caps: Caps) -> Load:
    """Load the parameters of all channels, a tile to a row."""
    row = caps.n * CHANNEL_BYTES
    return Load(
        space=NpuSpace.PARAMETERS,
        address=requantise.address,
        stride=row,
        rows=caps.tiles(n),
        row_bytes=row,
        base=0,
        row_step=CHANNEL_BYTES,
        word_step=1,
    )

"""Job programs for whole GEMMs: tiling to the scratchpads and overlap of load, execute and store through tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from ..machine import BEAT_BYTES
from ..regs import NpuSpace
from .descriptors import CHANNEL_BYTES, Caps, Descriptor, Load, Matmul, Store
from .plan import FIELD_MAX, Step, accumulator_slots, packed, plans
from .timing import job_cycles

__all__ = ["Gemm", "Requantise", "gemm_program", "packed_program", "program", "single_program"]


@dataclass(frozen=True, kw_only=True)
class Requantise:
    """int8 results: ``address`` of the channels' parameters as ``pack_parameters`` packs them, a multiple of 16."""

    address: int
    relu: bool = False


@dataclass(frozen=True, kw_only=True)
class Gemm:
    """C (m, n) int32 = A (m, k) int8 times W (k, n) int8, or C in int8 with ``requantise``; and where it all is.

    Parameters
    ----------
    m, k, n
        Sizes, at least 1.
    a_addr, a_stride
        Address of A and bytes from row to row. Rows are read in whole beats of 16 bytes, so ``a_stride`` is at least k
        rounded up to 16; what fills a row up is ignored.
    w_addr, w_stride
        Address of the weights as :func:`~flexserve_sw.npu.pack_weights` packs them for the array's size; with
        ``w_stride`` row by row, so many bytes from one row to the next: at least n rounded up to whole words of the
        array and whole beats, for so much of a row is read.
    c_addr, c_stride
        Address of C and bytes from row to row, at least 4 n, or n with ``requantise``.
    requantise
        Where the parameters of the channels are; ``caps.channels`` of them fit.

    All addresses and strides are multiples of 16 bytes.
    """

    m: int
    k: int
    n: int
    a_addr: int
    a_stride: int
    w_addr: int
    c_addr: int
    c_stride: int
    requantise: Requantise | None = None
    w_stride: int | None = None

    def __post_init__(self) -> None:
        for name in ("m", "k", "n"):
            value = getattr(self, name)
            if not 1 <= value <= FIELD_MAX:
                raise ValueError(f"GEMM size {name} must be 1 to {FIELD_MAX}, not {value!r}")
        for name in ("a_addr", "a_stride", "w_addr", "c_addr"):
            value = getattr(self, name)
            if value < 0 or value % BEAT_BYTES:
                raise ValueError(f"GEMM operand {name} must be a multiple of {BEAT_BYTES}, not {value!r}")
        least, stride = self.value_bytes * self.n, self.c_stride
        if stride % BEAT_BYTES or stride < least:
            raise ValueError(
                f"GEMM operand c_stride must be a multiple of {BEAT_BYTES} and at least {least}, not {stride!r}"
            )
        if self.w_stride is not None and self.w_stride % BEAT_BYTES:
            raise ValueError(f"GEMM operand w_stride must be a multiple of {BEAT_BYTES}, not {self.w_stride!r}")
        if self.requantise is not None and (self.requantise.address < 0 or self.requantise.address % BEAT_BYTES):
            raise ValueError(f"Parameters must begin at a multiple of {BEAT_BYTES}, not {self.requantise.address!r}")
        if self.a_stride < -(-self.k // BEAT_BYTES) * BEAT_BYTES:
            raise ValueError(
                f"GEMM operand a_stride must be at least k rounded up to {BEAT_BYTES}, not {self.a_stride!r}"
            )

    @property
    def value_bytes(self) -> int:
        """Bytes of a value of C."""
        return 4 if self.requantise is None else 1

    @property
    def column_bytes(self) -> int:
        """Bytes of a column in the narrowest rows in memory: plans cut columns where they are whole beats of these."""
        return 4 if self.requantise is None and self.w_stride is None else 1


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
    w_stride: int | None = None,
) -> list[Descriptor]:
    """:func:`single_program` of a :class:`Gemm` with these members."""
    gemm = Gemm(
        m=m, k=k, n=n, a_addr=a_addr, a_stride=a_stride, w_addr=w_addr, c_addr=c_addr, c_stride=c_stride,
        requantise=requantise, w_stride=w_stride,
    )  # fmt: skip
    return single_program(gemm, caps)


def single_program(gemm: Gemm, caps: Caps) -> list[Descriptor]:
    """Job for one GEMM, by the plan that is quickest by :func:`job_cycles`."""
    plan = _plan(gemm.m, gemm.k, gemm.n, caps, gemm.requantise is not None, gemm.w_stride is not None)
    return program(plan, (gemm,), caps)


def packed_program(gemms: Sequence[Gemm], caps: Caps) -> list[Descriptor]:
    """One job for several GEMMs that do not need each other's results, such as those of a layer: the next one's weights
    load while one is computed, so that with few rows weights stream at the speed of the bus.

    Raises :class:`ValueError` if their activations are too large to be packed.
    """
    if not gemms:
        raise ValueError(f"A job must have at least one GEMM, not {gemms!r}")
    choices = packed([(g.m, g.k, g.n, g.column_bytes) for g in gemms], caps)
    jobs = [program(plan, gemms, caps) for plan in choices]
    return jobs[_quickest(jobs, caps)]


@lru_cache(maxsize=1024)
def _plan(m: int, k: int, n: int, caps: Caps, int8: bool, by_row: bool) -> tuple[Step, ...]:
    """The plan that the estimate finds quickest, with operands that lie end to end, weights packed or row by row."""
    value_bytes = 1 if int8 else 4
    a_stride, c_stride = (-(-row // BEAT_BYTES) * BEAT_BYTES for row in (k, n * value_bytes))
    gemm = Gemm(
        m=m, k=k, n=n, a_addr=0, a_stride=a_stride, w_addr=0, c_addr=0, c_stride=c_stride,
        requantise=Requantise(address=0) if int8 else None, w_stride=_row_bytes(n, caps) if by_row else None,
    )  # fmt: skip
    candidates = [*dict.fromkeys(map(tuple, plans(m, k, n, caps, value_bytes=gemm.column_bytes)))]
    if len(candidates) == 1:
        return candidates[0]
    jobs = [program(plan, (gemm,), caps) for plan in candidates]
    # Weights and activations are read once at least.
    beats = (caps.tiles(k) * caps.tiles(n) * caps.n * caps.n + m * a_stride) // BEAT_BYTES if not by_row else 0
    return candidates[_quickest(jobs, caps, beats=beats)]


def _quickest(jobs: Sequence[Sequence[Descriptor]], caps: Caps, *, beats: int = 0) -> int:
    """Number of the first of the jobs that take the fewest cycles; each reads so many beats of operands at least."""
    best, least = 0, None
    # Those with the most loads under way come last and are quick more often than not, so others are soon behind.
    for number in reversed(range(len(jobs))):
        cycles = job_cycles(jobs[number], caps, most=least, beats=beats)
        if least is None or cycles <= least:
            best, least = number, cycles
    return best


def _parameter_words(gemms: Sequence[Gemm], caps: Caps) -> list[int]:
    """Where the parameters of each GEMM's channels begin."""
    words, at = [], 0
    for gemm in gemms:
        words.append(at)
        at += 0 if gemm.requantise is None else caps.tiles(gemm.n) * CHANNEL_BYTES
    if at > caps.q_words:
        count = sum(gemm.n for gemm in gemms if gemm.requantise is not None)
        raise ValueError(f"A job with int8 results must have at most {caps.channels} columns, not {count!r}")
    return words


def program(plan: Sequence[Step], gemms: Sequence[Gemm], caps: Caps) -> list[Descriptor]:
    """The descriptors of a plan."""
    size = caps.n
    blocks = plan[-1].block + 1
    slots = accumulator_slots(plan, caps)
    parameters = _parameter_words(gemms, caps)
    begun: set[int] = set()
    job: list[Descriptor] = []
    for m0, mc, k0, kc, n0, nc, a_tiles, load_w, waits, frees, first, last, block, a_base, w_base, w_step, gemm in plan:
        g = gemms[gemm]
        requantise = g.requantise
        c_base = slots[block % len(slots)]
        k_left, wait_next = g.k - k0 * size, waits
        if a_tiles:
            job.append(
                Load(
                    NpuSpace.ACTIVATIONS, g.a_addr + m0 * g.a_stride + k0 * size, g.a_stride, mc,
                    min(k_left, a_tiles * size), a_base, 1, mc, False, wait_next, False, not load_w,
                )
            )  # fmt: skip
            wait_next = False
        if requantise is not None and last and gemm not in begun:
            # Loads keep their order: the parameters are there before the MATMUL of this step, so before any STORE.
            begun.add(gemm)
            job.append(_parameters(requantise, g.n, parameters[gemm], caps))
        if load_w:
            job.append(_weights((k0, kc), (n0, nc), g, caps, base=w_base, step=w_step, wait_next=wait_next))
        columns = min(g.n - n0 * size, nc * size)
        job.append(
            Matmul(
                mc, min(k_left, kc * size), columns, a_base, mc, w_base, w_step, c_base, mc, not first,
                a_tiles > 0 or load_w, first and block >= len(slots), frees, last,
            )
        )  # fmt: skip
        if last:
            address = g.c_addr + m0 * g.c_stride + n0 * size * g.value_bytes
            q_base = 0 if requantise is None else parameters[gemm] + n0 * CHANNEL_BYTES
            relu = requantise is not None and requantise.relu
            signal_prev = block + len(slots) < blocks
            job.append(
                Store(
                    address, g.c_stride, mc, columns, c_base, mc, requantise is not None, relu, q_base,
                    True, False, signal_prev, False,
                )
            )  # fmt: skip
    return job


def _row_bytes(n: int, caps: Caps) -> int:
    """Bytes of a row of weights of n columns, in whole words and beats."""
    word = max(BEAT_BYTES, caps.n)
    return -(-n // word) * word


def _weights(
    k: tuple[int, int], n: tuple[int, int], gemm: Gemm, caps: Caps, *, base: int, step: int, wait_next: bool
) -> Load:
    """Load the weights of tiles of ``k`` and ``n``, start and count each: tile columns end to end, or rows."""
    (k0, kc), (n0, nc), size = k, n, caps.n
    if gemm.w_stride is not None:
        if gemm.w_stride < _row_bytes(gemm.n, caps):
            least = _row_bytes(gemm.n, caps)
            raise ValueError(f"Rows of weights must be at least {least} bytes apart, not {gemm.w_stride!r}")
        address, rows = gemm.w_addr + k0 * size * gemm.w_stride + n0 * size, min(gemm.k - k0 * size, kc * size)
        return Load(
            NpuSpace.WEIGHTS, address, gemm.w_stride, rows, nc * size, base, 1, step, False, wait_next, False, True
        )
    tile, k_tiles = size * size, caps.tiles(gemm.k)
    address = gemm.w_addr + (n0 * k_tiles + k0) * tile
    return Load(
        NpuSpace.WEIGHTS, address, k_tiles * tile, nc, kc * tile, base, step, 1, False, wait_next, False, True
    )


def _parameters(requantise: Requantise, n: int, base: int, caps: Caps) -> Load:
    """Load the parameters of all channels, a tile to a row."""
    row = caps.n * CHANNEL_BYTES
    return Load(
        space=NpuSpace.PARAMETERS,
        address=requantise.address,
        stride=row,
        rows=caps.tiles(n),
        row_bytes=row,
        base=base,
        row_step=CHANNEL_BYTES,
        word_step=1,
    )

"""Golden executor of NPU jobs: what a job computes, descriptor by descriptor, with the faults of the hardware.

A fault stops a job at once. The hardware's units overlap, so after BUS_ERROR the memory written by *other* descriptors
of the same job is not promised; everything else agrees bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..machine import BEAT_BYTES, PAGE_BYTES, BusFault
from ..regs import NpuFault, NpuSpace
from .descriptors import (
    CHANNEL_BYTES,
    DESCRIPTOR_BYTES,
    Caps,
    Descriptor,
    Fence,
    Load,
    Matmul,
    Store,
    decode,
    unpack_parameters,
)

__all__ = [
    "NpuFaulted",
    "NpuStalled",
    "NpuState",
    "ReadMemory",
    "WriteMemory",
    "check",
    "execute",
    "perform",
    "requantise",
    "run_job",
    "stalls",
]

ReadMemory = Callable[[int, int], bytes]
"""``(address, length) -> bytes``; raises :class:`BusFault` where the bus would. Never asked across a page."""

ADDRESS_SPACE = 1 << 32
"""Bytes that the NPU can address; what reaches past the end fails and never wraps around."""

WriteMemory = Callable[[int, bytes], None]
"""``(address, payload)``; raises :class:`BusFault` where the bus would. Never asked across a page."""


class NpuFaulted(Exception):
    """A job stopped. ``address`` is of the data for BUS_ERROR, else of the descriptor."""

    def __init__(self, code: NpuFault, index: int, address: int) -> None:
        super().__init__(f"Job stopped at descriptor {index} with {code.name} at {address:#x}")
        self.code = code
        self.index = index
        self.address = address


class NpuStalled(Exception):
    """A job waits for a token that no earlier descriptor gives; the hardware waits until it is aborted."""

    def __init__(self, index: int) -> None:
        super().__init__(f"Descriptor {index} waits for a token that no earlier one gives")
        self.index = index


@dataclass
class NpuState:
    """What an NPU remembers: scratchpads and parameters (words, N) int8, accumulators (rows, N) int32."""

    caps: Caps
    a: npt.NDArray[np.int8] = field(init=False)
    w: npt.NDArray[np.int8] = field(init=False)
    c: npt.NDArray[np.int32] = field(init=False)
    q: npt.NDArray[np.int8] = field(init=False)

    def __post_init__(self) -> None:
        self.a = np.zeros((self.caps.a_words, self.caps.n), dtype=np.int8)
        self.w = np.zeros((self.caps.w_words, self.caps.n), dtype=np.int8)
        self.c = np.zeros((self.caps.c_rows, self.caps.n), dtype=np.int32)
        self.q = np.zeros((self.caps.q_words, self.caps.n), dtype=np.int8)

    def scrub(self) -> None:
        """Zero everything, as the hardware does before the NPU changes hands."""
        self.a[:] = 0
        self.w[:] = 0
        self.c[:] = 0
        self.q[:] = 0

    def space(self, space: NpuSpace) -> npt.NDArray[np.int8]:
        """The memory that a LOAD fills."""
        return {NpuSpace.ACTIVATIONS: self.a, NpuSpace.WEIGHTS: self.w, NpuSpace.PARAMETERS: self.q}[space]


class _Tokens:
    """Tokens waiting between neighbouring units."""

    def __init__(self) -> None:
        self._waiting = {link: 0 for links in _LINKS.values() for link in links if link is not None}

    def take(self, name: str, index: int) -> None:
        """Take a token or stall."""
        if self._waiting[name] == 0:
            raise NpuStalled(index)
        self._waiting[name] -= 1

    def give(self, name: str) -> None:
        """Give a token."""
        self._waiting[name] += 1


_LINKS: dict[type, tuple[str | None, str | None, str | None, str | None]] = {
    Fence: (None, None, None, None),
    Load: (None, "execute_to_load", None, "load_to_execute"),
    Matmul: ("load_to_execute", "store_to_execute", "execute_to_load", "execute_to_store"),
    Store: ("execute_to_store", None, "store_to_execute", None),
}
"""Token counters that wait_prev, wait_next, signal_prev and signal_next mean to each kind of descriptor."""


_MEANINGLESS = {
    kind: tuple(flag - 4 for flag, link in enumerate(links) if link is None) for kind, links in _LINKS.items()
}
"""Flags that no kind of token goes with, by where they are at the end of a descriptor."""


def _flags(descriptor: Descriptor) -> tuple[bool, bool, bool, bool]:
    return descriptor.wait_prev, descriptor.wait_next, descriptor.signal_prev, descriptor.signal_next


def tokens_of(descriptor: Descriptor) -> tuple[str | None, ...]:
    """Tokens of a descriptor's four flags (wait_prev, wait_next, signal_prev, signal_next), None for a flag not set."""
    pairs = zip(_flags(descriptor), _LINKS[type(descriptor)], strict=True)
    return tuple(link if flag else None for flag, link in pairs)


def check(descriptor: Descriptor, caps: Caps) -> NpuFault:
    """Fault that the hardware finds in a descriptor before it does anything for it, or NONE."""
    for flag in _MEANINGLESS[type(descriptor)]:
        if descriptor[flag]:
            return NpuFault.BAD_DESCRIPTOR
    match descriptor:
        case Load():
            return _check_load(descriptor, caps)
        case Matmul():
            return _check_matmul(descriptor, caps)
        case Store():
            return _check_store(descriptor, caps)
    return NpuFault.NONE


def _check_load(load: Load, caps: Caps) -> NpuFault:
    space, address, stride, rows, row_bytes, base, row_step, word_step, *_ = load
    if rows == 0 or row_bytes == 0 or (address | stride) % BEAT_BYTES:
        return NpuFault.BAD_DESCRIPTOR
    last = base + (rows - 1) * row_step + (caps.tiles(row_bytes) - 1) * word_step
    depth = caps.w_words if space is NpuSpace.WEIGHTS else caps.a_words
    if space is NpuSpace.PARAMETERS:
        depth = caps.q_words
    return NpuFault.NONE if last < depth else NpuFault.SCRATCHPAD_RANGE


def _check_matmul(matmul: Matmul, caps: Caps) -> NpuFault:
    m, k, n, a_base, a_step, w_base, w_step, c_base, c_step, *_ = matmul
    if m == 0 or k == 0 or n == 0:
        return NpuFault.BAD_DESCRIPTOR
    k_tiles, n_tiles = caps.tiles(k), caps.tiles(n)
    fits = (
        a_base + (k_tiles - 1) * a_step + m <= caps.a_words
        and w_base + (n_tiles - 1) * w_step + k_tiles * caps.n <= caps.w_words
        and c_base + (n_tiles - 1) * c_step + m <= caps.c_rows
    )
    return NpuFault.NONE if fits else NpuFault.SCRATCHPAD_RANGE


def _check_store(store: Store, caps: Caps) -> NpuFault:
    address, stride, rows, n, c_base, c_step, quantise, relu, q_base, *_ = store
    if rows == 0 or n == 0 or (address | stride) % BEAT_BYTES:
        return NpuFault.BAD_DESCRIPTOR
    if (relu and not quantise) or (quantise and q_base % 4):
        return NpuFault.BAD_DESCRIPTOR
    tiles = caps.tiles(n)
    fits = c_base + (tiles - 1) * c_step + rows <= caps.c_rows and (
        not quantise or q_base + tiles * CHANNEL_BYTES <= caps.q_words
    )
    return NpuFault.NONE if fits else NpuFault.SCRATCHPAD_RANGE


def _pieces(address: int, length: int) -> list[tuple[int, int]]:
    """Cut an access at page borders: (address, length) each."""
    pieces = []
    while length:
        size = min(length, PAGE_BYTES - address % PAGE_BYTES)
        pieces.append((address, size))
        address, length = address + size, length - size
    return pieces


def _load(load: Load, state: NpuState, read: ReadMemory) -> None:
    n = state.caps.n
    memory = state.space(load.space)
    words = state.caps.tiles(load.row_bytes)
    beats = -(-load.row_bytes // BEAT_BYTES)
    places = load.base + load.word_step * np.arange(words)
    for row in range(load.rows):
        pieces = _pieces(load.address + row * load.stride, beats * BEAT_BYTES)
        content = b"".join(read(address, length) for address, length in pieces)[: load.row_bytes]
        filled = np.frombuffer(content.ljust(words * n, b"\0"), dtype=np.int8)
        memory[places + row * load.row_step] = filled.reshape(words, n)


def _matmul(matmul: Matmul, state: NpuState) -> None:
    n, m = state.caps.n, matmul.m
    k_tiles, n_tiles = state.caps.tiles(matmul.k), state.caps.tiles(matmul.n)
    a_places = matmul.a_base + np.arange(k_tiles)[None, :] * matmul.a_step + np.arange(m)[:, None]
    a = state.a[a_places].reshape(m, k_tiles * n)[:, : matmul.k].astype(np.float64)
    for tile in range(n_tiles):
        w = state.w[matmul.w_base + tile * matmul.w_step :][: matmul.k].astype(np.float64)
        w[:, matmul.n - tile * n :] = 0
        # Products of int8 summed over at most 65535 terms are exact in float64, and BLAS is quick there.
        product = (a @ w).astype(np.int64)
        rows = slice(matmul.c_base + tile * matmul.c_step, matmul.c_base + tile * matmul.c_step + m)
        if matmul.accumulate:
            product += state.c[rows]
        state.c[rows] = product.astype(np.int32)


def requantise(
    sums: npt.NDArray[np.int32],
    bias: npt.NDArray[np.int64],
    multiplier: npt.NDArray[np.int64],
    shift: npt.NDArray[np.int64],
    *,
    relu: bool = False,
) -> npt.NDArray[np.int8]:
    """int8 of int32 ``sums`` (..., channels): ``saturate((sum + bias) * multiplier / 2**shift)``, halves upwards."""
    doubled = ((sums.astype(np.int64) + bias) * multiplier * 2) >> shift
    clipped: npt.NDArray[np.int64] = np.clip((doubled + 1) >> 1, 0 if relu else -128, 127)
    return clipped.astype(np.int8)


def _store(store: Store, state: NpuState, write: WriteMemory) -> None:
    tiles = state.caps.tiles(store.n)
    places = store.c_base + np.arange(tiles) * store.c_step
    parameters = unpack_parameters(state.q[store.q_base : store.q_base + tiles * CHANNEL_BYTES])
    for row in range(store.rows):
        sums = state.c[places + row].reshape(-1)
        if store.quantise:
            content = requantise(sums, *parameters, relu=store.relu)[: store.n].tobytes()
        else:
            content = sums[: store.n].astype("<i4").tobytes()
        start = store.address + row * store.stride
        for address, length in _pieces(start, len(content)):
            write(address, content[address - start : address - start + length])


def _take(descriptor: Descriptor, index: int, tokens: _Tokens) -> None:
    wait_prev, wait_next, _, _ = _LINKS[type(descriptor)]
    if descriptor.wait_prev and wait_prev is not None:
        tokens.take(wait_prev, index)
    if descriptor.wait_next and wait_next is not None:
        tokens.take(wait_next, index)


def _give(descriptor: Descriptor, tokens: _Tokens) -> None:
    _, _, signal_prev, signal_next = _LINKS[type(descriptor)]
    if descriptor.signal_prev and signal_prev is not None:
        tokens.give(signal_prev)
    if descriptor.signal_next and signal_next is not None:
        tokens.give(signal_next)


def stalls(descriptors: Sequence[Descriptor]) -> None:
    """Raise :class:`NpuStalled` if a job of these waits for a token that no earlier one gives."""
    tokens = _Tokens()
    for index, descriptor in enumerate(descriptors):
        if any(descriptor[-4:]):
            _take(descriptor, index, tokens)
            _give(descriptor, tokens)


def perform(descriptor: Descriptor, index: int, state: NpuState, read: ReadMemory, write: WriteMemory) -> None:
    """Do what one checked descriptor does, its tokens left aside. Raises :class:`NpuFaulted` with BUS_ERROR."""
    try:
        match descriptor:
            case Load():
                _load(descriptor, state, read)
            case Matmul():
                _matmul(descriptor, state)
            case Store():
                _store(descriptor, state, write)
    except BusFault as fault:
        raise NpuFaulted(NpuFault.BUS_ERROR, index, fault.address) from fault


def _step(
    descriptor: Descriptor, index: int, tokens: _Tokens, state: NpuState, read: ReadMemory, write: WriteMemory
) -> None:
    _take(descriptor, index, tokens)
    perform(descriptor, index, state, read, write)
    _give(descriptor, tokens)


def execute(
    descriptors: Sequence[Descriptor],
    read_memory: ReadMemory,
    write_memory: WriteMemory,
    caps: Caps,
    *,
    state: NpuState | None = None,
    job_address: int = 0,
) -> NpuState:
    """Run a job and return the NPU's memories after it.

    ``state`` is what earlier jobs left (fresh zeros by default) and is changed in place; ``job_address`` is only used
    in faults. Raises :class:`NpuFaulted` where the hardware reports a fault and :class:`NpuStalled` where it hangs.
    """
    state = NpuState(caps) if state is None else state
    tokens = _Tokens()
    for index, descriptor in enumerate(descriptors):
        fault = check(descriptor, caps)
        if fault is not NpuFault.NONE:
            raise NpuFaulted(fault, index, job_address + index * DESCRIPTOR_BYTES)
        _step(descriptor, index, tokens, state, read_memory, write_memory)
    return state


def run_job(
    address: int, count: int, read_memory: ReadMemory, write_memory: WriteMemory, state: NpuState
) -> list[Descriptor]:
    """Fetch ``count`` descriptors at ``address`` and run them as the hardware does on a doorbell; return them.

    Raises like :func:`execute`; an empty or misaligned list is a BAD_DESCRIPTOR at index 0.
    """
    if count == 0 or address % DESCRIPTOR_BYTES:
        raise NpuFaulted(NpuFault.BAD_DESCRIPTOR, 0, address)
    done: list[Descriptor] = []
    tokens = _Tokens()
    for index in range(count):
        place = address + index * DESCRIPTOR_BYTES
        if place >= ADDRESS_SPACE:
            raise NpuFaulted(NpuFault.FETCH_ERROR, index, place)
        try:
            encoded = read_memory(place, DESCRIPTOR_BYTES)
        except BusFault as refused:
            raise NpuFaulted(NpuFault.FETCH_ERROR, index, place) from refused
        try:
            descriptor = decode(encoded)
        except ValueError as error:
            raise NpuFaulted(NpuFault.BAD_DESCRIPTOR, index, place) from error
        fault = check(descriptor, state.caps)
        if fault is not NpuFault.NONE:
            raise NpuFaulted(fault, index, place)
        _step(descriptor, index, tokens, state, read_memory, write_memory)
        done.append(descriptor)
    return done

"""Random job lists without fences: only tokens keep their descriptors apart, and no more of them than are needed.

A GEMM's list is regular: a tile's tokens always stand in the same places. Here descriptors of any shape follow each
other in any order, read what was just written and overwrite what is just read, with exactly the tokens that the data
call for, so that whatever a unit does too early shows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flexserve_sw.npu import Caps, Descriptor, Load, Matmul, NpuState, Store, execute
from flexserve_sw.regs import NpuFault, NpuSpace

from .alone import Alone
from .campaign import Mismatch, conditions

__all__ = ["RESULTS", "SOURCES", "check_lists", "descriptor", "token_list"]

SOURCES = range(0x10000, 0x20000)
"""Memory that random LOADs read."""
RESULTS = range(0x20000, 0x30000)
"""Memory that random STOREs write."""

_LIST_AT = 0x1000
_LENGTH = 24
_LISTS = 4
"""Lists that follow each other on an NPU which keeps what it holds: they read what those before them left."""

_Unit = Load | Matmul | Store
_Words = frozenset[tuple[str, int]]
_LOAD, _EXECUTE, _STORE = range(3)
_UNITS: dict[type, int] = {Load: _LOAD, Matmul: _EXECUTE, Store: _STORE}


def descriptor(kind: type[Descriptor], rng: np.random.Generator, caps: Caps) -> Descriptor | None:
    """A random legal descriptor of a kind, or None if the one that was drawn does not fit the NPU's memories."""
    if kind is Load:
        return _load(rng, caps)
    return _matmul(rng, caps) if kind is Matmul else _store(rng, caps)


def _load(rng: np.random.Generator, caps: Caps) -> Load | None:
    space = NpuSpace(int(rng.integers(3)))
    depth = (caps.a_words, caps.w_words, caps.q_words)[space]
    rows, row_bytes = int(rng.integers(1, 5)), int(rng.integers(1, 100))
    words = caps.tiles(row_bytes)
    row_step, word_step = (int(rng.integers(0, 9)) for _ in range(2))
    reach = (rows - 1) * row_step + (words - 1) * word_step
    if reach >= depth:
        return None
    return Load(
        space=space,
        address=SOURCES.start + 16 * int(rng.integers(0, 3000)),
        stride=16 * int(rng.integers(0, 300)),
        rows=rows,
        row_bytes=row_bytes,
        base=int(rng.integers(0, depth - reach)),
        row_step=row_step,
        word_step=word_step,
    )


def _matmul(rng: np.random.Generator, caps: Caps) -> Matmul:
    m = int(rng.integers(1, min(2 * caps.n, caps.c_rows // 3) + 1))
    k, n = (int(rng.integers(1, 2 * caps.n + 1)) for _ in range(2))
    k_tiles, n_tiles = caps.tiles(k), caps.tiles(n)
    w_step = int(rng.integers(0, k_tiles * caps.n + 1))
    return Matmul(
        m=m,
        k=k,
        n=n,
        a_base=int(rng.integers(0, caps.a_words - (k_tiles - 1) * 3 - m + 1)),
        a_step=3,
        w_base=int(rng.integers(0, caps.w_words - k_tiles * caps.n - (n_tiles - 1) * w_step + 1)),
        w_step=w_step,
        c_base=int(rng.integers(0, caps.c_rows - (n_tiles - 1) * m - m + 1)),
        c_step=m,
        accumulate=bool(rng.integers(2)),
    )


def _store(rng: np.random.Generator, caps: Caps) -> Store:
    rows, n, quantise = int(rng.integers(1, 5)), int(rng.integers(1, 3 * caps.n)), bool(rng.integers(2))
    return Store(
        address=RESULTS.start + 16 * int(rng.integers(0, 2000)),
        stride=-(-n // 4) * 16 + 16 * int(rng.integers(0, 20)) * int(rng.integers(2)),
        rows=rows,
        n=n,
        c_base=int(rng.integers(0, caps.c_rows - 3 * rows)),
        c_step=rows,
        quantise=quantise,
        relu=quantise and bool(rng.integers(2)),
        q_base=4 * int(rng.integers(0, (caps.q_words - 8 * caps.tiles(n)) // 4 + 1)),
    )


def _touched(found: Descriptor, caps: Caps) -> tuple[_Words, _Words]:
    """Words of the NPU's memories that a descriptor reads, and that it writes."""
    match found:
        case Load():
            words = (
                found.base + row * found.row_step + word * found.word_step
                for row in range(found.rows)
                for word in range(caps.tiles(found.row_bytes))
            )
            return frozenset(), frozenset((found.space.name, word) for word in words)
        case Matmul():
            k_tiles, n_tiles = caps.tiles(found.k), caps.tiles(found.n)
            read = {
                ("ACTIVATIONS", found.a_base + t * found.a_step + row) for t in range(k_tiles) for row in range(found.m)
            }
            weights = (found.w_base + t * found.w_step + row for t in range(n_tiles) for row in range(k_tiles * caps.n))
            read |= {("WEIGHTS", word) for word in weights}
            sums = {("SUMS", found.c_base + t * found.c_step + row) for t in range(n_tiles) for row in range(found.m)}
            return frozenset(read | sums if found.accumulate else read), frozenset(sums)
        case Store():
            tiles = caps.tiles(found.n)
            read = {("SUMS", found.c_base + t * found.c_step + row) for t in range(tiles) for row in range(found.rows)}
            if found.quantise:
                read |= {("PARAMETERS", found.q_base + word) for word in range(8 * tiles)}
            return frozenset(read), frozenset()
    raise TypeError(f"Descriptor must be of a unit, not {found!r}")


@dataclass
class _Placed:
    """A descriptor in the list; ``after``: by unit, the last descriptor known to be finished when this one starts."""

    descriptor: _Unit
    unit: int
    reads: _Words
    writes: _Words
    after: list[int]

    def needs(self, reads: _Words, writes: _Words) -> bool:
        """Whether what reads and writes these words must wait for this one."""
        return not (self.writes.isdisjoint(reads) and self.writes.isdisjoint(writes) and self.reads.isdisjoint(writes))


def token_list(rng: np.random.Generator, caps: Caps, *, length: int = _LENGTH) -> list[Descriptor]:
    """A legal list of ``length`` random descriptors in which tokens alone keep the order that the data need.

    No LOAD reads what a STORE of the list writes. A token says that one descriptor and all before it in its unit are
    done; between the load and the store unit it goes by way of a MATMUL. A few are given that no data call for.
    """
    small = _corner(rng, caps)
    placed: list[_Placed] = []
    while len(placed) < length:
        kind = (Load, Matmul, Store)[int(rng.integers(3))]
        found = descriptor(kind, rng, small)
        if isinstance(found, _Unit):
            _place(found, placed, caps, spare=rng.random() < 0.1)
    return [each.descriptor for each in placed]


def _corner(rng: np.random.Generator, caps: Caps) -> Caps:
    """Often all of a list happens in a small part of the memories, so that its descriptors meet there."""
    if rng.random() < 0.25:
        return caps
    few = 4 * caps.n
    return replace(
        caps, a_words=min(caps.a_words, few), w_words=min(caps.w_words, few), c_rows=min(caps.c_rows, 2 * few)
    )


def _flagged(found: _Unit, flag: str) -> _Unit:
    flags: dict[str, Any] = {flag: True}
    return found._replace(**flags)


def _place(found: _Unit, placed: list[_Placed], caps: Caps, *, spare: bool) -> None:
    """Append a descriptor with the tokens that it needs; not if they would have to go by way of a MATMUL not there."""
    unit = _UNITS[type(found)]
    reads, writes = _touched(found, caps)
    latest = [max((i for i, p in enumerate(placed) if p.unit == u), default=-1) for u in range(3)]
    after = list(placed[latest[unit]].after) if latest[unit] >= 0 else [-1, -1, -1]
    needed = [-1, -1, -1]
    for index, earlier in enumerate(placed):
        if earlier.unit != unit and earlier.needs(reads, writes):
            needed[earlier.unit] = index
    if unit != _EXECUTE:
        far = _STORE - unit
        if needed[far] > after[far]:
            between = next(
                (i for i, p in enumerate(placed) if p.unit == _EXECUTE and p.after[far] >= needed[far]), None
            )
            if between is None:
                return
            needed[_EXECUTE] = max(needed[_EXECUTE], between)
    near = (_LOAD, _STORE) if unit == _EXECUTE else (_EXECUTE,)
    for giver in near:
        wanted = max(needed[giver], latest[giver]) if spare else needed[giver]
        if wanted <= after[giver]:
            continue
        upwards = giver < unit
        given = placed[wanted]
        given.descriptor = _flagged(given.descriptor, "signal_next" if upwards else "signal_prev")
        found = _flagged(found, "wait_prev" if upwards else "wait_next")
        after = [max(pair) for pair in zip(after, given.after, strict=True)]
        after[giver] = max(after[giver], wanted)
    placed.append(_Placed(found, unit, reads, writes, after))


def check_lists(npu: Alone, seed: int) -> int:
    """Run lists of a seed one after the other against the golden executor; returns their cycles.

    Raises :class:`~.campaign.Mismatch` if a job fails or memory differs in any byte.
    """
    rng = np.random.default_rng([seed, 2])
    npu.own(secure=bool(rng.integers(2)))
    npu.behave(conditions(rng), seed=seed)
    npu.memory[: RESULTS.stop] = rng.integers(0, 256, RESULTS.stop, dtype=np.uint8)
    state, cycles = NpuState(npu.caps), 0
    for number in range(_LISTS):
        job = token_list(rng, npu.caps)
        npu.put_list(job, _LIST_AT)
        golden = npu.memory.copy()

        def read(address: int, length: int, golden: np.ndarray = golden) -> bytes:
            return golden[address : address + length].tobytes()

        def write(address: int, payload: bytes, golden: np.ndarray = golden) -> None:
            golden[address : address + len(payload)] = np.frombuffer(payload, np.uint8)

        execute(job, read, write, npu.caps, state=state)
        outcome = npu.run(job, _LIST_AT)
        cycles += outcome.cycles
        wrong = np.flatnonzero(npu.memory != golden)
        if outcome.fault is not NpuFault.NONE or len(wrong):
            what = f"first at {wrong[0]:#x}" if len(wrong) else f"ended with {outcome.fault.name}"
            raise Mismatch(
                f"N={npu.caps.n}, list {number}: {len(wrong)} bytes differ, {what}; "
                f"again: flexserve bench gemms --seed {seed} --count 1"
            )
    return cycles

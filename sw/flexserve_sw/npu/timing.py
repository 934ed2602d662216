"""How long a job takes: the three units of the NPU played burst by burst.

Constants are those of the RTL in the phone's SoC, behind the filter; ``make bench-npu`` holds the estimate beside what
the RTL takes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from ..machine import BEAT_BYTES
from .descriptors import DESCRIPTOR_BYTES, Caps, Descriptor, Fence, Load, Matmul, Store

__all__ = ["JobTimes", "job_bursts", "job_cycles", "job_times"]

_START = 6
"""Cycles from the doorbell's write to the request of the first descriptors: both are shown from registers."""

_DISPATCH = 11
"""Cycles from descriptor to descriptor in the dispatcher."""

_QUEUE = 6
"""Commands that wait in front of a unit: four in a queue, two in the register that shows them."""

_FETCHED_AHEAD = 32
"""Descriptors fetched ahead."""

_READ_PATH, _WRITE_PATH = 2, 4
"""Cycles that a request and its answer spend outside memory; a write's answer in one register more."""

_OUTSTANDING = 31
"""Bursts per direction that may be unanswered."""

_READ_BURST, _WRITE_BURST = 32, 16
"""Beats of the longest bursts; none crosses a multiple of its own length."""

_STORE_QUEUE = 64 - 13
"""Beats that wait for the bus at most: as many fit but those that are between the rows and the queue."""

_LAG, _LAG_QUANTISED = 7, 15
"""Cycles from the read of a row of sums to the request of the write of its beats; eight of them in the requantiser."""

_FILL = 7
"""Cycles beyond N from the last row of activations to its sums being readable, product and sum included."""

_BANK_ROWS = 1024
"""Rows of the largest bank of accumulators."""

_SLOTS = 8
"""STOREs that are looked at for one that still reads."""

_END = 3
"""Cycles from the last answer to the interrupt."""


def _bursts(address: int, stride: int, rows: int, beats: int, most: int, *, linear: bool) -> Iterator[tuple[int, int]]:
    """Address and beats of each burst, in order."""
    if linear:
        rows, beats = 1, rows * beats
    for row in range(rows):
        at, left = (address + row * stride) // BEAT_BYTES, beats
        while left:
            size = min(left, most - at % most)
            yield at * BEAT_BYTES, size
            at, left = at + size, left - size


def _load_bursts(load: Load) -> Iterator[tuple[int, int]]:
    beats, linear = _load_beats(load)
    return _bursts(load.address, load.stride, load.rows, beats, _READ_BURST, linear=linear)


def _load_beats(load: Load) -> tuple[int, bool]:
    """Beats of a row, and whether all rows are read as one."""
    beats = -(-load.row_bytes // BEAT_BYTES)
    return beats, load.stride == beats * BEAT_BYTES


def _store_bursts(store: Store) -> Iterator[tuple[int, int]]:
    beats, linear = _store_beats(store)
    return _bursts(store.address, store.stride, store.rows, beats, _WRITE_BURST, linear=linear)


def _store_beats(store: Store) -> tuple[int, bool]:
    """Beats of a row, and whether all rows are written as one."""
    beats = -(-store.n // (BEAT_BYTES if store.quantise else 4))
    return beats, store.stride == beats * BEAT_BYTES and (store.n % (16 if store.quantise else 4)) == 0


@lru_cache(maxsize=1 << 14)
def _sizes(address: int, stride: int, rows: int, beats: int, most: int, linear: bool) -> tuple[int, ...]:
    """Beats of each burst; of address and stride only what lies within ``most`` beats counts."""
    return tuple([size for _, size in _bursts(address, stride, rows, beats, most, linear=linear)])


def job_bursts(descriptors: Sequence[Descriptor]) -> Iterator[tuple[int, bool]]:
    """Address and direction (True: a write) of every burst of operands and results."""
    for descriptor in descriptors:
        if isinstance(descriptor, Load):
            yield from ((address, False) for address, _ in _load_bursts(descriptor))
        elif isinstance(descriptor, Store):
            yield from ((address, True) for address, _ in _store_bursts(descriptor))


@dataclass(frozen=True)
class JobTimes:
    """When things happen in a job, in cycles since the doorbell.

    ``handed`` is when the dispatcher hands each descriptor out, ``done`` when its effect is there, ``cycles`` when the
    interrupt rises.
    """

    handed: tuple[int, ...]
    done: tuple[int, ...]
    cycles: int


@dataclass
class _Unit:
    """One of the three units: commands taken so far, and until when it is busy."""

    depth: int
    taken: deque[int] = field(default_factory=deque)
    free: int = 0

    def room(self) -> int:
        """When the queue in front of the unit has room for one more command."""
        return self.taken[0] if len(self.taken) == self.depth else 0

    def take(self, at: int) -> int:
        """A command is taken at ``at`` at the earliest."""
        at = max(at, self.free)
        if len(self.taken) == self.depth:
            self.taken.popleft()
        self.taken.append(at)
        return at


class _Timeline:
    """The units and the tokens between them, in cycles since the doorbell."""

    def __init__(self, caps: Caps, latency: int, count: int) -> None:
        self.caps = caps
        self.unfetched = max(0, count - _FETCHED_AHEAD)
        self.fetching = 0  # beats of descriptors that are on the bus between those of loads
        self.read_latency, self.write_latency = latency + _READ_PATH, latency + _WRITE_PATH
        self.handout = _START + self.read_latency
        self.load, self.execute, self.store = _Unit(_QUEUE), _Unit(_QUEUE), _Unit(_QUEUE)
        self.units: dict[type, _Unit] = {Load: self.load, Matmul: self.execute, Store: self.store}
        self.tokens: dict[str, deque[int]] = {name: deque() for name in ("le", "el", "es", "se")}
        self.reads: deque[int] = deque([0] * _OUTSTANDING, _OUTSTANDING)
        self.writes: deque[int] = deque([0] * _OUTSTANDING, _OUTSTANDING)
        self.handed: deque[int] = deque(maxlen=_FETCHED_AHEAD)
        self.issues: list[int] = []
        self.dones: list[int] = []
        self.placed: deque[int] = deque([0] * 5, 5)
        self.array_free = 0
        self.sent = self.sent_beats = self.announced = 0
        self.waiting: deque[tuple[int, int]] = deque()
        self.reading: deque[tuple[set[int], int, int]] = deque(maxlen=_SLOTS)  # banks, and from when to when
        self.end = 0

    def wait(self, flag: bool, link: str, at: int) -> int:
        """Take a token; a job that lacks it hangs, which nobody asks the duration of."""
        return max(at, self.tokens[link].popleft() + 1) if flag and self.tokens[link] else at

    def step(self, descriptor: Descriptor) -> int:
        """Hand out one descriptor, play what its unit does, and return when it is done."""
        if len(self.handed) == _FETCHED_AHEAD:
            # Requested when there was room, answered behind the loads that were asked for before.
            asked = self.handed[0]
            before = bisect_right(self.issues, asked)
            self.handout = max(self.handout, asked + self.read_latency, self.dones[before - 1] if before else 0)
        unit = self.units.get(type(descriptor))
        self.handout = max(self.handout + _DISPATCH, unit.room() if unit else self.end)
        self.handed.append(self.handout)
        if self.unfetched:
            self.unfetched -= 1
            self.fetching += DESCRIPTOR_BYTES // BEAT_BYTES
        match descriptor:
            case Load():
                done = self.run_load(descriptor)
            case Matmul():
                done = self.run_matmul(descriptor)
            case Store():
                done = self.run_store(descriptor)
            case Fence():
                done = self.handout
        self.end = max(self.end, done)
        return done

    def run_load(self, load: Load) -> int:
        """Requests up to 31 ahead; beats arrive one per cycle, slower for arrays narrower than the bus."""
        take = self.load.take(self.wait(load.wait_next, "el", max(self.handout + 2, self.placed[0])))
        cost = max(1, BEAT_BYTES // self.caps.n)
        issue, done = take + 1, self.reads[-1] + self.fetching  # a burst is shown two cycles after its LOAD is taken
        self.fetching = 0
        reads, latency, issues, dones = self.reads, self.read_latency, self.issues, self.dones
        beats, linear = _load_beats(load)
        within = _READ_BURST * BEAT_BYTES
        for size in _sizes(load.address % within, load.stride % within, load.rows, beats, _READ_BURST, linear):
            oldest = reads[0]
            issue = (issue if issue > oldest else oldest) + 1
            answer = issue + latency
            done = (answer if answer > done else done) + size * cost
            reads.append(done)
            issues.append(issue)
            dones.append(done)
        self.load.free = issue + 1
        self.placed.append(done)
        if load.signal_next:
            self.tokens["le"].append(done + 2)  # from the bus and to the scratchpad through a register each
        return done

    def run_matmul(self, matmul: Matmul) -> int:
        """Tiles follow each other every max(M, N) cycles; the next MATMUL is taken one tile ahead."""
        n = self.caps.n
        take = self.wait(matmul.wait_prev, "le", self.handout + 2)
        take = self.execute.take(self.wait(matmul.wait_next, "se", take))
        tiles, each = self.caps.tiles(matmul.k) * self.caps.tiles(matmul.n), max(matmul.m, n)
        start = max(take + 3, self.array_free)
        end = start + (tiles - 1) * each + matmul.m
        self.array_free = start + tiles * each
        self.execute.free = start + max(0, tiles - 2) * each + n
        if matmul.m >= n:
            banks = self.banks(matmul.c_base, matmul.c_step, self.caps.tiles(matmul.n), matmul.m)
            self.hold_stores(banks, start + n + (0 if matmul.accumulate else each), start + tiles * each + n)
        if matmul.signal_prev:
            # The weights of the last tile are still read when its rows are few.
            self.tokens["el"].append(end if matmul.m >= n else end + n - 1)
        if matmul.signal_next:
            self.tokens["es"].append(end + n + _FILL)
        return end + n + _FILL

    def banks(self, base: int, step: int, tiles: int, rows: int) -> set[int]:
        """Banks of the accumulators in which the rows of some tiles lie."""
        size = min(self.caps.c_rows // 4, _BANK_ROWS)
        return {(base + tile * step + row) // size for tile in range(tiles) for row in (0, rows - 1)}

    def hold_stores(self, banks: set[int], begin: int, end: int) -> None:
        """Reading rows out waits while the array adds to rows of the same bank: put off what was not read by then."""
        held = [
            max(begin, first) for where, first, last in self.reading if last > begin and first < end and where & banks
        ]
        if not held or end <= min(held):
            return
        delay = end - min(held)
        self.reading = deque(((w, f + delay if f > begin else f, t + delay) for w, f, t in self.reading), _SLOTS)
        self.store.free += delay
        self.sent += delay
        self.announced += delay
        self.end += delay
        self.waiting = deque((size, when + delay) for size, when in self.waiting)
        self.tokens["se"] = deque(when + delay if when > begin else when for when in self.tokens["se"])

    def run_store(self, store: Store) -> int:
        """Rows are read piece by piece, and a burst is announced when its beats are there."""
        n = self.caps.n
        take = self.store.take(self.wait(store.wait_prev, "es", self.handout + 2) + 1)
        if store.quantise:
            beats, pieces, lag = -(-store.n // BEAT_BYTES), -(-store.n // (n // 2)), _LAG_QUANTISED
        else:
            beats, pieces, lag = -(-store.n // 4), -(-store.n // 4), _LAG
        read, answered = take, 0
        credit = 0
        (row_beats, linear), within = _store_beats(store), _WRITE_BURST * BEAT_BYTES
        for size in _sizes(store.address % within, store.stride % within, store.rows, row_beats, _WRITE_BURST, linear):
            credit += size * pieces
            read += credit // beats
            credit %= beats
            # Reading stalls while the queue of beats is full.
            while self.sent_beats + size > _STORE_QUEUE and self.waiting:
                gone, when = self.waiting.popleft()
                self.sent_beats -= gone
                read = max(read, when)
            issue = max(read + lag, self.announced + 2, self.writes[0] + 1)
            self.sent = max(issue + 1, self.sent) + size
            self.announced = issue
            answered = self.sent + self.write_latency
            self.writes.append(answered)
            self.waiting.append((size, self.sent))
            self.sent_beats += size
        self.store.free = read + 1  # what takes the next one is a register
        banks = self.banks(store.c_base, store.c_step, self.caps.tiles(store.n), store.rows)
        self.reading.append((banks, take, read))
        if store.signal_prev:
            self.tokens["se"].append(read)
        return answered


def job_times(descriptors: Sequence[Descriptor], caps: Caps, *, latency: int = 60) -> JobTimes:
    """When a job's descriptors are done with memory ``latency`` cycles and no other traffic."""
    timeline = _Timeline(caps, latency, len(descriptors))
    handed, done = [], []
    for descriptor in descriptors:
        done.append(timeline.step(descriptor))
        handed.append(timeline.handout)
    return JobTimes(tuple(handed), tuple(done), max(timeline.end, timeline.handout) + _END)


def job_cycles(descriptors: Sequence[Descriptor], caps: Caps, *, latency: int = 60, most: int | None = None) -> int:
    """Cycles from doorbell to interrupt with memory ``latency`` cycles and no other traffic.

    A job that takes more than ``most`` is not followed to its end: the result is then some number above ``most``.
    """
    timeline = _Timeline(caps, latency, len(descriptors))
    for descriptor in descriptors:
        timeline.step(descriptor)
        if most is not None and timeline.end > most:
            break
    return max(timeline.end, timeline.handout) + _END

"""How long a job takes: the three units of the NPU played burst by burst.

Constants are those of the RTL in the phone's SoC, behind the filter; ``make bench-npu`` holds the estimate beside what
the RTL takes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ..machine import BEAT_BYTES
from .descriptors import DESCRIPTOR_BYTES, Caps, Descriptor, Fence, Load, Matmul, Store

__all__ = ["JobTimes", "job_bursts", "job_cycles", "job_times"]

_START = 6
"""Cycles from the doorbell's write to the request of the first descriptors: both are shown from registers."""

_DISPATCH = 10
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


def _load_sizes(load: Load) -> tuple[tuple[int, ...], int]:
    """Beats of each burst of a LOAD, and of all."""
    (beats, linear), within, rows = _load_beats(load), _READ_BURST * BEAT_BYTES, load.rows
    return _sizes(load.address % within, load.stride % within, rows, beats, _READ_BURST, linear), rows * beats


def _store_sizes(store: Store) -> tuple[int, ...]:
    """Beats of each burst of a STORE."""
    (beats, linear), within = _store_beats(store), _WRITE_BURST * BEAT_BYTES
    return _sizes(store.address % within, store.stride % within, store.rows, beats, _WRITE_BURST, linear)


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


class _Unit:
    """One of the three units: when it took its last commands, as many as wait in front of it, and when it is free."""

    __slots__ = ("free", "taken")

    def __init__(self) -> None:
        self.taken: deque[int] = deque([0] * _QUEUE, _QUEUE)
        self.free = 0

    def take(self, at: int) -> int:
        """A command is taken at ``at`` at the earliest. There is room for another behind it when the oldest goes."""
        if at < self.free:
            at = self.free
        self.taken.append(at)
        return at


class _Timeline:
    """The units and the tokens between them, in cycles since the doorbell.

    ``end`` is when the last of what was played so far is done, ``read`` when the last beat of operands so far arrives,
    and ``beats`` how many have.
    """

    def __init__(self, caps: Caps, latency: int, count: int) -> None:
        self.caps = caps
        self.unfetched = max(0, count - _FETCHED_AHEAD)
        self.fetches = self.unfetched > 0
        self.fetching = 0  # beats of descriptors that are on the bus between those of loads
        self.cost = max(1, BEAT_BYTES // caps.n)  # cycles of a beat: arrays narrower than the bus take it slower
        self.read_latency, self.write_latency = latency + _READ_PATH, latency + _WRITE_PATH
        self.handout = _START + self.read_latency
        self.load, self.execute, self.store = _Unit(), _Unit(), _Unit()
        self.units: dict[type, _Unit] = {Load: self.load, Matmul: self.execute, Store: self.store}
        self.le, self.el, self.es, self.se = (deque[int]() for _ in range(4))  # tokens: of load to execute, and so on
        self.reads: deque[int] = deque([0] * _OUTSTANDING, _OUTSTANDING)
        self.writes: deque[int] = deque([0] * _OUTSTANDING, _OUTSTANDING)
        self.handed: deque[int] = deque(maxlen=_FETCHED_AHEAD)
        self.issues: list[int] = []
        self.dones: list[int] = []
        self.placed: deque[int] = deque([0] * 5, 5)
        self.array_free = 0
        self.sent = self.sent_beats = self.announced = 0
        self.waiting: deque[tuple[int, int]] = deque()
        self.reading: deque[tuple[Store, int, int]] = deque(maxlen=_SLOTS)  # from when to when
        self.end = self.read = self.beats = 0

    def step(self, descriptor: Descriptor) -> int:
        """Hand out one descriptor, play what its unit does, and return when it is done."""
        handout, handed = self.handout, self.handed
        if self.fetches:
            if len(handed) == _FETCHED_AHEAD:
                # Requested when there was room, answered behind the loads that were asked for before.
                asked = handed[0]
                before = bisect_right(self.issues, asked)
                handout = max(handout, asked + self.read_latency, self.dones[before - 1] if before else 0)
            if self.unfetched:
                self.unfetched -= 1
                self.fetching += DESCRIPTOR_BYTES // BEAT_BYTES
        handout += _DISPATCH
        unit = self.units.get(type(descriptor))
        ready = unit.taken[0] if unit else self.end
        self.handout = handout = handout if handout > ready else ready
        handed.append(handout)
        match descriptor:
            case Load():
                done = self.run_load(descriptor)
            case Matmul():
                done = self.run_matmul(descriptor)
            case Store():
                done = self.run_store(descriptor)
            case Fence():
                done = handout
        if done > self.end:
            self.end = done
        return done

    def run_load(self, load: Load) -> int:
        """Requests up to 31 ahead; beats arrive one per cycle, slower for arrays narrower than the bus."""
        at = max(self.handout + 2, self.placed[0])
        if load.wait_next and self.el:
            at = max(at, self.el.popleft() + 1)
        reads, latency, cost = self.reads, self.read_latency, self.cost
        issue = self.load.take(at) + 1  # a burst is shown two cycles after its LOAD is taken
        done = self.read + self.fetching
        self.fetching = 0
        sizes, beats = _load_sizes(load)
        self.beats += beats
        for size in sizes:
            if issue < reads[0]:
                issue = reads[0]
            issue += 1
            if done < issue + latency:
                done = issue + latency
            done += size * cost
            reads.append(done)
            if self.fetches:
                self.issues.append(issue)
                self.dones.append(done)
        self.load.free = issue + 1
        self.read = done
        self.placed.append(done)
        if load.signal_next:
            self.le.append(done + 2)  # from the bus and to the scratchpad through a register each
        return done

    def run_matmul(self, matmul: Matmul) -> int:
        """Tiles follow each other every max(M, N) cycles; the next MATMUL is taken one tile ahead."""
        caps, m, at = self.caps, matmul.m, self.handout + 2
        n = caps.n
        if matmul.wait_prev and self.le:
            at = max(at, self.le.popleft() + 1)
        if matmul.wait_next and self.se:
            at = max(at, self.se.popleft() + 1)
        n_tiles, each = caps.tiles(matmul.n), m if m > n else n
        tiles = caps.tiles(matmul.k) * n_tiles
        start = max(self.execute.take(at) + 3, self.array_free)
        end = start + (tiles - 1) * each + m
        self.array_free = start + tiles * each
        self.execute.free = start + max(0, tiles - 2) * each + n
        if m >= n:
            banks = self.banks(matmul.c_base, matmul.c_step, n_tiles, m)
            self.hold_stores(banks, start + n + (0 if matmul.accumulate else each), start + tiles * each + n)
        if matmul.signal_prev:
            # The weights of the last tile are still read when its rows are few.
            self.el.append(end if m >= n else end + n - 1)
        if matmul.signal_next:
            self.es.append(end + n + _FILL)
        return end + n + _FILL

    def banks(self, base: int, step: int, tiles: int, rows: int) -> set[int]:
        """Banks of the accumulators in which the rows of some tiles lie."""
        size = min(self.caps.c_rows // 4, _BANK_ROWS)
        return {(base + tile * step + row) // size for tile in range(tiles) for row in (0, rows - 1)}

    def hold_stores(self, banks: set[int], begin: int, end: int) -> None:
        """Reading rows out waits while the array adds to rows of the same bank: put off what was not read by then."""
        held = [
            max(begin, first)
            for s, first, last in self.reading
            if last > begin and first < end and self.banks(s.c_base, s.c_step, self.caps.tiles(s.n), s.rows) & banks
        ]
        if not held or end <= min(held):
            return
        delay = end - min(held)
        self.reading = deque(((s, f + delay if f > begin else f, t + delay) for s, f, t in self.reading), _SLOTS)
        self.store.free += delay
        self.sent += delay
        self.announced += delay
        self.end += delay
        self.waiting = deque((size, when + delay) for size, when in self.waiting)
        self.se = deque(when + delay if when > begin else when for when in self.se)

    def run_store(self, store: Store) -> int:
        """Rows are read piece by piece, and a burst is announced when its beats are there."""
        n, at = self.caps.n, self.handout + 2
        if store.wait_prev and self.es:
            at = max(at, self.es.popleft() + 1)
        take = self.store.take(at + 1)  # by a register
        if store.quantise:
            beats, pieces, lag = -(-store.n // BEAT_BYTES), -(-store.n // (n // 2)), _LAG_QUANTISED
        else:
            beats = pieces = -(-store.n // 4)
            lag = _LAG
        read, answered = take, 0
        credit = 0
        waiting, writes = self.waiting, self.writes
        sent, announced, queued = self.sent, self.announced, self.sent_beats
        for size in _store_sizes(store):
            if pieces == beats:
                read += size
            else:
                credit += size * pieces
                read += credit // beats
                credit %= beats
            # Reading stalls while the queue of beats is full.
            while queued + size > _STORE_QUEUE and waiting:
                gone, when = waiting.popleft()
                queued -= gone
                if read < when:
                    read = when
            announced += 2
            if announced < read + lag:
                announced = read + lag
            if announced <= writes[0]:
                announced = writes[0] + 1
            sent = (sent if sent > announced else announced + 1) + size
            answered = sent + self.write_latency
            writes.append(answered)
            waiting.append((size, sent))
            queued += size
        self.sent, self.announced, self.sent_beats = sent, announced, queued
        self.store.free = read + 1
        self.reading.append((store, take, read))
        if store.signal_prev:
            self.se.append(read)
        return answered


def job_times(descriptors: Sequence[Descriptor], caps: Caps, *, latency: int = 60) -> JobTimes:
    """When a job's descriptors are done with memory ``latency`` cycles and no other traffic."""
    timeline = _Timeline(caps, latency, len(descriptors))
    handed, done = [], []
    for descriptor in descriptors:
        done.append(timeline.step(descriptor))
        handed.append(timeline.handout)
    return JobTimes(tuple(handed), tuple(done), max(timeline.end, timeline.handout) + _END)


def job_cycles(
    descriptors: Sequence[Descriptor], caps: Caps, *, latency: int = 60, most: int | None = None, beats: int = 0
) -> int:
    """Cycles from doorbell to interrupt with memory ``latency`` cycles and no other traffic.

    A job that takes more than ``most`` is not followed to its end: the result is then some number above ``most``. That
    shows sooner if it is known that the job reads so many ``beats`` of operands at least.
    """
    timeline = _Timeline(caps, latency, len(descriptors))
    step = timeline.step
    if most is None:
        for descriptor in descriptors:
            step(descriptor)
    else:
        rest = beats * timeline.cost + _tail(descriptors, caps, timeline.write_latency)
        for descriptor in descriptors:
            step(descriptor)
            least = timeline.read - timeline.beats * timeline.cost + rest
            if least > most or timeline.end > most:
                return max(least, timeline.end)
    return max(timeline.end, timeline.handout) + _END


def _tail(descriptors: Sequence[Descriptor], caps: Caps, write_latency: int) -> int:
    """Cycles that a job takes at least when its last operand is there, if it ends with a MATMUL and its STORE."""
    *_, matmul, store = (Fence(), *descriptors[-2:])
    if not isinstance(matmul, Matmul) or not isinstance(store, Store):
        return 0
    tiles = caps.tiles(matmul.k) * caps.tiles(matmul.n)
    return (tiles - 1) * max(matmul.m, caps.n) + matmul.m + caps.n + _FILL + _LAG + write_latency

"""Holds every transaction of an episode to the golden verdict: allowed exactly if burst, region and page allow it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from flexserve_hw.params import FlexMemParams
from flexserve_hw.tzasc.line import memory_pages
from flexserve_sw.machine import World
from flexserve_sw.recall import ACCESS
from flexserve_sw.regs import FLEX_SECURE, TZC, RecallState, Tzc400

from .claims import Change, Evidence
from .records import Flag, Mismatch, Transactions
from .replay import Replay

__all__ = ["check"]

S = RecallState
Array = npt.NDArray[Any]

_OUTSIDE = 8
"""In place of a state: the page is not in the window."""

_PAGE = 4096
_SPAN = 1 << 44
"""More than the cycles of a run."""

_OKAY, _DECERR = 0, 3
_NEVER = np.iinfo(np.int64).max
_ALLOWS = {
    world: np.array([state in S._value2member_map_ and world in ACCESS[S(state)] for state in range(8)] + [True])
    for world in World
}


class _Timeline:
    """State of any page in any cycle."""

    def __init__(self, changes: list[Change]) -> None:
        rows = sorted((change.page * _SPAN + change.cycle, change.state) for change in changes)
        self._keys = np.array([key for key, _ in rows], np.int64)
        self._states = np.array([state for _, state in rows], np.int64)
        self.first_flex: dict[int, int] = {}
        for change in changes:
            if change.state is S.FLEX:
                self.first_flex.setdefault(change.page, change.cycle)

    def _before(self, page: Array, cycle: Array) -> tuple[Array, Array]:
        """Index of the last change of the pages up to the cycles, and whether there is one."""
        at = np.searchsorted(self._keys, page * _SPAN + cycle, side="right") - 1
        found = (at >= 0) & (self._keys[np.maximum(at, 0)] // _SPAN == page) if len(self._keys) else at >= 0
        return np.maximum(at, 0), found

    def state(self, page: Array, cycle: Array) -> Array:
        """State, 7 before the first change."""
        if not len(self._keys):
            return np.full(len(page), 7)
        at, found = self._before(page, cycle)
        return np.where(found, self._states[at], 7)

    def between(self, page: int, first: int, last: int) -> list[int]:
        """States that a page gets after cycle ``first`` and up to ``last``."""
        begin, end = np.searchsorted(self._keys, [page * _SPAN + first, page * _SPAN + last], side="right")
        return [int(state) for state in self._states[begin:end]]

    def since(self, page: Array, cycle: Array) -> Array:
        """Cycle of the last change, -1 without one."""
        if not len(self._keys):
            return np.full(len(page), -1)
        at, found = self._before(page, cycle)
        return np.where(found, self._keys[at] % _SPAN, -1)


def legal(t: Transactions, params: FlexMemParams) -> tuple[Array, dict[str, Array]]:
    """Which bursts AXI4 knows and keep to their page; and per kind of illegal burst, which are of it."""
    size, beats = t["size"].astype(np.int64), t["length"].astype(np.int64) + 1
    step = 1 << size
    offset = t["address"].astype(np.int64) % _PAGE // step * step
    wide = step * 8 > params.bus.data_width
    kinds = {
        "wider than the bus": wide,
        "reserved type": ~wide & (t["burst"] == 3),
        "long FIXED": ~wide & (t["burst"] == 0) & (beats > 16),
        "odd WRAP": ~wide & (t["burst"] == 2) & ~np.isin(beats, (2, 4, 8, 16)),
        "over the page's end": ~wide & (t["burst"] == 1) & (offset + beats * step > _PAGE),
    }
    bad = np.zeros(len(t), np.bool_)
    for mask in kinds.values():
        bad |= mask
    return ~bad, kinds


def check(replay: Replay, t: Transactions) -> Counter[str]:
    """Compare; return how often each interesting class of transactions was there. Raises :class:`Mismatch`."""
    seen = Counter(replay.seen)
    if not len(t):
        return seen
    accepted, answered = t["accepted"].astype(np.int64), t["answered"].astype(np.int64)
    opening = _gate(replay, accepted)
    timeline = _Timeline(replay.changes)
    page = t["address"].astype(np.int64) // _PAGE - replay.base
    inside = (page >= 0) & (page < replay.pages)
    state = np.where(inside, timeline.state(page, accepted), _OUTSIDE)
    nonsecure = (t["prot"] >> 1 & 1) == 1
    fits, kinds = legal(t, replay.params)
    region, overlap, decerr = (np.zeros(len(t), np.bool_) for _ in range(3))
    for number, rules in enumerate(replay.openings):
        mine = opening == number
        region[mine], overlap[mine] = rules.verdict(t[mine])
        decerr[mine] = rules.action & 1
    paged = np.where(nonsecure, _ALLOWS[World.NORMAL][state], _ALLOWS[World.SECURE][state])
    forwarded = t["forwarded"] != 0
    own = _own(replay, t)
    missed = (t["flags"] & Flag.MISSED) != 0
    paged = np.where(missed, _meanwhile(t, page, paged, forwarded, nonsecure, timeline), paged)
    expected = fits & region & paged & ~own
    aborted = (t["flags"] & Flag.ABORTED) != 0
    wrong = (expected != forwarded) & ~(aborted & ~forwarded)
    if wrong.any():
        raise Mismatch(_describe(t, int(np.argmax(wrong)), state, expected, timeline, page))
    denied = ~expected & ~aborted
    answers = denied & (t["response"] != np.where(decerr, _DECERR, _OKAY))
    if answers.any():
        at = int(np.argmax(answers))
        raise Mismatch(f"cycle {answered[at]}: a denied access is answered {t['response'][at]} against ACTION")
    _drained(replay, accepted, np.where(answered == 0, _NEVER, answered))
    landing = forwarded & (t["landed"] != 0) & inside
    _landed(replay, t[landing], page[landing], timeline)
    _evidence(replay, t, denied, overlap)
    _count(seen, t, page, state, timeline, forwarded & ~aborted, denied, inside)
    for name, mask in kinds.items():
        seen[f"denied burst: {name}"] += int((mask & denied).sum())
    seen["denied: the table's own memory"] += int((fits & region & own & denied).sum())
    for direction, ours in (("read", t["write"] == 0), ("write", t["write"] == 1)):
        seen[f"{direction} looked up in memory, allowed"] += int((ours & missed & expected & ~aborted).sum())
        seen[f"{direction} looked up in memory, denied"] += int((ours & missed & denied).sum())
    state_then = np.where(inside, timeline.state(page, accepted + t["waited"].astype(np.int64)), _OUTSIDE)
    seen["state changed while it was looked up in memory"] += int((missed & (state_then != state)).sum())
    seen["denied by region"] += int((fits & ~region & ~overlap & denied).sum())
    seen["denied by overlapping regions"] += int((fits & overlap & denied).sum())
    return seen


def _own(replay: Replay, t: Transactions) -> Array:
    """Which accesses go to the memory of the page-state table."""
    if replay.params.cache_lines is None:
        return np.zeros(len(t), np.bool_)
    page = t["address"].astype(np.int64) // _PAGE - replay.table
    return (page >= 0) & (page < memory_pages(replay.params))


def _meanwhile(
    t: Transactions, page: Array, paged: Array, forwarded: Array, nonsecure: Array, timeline: _Timeline
) -> Array:
    """Whether the pages of accesses that had to be looked up in memory allowed what came of them at any time until the
    verdict: a line that is under way when its page changes brings the state before, or after."""
    found = paged.copy()
    for at in np.flatnonzero(((t["flags"] & Flag.MISSED) != 0) & (paged != forwarded)).tolist():
        first, last = int(t["accepted"][at]), int(t["accepted"][at]) + int(t["waited"][at]) - 1
        allows = _ALLOWS[World.NORMAL if nonsecure[at] else World.SECURE]
        if any(bool(allows[state]) == forwarded[at] for state in timeline.between(int(page[at]), first, last)):
            found[at] = forwarded[at]
    return found


def _describe(t: Transactions, at: int, state: Array, expected: Array, timeline: _Timeline, page: Array) -> str:
    """What a wrongly judged access was, for a person to find it."""
    x = t[at]
    world, direction = "non-secure" if x["prot"] & 2 else "secure", "write" if x["write"] else "read"
    burst = f"{int(x['length']) + 1} x {1 << int(x['size'])} bytes, type {x['burst']}"
    where = "outside the window" if state[at] == _OUTSIDE else f"in a page in {S(int(state[at]))!r}"
    since = int(timeline.since(page[at : at + 1], x["accepted"][None].astype(np.int64))[0])
    names = ("forwarded", "denied") if expected[at] else ("denied", "forwarded")
    return (
        f"cycle {x['accepted']}: a {world} {direction} at {int(x['address']):#x} ({burst}, NSAID {x['nsaid']}, "
        f"ID {x['id']}) {where} since cycle {since} is {names[1]}, not {names[0]}"
    )


def _gate(replay: Replay, accepted: Array) -> Array:
    """Index of the opening in which each access was accepted."""
    starts = np.array([opening.start for opening in replay.openings], np.int64)
    number = np.searchsorted(starts, accepted, side="left") - 1
    ready = replay.ready if replay.ready is not None else _NEVER
    closed = np.array([o.closed if o.closed is not None else _NEVER for o in replay.openings], np.int64)
    early = (number < 0) | (accepted <= ready)
    if len(starts):
        early |= accepted > closed[np.maximum(number, 0)]
    if early.any():
        raise Mismatch(f"cycle {accepted[int(np.argmax(early))]}: an access is accepted while the gate is closed")
    return number


def _drained(replay: Replay, accepted: Array, answered: Array) -> None:
    """SEC-06: what was accepted before a change is answered before anyone says that the change is over."""
    latest = np.maximum.accumulate(answered)
    for drain in replay.drains:
        count = int(np.searchsorted(accepted, drain.change, side="right"))
        if count and latest[count - 1] >= drain.claim:
            late = int(np.argmax(answered[:count] >= drain.claim))
            what = f"{drain.what} comes before the answer to an access accepted in cycle {accepted[late]}"
            raise Mismatch(f"cycle {drain.claim}: {what}")


def _landed(replay: Replay, t: Transactions, page: Array, timeline: _Timeline) -> None:
    """SEC-02: no write's data reach memory when its world has lost the page for good."""
    landed = t["landed"].astype(np.int64)
    state, nonsecure = timeline.state(page, landed), (t["prot"] >> 1 & 1) == 1
    # The sealing of a page that the normal world uses is not over before its report.
    reported = np.array([replay.sealed.get(int(p), _NEVER) for p in page], np.int64)
    normal_may = np.isin(state, (S.NORMAL, S.DELEGATED)) | ((state == S.SEALED) & (landed < reported))
    secure_may = np.isin(state, (S.FLEX, S.RECALLING, S.SCRUBBING, S.SEALED))
    wrong = ~np.where(nonsecure, normal_may, secure_may)
    if wrong.any():
        at = int(np.argmax(wrong))
        world = "non-secure" if nonsecure[at] else "secure"
        raise Mismatch(f"cycle {landed[at]}: a {world} write lands in a page in {S(int(state[at]))!r}")


def _evidence(replay: Replay, t: Transactions, denied: Array, overlap: Array) -> None:
    """SEC-13: the count is the number of violations; the record is the first since the last clear."""
    accepted = t["accepted"].astype(np.int64)
    for evidence in replay.evidence:
        since = denied & (accepted <= evidence.cycle)
        if evidence.address == FLEX_SECURE.VIOLATIONS:
            _same(evidence, int(since.sum()))
            continue
        fresh = np.flatnonzero(since & (accepted > evidence.since))
        if evidence.address == TZC.INT_STATUS:
            status = len(fresh) > 0, len(fresh) > 1, bool(overlap[fresh].any())
            _same(evidence, status[0] | status[1] << 8 | status[2] << 16)
        elif len(fresh):
            _same(evidence, *(_fail_register(evidence.address, t[at]) for at in _first(t, fresh)))


def _first(t: Transactions, violations: Array) -> list[int]:
    """The first violation; of each direction if both may have been."""
    heads = [int(part[0]) for write in (0, 1) if len(part := violations[t["write"][violations] == write])]
    # A denied access may wait behind others of its channel before the verdict on it counts.
    close = abs(int(t["accepted"][heads[0]]) - int(t["accepted"][heads[-1]])) < 2000
    return heads if close else [min(heads, key=lambda at: int(t["accepted"][at]))]


def _fail_register(address: int, t: Any) -> int:
    if address == TZC.FAIL_ADDRESS_LOW:
        return int(t["address"])
    if address == TZC.FAIL_ID:
        return Tzc400.FAIL_ID__ID.put(int(t["id"])) | Tzc400.FAIL_ID__VNET.put(int(t["nsaid"]))
    prot = int(t["prot"])
    return (
        Tzc400.FAIL_CONTROL__PRIVILEGED.put(prot & 1)
        | Tzc400.FAIL_CONTROL__NON_SECURE.put(prot >> 1 & 1)
        | Tzc400.FAIL_CONTROL__WRITE.put(int(t["write"]))
    )


def _same(evidence: Evidence, *values: int) -> None:
    if evidence.value not in values:
        wanted = " or ".join(f"{value:#x}" for value in values)
        found = f"register {evidence.address:#x} holds {evidence.value:#x}"
        raise Mismatch(f"cycle {evidence.cycle}: {found}, not {wanted}")


def _count(
    seen: Counter[str],
    t: Transactions,
    page: Array,
    state: Array,
    timeline: _Timeline,
    allowed: Array,
    denied: Array,
    inside: Array,
) -> None:
    """Classes of transactions that a campaign must have seen."""
    accepted, answered = t["accepted"].astype(np.int64), t["answered"].astype(np.int64)
    write, nonsecure = t["write"] == 1, (t["prot"] >> 1 & 1) == 1
    flags, size = t["flags"], t["size"].astype(np.int64)
    after = np.where(inside, timeline.since(page, answered), -1)
    changed = inside & (after > accepted)
    at_change = inside & (timeline.since(page, accepted) == accepted)
    before_change = inside & (timeline.since(page, accepted + 1) == accepted + 1)
    later = np.where(changed, timeline.state(page, answered), _OUTSIDE)
    permitted = np.where(nonsecure, _ALLOWS[World.NORMAL][later], _ALLOWS[World.SECURE][later])
    for direction, ours in (("read", ~write), ("write", write)):
        for world, theirs in (("normal", nonsecure), ("secure", ~nonsecure)):
            mine = ours & theirs
            seen[f"{world} {direction} allowed"] += int((mine & allowed).sum())
            for number in range(6):
                count = int((mine & denied & (state == number)).sum())
                seen[f"{world} {direction} in {S(number).name} denied"] += count
        for name, mask in {
            f"{direction} under way while its page is closed to it": allowed & changed & ~permitted,
            f"denied {direction} under way while its page is opened to it": denied & changed & permitted,
            f"{direction} accepted in the cycle of a change, allowed": allowed & at_change,
            f"{direction} accepted in the cycle of a change, denied": denied & at_change,
            f"{direction} accepted a cycle before a change": before_change,
            f"{direction} answered by memory with an error": allowed & (flags & Flag.MEMORY_ERROR != 0),
        }.items():
            seen[name] += int((ours & mask).sum())
    kinds = {
        "FIXED": t["burst"] == 0,
        "WRAP": t["burst"] == 2,
        "narrow": 1 << size < (1 << int(size.max(initial=0))),
        "unaligned": t["address"] % (1 << size) != 0,
        "up to the page's last byte": (t["address"] % _PAGE >> size) + t["length"] + 1 == _PAGE >> size,
        "interleaved": flags & Flag.INTERLEAVED != 0,
        "address after its data": flags & Flag.DATA_FIRST != 0,
        "wrong WLAST": flags & Flag.LYING_LAST != 0,
        "more than 128 beats": t["length"] >= 128,
    }
    for name, mask in kinds.items():
        seen[f"{name} allowed"] += int((mask & allowed).sum())
    for name in ("wrong WLAST", "more than 128 beats"):
        seen[f"{name} denied"] += int((kinds[name] & denied).sum())
    seen["under way at a reset"] += int((flags & Flag.ABORTED != 0).sum())
    seen["denied behind an allowed one of its ID"] += _behind(t, allowed, denied)
    seen["secure access before a page is accepted again"] += _again(t, page, state, timeline, denied & ~nonsecure)


def _behind(t: Transactions, allowed: Array, denied: Array) -> int:
    """Denied accesses accepted while the one before, of the same ID and direction, was forwarded and unanswered."""
    order = np.lexsort((t["accepted"], t["id"], t["write"]))
    first, second = order[:-1], order[1:]
    same = (t["id"][first] == t["id"][second]) & (t["write"][first] == t["write"][second])
    waits = t["answered"][first] > t["accepted"][second]
    return int((same & waits & allowed[first] & denied[second]).sum())


def _again(t: Transactions, page: Array, state: Array, timeline: _Timeline, denied: Array) -> int:
    """SEC-04: denied in DELEGATED on a page that the secure world had before in this episode."""
    mine = denied & (state == S.DELEGATED)
    first = timeline.first_flex
    return sum(first.get(int(p), _NEVER) < int(c) for p, c in zip(page[mine], t["accepted"][mine], strict=True))

"""Replays commands, expiries and scrubs of an episode through the golden model of the recall protocol.

The model says what happens; from the simulation come only the cycles in which it did, and each of those must lie where
the protocol allows it. What the filter calls a page's state is compared, never used.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from flexserve_hw.params import FlexMemParams
from flexserve_hw.tzasc.line import memory_pages
from flexserve_sw.machine import World
from flexserve_sw.recall import TRANSITIONS, Outcome, RecallTable
from flexserve_sw.regs import FLEX_NORMAL, FLEX_SECURE, TZC, RecallCommand, RecallResult, RecallState

from .claims import Change, Drained, Evidence
from .records import Events, Kind, Mismatch
from .regions import Opening, RegionRegisters
from .timers import TimerReads

__all__ = ["Replay"]

S, C, R = RecallState, RecallCommand, RecallResult
_OKAY, _SLVERR, _DECERR = 0, 2, 3
_WORLDS = (World.NORMAL, World.SECURE)
_FRAMES = (FLEX_NORMAL, FLEX_SECURE)
_FETCH = 600
"""More cycles than five lines take in the worst weather."""
_ISSUE = 1
"""Cycles from an access being taken to its effect."""


@dataclass
class _Frame:
    """Commands of one world."""

    first: int = 0
    count: int = 0
    code: int = 0
    decided: int = 0
    outcome: Outcome | None = None
    busy: bool = False
    answer: Outcome = field(default_factory=lambda: Outcome(R.OK))


class Replay:
    """One episode: from a reset to the next.

    After :meth:`run`: the window, the place of a ``table`` in memory, ``changes`` of pages, ``drains`` and ``evidence``
    to be held against the transactions, ``openings`` of the gate, ``sealed`` the cycles in which sealings were
    reported, ``ready`` the cycle in which the last page was zeroed at boot (None: never), and ``seen`` counts.
    """

    def __init__(self, params: FlexMemParams) -> None:
        self.params = params
        self.base = self.pages = self.table = 0
        self.golden: RecallTable | None = None
        self.changes: list[Change] = []
        self.drains: list[Drained] = []
        self.evidence: list[Evidence] = []
        self.openings: list[Opening] = []
        self.sealed: dict[int, int] = {}
        self.ready: int | None = None
        self.seen: Counter[str] = Counter()
        self._regions = RegionRegisters()
        self._frames = (_Frame(), _Frame())
        self._walk: list[tuple[int, int, RecallState]] = []
        self._unwritten: set[int] = set()
        self._scrubbing: dict[int, int] = {}
        self._flags: set[str] = set()
        self._registers = {FLEX_SECURE.MANAGERS: 1, FLEX_SECURE.GRACE: 0, FLEX_SECURE.QUERY_PAGE: 0}
        self._known = self._quiet = False
        self._push = (-1, 0)
        self._cleared = 0
        self._opening = 0
        self._timers = TimerReads(params.timers, line=self._line())

    def run(self, events: Events) -> None:
        """Go through the events of the episode; raises :class:`Mismatch`."""
        kinds, cycles = events["kind"], events["cycle"].astype(np.int64)
        # An access takes effect after what the hardware does in the cycle in which it reaches its register.
        keys = np.where(kinds == Kind.ACCESS, 2 * (cycles + _ISSUE) + 1, 2 * cycles)
        order = np.argsort(keys, kind="stable")
        handlers = {
            Kind.ACCESS: self._access,
            Kind.PAGE: self._page,
            Kind.EXPIRED: self._expired,
            Kind.DECISION: self._decision,
            Kind.INTERRUPT: self._interrupt,
            Kind.SCRUB: self._scrub,
            Kind.SCRUB_ERROR: self._scrub_error,
            Kind.QUIET: self._rest,
        }
        for cycle, b, kind, a, c, d in events[order].tolist():
            handler = handlers.get(kind)
            if handler is not None:
                handler(cycle, b, a, c, d)

    # What the hardware did --------------------------------------------------------------------------------------

    def _page(self, cycle: int, mask: int, first: int, state: int, _: int) -> None:
        golden = self._table(cycle, "a page changes state")
        while mask:
            low = mask & -mask
            mask ^= low
            page, target = first + low.bit_length() - 1, S(state)
            now = golden.state(page)
            if page in self._unwritten:
                self._expect(cycle, target is S.SCRUBBING, f"page {page:#x} is written {target!r} at boot")
                self._unwritten.remove(page)
                self._change(page, cycle, target)
            elif now is S.SCRUBBING and target is S.NORMAL and not self._walk:
                self._returned(golden, cycle, page)
            else:
                self._walk.append((page, cycle, target))

    def _returned(self, golden: RecallTable, cycle: int, page: int) -> None:
        self._push = cycle, golden.owed
        golden.scrubbed(page)
        self._change(page, cycle, S.NORMAL)
        if self._known:
            self.seen["page returned"] += 1
            self._flags.add("freed")
            if self._push[1] == 1:
                self._flags.add("paid")
                self.seen["recall by size paid off"] += 1
        elif not self._unwritten and all(state is S.NORMAL for state in golden.states):
            # What was scrubbed at boot is reported to nobody.
            golden.freed.clear()
            golden.owed, self._known, self.ready = 0, True, cycle

    def _decision(self, cycle: int, _b: int, number: int, code: int, result: int) -> None:
        frame, golden = self._frames[number], self._table(cycle, "a command is decided")
        self._expect(cycle, frame.busy and frame.outcome is None, f"frame {number} decides what it was not told")
        self._expect(cycle, code == frame.code, f"command {code} is decided instead of {frame.code}")
        start = self._walk[0][1] if self._walk else cycle
        known = C(code) if code in C._value2member_map_ else C.NONE
        if self._known:
            outcome = golden.command(known, frame.first, frame.count, by=_WORLDS[number], now=start)
        else:
            outcome = Outcome(R.OUT_OF_WINDOW, frame.first)
        what = f"{_WORLDS[number].name} {code} {frame.first:#x}+{frame.count}"
        self._expect(cycle, result == outcome.result, f"{what} gives {R(result)!r}, not {outcome}")
        frame.outcome, frame.decided = outcome, cycle
        self.seen[f"command {known.name} {outcome.result.name}"] += 1
        if self._frames[1 - number].busy and self._frames[1 - number].outcome is None:
            self.seen["commands of both worlds at once"] += 1
        target = TRANSITIONS[known][2] if known in TRANSITIONS else None
        pages = set(range(frame.first, frame.first + frame.count)) if outcome.result is R.OK else set()
        self._take(cycle, what, pages, target)
        if outcome.result is R.OK:
            self._timers.stirred = cycle
            if code == C.RECALL:
                self._flags.add("recall")

    def _take(self, cycle: int, what: str, pages: set[int], target: RecallState | None) -> None:
        """The table walk since the last decision must have changed exactly these pages, once each."""
        got = [page for page, _, _ in self._walk]
        right = len(got) == len(set(got)) and set(got) == pages
        self._expect(cycle, right, f"{what} changes {got}, not {sorted(pages)}")
        for page, at, state in self._walk:
            self._expect(at, state is target, f"{what} writes {state!r} to {page:#x}")
            self._change(page, at, state)
        self._walk.clear()

    def _expired(self, cycle: int, *_: int) -> None:
        golden = self._table(cycle, "a grace period ends")
        self._expect(cycle, bool(self._walk), "a grace period ends without a page")
        first = self._walk[0][1]
        mine = [t for t in golden.running if t.first <= self._walk[0][0] < t.first + t.count]
        self._expect(cycle, len(mine) == 1, f"page {self._walk[0][0]:#x} is taken without a grace period")
        timer = mine[0]
        late = first - timer.deadline
        # The grace period begins with the first walk of the range, whose first word may have to be fetched.
        punctual = -self._line() <= late <= self._patience()
        self._expect(cycle, punctual, f"a grace period ends {late} cycles after its deadline")
        others = [t for t in golden.running if t is not timer]
        golden.running = [timer]
        pages = golden.expire(max(first, timer.deadline))
        golden.running = others
        self._take(cycle, "an expiry", set(pages), S.SCRUBBING)
        self._timers.stirred = cycle
        self._flags.add("expired")
        self.seen["grace period ran out"] += 1
        if len(pages) < timer.count:
            self.seen["grace period ran out for the rest of a range"] += 1

    def _patience(self) -> int:
        """Cycles that the engine may be busy when a grace period ends: a command, finished pages, other expiries."""
        words = self.params.pages // self.params.group
        word = 1 + self._line()
        slots, timers = self.params.scrub_slots, self.params.timers
        return (2 * words * word + 8) + slots * (3 + word) + timers * (words * word + 4) + 8

    def _line(self) -> int:
        """Cycles that a word of the table may take to arrive, behind those that four other ports wait for."""
        return 0 if self.params.cache_lines is None else _FETCH

    def _scrub(self, cycle: int, _b: int, page: int, *_: int) -> None:
        golden = self._table(cycle, "a scrub starts")
        self._expect(cycle, golden.state(page) is S.SCRUBBING, f"a scrub of {page:#x} starts in {golden.state(page)!r}")
        self.drains.append(Drained(self._scrubbing[page] - 1, cycle, f"the scrub of page {page:#x}"))

    def _scrub_error(self, *_: int) -> None:
        self.seen["scrub answered with an error"] += 1

    def _interrupt(self, cycle: int, _b: int, wire: int, level: int, _d: int) -> None:
        if wire > 1 or not level:
            return
        frame = self._frames[wire]
        if frame.outcome is None:
            raise Mismatch(f"cycle {cycle}: frame {wire} reports a command before its decision")
        if frame.outcome.result is R.OK:
            # The wire rises a cycle after the report, which comes a cycle after the last answer at the earliest.
            self.drains.append(Drained(frame.decided - 1, cycle - 1, f"the report of command {frame.code}"))
            if frame.code == C.SEAL:
                pages = range(frame.first - self.base, frame.first - self.base + frame.count)
                self.sealed |= dict.fromkeys(pages, cycle)
        frame.busy, frame.answer, frame.outcome = False, frame.outcome, None

    # What software did ------------------------------------------------------------------------------------------

    def _access(self, taken: int, answered: int, address: int, data: int, about: int) -> None:
        write, secure, nsaid = about & 1, about >> 1 & 1, about >> 4 & 15
        response, strobes = about >> 8 & 3, about >> 12 & 15
        number = int(address >> 12 == FLEX_SECURE.base >> 12)
        if not self._entitled(address, secure, nsaid):
            self.seen["register access refused"] += 1
            closed = response == _DECERR and bool(write or data == 0)
            self._expect(taken, closed, f"{address:#x} answers {response} to a stranger")
            return
        frame = self._frames[number]
        port = _FRAMES[number].CMD
        refused = write and frame.busy and address in (port.FIRST, port.COUNT, port.TICKET, port.COMMAND)
        expected = _SLVERR if refused else _OKAY
        self._expect(taken, response == expected, f"{address:#x} answers {response}, not {expected}")
        if refused:
            self.seen["command port refused while busy"] += 1
        elif write and strobes == 15:
            self._write(taken, number, address, data)
        elif write:
            self.seen["doorbell without its byte"] += 1
        else:
            self._read(taken, number, address, data)

    def _entitled(self, address: int, secure: int, nsaid: int) -> bool:
        if address >> 12 == FLEX_NORMAL.base >> 12:
            return not secure and bool(self._registers[FLEX_SECURE.MANAGERS] >> nsaid & 1)
        return bool(secure)

    def _write(self, taken: int, number: int, address: int, data: int) -> None:
        frame, port = self._frames[number], _FRAMES[number].CMD
        if address == port.FIRST:
            frame.first = data
        elif address == port.COUNT:
            frame.count = data
        elif address == port.COMMAND:
            frame.code, frame.busy, frame.outcome = data, True, None
        elif address == FLEX_NORMAL.SIZE_REQUEST:
            self._ask(taken, data)
        elif address == FLEX_SECURE.CONTROL:
            self._control(taken, data)
        elif address == TZC.GATE_KEEPER:
            self._gate(taken, data)
        elif address == TZC.INT_CLEAR:
            self._cleared = taken
        elif address == FLEX_SECURE.IRQ_STATUS and data != 1:
            self._flags -= {"request", "recall", "expired"}
            self._quiet = False
        elif address == FLEX_NORMAL.IRQ_STATUS and data != 1:
            self._flags -= {"freed", "paid"}
        elif not self._regions.write(address, data):
            self._registers[address] = data

    def _ask(self, taken: int, pages: int) -> None:
        golden = self._table(taken, "pages are asked for")
        golden.owed += pages
        if pages and self._push == (taken + _ISSUE, 0):
            golden.owed -= 1  # a page came back in that very cycle and pays for the request
            if golden.owed == 0:
                self._flags.add("paid")
        if pages:
            self._flags.add("request")
            self.seen["recall by size"] += 1

    def _control(self, taken: int, data: int) -> None:
        if data & 1 and self.golden is not None:
            self.golden.locked = True
            self.seen["configuration locked"] += 1
        if not data & 2:
            return
        base, pages = self._registers[FLEX_SECURE.WINDOW_BASE], self._registers[FLEX_SECURE.WINDOW_PAGES]
        params = self.params
        if (base | pages) % params.group or not 0 < pages <= params.pages:
            self.seen["unsound window"] += 1
            return
        if params.cache_lines is not None:
            self.table = self._registers[FLEX_SECURE.TABLE_BASE]
            if base < self.table + memory_pages(params) and self.table < base + pages:
                self.seen["window over its table"] += 1
                return
        grace = min(max(self._registers[FLEX_SECURE.GRACE], params.grace_min), params.grace_max)
        self.base, self.pages = base, pages
        self.golden = RecallTable(base=base, count=pages, grace=grace, timers=params.timers, initial=S.SCRUBBING)
        self._unwritten = set(range(base, base + pages))

    def _gate(self, taken: int, data: int) -> None:
        if data & 1:
            self.openings.append(self._regions.opening(taken + _ISSUE))
        elif self.openings:
            self._opening = len(self.openings)

    def _rest(self, *_: int) -> None:
        self._quiet = True
        self.seen["quiet point"] += 1

    def _read(self, taken: int, number: int, address: int, data: int) -> None:
        port = _FRAMES[number].CMD
        answer = self._frames[number].answer
        if address == port.STATUS and not self._frames[number].busy:
            self._same(taken, "STATUS", data, answer.result << 4)
        elif address == port.OFFENDER and not self._frames[number].busy:
            self._same(taken, "OFFENDER", data, answer.offender)
        elif address == FLEX_SECURE.QUERY_PAGE:
            self._same(taken, "QUERY_PAGE", data, self._registers[address])
        elif address == FLEX_NORMAL.FREED_POP:
            self._pop(taken, data)
        elif address == FLEX_SECURE.CONTROL and data & 4:
            self._expect(taken, self._known, "the window is ready before it is zeroed")
        elif address == TZC.GATE_KEEPER and not data >> 16 & 1 and self._opening:
            self.openings[self._opening - 1].closed = taken
            self.drains.append(Drained(taken, taken + _ISSUE, "the closing of the gate"))
            self._opening = 0
            self.seen["gate closed under traffic"] += 1
        elif self._quiet:
            self._look(taken, address, data)
        elif self._known and not self._walk and not any(frame.busy for frame in self._frames):
            complaint = self._timers.wrong(taken, address, data, self._table(taken, "timers are read"))
            self._expect(taken, complaint is None, complaint or "")

    def _pop(self, taken: int, data: int) -> None:
        golden = self._table(taken, "a freed page is taken")
        if data >> 31:
            self._expect(taken, bool(golden.freed), "a page is reported as freed that is not")
            self._same(taken, "FREED_POP", data & ~(1 << 31), golden.freed.pop(0))
            self.seen["freed page taken"] += 1
        else:
            fresh = self._push[0] >= taken
            self._expect(taken, len(golden.freed) <= fresh, "the queue of freed pages is empty, but should not be")

    def _look(self, taken: int, address: int, data: int) -> None:
        """Nothing moves: every register has one right value."""
        golden, flags = self._table(taken, "registers are read"), self._flags
        if address in (TZC.INT_STATUS, TZC.FAIL_ADDRESS_LOW, TZC.FAIL_CONTROL, TZC.FAIL_ID, FLEX_SECURE.VIOLATIONS):
            self.evidence.append(Evidence(taken, self._cleared, address, data))
            return
        lent = sum(state in (S.FLEX, S.RECALLING) for state in golden.states)
        values = {
            FLEX_SECURE.ALARM: 0,
            FLEX_SECURE.SIZE_OWED: golden.owed,
            FLEX_SECURE.GRACE: self._registers[FLEX_SECURE.GRACE],
            FLEX_SECURE.IRQ_STATUS: ("request" in flags) << 1 | ("recall" in flags) << 2 | ("expired" in flags) << 3,
            FLEX_NORMAL.LENT: lent,
            FLEX_NORMAL.SCRUB_BACKLOG: 0,
            FLEX_NORMAL.SIZE_REQUEST: golden.owed,
            FLEX_NORMAL.FREED_COUNT: len(golden.freed),
            FLEX_NORMAL.IRQ_STATUS: ("freed" in flags) << 1 | ("paid" in flags) << 2,
            FLEX_NORMAL.GRACE: golden.grace,
            FLEX_NORMAL.WINDOW_BASE: self.base,
            FLEX_NORMAL.WINDOW_PAGES: self.pages,
        }
        if address == FLEX_SECURE.QUERY_STATE:
            state = golden.state(self._registers[FLEX_SECURE.QUERY_PAGE])
            self._same(taken, "QUERY_STATE", data, 0 if state is None else 1 << 8 | state)
        elif address in values:
            self._same(taken, f"register {address:#x}", data, values[address])

    # Helpers ----------------------------------------------------------------------------------------------------

    def _change(self, page: int, cycle: int, state: RecallState) -> None:
        self.changes.append(Change(page - self.base, cycle, state))
        if state is S.SCRUBBING:
            self._scrubbing[page] = cycle

    def _table(self, cycle: int, what: str) -> RecallTable:
        if self.golden is None:
            raise Mismatch(f"cycle {cycle}: {what} without a window")
        return self.golden

    def _same(self, cycle: int, what: str, got: int, expected: int) -> None:
        self._expect(cycle, got == expected, f"{what} is {got:#x}, not {expected:#x}")

    def _expect(self, cycle: int, holds: bool, message: str) -> None:
        if not holds:
            raise Mismatch(f"cycle {cycle}: {message}")

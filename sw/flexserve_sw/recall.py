"""The recall protocol: golden model of how access is lent and taken back, for pages and for the NPU alike.

The model is untimed but for the grace period. It says which commands are legal, which accesses are allowed, and what
each does; hardware, the transaction-level machine and the tests are all held to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .machine import World
from .regs import RecallCommand, RecallResult, RecallState

__all__ = ["ACCESS", "TRANSITIONS", "Outcome", "Timer", "RecallTable"]

S = RecallState
C = RecallCommand
R = RecallResult

ACCESS: dict[RecallState, frozenset[World]] = {
    S.NORMAL: frozenset({World.NORMAL}),
    S.DELEGATED: frozenset(),
    S.FLEX: frozenset({World.SECURE}),
    S.RECALLING: frozenset({World.SECURE}),
    S.SCRUBBING: frozenset(),
    S.SEALED: frozenset({World.SECURE}),
    S.CORRUPT: frozenset(),
}
"""Worlds that may read and write in each state. A denied read gives zeros, a denied write changes nothing."""

TRANSITIONS: dict[RecallCommand, tuple[World, frozenset[RecallState], RecallState]] = {
    C.DELEGATE: (World.NORMAL, frozenset({S.NORMAL}), S.DELEGATED),
    C.ACCEPT: (World.SECURE, frozenset({S.DELEGATED}), S.FLEX),
    C.RECALL: (World.NORMAL, frozenset({S.FLEX}), S.RECALLING),
    C.RELEASE: (World.SECURE, frozenset({S.FLEX, S.RECALLING}), S.SCRUBBING),
    C.CANCEL: (World.NORMAL, frozenset({S.DELEGATED}), S.NORMAL),
    C.SEAL: (World.SECURE, frozenset({S.NORMAL, S.FLEX}), S.SEALED),
}
"""Per command: the world that may give it, the states it starts from, the state it leads to."""


@dataclass(frozen=True)
class Outcome:
    """Answer to a command: ``offender`` is the first unit that made it fail."""

    result: RecallResult
    offender: int = 0


@dataclass
class Timer:
    """A running grace period over ``count`` units from ``first``; ``deadline`` in cycles."""

    first: int
    count: int
    deadline: int

    def overlaps(self, first: int, count: int) -> bool:
        """Whether any unit of the range is this timer's. A RECALL over such a range is refused with NO_SLOT."""
        return first < self.first + self.count and self.first < first + count


@dataclass
class RecallTable:
    """States of the units ``base`` to ``base + count - 1``.

    Parameters
    ----------
    base, count
        Window of unit numbers (page frame numbers; 0 and 1 for the NPU).
    grace
        Cycles between RECALL and forced scrubbing.
    timers
        Grace periods that can run at once.
    initial
        State of every unit when the table starts: hardware starts in SCRUBBING and takes commands once all is NORMAL.

    ``freed`` collects units in the order in which their scrub finished; ``owed`` counts what a recall by size still
    asks for; ``ticket`` counts delegations, for units that are lent with one.
    """

    base: int
    count: int
    grace: int
    timers: int = 4
    initial: RecallState = S.NORMAL
    locked: bool = False
    owed: int = 0
    ticket: int = 0
    ticketed: bool = False
    states: list[RecallState] = field(init=False)
    running: list[Timer] = field(init=False, default_factory=list)
    freed: list[int] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.states = [self.initial] * self.count

    def state(self, unit: int) -> RecallState | None:
        """State of ``unit``, or None outside the window."""
        index = unit - self.base
        return self.states[index] if 0 <= index < self.count else None

    def allows(self, unit: int, world: World) -> bool:
        """Whether ``world`` may access ``unit``. Units outside the window are not this table's to deny."""
        state = self.state(unit)
        return state is None or world in ACCESS[state]

    def command(
        self, code: RecallCommand, first: int, count: int, *, by: World, now: int = 0, ticket: int = 0
    ) -> Outcome:
        """Check the whole range, then apply to all of it or change nothing.

        Checks go in this order: command code, world, range, ticket, states, recall timer.
        """
        if code not in TRANSITIONS:
            return Outcome(R.BAD_COMMAND, first)
        world, sources, target = TRANSITIONS[code]
        if by is not world or (code is C.SEAL and self.locked):
            return Outcome(R.NOT_PERMITTED, first)
        if count == 0 or first < self.base or first >= self.base + self.count:
            return Outcome(R.OUT_OF_WINDOW, first)
        if first + count > self.base + self.count:
            return Outcome(R.OUT_OF_WINDOW, self.base + self.count)
        if self.ticketed and code in (C.ACCEPT, C.RELEASE) and ticket != self.ticket:
            return Outcome(R.BAD_TICKET, first)
        for unit in range(first, first + count):
            state = self.states[unit - self.base]
            if state is S.CORRUPT:
                return Outcome(R.CORRUPT_STATE, unit)
            if state not in sources:
                return Outcome(R.BAD_STATE, unit)
        if code is C.RECALL:
            if len(self.running) == self.timers or any(timer.overlaps(first, count) for timer in self.running):
                return Outcome(R.NO_SLOT, first)
            self.running.append(Timer(first, count, now + self.grace))
        if code is C.DELEGATE:
            self.ticket = (self.ticket + 1) % (1 << 32)
        for unit in range(first, first + count):
            self.states[unit - self.base] = target
        self._retire()
        return Outcome(R.OK)

    def _retire(self) -> None:
        """Free the timers that have no unit in RECALLING left."""
        self.running = [
            timer
            for timer in self.running
            if any(self.states[u - self.base] is S.RECALLING for u in range(timer.first, timer.first + timer.count))
        ]

    def expire(self, now: int) -> list[int]:
        """End every grace period due by ``now``; return the units that go from RECALLING to SCRUBBING for it."""
        taken: list[int] = []
        for timer in [t for t in self.running if t.deadline <= now]:
            self.running.remove(timer)
            for unit in range(timer.first, timer.first + timer.count):
                if self.states[unit - self.base] is S.RECALLING:
                    self.states[unit - self.base] = S.SCRUBBING
                    taken.append(unit)
        return taken

    def scrubbed(self, unit: int) -> None:
        """Note that every byte of ``unit`` is zero: SCRUBBING to NORMAL, and the unit is reported as freed."""
        if self.state(unit) is not S.SCRUBBING:
            state = self.state(unit)
            raise ValueError(f"Only a unit in SCRUBBING can be reported scrubbed, not {unit:#x} in {state!r}")
        self.states[unit - self.base] = S.NORMAL
        self.freed.append(unit)
        self.owed = max(0, self.owed - 1)

"""Page side of the filter: page-state table, command engine, scrubber, recall by size, freed-page queue."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Set
from functools import partial

from ..machine import PAGE_BYTES, WINDOW_GRANULE, World
from ..recall import ACCESS, Outcome, RecallTable, Timer
from ..regs import (
    FLEX_NORMAL,
    FLEX_SECURE,
    FlexmemNormal,
    FlexmemSecure,
    FlexmemSecureTimer,
    RecallCommand,
    RecallResult,
    RecallState,
)
from .commands import CommandPort, Request
from .first_scrub import FirstScrub
from .kernel import Hardware, Line, Routine, Signal
from .memory import Dram
from .registers import FULL, Frame, Interrupts, Register, Trigger, Value, View

__all__ = ["FREED_DEPTH", "GRACE_MAX", "GRACE_MIN", "PageSide", "clamp"]

FREED_DEPTH = 64
"""Entries of the freed-page queue."""
GRACE_MIN, GRACE_MAX = 1_000, 10_000_000
"""Hardware limits of the grace period in cycles."""
TIMERS = 4

_N_COMMAND, _N_FREED, _N_PAID = range(3)
_S_COMMAND, _S_SIZE, _S_RECALL, _S_EXPIRED, _S_CORRUPT = range(5)


def clamp(cycles: int) -> int:
    """A grace period within the hardware's limits."""
    return min(max(cycles, GRACE_MIN), GRACE_MAX)


class PageSide:
    """Flex-Mem behind its two register frames.

    Parameters
    ----------
    hardware
        Clock and processes.
    dram
        What the scrubber writes to.
    capacity
        Pages that the table can hold.
    drained
        Cycle in which the last access accepted so far is answered: a change of state is reported then, not before.
    changing
        Called before the state of a page changes.
    on_ready
        Called when every page of the window was zeroed.
    """

    def __init__(
        self,
        hardware: Hardware,
        normal: Line,
        secure: Line,
        *,
        dram: Dram,
        capacity: int,
        drained: Callable[[], int],
        changing: Callable[[], None],
        on_ready: Callable[[], None],
    ) -> None:
        self._changing, self._on_ready = changing, on_ready
        self._hardware, self._dram, self._capacity, self._drained = hardware, dram, capacity, drained
        self._n_irq, self._s_irq = Interrupts(normal, width=3), Interrupts(secure, width=5)
        self.table = RecallTable(0, 0, GRACE_MIN)
        self._ready = False
        self._first_scrub: FirstScrub | None = None
        self._timers: list[Timer | None] = [None] * TIMERS
        self._engine_queue: deque[Request | None] = deque()
        self._scrub_queue: deque[tuple[int, int]] = deque()
        self._asked, self._released, self._popped = Signal(), Signal(), Signal()
        self._in_scrub = 0
        self.violations = 0
        self._alarm_page = 0
        self._alarm = False
        self._normal = CommandPort(
            world=World.NORMAL, submit=self._submit, finished=lambda: self._n_irq.post(_N_COMMAND)
        )
        self._secure = CommandPort(
            world=World.SECURE, submit=self._submit, finished=lambda: self._s_irq.post(_S_COMMAND)
        )
        self._control = Value(mask=3, adjust=self._configure, shown=self._control_word)
        self._base = Value(frozen=self._frozen)
        self._pages = Value(frozen=self._frozen)
        self._grace = Value(frozen=self._locked)
        self._managers = Value(reset=1, mask=0xFFFF, frozen=self._locked)
        self.normal_frame = Frame(self._normal_registers())
        self.secure_frame = Frame(self._secure_registers())
        hardware.start(self._engine())
        hardware.start(self._scrubber())

    @property
    def ready(self) -> bool:
        """Whether every page of the window was zeroed."""
        return self._ready

    @property
    def managers(self) -> Value:
        """Mask of the NSAIDs that may use the normal-world frame."""
        return self._managers

    def allows(self, address: int, world: World) -> bool:
        """Whether the state of the page at ``address`` lets ``world`` through. A corrupt state raises the alarm."""
        page = address // PAGE_BYTES
        state = self.table.state(page)
        if state is RecallState.CORRUPT:
            self._raise_alarm(page)
        return state is None or world in ACCESS[state]

    def allows_all(self, pages: Set[int], world: World) -> bool:
        """Whether :meth:`allows` would let ``world`` through in all of these pages; nothing is raised."""
        allowed = {state for state, worlds in ACCESS.items() if world in worlds}
        return {self.table.state(page) for page in pages} <= allowed | {None}

    def denied(self) -> None:
        """Count a violation."""
        self.violations = min(self.violations + 1, FULL)

    # Registers

    def _normal_registers(self) -> dict[int, Register]:
        n = FLEX_NORMAL
        registers: dict[int, Register] = {
            n.ID: View(lambda: 0x464C584D),
            n.CAPACITY: View(lambda: self._capacity),
            n.WINDOW_BASE: View(lambda: self._base.value),
            n.WINDOW_PAGES: View(lambda: self.table.count if self._ready else 0),
            n.GRACE: View(lambda: clamp(self._grace.value)),
            n.SIZE_REQUEST: Trigger(self._ask, get=lambda: self.table.owed),
            n.FREED_COUNT: View(lambda: len(self.table.freed)),
            n.FREED_POP: View(self._pop),
            n.LENT: View(lambda: self._census(RecallState.FLEX, RecallState.RECALLING)),
            n.SCRUB_BACKLOG: View(lambda: self._census(RecallState.SCRUBBING)),
            n.IRQ_STATUS: self._n_irq.status,
            n.IRQ_ENABLE: self._n_irq.enable,
        }
        registers |= self._normal.registers(n.CMD) | self._query(n.QUERY_PAGE, n.QUERY_STATE)
        return {address - n.base: register for address, register in registers.items()}

    def _secure_registers(self) -> dict[int, Register]:
        s = FLEX_SECURE
        registers: dict[int, Register] = {
            s.ID: View(lambda: 0x464C5853),
            s.CAPACITY: View(lambda: self._capacity),
            s.WINDOW_BASE: self._base,
            s.WINDOW_PAGES: self._pages,
            s.GRACE: self._grace,
            s.CONTROL: self._control,
            s.MANAGERS: self._managers,
            s.TABLE_BASE: Value(frozen=self._frozen),
            s.TABLE_PAGES: View(lambda: 0),
            s.SIZE_OWED: View(lambda: self.table.owed),
            s.ALARM: Trigger(self._clear_alarm, mask=1, get=lambda: int(self._alarm)),
            s.ALARM_PAGE: View(lambda: self._alarm_page),
            s.VIOLATIONS: View(lambda: self.violations),
            s.IRQ_STATUS: self._s_irq.status,
            s.IRQ_ENABLE: self._s_irq.enable,
        }
        for slot, block in enumerate(s.TIMER):
            registers |= self._timer(slot, block)
        registers |= self._secure.registers(s.CMD) | self._query(s.QUERY_PAGE, s.QUERY_STATE)
        return {address - s.base: register for address, register in registers.items()}

    def _timer(self, slot: int, block: FlexmemSecureTimer) -> dict[int, Register]:
        def view(get: Callable[[Timer], int]) -> View:
            return View(lambda: get(timer) if (timer := self._timers[slot]) else 0)

        return {
            block.FIRST: view(lambda timer: timer.first),
            block.COUNT: view(lambda timer: timer.count),
            block.LEFT: view(lambda timer: max(0, timer.deadline - self._hardware.now)),
        }

    def _query(self, page: int, answer: int) -> dict[int, Register]:
        asked = Value()

        def look() -> int:
            self._scrub_first()
            state = self.table.state(asked.value)
            if state is None:
                return 0
            return FlexmemNormal.QUERY_STATE__STATE.put(int(state)) | FlexmemNormal.QUERY_STATE__VALID.put(1)

        return {page: asked, answer: View(look)}

    def _census(self, *states: RecallState) -> int:
        self._scrub_first()
        return sum(self.table.states.count(state) for state in states)

    def _locked(self) -> bool:
        return bool(FlexmemSecure.CONTROL__LOCK.get(self._control.value))

    def _frozen(self) -> bool:
        return bool(self._control.value)

    def _control_word(self, word: int) -> int:
        return word | FlexmemSecure.CONTROL__READY.put(int(self._ready))

    def _configure(self, word: int) -> int:
        """Bits of CONTROL can only be set. Enabling makes every page of a sound window SCRUBBING."""
        word |= self._control.value
        if FlexmemSecure.CONTROL__ENABLE.get(word & ~self._control.value) and self._sound():
            self.table = RecallTable(
                self._base.value,
                self._pages.value,
                clamp(self._grace.value),
                timers=TIMERS,
                initial=RecallState.SCRUBBING,
            )
            if self._dram.holds(self.table.base * PAGE_BYTES, self.table.count * PAGE_BYTES):
                self._first_scrub = FirstScrub(self.table, self._dram, self._hardware.now)
                self._hardware.at(self._first_scrub.end, self._become_ready)
        if FlexmemSecure.CONTROL__LOCK.get(word):
            self.table.locked = True
        return word

    def _sound(self) -> bool:
        """Whether the window is one that the hardware takes over."""
        base, pages = self._base.value, self._pages.value
        return (
            0 < pages <= self._capacity
            and (base | pages) % WINDOW_GRANULE == 0
            and (base + pages) * PAGE_BYTES <= 1 << 32
        )

    def _ask(self, pages: int) -> None:
        self.table.owed = min(self.table.owed + pages, FULL)
        if pages:
            self._s_irq.post(_S_SIZE)

    def _pop(self) -> int:
        if not self.table.freed:
            return 0
        page = self.table.freed.pop(0)
        self._popped.fire()
        return FlexmemNormal.FREED_POP__PFN.put(page) | FlexmemNormal.FREED_POP__VALID.put(1)

    def _raise_alarm(self, page: int) -> None:
        if not self._alarm:
            self._alarm, self._alarm_page = True, page
        self._s_irq.post(_S_CORRUPT)

    def _clear_alarm(self, word: int) -> None:
        self._alarm = self._alarm and not word

    # Engine

    def _submit(self, request: Request | None) -> None:
        self._engine_queue.append(request)
        self._asked.fire()

    def _engine(self) -> Routine:
        """Take commands of both worlds, and expiries, one after the other."""
        while True:
            while not self._engine_queue:
                yield self._asked
            request = self._engine_queue.popleft()
            if request is None:
                self._expire()
                continue
            groups = -(-max(1, min(request.count, self.table.count)) // WINDOW_GRANULE)
            yield 2 + groups
            outcome = self._apply(request)
            if outcome.result is RecallResult.OK:
                yield max(groups, self._drained() - self._hardware.now)
            request.port.finish(outcome)

    def _apply(self, request: Request) -> Outcome:
        table, now = self.table, self._hardware.now
        if not self._ready:
            table = RecallTable(0, 0, GRACE_MIN, locked=self.table.locked)
        table.grace = clamp(self._grace.value)
        try:
            code = RecallCommand(request.code)
        except ValueError:
            return Outcome(RecallResult.BAD_COMMAND, request.first)
        self._changing()
        outcome = table.command(code, request.first, request.count, by=request.port.world, now=now)
        if outcome.result is RecallResult.CORRUPT_STATE:
            self._raise_alarm(outcome.offender)
        if outcome.result is RecallResult.OK:
            if code is RecallCommand.RECALL:
                self._hardware.at(now + table.grace, self._due)
                self._s_irq.post(_S_RECALL)
            if code is RecallCommand.RELEASE:
                self._queue_scrub(range(request.first, request.first + request.count))
            self._place_timers()
        return outcome

    def _due(self) -> None:
        self._submit(None)

    def _expire(self) -> None:
        self._changing()
        taken = self.table.expire(self._hardware.now)
        self._place_timers()
        if taken:
            self._s_irq.post(_S_EXPIRED)
            self._queue_scrub(taken)

    def _place_timers(self) -> None:
        """Keep every running timer in its register slot; new ones take the first free slot."""
        running = self.table.running
        self._timers = [t if any(t is r for r in running) else None for t in self._timers]
        for timer in running:
            if not any(timer is t for t in self._timers):
                self._timers[self._timers.index(None)] = timer

    # Scrubber

    def _scrub_first(self) -> None:
        """Show how far the scrub of the whole window has come."""
        if self._first_scrub is not None:
            self._first_scrub.catch_up(self._hardware.now)

    def _become_ready(self) -> None:
        self._scrub_first()
        self._first_scrub = None
        self._ready = True
        self._on_ready()

    def _queue_scrub(self, pages: range | list[int]) -> None:
        drained = self._drained()
        for page in pages:
            self._scrub_queue.append((page, drained))
        self._released.fire()

    def _scrubber(self) -> Routine:
        """Zero pages whose old accesses have drained, while the freed-page queue has room for the report."""
        while True:
            while not self._scrub_queue:
                yield self._released
            page, drained = self._scrub_queue.popleft()
            yield max(0, drained - self._hardware.now)
            while len(self.table.freed) + self._in_scrub >= FREED_DEPTH:
                yield self._popped
            self._in_scrub += 1
            self._hardware.at(self._dram.writes.take(self._hardware.now, PAGE_BYTES), partial(self._scrubbed, page))
            yield self._dram.writes.free - self._hardware.now

    def _scrubbed(self, page: int) -> None:
        self._in_scrub -= 1
        self._dram.clear(page * PAGE_BYTES, PAGE_BYTES)
        owed, waiting = self.table.owed, len(self.table.freed)
        self.table.scrubbed(page)
        if not waiting:
            self._n_irq.post(_N_FREED)
        if owed and not self.table.owed:
            self._n_irq.post(_N_PAID)

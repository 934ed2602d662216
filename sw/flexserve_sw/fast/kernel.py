"""Time, hardware processes and interrupt lines of the transaction-level machine.

Time is an agenda of actions by cycle. In a cycle hardware goes first, in the order in which its actions were planned;
then every task that can go on does so. A task that waits for a time before which nothing else happens is not even
suspended: the clock is put forward under it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, TypeVar

from ..machine import Event
from ..tasks import Kernel as Tasks
from ..tasks import Latch, SimTask

__all__ = ["Hardware", "Kernel", "Line", "Process", "Routine", "Signal", "Steps"]

T = TypeVar("T")
R = TypeVar("R")


class Signal:
    """What hardware waits for: :meth:`fire` lets everyone who waits now go on, in this cycle."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[Callable[[], None]] = []

    def add(self, action: Callable[[], None]) -> None:
        """Have something done when the signal is given next."""
        self._waiting.append(action)

    def fire(self) -> None:
        """Give the signal."""
        waiting, self._waiting = self._waiting, []
        for action in waiting:
            action()


Steps = Generator["int | Signal", None, R]
"""Something that takes time, as a generator of what it waits for: cycles, or a signal."""

Routine = Steps[None]
"""A process of the modelled hardware."""


class Kernel(Tasks):
    """The simulated clock, what is planned on it, and the tasks of software."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._planned = 0
        self._limit = 0.0

    def at(self, cycle: int, action: Callable[[], None]) -> None:
        """Plan an action for a cycle that is not over."""
        self._planned += 1
        heapq.heappush(self._agenda, (cycle, self._planned, action))

    def skip(self, cycles: int) -> bool:
        """Put the clock forward if nothing else happens until then; whether it was."""
        end, agenda = self.now + cycles, self._agenda
        if end > self._limit or (agenda and agenda[0][0] <= end) or self._ready or self._paused:
            return False
        self.now = end
        return True

    async def delay(self, cycles: int) -> None:
        """Let simulated time pass."""
        if cycles < 0:
            raise ValueError(f"A delay must be 0 cycles or more, not {cycles!r}")
        if cycles == 0:
            await self.pause()
        elif not self.skip(cycles):
            latch = Latch(self)
            self.at(self.now + cycles, latch.set)
            await latch

    async def follow(self, steps: Steps[T]) -> T:
        """Take hardware steps in the caller's own time."""
        try:
            while True:
                wanted = next(steps)
                if isinstance(wanted, int):
                    if wanted and not self.skip(wanted):
                        latch = Latch(self)
                        self.at(self.now + wanted, latch.set)
                        await latch
                else:
                    latch = Latch(self)
                    wanted.add(latch.set)
                    await latch
        except StopIteration as end:
            result: T = end.value
            return result

    def complete(self, task: SimTask[T], *, limit: int | None) -> T:
        """Let time pass until ``task`` has ended and return its result; ``limit`` cycles at most.

        Raises what the task raised; ``RuntimeError`` if everything waits on something that can't come, or at the limit.
        """
        self._limit = float("inf") if limit is None else float(limit)
        agenda = self._agenda
        try:
            while True:
                if self._ready or self._paused:
                    self.run()
                if task.done():
                    break
                if not agenda:
                    raise self._stuck(task, "nothing is left that could happen")
                cycle = agenda[0][0]
                if cycle > self._limit:
                    raise self._stuck(task, f"{limit} cycles have passed")
                self.now = cycle
                while agenda and agenda[0][0] == cycle:
                    heapq.heappop(agenda)[2]()
        finally:
            self._limit = 0.0
        result = task.result
        lost = self.lost()
        if lost is not None:
            raise lost
        return result

    def _stuck(self, task: SimTask[Any], why: str) -> Exception:
        """The error of a task that nobody has collected, if any: that is why others wait."""
        return self.lost() or RuntimeError(f"Task {task.name} can't end: {why}; waiting: {self.waiting()}")


class Line:
    """A level-sensitive interrupt line."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.high = False
        self._waiting: list[Event] = []

    def drive(self, high: bool) -> None:
        """Put a level on the line."""
        self.high = high
        if high and self._waiting:
            waiting, self._waiting = self._waiting, []
            for event in waiting:
                event.set()

    def announce(self, event: Event) -> None:
        """Set an event when the line is high next; at once if it is."""
        if self.high:
            event.set()
        else:
            self._waiting.append(event)

    async def wait(self) -> None:
        """Return when the line is high; at once if it is."""
        while not self.high:
            latch = Latch(self._kernel)
            self._waiting.append(latch)
            await latch


class Process:
    """A running hardware process; ``ended`` is given when it is over, unless a reset ends it before."""

    __slots__ = ("_hardware", "_routine", "alive", "ended")

    def __init__(self, hardware: Hardware, routine: Routine) -> None:
        self._hardware, self._routine = hardware, routine
        self.alive = True
        self.ended = Signal()

    def step(self) -> None:
        """Go on to the next wait or to the end."""
        hardware = self._hardware
        while hardware.running:
            try:
                wanted = next(self._routine)
            except StopIteration:
                self.alive = False
                self.ended.fire()
                return
            if not isinstance(wanted, int):
                wanted.add(self.step)
                return
            if wanted:
                hardware.kernel.at(hardware.kernel.now + wanted, self.step)
                return


class Hardware:
    """Processes of one power-on of the modelled hardware; after :meth:`stop`, at reset, none goes on."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.running = True

    @property
    def now(self) -> int:
        """Cycle."""
        return self.kernel.now

    def start(self, routine: Routine) -> Process:
        """Run a hardware process until it ends or the hardware is stopped."""
        process = Process(self, routine)
        process.step()
        return process

    def at(self, cycle: int, action: Callable[[], None]) -> None:
        """Do something at a later cycle, unless the hardware is stopped before."""

        now = self.kernel.now
        self.kernel.at(cycle if cycle > now else now, partial(self._act, action))

    def _act(self, action: Callable[[], None]) -> None:
        if self.running:
            action()

    def stop(self) -> None:
        """End every process."""
        self.running = False

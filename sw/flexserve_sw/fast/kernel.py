"""Time, tasks, events and interrupt lines of the transaction-level machine, over simpy.

A coroutine is driven as a simpy process: whatever it awaits ends in a simpy event that is yielded to the scheduler.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

import simpy

__all__ = ["Hardware", "Kernel", "Latch", "Line", "Routine", "Run", "SimTask", "Steps", "Wait"]

T = TypeVar("T")

Steps = Generator[simpy.Event, Any, T]
"""Something that takes time, written as a generator of the events it waits for."""

Routine = Steps[None]
"""A process of the modelled hardware."""


class Wait:
    """Awaitable over a simpy event: a task that is cancelled while waiting sees ``CancelledError`` here."""

    def __init__(self, event: simpy.Event) -> None:
        self._event = event

    def __await__(self) -> Generator[simpy.Event, Any, Any]:
        try:
            return (yield self._event)
        except simpy.Interrupt:
            raise CancelledError from None


class Run(Generic[T]):
    """Awaitable over hardware steps, done in the caller's own time."""

    def __init__(self, steps: Steps[T]) -> None:
        self._steps = steps

    def __await__(self) -> Steps[T]:
        try:
            return (yield from self._steps)
        except simpy.Interrupt:
            raise CancelledError from None


class Latch:
    """One-way latch between tasks: the machine protocol's event."""

    def __init__(self, env: simpy.Environment) -> None:
        self._env = env
        self._set = False
        self._waiting = env.event()

    def set(self) -> None:
        """Let every waiter go on, now and from now on until :meth:`clear`."""
        if not self._set:
            self._set = True
            self._waiting.succeed()

    def clear(self) -> None:
        """Make later waiters wait again."""
        if self._set:
            self._set = False
            self._waiting = self._env.event()

    def is_set(self) -> bool:
        """Whether waiters pass."""
        return self._set

    @property
    def event(self) -> simpy.Event:
        """What hardware waits for: fires when the latch is set next."""
        return self._waiting

    async def wait(self) -> None:
        """Wait until set."""
        if not self._set:
            await Wait(self._waiting)


class Line:
    """A level-sensitive interrupt line."""

    def __init__(self, env: simpy.Environment) -> None:
        self._latch = Latch(env)

    @property
    def high(self) -> bool:
        """Whether the line is high now."""
        return self._latch.is_set()

    def drive(self, high: bool) -> None:
        """Put a level on the line."""
        if high:
            self._latch.set()
        else:
            self._latch.clear()

    async def wait(self) -> None:
        """Return when the line is high; at once if it is."""
        while not self.high:
            await self._latch.wait()


class SimTask(Generic[T]):
    """A coroutine running beside the others.

    What the coroutine raises is kept for :meth:`join`; :attr:`lost` tells of an error that nobody has collected.
    """

    def __init__(self, env: simpy.Environment, coroutine: Coroutine[Any, Any, T], *, name: str) -> None:
        self.name = name
        self._coroutine = coroutine
        self._result: list[T] = []
        self._error: BaseException | None = None
        self._joined = False
        self._process = env.process(self._run())

    def _run(self) -> Routine:
        try:
            self._result.append((yield from self._coroutine.__await__()))
        except (Exception, CancelledError) as error:
            self._error = error

    def done(self) -> bool:
        """Whether it has ended."""
        return not self._process.is_alive

    def cancel(self) -> None:
        """Stop it at its next await."""
        if self._process.is_alive:
            self._process.interrupt()

    @property
    def lost(self) -> Exception | None:
        """The error it ended with, if no :meth:`join` has raised it."""
        return self._error if isinstance(self._error, Exception) and not self._joined else None

    async def join(self) -> T:
        """Wait for the end and return the result, or raise what it raised: ``CancelledError`` if stopped."""
        if self._process.is_alive:
            await Wait(self._process)
        self._joined = True
        if self._error is not None:
            raise self._error
        return self._result[0]


class Kernel:
    """The simulated clock and everything that waits on it."""

    def __init__(self) -> None:
        self.env = simpy.Environment()
        self.tasks: list[SimTask[Any]] = []

    @property
    def now(self) -> int:
        """Cycles since the start."""
        return int(self.env.now)

    def spawn(self, coroutine: Coroutine[Any, Any, T], *, name: str) -> SimTask[T]:
        """Start a coroutine beside the caller."""
        task = SimTask(self.env, coroutine, name=name)
        self.tasks = [other for other in self.tasks if not other.done() or other.lost]
        self.tasks.append(task)
        return task

    async def delay(self, cycles: int) -> None:
        """Let simulated time pass."""
        if cycles < 0:
            raise ValueError(f"A delay must be 0 cycles or more, not {cycles!r}")
        await Wait(self.env.timeout(cycles))

    def run(self, task: SimTask[T], *, limit: int | None) -> T:
        """Let time pass until ``task`` has ended; ``limit`` cycles at most.

        Raises what the task raised; ``RuntimeError`` if everything waits on something that can't come, or at the limit.
        """
        while not task.done():
            if self.env.peek() == float("inf"):
                raise self._stuck(task, "nothing is left that could happen")
            if limit is not None and self.env.peek() > limit:
                raise self._stuck(task, f"{limit} cycles have passed")
            self.env.step()
        if task.lost is not None:
            raise task.lost
        for other in self.tasks:
            if other is not task and other.lost is not None:
                raise other.lost
        return task._result[0]

    def _stuck(self, task: SimTask[Any], why: str) -> Exception:
        """The error of a task that somebody has not collected, if any: that is why others wait."""
        for other in self.tasks:
            if other.lost is not None:
                return other.lost
        waiting = ", ".join(other.name for other in self.tasks if not other.done())
        return RuntimeError(f"Task {task.name} can't end: {why}; waiting: {waiting}")


class Hardware:
    """Processes of one power-on of the modelled hardware; :meth:`stop` ends them all at reset."""

    def __init__(self, env: simpy.Environment) -> None:
        self.env = env
        self.running = True
        self._processes: list[simpy.Process] = []

    @property
    def now(self) -> int:
        """Cycle."""
        return int(self.env.now)

    def start(self, routine: Routine) -> simpy.Process:
        """Run a hardware process until it ends or the hardware is stopped."""
        process = self.env.process(self._guarded(routine))
        if len(self._processes) > 64:
            self._processes = [p for p in self._processes if p.is_alive]
        self._processes.append(process)
        return process

    def _guarded(self, routine: Routine) -> Routine:
        try:
            yield from routine
        except simpy.Interrupt:
            return

    def at(self, cycle: int, action: Callable[[], None]) -> None:
        """Do something at a later cycle, unless the hardware is stopped before."""

        def wait() -> Routine:
            yield self.env.timeout(max(0, cycle - self.now))
            action()

        self.start(wait())

    def stop(self) -> None:
        """End every process."""
        self.running = False
        for process in self._processes:
            if process.is_alive:
                process.interrupt()

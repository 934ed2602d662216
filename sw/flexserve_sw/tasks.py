"""Tasks and events of the machine protocol: a small scheduler that both machines enter when something has happened.

Under co-simulation it is used instead of cocotb's own, for two reasons: software may await while it is being cancelled,
which cocotb's tasks refuse, and a wake that ends in one task's next step costs a fraction of a chain of triggers. That
the transaction-level machine has the same one makes tasks go on in the same order on both.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections import deque
from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

__all__ = ["Kernel", "Latch", "SimTask"]

T = TypeVar("T")


class Latch:
    """One-way latch between tasks: the machine protocol's event, and the only thing a task can wait on."""

    __slots__ = ("_kernel", "_set", "_waiters")

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._set = False
        self._waiters: list[SimTask[Any]] = []

    def set(self) -> None:
        """Let every waiter go on, now and from now on until :meth:`clear`."""
        self._set = True
        for task in self._waiters:
            self._kernel.resume(task)
        self._waiters.clear()

    def clear(self) -> None:
        """Make later waiters wait again."""
        self._set = False

    def is_set(self) -> bool:
        """Whether waiters pass."""
        return self._set

    async def wait(self) -> None:
        """Wait until set."""
        if not self._set:
            await self

    def __await__(self) -> Generator[Latch, None, None]:
        yield self

    def add(self, task: SimTask[Any]) -> None:
        """Note a task that waits."""
        self._waiters.append(task)

    def remove(self, task: SimTask[Any]) -> None:
        """Forget a task that is cancelled while it waits."""
        self._waiters.remove(task)


class SimTask(Generic[T]):
    """A coroutine running beside the others.

    What the coroutine raises is kept for :meth:`join`; :attr:`lost` tells of an error that nobody has collected.
    """

    def __init__(self, kernel: Kernel, coroutine: Coroutine[Any, Any, T], *, name: str) -> None:
        self.name = name
        self._kernel = kernel
        self._coroutine = coroutine
        self._result: list[T] = []
        self._error: BaseException | None = None
        self._joined = False
        self._cancelled = False
        self._waiting: Latch | None = None
        self._ended = Latch(kernel)

    def step(self) -> None:
        """Run up to the next wait or to the end."""
        self._waiting = None
        try:
            if self._cancelled:
                self._cancelled = False
                waiting = self._coroutine.throw(CancelledError())
            else:
                waiting = self._coroutine.send(None)
        except StopIteration as end:
            self._result.append(end.value)
            self._ended.set()
        except (Exception, CancelledError) as error:
            self._error = error
            self._ended.set()
        else:
            if not isinstance(waiting, Latch):
                raise TypeError(f"A task can only await what the machine gives it, not {waiting!r}")
            self._waiting = waiting
            waiting.add(self)

    def done(self) -> bool:
        """Whether it has ended."""
        return self._ended.is_set()

    def cancel(self) -> None:
        """Stop it at its next await."""
        if self.done() or self._cancelled:
            return
        self._cancelled = True
        if self._waiting is not None:
            self._waiting.remove(self)
            self._waiting = None
            self._kernel.resume(self)

    @property
    def lost(self) -> Exception | None:
        """The error it ended with, if no :meth:`join` has raised it."""
        return self._error if isinstance(self._error, Exception) and not self._joined else None

    @property
    def result(self) -> T:
        """What the coroutine returned, or raise what it raised."""
        self._joined = True
        if self._error is not None:
            raise self._error
        return self._result[0]

    async def join(self) -> T:
        """Wait for the end; return the result or raise what the coroutine raised (``CancelledError`` if stopped)."""
        await self._ended.wait()
        return self.result


class Kernel:
    """All tasks of a job, and which of them can go on."""

    def __init__(self) -> None:
        self._ready: deque[SimTask[Any]] = deque()
        self._paused: list[Latch] = []
        self._tasks: list[SimTask[Any]] = []
        self._room = 16  # tasks at which those that have ended are forgotten

    def spawn(self, coroutine: Coroutine[Any, Any, T], *, name: str) -> SimTask[T]:
        """Start a coroutine beside the caller."""
        task = SimTask(self, coroutine, name=name)
        if len(self._tasks) >= self._room:
            self._tasks = [other for other in self._tasks if not other.done() or other.lost]
            self._room = 2 * len(self._tasks) + 16
        self._tasks.append(task)
        self._ready.append(task)
        return task

    def resume(self, task: SimTask[Any]) -> None:
        """Let a task that waited go on."""
        self._ready.append(task)

    async def pause(self) -> None:
        """Let every other task that can go on do so first; no time passes."""
        latch = Latch(self)
        self._paused.append(latch)
        await latch.wait()

    def run(self) -> None:
        """Run every task that can go on, until all wait."""
        while self._ready or self._paused:
            while self._ready:
                self._ready.popleft().step()
            paused, self._paused = self._paused, []
            for latch in paused:
                latch.set()

    @property
    def quiet(self) -> bool:
        """Whether no task but the one that runs could go on now."""
        return not self._ready and not self._paused

    def lost(self) -> Exception | None:
        """The first error of a task that nobody has collected."""
        return next((task.lost for task in self._tasks if task.lost is not None), None)

    def waiting(self) -> str:
        """Names of the tasks that have not ended."""
        return ", ".join(task.name for task in self._tasks if not task.done())

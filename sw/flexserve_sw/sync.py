"""What tasks on one machine need to work together: a lock and a bounded channel, built on the machine's events."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable
from types import TracebackType
from typing import Any, Generic, NoReturn, TypeVar

from .machine import Event, Machine

__all__ = ["Channel", "Mutex", "undo"]

T = TypeVar("T")


async def undo(failure: BaseException, work: Awaitable[Any]) -> NoReturn:
    """Do what a failure calls for, and raise it; what fails in that is raised from it.

    For where the work takes time: a coroutine had better not wait while it handles an exception.
    """
    try:
        await work
    except BaseException as error:
        error.__cause__ = failure  # compiled code raises from nothing
        raise
    raise failure


class Mutex:
    """Mutual exclusion in order of arrival, as ``async with mutex:``.

    A waiter that is cancelled gives its place up, and passes the lock on if it was handed to it at the same moment.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._held = False
        self._waiting: deque[Event] = deque()

    @property
    def held(self) -> bool:
        """Whether somebody is inside."""
        return self._held

    def take(self) -> bool:
        """Go inside if nobody is; whether that is so."""
        free = not self._held
        self._held = True
        return free

    async def acquire(self) -> None:
        """Go inside as soon as it is one's turn; to be followed by :meth:`release`."""
        if not self.take():
            await self._queue()

    async def _queue(self) -> None:
        turn = self._machine.event()
        self._waiting.append(turn)
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():
                self.release()
            else:
                self._waiting.remove(turn)
            raise

    def release(self) -> None:
        """Leave, and let the next one in."""
        if self._waiting:
            self._waiting.popleft().set()
        else:
            self._held = False

    async def __aenter__(self) -> None:
        if not self.take():
            await self._queue()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Channel(Generic[T]):
    """Queue of at most ``depth`` items between tasks; each ``get`` takes the oldest."""

    def __init__(self, machine: Machine, *, depth: int) -> None:
        if depth < 1:
            raise ValueError(f"Channel depth must be at least 1, not {depth!r}")
        self._depth = depth
        self._items: deque[T] = deque()
        self._filled, self._drained = machine.event(), machine.event()

    async def put(self, item: T) -> None:
        """Append, waiting for room."""
        while len(self._items) >= self._depth:
            self._drained.clear()
            await self._drained.wait()
        self.give_back(item)

    def give_back(self, item: T) -> None:
        """Append where there is room, as there is for what came from here."""
        if len(self._items) >= self._depth:
            raise ValueError(f"A channel must have room for what is given back, not {self._depth} items")
        self._items.append(item)
        self._filled.set()

    async def get(self) -> T:
        """Take the oldest, waiting for one."""
        while not self._items:
            self._filled.clear()
            await self._filled.wait()
        item = self._items.popleft()
        self._drained.set()
        return item

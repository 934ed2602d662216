"""A machine as one campaign sees it: tasks that it leaves behind end with it."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from ..machine import Event, Initiator, Interrupt, Machine, Memory, Task, World

__all__ = ["Confined"]

T = TypeVar("T")


class Confined:
    """Passes everything on to ``machine`` and remembers the tasks, so that :meth:`end` can stop them.

    An OS that was attacked leaves interrupt handlers running, which would serve the next campaign's hardware.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._tasks: list[Task[Any]] = []

    async def end(self) -> None:
        """Stop every task that is still running, and let them see it."""
        for task in self._tasks:
            if not task.done():
                task.cancel()
        await self._machine.delay(1)

    @property
    def clock_hz(self) -> int:
        """Frequency."""
        return self._machine.clock_hz

    @property
    def now(self) -> int:
        """Cycles."""
        return self._machine.now

    @property
    def dram(self) -> Memory:
        """Memory, for checks."""
        return self._machine.dram

    @property
    def flash(self) -> Memory:
        """Storage."""
        return self._machine.flash

    async def reset(self) -> None:
        """Pulse reset."""
        await self._machine.reset()

    async def read_register(self, address: int, *, by: Initiator, world: World | None = None) -> int:
        """Read a register."""
        return await self._machine.read_register(address, by=by, world=world)

    async def write_register(
        self, address: int, value: int, *, by: Initiator, world: World | None = None, strobe: int = 0xF
    ) -> None:
        """Write a register."""
        await self._machine.write_register(address, value, by=by, world=world, strobe=strobe)

    async def write_registers(
        self, values: Iterable[tuple[int, int]], *, by: Initiator, world: World | None = None
    ) -> None:
        """Write registers."""
        await self._machine.write_registers(values, by=by, world=world)

    async def load(self, address: int, length: int, *, by: Initiator, world: World | None = None) -> bytes:
        """Read through the filter."""
        return await self._machine.load(address, length, by=by, world=world)

    async def store(self, address: int, payload: bytes, *, by: Initiator, world: World | None = None) -> None:
        """Write through the filter."""
        await self._machine.store(address, payload, by=by, world=world)

    async def delay(self, cycles: int) -> None:
        """Let time pass."""
        await self._machine.delay(cycles)

    async def wait_interrupt(self, line: Interrupt) -> None:
        """Wait for a line."""
        await self._machine.wait_interrupt(line)

    def announce(self, line: Interrupt, event: Event) -> None:
        """Set an event when a line is high."""
        self._machine.announce(line, event)

    def pending(self, line: Interrupt) -> bool:
        """Whether a line is high."""
        return self._machine.pending(line)

    def spawn(self, coroutine: Coroutine[Any, Any, T], *, name: str) -> Task[T]:
        """Start a task that ends with the campaign."""
        task = self._machine.spawn(coroutine, name=name)
        self._tasks.append(task)
        return task

    def event(self) -> Event:
        """Make an event."""
        return self._machine.event()

"""Driver of a recall command port: the same for pages and for the NPU, in either world."""

from __future__ import annotations

from ..machine import Initiator, Machine
from ..recall import Outcome
from ..regs import RecallCommand, RecallCommandPort, RecallResult
from ..sync import Mutex

__all__ = ["CommandPort", "CommandRefused"]


class CommandRefused(Exception):
    """Hardware refused a recall command; nothing was changed."""

    def __init__(self, command: RecallCommand, outcome: Outcome) -> None:
        super().__init__(f"{command.name} was refused with {outcome.result.name} at unit {outcome.offender:#x}")
        self.command = command
        self.outcome = outcome


class CommandPort:
    """One frame's command registers. Tasks of that world take turns; a command is over when it is drained."""

    def __init__(self, machine: Machine, port: RecallCommandPort, *, by: Initiator) -> None:
        self._machine, self._port, self._by = machine, port, by
        self._turn = Mutex(machine)

    async def try_command(self, code: RecallCommand, first: int, count: int, *, ticket: int | None = None) -> Outcome:
        """Give a command over ``count`` units from ``first``; return hardware's answer."""
        machine, port, by = self._machine, self._port, self._by
        async with self._turn:
            await machine.write_register(port.FIRST, first, by=by)
            await machine.write_register(port.COUNT, count, by=by)
            if ticket is not None:
                await machine.write_register(port.TICKET, ticket, by=by)
            await machine.write_register(port.COMMAND, port.COMMAND__CODE.put(code), by=by)
            while port.STATUS__BUSY.get(status := await machine.read_register(port.STATUS, by=by)):
                pass
            result = RecallResult(port.STATUS__RESULT.get(status))
            offender = 0 if result is RecallResult.OK else await machine.read_register(port.OFFENDER, by=by)
            return Outcome(result, offender)

    async def command(self, code: RecallCommand, first: int, count: int, *, ticket: int | None = None) -> None:
        """Give a command; raise :class:`CommandRefused` if it is not applied."""
        outcome = await self.try_command(code, first, count, ticket=ticket)
        if outcome.result is not RecallResult.OK:
            raise CommandRefused(code, outcome)

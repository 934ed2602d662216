"""The command port of the recall protocol: the same registers for pages and for the NPU, one port per world."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..machine import World
from ..recall import Outcome
from ..regs import RecallCommandPort, RecallResult
from .registers import Register, Trigger, Value, View

__all__ = ["CommandPort", "Request"]


@dataclass(frozen=True)
class Request:
    """A command on its way through the engine."""

    port: CommandPort
    code: int
    first: int
    count: int
    ticket: int


class CommandPort:
    """Registers FIRST to OFFENDER of one world's frame.

    ``submit`` takes a request as soon as COMMAND is written; the engine ends it with :meth:`finish`. Until then the
    port is busy: writes to its registers answer SLVERR and change nothing.
    """

    def __init__(self, *, world: World, submit: Callable[[Request], None], finished: Callable[[], None]) -> None:
        self.world = world
        self.busy = False
        self._submit, self._finished = submit, finished
        self._outcome = Outcome(RecallResult.OK)
        self._first, self._count, self._ticket = (Value(rejected=self._is_busy) for _ in range(3))

    def _is_busy(self) -> bool:
        return self.busy

    def _start(self, code: int) -> None:
        self.busy = True
        self._submit(Request(self, code, self._first.value, self._count.value, self._ticket.value))

    def finish(self, outcome: Outcome) -> None:
        """Report the end of the command, drain included."""
        self.busy = False
        self._outcome = outcome
        self._finished()

    def _status(self) -> int:
        return RecallCommandPort.STATUS__BUSY.put(int(self.busy)) | RecallCommandPort.STATUS__RESULT.put(
            int(self._outcome.result)
        )

    def registers(self, block: RecallCommandPort) -> dict[int, Register]:
        """Registers by byte address."""
        return {
            block.FIRST: self._first,
            block.COUNT: self._count,
            block.TICKET: self._ticket,
            block.COMMAND: Trigger(self._start, mask=0xF, rejected=self._is_busy),
            block.STATUS: View(self._status),
            block.OFFENDER: View(lambda: self._outcome.offender),
        }

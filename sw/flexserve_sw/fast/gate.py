"""NPU gate: the recall protocol for the one unit 0, the NPU."""

from __future__ import annotations

from collections import deque

from ..machine import World
from ..recall import Outcome, RecallTable
from ..regs import GATE_NORMAL, GATE_SECURE, GateSecure, RecallCommand, RecallResult, RecallState
from .commands import CommandPort, Request
from .kernel import Hardware, Line, Routine, Signal
from .npu import Npu
from .pages import GRACE_MIN, clamp
from .registers import Frame, Interrupts, Register, Trigger, Value, View

__all__ = ["NpuGate"]

_N_COMMAND, _N_RETURNED = range(2)
_S_COMMAND, _S_DELEGATED, _S_RECALL, _S_EXPIRED, _S_CORRUPT = range(5)


class NpuGate:
    """GATE_NORMAL and GATE_SECURE frames. A hand-over goes: block the old frame, drain, scrub, flip, report.

    While it goes on, and after a reset, STATE reads SCRUBBING.
    """

    def __init__(self, hardware: Hardware, normal: Line, secure: Line, *, npu: Npu) -> None:
        self._hardware, self._npu = hardware, npu
        self._n_irq, self._s_irq = Interrupts(normal, width=2), Interrupts(secure, width=5)
        self.table = RecallTable(0, 1, GRACE_MIN, timers=1, initial=RecallState.SCRUBBING, ticketed=True)
        self._reported = RecallState.SCRUBBING
        self._alarm = False
        self._queue: deque[Request] = deque()
        self._asked = Signal()
        self._normal = CommandPort(
            world=World.NORMAL, submit=self._submit, finished=lambda: self._n_irq.post(_N_COMMAND)
        )
        self._secure = CommandPort(
            world=World.SECURE, submit=self._submit, finished=lambda: self._s_irq.post(_S_COMMAND)
        )
        self._control = Value(mask=1, adjust=lambda word: word | self._control.value)
        self._grace = Value(frozen=self._locked)
        self._managers = Value(reset=1, mask=0xFFFF, frozen=self._locked)
        self.normal_frame = Frame(self._normal_registers())
        self.secure_frame = Frame(self._secure_registers())
        hardware.start(self._boot())
        hardware.start(self._engine())

    @property
    def managers(self) -> Value:
        """Mask of the NSAIDs that may use the normal-world frame."""
        return self._managers

    def _locked(self) -> bool:
        return bool(GateSecure.CONTROL__LOCK.get(self._control.value))

    def _normal_registers(self) -> dict[int, Register]:
        n = GATE_NORMAL
        registers: dict[int, Register] = {
            n.ID: View(lambda: 0x464C4754),
            n.STATE: View(lambda: int(self._reported)),
            n.TICKET: View(lambda: self.table.ticket),
            n.GRACE: View(lambda: clamp(self._grace.value)),
            n.IRQ_STATUS: self._n_irq.status,
            n.IRQ_ENABLE: self._n_irq.enable,
        }
        registers |= self._normal.registers(n.CMD)
        return {address - n.base: register for address, register in registers.items()}

    def _secure_registers(self) -> dict[int, Register]:
        s = GATE_SECURE
        registers: dict[int, Register] = {
            s.ID: View(lambda: 0x464C4753),
            s.STATE: View(lambda: int(self._reported)),
            s.TICKET: View(lambda: self.table.ticket),
            s.GRACE: self._grace,
            s.CONTROL: self._control,
            s.MANAGERS: self._managers,
            s.ALARM: Trigger(self._clear_alarm, mask=1, get=lambda: int(self._alarm)),
            s.IRQ_STATUS: self._s_irq.status,
            s.IRQ_ENABLE: self._s_irq.enable,
        }
        registers |= self._secure.registers(s.CMD)
        return {address - s.base: register for address, register in registers.items()}

    def _clear_alarm(self, word: int) -> None:
        self._alarm = self._alarm and not word

    def _submit(self, request: Request) -> None:
        self._queue.append(request)
        self._asked.fire()

    def _engine(self) -> Routine:
        """Take commands of both worlds one after the other. DELEGATE and SEAL end with a clean NPU, RELEASE drained."""
        while True:
            while not self._queue:
                yield self._asked
            request = self._queue.popleft()
            yield 2
            outcome = self._apply(request)
            if outcome.result is RecallResult.OK:
                yield from self._carry_out(RecallCommand(request.code))
            request.port.finish(outcome)

    def _carry_out(self, code: RecallCommand) -> Routine:
        match code:
            case RecallCommand.DELEGATE | RecallCommand.SEAL:
                self._reported = RecallState.SCRUBBING
                yield from self._npu.drain()
                yield from self._npu.scrub()
                if code is RecallCommand.SEAL:
                    self._npu.give(World.SECURE)
                else:
                    self._s_irq.post(_S_DELEGATED)
                self._report()
            case RecallCommand.RELEASE:
                self._report()
                yield from self._npu.drain()
                self._hardware.start(self._return())
            case _:
                self._report()

    def _apply(self, request: Request) -> Outcome:
        now = self._hardware.now
        self.table.grace, self.table.locked = clamp(self._grace.value), self._locked()
        try:
            code = RecallCommand(request.code)
        except ValueError:
            return Outcome(RecallResult.BAD_COMMAND, request.first)
        outcome = self.table.command(
            code, request.first, request.count, by=request.port.world, now=now, ticket=request.ticket
        )
        if outcome.result is RecallResult.CORRUPT_STATE:
            self._alarm = True
            self._s_irq.post(_S_CORRUPT)
        if outcome.result is RecallResult.OK:
            self._npu.ticket = self.table.ticket
            if code is RecallCommand.RECALL:
                self._hardware.at(now + self.table.grace, self._due)
                self._s_irq.post(_S_RECALL)
            if code is RecallCommand.ACCEPT:
                self._npu.give(World.SECURE)
            if code is RecallCommand.CANCEL:
                self._npu.give(World.NORMAL)
                self._n_irq.post(_N_RETURNED)
        return outcome

    def _expire(self) -> Routine:
        """Take the NPU back if its grace period is over now."""
        if self.table.expire(self._hardware.now):
            self._s_irq.post(_S_EXPIRED)
            self._report()
            yield from self._npu.drain()
            yield from self._return()

    def _due(self) -> None:
        self._hardware.start(self._expire())

    def _return(self) -> Routine:
        """SCRUBBING to NORMAL, for an NPU that is drained."""
        yield from self._npu.scrub()
        self.table.scrubbed(0)
        self._npu.give(World.NORMAL)
        self._report()
        self._n_irq.post(_N_RETURNED)

    def _boot(self) -> Routine:
        """Scrub what a reset has left in the NPU, and begin in NORMAL."""
        yield from self._npu.drain()
        yield from self._npu.scrub()
        self.table.scrubbed(0)
        self._npu.give(World.NORMAL)
        self._report()

    def _report(self) -> None:
        """Show the state that is now true."""
        self._reported = self.table.states[0]

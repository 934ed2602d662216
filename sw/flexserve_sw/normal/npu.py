"""The OS's NPU: its own jobs, and lending it to the secure world, in turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..drivers.command import CommandPort, CommandRefused
from ..drivers.npu import NpuDriver
from ..machine import Initiator, Machine
from ..regs import GATE_NORMAL, GateNormal, RecallCommand, RecallResult, RecallState
from ..sync import Mutex
from ..timeline import Timeline

__all__ = ["NpuManager", "NpuTurn"]

_BY = Initiator.NORMAL_CPU
_POLL = 100
"""Cycles between two looks at the NPU gate."""


@dataclass(frozen=True)
class NpuTurn:
    """The OS's turn with the NPU in cycles: waited for it, took it back, computed."""

    waited: int
    recalled: int
    computed: int


class NpuManager:
    """Who has the NPU, as far as the OS decides it.

    Whoever asks first has the next turn, so neither the OS's jobs nor the secure world starve. The secure world keeps
    what it was lent for ``slice`` cycles at least, unless it gives it back itself.
    """

    def __init__(self, machine: Machine, timeline: Timeline) -> None:
        self._machine, self._timeline = machine, timeline
        self.gate = CommandPort(machine, GATE_NORMAL.CMD, by=_BY)
        self.driver = NpuDriver(machine, by=_BY)
        self.slice = 0
        self.lent = 0
        self.lend_cycles = 0
        self._turn = Mutex(machine)
        self._lent_at = 0
        self._enabled = False

    async def state(self) -> RecallState:
        """State of the NPU as the gate tells it."""
        return RecallState(GateNormal.STATE__STATE.get(await self._machine.read_register(GATE_NORMAL.STATE, by=_BY)))

    async def _leave(self, *states: RecallState) -> RecallState:
        """Wait until the NPU is in none of these states."""
        while (state := await self.state()) in states:
            await self._machine.delay(_POLL)
        return state

    async def lend(self) -> None:
        """Lend the NPU, once it is back if it is on its way."""
        async with self._turn:
            await self._leave(RecallState.RECALLING, RecallState.SCRUBBING)
            begin = self._machine.now
            with self._timeline.span("lend", "lend NPU"):
                await self.gate.command(RecallCommand.DELEGATE, 0, 1)
            self._lent_at = self._machine.now
            self.lend_cycles += self._lent_at - begin
            self.lent += 1

    async def recall(self) -> int:
        """Take the NPU back; return the cycles it took.

        The gate's note that the NPU came back is waited for, not its state: it may be lent again at once.
        """
        begin = self._machine.now
        returned = GateNormal.IRQ_STATUS__RETURNED
        with self._timeline.span("recall", "recall NPU"):
            await self._machine.write_register(GATE_NORMAL.IRQ_STATUS, returned.put(1), by=_BY)
            await self.gate.command(RecallCommand.RECALL, 0, 1)
            while not returned.get(await self._machine.read_register(GATE_NORMAL.IRQ_STATUS, by=_BY)):
                await self._machine.delay(_POLL)
        return self._machine.now - begin

    async def _take_back(self) -> int:
        """Recall the NPU if it is lent, once the secure world has had it long enough; return the cycles that took."""
        # What is offered and not accepted yet is on its way to the secure world.
        moving = (RecallState.DELEGATED, RecallState.RECALLING, RecallState.SCRUBBING)
        while await self._leave(*moving) is RecallState.FLEX:
            await self._machine.delay(max(1, self._lent_at + self.slice - self._machine.now))
            try:
                return await self.recall()
            except CommandRefused as refused:
                # The secure world has given it back of its own accord.
                if refused.outcome.result is not RecallResult.BAD_STATE:
                    raise
        return 0

    async def run(self, jobs: Sequence[tuple[int, int]]) -> NpuTurn:
        """Run job lists (address, descriptors) of the OS's own, one after the other, taking the NPU back for them."""
        machine = self._machine
        asked = machine.now
        async with self._turn:
            recalled = await self._take_back()
            begin = machine.now
            if not self._enabled:
                await self.driver.enable_interrupts()
                self._enabled = True
            with self._timeline.span("npu", "OS's own", jobs=len(jobs)):
                for address, count in jobs:
                    await self.driver.run(address, count)
            return NpuTurn(begin - recalled - asked, recalled, machine.now - begin)

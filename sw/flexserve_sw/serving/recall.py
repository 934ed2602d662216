"""The secure world's answer to a recall: gives back what the OS asks for, without giving anything away."""

from __future__ import annotations

from ..machine import BusFault, Initiator, Interrupt, Machine, World
from ..monitor.monitor import Monitor
from ..regs import FLEX_SECURE, GATE_SECURE, FlexmemSecure, GateSecure
from ..timeline import Timeline
from .npu import BorrowedNpu
from .pager import Pager

__all__ = ["RecallHandler"]

_BY = Initiator.SECURE_CPU
_SCRUB_CYCLES = 2_048
"""Cycles to wait per page between a release and looking at what is still owed: eight times an idle scrub."""


class RecallHandler:
    """Serves the secure interrupts of filter and NPU gate.

    ``alarms`` counts what hardware reported as corrupt, ``expired`` grace periods that ran out.
    """

    def __init__(
        self, machine: Machine, monitor: Monitor, pager: Pager, npu: BorrowedNpu | None, timeline: Timeline
    ) -> None:
        self._machine, self._monitor, self._pager, self._npu = machine, monitor, pager, npu
        self._timeline = timeline
        self.alarms = 0
        self.expired = 0

    def start(self) -> None:
        """Serve interrupts from now on."""
        self._machine.spawn(self._serve_pages(), name="secure: recall of pages")
        if self._npu is not None:
            self._machine.spawn(self._serve_npu(self._npu), name="secure: recall of the NPU")

    async def _serve_pages(self) -> None:
        while True:
            await self._machine.wait_interrupt(Interrupt.FLEX_SECURE)
            await self._monitor.switch(World.SECURE)
            status = await self._machine.read_register(FLEX_SECURE.IRQ_STATUS, by=_BY)
            await self._machine.write_register(FLEX_SECURE.IRQ_STATUS, status, by=_BY)
            self.alarms += FlexmemSecure.IRQ_STATUS__CORRUPT.get(status)
            self.expired += FlexmemSecure.IRQ_STATUS__EXPIRED.get(status)
            if FlexmemSecure.IRQ_STATUS__RECALL.get(status):
                await self._give_back_range()
            if FlexmemSecure.IRQ_STATUS__SIZE_REQUEST.get(status):
                await self._give_back_size()
            await self._monitor.switch(World.NORMAL)

    async def _give_back_range(self) -> None:
        frames: set[int] = set()
        for timer in FLEX_SECURE.TIMER:
            count = await self._machine.read_register(timer.COUNT, by=_BY)
            if count:
                first = await self._machine.read_register(timer.FIRST, by=_BY)
                frames.update(range(first, first + count))
        # A segment that is being loaded for the first time is nobody else's to touch.
        loading = {segment for segment, page in self._pager.resident() if not segment.loaded.is_set()}
        for segment in loading:
            await segment.loaded.wait()
        async with self._pager.lock:
            with self._timeline.span("serve recall", "by range", pages=len(frames)) as detail:
                detail["given"] = await self._surrender(frames)

    async def _surrender(self, frames: set[int]) -> int:
        """Give frames back; those whose grace period ends meanwhile fault and are the OS's already."""
        while True:
            try:
                return await self._pager.surrender_frames(frames)
            except BusFault as error:
                fault = error
            if not await self._pager.reconcile():
                raise fault

    async def _give_back_size(self) -> None:
        while owed := await self._machine.read_register(FLEX_SECURE.SIZE_OWED, by=_BY):
            async with self._pager.lock:
                with self._timeline.span("serve recall", "by size", pages=owed) as detail:
                    detail["given"] = given = await self._pager.surrender(owed)
            if given:
                await self._until_owed(owed - given, given * _SCRUB_CYCLES)
            elif all(segment.loaded.is_set() for segment in self._pager.segments):
                return
            else:
                await self._machine.delay(_SCRUB_CYCLES)

    async def _until_owed(self, pages: int, limit: int) -> None:
        """Wait until the scrubber has paid off what was released, so that it is not released twice."""
        deadline = self._machine.now + limit
        while self._machine.now < deadline:
            if await self._machine.read_register(FLEX_SECURE.SIZE_OWED, by=_BY) <= pages:
                return
            await self._machine.delay(256)

    async def _serve_npu(self, npu: BorrowedNpu) -> None:
        while True:
            await self._machine.wait_interrupt(Interrupt.GATE_SECURE)
            await self._monitor.switch(World.SECURE)
            status = await self._machine.read_register(GATE_SECURE.IRQ_STATUS, by=_BY)
            await self._machine.write_register(GATE_SECURE.IRQ_STATUS, status, by=_BY)
            self.alarms += GateSecure.IRQ_STATUS__CORRUPT.get(status)
            if GateSecure.IRQ_STATUS__EXPIRED.get(status):
                self.expired += 1
                await npu.expired()
            if GateSecure.IRQ_STATUS__RECALL.get(status):
                with self._timeline.span("serve recall", "NPU"):
                    await npu.recall()
            await self._monitor.switch(World.NORMAL)

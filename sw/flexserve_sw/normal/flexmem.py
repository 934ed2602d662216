"""The OS's Flex-Mem manager: lends pages and takes them back. Untrusted: hardware checks whatever it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..census import PageCensus
from ..drivers.command import CommandPort, CommandRefused
from ..machine import Event, Initiator, Interrupt, Machine
from ..monitor.layout import Extent
from ..recall import Outcome
from ..regs import FLEX_NORMAL, FlexmemNormal, RecallCommand, RecallResult, RecallState
from ..timeline import Timeline

__all__ = ["FlexMemManager", "Recalled"]

_BY = Initiator.NORMAL_CPU
_TIMER_POLL = 1_000
"""Cycles between two tries for a grace timer."""
_RETURNING = (RecallState.RECALLING, RecallState.SCRUBBING, RecallState.NORMAL)
"""States of a lent page that comes back without another RECALL; NORMAL until its report is read."""


@dataclass
class Recalled:
    """A recall under way: by size it waits for any ``wanted`` pages, by range for the pages in ``range``."""

    wanted: int
    range: frozenset[int] | None
    begin: int
    done: Event
    pages: list[int]
    end: int = 0

    def takes(self, page: int) -> bool:
        """Whether a page that came back counts for this recall."""
        return len(self.pages) < self.wanted and (self.range is None or page in self.range)

    @property
    def latency(self) -> int:
        """Cycles from asking to the last page being the OS's again."""
        return self.end - self.begin


class FlexMemManager:
    """Normal-world side of the recall protocol.

    Pages that come back go to the recall that waits for them, others to ``returned``.
    """

    def __init__(
        self, machine: Machine, timeline: Timeline, census: PageCensus, *, returned: Callable[[int], None]
    ) -> None:
        self._machine, self._timeline, self._census, self._returned = machine, timeline, census, returned
        self.port = CommandPort(machine, FLEX_NORMAL.CMD, by=_BY)
        self.lent: set[int] = set()
        """Pages delegated and not yet back."""
        self.recalls: list[Recalled] = []

    async def start(self) -> None:
        """Enable the interrupt of the freed-page queue and serve it from now on."""
        enable = FlexmemNormal.IRQ_ENABLE__FREED.put(1)
        await self._machine.write_register(FLEX_NORMAL.IRQ_ENABLE, enable, by=_BY)
        self._machine.spawn(self._reap(), name="os: freed pages")

    async def _reap(self) -> None:
        """Take freed pages off the queue: a full one would hold the scrubber back.

        The interrupt is cleared before the queue is emptied, so a page that arrives in between raises it anew.
        """
        while True:
            await self._machine.wait_interrupt(Interrupt.FLEX_NORMAL)
            freed = FlexmemNormal.IRQ_STATUS__FREED.put(1)
            await self._machine.write_register(FLEX_NORMAL.IRQ_STATUS, freed, by=_BY)
            while True:
                word = await self._machine.read_register(FLEX_NORMAL.FREED_POP, by=_BY)
                if not FlexmemNormal.FREED_POP__VALID.get(word):
                    break
                self._came_back(FlexmemNormal.FREED_POP__PFN.get(word))

    def _came_back(self, page: int) -> None:
        self.lent.discard(page)
        self._census.returned([page])
        for recall in self.recalls:
            if recall.takes(page):
                recall.pages.append(page)
                if len(recall.pages) == recall.wanted:
                    recall.end = self._machine.now
                    self.recalls.remove(recall)
                    recall.done.set()
                return
        self._returned(page)

    async def delegate(self, extent: Extent) -> None:
        """Lend pages; raises :class:`CommandRefused`."""
        with self._timeline.span("pages", "delegate", first=extent.first, pages=extent.count):
            await self.port.command(RecallCommand.DELEGATE, extent.first, extent.count)
        self.lent.update(extent.pages())
        self._census.delegated(extent.pages())

    async def cancel(self, extent: Extent) -> None:
        """Take back pages that were never accepted; raises :class:`CommandRefused`."""
        await self.port.command(RecallCommand.CANCEL, extent.first, extent.count)
        self.lent.difference_update(extent.pages())
        self._census.returned(extent.pages())

    async def recall_size(self, pages: int) -> Recalled:
        """Ask for ``pages`` pages of the secure world's choice and wait until they are back."""
        recall = Recalled(pages, None, self._machine.now, self._machine.event(), [])
        with self._timeline.span("recall", "recall by size", pages=pages):
            self.recalls.append(recall)
            await self._machine.write_register(FLEX_NORMAL.SIZE_REQUEST, pages, by=_BY)
            await recall.done.wait()
        return recall

    async def recall_range(self, extent: Extent) -> Recalled:
        """Insist on these pages, all lent, and wait until they are back; raises :class:`CommandRefused`."""
        recall = Recalled(extent.count, frozenset(extent.pages()), self._machine.now, self._machine.event(), [])
        with self._timeline.span("recall", "recall by range", first=extent.first, pages=extent.count):
            self.recalls.insert(0, recall)
            try:
                await self._insist(extent)
            except CommandRefused:
                self.recalls.remove(recall)
                raise
            await recall.done.wait()
        return recall

    async def _insist(self, extent: Extent) -> None:
        """Start the grace period of every page of the range but those that are on their way back already."""
        first = extent.first
        while first < extent.end:
            rest = Extent(first, extent.end - first)
            outcome = await self._start_timer(rest)
            if outcome.result is RecallResult.OK:
                return
            page = outcome.offender
            if outcome.result is not RecallResult.BAD_STATE or await self.state(page) not in _RETURNING:
                raise CommandRefused(RecallCommand.RECALL, outcome)
            if page > first:
                before = Extent(first, page - first)
                outcome = await self._start_timer(before)
                if outcome.result is not RecallResult.OK:
                    # One of them was released in this moment: look at them again.
                    continue
            first = page + 1

    async def _start_timer(self, extent: Extent) -> Outcome:
        """Give RECALL, waiting while every grace timer is in use."""
        while True:
            outcome = await self.port.try_command(RecallCommand.RECALL, extent.first, extent.count)
            if outcome.result is RecallResult.OK:
                self._census.recalled(extent.pages())
            if outcome.result is not RecallResult.NO_SLOT:
                return outcome
            await self._machine.delay(_TIMER_POLL)

    async def state(self, page: int) -> RecallState | None:
        """State of a page as hardware tells it, None outside the window."""
        await self._machine.write_register(FLEX_NORMAL.QUERY_PAGE, page, by=_BY)
        word = await self._machine.read_register(FLEX_NORMAL.QUERY_STATE, by=_BY)
        if not FlexmemNormal.QUERY_STATE__VALID.get(word):
            return None
        return RecallState(FlexmemNormal.QUERY_STATE__STATE.get(word))

    async def census(self) -> dict[str, int]:
        """Pages lent and pages being scrubbed, as hardware counts them."""
        lent = await self._machine.read_register(FLEX_NORMAL.LENT, by=_BY)
        backlog = await self._machine.read_register(FLEX_NORMAL.SCRUB_BACKLOG, by=_BY)
        return {"lent": lent, "scrubbing": backlog}

"""Contiguous memory allocation: an area lent to movable pages until somebody needs it in one piece."""

from __future__ import annotations

from ..machine import PAGE_BYTES, Initiator, Machine
from ..monitor.layout import Extent
from ..platforms import Platform
from ..sync import Mutex
from ..timeline import Timeline
from .buddy import BuddyAllocator

__all__ = ["CmaArea"]

_BY = Initiator.NORMAL_CPU


class CmaArea:
    """Grows and shrinks from the bottom of its area.

    Growing moves every occupied page to ordinary memory, over the bus; a page costs at least what one thread's
    migration costs on the platform.
    """

    def __init__(
        self, machine: Machine, platform: Platform, timeline: Timeline, *, area: Extent, elsewhere: BuddyAllocator
    ) -> None:
        self._machine, self._timeline, self._elsewhere = machine, timeline, elsewhere
        self._page_cost = platform.at_rate(PAGE_BYTES, platform.system.migration_rate, machine.clock_hz)
        self._take_cost = platform.seconds(platform.system.page_allocation, machine.clock_hz)
        self.area = area
        self.occupied: set[int] = set()
        """Pages of the area that programs use now."""
        self.cleared = 0
        """Pages at the bottom that are given away."""
        self.migrated = 0
        self._turn = Mutex(machine)

    def occupy(self, page: int) -> None:
        """Let a program use a page of the area."""
        if not self.area.first + self.cleared <= page < self.area.end:
            raise ValueError(f"Page to occupy must lie in the free part of the area, not {page:#x}")
        self.occupied.add(page)

    @property
    def left(self) -> int:
        """Pages that can still be asked for."""
        return self.area.count - self.cleared

    async def grow(self, pages: int) -> Extent:
        """Clear the next ``pages`` pages and hand them over."""
        async with self._turn:
            return await self._grow(pages)

    async def _grow(self, pages: int) -> Extent:
        if not 0 < pages <= self.left:
            raise ValueError(f"Pages to clear must be 1 to {self.left}, not {pages!r}")
        extent = Extent(self.area.first + self.cleared, pages)
        movers = sorted(self.occupied.intersection(extent.pages()))
        with self._timeline.span("cma", "clear area", pages=pages, migrated=len(movers)):
            await self._machine.delay(self._take_cost * pages)
            for page in movers:
                await self._migrate(page)
        self.cleared += pages
        return extent

    async def _migrate(self, page: int) -> None:
        target = self._elsewhere.take_block(0)
        begin = self._machine.now
        contents = await self._machine.load(page * PAGE_BYTES, PAGE_BYTES, by=_BY)
        await self._machine.store(target.address, contents, by=_BY)
        await self._machine.delay(max(0, self._page_cost - (self._machine.now - begin)))
        self.occupied.remove(page)
        self.migrated += 1

    def shrink(self, extent: Extent) -> None:
        """Take pages back from the top of what was given away."""
        if extent.end != self.area.first + self.cleared:
            raise ValueError(f"Pages must be the last {extent.count} that were handed over, not {extent!r}")
        self.cleared -= extent.count

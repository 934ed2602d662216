"""Where the framework's pages come from: one source per way of protecting memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..census import PageCensus
from ..drivers.command import CommandRefused
from ..machine import Initiator
from ..monitor.layout import Extent, extents_of, pages_of
from ..monitor.monitor import Monitor, Refused
from ..monitor.smc import Request
from ..normal.buddy import OutOfMemory
from ..normal.system import NormalOs
from ..regs import FLEX_SECURE, FlexmemSecure, RecallCommand, RecallResult, RecallState
from ..sync import Mutex, undo
from ..timeline import Timeline

__all__ = ["CmaPages", "FlexPages", "NoPages", "OrdinaryPages", "PageSource"]

_AT_ONCE = 64
"""Pages asked for in one request: its list of extents fits the shared slot even if no two are neighbours."""


class NoPages(Exception):
    """The OS gives no more pages now."""


class PageSource(Protocol):
    """Gives and takes pages by page frame number."""

    async def acquire(self, pages: int) -> list[int]:
        """Get exactly so many pages; raises :class:`NoPages` and gets none."""

    async def release(self, frames: Sequence[int]) -> None:
        """Give pages back. What they hold is gone."""

    async def taken(self, frames: Sequence[int]) -> list[int]:
        """Those of the frames that are no longer ours."""


class FlexPages:
    """Pages of the flexible window: lent by the OS, accepted here, released to the scrubber."""

    def __init__(self, monitor: Monitor, timeline: Timeline, census: PageCensus) -> None:
        self._monitor, self._timeline, self._census = monitor, timeline, census

    async def acquire(self, pages: int) -> list[int]:
        """Ask the OS, check its answer, accept. Hardware refuses pages that were not really lent."""
        frames: list[int] = []
        with self._timeline.span("allocate", "lend pages", pages=pages):
            try:
                while len(frames) < pages:
                    frames += await self._acquire(min(_AT_ONCE, pages - len(frames)))
                return frames
            except (Refused, CommandRefused) as error:
                refusal = NoPages(str(error))
                refusal.__cause__ = error
            await undo(refusal, self.release(frames))

    async def _acquire(self, pages: int) -> list[int]:
        named = await self._monitor.request(Request.ALLOCATE, pages)
        extents = self._monitor.check_extents(named, inside=self._monitor.layout.lendable, pages=pages)
        accepted: list[Extent] = []
        for extent in extents:
            outcome = await self._monitor.port.try_command(RecallCommand.ACCEPT, extent.first, extent.count)
            if outcome.result is not RecallResult.OK:
                await self.release(list(pages_of(accepted)))
                raise CommandRefused(RecallCommand.ACCEPT, outcome)
            accepted.append(extent)
            self._census.accepted(extent.pages())
        return list(pages_of(extents))

    async def release(self, frames: Sequence[int]) -> None:
        """Give pages back. One whose grace period has ended is the scrubber's already."""
        for extent in extents_of(sorted(frames)):
            first = extent.first
            while first < extent.end:
                count = extent.end - first
                outcome = await self._monitor.port.try_command(RecallCommand.RELEASE, first, count)
                if outcome.result is RecallResult.OK:
                    self._census.released(range(first, extent.end))
                    break
                if outcome.result is not RecallResult.BAD_STATE:
                    raise CommandRefused(RecallCommand.RELEASE, outcome)
                if outcome.offender > first:
                    await self._monitor.port.command(RecallCommand.RELEASE, first, outcome.offender - first)
                    self._census.released(range(first, outcome.offender))
                first = outcome.offender + 1

    async def taken(self, frames: Sequence[int]) -> list[int]:
        """Ask hardware about each frame."""
        machine, by = self._monitor.machine, Initiator.SECURE_CPU
        gone = []
        for frame in frames:
            await machine.write_register(FLEX_SECURE.QUERY_PAGE, frame, by=by)
            word = await machine.read_register(FLEX_SECURE.QUERY_STATE, by=by)
            if RecallState(FlexmemSecure.QUERY_STATE__STATE.get(word)) not in (RecallState.FLEX, RecallState.RECALLING):
                gone.append(frame)
        return gone


class CmaPages:
    """Pages of the contiguous area that the monitor makes secure as they are needed, and all gives back at the end."""

    def __init__(self, monitor: Monitor, timeline: Timeline, turn: Mutex) -> None:
        self._monitor, self._timeline, self._turn = monitor, timeline, turn

    async def acquire(self, pages: int) -> list[int]:
        """Let the OS clear the next pages and move the secure region's end past them, one request after the other."""
        async with self._turn:
            return await self._acquire(pages)

    async def _acquire(self, pages: int) -> list[int]:
        with self._timeline.span("allocate", "grow secure region", pages=pages):
            try:
                named = await self._monitor.request(Request.GROW_REGION, pages)
                (extent,) = self._monitor.check_extents(named, inside=self._monitor.layout.cma, pages=pages)
                await self._monitor.grow_region(extent)
            except Refused as error:
                raise NoPages(str(error)) from error
        return list(extent.pages())

    async def release(self, frames: Sequence[int]) -> None:
        """Give the last pages back: contiguous memory shrinks from its end only."""
        async with self._turn:
            await self._release(frames)

    async def _release(self, frames: Sequence[int]) -> None:
        freed = await self._monitor.shrink_region(len(frames))
        if sorted(frames) != list(freed.pages()):
            raise ValueError(f"Pages to give back must be the last of the region, not {sorted(frames)!r}")
        await self._monitor.request(Request.SHRINK_REGION, freed.first, freed.count)

    async def taken(self, frames: Sequence[int]) -> list[int]:
        """The OS can't take secure memory."""
        return []


class OrdinaryPages:
    """Pages of a normal-world process: no protection from the OS, and no cost but the OS's own."""

    def __init__(self, os: NormalOs, timeline: Timeline) -> None:
        self._os, self._timeline = os, timeline

    async def acquire(self, pages: int) -> list[int]:
        """Allocate."""
        with self._timeline.span("allocate", "allocate pages", pages=pages):
            try:
                return list(pages_of(await self._os.allocate(pages)))
            except OutOfMemory as error:
                raise NoPages(str(error)) from error

    async def release(self, frames: Sequence[int]) -> None:
        """Free."""
        for extent in extents_of(sorted(frames)):
            self._os.window.give(extent)

    async def taken(self, frames: Sequence[int]) -> list[int]:
        """A process is told before it loses memory."""
        return []

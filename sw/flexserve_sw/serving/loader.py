"""First loading of a model: per segment allocate, load, authenticate and decrypt, each a stage of a pipeline."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any

from ..machine import Task
from ..monitor.layout import Extent
from ..sync import Channel
from .pager import Pager
from .pages import NoPages
from .segments import PagedSegment

__all__ = ["Loader"]

_Chunk = tuple[PagedSegment, range, Extent, bool]
"""Segment, its pages in the buffer, the buffer, whether it is the segment's last."""


class Loader:
    """Loads segments in the order in which the forward pass needs them.

    With ``pipeline`` the three stages run beside each other and beside whoever uses what is loaded already, each stage
    on the next segment as soon as it is done with one; without, one thing happens at a time.

    When the OS gives no more pages, the segments that are left count as loaded: they are brought in when they are used.
    """

    def __init__(self, pager: Pager) -> None:
        self._pager = pager
        self.deferred: list[str] = []
        self._tasks: list[Task[Any]] = []

    def start(self, segments: Sequence[PagedSegment]) -> None:
        """Begin to load in a pipeline; :meth:`finish` waits for the end."""
        machine = self._pager.side.machine
        allocated: Channel[PagedSegment | None] = Channel(machine, depth=len(segments) + 1)
        fetched: Channel[_Chunk | None] = Channel(machine, depth=self._pager.bounces.count)
        stages = {
            "allocate": self._allocate(segments, allocated),
            "fetch": self._fetch(allocated, fetched),
            "decrypt": self._install(fetched),
        }
        self._tasks = [
            machine.spawn(self._stage(stage, segments), name=f"load: {name}") for name, stage in stages.items()
        ]

    @staticmethod
    async def _stage(stage: Coroutine[Any, Any, None], segments: Sequence[PagedSegment]) -> None:
        """Run a stage.

        If it fails, whoever waits for a segment goes on and meets the failure instead of waiting for ever.
        """
        try:
            await stage
        except Exception as error:
            for segment in segments:
                if not segment.loaded.is_set():
                    segment.failure = error
                    segment.loaded.set()

    async def finish(self) -> None:
        """Wait for the pipeline."""
        for task in self._tasks:
            await task.join()

    async def _allocate(self, segments: Sequence[PagedSegment], out: Channel[PagedSegment | None]) -> None:
        for segment in segments:
            try:
                await self._pager.allocate(segment)
            except NoPages:
                self._defer(segments[segments.index(segment) :])
                break
            await out.put(segment)
        await out.put(None)

    def _defer(self, segments: Sequence[PagedSegment]) -> None:
        for segment in segments:
            self.deferred.append(segment.name)
            segment.loaded.set()

    async def _fetch(self, source: Channel[PagedSegment | None], out: Channel[_Chunk | None]) -> None:
        while (segment := await source.get()) is not None:
            for pages in self._pager.chunks(range(segment.pages)):
                buffer = await self._pager.fetch(segment, pages)
                await out.put((segment, pages, buffer, pages.stop == segment.pages))
        await out.put(None)

    async def _install(self, source: Channel[_Chunk | None]) -> None:
        while (chunk := await source.get()) is not None:
            segment, pages, buffer, last = chunk
            await self._pager.install(segment, pages, buffer)
            if last:
                segment.loaded.set()

    async def run(self, segments: Sequence[PagedSegment]) -> None:
        """Load one thing after the other: all memory first, then each segment."""
        allocated = []
        for segment in segments:
            try:
                await self._pager.allocate(segment)
            except NoPages:
                self._defer(segments[segments.index(segment) :])
                break
            allocated.append(segment)
        for segment in allocated:
            for pages in self._pager.chunks(range(segment.pages)):
                await self._pager.install(segment, pages, await self._pager.fetch(segment, pages))
            segment.loaded.set()

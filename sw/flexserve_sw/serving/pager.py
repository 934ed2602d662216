"""Which pages are in memory: gets frames, fills them, and gives them up in the order of the cache policy."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from ..machine import PAGE_BYTES
from ..monitor.layout import Extent, extents_of
from ..sync import Mutex, undo
from ..timeline import Timeline
from .crypto import PageCipher
from .image import StoredSegment
from .pages import NoPages, PageSource
from .segments import Kind, PagedSegment
from .side import Side
from .space import Space
from .storage import BounceBuffers, Storage
from .swap import SwapArea

__all__ = ["OutOfPages", "Pager", "PagesTaken", "PagerStatistics"]

Place = tuple[PagedSegment, int]
"""A page of a segment."""


class OutOfPages(Exception):
    """The OS gives no pages and nothing that could be given up is left."""


class PagesTaken(Exception):
    """The OS let a grace period run out, or gave too short a one, and contents are gone."""


@dataclass
class PagerStatistics:
    """Pages moved.

    Weights ``dropped`` and ``reloaded``, KV ``swapped_out`` and ``swapped_in``, working pages ``moved``.
    """

    dropped: int = 0
    reloaded: int = 0
    swapped_out: int = 0
    swapped_in: int = 0
    moved: int = 0


@dataclass(kw_only=True)
class Pager:
    """Owner of the model's address space.

    ``lock`` is held by whoever uses pages or changes which are in memory; only the first loading, of segments that
    nobody uses yet, goes without it. Without ``swap`` only weights can be given up.
    """

    side: Side
    space: Space
    source: PageSource
    storage: Storage
    bounces: BounceBuffers
    cipher: PageCipher | None
    timeline: Timeline
    lock: Mutex
    swap: SwapArea | None = None
    segments: list[PagedSegment] = field(default_factory=list)
    statistics: PagerStatistics = field(default_factory=PagerStatistics)

    def add(self, name: str, kind: Kind, pages: int, stored: StoredSegment | None = None) -> PagedSegment:
        """Reserve address space for a segment; nothing of it is in memory."""
        first = self.segments[-1].first + self.segments[-1].pages if self.segments else 0
        loaded = self.side.machine.event()
        if stored is None:
            loaded.set()
        segment = PagedSegment(name=name, kind=kind, first=first, pages=pages, loaded=loaded, stored=stored)
        self.segments.append(segment)
        return segment

    def whole(self, segment: PagedSegment, pages: range | None = None) -> bool:
        """Whether nothing is to be done for :meth:`ensure`."""
        if pages is None:
            return not segment.lost and self.space.holds(segment.first, segment.pages)
        return not segment.lost and (not pages or self.space.holds(segment.first + pages.start, len(pages)))

    def missing(self, segment: PagedSegment, pages: range | None = None) -> list[int]:
        """Pages of a segment that have no frame."""
        wanted = range(segment.pages) if pages is None else pages
        if not wanted or self.space.holds(segment.first + wanted.start, len(wanted)):
            return []
        return [page for page in wanted if self.space.frame(segment.first + page) is None]

    def resident(self) -> Iterator[Place]:
        """Every page that has a frame."""
        for segment in self.segments:
            for page in range(segment.pages):
                if self.space.frame(segment.first + page) is not None:
                    yield segment, page

    # First loading: three stages that may run beside each other for different segments.

    async def allocate(self, segment: PagedSegment) -> None:
        """Get a frame for every page; raises :class:`NoPages`."""
        missing = self.missing(segment)
        for page, frame in zip(missing, await self.source.acquire(len(missing)), strict=True):
            self.space.map(segment.first + page, frame)

    def chunks(self, pages: Sequence[int]) -> Iterator[range]:
        """Cut pages of a segment into runs that fit a bounce buffer."""
        for run in extents_of(pages):
            for start in range(run.first, run.end, self.bounces.pages):
                yield range(start, min(run.end, start + self.bounces.pages))

    async def fetch(self, segment: PagedSegment, pages: range) -> Extent:
        """Read stored pages into a bounce buffer and return it."""
        if segment.stored is None:
            raise ValueError(f"Only a segment that is in flash can be fetched, not {segment.name!r}")
        buffer = await self.bounces.take()
        with self.timeline.span("load", segment.name, pages=len(pages)):
            offset = segment.stored.offset + pages.start * PAGE_BYTES
            await self.storage.read(offset, buffer.address, len(pages) * PAGE_BYTES)
        return buffer

    async def install(self, segment: PagedSegment, pages: range, buffer: Extent) -> None:
        """Check and decrypt what is in the buffer and put it where it belongs; raises :class:`TamperedPage`."""
        stored = segment.stored
        if stored is None:
            raise ValueError(f"Only a segment that is in flash can be installed, not {segment.name!r}")
        with self.timeline.span("decrypt", segment.name, pages=len(pages)):
            try:
                raw = await self.side.load_foreign(buffer.address, len(pages) * PAGE_BYTES)
            finally:
                self.bounces.give(buffer)
            await self._charge(len(raw))
            if self.cipher is not None:
                raw = b"".join(
                    self.cipher.open(
                        stored.first + page, 0, raw[i * PAGE_BYTES : (i + 1) * PAGE_BYTES], stored.tags[page]
                    )
                    for i, page in enumerate(pages)
                )
            await self.space.store(segment.address + pages.start * PAGE_BYTES, raw)

    async def _charge(self, length: int) -> None:
        platform, clock_hz = self.side.platform, self.side.machine.clock_hz
        rate = platform.cpu.copy_rate if self.cipher is None else platform.cpu.aes_rate
        await self.side.machine.delay(platform.at_rate(length, rate, clock_hz))

    # From here on under the lock.

    async def ensure(self, segment: PagedSegment, pages: range | None = None) -> None:
        """Have every page of the segment, or of the range, in memory with its contents.

        Raises :class:`OutOfPages`; :class:`TamperedPage` if flash holds something else than what was put there.
        """
        if segment.lost:
            raise PagesTaken(f"The OS took pages of {segment.name} before they could be saved")
        missing = self.missing(segment, pages)
        if not missing:
            return
        for page, frame in zip(missing, await self._obtain(len(missing), keep=segment), strict=True):
            self.space.map(segment.first + page, frame)
        try:
            await self._restore(segment, missing)
            return
        except BaseException as error:
            failure = error
        frames = [self.space.unmap(segment.first + page) for page in missing]
        await undo(failure, self.source.release(frames))

    async def _restore(self, segment: PagedSegment, missing: list[int]) -> None:
        if segment.kind is Kind.WEIGHTS:
            for chunk in self.chunks(missing):
                await self.install(segment, chunk, await self.fetch(segment, chunk))
            self.statistics.reloaded += len(missing)
        swapped = [page for page in missing if page in segment.slots]
        if swapped and self.swap is not None:
            await self.swap.bring_in(segment, swapped)
            self.statistics.swapped_in += len(swapped)

    async def _obtain(self, count: int, *, keep: PagedSegment) -> list[int]:
        """Frames from the OS, or else from what is needed last."""
        try:
            return await self.source.acquire(count)
        except NoPages:
            # Within what it has, the framework keeps early layers: the pass that comes next needs them first.
            candidates = itertools.chain(self._weights_last_first(), self._kv_last_first())
            victims = list(itertools.islice((place for place in candidates if place[0] is not keep), count))
        # The OS gives all that a request asks for or nothing, so what can't be given up here is asked for alone.
        rest: list[int] = []
        if len(victims) < count:
            try:
                rest = await self.source.acquire(count - len(victims))
            except NoPages:
                raise OutOfPages(
                    f"{count} pages are needed, the OS gives none and {len(victims)} can be given up"
                ) from None
        return [*await self.evict(victims), *rest]

    def _weights_last_first(self) -> Iterator[Place]:
        for segment in reversed(self.segments):
            if segment.kind is Kind.WEIGHTS and segment.loaded.is_set():
                for page in reversed(range(segment.pages)):
                    if self.space.frame(segment.first + page) is not None:
                        yield segment, page

    def _kv_last_first(self) -> Iterator[Place]:
        """Keys and values from the last layer on, of each the oldest first, as far as the swap area has room.

        Not those that were used longest ago: every pass uses all, so that would depend on nothing but the moment.
        """
        if self.swap is None:
            return
        room = self.swap.room
        for segment in reversed([segment for segment in self.segments if segment.kind is Kind.KV]):
            for page in range(segment.pages):
                if self.space.frame(segment.first + page) is not None and room:
                    room -= 1
                    yield segment, page

    async def evict(self, places: Sequence[Place]) -> list[int]:
        """Save what would be lost and take the pages out of memory.

        Return their frames, which still hold the old bytes.
        """
        kv = [place for place in places if place[0].kind is Kind.KV]
        if kv:
            if self.swap is None:
                raise ValueError("Keys and values can't be given up without a swap area")
            await self.swap.send_out(kv)
            self.statistics.swapped_out += len(kv)
        self.statistics.dropped += sum(segment.kind is Kind.WEIGHTS for segment, _ in places)
        return [self.space.unmap(segment.first + page) for segment, page in places]

    async def surrender(self, pages: int) -> int:
        """Give up to ``pages`` pages back, of our choice.

        Keys and values first, then weights, both from the last layer on.
        """
        order = itertools.chain(self._kv_last_first(), self._weights_last_first())
        victims = list(itertools.islice(order, pages))
        await self.source.release(await self.evict(victims))
        return len(victims)

    async def surrender_frames(self, frames: Collection[int]) -> int:
        """Give these frames back, as far as they are ours.

        Working pages, and keys and values for which the swap area has no room, move elsewhere.
        """
        wanted = set(frames)
        places = [p for p in self.resident() if self.space.frame(p[0].first + p[1]) in wanted]
        room = self.swap.room if self.swap is not None else 0
        staying = [p for p in places if p[0].kind is Kind.WORK] + [p for p in places if p[0].kind is Kind.KV][room:]
        await self.source.release(await self.evict([p for p in places if p not in staying]))
        for segment, page in staying:
            await self._move(segment, page)
        return len(places)

    async def _move(self, segment: PagedSegment, page: int) -> None:
        (target,) = await self._obtain(1, keep=segment)
        virtual = segment.first + page
        contents = await self.space.load(virtual * PAGE_BYTES, PAGE_BYTES)
        await self.side.store(target * PAGE_BYTES, contents)
        old = self.space.unmap(virtual)
        self.space.map(virtual, target)
        self.statistics.moved += 1
        await self.source.release([old])

    async def reconcile(self) -> int:
        """Notice frames that the OS took after a grace period had run out; return how many.

        Weights are in flash and working memory is written anew for every job; keys and values are lost.
        """
        places = {self.space.frame(segment.first + page): (segment, page) for segment, page in self.resident()}
        gone = await self.source.taken([frame for frame in places if frame is not None])
        for frame in gone:
            segment, page = places[frame]
            self.space.unmap(segment.first + page)
            segment.lost |= segment.kind is Kind.KV
            self.statistics.dropped += segment.kind is Kind.WEIGHTS
        return len(gone)

    async def drop_all(self) -> None:
        """Give everything back: the model is no longer needed."""
        frames = [self.space.unmap(segment.first + page) for segment, page in list(self.resident())]
        if self.swap is not None:
            for segment in self.segments:
                self.swap.forget(segment)
        if frames:
            await self.source.release(frames)

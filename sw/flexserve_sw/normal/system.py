"""The operating system: owner of memory, NPU and storage, and untrusted servant of the secure world."""

from __future__ import annotations

import random

from ..census import PageCensus
from ..drivers.command import CommandRefused
from ..machine import Initiator, Machine
from ..monitor.layout import Extent, Layout, extents_of
from ..monitor.monitor import EXTENT, SLOT_BYTES, SLOT_EXTENTS
from ..monitor.smc import Request, Status
from ..platforms import Platform
from ..sync import undo
from ..timeline import Timeline
from .buddy import BuddyAllocator, OutOfMemory
from .cma import CmaArea
from .flexmem import FlexMemManager
from .npu import NpuManager
from .storage import StorageDriver, StorageError

__all__ = ["NormalOs"]

_BY = Initiator.NORMAL_CPU
_CLUSTER = 16
"""Pages that the other program's memory comes in.

What a transparent-huge-page allocation leaves when memory is short.
"""


class NormalOs:
    """Allocators, drivers and the services that the secure world asks for.

    Another program holds the platform's share of every pool of memory, in clusters scattered by ``seed``.

    ``lend_limit`` is the number of pages of the window that the OS is willing to have lent at once.
    """

    def __init__(
        self,
        machine: Machine,
        layout: Layout,
        platform: Platform,
        timeline: Timeline,
        census: PageCensus,
        *,
        seed: int,
    ) -> None:
        self._machine, self.layout, self._timeline = machine, layout, timeline
        self._page_cost = platform.seconds(platform.system.page_allocation, machine.clock_hz)
        self.window = BuddyAllocator(layout.lendable)
        self.ordinary = BuddyAllocator(layout.free)
        self.cma = CmaArea(machine, platform, timeline, area=layout.cma, elsewhere=self.ordinary)
        self.flexmem = FlexMemManager(machine, timeline, census, returned=self._page_returned)
        self.storage = StorageDriver(machine, timeline)
        self.npu = NpuManager(machine, timeline)
        self.lend_limit = layout.lendable.count
        self._promised = 0
        self._occupy(platform, random.Random(seed))

    def _occupy(self, platform: Platform, dice: random.Random) -> None:
        share = platform.system.occupied_share.value
        for allocator in (self.window, self.ordinary):
            for cluster in self._clusters(allocator.extent, share, dice):
                allocator.carve(cluster)
        for cluster in self._clusters(self.layout.cma, platform.system.cma_occupied.value, dice):
            for page in cluster.pages():
                self.cma.occupy(page)

    @staticmethod
    def _clusters(extent: Extent, share: float, dice: random.Random) -> list[Extent]:
        clusters = [
            Extent(first, min(_CLUSTER, extent.end - first)) for first in range(extent.first, extent.end, _CLUSTER)
        ]
        return dice.sample(clusters, round(share * len(clusters)))

    def _page_returned(self, page: int) -> None:
        self.window.give(Extent(page, 1))

    async def start(self) -> None:
        """Bring up the drivers."""
        await self.storage.start()
        await self.flexmem.start()

    async def serve(self, service: Request, arguments: tuple[int, ...], slot: int) -> tuple[int, ...]:
        """Answer a request of the secure world: status, and extents written to the shared slot."""
        try:
            match service, arguments:
                case Request.ALLOCATE, (pages,):
                    return await self._allocate(pages, slot)
                case Request.GROW_REGION, (pages,):
                    return await self._grow(pages, slot)
                case Request.SHRINK_REGION, (first, pages):
                    self.cma.shrink(Extent(first, pages))
                case Request.FLASH_READ, (offset, address, length):
                    await self.storage.read(offset, address, length)
                case Request.FLASH_WRITE, (offset, address, length):
                    await self.storage.write(offset, address, length)
                case Request.LEND_NPU, ():
                    await self.npu.lend()
                case _:
                    return (Status.NOT_SUPPORTED, 0)
        except OutOfMemory:
            return (Status.NO_MEMORY, 0)
        except (CommandRefused, ValueError):
            return (Status.INVALID_PARAMETER, 0)
        except StorageError:
            return (Status.DEVICE_ERROR, 0)
        return (Status.OK, 0)

    async def allocate(self, pages: int) -> list[Extent]:
        """Take pages of the window out of the allocator, at the platform's price; raises :class:`OutOfMemory`."""
        taken = self.window.take(pages)
        await self._machine.delay(self._page_cost * pages)
        return taken

    async def _allocate(self, pages: int, slot: int) -> tuple[int, ...]:
        if len(self.flexmem.lent) + self._promised + pages > self.lend_limit:
            return (Status.NO_MEMORY, 0)
        self._promised += pages
        try:
            return await self._lend(pages, slot)
        finally:
            self._promised -= pages

    async def _lend(self, pages: int, slot: int) -> tuple[int, ...]:
        taken = await self.allocate(pages)
        if len(taken) > SLOT_EXTENTS:
            self._give_back(taken)
            return (Status.NO_MEMORY, 0)
        for i, extent in enumerate(taken):
            try:
                await self.flexmem.delegate(extent)
                continue
            except CommandRefused as error:
                refusal = error
            await undo(refusal, self._take_back(taken, lent=i))
        return await self._answer(taken, slot)

    async def _take_back(self, taken: list[Extent], *, lent: int) -> None:
        """Give back what was taken, of which the first ``lent`` extents are lent already."""
        for extent in taken[:lent]:
            await self.flexmem.cancel(extent)
        self._give_back(taken)

    def _give_back(self, taken: list[Extent]) -> None:
        for extent in taken:
            self.window.give(extent)

    async def _grow(self, pages: int, slot: int) -> tuple[int, ...]:
        if pages > self.cma.left:
            return (Status.NO_MEMORY, 0)
        return await self._answer([await self.cma.grow(pages)], slot)

    async def _answer(self, extents: list[Extent], slot: int) -> tuple[int, ...]:
        words = b"".join(EXTENT.pack(extent.first, extent.count) for extent in extents)
        words += bytes(-len(words) % 16)
        await self._machine.store(self.layout.shared.address + slot * SLOT_BYTES, words, by=_BY)
        return (Status.OK, len(extents))

    def lent_extents(self) -> list[Extent]:
        """Runs of pages that are lent now."""
        return extents_of(sorted(self.flexmem.lent))

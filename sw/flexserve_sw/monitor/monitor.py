"""The monitor at run time: the only way from one world into the other."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Awaitable, Callable

from ..drivers.command import CommandPort
from ..machine import PAGE_BYTES, Initiator, Machine, World
from ..platforms import Platform
from ..regs import FLEX_SECURE
from ..sync import Channel, undo
from ..timeline import Timeline
from .boot import boot
from .layout import Extent, Layout, extents_of, pages_of
from .regions import Regions
from .smc import Call, Request, Status

__all__ = ["EXTENT", "SLOTS", "SLOT_BYTES", "SLOT_EXTENTS", "Monitor", "Refused"]

SLOTS = 4
"""Requests to the OS that can be under way at once."""

SLOT_BYTES = PAGE_BYTES // SLOTS
EXTENT = struct.Struct("<II")
"""An extent in the shared page: first page frame number, pages."""

SLOT_EXTENTS = SLOT_BYTES // EXTENT.size

_VERSION = 1 << 16 | 4
_REVISION = (1, 0)
_UID = (0x7C1F60B3, 0x4E0A5A42, 0x9B6C21D8, 0x35F0AA17)

Answer = tuple[int, ...]


class Refused(Exception):
    """What came back from the normal world failed a check; nothing of it was used."""


class Monitor:
    """World switches, calls from the normal world, and requests of the secure world to the OS.

    ``os`` answers requests and ``secure`` yielding calls; both are set by whoever puts the phone together.
    ``switches`` counts changes of world in either direction.
    """

    def __init__(self, machine: Machine, layout: Layout, platform: Platform, timeline: Timeline) -> None:
        self.machine, self.layout, self._timeline = machine, layout, timeline
        self._half_trip = platform.seconds(platform.cpu.smc_round_trip, machine.clock_hz) // 2
        self.regions = Regions(machine)
        self.port = CommandPort(machine, FLEX_SECURE.CMD, by=Initiator.SECURE_CPU)
        self.switches = 0
        self.os: Callable[[Request, tuple[int, ...], int], Awaitable[Answer]] | None = None
        self.secure: Callable[[Call, tuple[int, ...]], Awaitable[Answer]] | None = None
        self._slots: Channel[int] | None = None

    async def boot(self, *, grace: int, npu_grace: int) -> None:
        """Configure and lock the hardware, open the filter."""
        with self._timeline.span("boot", "boot", window_pages=self.layout.window_pages):
            await boot(self.machine, self.layout, self.regions, self.port, grace=grace, npu_grace=npu_grace)
        self._slots = Channel(self.machine, depth=SLOTS)
        for slot in range(SLOTS):
            await self._slots.put(slot)

    async def switch(self, to: World) -> None:
        """Leave one world for the other."""
        self.switches += 1
        with self._timeline.span("switch", f"to {to.value} world"):
            await self.machine.delay(self._half_trip)

    async def call(self, function: int, *arguments: int) -> Answer:
        """Take an SMC from the normal world. Arguments are whatever the caller had in its registers."""
        await self.switch(World.SECURE)
        try:
            answer = await self._dispatch(function, tuple([a & 0xFFFF_FFFF for a in arguments]))
        except BaseException as error:
            failure = error
        else:
            await self.switch(World.NORMAL)
            return answer
        await undo(failure, self.switch(World.NORMAL))

    async def _dispatch(self, function: int, arguments: tuple[int, ...]) -> Answer:
        match function:
            case Call.SMCCC_VERSION:
                return (_VERSION,)
            case Call.SIP_UID:
                return _UID
            case Call.SIP_REVISION:
                return _REVISION
            case Call.SECURE_REGION:
                return (Status.OK, self.layout.cma.first, self.regions.secure_cma_pages)
            case Call.GENERATE if self.secure is not None:
                if len(arguments) != 1 or not 0 < arguments[0] < 1 << 16:
                    return (Status.INVALID_PARAMETER,)
                return await self.secure(Call.GENERATE, arguments)
            case _:
                # RESUME is legal only as the answer to a request, which waits for it inside `request`.
                return (Status.NOT_SUPPORTED,)

    async def request(self, service: Request, *arguments: int) -> list[Extent]:
        """Ask the OS for something; return the extents it named, if any.

        The secure world has left meanwhile; the OS comes back with a RESUME call. What it says is copied once and
        checked for form. Raises :class:`Refused` if the OS refuses or its answer is malformed.
        """
        if self.os is None or self._slots is None:
            raise RuntimeError("Requests need a booted phone with an OS")
        slot = await self._slots.get()
        try:
            await self.switch(World.NORMAL)
            try:
                answer = await self.os(service, arguments, slot)
            except BaseException as error:
                failure = error
            else:
                await self.switch(World.SECURE)
                return await self._resume(service, slot, answer)
            await undo(failure, self.switch(World.SECURE))
        finally:
            self._slots.give_back(slot)

    async def _resume(self, service: Request, slot: int, answer: Answer) -> list[Extent]:
        if len(answer) != 2:
            raise Refused(f"{service.name} must be answered with a status and a count, not {answer!r}")
        status, count = answer
        if status != Status.OK:
            raise Refused(f"The OS refused {service.name} with status {status}")
        if not 0 <= count <= SLOT_EXTENTS:
            raise Refused(f"{service.name} must name at most {SLOT_EXTENTS} extents, not {count!r}")
        return await self._copy(slot, count) if count else []

    async def _copy(self, slot: int, count: int) -> list[Extent]:
        """Read the list out of the shared page, once: the OS can change it behind our back afterwards."""
        address = self.layout.shared.address + slot * SLOT_BYTES
        length = -(-count * EXTENT.size // 16) * 16
        raw = await self.machine.load(address, length, by=Initiator.SECURE_CPU, world=World.NORMAL)
        extents = []
        for first, pages in EXTENT.iter_unpack(raw[: count * EXTENT.size]):
            if pages == 0 or first + pages > 1 << 32:
                raise Refused(f"An extent must have pages and not wrap, not {(first, pages)!r}")
            extents.append(Extent(first, pages))
        return extents

    def check_extents(self, extents: list[Extent], *, inside: Extent, pages: int) -> list[Extent]:
        """Check that the OS named exactly ``pages`` different pages of ``inside``; return them sorted and joined."""
        total = sum(extent.count for extent in extents)
        if total != pages:
            raise Refused(f"The OS must name {pages} pages, not {total}")
        for extent in extents:
            if not inside.contains(extent):
                raise Refused(f"Pages must lie in {inside!r}, not {extent!r}")
        ordered = sorted(extents)
        for left, right in itertools.pairwise(ordered):
            if left.overlaps(right):
                raise Refused(f"Pages must be named once, not {right!r} after {left!r}")
        return extents_of(pages_of(ordered))

    async def grow_region(self, extent: Extent) -> None:
        """Make the next pages of the CMA area secure: they must adjoin those that are."""
        area, before = self.layout.cma, self.regions.secure_cma_pages
        if not area.contains(extent) or extent.first != area.first + before:
            raise Refused(f"Pages must follow page {area.first + before:#x} in the CMA area, not {extent!r}")
        await self.regions.split_cma(self.layout, before + extent.count)

    async def shrink_region(self, pages: int) -> Extent:
        """Give the last ``pages`` secure pages of the CMA area back, zeroed by the CPU first."""
        before = self.regions.secure_cma_pages
        if not 0 < pages <= before:
            raise ValueError(f"Pages to give back must be 1 to {before}, not {pages!r}")
        freed = Extent(self.layout.cma.first + before - pages, pages)
        await self.machine.store(freed.address, bytes(freed.length), by=Initiator.SECURE_CPU, world=World.SECURE)
        await self.regions.split_cma(self.layout, before - pages)
        return freed

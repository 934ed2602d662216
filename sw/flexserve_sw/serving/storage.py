"""Storage as the framework sees it: ciphertext in and out of bounce buffers in the OS's memory."""

from __future__ import annotations

from typing import Protocol

from ..machine import Machine
from ..monitor.layout import Extent, Layout
from ..monitor.monitor import Monitor, Refused
from ..monitor.smc import Request
from ..normal.storage import StorageError
from ..normal.system import NormalOs
from ..sync import Channel

__all__ = ["BounceBuffers", "DirectStorage", "RequestedStorage", "Storage", "StorageFailed"]


class StorageFailed(Exception):
    """The OS did not, or could not, move the data."""


class Storage(Protocol):
    """Moves bytes between flash and a buffer that the device can reach."""

    async def read(self, offset: int, address: int, length: int) -> None:
        """Flash to memory; raises :class:`StorageFailed`."""

    async def write(self, offset: int, address: int, length: int) -> None:
        """Memory to flash; raises :class:`StorageFailed`."""


class RequestedStorage:
    """The secure world asks the OS to do it."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    async def read(self, offset: int, address: int, length: int) -> None:
        """Flash to memory."""
        await self._ask(Request.FLASH_READ, offset, address, length)

    async def write(self, offset: int, address: int, length: int) -> None:
        """Memory to flash."""
        await self._ask(Request.FLASH_WRITE, offset, address, length)

    async def _ask(self, request: Request, *arguments: int) -> None:
        try:
            await self._monitor.request(request, *arguments)
        except Refused as error:
            raise StorageFailed(str(error)) from error


class DirectStorage:
    """A program of the normal world calls its own OS."""

    def __init__(self, os: NormalOs) -> None:
        self._os = os

    async def read(self, offset: int, address: int, length: int) -> None:
        """Flash to memory."""
        try:
            await self._os.storage.read(offset, address, length)
        except StorageError as error:
            raise StorageFailed(str(error)) from error

    async def write(self, offset: int, address: int, length: int) -> None:
        """Memory to flash."""
        try:
            await self._os.storage.write(offset, address, length)
        except StorageError as error:
            raise StorageFailed(str(error)) from error


class BounceBuffers:
    """The buffers, handed out one at a time."""

    def __init__(self, machine: Machine, layout: Layout) -> None:
        self._layout = layout
        self._free: Channel[int] = Channel(machine, depth=layout.bounces)
        self._indices = {layout.bounce(i).first: i for i in range(layout.bounces)}
        self.count, self.pages = layout.bounces, layout.bounce_pages

    async def fill(self) -> None:
        """Make every buffer available; to be done once."""
        for index in self._indices.values():
            await self._free.put(index)

    async def take(self) -> Extent:
        """Get a buffer, waiting for one."""
        return self._layout.bounce(await self._free.get())

    def give(self, buffer: Extent) -> None:
        """Hand a buffer back."""
        self._free.give_back(self._indices[buffer.first])

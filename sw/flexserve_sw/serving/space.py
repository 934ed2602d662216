"""One address space over scattered pages, for the CPU and for the NPU, which knows physical addresses only."""

from __future__ import annotations

from ..machine import PAGE_BYTES
from .pagemap import NotResident, PageMap
from .side import Side

__all__ = ["NotResident", "Space"]


class Space(PageMap):
    """A page map whose pages the CPU reads and writes."""

    def __init__(self, side: Side) -> None:
        super().__init__()
        self._side = side

    async def load(self, address: int, length: int) -> bytes:
        """Read a range."""
        if address % PAGE_BYTES + length <= PAGE_BYTES:
            return await self._side.load(self.physical(address), length)
        return b"".join([await self._side.load(at, piece) for at, piece in self.pieces(address, length)])

    async def load_physical(self, address: int, length: int) -> bytes:
        """Read by the address on the bus, as the NPU does."""
        return await self._side.load(address, length)

    async def store(self, address: int, payload: bytes) -> None:
        """Write a range."""
        if address % PAGE_BYTES + len(payload) <= PAGE_BYTES:
            await self._side.store(self.physical(address), payload)
            return
        start = 0
        for at, piece in list(self.pieces(address, len(payload))):
            await self._side.store(at, payload[start : start + piece])
            start += piece

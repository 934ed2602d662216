"""One address space over scattered pages, for the CPU and for the NPU, which knows physical addresses only."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from .pagemap import NotResident, PageMap
from .side import Side

__all__ = ["NotResident", "Space"]


class Space(PageMap):
    """A page map whose pages the CPU reads and writes."""

    def __init__(self, side: Side) -> None:
        super().__init__()
        self._side = side

    def load(self, address: int, length: int) -> Awaitable[bytes]:
        """Read a range."""
        pieces = self.pieces(address, length)
        return self._side.load(*pieces[0]) if len(pieces) == 1 else self._load(pieces)

    async def _load(self, pieces: Sequence[tuple[int, int]]) -> bytes:
        return b"".join([await self._side.load(at, piece) for at, piece in pieces])

    def load_physical(self, address: int, length: int) -> Awaitable[bytes]:
        """Read by the address on the bus, as the NPU does."""
        return self._side.load(address, length)

    def store(self, address: int, payload: bytes) -> Awaitable[None]:
        """Write a range."""
        pieces = self.pieces(address, len(payload))
        return self._side.store(pieces[0][0], payload) if len(pieces) == 1 else self._store(pieces, payload)

    async def _store(self, pieces: Sequence[tuple[int, int]], payload: bytes) -> None:
        start = 0
        for at, piece in pieces:
            await self._side.store(at, payload[start : start + piece])
            start += piece

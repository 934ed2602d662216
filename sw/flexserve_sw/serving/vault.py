"""What the secure world keeps in sealed pages: the device key, and what proves that a swapped-out page is fresh."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ..machine import PAGE_BYTES, Initiator, Machine, World
from ..monitor.layout import Layout
from .crypto import KEY_BYTES, TAG_BYTES

__all__ = ["SwapRecord", "Vault", "VaultFull"]

_RECORD = struct.Struct("<QII16s")
_BY = Initiator.SECURE_CPU


class VaultFull(Exception):
    """No record is free."""


@dataclass(frozen=True)
class SwapRecord:
    """A page in the swap area: ``count`` is how often its slot was written, ``page`` whose contents it has."""

    slot: int
    count: int
    page: int
    tag: bytes


class Vault:
    """Sealed pages: the first holds keys, the others one 32-byte record per slot of the swap area."""

    def __init__(self, machine: Machine, layout: Layout) -> None:
        self._machine, self._sealed = machine, layout.sealed
        self.slots = self.slots_of(layout.sealed.count)
        self._free = list(range(self.slots))

    @staticmethod
    def slots_of(pages: int) -> int:
        """Swap slots that a vault of so many sealed pages keeps records of."""
        return (pages - 1) * PAGE_BYTES // _RECORD.size

    async def put_key(self, index: int, key: bytes) -> None:
        """Store key number ``index``."""
        await self._store(self._sealed.address + index * KEY_BYTES, key)

    async def key(self, index: int) -> bytes:
        """Read key number ``index``."""
        return await self._load(self._sealed.address + index * KEY_BYTES, KEY_BYTES)

    @property
    def free_slots(self) -> int:
        """Swap slots not in use."""
        return len(self._free)

    async def claim(self, page: int) -> SwapRecord:
        """Take a free slot for contents of ``page``.

        Its count goes up and is stored before anything is encrypted with it.
        """
        if not self._free:
            raise VaultFull(f"All {self.slots} swap slots are in use")
        slot = self._free.pop(0)
        record = await self.record(slot)
        record = SwapRecord(slot, record.count + 1, page, bytes(TAG_BYTES))
        await self.update(record)
        return record

    async def record(self, slot: int) -> SwapRecord:
        """Read the record of a slot."""
        count, page, _, tag = _RECORD.unpack(await self._load(self._address(slot), _RECORD.size))
        return SwapRecord(slot, count, page, tag)

    async def update(self, record: SwapRecord) -> None:
        """Store the record of a slot."""
        await self._store(self._address(record.slot), _RECORD.pack(record.count, record.page, 0, record.tag))

    def free(self, slot: int) -> None:
        """Let a slot be used for something else; its count lives on."""
        self._free.append(slot)

    def _address(self, slot: int) -> int:
        if not 0 <= slot < self.slots:
            raise ValueError(f"Swap slot must be 0 to {self.slots - 1}, not {slot!r}")
        return self._sealed.address + PAGE_BYTES + slot * _RECORD.size

    async def _load(self, address: int, length: int) -> bytes:
        return await self._machine.load(address, length, by=_BY, world=World.SECURE)

    async def _store(self, address: int, payload: bytes) -> None:
        await self._machine.store(address, payload, by=_BY, world=World.SECURE)

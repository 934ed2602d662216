"""Keys and values in flash: encrypted, authenticated, and only ever the newest version."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TypeVar

from ..machine import PAGE_BYTES
from ..monitor.layout import extents_of
from ..timeline import Timeline
from .crypto import PageCipher, TamperedPage
from .segments import PagedSegment
from .side import Side
from .space import Space
from .storage import BounceBuffers, Storage
from .vault import SwapRecord, Vault

__all__ = ["SwapArea"]

T = TypeVar("T")


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


class SwapArea:
    """Slots of a page each, from byte ``offset`` of flash.

    The tag of a page and the number of times its slot was written are in the vault, so that neither changed, nor
    swapped, nor older ciphertext passes.
    """

    def __init__(
        self,
        *,
        side: Side,
        space: Space,
        storage: Storage,
        bounces: BounceBuffers,
        cipher: PageCipher,
        vault: Vault,
        timeline: Timeline,
        offset: int,
    ) -> None:
        self._side, self._space, self._storage, self._bounces = side, space, storage, bounces
        self._cipher, self._vault, self._timeline = cipher, vault, timeline
        self.offset = offset

    @property
    def room(self) -> int:
        """Pages that can still be sent out."""
        return self._vault.free_slots

    def slot_offset(self, slot: int) -> int:
        """Byte of flash at which a slot begins."""
        return self.offset + slot * PAGE_BYTES

    async def send_out(self, places: Sequence[tuple[PagedSegment, int]]) -> None:
        """Encrypt pages and write them to flash. They stay in memory until the caller takes them out.

        Raises :class:`~.storage.StorageFailed`, and :class:`~.vault.VaultFull` if there is not enough :attr:`room`.
        """
        for batch in _batches(places, self._bounces.pages):
            with self._timeline.span("swap", "swap out", pages=len(batch)):
                await self._send(batch)

    async def _send(self, batch: Sequence[tuple[PagedSegment, int]]) -> None:
        buffer = await self._bounces.take()
        records: list[SwapRecord] = []
        try:
            for i, (segment, page) in enumerate(batch):
                record = await self._vault.claim(segment.first + page)
                records.append(record)
                text = await self._space.load((segment.first + page) * PAGE_BYTES, PAGE_BYTES)
                sealed, tag = self._cipher.seal(record.slot, record.count, text)
                await self._charge(PAGE_BYTES)
                await self._side.store_foreign(buffer.address + i * PAGE_BYTES, sealed)
                await self._vault.update(dataclasses.replace(record, tag=tag))
            done = 0
            for run in extents_of(record.slot for record in records):
                address = buffer.address + done * PAGE_BYTES
                await self._storage.write(self.slot_offset(run.first), address, run.length)
                done += run.count
        except BaseException:
            for record in records:
                self._vault.free(record.slot)
            raise
        finally:
            self._bounces.give(buffer)
        for (segment, page), record in zip(batch, records, strict=True):
            segment.slots[page] = record.slot

    async def bring_in(self, segment: PagedSegment, pages: Sequence[int]) -> None:
        """Read pages back into the frames that they have now.

        Raises :class:`TamperedPage` for anything but the newest.
        """
        for batch in _batches(pages, self._bounces.pages):
            with self._timeline.span("swap", "swap in", segment=segment.name, pages=len(batch)):
                await self._bring(segment, batch)

    async def _bring(self, segment: PagedSegment, batch: Sequence[int]) -> None:
        slots = [segment.slots[page] for page in batch]
        buffer = await self._bounces.take()
        try:
            done = 0
            for run in extents_of(slots):
                address = buffer.address + done * PAGE_BYTES
                await self._storage.read(self.slot_offset(run.first), address, run.length)
                done += run.count
            raw = await self._side.load_foreign(buffer.address, len(batch) * PAGE_BYTES)
        finally:
            self._bounces.give(buffer)
        for i, (page, slot) in enumerate(zip(batch, slots, strict=True)):
            record = await self._vault.record(slot)
            virtual = segment.first + page
            if record.page != virtual:
                raise TamperedPage(f"Slot {slot} holds page {record.page}, not page {virtual}")
            text = self._cipher.open(slot, record.count, raw[i * PAGE_BYTES : (i + 1) * PAGE_BYTES], record.tag)
            await self._charge(PAGE_BYTES)
            await self._space.store(virtual * PAGE_BYTES, text)
            del segment.slots[page]
            self._vault.free(slot)

    def forget(self, segment: PagedSegment) -> None:
        """Let the slots of a segment be used for others."""
        for slot in segment.slots.values():
            self._vault.free(slot)
        segment.slots.clear()

    async def _charge(self, length: int) -> None:
        platform, clock_hz = self._side.platform, self._side.machine.clock_hz
        await self._side.machine.delay(platform.at_rate(length, platform.cpu.aes_rate, clock_hz))

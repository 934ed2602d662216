"""Attacks on what the service keeps in flash, which the OS can write as it likes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..machine import PAGE_BYTES, Initiator
from ..normal.storage import StorageDriver
from ..platforms import load_platform
from ..serving.crypto import TAG_BYTES, PageCipher, TamperedPage, device_key
from ..serving.segments import Kind, PagedSegment
from ..serving.side import Side
from ..serving.space import Space
from ..serving.storage import BounceBuffers
from ..serving.swap import SwapArea
from ..serving.vault import Vault
from ..timeline import Timeline
from .case import Evidence, attack
from .scene import Scene
from .weakness import Weakness

SWAP_OFFSET = 0x1_0000
CLEAR = "The service swaps as an ordinary OS does: in the clear, and takes back whatever lies in the slot."


class NoCipher(PageCipher):
    """Swapping without cryptography: pages go out as they are and come in unchecked."""

    def seal(self, number: int, count: int, text: bytes) -> tuple[bytes, bytes]:
        """Leave the text as it is, without a tag."""
        return text, bytes(TAG_BYTES)

    def open(self, number: int, count: int, ciphertext: bytes, tag: bytes) -> bytes:
        """Believe what came."""
        return ciphertext


@dataclass
class Swapper:
    """The service's swap area over two of its pages, the vault behind it, and the OS's storage driver before it."""

    area: SwapArea
    vault: Vault
    segment: PagedSegment
    driver: StorageDriver
    scene: Scene

    @classmethod
    async def make(cls, scene: Scene) -> Swapper:
        """Put it together; the secret's first two pages are the pages that are swapped.

        Records and counts are in sealed pages in either case: only what guards the contents differs.
        """
        machine, timeline = scene.machine, Timeline(lambda: scene.machine.now)
        driver = StorageDriver(machine, timeline)
        await driver.start()
        bounces = BounceBuffers(machine, scene.layout)
        await bounces.fill()
        side = Side(machine, load_platform(), secure=scene.protected)
        space = Space(side)
        for number, frame in enumerate(scene.pages[:2]):
            space.map(number, frame)
        vault = Vault(machine, scene.layout)
        kind: Callable[[bytes, bytes], PageCipher] = PageCipher if scene.protected else NoCipher
        area = SwapArea(
            side=side,
            space=space,
            storage=driver,
            bounces=bounces,
            cipher=kind(device_key(1), b"attacked swap"),
            vault=vault,
            timeline=timeline,
            offset=SWAP_OFFSET,
        )
        loaded = machine.event()
        loaded.set()
        segment = PagedSegment(name="keys and values", kind=Kind.KV, first=0, pages=2, loaded=loaded)
        return cls(area, vault, segment, driver, scene)

    async def out(self, *pages: int) -> list[int]:
        """The service swaps pages out; return their slots."""
        await self.area.send_out([(self.segment, page) for page in pages])
        return [self.segment.slots[page] for page in pages]

    async def back(self, *pages: int) -> bool:
        """The service swaps pages in; whether it accepted what it found."""
        try:
            await self.area.bring_in(self.segment, pages)
        except TamperedPage:
            return False
        return True

    async def holds(self, page: int) -> bytes | None:
        """What the service now reads in a page."""
        return await self.scene.fetch(self.scene.pages[page] * PAGE_BYTES, PAGE_BYTES)

    async def peek(self, slot: int) -> bytes:
        """The OS copies a slot's ciphertext."""
        spot = self.scene.os_pages(1, at=64).address
        await self.driver.read(self.area.slot_offset(slot), spot, PAGE_BYTES)
        return await self.scene.machine.load(spot, PAGE_BYTES, by=Initiator.NORMAL_CPU)

    async def poke(self, slot: int, content: bytes) -> None:
        """The OS overwrites a slot."""
        spot = self.scene.os_pages(1, at=64).address
        await self.scene.machine.store(spot, content, by=Initiator.NORMAL_CPU)
        await self.driver.write(self.area.slot_offset(slot), spot, PAGE_BYTES)

    async def wear(self, slot: int) -> None:
        """Let other pages come and go until ``slot`` is the next in turn."""
        claimed = slot
        while (claimed + 1) % self.vault.slots != slot:
            record = await self.vault.claim(0)
            claimed = record.slot
            self.vault.free(claimed)

    async def rewrite(self, page: int, content: bytes) -> None:
        """The service changes a page of its own."""
        await self.scene.machine.store(self.scene.pages[page] * PAGE_BYTES, content, by=self.scene.service)


def _verdict(accepted: bool, held: bytes | None, forgery: bytes) -> Evidence:
    """Whether the service now computes with what the attacker wanted it to."""
    believed = accepted and held == forgery
    return Evidence(believed, {"attempts": 1, "service_accepted": accepted, "service_holds_forgery": believed})


@attack("stale-swap", "SEC-03", weakness=Weakness.REPLAY, control=CLEAR)
async def stale_swap(scene: Scene) -> Evidence:
    """The OS keeps a page's ciphertext and puts it back when a newer version of the page is in the same slot."""
    swapper = await Swapper.make(scene)
    old, new = scene.secret[:PAGE_BYTES], scene.secret[2 * PAGE_BYTES : 3 * PAGE_BYTES]
    (slot,) = await swapper.out(0)
    stale = await swapper.peek(slot)
    first = await swapper.back(0)
    await swapper.rewrite(0, new)
    await swapper.wear(slot)
    again = await swapper.out(0)
    await swapper.poke(slot, stale)
    evidence = _verdict(await swapper.back(0), await swapper.holds(0), old)
    return Evidence(evidence.success, {**evidence.seen, "honest_swap_worked": first, "same_slot": again == [slot]})


@attack("shuffled-swap", "SEC-03", weakness=Weakness.AUTHENTICITY, control=CLEAR)
async def shuffled_swap(scene: Scene) -> Evidence:
    """The OS exchanges two pages of the swap area, so that each comes back in place of the other."""
    swapper = await Swapper.make(scene)
    other = scene.secret[PAGE_BYTES : 2 * PAGE_BYTES]
    slots = await swapper.out(0, 1)
    contents = [await swapper.peek(slot) for slot in slots]
    for slot, content in zip(slots, reversed(contents), strict=True):
        await swapper.poke(slot, content)
    return _verdict(await swapper.back(0), await swapper.holds(0), other)


@attack("swap-read", "SEC-01", weakness=Weakness.CLEARTEXT, control=CLEAR)
async def swap_read(scene: Scene) -> Evidence:
    """The OS reads the service's swapped-out pages where they lie: in flash, and in the bounce buffer."""
    swapper = await Swapper.make(scene)
    slots = await swapper.out(0, 1)
    leaked = sum([scene.leak(await swapper.peek(slot)) for slot in slots])
    bounce = scene.layout.bounce(0)
    leaked += scene.leak(await scene.machine.load(bounce.address, bounce.length, by=Initiator.NORMAL_CPU))
    return Evidence(leaked > 0, {"attempts": len(slots) + 1, "leaked_bytes": leaked})

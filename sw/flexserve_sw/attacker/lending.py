"""Attacks by a lying allocator: pages lent twice, not its own to lend, or still in its reach."""

from __future__ import annotations

from ..machine import PAGE_BYTES, BusFault, Initiator, World
from ..monitor.layout import Extent
from ..regs import FLEX_NORMAL, STORAGE, TZC, RecallResult
from .case import ControlKind, Evidence, attack
from .scene import Scene, Sweep
from .weakness import Weakness

OS, SECURE = Initiator.NORMAL_CPU, Initiator.SECURE_CPU

WIDE = 64
"""Pages of other memory that a window is too wide by: the CMA area and the top of what the OS allocates from."""


def _differing(scene: Scene, address: int, expected: bytes) -> int:
    """Bytes in memory that are not what they should be."""
    return sum(a != b for a, b in zip(scene.lies_at(address, len(expected)), expected, strict=True))


async def _states(scene: Scene, pages: range) -> list[str]:
    found = [await scene.state(page) for page in pages]
    return ["outside" if state is None else state.name for state in found]


@attack(
    "double-delegation",
    "SEC-05",
    weakness=Weakness.AUTHORITY,
    control="The service keeps its secret in flexible pages that were never lent to it, by non-secure accesses.",
    kind=ControlKind.CARELESS,
)
async def double_delegation(scene: Scene) -> Evidence:
    """Asked for pages, the OS lends some that already hold the secret, so that the service destroys its own data.

    It tries such a page alone, and one that is hidden in the middle of a range of honest ones. A refusal must name the
    page in question and leave the others as they were.
    """
    machine, sweep = scene.machine, Sweep()
    first = scene.layout.lendable.first + 16
    offers = {"alone": (Extent(first, 1), first), "hidden": (Extent(first + 1, 4), first + 3)}
    secret = scene.secret[:PAGE_BYTES]
    for _, page in offers.values():
        if not scene.control:
            await scene.lend([page])
        world = World.NORMAL if scene.control else World.SECURE
        await machine.store(page * PAGE_BYTES, secret, by=SECURE, world=world)
    answers, moved, misnamed = {}, [], []
    for name, (offer, page) in offers.items():
        before = await _states(scene, offer.pages())
        outcome = await scene.delegate(offer.first, offer.count)
        answers[name] = outcome.result.name
        if outcome.result is RecallResult.OK:
            if await scene.accept(offer.first, offer.count):
                sweep.attempts += 1
                await machine.store(offer.address, scene.forged(offer.length), by=SECURE)
        else:
            moved += [name] if await _states(scene, offer.pages()) != before else []
            misnamed += [name] if outcome.offender != page else []
        sweep.changed_bytes += _differing(scene, page * PAGE_BYTES, secret)
    seen = {**sweep.seen(), "delegate": answers, "changed_by_refusal": moved, "offender_misnamed": misnamed}
    return Evidence(sweep.changed_bytes > 0 or bool(moved or misnamed), seen)


@attack(
    "lend-sealed",
    "SEC-05",
    weakness=Weakness.AUTHORITY,
    control="The monitor seals nothing at boot, and keeps its keys in the same page by non-secure accesses.",
    kind=ControlKind.MISCONFIGURED,
)
async def lend_sealed(scene: Scene) -> Evidence:
    """The OS lends the page in which the monitor keeps its keys, so that the service overwrites them."""
    sweep, page, keys = Sweep(), scene.layout.sealed.first, scene.secret[:PAGE_BYTES]
    if scene.control:
        await scene.boot_careless()
    world = World.NORMAL if scene.control else World.SECURE
    await scene.machine.store(page * PAGE_BYTES, keys, by=SECURE, world=world)
    before = await _states(scene, range(page, page + 1))
    outcome = await scene.delegate(page)
    if outcome.result is RecallResult.OK and await scene.accept(page):
        sweep.attempts += 1
        await scene.machine.store(page * PAGE_BYTES, scene.forged(PAGE_BYTES), by=SECURE)
    after = await _states(scene, range(page, page + 1))
    sweep.changed_bytes = _differing(scene, page * PAGE_BYTES, keys)
    seen = {**sweep.seen(), "delegate": outcome.result.name, "states": before + after}
    return Evidence(sweep.changed_bytes > 0 or before != after, seen)


@attack(
    "lend-outside",
    "SEC-05",
    weakness=Weakness.OFF_BY_ONE,
    control="The monitor programs the window too wide, so that it reaches over the CMA area into the OS's own memory.",
    kind=ControlKind.MISCONFIGURED,
)
async def lend_outside(scene: Scene) -> Evidence:
    """The OS lends what is no flexible page: its own memory, the CMA area, register frames, page numbers that wrap.

    Nothing of it may be taken for lent, nor move a page that is in the window. Where the hardware agrees, the service
    stores its secret and the OS reads it.
    """
    sweep, window = Sweep(), scene.layout.window
    if scene.control:
        await scene.boot_careless(window=Extent(window.first - WIDE, window.count + WIDE))
    targets = {
        "own memory": (scene.layout.free.end - 1, 1),
        "CMA area": (scene.layout.cma.first, 1),
        "filter registers": (FLEX_NORMAL.base // PAGE_BYTES, 1),
        "region registers": (TZC.base // PAGE_BYTES, 1),
        "storage registers": (STORAGE.base // PAGE_BYTES, 1),
        "past the end": (window.end - 1, 2),
        "wrapping range": (window.end - 1, 0xFFFF_FFFF),
        "empty range": (window.end - 1, 0),
    }
    before, results, taken = await _states(scene, window.pages()), {}, []
    for name, (first, count) in targets.items():
        outcome = await scene.delegate(first, count)
        results[name] = outcome.result.name
        if outcome.result is not RecallResult.OK or not await scene.accept(first, count):
            continue
        taken.append(name)
        sweep.attempts += 1
        try:
            await scene.machine.store(first * PAGE_BYTES, scene.secret[:PAGE_BYTES], by=SECURE)
        except BusFault as fault:
            sweep.responses[fault.response.name] += 1
        await scene.read(sweep, first * PAGE_BYTES, PAGE_BYTES, by=OS)
    after = await _states(scene, window.pages())
    moved = sum(old != new for old, new in zip(before, after, strict=True))
    seen = {**sweep.seen(), "delegate": results, "taken_for_lent": taken, "window_pages_moved": moved}
    return Evidence(sweep.learnt or bool(taken) or moved > 0, seen)

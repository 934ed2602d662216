"""Attacks by a lying allocator: pages lent twice, not its own to lend, or still in its reach."""

from __future__ import annotations

from ..machine import PAGE_BYTES, BusFault, Initiator
from ..regs import FLEX_NORMAL, STORAGE, TZC
from .case import Evidence, attack
from .scene import Scene, Sweep

OS = Initiator.NORMAL_CPU

TRUSTING = "The service runs in the normal world and has to take the OS's word for which pages are free."


@attack("double-delegation", "SEC-05", control=TRUSTING)
async def double_delegation(scene: Scene) -> Evidence:
    """Asked for a page, the OS lends one that already holds the secret, so that the service destroys its own data.

    It tries the page alone, and hidden in the middle of a range of honest ones.
    """
    sweep, page = Sweep(), scene.pages[-1]
    results = []
    for first, count in ((page, 1), (page - 1, 4)):
        outcome = await scene.delegate(first, count)
        results.append(f"{outcome.result.name} at {outcome.offender - page:+d}")
        if await scene.accept(first, count):
            sweep.attempts += 1
            await scene.machine.store(page * PAGE_BYTES, scene.forged(PAGE_BYTES), by=scene.service)
    state = await scene.state(page + 1)
    sweep.changed_bytes = await scene.damage()
    seen = {**sweep.seen(), "delegate": results, "honest_page_after": state.name if state is not None else "outside"}
    return Evidence(sweep.changed_bytes > 0, seen)


@attack("lend-sealed", "SEC-05", control=TRUSTING)
async def lend_sealed(scene: Scene) -> Evidence:
    """The OS lends the page in which the monitor keeps its keys, so that the service overwrites them.

    Without protection those keys are in ordinary memory too.
    """
    sweep = Sweep()
    keys = scene.layout.sealed.address if scene.protected else scene.os_pages(1).address
    await scene.machine.store(keys, scene.secret[:PAGE_BYTES], by=scene.service)
    outcome = await scene.delegate(keys // PAGE_BYTES)
    if await scene.accept(keys // PAGE_BYTES):
        sweep.attempts += 1
        await scene.machine.store(keys, scene.forged(PAGE_BYTES), by=scene.service)
    found = await scene.fetch(keys, PAGE_BYTES)
    sweep.changed_bytes = PAGE_BYTES if found is None else sum(
        a != b for a, b in zip(found, scene.secret[:PAGE_BYTES], strict=True)
    )  # fmt: skip
    return Evidence(sweep.changed_bytes > 0, {**sweep.seen(), "delegate": outcome.result.name})


@attack("lend-outside", "SEC-05", control=TRUSTING)
async def lend_outside(scene: Scene) -> Evidence:
    """The OS lends what is no flexible page: its own memory, the CMA area, register frames, page numbers that wrap.

    Then it reads whatever the service has put there.
    """
    sweep = Sweep()
    window = scene.layout.window
    targets = {
        "own memory": (scene.os_pages(1).first, 1),
        "CMA area": (scene.layout.cma.first, 1),
        "filter registers": (FLEX_NORMAL.base // PAGE_BYTES, 1),
        "region registers": (TZC.base // PAGE_BYTES, 1),
        "storage registers": (STORAGE.base // PAGE_BYTES, 1),
        "past the end": (window.end - 1, 2),
        "wrapping range": (window.end - 1, 0xFFFF_FFFF),
        "empty range": (window.end - 1, 0),
    }
    results: dict[str, str] = {}
    for name, (first, count) in targets.items():
        results[name] = (await scene.delegate(first, count)).result.name
        if await scene.accept(first, count):
            sweep.attempts += 1
            try:
                await scene.machine.store(first * PAGE_BYTES, scene.secret[:PAGE_BYTES], by=scene.service)
            except BusFault as fault:
                sweep.responses[fault.response.name] += 1
            await scene.read(sweep, first * PAGE_BYTES, PAGE_BYTES, by=OS)
    return Evidence(sweep.leaked_bytes > 0, {**sweep.seen(), "delegate": results})

"""Attacks on the scrub: peeked into, paused, made to fail, asked for again."""

from __future__ import annotations

from itertools import product

from flexserve_sw.attacker.case import ControlKind, Evidence
from flexserve_sw.attacker.weakness import Weakness
from flexserve_sw.machine import PAGE_BYTES, World
from flexserve_sw.regs import RecallCommand as C
from flexserve_sw.regs import RecallResult as R
from flexserve_sw.regs import RecallState as S

from .case import attack
from .memory import Access
from .scene import FIRST, BusScene, Trials

NORMAL, SECURE = World.NORMAL, World.SECURE
BURSTS = 16
"""Bursts in which a page is scrubbed."""
WHOLE = PAGE_BYTES // 16
DEVICE = 3
SLVERR, DECERR = 2, 3

UNWIPED = "The service returns ordinary memory to the OS without zeroing it."


async def _fill(scene: BusScene, page: int) -> set[int]:
    """The service's secret in the whole of a page."""
    await scene.lend(page)
    secret = scene.fresh(WHOLE)
    await scene.store(page * PAGE_BYTES, secret, scene.service, id=2)
    return set(secret)


async def _harvest(scene: BusScene, page: int, secret: set[int], seen: Trials) -> int:
    """What the OS finds in the whole of a page that is its own again."""
    loot = await scene.fetch(page * PAGE_BYTES, WHOLE, NORMAL, id=1)
    leaked = sum(beat in secret for beat in loot.got)
    seen.leaked_beats += leaked
    return leaked


async def _scrubbed(scene: BusScene, page: int, bursts: int) -> None:
    """Wait until so many bursts of the scrub of a page have gone out."""
    seen, since = scene.bus.memory.seen, scene.bus.now

    def sent() -> int:
        return sum(access.scrub and access.page == page and access.begun > since for access in seen[-4 * BURSTS :])

    if not await scene.bus.until(lambda: sent() >= bursts, 600):
        raise RuntimeError(f"The scrub must send {bursts} bursts, not {sent()}")


@attack("paused-scrub", "SEC-01", weakness=Weakness.RESIDUE, control=UNWIPED)
async def paused_scrub(scene: BusScene) -> Evidence:
    """The scrub of a page is paused by back-pressure after each of its bursts, and a device reads what is left.

    It reads the last beat of the page and the burst that is next, during the pause and right after.
    """
    bus, seen = scene.bus, Trials()
    await scene.boot()
    for pause in range(BURSTS + 1):
        page = scene.first + pause % 2
        secret = await _fill(scene, page)
        if scene.protected:
            await scene.start(C.RELEASE, page)
            await _scrubbed(scene, page, pause)
            bus.memory.takes_data = bus.memory.takes_addresses = False
        places = (page * PAGE_BYTES + min(pause, BURSTS - 1) * 256, page * PAGE_BYTES + PAGE_BYTES - 64)
        probes = [bus.read(place, 4, NORMAL, id=n, nsaid=DEVICE) for n, place in enumerate(places)]
        await bus.tick(40)
        probes += [bus.read(place, 4, NORMAL, id=n, nsaid=DEVICE) for n, place in enumerate(places)]
        bus.memory.takes_data = bus.memory.takes_addresses = True
        await bus.done(*probes)
        if scene.protected:
            await scene.reaches(page, S.NORMAL)
        leaked = sum(beat in secret for probe in probes for beat in probe.got)
        seen.leaked_beats += leaked
        leaked += await _harvest(scene, page, secret, seen)
        seen.trials += 1
        seen.breach(leaked > 0, f"after burst {pause}")
        await scene.collect()
    return Evidence(seen.breaches > 0, seen.seen())


@attack(
    "failed-scrub",
    "SEC-01",
    weakness=Weakness.RESIDUE,
    control="Memory is broken: it answers OKAY to the scrub burst that it has not done.",
    kind=ControlKind.BROKEN,
)
async def failed_scrub(scene: BusScene) -> Evidence:
    """Memory fails each burst of a scrub in turn, with SLVERR and with DECERR, and leaves what was there.

    Once the OS is told that it has the page, it looks for what the failed burst left.
    """
    bus, seen = scene.bus, Trials()
    await scene.boot()
    for burst, error in product(range(BURSTS), (SLVERR, DECERR)):
        page = scene.first + burst % 2
        secret = await _fill(scene, page)
        failed: list[Access] = []

        def fails(access: Access, n: int = burst, page: int = page, failed: list[Access] = failed) -> bool:
            here = access.scrub and access.page == page and access.addresses[0] % PAGE_BYTES == 256 * n
            if here and not failed:
                failed.append(access)
            return here and access in failed

        def answer(access: Access, failed: list[Access] = failed, error: int = error) -> int:
            return error if access in failed and not scene.control else 0

        bus.memory.drops, bus.memory.respond = fails, answer
        if await scene.command(C.RELEASE, page) is not R.OK or not await scene.reaches(page, S.NORMAL):
            raise RuntimeError("The page must come back")
        bus.memory.drops, bus.memory.respond = lambda access: False, lambda access: 0
        if not failed:
            raise RuntimeError("A burst of the scrub must have failed")
        leaked = await _harvest(scene, page, secret, seen)
        seen.trials += 1
        seen.breach(leaked > 0, f"burst {burst}, response {error}")
        await scene.collect()
    return Evidence(seen.breaches > 0, seen.seen())


@attack("harried-scrub", "SEC-01", weakness=Weakness.RACE, control=UNWIPED)
async def harried_scrub(scene: BusScene) -> Evidence:
    """While a page is scrubbed both worlds give every command for it, from every moment on, to end the scrub early.

    Nothing of it may be accepted, and the page must come back whole and empty.
    """
    bus, seen = scene.bus, Trials()
    await scene.boot()
    commands = (C.DELEGATE, C.CANCEL, C.RECALL, C.ACCEPT, C.RELEASE)
    for code, wait in product(commands, range(0, 320, 40)):
        page = scene.first + wait // 40 % 2
        secret = await _fill(scene, page)
        taken = False
        if scene.protected:
            await scene.command(C.RELEASE, page)
            await bus.tick(wait)
            early = await scene.state(page) is S.SCRUBBING
            while await scene.state(page) is S.SCRUBBING:
                result = await scene.command(code, page)
                still = await scene.state(page) is S.SCRUBBING
                seen.results[result.name] += 1
                taken = taken or (early and still and result is R.OK)
            if await scene.state(page) is S.DELEGATED:
                await scene.command(C.CANCEL, page)
        leaked = await _harvest(scene, page, secret, seen)
        seen.trials += 1
        seen.breach(leaked > 0 or taken, f"{code.name} after {wait} cycles")
        await scene.collect()
    return Evidence(seen.breaches > 0, seen.seen())


@attack(
    "scrub-of-another",
    "SEC-02",
    weakness=Weakness.GRANULARITY,
    control="The monitor makes the window wider than the pages that it lends, and the service keeps its own in there.",
    kind=ControlKind.MISCONFIGURED,
)
async def scrub_of_another(scene: BusScene) -> Evidence:
    """The OS has pages scrubbed round and round to have zeros written where another page of the service lies.

    Several scrubs run at once, in every order, beside the page that is to be hit and beside memory outside the window.
    """
    bus, seen = scene.bus, Trials()
    await scene.boot(pages=8 if scene.control else 4)
    kept = [FIRST, FIRST + 3]
    secrets = {page: scene.fresh(WHOLE) for page in [*kept, FIRST + 4, FIRST - 1]}
    if not scene.control:
        for page in kept:
            await scene.lend(page)
    for page, secret in secrets.items():
        inside = not scene.control and page in kept
        await scene.store(page * PAGE_BYTES, secret, SECURE if inside else NORMAL, id=2)
    rounds = ([FIRST + 1, FIRST + 2], [FIRST + 2, FIRST + 1], [FIRST + 1], [FIRST + 2])
    for order in (*rounds, *([[FIRST + 4]] if scene.control else [])):
        for page in order:
            await scene.lend(page)
        for page in order:
            await scene.command(C.RELEASE, page)
        for page in order:
            await scene.reaches(page, S.NORMAL)
        await scene.collect()
        seen.trials += 1
        changed = sum(
            a != b
            for page, secret in secrets.items()
            for a, b in zip(scene.contents(page * PAGE_BYTES, WHOLE), secret, strict=True)
        )
        seen.changed_beats += changed
        seen.breach(changed > 0, " ".join(f"+{page - FIRST}" for page in order))
    return Evidence(seen.breaches > 0, seen.seen(strays=len(bus.memory.stray)))

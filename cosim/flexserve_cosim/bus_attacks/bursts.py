"""Attacks with a burst under way while the page beneath it changes hands, at every position within the burst."""

from __future__ import annotations

from itertools import product

from flexserve_sw.attacker.case import Evidence
from flexserve_sw.attacker.weakness import Weakness
from flexserve_sw.machine import PAGE_BYTES, World
from flexserve_sw.regs import RecallCommand as C
from flexserve_sw.regs import RecallResult as R
from flexserve_sw.regs import RecallState as S

from .case import attack
from .scene import PATIENCE, BusScene, Trials
from .traffic import ALL

NORMAL, SECURE = World.NORMAL, World.SECURE
BEATS = 16
POSITIONS = range(BEATS + 1)
OURS, THEIRS, DEVICE = 1, 2, 3
"""IDs of the attacker and of the service, NSAID of the attacker's device."""
LONG = 3 * PATIENCE
"""Cycles that a page would need to come back, scrub included, if nothing held it up."""


async def _lend_and_store(scene: BusScene, page: int, secret: list[int]) -> None:
    """What the service does: accept the page as soon as hardware lets it, then store its secret."""
    await scene.lend(page)
    await scene.store(page * PAGE_BYTES, secret, scene.service, id=THEIRS)


async def _usurp(scene: BusScene, page: int, data: list[int]) -> None:
    """What the OS does: take a page back by force, then write it as its own."""
    if scene.protected:
        await scene.start(C.RECALL, page)
        await scene.reaches(page, S.NORMAL)
    await scene.store(page * PAGE_BYTES, data, NORMAL, id=OURS)


async def _leave(scene: BusScene, page: int) -> None:
    if scene.protected:
        await scene.take_back(page)


@attack("midburst-read-lend", "SEC-01", weakness=Weakness.DESYNCHRONISED)
async def midburst_read_lend(scene: BusScene) -> Evidence:
    """A device's read is stopped below the filter after n of its 16 beats; the OS lends the page, and the rest follows.

    Memory reads each beat as late as it can, so the rest would be what the service has stored meanwhile.
    """
    bus, seen = scene.bus, Trials()
    await scene.boot()
    for position in POSITIONS:
        page = scene.first + position % 2
        scene.hold_reads(position, identity=OURS)
        probe = bus.read(page * PAGE_BYTES, BEATS, NORMAL, id=OURS, nsaid=DEVICE)
        await bus.underway(probe, position)
        secret = scene.fresh(BEATS)
        service = bus.spawn(_lend_and_store(scene, page, secret), "service")
        await bus.until(service.done, PATIENCE)
        scene.release_memory()
        await bus.done(probe)
        await service.join()
        seen.trials += 1
        leaked = sum(beat in secret for beat in probe.got)
        seen.leaked_beats += leaked
        seen.breach(leaked > 0, f"beat {position}")
        await _leave(scene, page)
    return Evidence(seen.breaches > 0, seen.seen())


@attack("midburst-write-lend", "SEC-02", weakness=Weakness.DESYNCHRONISED)
async def midburst_write_lend(scene: BusScene) -> Evidence:
    """A device withholds its write data after n of 16 beats; the OS lends the page, and the rest follows.

    Memory takes the burst but lets it take effect only after the service's own.
    """
    bus, seen = scene.bus, Trials()
    await scene.boot()
    for position in POSITIONS:
        page = scene.first + position % 2
        secret = scene.secret(BEATS)
        scene.hold_answers(OURS)
        blow = bus.write(page * PAGE_BYTES, scene.fresh(BEATS), NORMAL, id=OURS, nsaid=DEVICE, allowance=position)
        await bus.underway(blow, position)
        service = bus.spawn(_lend_and_store(scene, page, secret), "service")
        await bus.tick(PATIENCE // 2)
        blow.allowance = ALL
        await bus.until(service.done, PATIENCE)
        scene.release_memory()
        await bus.done(blow)
        await service.join()
        seen.trials += 1
        changed = sum(a != b for a, b in zip(scene.contents(page * PAGE_BYTES, BEATS), secret, strict=True))
        seen.changed_beats += changed
        seen.breach(changed > 0, f"beat {position}")
        await _leave(scene, page)
    return Evidence(seen.breaches > 0, seen.seen())


@attack("midburst-read-recall", "SEC-03", weakness=Weakness.DESYNCHRONISED)
async def midburst_read_recall(scene: BusScene) -> Evidence:
    """The OS recalls a page by force while the service's own read of it has n of 16 beats, and forges its contents.

    The rest of the burst would bring the forgery to the service without a fault.
    """
    bus, seen = scene.bus, Trials()
    await scene.boot()
    for position in POSITIONS:
        page = scene.first + position % 2
        forged = scene.fresh(BEATS)
        await _lend_and_store(scene, page, scene.secret(BEATS))
        scene.hold_reads(position, identity=THEIRS)
        own = bus.read(page * PAGE_BYTES, BEATS, scene.service, id=THEIRS)
        await bus.underway(own, position)
        usurper = bus.spawn(_usurp(scene, page, forged), "usurper")
        await bus.until(usurper.done, LONG)
        scene.release_memory()
        await bus.done(own)
        await usurper.join()
        seen.trials += 1
        believed = sum(beat in forged for beat in own.got)
        seen.changed_beats += believed
        seen.breach(believed > 0, f"beat {position}")
        await _leave(scene, page)
    return Evidence(seen.breaches > 0, seen.seen())


@attack("midburst-write-recall", "SEC-01", weakness=Weakness.DESYNCHRONISED)
async def midburst_write_recall(scene: BusScene) -> Evidence:
    """The OS recalls a page by force while the service's write to it has n of 16 beats, and reads it once it is back.

    The rest of the write, or all of it, would take effect after the scrub.
    """
    bus, seen = scene.bus, Trials()
    await scene.boot()
    for position in POSITIONS:
        page = scene.first + position % 2
        await scene.lend(page)
        scene.hold_answers(THEIRS)
        own = bus.write(page * PAGE_BYTES, scene.secret(BEATS), scene.service, id=THEIRS, allowance=position)
        await bus.underway(own, position)
        usurper = bus.spawn(_usurp(scene, page, [0] * BEATS), "usurper")
        await bus.tick(PATIENCE // 2)
        own.allowance = ALL
        await bus.until(usurper.done, LONG)
        scene.release_memory()
        await bus.done(own)
        await usurper.join()
        probe = await scene.fetch(page * PAGE_BYTES, BEATS, NORMAL, id=OURS)
        seen.trials += 1
        leaked = scene.leaked(probe.got)
        seen.leaked_beats += leaked
        seen.breach(leaked > 0, f"beat {position}")
        await _leave(scene, page)
    return Evidence(seen.breaches > 0, seen.seen())


@attack("midburst-denied-read", "SEC-01", weakness=Weakness.STALE_CHECK)
async def midburst_denied_read(scene: BusScene) -> Evidence:
    """A device takes n of 16 beats of a read that is denied, and the rest when the page is its own again.

    If the verdict were asked for anew per beat, the rest would come from memory, where a secret lies.
    """
    bus, seen = scene.bus, Trials()
    await scene.boot()
    for position in POSITIONS:
        page = scene.first + position % 2
        await _lend_and_store(scene, page, scene.secret(BEATS))
        probe = bus.read(page * PAGE_BYTES, BEATS, NORMAL, id=OURS, nsaid=DEVICE, allowance=position)
        await bus.underway(probe, position)
        if scene.protected:
            await scene.start(C.RELEASE, page)
        await bus.tick(PATIENCE)
        probe.allowance = ALL
        await bus.done(probe)
        seen.trials += 1
        leaked = sum(beat != 0 for beat in probe.got)
        seen.leaked_beats += leaked
        seen.breach(leaked > 0, f"beat {position}")
        seen.results["DECERR" if all(probe.responses) else "OKAY"] += 1
        await _leave(scene, page)
    return Evidence(seen.breaches > 0, seen.seen())


@attack("midburst-denied-write", "SEC-02", weakness=Weakness.STALE_CHECK)
async def midburst_denied_write(scene: BusScene) -> Evidence:
    """A device gives n of 16 beats of a write that is denied, and the rest when the page is on its way back."""
    bus, seen = scene.bus, Trials()
    await scene.boot()
    for position in POSITIONS:
        page = scene.first + position % 2
        forged = scene.fresh(BEATS)
        await _lend_and_store(scene, page, scene.secret(BEATS))
        blow = bus.write(page * PAGE_BYTES, forged, NORMAL, id=OURS, nsaid=DEVICE, allowance=position)
        await bus.underway(blow, position)
        if scene.protected:
            await scene.start(C.RELEASE, page)
        await bus.tick(PATIENCE)
        blow.allowance = ALL
        await bus.done(blow)
        await _leave(scene, page)
        seen.trials += 1
        changed = sum(beat in forged for beat in scene.contents(page * PAGE_BYTES, BEATS))
        seen.changed_beats += changed
        seen.breach(changed > 0, f"beat {position}")
    return Evidence(seen.breaches > 0, seen.seen())


@attack("late-write-data", "SEC-02", weakness=Weakness.DESYNCHRONISED)
async def late_write_data(scene: BusScene) -> Evidence:
    """Addresses of denied and of allowed writes go ahead in every order; their data come when both pages have moved on.

    The page of the denied ones is on its way back, the page of the allowed ones on its way to the service.
    """
    bus, seen = scene.bus, Trials()
    await scene.boot()
    held, open_ = scene.first, scene.first + 1
    for order, delay, same in product(product((False, True), repeat=3), (0, 30, 150), (False, True)):
        stored = scene.secret(4)
        await _lend_and_store(scene, held, stored)
        bursts = []
        for n, goes in enumerate(order):
            address = (open_ if goes else held) * PAGE_BYTES
            identity = OURS if same else 4 + n
            bursts.append(bus.write(address, scene.fresh(4), NORMAL, id=identity, nsaid=DEVICE, allowance=0))
        # An allowed write that follows a denied one of its ID is not accepted yet: it waits for the answer.
        await bus.tick(20)
        if scene.protected:
            await scene.start(C.DELEGATE, open_)
            await scene.start(C.RELEASE, held)
        await bus.tick(delay)
        for burst in bursts:
            burst.allowance = ALL
        await bus.done(*bursts)
        forged = {beat for burst, goes in zip(bursts, order, strict=True) if not goes for beat in burst.data}
        landed = sum(beat in forged for page in (held, open_) for beat in scene.contents(page * PAGE_BYTES, 8))
        if scene.protected:
            await scene.report(C.RELEASE)
            await scene.report(C.DELEGATE)
            if (accepted := await scene.command(C.ACCEPT, open_)) is not R.OK:
                raise RuntimeError(f"The page must be accepted, not {accepted.name}")
            secret = scene.secret(4)
            await scene.store(open_ * PAGE_BYTES, secret, SECURE, id=THEIRS)
            landed += sum(a != b for a, b in zip(scene.contents(open_ * PAGE_BYTES, 4), secret, strict=True))
            await scene.take_back(held, 2)
        seen.trials += 1
        seen.changed_beats += landed
        what = "".join("A" if goes else "D" for goes in order)
        seen.breach(landed > 0, f"{what}, {delay} cycles late")
    return Evidence(seen.breaches > 0, seen.seen())


@attack("false-last-beat", "SEC-02", weakness=Weakness.DESYNCHRONISED)
async def false_last_beat(scene: BusScene) -> Evidence:
    """A device lies about WLAST, in every way that two bursts of four beats allow, to shift data into the next burst.

    The second burst is denied; one to its own page is before it, and one after it.
    """
    bus, seen = scene.bus, Trials()
    await scene.boot()
    held, own = scene.first, scene.first + 1
    secret = scene.secret(4)
    await _lend_and_store(scene, held, secret)
    for pattern in range(1 << 8):
        lasts = [bool(pattern >> n & 1) for n in range(8)] + [False, False, False, True]
        pages = (own, held, own)
        bursts = [
            bus.write(page * PAGE_BYTES + 64 * n, scene.fresh(4), NORMAL, id=OURS, lasts=lasts[4 * n : 4 * n + 4])
            for n, page in enumerate(pages)
        ]
        await bus.done(*bursts)
        seen.trials += 1
        meant = set(bursts[1].data)
        landed = sum(beat in meant for page in (held, own) for beat in scene.contents(page * PAGE_BYTES, 12))
        landed += scene.contents(held * PAGE_BYTES, 4) != secret
        seen.changed_beats += landed
        seen.breach(landed > 0, f"WLAST {pattern:08b}")
    return Evidence(seen.breaches > 0, seen.seen())

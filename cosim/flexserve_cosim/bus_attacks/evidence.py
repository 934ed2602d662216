"""Attacks on evidence: floods of violations, storms of interrupts, acknowledgements at the wrong moment."""

from __future__ import annotations

from itertools import product

from flexserve_sw.attacker.case import ControlKind, Evidence
from flexserve_sw.attacker.weakness import Weakness
from flexserve_sw.machine import PAGE_BYTES, World
from flexserve_sw.regs import FLEX_NORMAL, FLEX_SECURE, TZC, FlexmemSecure, Tzc400
from flexserve_sw.regs import RecallCommand as C
from flexserve_sw.tasks import Latch

from .case import attack
from .scene import FIRST, BusScene, Trials
from .traffic import Burst

NORMAL, SECURE = World.NORMAL, World.SECURE
_FLOOD = 4
"""Bursts that a flood keeps queued."""

HASTY = "The monitor's handler acknowledges everything it could have been told, rather than what it has seen."


async def _record(scene: BusScene) -> tuple[int, bool, int, int]:
    """Address, direction, NSAID and ID of the violation on record."""
    control, who = await scene.word(TZC.FAIL_CONTROL), await scene.word(TZC.FAIL_ID)
    address = await scene.word(TZC.FAIL_ADDRESS_LOW)
    write = bool(Tzc400.FAIL_CONTROL__WRITE.get(control))
    return address, write, Tzc400.FAIL_ID__VNET.get(who), Tzc400.FAIL_ID__ID.get(who)


@attack(
    "violation-flood",
    "SEC-13",
    weakness=Weakness.OMITTED_EVIDENCE,
    control="The monitor's handler clears the record without reading it first.",
    kind=ControlKind.CARELESS,
)
async def violation_flood(scene: BusScene) -> Evidence:
    """After one telling violation, reads and writes are denied in the same cycles, by all identities, without a pause.

    The record must stay the first one's, and the count be exact to the last.
    """
    bus, seen = scene.bus, Trials()
    await scene.boot()
    await scene.lend(FIRST, 2)
    for nsaid, write in product((3, 7, 12, 15), (False, True)):
        await scene.secure(TZC.INT_CLEAR, 1)
        counted = await scene.word(FLEX_SECURE.VIOLATIONS)
        place, identity = FIRST * PAGE_BYTES + 0x40 * nsaid, nsaid + 16
        if write:
            first = bus.write(place, scene.fresh(1), NORMAL, id=identity, nsaid=nsaid)
        else:
            first = bus.read(place, 1, NORMAL, id=identity, nsaid=nsaid)
        await bus.done(first)
        if scene.control:
            await scene.secure(TZC.INT_CLEAR, 1)
        flood = []
        for n in range(60):
            address = (FIRST + 1) * PAGE_BYTES + 16 * n
            flood.append(bus.read(address, 1, NORMAL, id=n % 8, nsaid=n % 16))
            flood.append(bus.write(address, [1], NORMAL, id=n % 8, nsaid=n % 16))
        await bus.done(*flood)
        kept = await _record(scene)
        more = await scene.word(FLEX_SECURE.VIOLATIONS) - counted - 1 - len(flood)
        overrun = Tzc400.INT_STATUS__OVERRUN.get(await scene.word(TZC.INT_STATUS))
        seen.trials += 1 + len(flood)
        seen.breach(kept != (place, write, nsaid, identity), f"the record of NSAID {nsaid} is lost")
        seen.breach(more != 0, f"{-more} violations were not counted")
        seen.breach(not overrun, "no overrun was shown")
    return Evidence(seen.breaches > 0, seen.seen())


@attack(
    "violation-beside-clear",
    "SEC-13",
    weakness=Weakness.RACE,
    control="The monitor's handler clears the record twice, to be sure.",
    kind=ControlKind.CARELESS,
)
async def violation_beside_clear(scene: BusScene) -> Evidence:
    """A device strikes in every cycle around the one in which the monitor clears the last record.

    Its violation must be on record afterwards, or have been on record when the monitor looked before it cleared.
    """
    bus, seen = scene.bus, Trials()
    await scene.boot()
    await scene.lend(FIRST)
    for offset, write in product(range(16), (False, True)):
        await scene.secure(TZC.INT_CLEAR, 1)
        place = FIRST * PAGE_BYTES + 0x100 + 16 * offset
        clear = bus.post(TZC.INT_CLEAR, 1, prot=0, nsaid=0)
        await bus.tick(offset)
        strike = bus.write(place, [1], NORMAL, id=9) if write else bus.read(place, 1, NORMAL, id=9)
        await clear.done.wait()
        cleared = bus.now
        if scene.control:
            await bus.done(strike)
            await scene.secure(TZC.INT_CLEAR, 1)
        await bus.done(strike)
        await bus.tick(4)
        status = Tzc400.INT_STATUS__STATUS.get(await scene.word(TZC.INT_STATUS))
        # A strike whose verdict fell well before the clear was there to be seen, and is rightly gone.
        gone = not scene.control and strike.accepted < cleared - 4
        seen.trials += 1
        seen.results["on record" if status else "cleared"] += 1
        lost = not status or (await _record(scene))[0] != place
        seen.breach(lost and not gone, f"struck {offset} cycles after the clear was posted")
    return Evidence(seen.breaches > 0, seen.seen())


@attack("interrupt-storm", "SEC-07", weakness=Weakness.RACE, control=HASTY, kind=ControlKind.CARELESS)
async def interrupt_storm(scene: BusScene) -> Evidence:
    """The OS raises interrupts without a pause, so that the handler's acknowledgement swallows a recall.

    It asks by size again and again, and recalls a page in every cycle around the handler's write. A recall that the
    service never hears of is only found out when the grace period has run out.
    """
    bus, seen = scene.bus, Trials()
    await scene.boot(grace=2_000)
    recall, expired = FlexmemSecure.IRQ_STATUS__RECALL.put(1), FlexmemSecure.IRQ_STATUS__EXPIRED.put(1)
    storm = FlexmemSecure.IRQ_STATUS__SIZE_REQUEST.put(1)
    await scene.secure(FLEX_SECURE.IRQ_ENABLE, recall | expired | storm)
    for offset in range(24):
        page = FIRST + offset % 4
        await scene.lend(page)
        await scene.secure(FLEX_SECURE.IRQ_STATUS, 0xFF)
        await bus.register(FLEX_NORMAL.SIZE_REQUEST, 1, prot=2)
        await bus.register(FLEX_NORMAL.CMD.FIRST, page, prot=2)
        await bus.register(FLEX_NORMAL.CMD.COUNT, 1, prot=2)
        order = bus.post(FLEX_NORMAL.CMD.COMMAND, C.RECALL, prot=2, nsaid=0)
        await bus.tick(offset)
        told = await scene.word(FLEX_SECURE.IRQ_STATUS)
        request = bus.post(FLEX_NORMAL.SIZE_REQUEST, 1, prot=2, nsaid=0)
        answer = 0xFF if scene.control else told
        acknowledged = await bus.register(FLEX_SECURE.IRQ_STATUS, answer, prot=0)
        for posted in (order, request):
            await posted.done.wait()
        await scene.report(C.RECALL)
        told |= await scene.word(FLEX_SECURE.IRQ_STATUS)
        seen.trials += 1
        seen.breach(acknowledged.response != 0 or not told & recall, f"recall {offset} cycles before the handler")
        seen.breach(bool(told & recall) and not told & storm, "a request by size was lost")
        await scene.take_back(page)
    return Evidence(seen.breaches > 0, seen.seen())


@attack(
    "recall-under-fire",
    "SEC-07",
    weakness=Weakness.HOARDING,
    control="The monitor leaves the grace period at the hardware's maximum.",
    kind=ControlKind.MISCONFIGURED,
)
async def recall_under_fire(scene: BusScene) -> Evidence:
    """A secure world that has turned bad writes the recalled page with the longest bursts there are, without a pause.

    It goes on when they are denied, reads with other IDs, and gives commands. The page must be back within the grace
    period, a drain of what was accepted, and a scrub that has its share of the bus.
    """
    bus, seen = scene.bus, Trials()
    await scene.boot(grace=0xFFFF_FFFF if scene.control else 60)
    # Grace, a drain of the bursts kept queued, and two bursts of the scrub behind every 256 beats of the flood:
    # its share is one burst behind every 112.
    bound = 60 + (_FLOOD + 1) * 256 + 8 * (256 + 32) + 600
    for page in (FIRST, FIRST + 1):
        await scene.lend(page)
        ended = Latch(bus.kernel)
        flood = bus.spawn(_flood(scene, page, ended), "flood")
        await bus.tick(50)
        begin, back = bus.now, False
        await scene.start(C.RECALL, page)
        while bus.now < begin + bound and not back:
            await scene.start(C.ACCEPT, page)
            await scene.report(C.ACCEPT)
            back = page in await scene.collect()
        took = bus.now - begin
        ended.set()
        seen.trials += await flood.join()
        await bus.idle(cycles=10_000)
        seen.results[f"back after {took} of {bound} cycles" if back else "kept"] += 1
        seen.breach(not back, f"page {page - FIRST} is kept")
        if not back:
            await scene.command(C.RELEASE, page)
            await scene.take_back(page)
    return Evidence(seen.breaches > 0, seen.seen())


async def _flood(scene: BusScene, page: int, ended: Latch) -> int:
    """Keep the write channel full, and reads going, until told to stop; how many bursts were sent."""
    bus, sent = scene.bus, 0
    data = scene.fresh(256)
    writes: list[Burst] = []
    reads: list[Burst] = []
    while not ended.is_set():
        writes = [burst for burst in writes if burst.answered < 0]
        reads = [burst for burst in reads if burst.answered < 0]
        if len(writes) < _FLOOD:
            writes.append(bus.write(page * PAGE_BYTES, data, SECURE, id=sent % 8))
            sent += 1
        if len(reads) < _FLOOD:
            reads.append(bus.read(page * PAGE_BYTES, 16, SECURE, id=sent % 8))
        await bus.tick()
    return sent

"""Attacks with time on a page-state table in memory: races with its lines, what a miss tells, misses without end."""

from __future__ import annotations

from itertools import count, product
from typing import Any

from flexserve_sw.attacker.case import ControlKind, Evidence, Level
from flexserve_sw.attacker.weakness import Weakness
from flexserve_sw.machine import PAGE_BYTES, World
from flexserve_sw.regs import FLEX_SECURE
from flexserve_sw.regs import RecallCommand as C
from flexserve_sw.regs import RecallState as S

from .cached import DECERR, DEVICE, WORDS, arrange, evict, lines_of, word_of
from .case import attack
from .scene import FIRST, BusScene, Trials
from .table import CODES, GROUP, code_of
from .timing import Rows

NORMAL, SECURE = World.NORMAL, World.SECURE


@attack("line-race", "SEC-06", weakness=Weakness.RACE, level=Level.TABLE)
async def line_race(scene: BusScene) -> Evidence:
    """Accesses whose page's line must be fetched race the command that rewrites the line, in every cycle around it.

    Memory reads a line as it was when it was asked for, and writes it only with its answer, which comes late: the
    fetch is under way with the old line, or starts while the new one is not in memory yet. The cache forgets all the
    time. No access may get through under the old state after the service has stored its secret.
    """
    bus, seen = scene.bus, Trials()
    for latency, offset in product((1, 4, 15), range(0, 60, 2)):
        scene.steady = False
        await scene.boot(pages=2 * GROUP, lock=False, grace=5_000)
        lines = lines_of(bus)
        lines.latency = latency
        page = scene.first
        await scene.store(page * PAGE_BYTES, scene.fresh(4), NORMAL, id=1)
        await evict(scene)
        if scene.protected:
            await scene.start(C.DELEGATE, page)
        await bus.tick(offset)
        blows = [bus.write(page * PAGE_BYTES, scene.fresh(4), NORMAL, id=8 + n, nsaid=DEVICE) for n in range(3)]
        probes = [bus.read(page * PAGE_BYTES, 4, NORMAL, id=8 + n, nsaid=DEVICE) for n in range(3)]
        if scene.protected:
            await scene.report(C.DELEGATE)
            await scene.command(C.ACCEPT, page)
        secret = scene.secret(4)
        await scene.store(page * PAGE_BYTES, secret, scene.service, id=2)
        probes += [bus.read(page * PAGE_BYTES, 4, NORMAL, id=12, nsaid=DEVICE)]
        blows += [bus.write(page * PAGE_BYTES, scene.fresh(4), NORMAL, id=12, nsaid=DEVICE)]
        await bus.done(*blows, *probes)
        leaked = sum(scene.leaked(probe.got) for probe in probes)
        changed = scene.contents(page * PAGE_BYTES, 4) != secret
        seen.trials += 1
        seen.leaked_beats += leaked
        seen.changed_beats += changed
        seen.results["first denied" if blows[0].responses == [DECERR] else "first allowed"] += 1
        seen.breach(leaked > 0 or changed, f"latency {latency}, {offset} cycles after DELEGATE")
    return Evidence(seen.breaches > 0, seen.seen())


@attack(
    "line-race-back",
    "SEC-01",
    weakness=Weakness.RACE,
    level=Level.TABLE,
)
async def line_race_back(scene: BusScene) -> Evidence:
    """The same on the way back: reads of the OS race the release, the scrub and the return of a page with a secret.

    A fetch that brings the line of a later state, or of an earlier one, must not show what the scrub has not reached.
    """
    bus, seen = scene.bus, Trials()
    for latency, offset in product((1, 4, 15), range(0, 60, 4)):
        scene.steady = False
        await scene.boot(pages=2 * GROUP, lock=False, grace=5_000)
        lines = lines_of(bus)
        lines.latency = latency
        page = scene.first
        await scene.lend(page)
        await scene.store(page * PAGE_BYTES + PAGE_BYTES - 64, scene.secret(4), scene.service, id=2)
        await evict(scene)
        if scene.protected:
            await scene.start(C.RELEASE, page)
        await bus.tick(offset)
        leaked = 0
        for n in range(40):
            probe = await scene.fetch(page * PAGE_BYTES + PAGE_BYTES - 64, 4, NORMAL, id=8 + n % 4, nsaid=DEVICE)
            leaked += scene.leaked(probe.got)
        seen.trials += 1
        seen.leaked_beats += leaked
        seen.breach(leaked > 0, f"latency {latency}, {offset} cycles after RELEASE")
    return Evidence(seen.breaches > 0, seen.seen())


@attack(
    "window-upset-in-fetch",
    "SEC-11",
    weakness=Weakness.UPSET,
    control="The same bit of both copies of the window is upset, more than two copies are built for.",
    kind=ControlKind.BROKEN,
    level=Level.TABLE,
)
async def window_upset_in_fetch(scene: BusScene) -> Evidence:
    """A bit of the table's place is flipped in every cycle of a fetch; where it points then the OS has put a forgery.

    The forged line says NORMAL, and its check fits. The read of the secret that waits for the line, and those that
    come after it, must be denied.
    """
    bus, seen = scene.bus, Trials()
    copies = [bus.signal(f"window.{name}") for name in ("stored", "complement")]
    for cycle, stall in product(range(10), (False, True)):
        lines = await arrange(scene)
        forged = lines.forged(0, word_of(S.NORMAL))
        start = (lines.base ^ 1) * PAGE_BYTES - bus.memory.base
        bus.memory.bytes[start : start + 16] = forged.to_bytes(16, "little")
        await evict(scene)
        lines.takes_addresses = not stall
        bit = _table_bit(copies[0], lines.base)
        probe = bus.read(FIRST * PAGE_BYTES, 4, NORMAL, id=4, nsaid=DEVICE)
        await bus.tick(cycle)

        def strike(bit: int = bit) -> None:
            for n, copy in enumerate(copies):
                if n == 0 or scene.control:
                    copy.value = int(copy.value) ^ 1 << bit

        bus.upset(strike)
        await bus.tick(3)
        lines.takes_addresses = True
        again = bus.read(FIRST * PAGE_BYTES, 4, NORMAL, id=5, nsaid=DEVICE)
        await bus.done(probe, again)
        if scene.control:
            await evict(scene)
            again = await scene.fetch(FIRST * PAGE_BYTES, 4, NORMAL, id=5, nsaid=DEVICE)
        leaked = scene.leaked(probe.got) + scene.leaked(again.got)
        alarm = await scene.word(FLEX_SECURE.ALARM)
        seen.trials += 1
        seen.leaked_beats += leaked
        seen.results["alarm" if alarm else "no alarm"] += 1
        seen.breach(leaked > 0 or not (alarm or scene.control), f"cycle {cycle}, stalled {stall}")
    return Evidence(seen.breaches > 0, seen.seen())


def _table_bit(stored: Any, base: int) -> int:
    """The lowest bit of the table's place in the stored window."""
    value, width = int(stored.value), base.bit_length()
    places = [at for at in range(len(stored)) if value >> at & (1 << width) - 1 == base]
    if len(places) != 1:
        raise RuntimeError(f"The table's place must be found once in the window, not {len(places)} times")
    return places[0]


@attack("latency-of-line", "SEC-12", weakness=Weakness.TIMING, level=Level.TABLE)
async def latency_of_line(scene: BusScene) -> Evidence:
    """The service uses a page of one of two words that share an entry of the cache, by a secret bit.

    A device times its own denied accesses to both words to learn which: a word that the service has just used must
    not be there any sooner for the device, nor one that it has displaced any later.
    """
    bus, seen = scene.bus, Trials()
    scene.steady = True
    await scene.boot(pages=WORDS * GROUP, lock=False, grace=5_000)
    pages = (scene.first, scene.first + 2 * GROUP) if scene.protected else (scene.first, scene.first + 1)
    for page in pages:
        await scene.lend(page)
        await scene.store(page * PAGE_BYTES, scene.fresh(16), scene.service, id=2)
    bus.memory.latency = Rows().latency
    times: dict[tuple[int, int], set[tuple[tuple[int, int], ...]]] = {}
    for bits, writes, prime in product(range(16), (False, True), range(2)):
        bit = bits.bit_count() % 2
        for page in (pages[prime], pages[1 - prime]):
            await scene.fetch(page * PAGE_BYTES, 1, NORMAL, id=1, nsaid=DEVICE)
        used = pages[bit] * PAGE_BYTES
        if writes:
            await scene.store(used, scene.fresh(4), scene.service, id=2)
        await scene.fetch(used, 4, scene.service, id=2)
        found = []
        for page in pages:
            probe = await scene.fetch(page * PAGE_BYTES, 4, NORMAL, id=1, nsaid=DEVICE)
            blow = await scene.store(page * PAGE_BYTES, scene.fresh(4), NORMAL, id=1, nsaid=DEVICE)
            found.append((probe.latency, blow.latency))
        times.setdefault((prime, 0), set()).add(tuple(found))
        seen.trials += 1
    for (prime, _), found_ in times.items():
        seen.results[f"page {prime} last: {sorted(found_)}"] += 1
        seen.breach(len(found_) > 1, f"page {prime} last: {sorted(found_)}")
    return Evidence(seen.breaches > 0, seen.seen())


@attack("latency-of-miss", "SEC-12", weakness=Weakness.TIMING, level=Level.TABLE)
async def latency_of_miss(scene: BusScene) -> Evidence:
    """The service begins to use a page of one of two words, by a secret bit, and neither word is in the cache.

    In every cycle from then until well after the line has come, a device times a denied access of its own to the first
    of the words: it must not share the line that is on its way for the service, nor wait for it any differently.
    """
    bus, seen = scene.bus, Trials()
    scene.steady = True
    await scene.boot(pages=WORDS * GROUP, lock=False, grace=5_000)
    lines, latency = lines_of(bus), 12
    lines.latency, lines.forgets = latency, False
    pages = (scene.first, scene.first + GROUP) if scene.protected else (scene.first, scene.first + 1)
    for page in pages:
        await scene.lend(page)
        await scene.store(page * PAGE_BYTES, scene.fresh(16), scene.service, id=2)
    bus.memory.latency = Rows().latency
    for ahead, writes, blows in product(range(latency + 8), (False, True), (False, True)):
        found = []
        for page in pages:
            bus.upset(lines.forget)
            await bus.tick(2)
            used = page * PAGE_BYTES
            own = (
                bus.write(used, scene.fresh(4), scene.service, id=2)
                if writes
                else bus.read(used, 4, scene.service, id=2)
            )
            await bus.tick(ahead)
            where = pages[0] * PAGE_BYTES
            probe = (
                await scene.store(where, scene.fresh(1), NORMAL, id=1, nsaid=DEVICE)
                if blows
                else await scene.fetch(where, 1, NORMAL, id=1, nsaid=DEVICE)
            )
            await bus.done(own)
            await bus.tick(latency)
            found.append(probe.latency)
        seen.trials += 1
        what = f"a {'write' if blows else 'read'}, the service {'writes' if writes else 'reads'} {ahead} cycles before"
        seen.results[f"{found[0]} and {found[1]} cycles"] += 1
        seen.breach(found[0] != found[1], f"{what}: {found[0]} and {found[1]} cycles")
    return Evidence(seen.breaches > 0, seen.seen())


async def _storm(scene: BusScene, world: World, identity: int, flood: list[bool]) -> None:
    """Reads and writes of each word in turn, as long as there is something in ``flood``."""
    for n in count():
        if not flood:
            return
        where = (FIRST + n % WORDS * GROUP) * PAGE_BYTES
        read = scene.bus.read(where, 1, world, id=identity)
        await scene.bus.done(read, scene.bus.write(where, scene.fresh(1), world, id=identity))


@attack(
    "miss-storm",
    "SEC-07",
    weakness=Weakness.HOARDING,
    control="The monitor leaves the grace period at the hardware's maximum.",
    kind=ControlKind.MISCONFIGURED,
    level=Level.TABLE,
)
async def miss_storm(scene: BusScene) -> Evidence:
    """A secure world that has turned bad keeps its pages and floods the filter with accesses that all miss.

    Both directions, both worlds, words that displace each other, a slow memory: every queue before the table is full
    all the time. The OS must have its recalled pages back within grace period, lines and scrub all the same.
    """
    bus, seen = scene.bus, Trials()
    for latency in (2, 20):
        await scene.boot(pages=WORDS * GROUP, grace=5_000 if scene.control else 100)
        lines = lines_of(bus)
        lines.latency = latency
        lines.forgets = False
        await scene.lend(FIRST)
        flood = [True]
        for n in range(6):
            bus.spawn(_storm(scene, NORMAL if n % 2 else SECURE, n, flood), name=f"storm {n}")
        await scene.start(C.RECALL, FIRST)
        begun = bus.now
        # Grace, a line for each step of recall, expiry, scan and finish behind those of four others, and a scrub at
        # an eighth of the bus.
        limit = 100 + 2 * 4 * 5 * (latency + 10) + 256 * 8
        back = await bus.until(lambda: CODES.get(code_of(bus, 0)) is S.NORMAL, limit)
        seen.trials += 1
        seen.results[f"latency {latency}: " + (f"back after {bus.now - begun} of {limit}" if back else "kept")] += 1
        seen.breach(not back, f"latency {latency}")
        flood.clear()
        await bus.idle()
    return Evidence(seen.breaches > 0, seen.seen())

"""Attacks with a clock: what the latency of an answer tells."""

from __future__ import annotations

from itertools import product

from flexserve_sw.attacker.case import Evidence
from flexserve_sw.attacker.weakness import Weakness
from flexserve_sw.machine import PAGE_BYTES, World
from flexserve_sw.regs import RecallState as S

from .case import attack
from .memory import Access
from .scene import BusScene, Trials
from .upsets import arrange

NORMAL, SECURE = World.NORMAL, World.SECURE
DEVICE = 3
HIT, MISS = 2, 11
"""Cycles that a memory with open rows takes."""


class Rows:
    """A memory that answers sooner where somebody has just been: the page of the access before is open."""

    def __init__(self) -> None:
        self._open = -1
        self._latencies: dict[int, int] = {}

    def latency(self, access: Access) -> int:
        """Cycles of an access, the same whenever it is asked for."""
        key = id(access)
        if key not in self._latencies:
            self._latencies[key] = HIT if access.page == self._open else MISS
            self._open = access.page
        return self._latencies[key]


async def _latencies(scene: BusScene, page: int, beats: int) -> tuple[int, int]:
    """Cycles of a device's read and write of a page."""
    probe = await scene.fetch(page * PAGE_BYTES, beats, NORMAL, id=1, nsaid=DEVICE)
    await scene.bus.tick(3)
    blow = await scene.store(page * PAGE_BYTES, scene.fresh(beats), NORMAL, id=1, nsaid=DEVICE)
    await scene.bus.tick(3)
    return probe.latency, blow.latency


@attack("latency-of-use", "SEC-12", weakness=Weakness.TIMING)
async def latency_of_use(scene: BusScene) -> Evidence:
    """The service uses one of two pages, by a secret bit; a device times its own accesses to both to learn which.

    Memory answers sooner where somebody has just been. A denied access must never get that far.
    """
    bus, seen = scene.bus, Trials()
    scene.steady = True
    await scene.boot()
    pages = (scene.first, scene.first + 1)
    for page in pages:
        await scene.lend(page)
        await scene.store(page * PAGE_BYTES, scene.fresh(16), scene.service, id=2)
    bus.memory.latency = Rows().latency
    for bits, beats in product(range(16), (1, 4, 16)):
        bit = bits.bit_count() % 2
        times = []
        for page in pages:
            used = pages[bit] * PAGE_BYTES
            await scene.fetch(used, 4, scene.service, id=2)
            times.append(await _latencies(scene, page, beats))
        seen.trials += 1
        seen.results[f"{beats} beats: {sorted(set(times))}"] += 1
        seen.breach(times[0] != times[1], f"{beats} beats: {times[0]} and {times[1]} cycles")
    return Evidence(seen.breaches > 0, seen.seen())


@attack("latency-of-state", "SEC-12", weakness=Weakness.TIMING)
async def latency_of_state(scene: BusScene) -> Evidence:
    """A device times reads and writes of pages in every state that denies it, empty ones and full ones, while others
    are scrubbed and while the service works, to learn from the latency in which state a page is.

    The control times ordinary pages, which the service is working with or not.
    """
    bus, seen = scene.bus, Trials()
    scene.steady = True
    orders = ([S.DELEGATED, S.FLEX, S.RECALLING, S.SEALED], [S.SCRUBBING, S.FLEX, S.SEALED, S.DELEGATED])
    times: dict[tuple[int, bool], set[tuple[int, int]]] = {}
    for order in orders if scene.protected else orders[:1]:
        if scene.protected:
            await arrange(scene, order)
        else:
            await scene.boot()
        bus.memory.latency = Rows().latency
        for n, beats, working in product(range(len(order)), (1, 2, 5, 16), (False, True)):
            if working:
                used = order.index(S.FLEX)
                await scene.fetch((scene.first + used) * PAGE_BYTES, 1, scene.service, id=2)
            found = await _latencies(scene, scene.first + n, beats)
            times.setdefault((beats, working), set()).add(found)
            seen.trials += 1
    for (beats, working), found_ in times.items():
        seen.results[f"{beats} beats: {sorted(found_)}"] += 1
        seen.breach(len(found_) > 1, f"{beats} beats, service {'working' if working else 'idle'}: {sorted(found_)}")
    return Evidence(seen.breaches > 0, seen.seen())

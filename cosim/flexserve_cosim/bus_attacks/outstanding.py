"""Attacks with several transactions outstanding across every transition that a page can make."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from flexserve_sw.attacker.case import Evidence
from flexserve_sw.attacker.weakness import Weakness
from flexserve_sw.machine import PAGE_BYTES, World
from flexserve_sw.regs import RecallCommand as C
from flexserve_sw.regs import RecallResult as R
from flexserve_sw.regs import RecallState as S

from .case import attack
from .scene import OUTSIDE, PATIENCE, BusScene, Trials
from .traffic import ALL, Burst

NORMAL, SECURE = World.NORMAL, World.SECURE
BEATS = 4
DEVICE = 3


@dataclass(frozen=True)
class Transition:
    """A change of a page's state with transactions outstanding that were accepted before.

    ``before`` is the state in which they are accepted; ``ours`` whether they are the attacker's, who hopes to be still
    in the page when the service uses it, or else the service's, who is still in it when the OS does.
    """

    before: S
    code: C | None
    ours: bool


TRANSITIONS = {
    "delegate": Transition(S.NORMAL, C.DELEGATE, True),
    "accept": Transition(S.DELEGATED, C.ACCEPT, True),
    "cancel": Transition(S.DELEGATED, C.CANCEL, True),
    "seal": Transition(S.NORMAL, C.SEAL, True),
    "seal a lent page": Transition(S.FLEX, C.SEAL, True),
    "recall": Transition(S.FLEX, C.RECALL, True),
    "release": Transition(S.FLEX, C.RELEASE, False),
    "release after recall": Transition(S.RECALLING, C.RELEASE, False),
    "expire": Transition(S.RECALLING, None, False),
}


async def _reach(scene: BusScene, page: int, state: S) -> None:
    """Bring a NORMAL page into the state in which the transactions are accepted."""
    if scene.protected and state is not S.NORMAL:
        steps = {S.DELEGATED: [C.DELEGATE], S.FLEX: [C.DELEGATE, C.ACCEPT]}
        for code in steps.get(state, [C.DELEGATE, C.ACCEPT, C.RECALL]):
            if await scene.command(code, page) is not R.OK:
                raise RuntimeError(f"{code.name} must succeed")


async def _change(scene: BusScene, page: int, step: Transition, data: list[int]) -> None:
    """Make the transition; when it is reported, the other side uses the page."""
    if scene.protected:
        if step.code is not None:
            await scene.command(step.code, page)
        if not step.ours:
            await scene.reaches(page, S.NORMAL)
        if step.code is C.DELEGATE:
            await scene.command(C.ACCEPT, page)
    serves = step.ours and step.code is not C.CANCEL
    await scene.store(page * PAGE_BYTES, data, scene.service if serves else NORMAL, id=2)


def _variants(scene: BusScene) -> list[tuple[str, Transition, int, bool]]:
    """Every transition, with one to four transactions outstanding, of one ID or of several."""
    loads = ((1, True), (2, True), (2, False), (4, True), (4, False))
    return [(name, step, *load) for (name, step), load in product(TRANSITIONS.items(), loads)]


async def _page(scene: BusScene, step: Transition, taken: list[int]) -> int:
    """A NORMAL page; a sealed one is lost until the next boot."""
    if not scene.protected:
        return OUTSIDE
    if len(taken) == 3:
        await scene.boot(lock=False, grace=PATIENCE)
        taken.clear()
    page = scene.first + len(taken)
    if step.code is C.SEAL:
        taken.append(page)
    return page


def _who(scene: BusScene, step: Transition) -> World:
    return NORMAL if step.ours else scene.service


@attack("outstanding-reads", "SEC-06", weakness=Weakness.DESYNCHRONISED)
async def outstanding_reads(scene: BusScene) -> Evidence:
    """Up to four reads are accepted, and answered as late as possible, across every transition of their page.

    The attacker's own ought to bring what the service stores after the report, or the service's what the OS forges
    after it has the page back.
    """
    bus, seen, taken = scene.bus, Trials(), list[int]()
    await scene.boot(lock=False, grace=PATIENCE)
    for name, step, count, same in _variants(scene):
        page = await _page(scene, step, taken)
        await _reach(scene, page, step.before)
        data, denied = scene.fresh(BEATS), step.ours and step.before is not S.NORMAL
        bus.memory.read_allowance = lambda access: 0
        who = _who(scene, step)
        reads = [
            bus.read(
                page * PAGE_BYTES,
                BEATS,
                who,
                id=4 + (0 if same else n),
                nsaid=DEVICE if who is NORMAL else 0,
                allowance=0 if denied and scene.protected else ALL,
            )
            for n in range(count)
        ]
        await bus.underway(reads[-1])
        change = bus.spawn(_change(scene, page, step, data), "change")
        await bus.until(change.done, PATIENCE if step.ours else 4 * PATIENCE)
        early = change.done()
        scene.release_memory()
        for read in reads:
            read.allowance = ALL
        await bus.done(*reads)
        await change.join()
        seen.trials += 1
        leaked = sum(beat in data for read in reads for beat in read.got)
        seen.leaked_beats += leaked
        seen.results["changed while outstanding" if early else "waited"] += 1
        seen.breach(leaked > 0, f"{name}, {count} reads")
        if scene.protected and step.code is not C.SEAL:
            await scene.take_back(page)
    return Evidence(seen.breaches > 0, seen.seen())


@attack("outstanding-writes", "SEC-06", weakness=Weakness.DESYNCHRONISED)
async def outstanding_writes(scene: BusScene) -> Evidence:
    """Up to four writes are accepted, and take effect as late as possible, across every transition of their page.

    The attacker's own ought to destroy what the service stores after the report, or the service's to appear in a page
    that the OS has back.
    """
    bus, seen, taken = scene.bus, Trials(), list[int]()
    await scene.boot(lock=False, grace=PATIENCE)
    for name, step, count, same in _variants(scene):
        page = await _page(scene, step, taken)
        await _reach(scene, page, step.before)
        data = scene.fresh(BEATS)
        bus.memory.answers = lambda access: access.scrub or access.id < 4
        who = _who(scene, step)
        writes: list[Burst] = [
            bus.write(
                page * PAGE_BYTES,
                scene.fresh(BEATS),
                who,
                id=4 + (0 if same else n),
                nsaid=DEVICE if who is NORMAL else 0,
                allowance=n % 2,
            )
            for n in range(count)
        ]
        await bus.underway(writes[-1])
        change = bus.spawn(_change(scene, page, step, data), "change")
        await bus.tick(PATIENCE)
        for write in writes:
            write.allowance = ALL
        await bus.until(change.done, PATIENCE if step.ours else 4 * PATIENCE)
        early = change.done() and any(write.answered < 0 for write in writes)
        scene.release_memory()
        await bus.done(*writes)
        await change.join()
        await bus.idle()
        seen.trials += 1
        foreign = {beat for write in writes for beat in write.data}
        landed = sum(beat in foreign for beat in scene.contents(page * PAGE_BYTES, BEATS))
        seen.changed_beats += landed
        seen.results["changed while outstanding" if early else "waited"] += 1
        seen.breach(landed > 0, f"{name}, {count} writes")
        if scene.protected and step.code is not C.SEAL:
            await scene.take_back(page)
    return Evidence(seen.breaches > 0, seen.seen())

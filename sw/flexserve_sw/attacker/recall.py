"""Attacks with the right of recall, which the OS has: on pages under way, taken, and lent again."""

from __future__ import annotations

from ..machine import PAGE_BYTES, BusFault, Initiator
from ..regs import RecallCommand
from ..regs import RecallState as State
from .case import ControlKind, Evidence, attack
from .memory import ORDINARY
from .scene import GRACE, SECRET_PAGES, Scene, Sweep
from .weakness import Weakness

OS, DEVICE, SECURE = Initiator.NORMAL_CPU, Initiator.HOSTILE_DEVICE, Initiator.SECURE_CPU

BOUND = GRACE + SECRET_PAGES * 2 * 256 + 4_000
"""Cycles in which recalled pages must be back: grace, drain, and a scrub that shares the bus."""


async def _recall(scene: Scene) -> None:
    """Take every page of the secret back, insisting on exactly these; without protection the OS simply does."""
    if scene.protected:
        await scene.os_port.command(RecallCommand.RECALL, scene.pages[0], len(scene.pages))


async def _taken(scene: Scene) -> None:
    """Recall and wait until every page is the OS's again."""
    await _recall(scene)
    if scene.protected:
        for page in scene.pages:
            await scene.until(page, State.NORMAL, cycles=4 * BOUND)


@attack("recall-snoop", "SEC-01", weakness=Weakness.STALE_CHECK, control=ORDINARY)
async def recall_snoop(scene: Scene) -> Evidence:
    """The OS recalls the secret's pages and reads them all the time, in every state until after the scrub."""
    machine, sweep, states = scene.machine, Sweep(), set[str]()
    await _recall(scene)
    end = machine.now + BOUND
    snooping = True

    async def snoop(by: Initiator) -> None:
        while snooping:
            await scene.read(sweep, scene.address, len(scene.secret), by=by)

    tasks = [machine.spawn(snoop(by), name=f"snoop {by.value}") for by in (OS, DEVICE)]
    while machine.now < end:
        state = await scene.state(scene.pages[-1])
        states.add("outside" if state is None else state.name)
    snooping = False
    for task in tasks:
        await task.join()
    return Evidence(sweep.learnt, {**sweep.seen(), "states": sorted(states)})


@attack(
    "release-residue",
    "SEC-01",
    weakness=Weakness.RESIDUE,
    control="The service returns ordinary memory to the OS without zeroing it.",
)
async def release_residue(scene: Scene) -> Evidence:
    """The service gives its pages back in peace; the OS looks for what is left in them."""
    sweep = Sweep()
    if scene.protected:
        await scene.secure_port.command(RecallCommand.RELEASE, scene.pages[0], len(scene.pages))
        for page in scene.pages:
            await scene.until(page, State.NORMAL, cycles=4 * BOUND)
    await scene.read(sweep, scene.address, len(scene.secret), by=OS)
    return Evidence(sweep.learnt, sweep.seen())


@attack("substitution", "SEC-03", weakness=Weakness.AUTHENTICITY, control=ORDINARY)
async def substitution(scene: Scene) -> Evidence:
    """The OS takes a page behind the service's back and leaves forged data there for the service to read."""
    sweep = Sweep()
    await _taken(scene)
    await scene.write(sweep, scene.address, scene.forged(PAGE_BYTES), by=OS)
    found = await scene.fetch(scene.address, PAGE_BYTES)
    believed = found == scene.forged(PAGE_BYTES)
    return Evidence(believed, {**sweep.seen(), "service_faulted": found is None, "service_read_forgery": believed})


@attack("aba", "SEC-04", weakness=Weakness.STALE_CHECK, control=ORDINARY)
async def aba(scene: Scene) -> Evidence:
    """The OS takes a page, forges its contents and lends it again, so that its state looks as before."""
    sweep = Sweep()
    await _taken(scene)
    await scene.write(sweep, scene.address, scene.forged(PAGE_BYTES), by=OS)
    if scene.protected:
        sweep.responses[(await scene.delegate(scene.pages[0])).result.name] += 1
    found = await scene.fetch(scene.address, PAGE_BYTES)
    believed = found == scene.forged(PAGE_BYTES)
    return Evidence(believed, {**sweep.seen(), "service_faulted": found is None, "service_read_forgery": believed})


@attack(
    "squatter",
    "SEC-07",
    weakness=Weakness.HOARDING,
    control="The monitor leaves the grace period at the hardware's maximum.",
    kind=ControlKind.MISCONFIGURED,
)
async def squatter(scene: Scene) -> Evidence:
    """A secure world that has turned bad keeps lent pages: it goes on using them and never releases any."""
    machine, first, count = scene.machine, scene.pages[0], len(scene.pages)
    if scene.control:
        await machine.reset()
        await scene.boot(grace=0xFFFF_FFFF)
        await scene.lend(scene.pages)
    await scene.os_port.command(RecallCommand.RECALL, first, count)
    begin, squatting = machine.now, True

    async def squat() -> None:
        while squatting:
            try:
                await machine.store(first * PAGE_BYTES, bytes(PAGE_BYTES), by=SECURE)
            except BusFault:
                await machine.delay(64)

    task = machine.spawn(squat(), name="squatter")
    seal = await scene.secure_port.try_command(RecallCommand.SEAL, first, count)
    kept = [
        page for page in scene.pages if not await scene.until(page, State.NORMAL, cycles=begin + BOUND - machine.now)
    ]
    squatting = False
    await task.join()
    seen = {"pages_kept": len(kept), "bound_cycles": BOUND, "cycles": machine.now - begin, "seal": seal.result.name}
    return Evidence(bool(kept), seen)

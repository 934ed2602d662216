"""Attacks with the reset, in any state and in the middle of anything: memory keeps its contents, the table does not."""

from __future__ import annotations

from itertools import product

from flexserve_sw.attacker.case import ControlKind, Evidence
from flexserve_sw.attacker.weakness import Weakness
from flexserve_sw.machine import PAGE_BYTES, World
from flexserve_sw.regs import FLEX_SECURE, TZC, FlexmemSecure
from flexserve_sw.regs import RecallCommand as C
from flexserve_sw.regs import RecallState as S

from .case import attack
from .scene import DRAM_PFN, FIRST, PAGES, BusScene, Trials
from .traffic import Burst
from .upsets import arrange

NORMAL, SECURE = World.NORMAL, World.SECURE
DEVICE = 3
ELSEWHERE = DRAM_PFN + 16
"""First page of a window that does not hold the secret."""
LEFT_OUT = "After the reset the monitor programs a window that leaves the secret's pages out."


def _probe(scene: BusScene, count: int) -> list[Burst]:
    """Reads of every page of the window by CPU and device."""
    pages = range(FIRST, FIRST + PAGES)
    ids = (4 + n % 8 for n in range(count * PAGES))
    return [
        scene.bus.read(page * PAGE_BYTES, 4, NORMAL, id=next(ids), nsaid=DEVICE * (n % 2))
        for n, page in product(range(count), pages)
    ]


async def _reboot(scene: BusScene, seen: Trials) -> int:
    """Boot after a reset, with the gate asked to open before anything else and reads all the time; beats leaked."""
    bus = scene.bus
    await scene.secure(TZC.GATE_KEEPER, 1)
    early = _probe(scene, 1)
    await bus.tick(30)
    seen.breach(any(read.accepted >= 0 for read in early), "a read was accepted before the window was set")
    await scene.configure(base=ELSEWHERE if scene.control else FIRST)
    await scene.ready()
    late = _probe(scene, 2)
    await bus.done(*early, *late)
    leaked = sum(scene.leaked(read.got) for read in (*early, *late))
    seen.leaked_beats += leaked
    return leaked


@attack("reset-any-state", "SEC-01", weakness=Weakness.RESET, control=LEFT_OUT, kind=ControlKind.MISCONFIGURED)
async def reset_any_state(scene: BusScene) -> Evidence:
    """Reset is pulsed with pages in every state, in every cycle around bursts of both worlds and a command.

    The OS asks the gate to open at once and reads every page all the time: it must get zeros, and those only once the
    whole window is zeroed.
    """
    bus, seen = scene.bus, Trials()
    states = ([S.NORMAL, S.DELEGATED, S.FLEX, S.RECALLING], [S.SCRUBBING, S.SEALED, S.FLEX, S.SEALED])
    for order, offset in product(states, range(8)):
        await arrange(scene, order)
        bus.memory.answers = lambda access: True
        held = FIRST + order.index(S.FLEX)
        bus.write(held * PAGE_BYTES, scene.secret(8), SECURE, id=2)
        bus.read(held * PAGE_BYTES, 8, SECURE, id=3)
        bus.read(held * PAGE_BYTES, 8, NORMAL, id=4)
        bus.post(FLEX_SECURE.CMD.FIRST, held, prot=0, nsaid=0)
        bus.post(FLEX_SECURE.CMD.COUNT, 1, prot=0, nsaid=0)
        bus.post(FLEX_SECURE.CMD.COMMAND, C.RELEASE, prot=0, nsaid=0)
        await bus.tick(2 + 3 * offset)
        await bus.reset()
        leaked = await _reboot(scene, seen)
        seen.trials += len(order)
        seen.breach(leaked > 0, f"{'/'.join(state.name for state in order)}, cycle {2 + 3 * offset}")
    return Evidence(seen.breaches > 0, seen.seen())


@attack("reset-in-scrub", "SEC-01", weakness=Weakness.RESIDUE, control=LEFT_OUT, kind=ControlKind.MISCONFIGURED)
async def reset_in_scrub(scene: BusScene) -> Evidence:
    """Reset is pulsed after each burst of a page's scrub, and once more in the middle of the scrub at boot.

    What the first scrub had not reached must not be readable after the second or the third.
    """
    bus, seen = scene.bus, Trials()
    for bursts in range(0, 16, 2):
        await scene.boot()
        await scene.lend(FIRST, 2)
        await scene.store(FIRST * PAGE_BYTES, scene.secret(256), SECURE, id=2)
        await scene.store((FIRST + 1) * PAGE_BYTES + PAGE_BYTES - 256, scene.secret(16), SECURE, id=2)
        await scene.start(C.RELEASE, FIRST, 2)
        await bus.tick(16 * bursts)
        await bus.reset()
        await scene.configure(base=ELSEWHERE if scene.control else FIRST)
        await bus.tick(64 * bursts)
        await bus.reset()
        leaked = await _reboot(scene, seen)
        ends = [
            bus.read((FIRST + n) * PAGE_BYTES + PAGE_BYTES - 256, 16, NORMAL, id=8 + n, nsaid=DEVICE) for n in range(2)
        ]
        await bus.done(*ends)
        leaked += sum(scene.leaked(read.got) for read in ends)
        seen.trials += 1
        seen.breach(leaked > 0, f"after {bursts} bursts")
    return Evidence(seen.breaches > 0, seen.seen())


_UNSOUND = ((FIRST, 0), (FIRST, 128), (FIRST + 1, 4), (FIRST, 6), (0xFFFFC, 8), (0x100000, 4), (0xFFFF_FFFC, 4))
"""Windows that are empty, larger than the table, unaligned, or past the end of the address space."""


@attack(
    "unsound-window",
    "SEC-11",
    weakness=Weakness.RESET,
    control="The monitor programs a sound window, but one that leaves the secret's pages out.",
    kind=ControlKind.MISCONFIGURED,
)
async def unsound_window(scene: BusScene) -> Evidence:
    """After a reset the filter is left without a window, or gets one that is unsound, and the gate is asked to open.

    Nothing may be accepted, in neither world: what the window should have protected still lies in memory.
    """
    bus, seen = scene.bus, Trials()
    await scene.boot()
    await scene.lend(FIRST)
    await scene.store(FIRST * PAGE_BYTES, scene.secret(16), SECURE, id=2)
    for base, pages in (None, None), *_UNSOUND:
        await bus.reset()
        if base is None or pages is None:
            await scene.secure(TZC.REGION[0].ATTRIBUTES, 3 << 30)
            await scene.secure(TZC.REGION[0].ID_ACCESS, 0xFFFF_FFFF)
        elif scene.control:
            await scene.configure(base=ELSEWHERE)
            await scene.ready()
        else:
            await scene.configure(base=base, pages=pages)
        await scene.secure(TZC.GATE_KEEPER, 1)
        probes = [bus.read(FIRST * PAGE_BYTES, 16, world, id=n) for n, world in enumerate((NORMAL, SECURE))]
        await bus.tick(200)
        ready = FlexmemSecure.CONTROL__READY.get(await scene.word(FLEX_SECURE.CONTROL))
        leaked = sum(scene.leaked(probe.got) for probe in probes)
        seen.trials += 1
        seen.leaked_beats += leaked
        seen.results["accepted" if probes[0].accepted >= 0 else "held"] += 1
        opened = leaked > 0 if scene.control else bool(ready) or any(p.accepted >= 0 for p in probes)
        where = "no window" if base is None else f"window {base:#x}, {pages} pages"
        seen.breach(opened, where)
    await bus.reset()
    return Evidence(seen.breaches > 0, seen.seen())

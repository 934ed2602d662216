"""Single-bit upsets of stored permission state: every bit, in every state, and in the middle of what goes on."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

from flexserve_sw.attacker.case import ControlKind, Evidence
from flexserve_sw.attacker.weakness import Weakness
from flexserve_sw.machine import PAGE_BYTES, World
from flexserve_sw.regs import FLEX_NORMAL, FLEX_SECURE, TZC
from flexserve_sw.regs import RecallCommand as C
from flexserve_sw.regs import RecallState as S

from .case import attack
from .scene import FIRST, OUTSIDE, PAGES, BusScene, Trials
from .table import CODE_WIDTH, CODES, code_of, flip, overwrite

NORMAL, SECURE = World.NORMAL, World.SECURE
DEVICE = 3


def code_word(state: S) -> int:
    """Code word of a state."""
    return next(code for code, found in CODES.items() if found is state)


async def arrange(scene: BusScene, states: list[S]) -> None:
    """Bring the window's first pages into these states, each with a secret if it may hold one."""
    await scene.boot(lock=False, grace=5_000)
    scene.bus.memory.answers = lambda access: not access.scrub
    for n, state in enumerate(states):
        page = FIRST + n
        steps = {
            S.NORMAL: [],
            S.DELEGATED: [C.DELEGATE],
            S.FLEX: [C.DELEGATE, C.ACCEPT],
            S.RECALLING: [C.DELEGATE, C.ACCEPT, C.RECALL],
            S.SCRUBBING: [C.DELEGATE, C.ACCEPT, C.RELEASE],
            S.SEALED: [C.DELEGATE, C.ACCEPT, C.SEAL],
        }[state]
        for code in steps:
            await scene.command(code, page)
            if code is C.ACCEPT:
                await scene.store(page * PAGE_BYTES, scene.secret(4), SECURE, id=2)
        if CODES.get(code_of(scene.bus, n)) is not state:
            raise RuntimeError(f"Page {n} must be in {state.name}")


async def assault(scene: BusScene, page: int, seen: Trials) -> tuple[int, int]:
    """Both worlds read and write a page; how many of them got through, and how many secret beats."""
    bus, through, leaked = scene.bus, 0, 0
    before = scene.contents(page * PAGE_BYTES, 4)
    bursts = []
    for n, world in enumerate((NORMAL, SECURE)):
        bursts.append(bus.read(page * PAGE_BYTES, 4, world, id=4 + n, nsaid=DEVICE if world is NORMAL else 0))
        bursts.append(bus.write(page * PAGE_BYTES, scene.fresh(4), world, id=4 + n))
    await bus.done(*bursts)
    for burst in bursts:
        through += burst.responses[0] == 0
        leaked += scene.leaked(burst.got)
    changed = sum(a != b for a, b in zip(scene.contents(page * PAGE_BYTES, 4), before, strict=True))
    seen.leaked_beats += leaked
    seen.changed_beats += changed
    return through + changed, leaked


def _put(signals: list[Any], values: list[int]) -> None:
    for signal, value in zip(signals, values, strict=True):
        signal.value = value


_TWO_BITS = "Two bits of the code word are upset, more than it is built for: another state stands there."


@attack("table-upset", "SEC-11", weakness=Weakness.UPSET, control=_TWO_BITS, kind=ControlKind.BROKEN)
async def table_upset(scene: BusScene) -> Evidence:
    """Every bit of the stored state of a page is flipped, in every state, and both worlds read and write the page.

    Everything must be denied and the alarm raised with the page's number. The control flips two bits: it makes the page
    one that the normal world may access.
    """
    bus, seen = scene.bus, Trials()
    for states in ([S.NORMAL, S.DELEGATED, S.FLEX, S.RECALLING], [S.SCRUBBING, S.SEALED, S.FLEX, S.NORMAL]):
        await arrange(scene, states)
        for (n, state), bit in product(enumerate(states), range(CODE_WIDTH)):
            bits = code_word(state) | code_word(S.NORMAL) if scene.control and state is not S.NORMAL else 1 << bit
            if scene.control and state is S.NORMAL:
                continue
            good = code_of(bus, n)
            flip(bus, n, bits)
            await bus.tick(2)
            through, leaked = await assault(scene, FIRST + n, seen)
            alarm, page = await scene.word(FLEX_SECURE.ALARM), await scene.word(FLEX_SECURE.ALARM_PAGE)
            seen.trials += 1
            seen.results["alarm" if (alarm, page) == (1, FIRST + n) else "no alarm"] += 1
            quiet = (alarm, page) != (1, FIRST + n)
            seen.breach(through > 0 or leaked > 0 or quiet, f"{state.name}, bit {bit}")
            overwrite(bus, n, good)
            await bus.tick(2)
            await scene.secure(FLEX_SECURE.ALARM, 1)
    return Evidence(seen.breaches > 0, seen.seen())


@attack(
    "window-upset",
    "SEC-11",
    weakness=Weakness.UPSET,
    control="The same bit of both copies is upset, more than two copies are built for.",
    kind=ControlKind.BROKEN,
)
async def window_upset(scene: BusScene) -> Evidence:
    """Every bit of both copies of the window is flipped, to move the window away from the pages that are lent.

    Pages inside and outside are read and written by both worlds: with a window that can't be believed, nothing passes.
    """
    bus, seen = scene.bus, Trials()
    await scene.boot(lock=False, grace=5_000)
    await scene.lend(FIRST)
    await scene.store(FIRST * PAGE_BYTES, scene.secret(4), SECURE, id=2)
    copies = [bus.signal(f"window.{name}") for name in ("stored", "complement")]
    width = len(copies[0])
    for copy, bit in product(range(2), range(width)):
        good = [int(signal.value) for signal in copies]
        mask = [(scene.control or copy == n) << bit for n in range(2)]
        bus.upset(partial(_put, copies, [value ^ flipped for value, flipped in zip(good, mask, strict=True)]))
        await bus.tick(2)
        total = 0
        for page in (FIRST, OUTSIDE):
            through, leaked = await assault(scene, page, seen)
            total += leaked if scene.control else through + leaked
        alarm = await scene.word(FLEX_SECURE.ALARM)
        seen.trials += 1
        seen.results["alarm" if alarm else "no alarm"] += 1
        seen.breach(total > 0 or not alarm, f"copy {copy}, bit {bit}")
        bus.upset(partial(_put, copies, good))
        await bus.tick(2)
        await scene.secure(FLEX_SECURE.ALARM, 1)
    return Evidence(seen.breaches > 0, seen.seen())


@attack("upset-under-way", "SEC-11", weakness=Weakness.UPSET, control=_TWO_BITS, kind=ControlKind.BROKEN)
async def upset_under_way(scene: BusScene) -> Evidence:
    """A bit of a lent page's state is flipped in each cycle of a command on it: before, between and after its accesses.

    Whatever the command makes of it, the OS must not reach the secret. The scrub that may follow is held up meanwhile.
    """
    bus, seen = scene.bus, Trials()
    await scene.boot(lock=False, grace=300)
    ports = {C.RECALL: (FLEX_NORMAL.CMD, 2), C.RELEASE: (FLEX_SECURE.CMD, 0)}
    for (code, (port, prot)), bit, cycle in product(ports.items(), range(CODE_WIDTH), range(1, 12)):
        n = cycle % PAGES
        page = FIRST + n
        await scene.lend(page)
        await scene.store(page * PAGE_BYTES, scene.secret(4), SECURE, id=2)
        bus.memory.answers = lambda access: not access.scrub
        await bus.register(port.FIRST, page, prot=prot)
        await bus.register(port.COUNT, 1, prot=prot)
        order = bus.post(port.COMMAND, code, prot=prot, nsaid=0)
        await bus.tick(cycle)
        before = after = 0

        def strike(n: int = n, bit: int = bit) -> None:
            nonlocal before, after
            before = code_of(bus, n)
            after = code_word(S.NORMAL) if scene.control else before ^ 1 << bit
            flip(bus, n, before ^ after)

        bus.upset(strike)
        await order.done.wait()
        result = await scene.report(code)
        probe = bus.read(page * PAGE_BYTES, 4, NORMAL, id=4, nsaid=DEVICE)
        blow = bus.write(page * PAGE_BYTES, scene.contents(page * PAGE_BYTES, 4), NORMAL, id=5, nsaid=DEVICE)
        await bus.done(probe, blow)
        leaked = scene.leaked(probe.got)
        seen.trials += 1
        seen.results["none" if result is None else result.name] += 1
        seen.leaked_beats += leaked
        seen.breach(leaked > 0 or blow.responses == [0], f"{code.name}, bit {bit}, cycle {cycle}")
        if code_of(bus, n) == after:
            # Hardware has not written it since: put back what it believes to stand there.
            overwrite(bus, n, before)
            await bus.tick(2)
        bus.memory.answers = lambda access: True
        await scene.take_back(page)
    return Evidence(seen.breaches > 0, seen.seen())


_REGION_BITS = {"BASE_LOW": range(12, 32), "TOP_LOW": range(12, 32), "ATTRIBUTES": (0, 30, 31), "ID_ACCESS": range(32)}
"""Bits of a region that are stored and count."""


@attack(
    "region-upset",
    "SEC-11",
    weakness=Weakness.UPSET,
    control="The service keeps its secret outside the window, in memory that a region alone protects.",
    kind=ControlKind.MISCONFIGURED,
)
async def region_upset(scene: BusScene) -> Evidence:
    """Every bit of every region, of the manager mask and of the grace period is flipped, one at a time.

    These are plain registers, as in a TZC-400, so a region may open; a lent page must stay closed behind any region.
    The flip is made by a write of the register, which leaves the same behind.
    """
    bus, seen = scene.bus, Trials()
    await scene.boot(lock=False, grace=5_000)
    await scene.lend(FIRST)
    page = OUTSIDE if scene.control else FIRST
    await scene.store(page * PAGE_BYTES, scene.secret(4), SECURE, id=2)
    one, two = TZC.REGION[1], TZC.REGION[2]
    for region, first, last, access in ((one, OUTSIDE, OUTSIDE, 0), (two, FIRST, FIRST + PAGES - 1, 0xFFFF_FFFF)):
        await scene.secure(region.BASE_LOW, first * PAGE_BYTES)
        await scene.secure(region.TOP_LOW, last * PAGE_BYTES)
        await scene.secure(region.ID_ACCESS, access)
        await scene.secure(region.ATTRIBUTES, 3 << 30 | 1)
    targets = [(getattr(r, name), bit) for r in TZC.REGION for name, bits in _REGION_BITS.items() for bit in bits]
    targets += [(FLEX_SECURE.MANAGERS, bit) for bit in range(16)] + [(FLEX_SECURE.GRACE, bit) for bit in range(32)]
    for register, bit in targets:
        good = await scene.word(register)
        await scene.secure(register, good ^ 1 << bit)
        before = scene.contents(page * PAGE_BYTES, 4)
        probe = bus.read(page * PAGE_BYTES, 4, NORMAL, id=4, nsaid=DEVICE)
        blow = bus.write(page * PAGE_BYTES, before, NORMAL, id=5, nsaid=DEVICE)
        await bus.done(probe, blow)
        await scene.secure(register, good)
        leaked = scene.leaked(probe.got)
        seen.trials += 1
        seen.leaked_beats += leaked
        seen.breach(leaked > 0 or blow.responses == [0], f"register {register & 0xFFFF:#x}, bit {bit}")
    return Evidence(seen.breaches > 0, seen.seen())

"""Attacks through the register port: foreign managers, closed frames, locked and half-written registers, races."""

from __future__ import annotations

from itertools import product

from flexserve_sw.attacker.case import ControlKind, Evidence
from flexserve_sw.attacker.weakness import Weakness
from flexserve_sw.machine import PAGE_BYTES, World
from flexserve_sw.regs import FLEX_NORMAL, FLEX_SECURE, TZC, FlexmemSecure
from flexserve_sw.regs import RecallCommand as C
from flexserve_sw.regs import RecallResult as R
from flexserve_sw.regs import RecallState as S
from flexserve_sw.tasks import Latch

from .bus import FilterBus
from .case import attack
from .scene import FIRST, PAGES, BusScene, Trials
from .table import CODES, code_of, overwrite
from .traffic import Burst

NORMAL, SECURE = World.NORMAL, World.SECURE
OKAY = 0
FRAME = 0x80
"""Bytes of a Flex-Mem frame in which registers lie, timers aside."""
ENTITLED = "One who may makes the same accesses, which shows that the attacker is refused for who it is."


async def _configuration(scene: BusScene) -> list[int]:
    """What the monitor has configured."""
    words = [TZC.ACTION, TZC.GATE_KEEPER, TZC.SPECULATION_CTRL, FLEX_SECURE.CONTROL, FLEX_SECURE.WINDOW_BASE]
    words += [FLEX_SECURE.WINDOW_PAGES, FLEX_SECURE.GRACE, FLEX_SECURE.MANAGERS, FLEX_SECURE.IRQ_ENABLE]
    for region in TZC.REGION:
        words += [region.BASE_LOW, region.TOP_LOW, region.ATTRIBUTES, region.ID_ACCESS]
    return [await scene.word(word) for word in words]


@attack("closed-frames", "SEC-08", weakness=Weakness.REGISTERS, control=ENTITLED, kind=ControlKind.ENTITLED)
async def closed_frames(scene: BusScene) -> Evidence:
    """Every non-secure identity, with every AxPROT it can have, reads and writes every register of the secure frames.

    Gaps between registers are tried too.
    """
    bus, seen = scene.bus, Trials()
    await scene.boot(lock=False)
    before = await _configuration(scene)
    offsets = [*range(0, 0x30, 4), *range(0x100, 0x140, 4), 0x1F0, 0x200, 0x210, 0xFE0]
    targets = [TZC.base + offset for offset in offsets] + [FLEX_SECURE.base + n for n in range(0, 0xC0, 4)]
    told = taken = 0
    for nsaid, prot in product(range(16), (2, 3, 6, 7)):
        # All identities on a few registers, a few identities on all of them.
        chosen = targets if (nsaid, prot) in ((0, 2), (3, 7)) else targets[nsaid :: 16]
        for address in chosen:
            prot_ = prot & ~2 if scene.control else prot
            answer = await bus.register(address, None, prot=prot_, nsaid=nsaid)
            told += answer.value != 0
            answer = await bus.register(address, 0xFFFF_FFF0, prot=prot_, nsaid=nsaid)
            taken += answer.response == OKAY
            seen.trials += 2
    changed = sum(a != b for a, b in zip(await _configuration(scene), before, strict=True))
    seen.breach(told > 0, f"{told} words told")
    seen.breach(taken > 0, f"{taken} writes answered OKAY")
    seen.breach(changed > 0, f"{changed} registers changed")
    return Evidence(seen.breaches > 0, seen.seen())


@attack(
    "foreign-manager",
    "SEC-08",
    weakness=Weakness.IDENTITY,
    control="The monitor lets every NSAID manage pages.",
    kind=ControlKind.MISCONFIGURED,
)
async def foreign_manager(scene: BusScene) -> Evidence:
    """Every identity but the CPU's, and the secure world, lends, recalls and asks through the management frame.

    A device that manages pages could lend one to the secure world that it can still reach itself.
    """
    bus, seen = scene.bus, Trials()
    await scene.boot(managers=0xFFFF if scene.control else 1)
    await scene.lend(FIRST + 1)
    pages = range(4)
    states = [code_of(bus, n) for n in pages]
    port = FLEX_NORMAL.CMD
    for nsaid, prot in [*product(range(1, 16), (2, 3, 6, 7)), (0, 0), (0, 1)]:
        for code, page in ((C.DELEGATE, FIRST), (C.RECALL, FIRST + 1), (C.CANCEL, FIRST)):
            answers = []
            for register, value in ((port.FIRST, page), (port.COUNT, 1), (port.COMMAND, code)):
                answers.append((await bus.register(register, value, prot=prot, nsaid=nsaid)).response)
            seen.trials += 1
            seen.results["refused" if all(answers) else "taken"] += 1
        told = [await bus.register(r, None, prot=prot, nsaid=nsaid) for r in (FLEX_NORMAL.ID, FLEX_NORMAL.FREED_POP)]
        seen.breach(any(answer.value for answer in told), f"NSAID {nsaid} was told")
        moved = [code_of(bus, n) for n in pages]
        seen.breach(moved != states, f"NSAID {nsaid}, AxPROT {prot} moved a page")
        if scene.control and moved != states:
            break
    return Evidence(seen.breaches > 0, seen.seen())


@attack(
    "locked-registers",
    "SEC-08",
    weakness=Weakness.LOCK,
    control="The monitor does not lock the configuration.",
    kind=ControlKind.MISCONFIGURED,
)
async def locked_registers(scene: BusScene) -> Evidence:
    """After the lock, a secure world with a bug writes every locked register, with every byte strobe, and the lock.

    Writes that reach the port together with the lock, and sealing, are tried as well.
    """
    bus, seen = scene.bus, Trials()
    await scene.boot(lock=False, gate=False)
    locked = (FLEX_SECURE.WINDOW_BASE, FLEX_SECURE.WINDOW_PAGES, FLEX_SECURE.GRACE, FLEX_SECURE.MANAGERS)
    before = [await scene.word(register) for register in locked]
    if not scene.control:
        lock = bus.post(FLEX_SECURE.CONTROL, FlexmemSecure.CONTROL__LOCK.put(1), prot=0, nsaid=0)
        race = [bus.post(register, 0x7777, prot=0, nsaid=0) for register in locked]
        for order in (lock, *race):
            await order.done.wait()
    for register, strobe, value in product((*locked, FLEX_SECURE.CONTROL), range(16), (0, 0x1234_5678, 0xFFFF_FFFC)):
        await bus.register(register, value, prot=0, strobe=strobe)
        seen.trials += 1
    seen.trials += len(locked) + 1
    after = [await scene.word(register) for register in locked]
    changed = [hex(r - FLEX_SECURE.base) for r, a, b in zip(locked, before, after, strict=True) if a != b]
    seen.breach(bool(changed), f"registers {', '.join(changed)} changed")
    seen.breach(await scene.word(FLEX_SECURE.CONTROL) & 1 == 0, "the lock is open")
    sealed = await scene.command(C.SEAL, FIRST)
    seen.results[f"SEAL {sealed.name}"] += 1
    seen.breach(sealed is R.OK, "SEAL was taken")
    return Evidence(seen.breaches > 0, seen.seen())


@attack("partial-strobes", "SEC-08", weakness=Weakness.REGISTERS, control=ENTITLED, kind=ControlKind.ENTITLED)
async def partial_strobes(scene: BusScene) -> Evidence:
    """The OS writes its registers with every set of byte strobes, to have a command taken that was never written whole.

    A byte that is not strobed must stay; a command, a request by size or an acknowledgement counts only if its bytes
    are. The control gives all strobes.
    """
    bus, seen = scene.bus, Trials()
    await scene.boot()
    port = FLEX_NORMAL.CMD
    await scene.command(C.DELEGATE, FIRST + 3)
    await scene.command(C.CANCEL, FIRST + 3)
    status = await scene.os_word(FLEX_NORMAL.IRQ_STATUS)
    for register in (port.FIRST, port.COUNT, FLEX_NORMAL.QUERY_PAGE):
        for strobe in range(16):
            old, new = 0x1122_3344, 0xAABB_CCDD
            await bus.register(register, old, prot=2)
            await bus.register(register, new, prot=2, strobe=0xF if scene.control else strobe)
            mask = sum(0xFF << 8 * lane for lane in range(4) if strobe >> lane & 1)
            expected = old & ~mask | new & mask
            found = await scene.os_word(register)
            # A register whose write is an event takes it whole or not at all.
            right = found == expected or (register == FLEX_NORMAL.QUERY_PAGE and found == (new if mask == ~0 else old))
            seen.trials += 1
            seen.breach(not right, f"register {register & 0xFFF:#x}, strobes {strobe:04b}: {found:#x}")
    await bus.register(port.FIRST, FIRST, prot=2)
    await bus.register(port.COUNT, 1, prot=2)
    for strobe in range(0, 16, 2):
        await bus.register(port.COMMAND, C.DELEGATE, prot=2, strobe=0xF if scene.control else strobe)
        await bus.tick(60)
        seen.trials += 1
        seen.breach(CODES.get(code_of(bus, 0)) is not S.NORMAL, f"command with strobes {strobe:04b}")
    for strobe in range(15):
        await bus.register(FLEX_NORMAL.SIZE_REQUEST, 3, prot=2, strobe=0xF if scene.control else strobe)
        seen.trials += 1
        seen.breach(await scene.os_word(FLEX_NORMAL.SIZE_REQUEST) != 0, f"request by size with strobes {strobe:04b}")
    for strobe in range(0, 16, 2):
        await bus.register(FLEX_NORMAL.IRQ_STATUS, 0xFFFF_FFFF, prot=2, strobe=0xF if scene.control else strobe)
        seen.trials += 1
        lost = status & ~await scene.os_word(FLEX_NORMAL.IRQ_STATUS)
        seen.breach(lost != 0, f"interrupts {lost:#x} cleared with strobes {strobe:04b}")
    return Evidence(seen.breaches > 0, seen.seen())


_RIVALS = (
    (S.DELEGATED, C.CANCEL, C.ACCEPT),
    (S.NORMAL, C.DELEGATE, C.SEAL),
    (S.FLEX, C.RECALL, C.SEAL),
)
"""Commands of the two worlds of which one makes the other impossible, whichever comes first."""


async def _written(bus: FilterBus, index: int, before: int) -> None:
    """Wait until the table has another code word for a page."""
    if not await bus.until(lambda: code_of(bus, index) != before, 100):
        raise RuntimeError("The first command must be applied")


@attack(
    "rival-commands",
    "SEC-05",
    weakness=Weakness.RACE,
    control="The table is broken: it loses the first command's write before the second command comes to it.",
    kind=ControlKind.BROKEN,
)
async def rival_commands(scene: BusScene) -> Evidence:
    """Both worlds give commands for one page that exclude each other, at every distance of a few cycles.

    If both were told OK, each would take the page for its own. Both frames stand ready, so that one write starts each;
    in a second round both wait together behind the drain of a grace period that has ended.
    """
    bus, seen = scene.bus, Trials()
    gaps = [(gap, False) for gap in range(-8, 9)] + [(gap, True) for gap in (-8, 0, 8, 16)]
    for (state, normal, secure), (turn, (gap, behind)) in product(_RIVALS, enumerate(gaps)):
        index = turn % (PAGES - 1)
        if index == 0:
            await scene.boot(lock=False, grace=300)
        page = FIRST + index
        for code in {S.DELEGATED: [C.DELEGATE], S.FLEX: [C.DELEGATE, C.ACCEPT]}.get(state, []):
            await scene.command(code, page)
        before = code_of(bus, index)
        held = await _drain(scene, FIRST + PAGES - 1) if behind and not scene.control else None
        for frame, prot in ((FLEX_NORMAL, 2), (FLEX_SECURE, 0)):
            await bus.register(frame.CMD.FIRST, page, prot=prot)
            await bus.register(frame.CMD.COUNT, 1, prot=prot)
        rivals = [(FLEX_NORMAL.CMD.COMMAND, normal, 2), (FLEX_SECURE.CMD.COMMAND, secure, 0)]
        if gap < 0:
            rivals.reverse()
        orders = []
        for register, code, prot in rivals:
            orders.append(bus.post(register, code, prot=prot, nsaid=0))
            await bus.tick(abs(gap))
            if scene.control and len(orders) == 1:
                await _written(bus, index, before)
                overwrite(bus, index, before)
                await bus.tick()
        for order in orders:
            await order.done.wait()
        if held is not None:
            waiting = [await bus.register(r.CMD.STATUS, None, prot=p) for r, p in ((FLEX_NORMAL, 2), (FLEX_SECURE, 0))]
            seen.results["both waiting"] += all(answer.value & 1 for answer in waiting)
            scene.release_memory()
            await bus.done(held)
        results = [await scene.report(code) for code in (normal, secure)]
        seen.trials += 1
        seen.results[" ".join("none" if r is None else r.name for r in results)] += 1
        seen.breach(results.count(R.OK) != 1, f"{normal.name} and {secure.name}, {gap} cycles apart")
        if state is S.DELEGATED:
            await scene.take_back(page)
        if held is not None:
            await scene.take_back(FIRST + PAGES - 1)
    return Evidence(seen.breaches > 0, seen.seen())


async def _drain(scene: BusScene, page: int) -> Burst:
    """Let a page's grace period end with a read of it outstanding, so that the change can't drain; the read."""
    await scene.lend(page)
    if await scene.command(C.RECALL, page) is not R.OK:
        raise RuntimeError("The page must be recalled")
    scene.hold_reads(0, identity=3)
    held = scene.bus.read(page * PAGE_BYTES, 4, SECURE, id=3)
    await scene.bus.underway(held)
    if not await scene.reaches(page, S.SCRUBBING, 600):
        raise RuntimeError("The grace period must end")
    return held


async def _read_on(scene: BusScene, page: int, own: list[list[int]], ended: Latch) -> None:
    """The service reads its page over and over."""
    while not ended.is_set():
        own.append((await scene.fetch(page * PAGE_BYTES, 4, scene.service, id=2)).got)


@attack("quick-relend", "SEC-04", weakness=Weakness.STALE_CHECK)
async def quick_relend(scene: BusScene) -> Evidence:
    """The OS takes a page, forges its contents and lends it again at once, while the service reads all the time.

    At no distance between the commands may the service read the forgery without having accepted the page anew.
    """
    bus, seen = scene.bus, Trials()
    await scene.boot()
    for gap in range(0, 24):
        page = scene.first + gap % 2
        forged = scene.fresh(4)
        await scene.lend(page)
        await scene.store(page * PAGE_BYTES, scene.fresh(4), scene.service, id=2)
        own: list[list[int]] = []
        ended = Latch(bus.kernel)
        reader = bus.spawn(_read_on(scene, page, own, ended), "service")
        if scene.protected:
            await scene.start(C.RECALL, page)
            await scene.reaches(page, S.NORMAL)
        forgery = bus.write(page * PAGE_BYTES, forged, NORMAL, id=1)
        await bus.tick(gap)
        if scene.protected:
            await scene.command(C.DELEGATE, page)
        await bus.done(forgery)
        await bus.tick(40)
        ended.set()
        await reader.join()
        believed = sum(beat in forged for got in own for beat in got)
        seen.trials += 1
        seen.changed_beats += believed
        seen.breach(believed > 0, f"lent again {gap} cycles after the forgery")
        seen.results["reads"] += len(own)
        if scene.protected:
            await scene.take_back(page)
    return Evidence(seen.breaches > 0, seen.seen())

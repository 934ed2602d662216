"""Attacks with ranges and bursts at their edges: off by one, wrapping, overlapping, narrow, unaligned."""

from __future__ import annotations

from collections import Counter
from itertools import product

from flexserve_sw.attacker.case import ControlKind, Evidence
from flexserve_sw.attacker.weakness import Weakness
from flexserve_sw.machine import PAGE_BYTES, World
from flexserve_sw.regs import TZC
from flexserve_sw.regs import RecallCommand as C
from flexserve_sw.regs import RecallResult as R
from flexserve_sw.regs import RecallState as S

from .case import attack
from .scene import FIRST, OUTSIDE, PAGES, BusScene, Trials, in_page
from .table import CODES, code_of, overwrite
from .traffic import FIXED, INCR, WRAP

NORMAL, SECURE = World.NORMAL, World.SECURE
DEVICE = 3
WORD = 1 << 32


@attack(
    "range-edges",
    "SEC-05",
    weakness=Weakness.OFF_BY_ONE,
    control="The monitor programs the window too wide by its own size, so that it reaches over the OS's own memory.",
    kind=ControlKind.MISCONFIGURED,
)
async def range_edges(scene: BusScene) -> Evidence:
    """The OS lends every range around the window's edges, and ranges whose end wraps or is nowhere.

    What is lent must be exactly the ranges of flexible pages; a page that is taken for lent and is none, or one that
    was not named and moves, is a success.
    """
    seen = Trials()
    await scene.boot(pages=2 * PAGES if scene.control else PAGES)
    window = range(FIRST, FIRST + PAGES)
    spans = [*product(range(FIRST - 2, FIRST + PAGES + 3), range(PAGES + 3))]
    for first in (FIRST, FIRST + PAGES - 1, 0, WORD - 1):
        spans += [(first, count) for count in (WORD - 1, WORD - first & WORD - 1, WORD // 2, 1 << 20, (1 << 20) + 1)]
    spans += [(FIRST + (1 << 20), 1), (FIRST + (1 << 31), 1), (FIRST - PAGES, WORD - 1), (WORD - 1, 2)]
    for first, count in spans:
        result = await scene.command(C.DELEGATE, first, count)
        flexible = 0 < count <= PAGES and first in window and first + count - 1 in window
        seen.trials += 1
        seen.results[result.name] += 1
        moved = {FIRST + n for n in range(PAGES) if CODES.get(code_of(scene.bus, n)) is not S.NORMAL}
        named = set(range(first, first + count)) if flexible and result is R.OK else set()
        seen.breach(result is R.OK and not flexible, f"{first - FIRST:+#x}, {count:#x} pages")
        seen.breach(moved & set(window) != named and not scene.control, f"moved {sorted(moved)}")
        if result is R.OK and await scene.command(C.CANCEL, first, count) is not R.OK:
            raise RuntimeError("What was just lent must be cancelled")
    return Evidence(seen.breaches > 0, seen.seen())


@attack(
    "overlapping-ranges",
    "SEC-05",
    weakness=Weakness.OVERLAP,
    control="The table is broken: it has forgotten the pages that are lent.",
    kind=ControlKind.BROKEN,
)
async def overlapping_ranges(scene: BusScene) -> Evidence:
    """With every range of pages lent, the OS lends and cancels every other range that overlaps it in whole or in part.

    A command whose range holds a single page that it may not touch must leave all of them as they are.
    """
    bus, seen = scene.bus, Trials()
    await scene.boot()
    spans = [(first, count) for first in range(PAGES) for count in range(1, PAGES - first + 1)]
    for first, count in spans:
        lent = set(range(first, first + count))
        await scene.lend(FIRST + first, count)
        for code, (start, length) in product((C.DELEGATE, C.CANCEL), spans):
            named = set(range(start, start + length))
            if scene.control:
                for n in lent & named:
                    overwrite(bus, n, 1 if code is C.DELEGATE else 2)
                await bus.tick(2)
            result = await scene.command(code, FIRST + start, length)
            legal = code is C.DELEGATE and not lent & named
            held = all(CODES.get(code_of(bus, n)) is S.FLEX for n in lent)
            moved = {n for n in set(range(PAGES)) - lent if CODES.get(code_of(bus, n)) is not S.NORMAL}
            seen.trials += 1
            seen.results[f"{code.name} {result.name}"] += 1
            what = f"{code.name} of {start}+{length} with {first}+{count} lent"
            seen.breach((result is R.OK) != legal or not held or moved != (named if legal else set()), what)
            if legal and result is R.OK:
                await scene.command(C.CANCEL, FIRST + start, length)
            if scene.control:
                for n in range(PAGES):
                    overwrite(bus, n, 4 if n in lent else 1)
                await bus.tick(2)
        await scene.take_back(FIRST + first, count)
    return Evidence(seen.breaches > 0, seen.seen())


_LENGTHS = (1, 2, 3, 4, 16, 17)
_LONG = ((INCR, 0, 256), (INCR, 4, 255), (INCR, 4, 256), (FIXED, 4, 256), (WRAP, 4, 256), (INCR, 7, 1))
"""Shapes that are tried at the edge alone."""
_AT_ONCE = 16
KINDS = ("FIXED", "INCR", "WRAP", "reserved")
_UNCHECKED = "The check of a burst's shape is broken: what the regions permit is permitted in any shape."


def _shapes() -> list[tuple[int, int, int, int]]:
    """Kind, size, beats and bytes before the edge, of bursts that begin before a page's end: legal and illegal ones."""
    found = []
    for kind, size, beats in [*product(range(4), range(6), _LENGTHS), *_LONG]:
        step = 1 << size
        reach = step * beats
        befores = {reach - step, reach, reach + step}
        if (kind, size, beats) not in _LONG:
            befores |= {1, step - 1, step, step + 1, reach - 1, reach + 1}
        found += [(kind, size, beats, before) for before in befores if 0 < before <= PAGE_BYTES]
    return found


async def _edges(scene: BusScene, *, write: bool) -> Evidence:
    """Mount every shape against the page behind the attacker's own; memory tells which accesses reached it."""
    bus, seen = scene.bus, Trials()
    await scene.boot()
    held = FIRST + 1
    secret = scene.fresh(PAGE_BYTES // 16)
    await scene.lend(held)
    await scene.store(held * PAGE_BYTES, secret, SECURE, id=2)
    if scene.control:
        bus.stick(f"{'write' if write else 'read'}_path.lookup.permitted", 1)
    shapes, known = _shapes(), set(secret)
    reached_by_kind: Counter[str] = Counter()
    for at in range(0, len(shapes), _AT_ONCE):
        batch = shapes[at : at + _AT_ONCE]
        bus.memory.seen.clear()
        bursts = []
        for identity, (kind, size, beats, before) in enumerate(batch):
            address = held * PAGE_BYTES - before
            options = {"id": identity, "nsaid": DEVICE, "kind": kind, "size": size}
            if write:
                bursts.append(bus.write(address, scene.fresh(beats), NORMAL, **options))
            else:
                bursts.append(bus.read(address, beats, NORMAL, **options))
        await bus.done(*bursts, cycles=8_000)
        forwarded = {access.id for access in bus.memory.seen}
        within = {access.id for access in bus.memory.seen if in_page(access, held)}
        for (kind, size, beats, before), burst in zip(batch, bursts, strict=True):
            reached = burst.id in within or not known.isdisjoint(burst.got)
            seen.trials += 1
            seen.results["forwarded" if burst.id in forwarded else "denied"] += 1
            reached_by_kind[KINDS[kind]] += reached
            seen.breach(reached, f"{KINDS[kind]}, size {size}, {beats} beats, {before} bytes before the edge")
    changed = sum(a != b for a, b in zip(scene.contents(held * PAGE_BYTES, len(secret)), secret, strict=True))
    seen.changed_beats += changed
    seen.breach(changed > 0, "the page behind has changed")
    return Evidence(seen.breaches > 0, seen.seen(reached_by_kind=dict(reached_by_kind)))


@attack("edge-reads", "SEC-01", weakness=Weakness.WRAPAROUND, control=_UNCHECKED, kind=ControlKind.BROKEN)
async def edge_reads(scene: BusScene) -> Evidence:
    """A device reads in its own page up to the edge of the service's, in every shape: narrow, unaligned, WRAP, FIXED.

    Illegal shapes are among them: beats wider than the bus, the reserved kind, WRAP and FIXED bursts that are too long.
    """
    return await _edges(scene, write=False)


@attack("edge-writes", "SEC-02", weakness=Weakness.WRAPAROUND, control=_UNCHECKED, kind=ControlKind.BROKEN)
async def edge_writes(scene: BusScene) -> Evidence:
    """A device writes in its own page up to the edge of the service's, in the same shapes as the reads."""
    return await _edges(scene, write=True)


@attack(
    "window-edges",
    "SEC-01",
    weakness=Weakness.OFF_BY_ONE,
    control="The monitor's window ends one granule early: the service's last pages are ordinary memory.",
    kind=ControlKind.MISCONFIGURED,
)
async def window_edges(scene: BusScene) -> Evidence:
    """With all pages of the window lent, a device reads and writes around both its edges, to the byte.

    Everything within must be denied, everything outside allowed.
    """
    seen = Trials()
    await scene.boot(base=FIRST, pages=PAGES if scene.control else 2 * PAGES)
    pages = range(FIRST, FIRST + 2 * PAGES)
    await scene.lend(FIRST, PAGES if scene.control else 2 * PAGES)
    for page in pages:
        in_window = not scene.control or page < FIRST + PAGES
        await scene.store(page * PAGE_BYTES, scene.secret(PAGE_BYTES // 16), SECURE if in_window else NORMAL, id=2)
    low, high = pages[0] * PAGE_BYTES, (pages[-1] + 1) * PAGE_BYTES
    for edge, delta, size in product((low, high), (-32, -17, -16, -8, -4, -2, -1, 0, 1, 2, 4, 8, 15, 16, 32), range(5)):
        address = edge + delta
        inside = low <= address < high
        probe = await scene.fetch(address, 1, NORMAL, id=1, nsaid=DEVICE, size=size)
        before = scene.contents(address // 16 * 16, 1)
        blow = await scene.store(address, scene.fresh(1), NORMAL, id=1, nsaid=DEVICE, size=size)
        changed = scene.contents(address // 16 * 16, 1) != before
        seen.trials += 2
        leaked = scene.leaked(probe.got)
        seen.leaked_beats += leaked
        seen.changed_beats += inside and changed
        seen.breach(inside and (leaked > 0 or changed), f"{delta:+d} bytes from an edge, size {size}")
        seen.results["allowed" if blow.responses == [0] else "denied"] += 1
    return Evidence(seen.breaches > 0, seen.seen())


@attack(
    "overlapping-regions",
    "SEC-01",
    weakness=Weakness.OVERLAP,
    control="Of two overlapping regions the monitor has left the stricter one out.",
    kind=ControlKind.MISCONFIGURED,
)
async def overlapping_regions(scene: BusScene) -> Evidence:
    """The monitor has programmed two regions that overlap, one closed and one open to the device, in every pair.

    The device reads and writes where they overlap, hoping that the open one, the lower or the higher number, decides.
    """
    bus, seen = scene.bus, Trials()
    await scene.boot()
    page = OUTSIDE + 1
    secret = scene.secret(4)
    await scene.store(page * PAGE_BYTES, secret, NORMAL, id=2)

    async def region(number: int, first: int, last: int, access: int, *, enable: int = 1) -> None:
        registers = TZC.REGION[number]
        for register, value in (
            (registers.BASE_LOW, first * PAGE_BYTES),
            (registers.TOP_LOW, last * PAGE_BYTES),
            (registers.ID_ACCESS, access),
            (registers.ATTRIBUTES, 3 << 30 | enable),
        ):
            await scene.secure(register, value)

    for closed, open_ in product(range(1, 9), repeat=2):
        if closed == open_:
            continue
        for first, last in ((OUTSIDE, page), (page, OUTSIDE + 2)):
            await region(closed, page, page, 0, enable=int(not scene.control))
            await region(open_, first, last, 0xFFFF_FFFF)
            probe = bus.read(page * PAGE_BYTES, 4, NORMAL, id=1, nsaid=DEVICE)
            blow = bus.write(page * PAGE_BYTES, secret, NORMAL, id=1, nsaid=DEVICE)
            await bus.done(probe, blow)
            leaked = scene.leaked(probe.got)
            seen.trials += 2
            seen.leaked_beats += leaked
            seen.breach(leaked > 0 or blow.responses == [0], f"region {closed} closed, {open_} open")
        for number in (closed, open_):
            await scene.secure(TZC.REGION[number].ATTRIBUTES, 0)
    return Evidence(seen.breaches > 0, seen.seen())

"""Attacks on a page-state table that lies in memory: on its lines, and on the cache before them."""

from __future__ import annotations

from functools import partial
from itertools import product

from flexserve_sw.attacker.case import ControlKind, Evidence, Level
from flexserve_sw.attacker.weakness import Weakness
from flexserve_sw.machine import PAGE_BYTES, World
from flexserve_sw.regs import FLEX_SECURE
from flexserve_sw.regs import RecallCommand as C
from flexserve_sw.regs import RecallState as S

from .bus import FilterBus
from .case import attack
from .lines import Lines
from .scene import FIRST, BusScene, Trials
from .table import GROUP
from .traffic import FIXED, INCR, WRAP
from .upsets import assault, code_word

NORMAL, SECURE = World.NORMAL, World.SECURE
DEVICE = 3
WORDS = 4
"""Words of the window: twice as many as the cache has entries."""
SLVERR, DECERR = 2, 3
OTHER = FIRST + 2 * GROUP
"""First page of word 2, which shares its entry with word 0."""
_FORGED = "The check of the line is forged with it, more than it is built for: nobody but the filter can write there."
_OPEN = "What the regions and the table's own place permit is broken: it is permitted everywhere outside the window."


def lines_of(bus: FilterBus) -> Lines:
    """The port to the table's memory, which these attacks are about."""
    if bus.lines is None:
        raise RuntimeError("The filter must have its table in memory, not on chip")
    return bus.lines


def _always(response: int, *_: int) -> int:
    """A response to every beat or line."""
    return response


def word_of(state: S) -> int:
    """States of a word whose pages are all in one state."""
    return ((1 << GROUP) - 1) << (code_word(state).bit_length() - 1) * GROUP


async def arrange(scene: BusScene, *, steady: bool = True) -> Lines:
    """A window of several words; the first is lent and holds secrets, the others are NORMAL."""
    scene.steady = steady
    await scene.boot(pages=WORDS * GROUP, lock=False, grace=5_000)
    await scene.lend(FIRST, GROUP)
    for n in range(GROUP):
        await scene.store((FIRST + n) * PAGE_BYTES, scene.secret(4), SECURE, id=2)
    await scene.bus.tick(20)
    return lines_of(scene.bus)


async def evict(scene: BusScene) -> None:
    """Make the cache forget everything."""
    scene.bus.upset(lines_of(scene.bus).forget)
    await scene.bus.tick(2)


async def _struck(scene: BusScene, page: int, seen: Trials, what: str) -> None:
    """Both worlds go for a page whose word is wrong: everything must be denied, and the alarm name the page."""
    through, leaked = await assault(scene, page, seen)
    alarm, named = await scene.word(FLEX_SECURE.ALARM), await scene.word(FLEX_SECURE.ALARM_PAGE)
    raised = (alarm, named) == (1, page)
    seen.trials += 1
    seen.results["alarm" if raised else "no alarm"] += 1
    seen.breach(leaked > 0 if scene.control else through > 0 or leaked > 0 or not raised, what)
    await scene.secure(FLEX_SECURE.ALARM, 1)


@attack("line-upset", "SEC-11", weakness=Weakness.UPSET, control=_FORGED, kind=ControlKind.BROKEN, level=Level.TABLE)
async def line_upset(scene: BusScene) -> Evidence:
    """Every bit of the line that holds the states of lent pages is flipped in memory: states, check and padding.

    The cache has forgotten the word; both worlds read and write one of the pages. Everything must be denied and the
    alarm name it. The control makes the page NORMAL.
    """
    seen = Trials()
    lines = await arrange(scene)
    good = lines.line(0)
    normal = word_of(S.NORMAL)
    for bit in range(128):
        await evict(scene)
        lines.write(0, lines.forged(0, normal) if scene.control else good ^ 1 << bit)
        await _struck(scene, FIRST + bit % GROUP, seen, f"bit {bit}")
        lines.write(0, good)
    return Evidence(seen.breaches > 0, seen.seen())


@attack(
    "line-swap", "SEC-11", weakness=Weakness.AUTHENTICITY, control=_FORGED, kind=ControlKind.BROKEN, level=Level.TABLE
)
async def line_swap(scene: BusScene) -> Evidence:
    """Memory brings each other line of the table in place of the one of lent pages, and it in place of each other.

    The line of NORMAL pages carries a check that fits, for its own place. The control carries it for this one.
    """
    seen = Trials()
    lines = await arrange(scene)
    good = [lines.line(word) for word in range(WORDS)]
    states = (1 << 6 * GROUP) - 1
    for word in range(1, WORDS):
        for here, there in ((0, word), (word, 0)):
            if scene.control and here:
                continue  # a lent line in place of a NORMAL one opens nothing to the attacker
            await evict(scene)
            lines.write(here, lines.forged(here, good[there] & states) if scene.control else good[there])
            await _struck(scene, FIRST + here * GROUP + word % GROUP, seen, f"line {there} in place of line {here}")
            lines.write(here, good[here])
    return Evidence(seen.breaches > 0, seen.seen())


@attack(
    "entry-upset",
    "SEC-11",
    weakness=Weakness.UPSET,
    control="Two bits of the page's code word are upset, more than it is built for: another state stands there.",
    kind=ControlKind.BROKEN,
    level=Level.TABLE,
)
async def entry_upset(scene: BusScene) -> Evidence:
    """Every bit of the cache's entries of a word is flipped: mark, its complement, the states of the page gone for.

    With an upset mark the entry may pass for that of a word whose pages are NORMAL; pages of both are tried.
    """
    bus, seen = scene.bus, Trials()
    await arrange(scene)
    banks = [bus.signal(f"table.{name}")[0] for name in ("normal", "secure")]
    marks = len(banks[0]) - 6 * GROUP
    for bit in (*range(marks), *(marks + plane * GROUP for plane in range(6))):
        await evict(scene)
        for world in (NORMAL, SECURE):
            await scene.fetch(FIRST * PAGE_BYTES, 1, world, id=6)
        good = [int(bank.value) for bank in banks]
        mask = (code_word(S.FLEX) | code_word(S.NORMAL)) if scene.control else 0
        flips = sum((mask >> plane & 1) << marks + plane * GROUP for plane in range(6)) or 1 << bit

        def strike(good: list[int] = good, flips: int = flips) -> None:
            for bank, entry in zip(banks, good, strict=True):
                bank.value = entry ^ flips

        bus.upset(strike)
        await bus.tick(2)
        await _struck(scene, FIRST, seen, f"bit {bit}")
        if bit < marks and not scene.control:
            # An entry that may be this word's as well is not believed either.
            leaked = (await assault(scene, FIRST, seen))[1]
            seen.breach(leaked > 0, f"bit {bit}, once more")
            await scene.fetch(OTHER * PAGE_BYTES, 1, NORMAL, id=6)
            await scene.secure(FLEX_SECURE.ALARM, 1)
    return Evidence(seen.breaches > 0, seen.seen())


@attack(
    "fetch-error",
    "SEC-11",
    weakness=Weakness.AUTHENTICITY,
    control="The same forged line comes with OKAY, more than it is built for: nobody but the filter can write there.",
    kind=ControlKind.BROKEN,
    level=Level.TABLE,
)
async def fetch_error(scene: BusScene) -> Evidence:
    """A line is answered with SLVERR or DECERR, after any wait; it says that the pages are NORMAL, and its check fits.

    Afterwards memory is as it was, and the service must have its pages back.
    """
    seen = Trials()
    lines = await arrange(scene)
    good = lines.line(0)
    for response, latency, n in product((SLVERR, DECERR), (1, 2, 3, 10, 40), range(GROUP)):
        await evict(scene)
        lines.write(0, lines.forged(0, word_of(S.NORMAL)))
        lines.latency = latency
        answer = 0 if scene.control else response
        lines.respond_fetch = partial(_always, answer)
        await _struck(scene, FIRST + n, seen, f"response {response} after {latency} cycles")
        lines.write(0, good)
        lines.respond_fetch = lambda beat: 0
        if not scene.control:
            own = await scene.fetch((FIRST + n) * PAGE_BYTES, 1, SECURE, id=2)
            seen.breach(own.responses != [0], "the service does not get its page back")
        else:
            await evict(scene)
    return Evidence(seen.breaches > 0, seen.seen(fetches=len(lines.seen)))


@attack(
    "lost-line",
    "SEC-11",
    weakness=Weakness.REPLAY,
    control="Memory drops the line and answers OKAY, more than it is built for.",
    kind=ControlKind.BROKEN,
    level=Level.TABLE,
)
async def lost_line(scene: BusScene) -> Evidence:
    """Memory refuses the line that says that pages are lent, with an error, and keeps the one from before.

    That one says NORMAL, and its check fits. Before the error is answered the filter uses what it holds; afterwards it
    must believe nothing of the table any more, and say so.
    """
    bus, seen = scene.bus, Trials()
    for response, latency in product((SLVERR, DECERR), (1, 5, 20)):
        scene.steady = True
        await scene.boot(pages=WORDS * GROUP, lock=False, grace=5_000)
        lines = lines_of(bus)
        lines.latency = latency
        old = lines.line(0)
        lines.drops = lambda: True
        answer = 0 if scene.control else response
        lines.respond_store = partial(_always, answer)
        await scene.start(C.DELEGATE, FIRST, GROUP)
        await scene.report(C.DELEGATE)
        if scene.control:
            await scene.start(C.ACCEPT, FIRST, GROUP)
            await scene.report(C.ACCEPT)
            await scene.store(FIRST * PAGE_BYTES, scene.secret(4), SECURE, id=2)
        else:
            # What the service would have stored had it been told that all is well.
            blob = scene.secret(4)
            for n, beat in enumerate(blob):
                start = FIRST * PAGE_BYTES + 16 * n - bus.memory.base
                bus.memory.bytes[start : start + 16] = beat.to_bytes(16, "little")
        await bus.tick(latency + 10)
        if lines.line(0) != old:
            raise RuntimeError("Memory must have kept the old line")
        await evict(scene)
        alarm = await scene.word(FLEX_SECURE.ALARM)
        through, leaked = await assault(scene, FIRST, seen)
        seen.trials += 1
        seen.results["alarm" if alarm else "no alarm"] += 1
        what = f"response {response} after {latency} cycles"
        seen.breach(leaked > 0 if scene.control else through > 0 or leaked > 0 or not alarm, what)
    return Evidence(seen.breaches > 0, seen.seen())


@attack("table-reach", "SEC-02", weakness=Weakness.OVERLAP, control=_OPEN, kind=ControlKind.BROKEN, level=Level.TABLE)
async def table_reach(scene: BusScene) -> Evidence:
    """Both worlds, under every NSAID, write and read the memory that the table lies in, in every kind of burst.

    Regions are wide open, for the secure world too. What is written are lines that make the lent pages NORMAL, with a
    check that fits; at the end the device reads the secret.
    """
    bus, seen = scene.bus, Trials()
    lines = await arrange(scene)
    table, good = lines.address(0), [lines.line(word) for word in range(WORDS)]
    forged = [lines.forged(word, word_of(S.NORMAL)) for word in range(WORDS)]
    if scene.control:
        for path in ("read", "write"):
            bus.stick(f"{path}_path.lookup.permitted", 1)
    shapes = [(kind, size, beats) for kind in (FIXED, INCR, WRAP) for size in (0, 2, 4) for beats in (1, 2, 4)]
    shapes = [shape for shape in shapes if shape[0] != WRAP or shape[2] > 1]
    last = table + PAGE_BYTES - 64
    for number, (world, nsaid, (kind, size, beats)) in enumerate(product((NORMAL, SECURE), range(16), shapes)):
        options = {"id": number % 16, "nsaid": nsaid, "kind": kind, "size": size}
        for address in (table, last):
            blow = bus.write(address, [forged[n % WORDS] for n in range(beats)], world, **options)
            probe = bus.read(address, beats, world, **options)
            await bus.done(blow, probe)
            changed = [lines.line(word) for word in range(WORDS)] != good
            read = any(beat in good for beat in probe.got)
            seen.trials += 1
            seen.changed_beats += changed
            seen.results["denied" if blow.responses == [DECERR] else "answered"] += 1
            seen.breach(
                changed or read or blow.responses[0] == 0, f"{world.value}, NSAID {nsaid}, {beats} x {1 << size}"
            )
            if scene.control:
                for word, line in enumerate(good):
                    lines.write(word, line)
        if seen.breaches and number >= len(shapes):
            break
    if scene.control:
        await scene.store(table, forged[:1], NORMAL, id=3, nsaid=DEVICE)
    await evict(scene)
    probe = await scene.fetch(FIRST * PAGE_BYTES, 4, NORMAL, id=4, nsaid=DEVICE)
    leaked = scene.leaked(probe.got)
    seen.leaked_beats += leaked
    seen.breach(leaked > 0, "the secret")
    return Evidence(leaked > 0 if scene.control else seen.breaches > 0, seen.seen())


@attack("stale-line", "SEC-04", weakness=Weakness.REPLAY, control=_OPEN, kind=ControlKind.BROKEN, level=Level.TABLE)
async def stale_line(scene: BusScene) -> Evidence:
    """The OS notes the line of its own pages as the filter writes it, lends the pages, and has a device put it back.

    It does so before, between and after DELEGATE and ACCEPT, while the filter writes the line itself, and as often as
    the bus takes it. The old line's check fits: all that keeps it out is that nobody reaches the table's memory.
    """
    bus, seen = scene.bus, Trials()
    for offset in range(0, 48, 3):
        scene.steady = False
        await scene.boot(pages=2 * GROUP, lock=False, grace=5_000)
        lines = lines_of(bus)
        lines.latency = 1 + offset % 7
        await bus.tick(30)
        old = lines.line(0)
        if scene.control:
            bus.stick("write_path.lookup.permitted", 1)
        await scene.start(C.DELEGATE, FIRST, GROUP)
        await bus.tick(offset)
        for n in range(8):
            bus.write(lines.address(0), [old], NORMAL, id=8 + n % 4, nsaid=DEVICE)
        await scene.report(C.DELEGATE)
        await scene.command(C.ACCEPT, FIRST, GROUP)
        await scene.store(FIRST * PAGE_BYTES, scene.secret(4), SECURE, id=2)
        late = [bus.write(lines.address(0), [old], NORMAL, id=8 + n, nsaid=DEVICE) for n in range(4)]
        await bus.done(*late)
        await evict(scene)
        probe = await scene.fetch(FIRST * PAGE_BYTES, 4, NORMAL, id=4, nsaid=DEVICE)
        leaked = scene.leaked(probe.got)
        seen.trials += 1
        seen.leaked_beats += leaked
        seen.breach(leaked > 0, f"{offset} cycles after DELEGATE")
    return Evidence(seen.breaches > 0, seen.seen())

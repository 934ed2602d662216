"""What management takes: commands, lending, recall, scrubbing."""

from __future__ import annotations

import random

from flexserve_sw.regs import RecallCommand, RecallState

from .driver import Burst, Step
from .figures import Figure
from .phone import PAGE, Phone, mixed, page_address

__all__ = ["bandwidth", "command_rate", "lending", "recall_bound", "scrub_delay", "under_load"]

_BEATS = PAGE // 16
C, S = RecallCommand, RecallState
_SLOW = 100
"""Cycles of a memory that is slower than the bench's own."""

_SCRUB_AHEAD = 2
"""Scrub bursts that may be ahead of a write that comes to an idle bus."""

RATE = 16
"""Pages per cycle that a command over a large range must reach."""


def command_rate(phone: Phone) -> list[Figure]:
    """Cycles of DELEGATE by range size, from the doorbell; a range of the whole window must keep the rate."""
    found = []
    sizes = [n for n in (1, 16, 64, 128, 256, 512, 1024) if n < phone.pages] + [phone.pages]
    for count in sizes:
        steps = [*phone.prepare(C.DELEGATE, 0, count), *phone.ring(C.DELEGATE), *phone.check(C.DELEGATE), Step("S")]
        outcomes, snapshots = phone.play(*steps, *phone.command(C.CANCEL, 0, count))
        doorbell = outcomes[3].doorbell
        spans = (
            ("to the decision", snapshots[0].decided_normal - doorbell),
            ("to the interrupt", outcomes[4].ended - doorbell),
            ("until a poll of the status has seen it", outcomes[5].ended - doorbell),
        )
        pages = f"DELEGATE of {count} page{'s' if count > 1 else ''}"
        for what, cycles in spans:
            name, limit = f"{pages}, doorbell {what}", RATE if count == phone.pages else None
            found += [
                Figure(group="commands", name=name, value=cycles, unit="cycles"),
                Figure(
                    group="commands", name=f"{name}, rate", value=count / cycles, unit="pages/cycle", at_least=limit
                ),
            ]
    return found


def lending(phone: Phone, counts: tuple[int, ...]) -> list[Figure]:
    """Cycles until delegated pages are usable, and until recalled ones are back and zeroed, on an idle bus.

    Software takes no time here: ACCEPT follows the report of DELEGATE, and RELEASE that of RECALL, at once.
    """
    found = []
    for count in counts:
        outcomes, snapshots = phone.play(
            *phone.prepare(C.ACCEPT, 0, count),
            *phone.prepare(C.DELEGATE, 0, count),
            *phone.ring(C.DELEGATE),
            *phone.ring(C.ACCEPT),
            *phone.check(C.ACCEPT),
            *phone.prepare(C.RELEASE, 0, count),
            *phone.prepare(C.RECALL, 0, count),
            Step("M"),
            *phone.ring(C.RECALL),
            *phone.ring(C.RELEASE),
            Step("E", S.NORMAL, count),
            Step("S"),
        )
        usable = outcomes[9].ended - outcomes[6].doorbell
        back = snapshots[0].changed(S.NORMAL)
        recall = back.last - outcomes[18].doorbell
        pages = f"{count} page{'s' if count > 1 else ''} ({count * PAGE >> 10:,} KiB)"
        for name, cycles in ((f"delegate to usable, {pages}", usable), (f"recall to returned, {pages}", recall)):
            found.append(Figure(group="lending", name=name, value=cycles, unit="cycles"))
            found.append(Figure(group="lending", name=f"{name}, per page", value=cycles / count, unit="cycles/page"))
    return found


def bandwidth(phone: Phone, *, pages: int = 32) -> list[Figure]:
    """Share of the write slots that the scrubber fills when nobody else writes, from its first beat to its last."""
    _, snapshots = phone.play(
        *phone.lend(0, pages),
        Step("M"),
        *phone.command(C.RELEASE, 0, pages),
        Step("E", S.NORMAL, pages),
        Step("S"),
    )
    seen = snapshots[0]
    share = seen.scrub_beats / (seen.last_scrub - seen.first_scrub + 1)
    return [Figure(group="scrub", name="share of an idle bus", value=100 * share, unit="% of write slots", at_least=95)]


def under_load(phone: Phone, *, pages: int = 4, seed: int = 1) -> list[Figure]:
    """Share of the write slots that the scrubber gets from masters that never pause, by the lengths of their bursts.

    A beat of a denied burst counts as a slot, for it is one upstream; so does a cycle without a beat. Of the last
    upstream burst all beats but one may be in excess of the share, and are left out.
    """
    rng = random.Random(seed)
    half = phone.pages // 2
    guaranteed = 100 / phone.driver.flex.scrub_share

    def some(*beats: int, nonsecure: int = 1) -> list[Burst]:
        return mixed(rng, 512, pages=range(half, phone.pages), beats=beats, nonsecure=nonsecure)

    def in_turn(*bursts: tuple[int, int]) -> list[Burst]:
        return [
            Burst(address=page_address(half), beats=beats, id=n, nonsecure=nonsecure)
            for n, (beats, nonsecure) in enumerate(bursts)
        ]

    loads = (
        ("single beats", some(1)),
        ("bursts of 16 beats", some(16)),
        ("bursts of 256 beats", some(256)),
        ("bursts of 1 to 256 beats mixed", some(1, 2, 4, 8, 16, 64, 256)),
        ("bursts of 111 and 256 beats in turn", in_turn((111, 1), (256, 1))),
        ("a single beat between seven denied bursts of 256", in_turn((1, 1), *[(256, 0)] * 7)),
        (
            "half of the bursts denied, 1 to 256 beats",
            [b for p in zip(some(1, 16, 256), some(1, 16, 256, nonsecure=0), strict=True) for b in p],
        ),
    )
    found = [
        Figure(
            group="scrub",
            name=f"share under load, {name}",
            value=_share(phone, writes, pages),
            unit="% of write slots",
            at_least=guaranteed,
        )
        for name, writes in loads
    ]
    # A denied write is answered after the allowed ones of its ID; nobody's data may wait for that.
    before = phone.driver.memory_latency
    phone.driver.slow_down(_SLOW)
    for beats in (1, 16):
        behind = [Burst(address=page_address(half), beats=beats, id=n // 2, nonsecure=1 - n % 2) for n in range(16)]
        found.append(
            Figure(
                group="scrub",
                name=f"share under load, in turn allowed and denied on 8 IDs, {beats} beats, memory of {_SLOW} cycles",
                value=_share(phone, behind, pages),
                unit="% of write slots",
                at_least=guaranteed,
            )
        )
    phone.driver.slow_down(before)
    return found


def _share(phone: Phone, writes: list[Burst], pages: int) -> float:
    """Per cent of the write slots that the scrub of ``pages`` pages gets, from its first burst to its last."""
    phone.driver.traffic(writes=writes, loop=True, keep=False)
    _, (first, last) = phone.play(
        *phone.lend(0, pages),
        Step("B"),
        Step("C", 2000),
        Step("M"),
        *phone.command(C.RELEASE, 0, pages),
        Step("Z", phone.driver.flex.scrub_beats),
        Step("S"),
        Step("Z", pages * _BEATS),
        Step("S"),
        Step("X"),
        Step("D"),
        Step("E", S.NORMAL, pages),
    )
    slots = last.cycle - first.cycle - max(b.beats for b in writes) + 1
    return 100 * (last.scrub_beats - first.scrub_beats) / slots


def scrub_delay(phone: Phone, *, pages: int = 8, seed: int = 1) -> list[Figure]:
    """By how much light traffic comes later for a scrub beside it, which takes the write slots that are free."""
    rng = random.Random(seed)
    half = phone.pages // 2
    reads, writes = (mixed(rng, 100, pages=range(half, phone.pages), every=40, beats=(1, 2, 4)) for _ in range(2))
    seen = []
    for scrubbing in (False, True):
        phone.play(*phone.lend(0, pages))
        phone.driver.traffic(reads=reads, writes=writes)
        before, after = phone.command(C.RELEASE, 0, pages), [Step("E", S.NORMAL, pages), Step("C", 1000)]
        phone.play(
            Step("M"), *(before if scrubbing else []), Step("B"), Step("D"), *([] if scrubbing else before), *after
        )
        seen.append([[r.answered - r.offered for r in records] for records in phone.driver.records()])
    flex = phone.driver.flex
    found = []
    for kind, without, with_, limit in zip(("read", "write"), *seen, (0, _SCRUB_AHEAD * flex.scrub_beats), strict=True):
        late = [b - a for a, b in zip(without, with_, strict=True)]
        for what, value, most in (("most", max(late), limit), ("average", sum(late) / len(late), None)):
            name = f"{kind} delayed by the beats of a scrub beside it, {what}"
            found.append(Figure(group="scrub", name=name, value=value, unit="cycles", at_most=most))
    return found


def recall_bound(phone: Phone, *, pages: int = 8) -> list[Figure]:
    """The worst recall that the bench can bring about, beside its bound; the secure world ignores it.

    Writes of 256 beats never pause, of either world. Reads of 256 beats: as many as the filter takes, or, in a memory
    that is more like one, as many as keep it busy.
    """
    half, flex = phone.pages // 2, phone.driver.flex
    ids = 1 << flex.bus.id_width
    writes = [
        Burst(address=page_address(n % pages if n % 2 else half + n % half), beats=256, id=n % ids, nonsecure=1 - n % 2)
        for n in range(2 * ids)
    ]
    found = []
    for what, every in (("reads that keep memory busy", 256), ("every read that the filter takes in flight", 0)):
        reads = [
            Burst(start=n * every, address=page_address(n % pages), beats=256, id=n % ids, nonsecure=0)
            for n in range(ids)
        ]
        phone.play(*phone.lend(0, pages))
        phone.driver.traffic(reads=reads, writes=writes, loop=True, keep=False)
        outcomes, snapshots = phone.play(
            *phone.prepare(C.RECALL, 0, pages),
            Step("B"),
            Step("C", 3000),
            Step("M"),
            *phone.ring(C.RECALL),
            Step("E", S.NORMAL, pages),
            Step("S"),
            Step("X"),
            Step("D"),
        )
        took = snapshots[0].changed(S.NORMAL).last - outcomes[6].doorbell
        in_flight = 20 if every else flex.outstanding << flex.bus.id_width
        found.append(
            Figure(
                group="recall",
                name=f"recall of {pages} pages that the secure world ignores, all writing, {what}",
                value=took,
                unit="cycles",
                at_most=recall_limit(phone, pages, reads=in_flight),
            )
        )
    found.append(Figure(group="recall", name="of them the grace period", value=phone.grace, unit="cycles"))
    return found


def recall_limit(phone: Phone, pages: int, *, reads: int) -> int:
    """Cycles within which ``pages`` recalled pages are back, if masters take and give every beat at once.

    The sum of: the grace period; the walks of command, expiry and finished scrubs; two drains, before the command
    begins and after the expiry, each of ``reads`` reads or of the writes whose address is ahead of their data, with the
    scrubber's share in between; and the scrub at its share of the write slots, behind such writes again.
    """
    flex, latency = phone.driver.flex, phone.driver.memory_latency
    words = flex.pages // flex.group
    ahead = (flex.bursts_ahead + 2) * 256 * flex.scrub_share // (flex.scrub_share - 1)
    drain = max(reads * 256, ahead) + latency
    return phone.grace + 4 * words + 32 + 8 * pages + 2 * drain + ahead + pages * _BEATS * flex.scrub_share + latency

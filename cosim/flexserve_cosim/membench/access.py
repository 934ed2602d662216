"""What the filter costs the traffic that passes it, against wires in its place."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from flexserve_sw.regs import TZC, RecallCommand, RecallState

from .driver import Burst, Driver, Record, Step
from .figures import Figure
from .phone import Phone, mixed, page_address, write

__all__ = ["DENIED_STATES", "added_latency", "denied_latency", "lost_beats", "stalls"]

DRIVE = Callable[..., Driver]
_SPACED = 400
"""Cycles between accesses that are to meet an idle filter."""

DENIED_STATES = (
    RecallState.RECALLING,  # first: its grace period runs
    RecallState.DELEGATED,
    RecallState.FLEX,
    RecallState.SCRUBBING,
    RecallState.SEALED,
)
"""States that deny the normal world."""


def _play(driver: Driver, *steps: Step) -> tuple[list[Record], list[Record]]:
    """Run the traffic that is set to its end; records in cycles since it began."""
    outcomes, _ = driver.play(Step("B"), *steps, Step("D"))
    zero = outcomes[0].began
    reads, writes = (
        [r._replace(**{f: getattr(r, f) - zero for f in Record._fields[:5]}) for r in records]
        for records in driver.records()
    )
    return reads, writes


def added_latency(phone: Phone, wires: Driver) -> list[Figure]:
    """Cycles that single accesses take longer than over wires, the worst of several lengths and kinds."""
    outside = page_address(phone.pages)
    shapes = [(beats, size, kind) for beats in (1, 2, 4, 16) for size in (2, 4) for kind in (0, 1, 2)]
    shapes = [s for s in shapes if s[2] != 2 or s[0] > 1] + [(256, 4, 1)]
    found = []
    for place, base in (("in the window", page_address(1)), ("outside the window", outside)):
        bursts = [
            Burst(start=_SPACED * n, address=base, beats=beats, size=size, kind=kind, id=n % 64)
            for n, (beats, size, kind) in enumerate(shapes)
        ]
        seen = []
        for driver in (phone.driver, wires):
            driver.traffic(reads=bursts, writes=bursts)
            seen.append(_play(driver))
        (reads, writes), (wired_reads, wired_writes) = seen
        _allowed(reads, writes)
        first = [a.first - a.offered - (b.first - b.offered) for a, b in zip(reads, wired_reads, strict=True)]
        last = [a.answered - a.offered - (b.answered - b.offered) for a, b in zip(reads, wired_reads, strict=True)]
        answer = [a.answered - a.offered - (b.answered - b.offered) for a, b in zip(writes, wired_writes, strict=True)]
        for name, values in (("read, first beat", first), ("read, last beat", last), ("write, answer", answer)):
            found.append(
                Figure(group="latency", name=f"{name}, {place}", value=max(values), unit="cycles added", at_most=2)
            )
    return found


def denied_latency(phone: Phone) -> list[Figure]:
    """Cycles from a denied access to its answer, in each state and with both answers; they must not differ.

    Seals a page of the window, so it comes last.
    """
    C, page = RecallCommand, {state: n for n, state in enumerate(DENIED_STATES)}
    found = []
    phone.play(*phone.lend(page[RecallState.SEALED], 1), *phone.command(C.SEAL, page[RecallState.SEALED], 1))
    for answer, action in (("OKAY", 0), ("DECERR", 1)):
        for kind in ("read", "write"):
            phone.play(
                write(TZC.ACTION, action),
                Step("H", 1),
                *phone.lend(page[RecallState.FLEX], 1),
                *phone.lend(page[RecallState.SCRUBBING], 1),
                *phone.command(C.DELEGATE, page[RecallState.DELEGATED], 1),
                *phone.command(C.RELEASE, page[RecallState.SCRUBBING], 1),
                Step("C", 1000),
                *phone.lend(page[RecallState.RECALLING], 1),
                *phone.command(C.RECALL, page[RecallState.RECALLING], 1),
            )
            bursts = [Burst(start=_SPACED * n, address=page_address(n), beats=4) for n in range(len(page))]
            phone.driver.traffic(reads=bursts if kind == "read" else (), writes=bursts if kind == "write" else ())
            records = _play(phone.driver)[kind == "write"]
            if any(r.nonzero or r.response != 3 * action for r in records):
                raise RuntimeError(f"A denied {kind} was not denied: {records}")
            times = [r.first - r.offered if kind == "read" else r.answered - r.last for r in records]
            what = "address to first beat" if kind == "read" else "last beat to answer"
            name = f"{kind} denied with {answer}, {what}"
            found += [
                Figure(group="denied", name=name, value=max(times), unit="cycles"),
                Figure(
                    group="denied",
                    name=f"{name}, difference between states",
                    value=max(times) - min(times),
                    unit="cycles",
                    at_most=0,
                ),
            ]
            phone.play(
                Step("H", 0),
                *phone.command(C.CANCEL, page[RecallState.DELEGATED], 1),
                *phone.command(C.RELEASE, page[RecallState.FLEX], 1),
                Step("C", phone.grace + 4000),
            )
    return found


def lost_beats(phone: Phone, wires: Driver, *, bursts: int = 2000, seed: int = 1) -> list[Figure]:
    """Cycles without a data beat at full load, beyond those over wires; mixed IDs, with management and without."""
    rng = random.Random(seed)
    half = phone.pages // 2
    found = []
    loads: list[tuple[str, Sequence[int]]] = [("mixed bursts", (1, 2, 4, 8, 16)), ("single beats", (1,))]
    for name, beats in loads:
        reads, writes = (mixed(rng, bursts, pages=range(half), beats=beats) for _ in range(2))
        wires.traffic(reads=reads, writes=writes)
        wired = [_idle(records, load) for records, load in zip(_play(wires), (reads, writes), strict=True)]
        for managed in (False, True):
            phone.driver.traffic(reads=reads, writes=writes)
            records = _play(phone.driver, *(_management(phone, half) if managed else []))
            _allowed(*records)
            idle = [_idle(seen, load) for seen, load in zip(records, (reads, writes), strict=True)]
            when = "while commands run" if managed else "without management"
            for channel, lost, before in zip(("read", "write"), idle, wired, strict=True):
                found.append(
                    Figure(
                        group="throughput",
                        name=f"{channel} beats lost, {name} {when}",
                        value=lost - before,
                        unit=f"of {sum(b.beats for b in reads)} beats",
                        at_most=0,
                    )
                )
    return found


def stalls(phone: Phone, *, seed: int = 1) -> list[Figure]:
    """Cycles by which unrelated accesses come later for a delegation, a recall or the end of a scrub, one by one.

    The same traffic runs twice, with the management and without. The end of a scrub is set apart from the scrub, which
    does take write slots, by a memory that keeps the answers to the scrubber back until the traffic runs.
    """
    rng = random.Random(seed)
    half, C = phone.pages // 2, RecallCommand
    found = []

    def compare(what: str, steps: list[Step], before: list[Step], after: list[Step]) -> None:
        reads = mixed(rng, 1500, pages=range(half), every=5, beats=(1, 2, 4))
        writes = mixed(rng, 1500, pages=range(half), every=5, beats=(1, 2, 4))
        seen = []
        for managed in (False, True):
            phone.play(*before)
            phone.driver.traffic(reads=reads, writes=writes)
            seen.append(_play(phone.driver, Step("C", 40), *(steps if managed else [])))
            phone.play(*([] if managed else steps), *after)
        for channel, without, with_ in zip(("reads", "writes"), *seen, strict=True):
            _allowed(without, with_)
            late = sum(b.answered - a.answered for a, b in zip(without, with_, strict=True))
            moved = sum(a != b for a, b in zip(without, with_, strict=True))
            found.append(
                Figure(group="stall", name=f"{channel} delayed by {what}", value=late, unit="cycles in all", at_most=0)
            )
            found.append(
                Figure(
                    group="stall",
                    name=f"{channel} that differ in any cycle, {what}",
                    value=moved,
                    unit=f"of {len(without)}",
                    at_most=0,
                )
            )

    ends = [Step("H", 0), Step("C", phone.grace + 12 * 500)]
    compare("a delegation", phone.command(C.DELEGATE, half, 8), [], phone.command(C.CANCEL, half, 8))
    compare(
        "an acceptance",
        phone.command(C.ACCEPT, half, 8),
        phone.command(C.DELEGATE, half, 8),
        [*phone.command(C.RELEASE, half, 8), *ends],
    )
    # Four pages whose scrubs are held fill the scrubber, so that what is recalled meanwhile is not scrubbed yet.
    held = [*phone.lend(half, 4), Step("H", 1), *phone.command(C.RELEASE, half, 4), Step("C", 3000), Step("M")]
    compare(
        "a recall and the end of its grace period",
        [*phone.command(C.RECALL, half + 4, 8), Step("E", RecallState.SCRUBBING, 8)],
        [*held, *phone.lend(half + 4, 8)],
        ends,
    )
    compare("the ends of four scrubs", [Step("H", 0), Step("E", RecallState.NORMAL, 4)], held, ends)
    return found


def _management(phone: Phone, first: int) -> list[Step]:
    """Commands that keep the engine busy and end in no scrub while the traffic runs."""
    steps, C = [], RecallCommand
    for _ in range(6):
        steps += phone.command(C.DELEGATE, first, phone.pages - first) + phone.command(
            C.CANCEL, first, phone.pages - first
        )
    return steps


def _allowed(*lists: Sequence[Record]) -> None:
    if any(record.response for records in lists for record in records):
        raise RuntimeError("An access of the bench was denied that should pass")


def _idle(records: Sequence[Record], load: Sequence[Burst]) -> int:
    """Cycles between the first and the last data beat in which none went."""
    return max(r.last for r in records) - min(r.first for r in records) + 1 - sum(b.beats for b in load)

"""What the two machines make of one job, figure by figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from ..membench.figures import Figure

__all__ = ["TOLERANCE", "agreement"]

TOLERANCE = 5.0
"""Percent by which a time may be off."""

Message = Mapping[str, Any]


def agreement(name: str, rtl: Message, fast: Message) -> Iterator[Figure]:
    """Figures of the job ``name``, given its result on both machines: answers, states of pages, and times."""
    yield _count(name, "tokens that differ", _different(rtl["tokens"], fast["tokens"]))
    pages = rtl["page_sequences"].keys() | fast["page_sequences"].keys()
    other = [page for page in pages if rtl["page_sequences"].get(page) != fast["page_sequences"].get(page)]
    yield Figure(group=name, name="pages that leave NORMAL", value=len(rtl["page_sequences"]), unit="pages")
    yield _count(name, "pages that go through other states", len(other))
    yield _count(name, "changes of how many pages are in which state, in order", _different(*map(_counts, (rtl, fast))))
    moved = [what for what in rtl["pages_moved"] if rtl["pages_moved"][what] != fast["pages_moved"][what]]
    yield _count(name, "sums of pages moved that differ", len(moved))
    yield _count(name, "violations seen", rtl["violations"] + fast["violations"])
    yield from _times(name, rtl, fast)


def _times(name: str, rtl: Message, fast: Message) -> Iterator[Figure]:
    yield _off(name, "time to first token", [rtl["ttft_cycles"]], [fast["ttft_cycles"]])
    yield _off(name, "decode, median token", *([result["decode_cycles_per_token"]] for result in (rtl, fast)))
    yield _off(name, "decode, the token that is off most", rtl["decode_cycles"], fast["decode_cycles"])
    yield _off(name, "all cycles", *([result["simulation"]["cycles"]] for result in (rtl, fast)))
    recalls = [result["recall"]["recalls"] for result in (rtl, fast)]
    for by in sorted({recall["by"] for recall in recalls[0]}):
        latencies = ([r["latency_cycles"] for r in side if r["by"] == by] for side in recalls)
        yield _off(name, f"recall by {by}", *latencies)


def _off(name: str, what: str, true: Sequence[float], found: Sequence[float]) -> Figure:
    """By how much the worst of several times is off."""
    if len(true) != len(found):
        raise ValueError(f"The machines must do the same, not {len(true)} and {len(found)} times {what!r}")
    worst = max(((100 * abs(b - a) / a, a, b) for a, b in zip(true, found, strict=True)), default=(0.0, 0.0, 0.0))
    label = f"{what}: {worst[1]:,.0f} on RTL, {worst[2]:,.0f} here, off by"
    return Figure(group=name, name=label, value=worst[0], unit="%", at_most=TOLERANCE)


def _count(name: str, what: str, number: int) -> Figure:
    return Figure(group=name, name=what, value=number, unit="", at_most=0)


def _different(first: Sequence[Any], second: Sequence[Any]) -> int:
    return sum(a != b for a, b in zip_longest(first, second))


def _counts(result: Message) -> list[dict[str, int]]:
    return [{state: n for state, n in entry.items() if state != "cycle"} for entry in result["page_states"]]

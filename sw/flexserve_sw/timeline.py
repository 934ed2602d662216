"""What happened when: spans and instants in cycles, and where the time of an interval went."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

__all__ = ["Instant", "OpenSpan", "Span", "Timeline", "attribute"]


@dataclass(slots=True)
class Span:
    """Something that took from ``begin`` to ``end``, in cycles, on a track. One is made for every job of the NPU."""

    track: str
    name: str
    begin: int
    end: int
    detail: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """As a message to whoever runs the job."""
        return {
            "type": "span", "track": self.track, "name": self.name, "begin": self.begin, "end": self.end,
            "detail": self.detail,
        }  # fmt: skip


@dataclass(frozen=True)
class Instant:
    """Something that happened at cycle ``at``."""

    track: str
    name: str
    at: int
    detail: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """As a message to whoever runs the job."""
        return {"type": "instant", "track": self.track, "name": self.name, "at": self.at, "detail": self.detail}


class OpenSpan:
    """A span that is not over; :meth:`Timeline.span` makes it."""

    __slots__ = ("_begin", "_detail", "_name", "_timeline", "_track")

    def __init__(self, timeline: Timeline, track: str, name: str, detail: dict[str, Any]) -> None:
        self._timeline, self._track, self._name, self._detail = timeline, track, name, detail
        self._begin = 0

    def __enter__(self) -> dict[str, Any]:
        self._begin = self._timeline.now
        return self._detail

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timeline.add(Span(self._track, self._name, self._begin, self._timeline.now, self._detail))


class Timeline:
    """Record of a run. ``clock`` gives the present cycle; ``listener`` is called with every entry as it is made."""

    def __init__(self, clock: Callable[[], int], listener: Callable[[dict[str, Any]], None] | None = None) -> None:
        self._clock, self._listener = clock, listener
        self.spans: list[Span] = []
        self.instants: list[Instant] = []

    def span(self, track: str, name: str, **detail: Any) -> OpenSpan:
        """Record the time spent inside, as a context, also when it is left by an exception.

        What is put in the dict that it gives is kept.
        """
        return OpenSpan(self, track, name, detail)

    @property
    def now(self) -> int:
        """The present cycle."""
        return self._clock()

    def add(self, span: Span) -> None:
        """Record a span that is over."""
        self.spans.append(span)
        if self._listener is not None:
            self._listener(span.as_json())

    def instant(self, track: str, name: str, **detail: Any) -> None:
        """Record that something happens now."""
        entry = Instant(track, name, self._clock(), detail)
        self.instants.append(entry)
        if self._listener is not None:
            self._listener(entry.as_json())

    def busy(self, track: str, begin: int, end: int) -> int:
        """Cycles of the interval in which at least one span of ``track`` ran."""
        return attribute(self.spans, [track], begin, end)[track]


def attribute(spans: Sequence[Span], order: Sequence[str], begin: int, end: int) -> dict[str, int]:
    """Split ``end - begin`` cycles among tracks so that each cycle is counted once.

    A cycle in which spans of several tracks run goes to the one that comes first in ``order``; a cycle in which none
    runs goes to ``other``. The values add up to the interval.
    """
    edges: list[tuple[int, int, int]] = []
    rank = {track: i for i, track in enumerate(order)}
    for span in spans:
        if span.track in rank and span.begin < end and span.end > begin:
            edges.append((max(span.begin, begin), 1, rank[span.track]))
            edges.append((min(span.end, end), -1, rank[span.track]))
    edges.sort()
    running = [0] * len(order)
    result = dict.fromkeys([*order, "other"], 0)
    last = begin
    for at, step, index in edges:
        owner = next((track for track, n in zip(order, running, strict=True) if n), "other")
        result[owner] += at - last
        last = at
        running[index] += step
    result["other"] += end - last
    return result

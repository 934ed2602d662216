"""How many pages are in which state, over time, and which states each page goes through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from .regs import RecallState

__all__ = ["PageCensus"]


class PageCensus:
    """States of pages that are not NORMAL, as the software of both worlds learns of them.

    ``history`` counts them over time, for the report; ``sequences`` has the names of each page's states in order.
    """

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._states: dict[int, RecallState] = {}
        self._counts: Counter[RecallState] = Counter()
        self.history: list[dict[str, Any]] = []
        self.sequences: dict[int, list[str]] = {}

    def _move(self, pages: Iterable[int], state: RecallState) -> None:
        for page in pages:
            self.sequences.setdefault(page, []).append(state.name)
            before = self._states.pop(page, RecallState.NORMAL)
            if before is not RecallState.NORMAL:
                self._counts[before] -= 1
            if state is not RecallState.NORMAL:
                self._states[page] = state
                self._counts[state] += 1
        entry: dict[str, Any] = {"cycle": self._clock()}
        entry |= {s.name: self._counts[s] for s in RecallState if s not in (RecallState.NORMAL, RecallState.CORRUPT)}
        if self.history and self.history[-1]["cycle"] == entry["cycle"]:
            self.history.pop()
        self.history.append(entry)

    def sealed(self, pages: Iterable[int]) -> None:
        """The monitor keeps these."""
        self._move(pages, RecallState.SEALED)

    def delegated(self, pages: Iterable[int]) -> None:
        """The OS lent these."""
        self._move(pages, RecallState.DELEGATED)

    def accepted(self, pages: Iterable[int]) -> None:
        """The secure world took these."""
        self._move(pages, RecallState.FLEX)

    def recalled(self, pages: Iterable[int]) -> None:
        """The OS insists on these."""
        self._move(pages, RecallState.RECALLING)

    def released(self, pages: Iterable[int]) -> None:
        """The secure world gave these up."""
        self._move(pages, RecallState.SCRUBBING)

    def returned(self, pages: Iterable[int]) -> None:
        """These are the OS's again."""
        self._move(pages, RecallState.NORMAL)

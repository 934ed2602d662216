"""Memory pressure: a program of the normal world that wants its memory now."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ..monitor.layout import Extent
from .flexmem import Recalled
from .system import NormalOs

__all__ = ["PressureSource", "RecallBy"]


class RecallBy(Enum):
    """How the OS takes pages back."""

    SIZE = "size"
    """Any pages, the secure world's choice."""
    RANGE = "range"
    """These pages, within the grace period."""
    BOTH = "both"
    """Three quarters by size, then the rest by range."""


@dataclass
class PressureSource:
    """Takes lent pages back for another program, and gives them up again.

    While the program holds them, the OS lends no more than is lent then. ``recalls`` keeps what each recall did.
    """

    os: NormalOs
    by: RecallBy = RecallBy.BOTH
    held: list[int] = field(default_factory=list)
    recalls: list[Recalled] = field(default_factory=list)

    async def squeeze(self, pages: int) -> None:
        """Get ``pages`` pages out of what is lent. Not more than is lent can be had."""
        lent = len(self.os.flexmem.lent)
        if not 0 < pages <= lent:
            raise ValueError(f"Pages to take back must be 1 to {lent}, not {pages!r}")
        self.os.lend_limit = lent - pages
        by_range = {RecallBy.SIZE: 0, RecallBy.RANGE: pages, RecallBy.BOTH: pages // 4}[self.by]
        if pages > by_range:
            self._note(await self.os.flexmem.recall_size(pages - by_range))
        while by_range:
            extent = self._next_extent(by_range)
            self._note(await self.os.flexmem.recall_range(extent))
            by_range -= extent.count

    def _next_extent(self, pages: int) -> Extent:
        """The highest run of lent pages, cut to size: where the OS would compact memory from."""
        run = self.os.lent_extents()[-1]
        count = min(pages, run.count)
        return Extent(run.end - count, count)

    def _note(self, recall: Recalled) -> None:
        self.held += recall.pages
        self.recalls.append(recall)

    def ease(self) -> None:
        """The program ends: its pages are free again and the OS lends as before."""
        for page in self.held:
            self.os.window.give(Extent(page, 1))
        self.held.clear()
        self.os.lend_limit = self.os.layout.lendable.count

    def as_json(self) -> list[dict[str, Any]]:
        """What each recall did."""
        return [
            {
                "by": "size" if recall.range is None else "range",
                "pages": len(recall.pages),
                "begin": recall.begin,
                "end": recall.end,
                "latency_cycles": recall.latency,
            }
            for recall in self.recalls
        ]

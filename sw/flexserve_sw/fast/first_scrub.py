"""The scrub of a whole window when it is enabled: nobody can access a page before it is over, so it is one event."""

from __future__ import annotations

from ..machine import PAGE_BYTES
from ..recall import RecallTable
from ..regs import RecallState
from .memory import Dram

__all__ = ["FirstScrub"]


class FirstScrub:
    """Zeroes the pages of ``table``, which exist and are SCRUBBING, one after the other from ``now`` on.

    It is over at cycle ``end``. Whoever looks at a state before lets it catch up.
    """

    def __init__(self, table: RecallTable, dram: Dram, now: int) -> None:
        self._table, self._dram = table, dram
        begin, latency = max(now, dram.writes.free), dram.writes.latency
        self._each = dram.writes.clear(begin, PAGE_BYTES) - begin
        self._answered = begin + latency
        dram.writes.take_until(begin + table.count * self._each, table.count * PAGE_BYTES)
        self.end = dram.writes.free + latency
        self._done = 0

    def catch_up(self, now: int) -> None:
        """Zero the pages whose turn has come."""
        done = min(self._table.count, max(0, (now - self._answered) // self._each))
        count, self._done = done - self._done, done
        if count:
            first = done - count
            self._dram.clear((self._table.base + first) * PAGE_BYTES, count * PAGE_BYTES)
            self._table.states[first:done] = [RecallState.NORMAL] * count

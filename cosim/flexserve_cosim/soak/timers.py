"""Reads of the grace periods' timers, judged by the golden table."""

from __future__ import annotations

from flexserve_sw.recall import RecallTable, Timer
from flexserve_sw.regs import FLEX_SECURE

__all__ = ["TimerReads"]

_SETTLED = 64
"""Cycles after a change in which a timer may still show what was before."""
_SLACK = 8
"""Cycles between a RECALL's first page and the start of its timer, and between a read and its value."""

_COUNT, _FIRST, _LEFT = "COUNT", "FIRST", "LEFT"


class TimerReads:
    """Reads of the timers' registers, held against the timers that run. Which timer has which range is not fixed.

    ``line``: cycles that a word of the table may take to arrive. ``stirred`` is the cycle in which a timer last started
    or ended.
    """

    def __init__(self, timers: int, *, line: int) -> None:
        self.stirred = 0
        self._line = line
        self._counts: dict[int, tuple[int, int]] = {}
        self._registers = {
            getattr(timer, name): (number, name)
            for number, timer in enumerate(FLEX_SECURE.TIMER[:timers])
            for name in (_COUNT, _FIRST, _LEFT)
        }

    def wrong(self, taken: int, address: int, data: int, golden: RecallTable) -> str | None:
        """What is wrong with a read; None if nothing is, or if it is none of a timer or too early to say."""
        if address not in self._registers or taken - self.stirred < _SETTLED + self._line:
            return None
        number, name = self._registers[address]
        if name == _COUNT:
            return self._count(taken, number, data, golden.running)
        at, count = self._counts.get(number, (0, 0))
        if at - self.stirred < _SETTLED + self._line:
            return None
        # COUNT tells which timer it is; a free one shows zeros.
        mine = [timer for timer in golden.running if timer.count == count]
        if any(self._shows(timer, name, taken, data) for timer in mine) or (count == 0 and data == 0):
            return None
        return f"timer {number} of {count} pages shows {name} {data:#x}, but these run: {golden.running}"

    def _shows(self, timer: Timer, name: str, taken: int, data: int) -> bool:
        if name == _FIRST:
            return timer.first == data
        # One that ran out waits for its turn at the table.
        return abs(max(timer.deadline - taken, 0) - data) <= _SLACK + self._line

    def _count(self, taken: int, number: int, data: int, running: list[Timer]) -> str | None:
        self._counts[number] = taken, data
        fresh = [count for at, count in self._counts.values() if at - self.stirred >= _SETTLED + self._line]
        if len(fresh) < len(self._registers) // 3:
            return None
        shown, expected = sorted(filter(None, fresh)), sorted(timer.count for timer in running)
        return None if shown == expected else f"timers show ranges of {shown} pages, but of {expected} run"

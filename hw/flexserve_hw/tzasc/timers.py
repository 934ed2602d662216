"""Grace periods of recalled ranges."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from flexserve_hw.params import FlexMemParams

from .layouts import group_shift, page_index_width, word_width
from .states import popcount

__all__ = ["RecallTimers", "range_mask", "range_layout"]


def range_layout(params: FlexMemParams) -> data.StructLayout:
    """Pages ``first`` to ``last`` of the window, both inclusive."""
    index = page_index_width(params)
    return data.StructLayout({"first": index, "last": index})


def range_mask(params: FlexMemParams, pages, word):
    """One bit per page of table word ``word``: it lies in range ``pages``."""
    shift, group = group_shift(params), params.group
    every = (1 << group) - 1
    above = Mux((pages.first >> shift) == word, (every << pages.first[:shift])[:group] if shift else 1, every)
    below = Mux((pages.last >> shift) == word, ((2 << pages.last[:shift]) - 1)[:group] if shift else 1, every)
    within = ((pages.first >> shift) <= word) & (word <= (pages.last >> shift))
    return Mux(within, above & below, 0)


class RecallTimers(wiring.Component):
    """Count down the grace period of each recalled range.

    Ranges of running timers do not overlap, and every page in RECALLING lies in one of them. A timer whose pages have
    all left RECALLING is free again; one that runs out asks for its expiry and is freed when that is done.

    Parameters
    ----------
    params : FlexMemParams

    Members
    -------
    grace : In
        Cycles that a timer starts with.
    range : In, start : In(1)
        A timer starts over ``range``; only while ``free``.
    free : Out(1)
        A timer is free and none runs over part of ``range``.
    left_word : In, left_pages : In
        Pages of a table word that leave RECALLING in this cycle.
    due : Out(1), due_range : Out
        A grace period has run out.
    ended : In(1)
        The expiry of ``due_range`` is done; the timer is free from the next cycle on.
    expiring : In(1)
        The expiry has begun: ``due_range`` keeps still.
    running, ranges, left : Out, one per timer
        For software to read.

    Latency and ordering
    --------------------
    ``due`` rises ``grace`` cycles after ``start``.
    """

    def __init__(self, *, params: FlexMemParams):
        self._params = params
        pages = range_layout(params)
        super().__init__(
            {
                "grace": In(params.grace_width),
                "range": In(pages),
                "start": In(1),
                "free": Out(1),
                "left_word": In(word_width(params)),
                "left_pages": In(params.group),
                "due": Out(1),
                "due_range": Out(pages),
                "expiring": In(1),
                "ended": In(1),
                "running": Out(1).array(params.timers),
                "ranges": Out(pages).array(params.timers),
                "left": Out(params.grace_width).array(params.timers),
            }
        )

    def elaborate(self, platform):
        m = Module()
        params = self._params
        slot = Signal(range(params.timers))
        due = Signal(range(params.timers))
        chosen = Signal(range(params.timers))
        vacant, overlaps = 0, 0
        for n in reversed(range(params.timers)):
            with m.If(~self.running[n]):
                m.d.comb += slot.eq(n)
            with m.If(self.running[n] & (self.left[n] == 0)):
                m.d.comb += [self.due.eq(1), due.eq(n)]
            vacant = vacant | ~self.running[n]
            overlaps = overlaps | (
                self.running[n] & (self.range.first <= self.ranges[n].last) & (self.ranges[n].first <= self.range.last)
            )
        m.d.comb += self.free.eq(vacant & ~overlaps)
        with m.If(~self.expiring):
            m.d.sync += chosen.eq(due)
        for n in range(params.timers):
            recalling = Signal(page_index_width(params) + 1, name=f"recalling{n}")
            leaving = Signal(params.group, name=f"leaving{n}")
            m.d.comb += leaving.eq(self.left_pages & range_mask(params, self.ranges[n], self.left_word))
            now = Signal.like(recalling, name=f"now{n}")
            m.d.comb += now.eq(recalling - popcount(m, leaving, name=f"leaving{n}"))
            with m.If(self.running[n]):
                m.d.sync += recalling.eq(now)
                with m.If(self.left[n] != 0):
                    m.d.sync += self.left[n].eq(self.left[n] - 1)
                with m.If((now == 0) | (self.ended & (chosen == n))):
                    m.d.sync += [self.running[n].eq(0), self.left[n].eq(0)]
            with m.If(self.start & (slot == n)):
                m.d.sync += [
                    self.running[n].eq(1),
                    self.ranges[n].eq(self.range),
                    self.left[n].eq(self.grace),
                    recalling.eq(self.range.last - self.range.first + 1),
                ]
        pick = Mux(self.expiring, chosen, due)
        with m.Switch(pick):
            for n in range(params.timers):
                with m.Case(n):
                    m.d.comb += self.due_range.eq(self.ranges[n])
        return m

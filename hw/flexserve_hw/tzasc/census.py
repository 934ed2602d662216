"""How many pages are lent, and how many wait to be scrubbed."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from flexserve_hw.params import FlexMemParams
from flexserve_hw.regs.enums import RecallState

from .layouts import page_index_width
from .states import popcount

__all__ = ["Census"]


class Census(wiring.Component):
    """Keep count of the table's pages from what is written to it.

    A page whose stored state was upset stays counted where it was: it never leaves that state in order.

    Parameters
    ----------
    params : FlexMemParams

    Members
    -------
    written : In, target : In
        Pages of a word that take state ``target`` in this cycle.
    lent_before : In
        Which of them were in FLEX or RECALLING.
    scrubbed : In(1)
        They were in SCRUBBING. Sampled with ``written``.
    lent : Out, backlog : Out
        Pages in FLEX or RECALLING; pages in SCRUBBING.

    Latency and ordering
    --------------------
    Counts follow the writes by a cycle.
    """

    def __init__(self, *, params: FlexMemParams):
        self._group = params.group
        width = page_index_width(params) + 1
        super().__init__(
            {
                "written": In(params.group),
                "target": In(RecallState),
                "lent_before": In(params.group),
                "scrubbed": In(1),
                "lent": Out(width),
                "backlog": Out(width),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lent_after = (self.target == RecallState.FLEX) | (self.target == RecallState.RECALLING)
        written = Signal(range(self._group + 1))
        unlent = Signal(range(self._group + 1))
        m.d.comb += [
            written.eq(popcount(m, self.written, name="written")),
            unlent.eq(popcount(m, self.written & self.lent_before, name="unlent")),
        ]
        m.d.sync += [
            self.lent.eq(self.lent - unlent + Mux(lent_after, written, 0)),
            self.backlog.eq(
                self.backlog + Mux(self.target == RecallState.SCRUBBING, written, 0) - Mux(self.scrubbed, written, 0)
            ),
        ]
        return m

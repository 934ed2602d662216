"""The queue of freed pages, and what a recall by size still owes."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import fifo, wiring
from amaranth.lib.wiring import In, Out

from flexserve_hw.params import FlexMemParams

from .layouts import pfn_width

__all__ = ["FreedQueue"]


class FreedQueue(wiring.Component):
    """Report pages that came back, and count them against a recall by size.

    Parameters
    ----------
    params : FlexMemParams

    Members
    -------
    push : In(1), push_pfn : In
        A page is NORMAL again. The scrubber starts no page that might find the queue full.
    pop : In(1)
        The page at the head is taken; ignored when there is none.
    valid : Out(1), pfn : Out
        The head.
    count : Out
        Pages in the queue.
    request : In(1), request_pages : In(32)
        So many pages more are owed; the sum stops at ``2**32 - 1``.
    owed : Out(32)
        Pages owed.
    arrived : Out(1), paid : Out(1)
        The queue stops being empty; the last page owed is paid.

    Latency and ordering
    --------------------
    A pushed page is at the head, at the earliest, in the cycle after.
    """

    def __init__(self, *, params: FlexMemParams):
        self._depth = params.freed_depth
        width = pfn_width(params)
        super().__init__(
            {
                "push": In(1),
                "push_pfn": In(width),
                "pop": In(1),
                "valid": Out(1),
                "pfn": Out(width),
                "count": Out(range(params.freed_depth + 1)),
                "request": In(1),
                "request_pages": In(32),
                "owed": Out(32),
                "arrived": Out(1),
                "paid": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = fifo.SyncFIFO(width=len(self.pfn), depth=self._depth)
        m.d.comb += [
            queue.w_en.eq(self.push),
            queue.w_data.eq(self.push_pfn),
            queue.r_en.eq(self.pop),
            self.valid.eq(queue.r_rdy),
            self.pfn.eq(Mux(queue.r_rdy, queue.r_data, 0)),
            self.count.eq(queue.level),
            self.arrived.eq(self.push & (queue.level == 0)),
        ]
        due, rest = Signal(33), Signal(33)
        m.d.comb += [
            due.eq(self.owed + Mux(self.request, self.request_pages, 0)),
            rest.eq(due - (self.push & (due != 0))),
            self.paid.eq(self.push & (due == 1)),
        ]
        m.d.sync += self.owed.eq(Mux(rest[32], (1 << 32) - 1, rest[:32]))
        return m

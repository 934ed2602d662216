"""Evidence: the first violation is kept, later ones are counted."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from flexserve_hw.params import FlexMemParams

from .layouts import violation_layout

__all__ = ["FailRecord"]

_COUNT_WIDTH = 32


class FailRecord(wiring.Component):
    """Hold the first violation since the last clear, and count all since reset.

    Parameters
    ----------
    params : FlexMemParams

    Members
    -------
    deny : In(1).array(2), violation : In.array(2)
        Denied reads and writes. If one of each comes in the same cycle, the read is the first.
    clear : In(1)
        Forget the record. A violation in the same cycle is the first of the next one.
    status, overrun, overlap : Out(1)
        A violation is recorded; more followed it; one of them hit regions that overlap.
    first, write : Out
        The recorded violation, and whether it was a write. Kept after ``clear`` until the next one.
    count : Out(32)
        Violations since reset; stops at ``2**32 - 1``.

    Latency and ordering
    --------------------
    Outputs change in the cycle after the violation.
    """

    def __init__(self, *, params: FlexMemParams):
        violation = violation_layout(params)
        super().__init__(
            {
                "deny": In(1).array(2),
                "violation": In(violation).array(2),
                "clear": In(1),
                "status": Out(1),
                "overrun": Out(1),
                "overlap": Out(1),
                "first": Out(violation),
                "write": Out(1),
                "count": Out(_COUNT_WIDTH),
            }
        )

    def elaborate(self, platform):
        m = Module()
        read, write = self.deny
        some, both = read | write, read & write
        fresh = self.clear | ~self.status
        overlap = (read & self.violation[0].overlap) | (write & self.violation[1].overlap)
        with m.If(some & fresh):
            m.d.sync += [self.first.eq(Mux(read, self.violation[0], self.violation[1])), self.write.eq(~read)]
        m.d.sync += [
            self.status.eq((self.status & ~self.clear) | some),
            self.overrun.eq((self.overrun & ~self.clear) | both | (some & ~fresh)),
            self.overlap.eq((self.overlap & ~self.clear) | overlap),
        ]
        total = Signal(_COUNT_WIDTH + 1)
        m.d.comb += total.eq(self.count + read + write)
        m.d.sync += self.count.eq(Mux(total[-1], (1 << _COUNT_WIDTH) - 1, total[:-1]))
        return m

"""The flexible window: taken over once, when the secure world enables it."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from flexserve_hw.params import FlexMemParams

from .layouts import pfn_width, window_layout
from .line import memory_pages

__all__ = ["Window"]


class Window(wiring.Component):
    """Check and latch the window, and follow its initialisation.

    A window that is empty, larger than the table, not a whole number of table words or not within the address space
    is never taken over: nothing becomes ready. If the table lies in memory, neither is one that overlaps it, or whose
    table is not aligned to its size or not within the address space.

    The window is stored twice, as it is and complemented. An upset of either copy is seen in the cycle in which it is
    there, so that no page drops out of its protection with a bit of the window.

    Parameters
    ----------
    params : FlexMemParams

    Attributes
    ----------
    stored, complement : Signal
        The two copies, for tests that upset their bits.

    Members
    -------
    enable : In(1), base : In(32), pages : In(32), table : In(32)
        Configuration, sampled in the first cycle in which ``enable`` is high; ``table`` is ignored if that is on chip.
    written : In(1)
        The last table word of the window is written in this cycle.
    scrubbed : In(1)
        No page of the window is in SCRUBBING.
    window : Out
        The window; all zero before it is latched. ``corrupt`` from an upset until the next reset.
    upset : Out(1)
        ``window.corrupt`` has risen.
    initialise : Out(1)
        The table is to be written. High from the latching until ``written``.
    ready : Out(1)
        Every page of the window was zeroed.

    Latency and ordering
    --------------------
    ``window`` follows ``enable`` by a cycle, ``window.initialised`` follows ``written`` by one.
    """

    def __init__(self, *, params: FlexMemParams):
        self._params = params
        stored = data.StructLayout({name: f.shape for name, f in window_layout(params) if name != "corrupt"})
        # Kept: a netlist in which one copy is made from the other would hold the same bit twice, not its check.
        self.stored = Signal(stored, attrs={"keep": "true"})
        self.complement = Signal(stored.size, init=(1 << stored.size) - 1, attrs={"keep": "true"})
        super().__init__(
            {
                "enable": In(1),
                "base": In(32),
                "pages": In(32),
                "table": In(32),
                "written": In(1),
                "scrubbed": In(1),
                "window": Out(window_layout(params)),
                "upset": Out(1),
                "initialise": Out(1),
                "ready": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        params = self._params
        seen = Signal()
        sound = (
            (self.pages != 0)
            & (self.pages <= params.pages)
            & ((self.base | self.pages) & (params.group - 1) == 0)
            & (self.base + self.pages <= 1 << pfn_width(params))
        )
        configured = {"base": self.base, "pages": self.pages}
        if params.cache_lines is not None:
            size = memory_pages(params)
            apart = (self.table + size <= self.base) | (self.base + self.pages <= self.table)
            sound = sound & (self.table & (size - 1) == 0) & (self.table + size <= 1 << pfn_width(params)) & apart
            configured["table"] = self.table
        stored, complement = self.stored, data.View(self.stored.shape(), self.complement)
        was_corrupt = Signal()
        m.d.comb += [
            *(self.window[name].eq(stored[name]) for name, _ in stored.shape()),
            self.window.corrupt.eq(stored.as_value() != ~self.complement),
            self.upset.eq(self.window.corrupt & ~was_corrupt),
        ]
        m.d.sync += was_corrupt.eq(self.window.corrupt)
        with m.If(self.enable & ~seen):
            m.d.sync += seen.eq(1)
            with m.If(sound):
                m.d.sync += self.initialise.eq(1)
                for name, value in configured.items():
                    m.d.sync += [stored[name].eq(value), complement[name].eq(~value)]
        with m.If(self.initialise & self.written):
            m.d.sync += [self.initialise.eq(0), stored.initialised.eq(1), complement.initialised.eq(0)]
        with m.If(stored.initialised & ~self.window.corrupt & self.scrubbed):
            m.d.sync += self.ready.eq(1)
        return m

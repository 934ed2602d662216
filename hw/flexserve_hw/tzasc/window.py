"""The flexible window: taken over once, when the secure world enables it."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from flexserve_hw.params import FlexMemParams

from .layouts import pfn_width, window_layout

__all__ = ["Window"]


class Window(wiring.Component):
    """Check and latch the window, and follow its initialisation.

    A window that is empty, larger than the table, not a whole number of table words or not within the address space
    is never taken over: nothing becomes ready.

    Parameters
    ----------
    params : FlexMemParams

    Members
    -------
    enable : In(1), base : In(32), pages : In(32)
        Configuration, sampled in the first cycle in which ``enable`` is high.
    written : In(1)
        The last table word of the window is written in this cycle.
    scrubbed : In(1)
        No page of the window is in SCRUBBING.
    window : Out
        The window; all zero before it is latched.
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
        super().__init__(
            {
                "enable": In(1),
                "base": In(32),
                "pages": In(32),
                "written": In(1),
                "scrubbed": In(1),
                "window": Out(window_layout(params)),
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
        with m.If(self.enable & ~seen):
            m.d.sync += seen.eq(1)
            with m.If(sound):
                m.d.sync += [
                    self.window.base.eq(self.base),
                    self.window.pages.eq(self.pages),
                    self.initialise.eq(1),
                ]
        with m.If(self.initialise & self.written):
            m.d.sync += [self.initialise.eq(0), self.window.initialised.eq(1)]
        with m.If(self.window.initialised & self.scrubbed):
            m.d.sync += self.ready.eq(1)
        return m

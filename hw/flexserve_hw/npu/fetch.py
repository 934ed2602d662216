"""Descriptor fetch: reads a job's list ahead of the dispatcher."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..params import NpuParams
from .dma import BeatQueue, BurstWalker, burst

__all__ = ["FETCHED_AHEAD", "FetchUnit"]

_MOST = 8
"""Beats of the longest fetch burst: four descriptors."""

FETCHED_AHEAD = 64
"""Beats fetched ahead: most lists whole, before the data that their loads ask for stand in their way."""


class FetchUnit(wiring.Component):
    """Streams the beats of a descriptor list.

    Parameters
    ----------
    params : NpuParams

    Members
    -------
    start : In(1), addr, count : In
        Begin with ``count`` descriptors at ``addr``; only when idle.
    ar : Out(stream(burst)), r : In(stream)
        Requests and beats.
    beats : Out(stream)
        128 bits, and on top whether they failed to come.
    stop : In(1)
        Request nothing more.
    quiet : Out(1)
        Every request is answered.
    scrub, scrub_addr : In
        As for :class:`~flexserve_hw.npu.scratchpad.Scratchpad`.

    Latency and ordering
    --------------------
    A request is made only when there is room for its beats, so ``r`` never waits. Beats past the end of the address
    space are not requested: they have failed once everything before them has come.
    """

    def __init__(self, *, params: NpuParams):
        self._params = params
        width = params.bus.addr_width
        super().__init__(
            {
                "start": In(1),
                "addr": In(width),
                "count": In(16),
                "ar": Out(stream.Signature(burst(width))),
                "r": In(stream.Signature(data.StructLayout({"data": 128, "error": 1, "last": 1}))),
                "beats": Out(stream.Signature(129)),
                "stop": In(1),
                "quiet": Out(1),
                "scrub": In(1),
                "scrub_addr": In(range(FETCHED_AHEAD)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.walker = walker = BurstWalker(addr_width=self._params.bus.addr_width, most=_MOST)
        m.submodules.queue = queue = BeatQueue(width=129, depth=FETCHED_AHEAD)
        wiring.connect(m, queue.o, wiring.flipped(self.beats))
        room = Signal(range(FETCHED_AHEAD + 1), init=FETCHED_AHEAD)
        outstanding = Signal(range(FETCHED_AHEAD + 1))
        waiting = Signal()
        issue = Signal()
        refuse = Signal()
        bursts = walker.bursts
        m.d.comb += [
            walker.rows.valid.eq(self.start),
            walker.rows.payload.addr.eq(self.addr),
            walker.rows.payload.rows.eq(1),
            walker.rows.payload.beats.eq(self.count << 1),
            issue.eq(
                bursts.valid
                & ~bursts.payload.beyond
                & ~self.stop
                & (room >= bursts.payload.beats)
                & (~waiting | self.ar.ready)
            ),
            refuse.eq(bursts.valid & bursts.payload.beyond & ~self.stop & (room != 0) & self.quiet),
            bursts.ready.eq(issue),
            self.ar.valid.eq(waiting),
            self.quiet.eq(~waiting & (outstanding == 0)),
            queue.i.valid.eq(self.r.valid | refuse),
            queue.i.payload.eq(self.r.payload.data | ((self.r.payload.error | refuse) << 128)),
            self.r.ready.eq(1),
            queue.scrub.eq(self.scrub),
            queue.scrub_addr.eq(self.scrub_addr),
        ]
        with m.If(issue):
            m.d.sync += [waiting.eq(1), self.ar.payload.eq(bursts.payload)]
        with m.Elif(self.ar.ready):
            m.d.sync += waiting.eq(0)
        popped = queue.o.valid & queue.o.ready
        m.d.sync += [
            room.eq(room + popped - Mux(issue, bursts.payload.beats, refuse)),
            outstanding.eq(outstanding + issue - (self.r.valid & self.r.payload.last)),
        ]
        return m

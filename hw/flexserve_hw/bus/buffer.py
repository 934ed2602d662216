"""Elastic buffers for streams."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.data import ArrayLayout
from amaranth.lib.wiring import In, Out

__all__ = ["BypassBuffer", "StreamBuffer", "StreamQueue"]


class StreamBuffer(wiring.Component):
    """Register slice: cuts ``valid``, ``payload`` and ``ready`` paths, at full throughput.

    Parameters
    ----------
    shape : ShapeLike
        Payload.

    Members
    -------
    i : In(stream), o : Out(stream)
        Two payloads fit: one in the output register, one aside for the cycle in which ``o`` stalls.

    Latency and ordering
    --------------------
    One cycle; order is kept; no combinational path between the two sides.
    """

    def __init__(self, *, shape):
        self._shape = shape
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        aside, full = Signal(self._shape), Signal()
        m.d.comb += self.i.ready.eq(~full)
        with m.If(self.o.ready | ~self.o.valid):
            m.d.sync += [
                self.o.valid.eq(self.i.valid | full),
                self.o.payload.eq(Mux(full, aside, self.i.payload)),
                full.eq(0),
            ]
        with m.Elif(self.i.valid & self.i.ready):
            m.d.sync += [aside.eq(self.i.payload), full.eq(1)]
        return m


class BypassBuffer(wiring.Component):
    """Place for one payload that ``o`` doesn't take at once: cuts the ``ready`` path and costs no cycle.

    Parameters
    ----------
    shape : ShapeLike
        Payload.

    Members
    -------
    i : In(stream), o : Out(stream)
        ``i.ready`` depends on the buffer alone, never on ``o.ready``. What ``i`` offers while it is ready is taken.

    Latency and ordering
    --------------------
    None: ``o`` shows ``i`` combinationally while the buffer is empty. Order is kept; ``o`` never waits for ``i.ready``,
    so that it goes on at full throughput after a stall.
    """

    def __init__(self, *, shape):
        self._shape = shape
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        aside, full = Signal(self._shape), Signal()
        m.d.comb += [
            self.i.ready.eq(~full),
            self.o.valid.eq(full | self.i.valid),
            self.o.payload.eq(Mux(full, aside, self.i.payload)),
        ]
        with m.If(self.o.ready):
            m.d.sync += full.eq(0)
        with m.Elif(self.i.valid & ~full):
            m.d.sync += [aside.eq(self.i.payload), full.eq(1)]
        return m


class StreamQueue(wiring.Component):
    """Small queue in registers.

    Parameters
    ----------
    shape : ShapeLike
        Payload.
    depth : int
        Entries, a power of two of at least 2.

    Members
    -------
    i : In(stream), o : Out(stream)
        ``i.ready`` and ``o.valid`` depend on the fill level alone.

    Latency and ordering
    --------------------
    One cycle, full throughput, first in first out.
    """

    def __init__(self, *, shape, depth: int):
        if depth < 2 or depth & (depth - 1):
            raise ValueError(f"Queue depth must be a power of two of at least 2, not {depth!r}")
        self._shape = shape
        self._depth = depth
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        entries = Signal(ArrayLayout(self._shape, self._depth))
        head, tail = Signal(range(self._depth)), Signal(range(self._depth))
        level = Signal(range(self._depth + 1))
        push, pop = self.i.valid & self.i.ready, self.o.valid & self.o.ready
        m.d.comb += [
            self.i.ready.eq(level != self._depth),
            self.o.valid.eq(level != 0),
            self.o.payload.eq(entries[head]),
        ]
        with m.If(push):
            with m.Switch(tail):
                for index in range(self._depth):
                    with m.Case(index):
                        m.d.sync += entries[index].eq(self.i.payload)
            m.d.sync += tail.eq(tail + 1)
        with m.If(pop):
            m.d.sync += head.eq(head + 1)
        m.d.sync += level.eq(level + push - pop)
        return m

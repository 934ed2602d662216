"""Writes lines of the page-state table to memory."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from flexserve_hw.bus.axi4 import Resp
from flexserve_hw.params import FlexMemParams

from .fetch import line_address, line_request
from .layouts import pfn_width, word_width
from .line import CHECK_WIDTH, check_of, line_beats, line_of, memory_signature
from .states import CODE_WIDTH

__all__ = ["LineWriter"]

_AHEAD = 4
"""Writes that may wait for their answers."""


class LineWriter(wiring.Component):
    """Write table words through to memory, and know which of them are not there yet.

    Parameters
    ----------
    params : FlexMemParams

    Members
    -------
    base : In
        First page of the table; sampled when a word is taken.
    i : In(stream)
        Words to write: ``word`` and ``states``.
    asked : In, pending : Out(1)
        Whether a write of word ``asked`` has been taken and is not answered.
    failed : Out(1), failed_word : Out
        A write was answered with an error: memory may hold the word's old states under a check that fits.
    aw : Out(stream), w : Out(stream), b : In(stream)
        Memory.

    Latency and ordering
    --------------------
    A line goes out from the cycle after it is taken, a beat per cycle, its address beside its first beat; the next may
    be taken with the last beat. Lines are written in order.
    """

    def __init__(self, *, params: FlexMemParams):
        self._params = params
        shape = memory_signature(params).shape
        super().__init__(
            {
                "base": In(pfn_width(params)),
                "i": In(stream.Signature(_word_layout(params))),
                "asked": In(word_width(params)),
                "pending": Out(1),
                "failed": Out(1),
                "failed_word": Out(word_width(params)),
                "aw": Out(stream.Signature(shape.address)),
                "w": Out(stream.Signature(shape.write_data)),
                "b": In(stream.Signature(shape.write_response)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        params = self._params
        check = Signal(CHECK_WIDTH)
        beats = line_beats(params)
        # Held, so that it keeps to AXI, and no line goes astray, when the window is found corrupt.
        address = Signal(params.bus.addr_width)
        states = Signal(params.group * CODE_WIDTH)
        beat = Signal(range(beats))
        ending = Signal()
        # A ring of writes that are not answered; answers to one ID come in order.
        waiting = [Signal(name=f"waiting{n}") for n in range(_AHEAD)]
        words = [Signal(word_width(params), name=f"word{n}") for n in range(_AHEAD)]
        head = Signal(range(_AHEAD))
        tail = Signal(range(_AHEAD))
        taken = Signal()
        full = Signal()
        m.d.comb += [
            full.eq(Cat(*waiting).all()),
            ending.eq((~self.aw.valid | self.aw.ready) & (~self.w.valid | (self.w.ready & self.w.payload.last))),
            self.i.ready.eq(ending & ~full),
            taken.eq(self.i.valid & self.i.ready),
            *line_request(self.aw.payload, address, params=params),
            self.w.payload.data.eq(line_of(states, check, params=params).word_select(beat, params.bus.data_width)),
            self.w.payload.strb.eq(~0),
            self.w.payload.last.eq(beat == beats - 1),
            self.b.ready.eq(1),
            self.failed.eq(self.b.valid & (self.b.payload.resp != Resp.OKAY)),
        ]
        with m.If(self.aw.ready):
            m.d.sync += self.aw.valid.eq(0)
        with m.If(self.w.valid & self.w.ready):
            m.d.sync += [beat.eq(beat + 1), self.w.valid.eq(~self.w.payload.last)]
        with m.If(taken):
            m.d.sync += [
                address.eq(line_address(self.base, self.i.payload.word, params=params)),
                states.eq(self.i.payload.states),
                check.eq(check_of(self.i.payload.states, self.i.payload.word)),
                beat.eq(0),
                self.aw.valid.eq(1),
                self.w.valid.eq(1),
                tail.eq(tail + 1),
            ]
        with m.If(self.b.valid):
            m.d.sync += head.eq(head + 1)
        pending = 0
        for n in range(_AHEAD):
            with m.If(self.b.valid & (head == n)):
                m.d.comb += self.failed_word.eq(words[n])
                m.d.sync += waiting[n].eq(0)
            with m.If(taken & (tail == n)):
                m.d.sync += [waiting[n].eq(1), words[n].eq(self.i.payload.word)]
            pending = pending | (waiting[n] & (words[n] == self.asked))
        m.d.comb += self.pending.eq(pending)
        return m


def _word_layout(params: FlexMemParams) -> data.StructLayout:
    return data.StructLayout({"word": word_width(params), "states": params.group * CODE_WIDTH})

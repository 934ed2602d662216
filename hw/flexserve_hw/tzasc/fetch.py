"""Fetches lines of the page-state table from memory and checks them."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from flexserve_hw.bus.axi4 import Burst, Resp
from flexserve_hw.params import FlexMemParams

from .layouts import pfn_width, word_width
from .line import CHECK_WIDTH, PORTS, check_of, line_beats, line_bytes, line_of, memory_signature
from .states import CODE_WIDTH

__all__ = ["BANK_WIDTH", "LineFetch", "line_address", "line_request"]


BANK_WIDTH = 2
"""Bits of a number of a bank of the cache."""


def line_address(base, word, *, params: FlexMemParams):
    """Byte address of line ``word`` of a table at page ``base``, which is aligned to the table's size."""
    return (base << 12) | (word << exact_log2(line_bytes(params)))


def line_request(payload, address, *, params: FlexMemParams) -> list:
    """Statements that fill in an address payload for the line at ``address``: secure, one burst."""
    return [
        payload.addr.eq(address),
        payload.len.eq(line_beats(params) - 1),
        payload.size.eq(exact_log2(params.bus.data_width // 8)),
        payload.burst.eq(Burst.INCR),
    ]


class LineFetch(wiring.Component):
    """Fetch the words that the read ports wait for, one after the other, in turn.

    Parameters
    ----------
    params : FlexMemParams

    Members
    -------
    base : In
        First page of the table; sampled when a line is chosen.
    want : In(1).array, word : In.array, bank : In.array
        Words that are waited for, one per read port, and for which bank of the cache.
    written : In(1), written_word : In
        A word gets new contents in this cycle.
    asked : Out, pending : In(1)
        Word that would be fetched next; whether a write of it is on the way, which the fetch must not overtake.
    done : Out(1), taken : In(1), fetched : Out, fetched_bank : Out, states : Out, bad : Out(1)
        A word is there, for the bank of who asked, or could not be had: an error answer, or a line that fails its
        check. Held until ``taken``.
        A word that got new contents meanwhile is dropped: whoever waited has them.
    ar : Out(stream), r : In(stream)
        Memory. ``r.ready`` is high whenever a line is under way.

    Latency and ordering
    --------------------
    One line at a time: three cycles, those of its beats and those of memory.
    """

    def __init__(self, *, params: FlexMemParams):
        self._params = params
        shape = memory_signature(params).shape
        super().__init__(
            {
                "base": In(pfn_width(params)),
                "want": In(1).array(len(PORTS)),
                "word": In(word_width(params)).array(len(PORTS)),
                "bank": In(BANK_WIDTH).array(len(PORTS)),
                "written": In(1),
                "written_word": In(word_width(params)),
                "asked": Out(word_width(params)),
                "pending": In(1),
                "done": Out(1),
                "taken": In(1),
                "fetched": Out(word_width(params)),
                "fetched_bank": Out(BANK_WIDTH),
                "states": Out(params.group * CODE_WIDTH),
                "bad": Out(1),
                "ar": Out(stream.Signature(shape.address)),
                "r": In(stream.Signature(shape.read_data)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        params = self._params
        check = Signal(CHECK_WIDTH)
        beats, width = line_beats(params), params.bus.data_width
        line = Signal(beats * width)
        beat = Signal(range(beats))
        # Held, so that it keeps to AXI when the window that it comes from is found corrupt.
        address = Signal(params.bus.addr_width)
        failed = Signal()
        stale = Signal()
        turn = Signal(range(len(PORTS)))
        after = Signal.like(turn)
        asked_bank = Signal(BANK_WIDTH)
        m.d.comb += [
            self.states.eq(line[: len(self.states)]),
            self.bad.eq(failed | (line != line_of(self.states, check, params=params))),
            *line_request(self.ar.payload, address, params=params),
        ]
        # Round robin: the first port from `turn` on that waits.
        for at in reversed(range(2 * len(PORTS))):
            port = at % len(PORTS)
            with m.If(self.want[port] & ((at >= len(PORTS)) | (turn <= port))):
                m.d.comb += [
                    self.asked.eq(self.word[port]),
                    asked_bank.eq(self.bank[port]),
                    after.eq((port + 1) % len(PORTS)),
                ]
        waited = Cat(*self.want).any()
        with m.If(self.written & (self.written_word == self.fetched)):
            m.d.sync += stale.eq(1)
        with m.FSM(name="fetch"):
            with m.State("IDLE"):
                m.d.sync += [
                    self.fetched.eq(self.asked),
                    self.fetched_bank.eq(asked_bank),
                    address.eq(line_address(self.base, self.asked, params=params)),
                    stale.eq(0),
                    failed.eq(0),
                    beat.eq(0),
                ]
                with m.If(waited & ~self.pending & ~(self.written & (self.written_word == self.asked))):
                    m.d.sync += turn.eq(after)
                    m.next = "ASK"
            with m.State("ASK"):
                m.d.comb += self.ar.valid.eq(1)
                with m.If(self.ar.ready):
                    m.next = "LINE"
            with m.State("LINE"):
                m.d.comb += self.r.ready.eq(1)
                with m.If(self.r.valid):
                    m.d.sync += [
                        line.eq(Cat(line, self.r.payload.data)[width:]),
                        failed.eq(failed | (self.r.payload.resp != Resp.OKAY)),
                        beat.eq(beat + 1),
                    ]
                    with m.If(beat == beats - 1):
                        m.next = "CHECK"
            with m.State("CHECK"):
                m.d.sync += check.eq(check_of(self.states, self.fetched))
                m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.done.eq(~stale)
                with m.If(stale | self.taken):
                    m.next = "IDLE"
        return m

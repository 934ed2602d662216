"""In which order the scrubber looks at the words of the page-state table."""

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from flexserve_hw.params import FlexMemParams

from .layouts import table_words, word_width
from .states import first_set

__all__ = ["HintedWalk", "RoundWalk", "walk_members"]

_HINTS = 32
"""Hints that are looked at together."""


def walk_members(params: FlexMemParams) -> dict:
    """Members of a walk.

    seek : In(1)
        Words are wanted; low, the walk may stand still.
    last : In
        Last word of the window.
    entered : In(1), entered_word : In
        Pages of a word enter SCRUBBING in this cycle.
    valid : Out(1), word : Out
        Word to look at; it stays until ``next``.
    next : In(1), clean : In(1)
        Go on; no page of the word was in SCRUBBING. In a cycle with ``valid``.
    """
    return {
        "seek": In(1),
        "last": In(word_width(params)),
        "entered": In(1),
        "entered_word": In(word_width(params)),
        "valid": Out(1),
        "word": Out(word_width(params)),
        "next": In(1),
        "clean": In(1),
    }


class RoundWalk(wiring.Component):
    """All words of the window, round and round: for a table that is read in a cycle.

    Parameters
    ----------
    params : FlexMemParams

    Members
    -------
    All
        See :func:`walk_members`.

    Latency and ordering
    --------------------
    There is always a word.
    """

    def __init__(self, *, params: FlexMemParams):
        super().__init__(walk_members(params))

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.valid.eq(1)
        with m.If(self.next):
            m.d.sync += self.word.eq(Mux(self.word == self.last, 0, self.word + 1))
        return m


class HintedWalk(wiring.Component):
    """Words that may hold pages in SCRUBBING, round and round: for a table whose words must be fetched.

    One hint per word, set when pages of it enter SCRUBBING, cleared when the word is found clean. Hints only save time:
    after a round without any, the next goes over all words of the window, so that no page is lost with a hint.

    Parameters
    ----------
    params : FlexMemParams

    Attributes
    ----------
    hints : Memory
        For tests that upset its bits.

    Members
    -------
    All
        See :func:`walk_members`.

    Latency and ordering
    --------------------
    Two cycles per row of up to 32 hints, and one per hint that is set.
    """

    def __init__(self, *, params: FlexMemParams):
        words = table_words(params)
        self._width = min(_HINTS, words)
        # Two rows at least: a memory of one row has no address.
        self.hints = memory.Memory(shape=unsigned(self._width), depth=max(2, words // self._width), init=[])
        super().__init__(walk_members(params))

    def elaborate(self, platform):
        m = Module()
        m.submodules.hints = hints = self.hints
        shift = exact_log2(self._width)
        read, write = hints.read_port(), hints.write_port(granularity=1)
        row, done = Signal(range(hints.depth)), Signal(self._width)
        left, offset = Signal(self._width), Signal(shift)
        every, found = Signal(), Signal()
        clear = Signal()
        m.d.comb += [
            read.addr.eq(row),
            left.eq((read.data | every.replicate(self._width)) & ~done),
            offset.eq(first_set(m, left, name="left")),
            self.word.eq(Cat(offset, row)),
            clear.eq(self.valid & self.next & self.clean & ~self.entered),
            write.addr.eq(Mux(self.entered, self.entered_word, self.word) >> shift),
            write.data.eq(self.entered.replicate(self._width)),
            write.en.eq(Mux(self.entered, 1 << self.entered_word[:shift], Mux(clear, 1 << offset, 0))),
        ]
        with m.FSM(name="walk") as walk:
            # In no other cycle: a hint that is set meanwhile must not change the word that is being looked at.
            m.d.comb += read.en.eq(walk.ongoing("READ"))
            with m.State("READ"):
                with m.If(self.seek):
                    m.next = "ROW"
            with m.State("ROW"):
                m.d.comb += self.valid.eq(left.any() & (self.word <= self.last))
                with m.If(self.valid):
                    with m.If(self.next):
                        m.d.sync += [done.eq(done | (1 << offset)), found.eq(1)]
                with m.Else():
                    m.d.sync += [row.eq(row + 1), done.eq(0)]
                    with m.If(row == self.last >> shift):
                        m.d.sync += [row.eq(0), every.eq(~found), found.eq(0)]
                    m.next = "READ"
        return m

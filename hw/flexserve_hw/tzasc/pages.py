"""The page-state table."""

from amaranth.hdl import Module, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from flexserve_hw.params import FlexMemParams

from .layouts import TableReadSignature, table_words, word_width
from .states import CODE_WIDTH

__all__ = ["PageTable"]


class PageTable(wiring.Component):
    """States of the pages of the window, ``params.group`` of them to a word; see :class:`.states.StateWord`.

    The table comes up with unknown contents; the command engine writes every word before anyone relies on it.

    Parameters
    ----------
    params : FlexMemParams

    Attributes
    ----------
    states : Memory
        What is stored.

    Members
    -------
    ar, aw, walk, scan, query : In(TableReadSignature)
        Independent read ports. A read in the cycle of a write to the same word returns the new contents.
    write_en : In(1), write_word : In, write_data : In; write_ready : Out(1)
        Replace a word, in the cycle in which ``write_ready`` is high. There is one writer, which reads a word before it
        writes it.

    Latency and ordering
    --------------------
    Reads take one cycle. Writes are seen by reads of the same cycle.
    """

    def __init__(self, *, params: FlexMemParams):
        self.states = memory.Memory(shape=unsigned(params.group * CODE_WIDTH), depth=table_words(params), init=[])
        read = In(TableReadSignature(params=params))
        super().__init__(
            {
                "ar": read,
                "aw": read,
                "walk": read,
                "scan": read,
                "query": read,
                "write_en": In(1),
                "write_ready": Out(1),
                "write_word": In(word_width(params)),
                "write_data": In(params.group * CODE_WIDTH),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.states = states = self.states
        write = states.write_port()
        m.d.comb += [
            write.addr.eq(self.write_word),
            write.data.eq(self.write_data),
            write.en.eq(self.write_en),
            self.write_ready.eq(1),
        ]
        for port in (self.ar, self.aw, self.walk, self.scan, self.query):
            read = states.read_port(transparent_for=(write,))
            m.d.comb += [read.en.eq(port.en), read.addr.eq(port.word), port.valid.eq(1), port.data.eq(read.data)]
        return m

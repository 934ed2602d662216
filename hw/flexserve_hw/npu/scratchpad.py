"""Banked memory with one write and one read port, and a scrub of all banks in parallel."""

from amaranth.hdl import C, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

__all__ = ["BANK_WORDS", "Scratchpad"]

BANK_WORDS = 1024
"""Words of a bank: a scrub of any memory takes no longer than this many writes."""


class Scratchpad(wiring.Component):
    """Memory of ``depth`` words in banks of at most 1024.

    Parameters
    ----------
    width : int
        Bits of a word.
    depth : int
        Words, a power of two of at least 2.
    late : bool
        One more register behind each bank: a block RAM's data come so late in their cycle that in an FPGA nothing fits
        behind them.

    Members
    -------
    w_en, w_addr, w_data : In
        Write at the end of this cycle.
    r_en, r_addr : In, r_data : Out
        ``r_data`` shows the word in the next cycle (``late``: the one after) and keeps it until the next read shows.
    scrub : In(1)
        While high, the ports above are ignored and word ``scrub_addr`` of every bank becomes zero; the read register
        follows word 0, so it is zero once two cycles (``late``: three) with ``scrub`` have passed after that word's
        turn.
    scrub_addr : In

    Latency and ordering
    --------------------
    Read latency one cycle, ``late``: two. A read in the cycle of a write to the same word returns what the word held
    before in simulation, anything in an FPGA: nobody uses it.
    """

    def __init__(self, *, width: int, depth: int, late: bool = False):
        if width < 1:
            raise ValueError(f"Scratchpad width must be at least 1 bit, not {width!r}")
        if depth < 2 or depth & (depth - 1):
            raise ValueError(f"Scratchpad depth must be a power of two of at least 2, not {depth!r}")
        self._width, self._depth, self._late = width, depth, late
        self._bank = min(depth, BANK_WORDS)
        super().__init__(
            {
                "w_en": In(1),
                "w_addr": In(range(depth)),
                "w_data": In(width),
                "r_en": In(1),
                "r_addr": In(range(depth)),
                "r_data": Out(width),
                "scrub": In(1),
                "scrub_addr": In(range(self._bank)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bits = (self._bank - 1).bit_length()
        count = self._depth // self._bank
        chosen = Signal(range(max(2, count)))
        outputs = []
        for index in range(count):
            # In an FPGA, what a read in the cycle of a write shows would cost twice the bank's width in registers.
            memory = Memory(shape=self._width, depth=self._bank, init=[], attrs={"no_rw_check": 1})
            m.submodules[f"bank_{index}"] = memory
            write, read = memory.write_port(), memory.read_port()
            w_here = self.w_addr[bits:] == index if count > 1 else C(1)
            r_here = self.r_addr[bits:] == index if count > 1 else C(1)
            m.d.comb += [
                write.en.eq(self.scrub | (self.w_en & w_here)),
                write.addr.eq(Mux(self.scrub, self.scrub_addr, self.w_addr[:bits])),
                write.data.eq(Mux(self.scrub, 0, self.w_data)),
                read.en.eq(self.scrub | (self.r_en & r_here)),
                read.addr.eq(Mux(self.scrub, 0, self.r_addr[:bits])),
            ]
            output = read.data
            if self._late:
                output = Signal(self._width, name=f"late_{index}")
                reading = Signal(name=f"reading_{index}")
                m.d.sync += reading.eq(read.en)
                with m.If(reading):
                    m.d.sync += output.eq(read.data)
            outputs.append(output)
        if count == 1:
            m.d.comb += self.r_data.eq(outputs[0])
        else:
            with m.If(self.scrub):
                m.d.sync += chosen.eq(0)
            with m.Elif(self.r_en):
                m.d.sync += chosen.eq(self.r_addr[bits:])
            shown = chosen
            if self._late:
                shown = Signal.like(chosen)
                m.d.sync += shown.eq(chosen)
            with m.Switch(shown):
                for index, output in enumerate(outputs):
                    with m.Case(index):
                        m.d.comb += self.r_data.eq(output)
        return m

"""Accumulator memory: adds rows of sums in place while finished rows are read out."""

from amaranth.hdl import C, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .array import sum_width
from .scratchpad import BANK_WORDS, Scratchpad

__all__ = ["ACC_WIDTH", "Accumulator"]

ACC_WIDTH = 32
"""Bits of an accumulator; sums wrap around."""


class Accumulator(wiring.Component):
    """``rows`` rows of N int32 in at least four banks, so that some are read out while another accumulates.

    Parameters
    ----------
    n : int
        Lanes.
    rows : int
        Rows, a power of two of at least 8.

    Members
    -------
    ahead_en, ahead_row : In
        The sums of the next cycle are to be added to what row ``ahead_row`` holds: read it. Never waits.
    en, row, add : In, sums : In(n sums)
        Sums for row ``row``; ``add`` repeats ``ahead_en`` of the cycle before. A row may come again in any cycle.
    read_en, read_row : In, read_ok : Out(1), read_data : Out(n int32)
        Read out. Taken in cycles with ``read_ok``, which is low while accumulation reads the same bank; ``read_data``
        shows the row one cycle after, for one cycle.
    scrub, scrub_addr : In
        As for :class:`~flexserve_hw.npu.scratchpad.Scratchpad`.

    Latency and ordering
    --------------------
    Sums are in memory two cycles after they were given. ``read_ok`` depends combinationally on ``ahead_*`` and
    ``read_row``.
    """

    def __init__(self, *, n: int, rows: int):
        if rows < 8 or rows & (rows - 1):
            raise ValueError(f"Accumulator rows must be a power of two of at least 8, not {rows!r}")
        self._n, self._rows = n, rows
        self._bank = min(rows // 4, BANK_WORDS)
        super().__init__(
            {
                "ahead_en": In(1),
                "ahead_row": In(range(rows)),
                "en": In(1),
                "row": In(range(rows)),
                "add": In(1),
                "sums": In(data.ArrayLayout(signed(sum_width(n)), n)),
                "read_en": In(1),
                "read_row": In(range(rows)),
                "read_ok": Out(1),
                "read_data": Out(ACC_WIDTH * n),
                "scrub": In(1),
                "scrub_addr": In(range(BANK_WORDS)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        n, count = self._n, self._rows // self._bank
        bits = (self._bank - 1).bit_length()
        written = Signal(ACC_WIDTH * n)
        w_row = Signal(range(self._rows))
        w_en = Signal()
        held = Signal(ACC_WIDTH * n)
        add_bank = Signal(range(count))
        read_bank = Signal(range(count))
        m.d.comb += self.read_ok.eq(~(self.ahead_en & (self.ahead_row[bits:] == self.read_row[bits:])) & ~self.scrub)
        # What is written, and what was written while its row was read, goes past the memory.
        missed = Signal()
        passing = Signal(ACC_WIDTH * n)
        current = Signal(ACC_WIDTH * n)
        m.d.sync += [w_en.eq(self.en), missed.eq(w_en & (w_row == self.ahead_row)), passing.eq(written)]
        with m.If(w_en & (w_row == self.row)):
            m.d.comb += current.eq(written)
        with m.Elif(missed):
            m.d.comb += current.eq(passing)
        with m.Else():
            m.d.comb += current.eq(held)
        with m.If(self.ahead_en):
            m.d.sync += add_bank.eq(self.ahead_row[bits:])
        with m.If(self.read_en):
            m.d.sync += read_bank.eq(self.read_row[bits:])
        for index in range(count):
            bank = Scratchpad(width=ACC_WIDTH * n, depth=self._bank)
            m.submodules[f"bank_{index}"] = bank
            ahead = Signal()
            read = Signal()
            write = Signal()
            m.d.comb += [
                ahead.eq(self.ahead_en & (self.ahead_row[bits:] == index)),
                read.eq(self.read_en & (self.read_row[bits:] == index)),
                write.eq(w_en & (w_row[bits:] == index)),
                bank.r_en.eq(ahead | read),
                bank.r_addr.eq(Mux(ahead, self.ahead_row[:bits], self.read_row[:bits])),
                bank.w_en.eq(write),
                bank.w_addr.eq(w_row[:bits]),
                bank.w_data.eq(written),
                bank.scrub.eq(self.scrub),
                bank.scrub_addr.eq(self.scrub_addr),
            ]
            with m.If(add_bank == index):
                m.d.comb += held.eq(bank.r_data)
            with m.If(read_bank == index):
                m.d.comb += self.read_data.eq(bank.r_data)
        with m.If(self.en):
            m.d.sync += w_row.eq(self.row)
            for lane in range(n):
                place = slice(ACC_WIDTH * lane, ACC_WIDTH * (lane + 1))
                base = Mux(self.add, current[place].as_signed(), C(0, ACC_WIDTH))
                m.d.sync += written[place].eq(base + self.sums[lane])
        return m

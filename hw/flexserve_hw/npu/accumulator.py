"""Accumulator memory: adds rows of sums in place while finished rows are read out."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .array import sum_width
from .scratchpad import BANK_WORDS, Scratchpad

__all__ = ["ACC_WIDTH", "Accumulator"]

ACC_WIDTH = 32
"""Bits of an accumulator; sums wrap around."""

_GROUP = 4
"""Lanes that share the registers which say what is added: all of them lie too far from each other in an FPGA."""


def _groups(n):
    """Number and bits of each group of lanes."""
    return [(lane // _GROUP, slice(ACC_WIDTH * lane, ACC_WIDTH * (lane + _GROUP))) for lane in range(0, n, _GROUP)]


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
        The sums of three cycles later are to be added to what row ``ahead_row`` holds: read it. Never waits.
    en, row : In, sums : In(n sums)
        Sums for row ``row``; added if ``ahead_en`` was high three cycles before. A row may come again in any cycle.
    read_en, read_row : In, read_ok : Out(1), read_data : Out(n int32)
        Read out. Taken in cycles with ``read_ok``, which is low while accumulation reads the same bank; ``read_data``
        shows the row two cycles after, for one cycle.
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
        # A cycle after the read.
        add_bank, read_bank = Signal(range(count)), Signal(range(count))
        held = Signal(ACC_WIDTH * n)
        m.d.comb += self.read_ok.eq(~(self.ahead_en & (self.ahead_row[bits:] == self.read_row[bits:])) & ~self.scrub)
        m.d.sync += [
            w_en.eq(self.en),
            add_bank.eq(self.ahead_row[bits:]),
            read_bank.eq(self.read_row[bits:]),
        ]
        current = self._current(m, held, written, w_en, w_row)
        banks = []
        for index in range(count):
            bank = Scratchpad(width=ACC_WIDTH * n, depth=self._bank, late=True)
            banks.append(bank)
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
        for name, chosen, shown in (("add", add_bank, held), ("read", read_bank, self.read_data)):
            for group, place in _groups(n):
                late = Signal(range(count), name=f"{name}_bank_{group}", attrs={"keep": 1})
                m.d.sync += late.eq(chosen)
                with m.Switch(late):
                    for index, bank in enumerate(banks):
                        with m.Case(index):
                            m.d.comb += shown[place].eq(bank.r_data[place])
        with m.If(self.en):
            m.d.sync += w_row.eq(self.row)
            for lane in range(n):
                place = slice(ACC_WIDTH * lane, ACC_WIDTH * (lane + 1))
                m.d.sync += written[place].eq(current[place].as_signed() + self.sums[lane])
        return m

    def _current(self, m, held, written, w_en, w_row):
        """What this cycle's sums are added to: what their row holds, or zero.

        The row was read three cycles before: what was written since takes the place of what memory ``held``.
        """
        width = ACC_WIDTH * self._n
        add = [Signal(name=f"add_{stage}") for stage in range(2)]
        rows = [Signal(range(self._rows), name=f"row_{stage}") for stage in range(2)]
        current, kept, passing, past = (Signal(width, name=name) for name in ("current", "kept", "passing", "past"))
        # Sums for the same row that came four, three, two and one cycle before those that are on their way.
        fourth, third, second, first = (Signal(name=name) for name in ("fourth", "third", "second", "first"))
        m.d.comb += [second.eq(self.en & (self.row == rows[0])), first.eq(self.en & (self.row == rows[1]))]
        m.d.sync += [
            add[0].eq(self.ahead_en),
            add[1].eq(add[0]),
            rows[0].eq(self.ahead_row),
            rows[1].eq(rows[0]),
            fourth.eq(w_en & (w_row == self.ahead_row)),
            third.eq(self.en & (self.row == self.ahead_row)),
        ]
        with m.If(w_en):
            m.d.sync += passing.eq(written)
        m.d.sync += past.eq(passing)
        for group, place in _groups(self._n):
            names = ("fourth_late", "third_late", "second_late", "first_late", "adding", "add_late")
            values = (fourth, third, second, first, add[0], add[1])
            late = {name: Signal(name=f"{name}_{group}", attrs={"keep": 1}) for name in names}
            m.d.sync += [signal.eq(value) for signal, value in zip(late.values(), values, strict=True)]
            with m.If(late["adding"]):
                with m.If(late["second_late"]):
                    m.d.sync += kept[place].eq(written[place])
                with m.Elif(late["third_late"]):
                    m.d.sync += kept[place].eq(passing[place])
                with m.Elif(late["fourth_late"]):
                    m.d.sync += kept[place].eq(past[place])
                with m.Else():
                    m.d.sync += kept[place].eq(held[place])
            with m.If(late["add_late"]):
                m.d.comb += current[place].eq(Mux(late["first_late"], written[place], kept[place]))
        return current

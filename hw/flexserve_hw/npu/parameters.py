"""Requantisation parameters of output channels."""

from amaranth.hdl import Cat, Module, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .scratchpad import BANK_WORDS, Scratchpad

__all__ = ["CHANNEL", "ParameterMemory", "lanes"]

CHANNEL = data.StructLayout({"bias": signed(32), "multiplier": 16, "shift": 6, "reserved": 10})
"""Eight bytes per output channel, little-endian."""

_BANKS = 4


def lanes(n: int) -> int:
    """Channels that are requantised per cycle: half a row of accumulators, so that two rows of the array's output
    take as long as four."""
    return n // 2


class ParameterMemory(wiring.Component):
    """Parameters of the channels, written in words of N bytes, read in rows of N / 2 channels.

    Parameters
    ----------
    n : int
        Array size.
    words : int
        Words of N bytes, a power of two of at least 8.

    Members
    -------
    w_en, w_addr, w_data : In
        Write a word at the end of this cycle.
    r_en, r_row : In, r_data : Out
        Row ``r_row`` is words ``4 * r_row`` to ``4 * r_row + 3``; it shows in the next cycle and stays until the next
        read.
    scrub, scrub_addr : In
        As for :class:`~flexserve_hw.npu.scratchpad.Scratchpad`.

    Latency and ordering
    --------------------
    Read latency one cycle. What a read in the cycle of a write to the same row returns is not to be used.
    """

    def __init__(self, *, n: int, words: int):
        if words < 2 * _BANKS or words & (words - 1):
            raise ValueError(f"Parameter words must be a power of two of at least {2 * _BANKS}, not {words!r}")
        self._n, self._words = n, words
        rows = words // _BANKS
        super().__init__(
            {
                "w_en": In(1),
                "w_addr": In(range(words)),
                "w_data": In(8 * n),
                "r_en": In(1),
                "r_row": In(range(rows)),
                "r_data": Out(data.ArrayLayout(CHANNEL, lanes(n))),
                "scrub": In(1),
                "scrub_addr": In(range(BANK_WORDS)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bits = (_BANKS - 1).bit_length()
        outputs = []
        for index in range(_BANKS):
            bank = Scratchpad(width=8 * self._n, depth=self._words // _BANKS)
            m.submodules[f"part_{index}"] = bank
            m.d.comb += [
                bank.w_en.eq(self.w_en & (self.w_addr[:bits] == index)),
                bank.w_addr.eq(self.w_addr[bits:]),
                bank.w_data.eq(self.w_data),
                bank.r_en.eq(self.r_en),
                bank.r_addr.eq(self.r_row),
                bank.scrub.eq(self.scrub),
                bank.scrub_addr.eq(self.scrub_addr),
            ]
            outputs.append(bank.r_data)
        m.d.comb += self.r_data.eq(Cat(outputs))
        return m

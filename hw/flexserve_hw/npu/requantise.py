"""Requantisation: int32 sums to int8 values, packed into beats."""

from itertools import pairwise

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .parameters import CHANNEL, lanes

__all__ = ["Requantiser"]

_BEAT = 128

_STAGES = 8

_SPLIT = 17
"""Bits of a sum that a hardware multiplier of 18 x 18 bits takes as an unsigned half."""


class Requantiser(wiring.Component):
    """Turns sums into int8: ``saturate(round((sum + bias) * multiplier / 2**shift))``, halves rounded upwards.

    The sum and its bias are added without wrap-around. With ``relu`` negative results become zero.

    Parameters
    ----------
    n : int
        Array size.

    Members
    -------
    i : In(stream)
        N / 2 sums of a row at a time, in the order of the channels. ``end`` is not 0 for the last of a row: the bytes
        of its last beat.
    parameters : In
        Of the channels that came last, in the cycle after that.
    o : Out(stream)
        Beats of sixteen values, with the ``end`` of their last piece. Lanes past the end of a row hold zero or values
        of the channels that fill up its last piece.
    idle : Out(1)
        Nothing is under way.

    Latency and ordering
    --------------------
    Eight cycles, one piece per cycle, order kept. Nothing ever waits: one enable for all registers would reach them
    late in its cycle, so whoever drives ``i`` sees to it that there is room for the beats.
    """

    def __init__(self, *, n: int):
        self._lanes = lanes(n)
        piece = data.StructLayout({"sums": data.ArrayLayout(signed(32), self._lanes), "end": 5, "relu": 1})
        super().__init__(
            {
                "i": In(stream.Signature(piece, always_ready=True)),
                "parameters": In(data.ArrayLayout(CHANNEL, self._lanes)),
                "o": Out(stream.Signature(data.StructLayout({"data": _BEAT, "end": 5}), always_ready=True)),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        valid = Signal(_STAGES)
        relu = Signal(_STAGES - 1)
        ends = [Signal(5, name=f"end_{stage}") for stage in range(_STAGES)]
        busy = Signal()  # a stage is valid
        m.d.comb += self.idle.eq(~busy)
        m.d.sync += [
            busy.eq(self.i.valid | valid[:-1].any()),
            valid.eq(Cat(self.i.valid, valid)),
            relu.eq(Cat(self.i.payload.relu, relu)),
            ends[0].eq(self.i.payload.end),
            *(after.eq(before) for before, after in pairwise(ends)),
        ]
        values = [self._requantise(m, lane, valid, relu[-1]) for lane in range(self._lanes)]
        self._pack(m, valid[-1], ends[-1], Cat(values))
        return m

    def _requantise(self, m, lane, valid, relu):
        """One lane's value. A step per stage: parameters come out of a block RAM late in their cycle, and a product is
        wider than a hardware multiplier, so its halves are added a cycle later."""
        channel = self.parameters[lane]
        sums = [Signal(signed(32), name=f"sum_{lane}_{stage}") for stage in range(2)]
        bias = Signal(signed(32), name=f"bias_{lane}")
        biased = Signal(signed(33), name=f"biased_{lane}")
        multipliers = [Signal(16, name=f"multiplier_{lane}_{stage}") for stage in range(2)]
        shifts = [Signal(6, name=f"shift_{lane}_{stage}") for stage in range(4)]
        low = Signal(_SPLIT + 16, name=f"low_{lane}")
        high = Signal(signed(32), name=f"high_{lane}")
        product = Signal(signed(50), name=f"product_{lane}")
        # Twice the result, so that its lowest bit is the half to round by.
        doubled = Signal(signed(51), name=f"doubled_{lane}")
        rounded = Signal(signed(51), name=f"rounded_{lane}")
        value = Signal(signed(8), name=f"value_{lane}")
        stages = (
            [sums[0].eq(self.i.payload.sums[lane])],
            [
                sums[1].eq(sums[0]),
                bias.eq(channel.bias),
                multipliers[0].eq(channel.multiplier),
                shifts[0].eq(channel.shift),
            ],
            [biased.eq(sums[1] + bias), multipliers[1].eq(multipliers[0]), shifts[1].eq(shifts[0])],
            [
                low.eq(biased[:_SPLIT] * multipliers[1]),
                high.eq(biased[_SPLIT:].as_signed() * multipliers[1]),
                shifts[2].eq(shifts[1]),
            ],
            [product.eq((high << _SPLIT) + low), shifts[3].eq(shifts[2])],
            [doubled.eq((product << 1) >> shifts[3])],
            [rounded.eq((doubled + 1) >> 1)],
        )
        for go, stage in zip(Cat(self.i.valid, valid), stages, strict=False):
            with m.If(go):
                m.d.sync += stage
        with m.If(valid[_STAGES - 2]):
            with m.If((rounded < 0) & relu):
                m.d.sync += value.eq(0)
            with m.Elif(rounded < -128):
                m.d.sync += value.eq(-128)
            with m.Elif(rounded > 127):
                m.d.sync += value.eq(127)
            with m.Else():
                m.d.sync += value.eq(rounded)
        return value

    def _pack(self, m, valid, row_end, piece):
        """Gather pieces into beats; a row's last beat goes out when its last piece is there."""
        width = 8 * self._lanes
        pieces = _BEAT // width
        beat = self.o.payload
        m.d.comb += beat.end.eq(row_end)
        if pieces == 1:
            m.d.comb += [self.o.valid.eq(valid), beat.data.eq(piece)]
            return
        place = Signal(range(pieces))
        gathered = Signal(_BEAT - width)
        end = (row_end != 0) | (place == pieces - 1)
        m.d.comb += self.o.valid.eq(valid & end)
        for index in range(pieces):
            slot = slice(width * index, width * (index + 1))
            m.d.comb += beat.data[slot].eq(
                Mux(place == index, piece, Mux(place > index, gathered[slot], 0) if index < pieces - 1 else 0)
            )
        with m.If(valid):
            m.d.sync += place.eq(Mux(end, 0, place + 1))
            m.d.sync += gathered.eq(Mux(end, 0, beat.data))

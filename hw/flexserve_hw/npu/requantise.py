"""Requantisation: int32 sums to int8 values, packed into beats."""

from itertools import pairwise

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .parameters import CHANNEL, lanes

__all__ = ["Requantiser"]

_BEAT = 128


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
        Of the channels that were accepted last, from the cycle after that on; kept until the next are accepted.
    take : Out(1)
        ``i`` is accepted in this cycle: the parameters of its channels are to be read.
    o : Out(stream)
        Beats of sixteen values, with the ``end`` of their last piece. Lanes past the end of a row hold zero or values
        of the channels that fill up its last piece.
    idle : Out(1)
        Nothing is under way.

    Latency and ordering
    --------------------
    Four cycles, one piece per cycle, order kept. ``i.ready`` depends combinationally on ``o.ready``.
    """

    def __init__(self, *, n: int):
        self._lanes = lanes(n)
        piece = data.StructLayout({"sums": data.ArrayLayout(signed(32), self._lanes), "end": 5, "relu": 1})
        super().__init__(
            {
                "i": In(stream.Signature(piece)),
                "parameters": In(data.ArrayLayout(CHANNEL, self._lanes)),
                "take": Out(1),
                "o": Out(stream.Signature(data.StructLayout({"data": _BEAT, "end": 5}))),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        count = self._lanes
        go = Signal()
        valid = Signal(4)
        relu = Signal(4)
        ends = [Signal(5, name=f"end_{stage}") for stage in range(4)]
        accepted = self.i.payload
        m.d.comb += [self.i.ready.eq(go), self.take.eq(self.i.valid & go), self.idle.eq(valid == 0)]
        with m.If(go):
            m.d.sync += [
                valid.eq(Cat(self.i.valid, valid)),
                relu.eq(Cat(accepted.relu, relu)),
                ends[0].eq(accepted.end),
                *(after.eq(before) for before, after in pairwise(ends)),
            ]
        values = []
        for lane in range(count):
            channel = self.parameters[lane]
            held = Signal(signed(32), name=f"held_{lane}")
            biased = Signal(signed(33), name=f"biased_{lane}")
            multiplier, shift, shift_late = (
                Signal(16, name=f"multiplier_{lane}"),
                Signal(6, name=f"shift_{lane}"),
                Signal(6, name=f"shift_late_{lane}"),
            )
            product = Signal(signed(50), name=f"product_{lane}")
            # Twice the result, so that its lowest bit is the half to round by.
            doubled = Signal(signed(51), name=f"doubled_{lane}")
            rounded = Signal(signed(51), name=f"rounded_{lane}")
            value = Signal(signed(8), name=f"value_{lane}")
            with m.If(go):
                m.d.sync += [
                    held.eq(accepted.sums[lane]),
                    biased.eq(held + channel.bias),
                    multiplier.eq(channel.multiplier),
                    shift.eq(channel.shift),
                    product.eq(biased * multiplier),
                    shift_late.eq(shift),
                    doubled.eq((product << 1) >> shift_late),
                ]
            m.d.comb += rounded.eq((doubled + 1) >> 1)
            with m.If((rounded < 0) & relu[3]):
                m.d.comb += value.eq(0)
            with m.Elif(rounded < -128):
                m.d.comb += value.eq(-128)
            with m.Elif(rounded > 127):
                m.d.comb += value.eq(127)
            with m.Else():
                m.d.comb += value.eq(rounded)
            values.append(value)
        self._pack(m, go, valid[3], ends[3], Cat(values))
        return m

    def _pack(self, m, go, valid, row_end, piece):
        """Gather pieces into beats; a row's last beat goes out when its last piece is there."""
        width = 8 * self._lanes
        pieces = _BEAT // width
        beat = self.o.payload
        m.d.comb += beat.end.eq(row_end)
        if pieces == 1:
            m.d.comb += [self.o.valid.eq(valid), beat.data.eq(piece), go.eq(~valid | self.o.ready)]
            return
        place = Signal(range(pieces))
        gathered = Signal(_BEAT - width)
        end = (row_end != 0) | (place == pieces - 1)
        m.d.comb += [self.o.valid.eq(valid & end), go.eq(~self.o.valid | self.o.ready)]
        for index in range(pieces):
            slot = slice(width * index, width * (index + 1))
            m.d.comb += beat.data[slot].eq(
                Mux(place == index, piece, Mux(place > index, gathered[slot], 0) if index < pieces - 1 else 0)
            )
        with m.If(valid & go):
            m.d.sync += place.eq(Mux(end, 0, place + 1))
            m.d.sync += gathered.eq(Mux(end, 0, beat.data))

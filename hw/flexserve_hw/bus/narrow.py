"""An AXI4 master of wide beats on a narrower bus."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .axi4 import AXI4Signature, Resp

__all__ = ["NarrowBus"]


class NarrowBus(wiring.Component):
    """Cuts every beat into ``ratio`` beats of a narrower bus, and puts beats that are read together again.

    Parameters
    ----------
    wide : AXI4Signature
        Of the master. Its bursts are INCR, of whole beats at aligned addresses, and at most 256 / ``ratio`` beats long.
    data_width : int
        Of the bus: a half, a quarter or an eighth of the master's.

    Members
    -------
    wide : In(AXI4)
    narrow : Out(AXI4)
        Addresses, IDs and everything else are the master's; bursts are ``ratio`` times as long.

    Latency and ordering
    --------------------
    No cycle but those that the beats take; all paths are combinational. Beats of different IDs may be interleaved: each
    ID has a register of its own for what has come of a beat. A beat whose parts are answered differently has the answer
    of the first part that is not OKAY.
    """

    def __init__(self, *, wide: AXI4Signature, data_width: int):
        shape = wide.shape
        if shape.data_width not in (2 * data_width, 4 * data_width, 8 * data_width):
            parts = f"a half, a quarter or an eighth of {shape.data_width} data bits"
            raise ValueError(f"A narrow bus must have {parts}, not {data_width!r}")
        self.ratio = shape.data_width // data_width
        narrow = AXI4Signature(addr_width=shape.addr_width, data_width=data_width, id_width=shape.id_width)
        super().__init__({"wide": In(wide), "narrow": Out(narrow)})

    def elaborate(self, platform):
        m = Module()
        wide, narrow, last = self.wide, self.narrow, self.ratio - 1
        lanes, bits = len(narrow.w.payload.strb), len(narrow.w.payload.data)
        for source, target in ((wide.ar, narrow.ar), (wide.aw, narrow.aw)):
            wiring.connect(m, wiring.flipped(source), wiring.flipped(target))
            m.d.comb += [
                target.payload.len.eq(source.payload.len * self.ratio + last),
                target.payload.size.eq((lanes - 1).bit_length()),
            ]
        wiring.connect(m, wiring.flipped(narrow.b), wiring.flipped(wide.b))
        sent = Signal(range(self.ratio))
        m.d.comb += [
            narrow.w.valid.eq(wide.w.valid),
            narrow.w.payload.data.eq(wide.w.payload.data.word_select(sent, bits)),
            narrow.w.payload.strb.eq(wide.w.payload.strb.word_select(sent, lanes)),
            narrow.w.payload.last.eq(wide.w.payload.last & (sent == last)),
            wide.w.ready.eq(narrow.w.ready & (sent == last)),
        ]
        with m.If(narrow.w.valid & narrow.w.ready):
            m.d.sync += sent.eq(sent + 1)
        read = narrow.r.payload
        ids = range(1 << len(read.id))
        parts = Array([Signal(bits * last, name=f"part_{i}") for i in ids])
        come = Array([Signal(range(self.ratio), name=f"come_{i}") for i in ids])
        answers = Array([Signal(Resp, name=f"answer_{i}") for i in ids])
        whole, answer = Signal(), Signal(Resp)
        m.d.comb += [
            whole.eq(come[read.id] == last),
            answer.eq(Mux(answers[read.id] == Resp.OKAY, read.resp, answers[read.id])),
            wide.r.valid.eq(narrow.r.valid & whole),
            wide.r.payload.id.eq(read.id),
            wide.r.payload.data.eq(Cat(parts[read.id], read.data)),
            wide.r.payload.resp.eq(answer),
            wide.r.payload.last.eq(read.last),
            narrow.r.ready.eq(wide.r.ready | ~whole),
        ]
        with m.If(narrow.r.valid & narrow.r.ready):
            m.d.sync += [
                come[read.id].eq(come[read.id] + 1),
                answers[read.id].eq(Mux(whole, Resp.OKAY, answer)),
                # The first part ends up lowest.
                parts[read.id].eq(Cat(parts[read.id], read.data)[bits:]),
            ]
        return m

"""The interconnect in front of the filter: several AXI4 masters, one port."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .arbiter import RoundRobin
from .axi4 import AXI4Signature
from .buffer import StreamBuffer, StreamQueue
from .identity import Identity

__all__ = ["Interconnect", "MASTER_INDEX_WIDTH"]

MASTER_INDEX_WIDTH = 3
"""Bits on top of a master's own ID that name the master."""

_BURSTS_AHEAD = 16
"""Write bursts whose address may be ahead of their data."""


def _burst_layout() -> data.StructLayout:
    """A write burst whose data are to come: whose it is, and its AWLEN."""
    return data.StructLayout({"master": MASTER_INDEX_WIDTH, "len": 8})


class Interconnect(wiring.Component):
    """Round-robin interconnect that stamps world, NSAID and master number on every address.

    Parameters
    ----------
    masters : dict of str to Identity
        Name of each master port and what is forced upon it, in the order of the master numbers.
    addr_width, data_width, id_width : int
        Widths of a master port. IDs leave three bits wider: master number, then the master's own ID.

    Members
    -------
    <name> : In(AXI4Signature)
        One port per master.
    o : Out(AXI4Signature)
        The joint port.

    Latency and ordering
    --------------------
    Addresses take one cycle and, for a lone master, go one per cycle. Data beats and responses take none and never
    leave a gap of the interconnect's making. Write data follow in the order of their addresses, from the cycle in which
    the address shows downstream, whether or not it is taken there. A burst's beats are counted by its AWLEN, and WLAST
    leaves by that count: a master's own WLAST is not believed, so its beats never end up in another master's burst.
    Responses are routed by ID, so the order of equal IDs is downstream's; a master that a response isn't for sees
    zeros. A master that does not accept its responses, or withholds write data after an address, holds up the others.
    """

    def __init__(self, *, masters: dict[str, Identity], addr_width: int, data_width: int, id_width: int):
        if not 1 <= len(masters) <= 1 << MASTER_INDEX_WIDTH:
            raise ValueError(f"Interconnect must have 1 to {1 << MASTER_INDEX_WIDTH} masters, not {len(masters)!r}")
        self._masters = dict(masters)
        self._inner = AXI4Signature(addr_width=addr_width, data_width=data_width, id_width=id_width)
        self._outer = AXI4Signature(
            addr_width=addr_width, data_width=data_width, id_width=id_width + MASTER_INDEX_WIDTH
        )
        super().__init__({name: In(self._inner) for name in masters} | {"o": Out(self._outer)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.order = order = StreamQueue(shape=_burst_layout(), depth=_BURSTS_AHEAD)
        self._addresses(m, "ar", Const(1), [])
        self._addresses(m, "aw", order.i.ready, [order.i])
        self._write_data(m, order.o)
        self._responses(m, "b")
        self._responses(m, "r")
        return m

    def _ports(self):
        return [(number, getattr(self, name), rule) for number, (name, rule) in enumerate(self._masters.items())]

    def _addresses(self, m, channel, room, followers):
        """Choose among the masters' addresses; ``followers`` learn whose each chosen one is, and its length."""
        shape = self._outer.shape.address
        m.submodules[f"{channel}_buffer"] = buffer = StreamBuffer(shape=shape)
        m.submodules[f"{channel}_arbiter"] = arbiter = RoundRobin(count=len(self._masters))
        wiring.connect(m, buffer.o, wiring.flipped(getattr(self.o, channel)))
        go = Signal(name=f"{channel}_go")
        ports = self._ports()
        m.d.comb += [
            arbiter.requests.eq(Cat(getattr(port, channel).valid for _, port, _ in ports)),
            go.eq(arbiter.valid & buffer.i.ready & room),
            arbiter.advance.eq(go),
            buffer.i.valid.eq(arbiter.valid & room),
        ]
        for follower in followers:
            m.d.comb += [
                follower.valid.eq(go),
                follower.payload.master.eq(arbiter.grant),
                follower.payload.len.eq(buffer.i.payload.len),
            ]
        with m.Switch(arbiter.grant):
            for number, port, rule in ports:
                asked = getattr(port, channel)
                with m.Case(number):
                    m.d.comb += asked.ready.eq(buffer.i.ready & room)
                    for name in shape.members:
                        m.d.comb += buffer.i.payload[name].eq(asked.payload[name])
                    m.d.comb += [
                        buffer.i.payload.id.eq(Cat(asked.payload.id, Const(number, MASTER_INDEX_WIDTH))),
                        buffer.i.payload.prot.eq(rule.prot(asked.payload.prot)),
                        buffer.i.payload.user.eq(rule.user(asked.payload.user)),
                    ]

    def _write_data(self, m, order):
        """Pass the beats of the master whose burst is next, as many as its address announced."""
        beat, last, passed = Signal(8, name="w_beat"), Signal(name="w_last"), Signal(name="w_passed")
        m.d.comb += last.eq(beat == order.payload.len)
        with m.If(order.valid):
            with m.Switch(order.payload.master):
                for number, port, _ in self._ports():
                    with m.Case(number):
                        m.d.comb += [
                            self.o.w.valid.eq(port.w.valid),
                            self.o.w.payload.data.eq(port.w.payload.data),
                            self.o.w.payload.strb.eq(port.w.payload.strb),
                            self.o.w.payload.last.eq(last),
                            port.w.ready.eq(self.o.w.ready),
                        ]
        m.d.comb += [passed.eq(self.o.w.valid & self.o.w.ready), order.ready.eq(passed & last)]
        with m.If(passed):
            m.d.sync += beat.eq(Mux(last, 0, beat + 1))

    def _responses(self, m, channel):
        """Hand each response to the master that its ID names."""
        response = getattr(self.o, channel)
        own = self._inner.shape.id_width
        for number, port, _ in self._ports():
            master = getattr(port, channel)
            mine = response.payload.id[own:] == number
            m.d.comb += master.valid.eq(response.valid & mine)
            for name in master.payload.shape().members:
                value = response.payload.id[:own] if name == "id" else response.payload[name]
                # Neither data nor ID of a response show on the port of a master that it isn't for.
                m.d.comb += master.payload[name].eq(Mux(mine & response.valid, value, 0))
            with m.If(mine):
                m.d.comb += response.ready.eq(master.ready)

"""The register fabric: AXI4-Lite masters on one side, frames on the other, and who may use which frame in between."""

from dataclasses import dataclass
from enum import Enum

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..bus.arbiter import RoundRobin
from ..bus.axi4 import NSAID_WIDTH, Prot, Resp
from ..bus.axil import AXILiteSignature
from ..bus.identity import Identity
from .regbus import FRAME_ADDR_WIDTH, RegisterBusSignature
from .source import elaborate

__all__ = ["Audience", "Frame", "RegisterFabric", "soc_frames"]


class Audience(Enum):
    """Accesses that a frame answers; all others get DECERR and do nothing."""

    SECURE = "secure accesses"
    NORMAL = "non-secure accesses"
    MANAGERS = "non-secure accesses by an NSAID of the frame's manager mask"


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A 4 KiB frame: its name, the byte address of it, and who may use it."""

    name: str
    base: int
    audience: Audience

    def __post_init__(self) -> None:
        if self.base % (1 << FRAME_ADDR_WIDTH):
            raise ValueError(f"Frame must begin at a multiple of 4 KiB, not {self.base!r}")

    @property
    def port(self) -> str:
        """Name of the frame's port on the fabric."""
        return self.name.lower()


_AUDIENCES = {
    "TZC": Audience.SECURE,
    "FLEX_NORMAL": Audience.MANAGERS,
    "FLEX_SECURE": Audience.SECURE,
    "NPU_NORMAL": Audience.NORMAL,
    "NPU_SECURE": Audience.SECURE,
    "GATE_NORMAL": Audience.MANAGERS,
    "GATE_SECURE": Audience.SECURE,
    "STORAGE": Audience.NORMAL,
}


def soc_frames(*names: str) -> tuple[Frame, ...]:
    """The named frames of the SoC's register map, all of them without a name."""
    placed = {child.inst_name: child.absolute_address for child in elaborate("soc").children()}
    if unknown := set(names) - set(placed):
        raise ValueError(f"Frames must be among {', '.join(placed)}, not {sorted(unknown)!r}")
    return tuple(
        Frame(name=name, base=base, audience=_AUDIENCES[name])
        for name, base in placed.items()
        if not names or name in names
    )


class RegisterFabric(wiring.Component):
    """Serialises register accesses of all masters and lets through those that the addressed frame is open to.

    Parameters
    ----------
    masters : dict of str to Identity
        Name of each AXI4-Lite port and what is forced upon it.
    frames : tuple of Frame
        The frames; their addresses must not overlap.
    addr_width : int
        Byte address width of the AXI4-Lite ports.

    Members
    -------
    <master> : In(AXILiteSignature)
        One port per master.
    <frame> : Out(RegisterBusSignature())
        One port per frame, named by the frame's name in lower case.
    <frame>_managers : In(16)
        For frames open to managers: bit n lets NSAID n in. Sampled in the cycle of the request.

    Latency and ordering
    --------------------
    One access at a time, three cycles each, masters and directions in turn; so two worlds never command in the same
    cycle. Each master has its own response registers: one that does not take its response holds up nobody else. A write
    starts when both its address and its data are there. An access outside every frame, or to a frame closed to it,
    answers DECERR with zeros after the same number of cycles and reaches no frame.
    """

    def __init__(self, *, masters: dict[str, Identity], frames: tuple[Frame, ...], addr_width: int):
        if not masters:
            raise ValueError(f"Register fabric must have a master, not {masters!r}")
        if len({frame.base for frame in frames}) != len(frames):
            raise ValueError(f"Frames must not overlap, not {[hex(frame.base) for frame in frames]!r}")
        self._masters = dict(masters)
        self._frames = frames
        self._signature = AXILiteSignature(addr_width=addr_width)
        managers = {f"{f.port}_managers": In(1 << NSAID_WIDTH) for f in frames if f.audience is Audience.MANAGERS}
        super().__init__(
            {name: In(self._signature) for name in masters}
            | {frame.port: Out(RegisterBusSignature()) for frame in frames}
            | managers
        )

    def elaborate(self, platform):
        m = Module()
        ports = [(getattr(self, name), rule) for name, rule in self._masters.items()]
        request = Signal(
            data.StructLayout(
                {
                    "number": range(2 * len(ports)),
                    "addr": self._signature.addr_width,
                    "prot": Prot,
                    "user": NSAID_WIDTH,
                    "data": 32,
                    "strb": 4,
                }
            )
        )
        rdata, resp = Signal(32), Signal(Resp)
        choosing, answering = self._schedule(m, ports, request)
        self._perform(m, request, issue=~choosing & ~answering, rdata=rdata, resp=resp)
        for index, (port, _) in enumerate(ports):
            for number, channel, fields in (
                (2 * index, port.b, {"resp": resp}),
                (2 * index + 1, port.r, {"resp": resp, "data": rdata}),
            ):
                with m.If(channel.ready):
                    m.d.sync += channel.valid.eq(0)
                with m.If(answering & (request.number == number)):
                    m.d.sync += channel.valid.eq(1)
                    m.d.sync += [channel.payload[name].eq(value) for name, value in fields.items()]
        return m

    def _schedule(self, m, ports, request):
        """Choose an access into ``request``. Returns two signals: choosing now, and answering now."""
        m.submodules.arbiter = arbiter = RoundRobin(count=2 * len(ports))
        choosing = Signal(init=1)
        answering = Signal()
        ready = []
        for port, _ in ports:
            ready += [port.aw.valid & port.w.valid & ~port.b.valid, port.ar.valid & ~port.r.valid]
        m.d.comb += [arbiter.requests.eq(Cat(ready)), arbiter.advance.eq(choosing)]
        m.d.sync += answering.eq(~choosing & ~answering)
        with m.If(choosing & arbiter.valid):
            m.d.sync += [choosing.eq(0), request.number.eq(arbiter.grant)]
            for index, (port, rule) in enumerate(ports):
                for number, channel in ((2 * index, port.aw), (2 * index + 1, port.ar)):
                    with m.If(arbiter.grant == number):
                        m.d.comb += channel.ready.eq(1)
                        m.d.sync += [
                            request.addr.eq(channel.payload.addr),
                            request.prot.eq(rule.prot(channel.payload.prot)),
                            request.user.eq(rule.user(channel.payload.user)),
                        ]
                with m.If(arbiter.grant == 2 * index):
                    m.d.comb += port.w.ready.eq(1)
                    m.d.sync += [request.data.eq(port.w.payload.data), request.strb.eq(port.w.payload.strb)]
        with m.Elif(answering):
            m.d.sync += choosing.eq(1)
        return choosing, answering

    def _perform(self, m, request, *, issue, rdata, resp):
        """Put the request to its frame in the cycle ``issue``; its answer is there in the next cycle."""
        nonsecure = request.prot.nonsecure
        reached = Signal(len(self._frames))
        m.d.comb += resp.eq(Resp.DECERR)
        for index, frame in enumerate(self._frames):
            bus = getattr(self, frame.port)
            if frame.audience is Audience.SECURE:
                may = ~nonsecure
            elif frame.audience is Audience.NORMAL:
                may = nonsecure
            else:
                may = nonsecure & getattr(self, f"{frame.port}_managers").bit_select(request.user, 1)
            here = request.addr[FRAME_ADDR_WIDTH:] == frame.base >> FRAME_ADDR_WIDTH
            m.d.comb += [
                bus.valid.eq(issue & here & may),
                bus.write.eq(~request.number[0]),
                bus.addr.eq(request.addr[:FRAME_ADDR_WIDTH]),
                bus.wdata.eq(request.data),
                bus.strb.eq(request.strb),
            ]
            m.d.sync += reached[index].eq(bus.valid)
            with m.If(reached[index]):
                m.d.comb += [rdata.eq(bus.rdata), resp.eq(Mux(bus.error, Resp.SLVERR, Resp.OKAY))]

"""Flat ports with AMBA names: what a component looks like from Verilog."""

from collections.abc import Iterator
from dataclasses import dataclass

from amaranth.hdl import Elaboratable, Module, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .bus.axi4 import AXI4Signature
from .bus.axil import AXILiteSignature

__all__ = ["BARE", "FlatTop", "Port"]

BARE = ("slave", "master", "registers")
"""Names of members that are the only interface of their kind; Verilog names go without them."""

_PROTOCOLS = {AXI4Signature: ("AXI4", "axi"), AXILiteSignature: ("AXI4-Lite", "axil")}


@dataclass(frozen=True, kw_only=True)
class Port:
    """A Verilog port: its direction as seen by the design, bits, and the interface that it belongs to, if any."""

    name: str
    direction: str
    width: int
    interface: str = ""
    protocol: str = ""


class FlatTop(Elaboratable):
    """Puts a component behind flat ports.

    AXI members become ``s_axi_<name>_awaddr`` and the like, or ``m_axi_...`` for masters, ``s_axil_...`` for AXI4-Lite;
    a member name that begins with ``axil_`` loses that, and the members named in ``BARE`` lose their names
    (``s_axi_awaddr``).
    Streams become ``<name>_valid``, ``<name>_ready`` and one port per payload field. Structures become one port per
    field. Anything else keeps its name.

    Parameters
    ----------
    core : wiring.Component
        Kept as submodule ``core``.

    Attributes
    ----------
    ports : tuple of Port
        In the order of the component's members, without clock and reset.
    signals : dict of str to (Signal, flow)
        The signal of each port, and its direction as the flat top sees it.
    """

    def __init__(self, core: wiring.Component):
        self._core = core
        self._links = []
        self.signals = {}
        self.ports = tuple(self._collect())

    def elaborate(self, platform):
        m = Module()
        m.submodules.core = self._core
        for signal, inner, flow in self._links:
            m.d.comb += inner.eq(signal) if flow is In else signal.eq(inner)
        return m

    def _collect(self) -> Iterator[Port]:
        for name, member in self._core.signature.members.items():
            value = getattr(self._core, name)
            signature = None
            if member.is_signature:
                signature = member.signature if member.flow is Out else member.signature.flip()
            if type(signature) in _PROTOCOLS:
                protocol, short = _PROTOCOLS[type(signature)]
                side = "s" if member.flow is In else "m"
                prefix = "_".join(part for part in (side, short, _plain(name)) if part)
                for channel, inner in signature.members.items():
                    flow = inner.flow if member.flow is Out else inner.flow.flip()
                    yield from self._stream(getattr(value, channel), flow, f"{prefix}_{channel}", "", prefix, protocol)
            elif signature is not None:
                if not isinstance(signature, stream.Signature):
                    raise TypeError(f"Member {name} must be AXI, a stream or plain, not {signature!r}")
                yield from self._stream(value, member.flow, name, "_", name, "stream")
            else:
                yield from self._value(value, member.shape, member.flow, name, "_", "", "")

    def _stream(self, value, flow, prefix, joint, interface, protocol) -> Iterator[Port]:
        if isinstance(value.payload, data.View):
            shape = value.payload.shape()
            yield from self._value(value.payload, shape, flow, prefix, joint, interface, protocol)
        else:
            yield self._port(f"{prefix}{joint}data", value.payload, flow, interface, protocol)
        yield self._port(f"{prefix}{joint}valid", value.valid, flow, interface, protocol)
        yield self._port(f"{prefix}{joint}ready", value.ready, flow.flip(), interface, protocol)

    def _value(self, value, shape, flow, name, joint, interface, protocol) -> Iterator[Port]:
        if isinstance(shape, data.Layout):
            for field, _ in shape:
                yield self._port(f"{name}{joint}{field}", value[field], flow, interface, protocol)
        else:
            yield self._port(name, value, flow, interface, protocol)

    def _port(self, name, value, flow, interface, protocol) -> Port:
        inner = Value.cast(value)
        signal = Signal(len(inner), name=name)
        if name in self.signals:
            raise ValueError(f"Port names must be unique, not {name!r}")
        self.signals[name] = (signal, flow)
        self._links.append((signal, inner, flow))
        direction = "input" if flow is In else "output"
        return Port(name=name, direction=direction, width=len(inner), interface=interface, protocol=protocol)


def _plain(name: str) -> str:
    return "" if name in BARE else name.removeprefix("axil_")

"""Each IP alone, with its register frames behind an AXI4-Lite port: what an integrator puts into a SoC of their own."""

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, connect, flipped

from .bus.axil import AXILiteSignature
from .bus.identity import Identity
from .regs.fabric import RegisterFabric, soc_frames

__all__ = ["HostedIp"]


class HostedIp(wiring.Component):
    """Gives an IP's frames one AXI4-Lite port, at the addresses of the SoC's register map.

    The frames keep their access rules: AxPROT[1] on the port is the world, AxUSER the NSAID, and whoever drives the
    port must be trusted to set both.

    Parameters
    ----------
    core : wiring.Component
        The IP.
    frames : dict of str to str
        Frame names of the register map, and the core's register bus that each belongs to.
    managers : dict of str to str
        For frames open to managers: the core's output that is their mask.
    names : dict of str to str
        New names for members of the core; the others keep theirs.
    addr_width : int
        Byte address width of the AXI4-Lite port.

    Members
    -------
    registers : In(AXILiteSignature)
        All frames.
    <member> : as in the core
        Every member of the core that is neither a frame nor a manager mask.

    Latency and ordering
    --------------------
    As :class:`.regs.fabric.RegisterFabric` for registers; everything else is wired through.
    """

    def __init__(self, *, core, frames: dict[str, str], managers: dict[str, str], names: dict[str, str], addr_width=32):
        self._core = core
        self._frames = frames
        self._managers = managers
        hidden = {*frames.values(), *managers.values()}
        if unknown := (hidden | set(names)) - set(core.signature.members):
            raise ValueError(f"Core must have the members that are named, not {sorted(unknown)!r}")
        self._through = {names.get(name, name): name for name in core.signature.members if name not in hidden}
        members = {outer: core.signature.members[name] for outer, name in self._through.items()}
        super().__init__({"registers": In(AXILiteSignature(addr_width=addr_width))} | members)
        self._addr_width = addr_width

    def elaborate(self, platform):
        m = Module()
        m.submodules.core = core = self._core
        m.submodules.fabric = fabric = RegisterFabric(
            masters={"port": Identity(nsaid=None, may_be_secure=True)},
            frames=soc_frames(*self._frames),
            addr_width=self._addr_width,
        )
        connect(m, flipped(self.registers), fabric.port)
        for frame, member in self._frames.items():
            connect(m, getattr(fabric, frame.lower()), getattr(core, member))
        for frame, member in self._managers.items():
            m.d.comb += getattr(fabric, f"{frame.lower()}_managers").eq(getattr(core, member))
        for outer, name in self._through.items():
            member = self.signature.members[outer]
            ours, theirs = getattr(self, outer), getattr(core, name)
            if member.is_signature:
                connect(m, flipped(ours), theirs)
            elif member.flow is In:
                m.d.comb += theirs.eq(ours)
            else:
                m.d.comb += ours.eq(theirs)
        return m

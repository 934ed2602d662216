"""Register frame of the region side."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from flexserve_hw.params import FlexMemParams
from flexserve_hw.regs.block import RegisterBlock
from flexserve_hw.regs.regbus import RegisterBusSignature

from .layouts import PAGE_SHIFT, REGIONS, pfn_width, region_layout, violation_layout

__all__ = ["RegionFrame"]

_ADDRESS_BITS_PER_REGISTER = 32


def _background(addr_width: int) -> dict[str, int]:
    """Region 0 covers every address and cannot be moved or disabled."""
    end = ((1 << addr_width) - 1) >> PAGE_SHIFT
    low = _ADDRESS_BITS_PER_REGISTER - PAGE_SHIFT
    bounds = {"BASE_LOW": 0, "BASE_HIGH": 0, "TOP_LOW": end & ((1 << low) - 1), "TOP_HIGH": end >> low}
    fixed = {f"REGION[0].{name}.address": value for name, value in bounds.items()}
    return {**fixed, "REGION[0].ATTRIBUTES.filter_en": 1}


class RegionFrame(wiring.Component):
    """The TZC-400 programmer's view.

    Region 0 is the background: its base, top and enable are constants. Region addresses above the bus are honoured: a
    base that cannot be reached disables its region, a top beyond the end is the end.

    Parameters
    ----------
    params : FlexMemParams

    Members
    -------
    bus : In(RegisterBusSignature)
    regions : Out
        Region 0 is always enabled.
    decerr : Out(1), interrupt : Out(1)
        ACTION: answer DECERR; raise the interrupt.
    gate : Out(1), open : In(1)
        The gate is asked to be open; it is.
    in_flight : In(1)
        Accepted accesses are not done.
    status, overrun, overlap : In(1); first, write : In
        See :class:`.fail.FailRecord`.
    clear : Out(1)

    Latency and ordering
    --------------------
    Writes take effect in the cycle after the request.
    """

    def __init__(self, *, params: FlexMemParams):
        self._params = params
        super().__init__(
            {
                "bus": In(RegisterBusSignature()),
                "regions": Out(region_layout(params)).array(REGIONS),
                "decerr": Out(1),
                "interrupt": Out(1),
                "gate": Out(1),
                "open": In(1),
                "in_flight": In(1),
                "status": In(1),
                "overrun": In(1),
                "overlap": In(1),
                "first": In(violation_layout(params)),
                "write": In(1),
                "clear": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.regs = regs = RegisterBlock("tzc400", fixed=_background(self._params.bus.addr_width))
        connect(m, flipped(self.bus), regs.bus)
        width = pfn_width(self._params)
        low = _ADDRESS_BITS_PER_REGISTER - PAGE_SHIFT
        for n, (region, ports) in enumerate(zip(self.regions, regs.REGION, strict=True)):
            base, top = Signal(low + 32, name=f"base{n}"), Signal(low + 32, name=f"top{n}")
            m.d.comb += [
                base.eq(Cat(ports.BASE_LOW.address.value, ports.BASE_HIGH.address.value)),
                top.eq(Cat(ports.TOP_LOW.address.value, ports.TOP_HIGH.address.value)),
                region.base.eq(base),
                region.top.eq(Mux(top[width:].any(), (1 << width) - 1, top)),
                region.enable.eq(ports.ATTRIBUTES.filter_en.value & ~base[width:].any()),
                region.secure_read.eq(ports.ATTRIBUTES.s_rd_en.value),
                region.secure_write.eq(ports.ATTRIBUTES.s_wr_en.value),
                region.read.eq(ports.ID_ACCESS.nsaid_rd_en.value),
                region.write.eq(ports.ID_ACCESS.nsaid_wr_en.value),
            ]
        m.d.comb += [
            regs.BUILD_CONFIG.address_width.value.eq(self._params.bus.addr_width - 1),
            self.decerr.eq(regs.ACTION.reaction.value[0]),
            self.interrupt.eq(regs.ACTION.reaction.value[1] & self.status),
            self.gate.eq(regs.GATE_KEEPER.request.value),
            regs.GATE_KEEPER.status.value.eq(self.open | self.in_flight),
            regs.INT_STATUS.status.value.eq(self.status),
            regs.INT_STATUS.overrun.value.eq(self.overrun),
            regs.INT_STATUS.overlap.value.eq(self.overlap),
            self.clear.eq(regs.INT_CLEAR.clear.swmod & regs.INT_CLEAR.clear.written),
            Cat(regs.FAIL_ADDRESS_LOW.address.value, regs.FAIL_ADDRESS_HIGH.address.value).eq(self.first.address),
            regs.FAIL_CONTROL.privileged.value.eq(self.first.privileged),
            regs.FAIL_CONTROL.non_secure.value.eq(self.first.nonsecure),
            regs.FAIL_CONTROL.write.value.eq(self.write),
            regs.FAIL_ID.id.value.eq(self.first.id),
            regs.FAIL_ID.vnet.value.eq(self.first.nsaid),
        ]
        return m

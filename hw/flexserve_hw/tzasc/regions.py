"""Region side: who may reach which address range, whatever state its pages are in."""

from amaranth.hdl import Cat, Module, Mux
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from flexserve_hw.bus.axi4 import NSAID_WIDTH
from flexserve_hw.params import FlexMemParams

from .layouts import REGIONS, pfn_width, region_layout

__all__ = ["RegionCheck"]


class RegionCheck(wiring.Component):
    """Match an address against the regions.

    Region 0 covers everything and is always enabled. An enabled region 1 to 8 that holds the address overrides it;
    if two of them do, the configuration is wrong and the access is denied.

    Parameters
    ----------
    params : FlexMemParams
    write : bool
        Check the write permissions rather than the read ones.

    Members
    -------
    regions : In
        The regions; ``base``, ``top`` and ``enable`` of region 0 are ignored.
    pfn : In, nonsecure : In(1), nsaid : In
        The access.
    allow : Out(1), overlap : Out(1)
        Verdict; ``overlap`` implies that ``allow`` is low.

    Latency and ordering
    --------------------
    Combinational.
    """

    def __init__(self, *, params: FlexMemParams, write: bool):
        self._write = write
        super().__init__(
            {
                "regions": In(region_layout(params)).array(REGIONS),
                "pfn": In(pfn_width(params)),
                "nonsecure": In(1),
                "nsaid": In(NSAID_WIDTH),
                "allow": Out(1),
                "overlap": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        hits = Cat(r.enable & (r.base <= self.pfn) & (self.pfn <= r.top) for r in self.regions[1:])
        permits = []
        for region in self.regions:
            secure, named = (region.secure_write, region.write) if self._write else (region.secure_read, region.read)
            permits.append(Mux(self.nonsecure, named.bit_select(self.nsaid, 1), secure))
        m.d.comb += [
            self.overlap.eq((hits & (hits - 1)[: len(hits)]).any()),
            self.allow.eq(~self.overlap & Mux(hits.any(), (hits & Cat(permits[1:])).any(), permits[0])),
        ]
        return m

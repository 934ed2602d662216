"""Region side: the verdict on every address and master, and the registers that region rules come from."""

from amaranth.hdl import Cat, Const, Mux

from flexserve_hw.params import BusParams, FlexMemParams
from flexserve_hw.tzasc.layouts import PAGE_SHIFT, REGIONS, pfn_width
from flexserve_hw.tzasc.region_frame import RegionFrame
from flexserve_hw.tzasc.regions import RegionCheck
from tests.formal.harness import Harness, proof

WIDE = 40
"""Address bits, so that a region's bounds take both of their words."""


@proof(reductions={}, fast=True, induction=True, depth=1, variants={"read": {"write": False}, "write": {"write": True}})
def check(h: Harness, write: bool) -> None:
    """The one region of 1 to 8 that has a page decides, region 0 if none has it, and nobody if two have it."""
    dut = h.dut(RegionCheck(params=FlexMemParams(), write=write))
    h.drive(dut, "in")
    hits = Cat(r.enable & ~((dut.pfn < r.base) | (dut.pfn > r.top)) for r in dut.regions[1:])
    number = sum(hits[1:], hits[0])
    rules = dut.regions[0]
    secure, named = (rules.secure_write, rules.write) if write else (rules.secure_read, rules.read)
    for n, region in enumerate(dut.regions[1:]):
        secure = Mux(hits[n], region.secure_write if write else region.secure_read, secure)
        named = Mux(hits[n], region.write if write else region.read, named)
    permitted = Mux(dut.nonsecure, (named >> dut.nsaid)[0], secure)
    h.prove("overlap_is_told", dut.overlap == (number > 1))
    h.prove("overlap_denies", ~dut.overlap | ~dut.allow)
    h.prove("one_region_decides", (number > 1) | (dut.allow == permitted))
    h.cover("background_allows", dut.allow & (number == 0))
    h.cover("region_denies_what_the_background_allows", (number == 1) & ~dut.allow & dut.regions[0].read.all())


@proof(reductions={}, induction=True, depth=2)
def background(h: Harness) -> None:
    """Region 0 has every address for ever, whatever is written; the others change by a write to them alone."""
    params = FlexMemParams(bus=BusParams(addr_width=WIDE, data_width=128, id_width=6))
    dut = h.dut(RegionFrame(params=params))
    h.drive(dut, "in")
    last = (1 << pfn_width(params)) - 1
    first = dut.regions[0]
    h.prove("background_is_everywhere", first.enable & (first.base == 0) & (first.top == last))
    for n in range(REGIONS):
        region, before = dut.regions[n].as_value(), h.past(dut.regions[n].as_value())
        addressed = dut.bus.valid & dut.bus.write & (dut.bus.addr[5:] == 0x100 // 0x20 + n)
        h.prove(f"region_{n}_changes_by_a_write_to_it_alone", ~h.started | (region == before) | h.past(addressed))
    reads = h.past(dut.bus.valid & ~dut.bus.write)
    top = Const(((1 << WIDE) - 1) & 0xFFFF_FFFF, 32), Const(((1 << WIDE) - 1) >> 32, 32)
    for offset, value in ((0x100, 0), (0x104, 0), (0x108, top[0]), (0x10C, top[1])):
        asked = reads & (h.past(dut.bus.addr[2:]) == offset >> 2)
        h.prove(f"bound_at_{offset:x}_reads_as_it_is", ~h.started | ~asked | (dut.bus.rdata == value))
    h.cover("rules_of_the_background_change", h.started & (first.read != h.past(first.read)))
    h.cover("region_begins_above_4_gib", dut.regions[1].base[32 - PAGE_SHIFT :].any() & dut.regions[1].enable)

"""Region side against a golden TZC-400: every register of the frame, and every access that its regions can judge."""

import random

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.sim import Simulator

from flexserve_hw.bus.axi4 import NSAID_WIDTH
from flexserve_hw.params import BusParams, FlexMemParams
from flexserve_hw.regs.block import RegisterBlock
from flexserve_hw.regs.regbus import RegisterBusSignature
from flexserve_hw.tzasc.layouts import pfn_width
from flexserve_hw.tzasc.region_frame import RegionFrame
from flexserve_hw.tzasc.regions import RegionCheck
from tests.hw.tzasc.tzc400_golden import REGIONS, Tzc400View

PAGE = 4096
FRAME = range(0, PAGE, 4)
_INTERESTING = (0, 1, 0xFFF, 0x1000, 0xFFFF_F000, 0xFFFF_FFFF, 0x5555_5555, 0xAAAA_AAAA)


class _Judge(wiring.Component):
    """The register frame with a check per direction behind it."""

    def __init__(self, *, addr_width):
        self._params = params = FlexMemParams(bus=BusParams(addr_width=addr_width, data_width=128, id_width=3))
        self.frame = RegionFrame(params=params)
        super().__init__(
            {
                "bus": In(RegisterBusSignature()),
                "pfn": In(pfn_width(params)),
                "nonsecure": In(1),
                "nsaid": In(NSAID_WIDTH),
                "allow": Out(2),
                "overlap": Out(2),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.frame = self.frame
        connect(m, flipped(self.bus), self.frame.bus)
        for write in (False, True):
            m.submodules[f"check{int(write)}"] = check = RegionCheck(params=self._params, write=write)
            m.d.comb += [
                check.pfn.eq(self.pfn),
                check.nonsecure.eq(self.nonsecure),
                check.nsaid.eq(self.nsaid),
                *(theirs.eq(ours) for theirs, ours in zip(check.regions, self.frame.regions, strict=True)),
                self.allow[write].eq(check.allow),
                self.overlap[write].eq(check.overlap),
            ]
        return m


async def access(ctx, bus, offset, value=None, *, strb=0xF):
    """One request; returns what a read gives."""
    ctx.set(bus.addr, offset)
    ctx.set(bus.write, value is not None)
    ctx.set(bus.wdata, value or 0)
    ctx.set(bus.strb, strb)
    ctx.set(bus.valid, 1)
    await ctx.tick()
    ctx.set(bus.valid, 0)
    assert not ctx.get(bus.error)
    return ctx.get(bus.rdata)


def run(dut, testbench):
    simulator = Simulator(dut)
    simulator.add_clock(1e-9)
    simulator.add_testbench(testbench)
    simulator.run()


def _frame(addr_width):
    return RegionFrame(params=FlexMemParams(bus=BusParams(addr_width=addr_width, data_width=128, id_width=6)))


@pytest.mark.parametrize("addr_width", [32, 40])
def test_every_word_of_the_frame_reads_after_reset_and_after_any_write_as_the_view_says(addr_width):
    """Reset values, read-only and reserved bits of all 1024 words: nothing but what the view names can be changed."""
    judge, view = _frame(addr_width), Tzc400View(addr_width)

    async def check(ctx):
        for offset in FRAME:
            assert await access(ctx, judge.bus, offset) == view.read(offset), hex(offset)
        for value in (0xFFFF_FFFF, 0):
            for offset in FRAME:
                assert await access(ctx, judge.bus, offset, value) == 0
                view.write(offset, value)
            for offset in FRAME:
                assert await access(ctx, judge.bus, offset) == view.read(offset), hex(offset)

    run(judge, check)


def test_a_write_changes_its_own_register_alone():
    """Random writes all over the frame; after each, every register that software can change is read."""
    judge, view = _frame(40), Tzc400View(40)
    dice = random.Random(400)

    async def check(ctx):
        for _ in range(80):
            offset = dice.choice([*view.masks(), dice.choice(FRAME)])
            value = dice.choice((dice.getrandbits(32), *_INTERESTING))
            await access(ctx, judge.bus, offset, value)
            view.write(offset, value)
            for register in view.masks():
                assert await access(ctx, judge.bus, register) == view.read(register), hex(register)

    run(judge, check)



def test_status_and_fail_registers_show_each_their_own_input():
    judge = _frame(40)

    async def check(ctx):
        async def read(offset):
            return await access(ctx, judge.bus, offset)

        for n, name in ((0, "status"), (8, "overrun"), (16, "overlap")):
            ctx.set(getattr(judge, name), 1)
            assert await read(0x010) == 1 << n
            ctx.set(getattr(judge, name), 0)
        for opened, busy in ((0, 0), (0, 1), (1, 0), (1, 1)):
            ctx.set(judge.open, opened)
            ctx.set(judge.in_flight, busy)
            assert await read(0x008) == (opened | busy) << 16
        ctx.set(judge.first.address, 0xA5_DEAD_B080)
        assert (await read(0x020), await read(0x024)) == (0xDEAD_B080, 0xA5)
        for name, bit in (("privileged", 20), ("nonsecure", 21)):
            ctx.set(getattr(judge.first, name), 1)
            assert await read(0x028) == 1 << bit
            ctx.set(getattr(judge.first, name), 0)
        ctx.set(judge.write, 1)
        assert await read(0x028) == 1 << 24
        ctx.set(judge.first.id, 0x2A)
        ctx.set(judge.first.nsaid, 0xC)
        assert await read(0x02C) == 0xC << 24 | 0x2A

    run(judge, check)


def test_only_a_one_in_the_filter_s_bit_clears():
    judge = _frame(32)

    async def check(ctx):
        for value, strb, clears in ((1, 0xF, 1), (0xFFFF_FFFF, 0xF, 1), (0xE, 0xF, 0), (0, 0xF, 0), (1, 0xE, 0)):
            ctx.set(judge.bus.addr, 0x014)
            ctx.set(judge.bus.write, 1)
            ctx.set(judge.bus.wdata, value)
            ctx.set(judge.bus.strb, strb)
            ctx.set(judge.bus.valid, 1)
            assert ctx.get(judge.clear) == clears, (value, strb)
            await ctx.tick()
            ctx.set(judge.bus.write, 0)
            assert ctx.get(judge.clear) == 0
            ctx.set(judge.bus.valid, 0)
            await ctx.tick()

    run(judge, check)


def test_the_interrupt_follows_the_record_in_two_of_the_four_actions():
    judge = _frame(32)

    async def check(ctx):
        for action in range(4):
            await access(ctx, judge.bus, 0x004, action)
            for recorded in (0, 1):
                ctx.set(judge.status, recorded)
                assert ctx.get(judge.interrupt) == (recorded and action >= 2)
                assert ctx.get(judge.decerr) == action & 1

    run(judge, check)


async def _program(ctx, judge, view, region, base, top, *, enable=1, secure=0, access_word=0):
    at = 0x100 + 0x20 * region
    words = (base & 0xFFFF_FFFF, base >> 32, top & 0xFFFF_FFFF, top >> 32, secure << 30 | enable, access_word)
    for n, word in enumerate(words):
        await access(ctx, judge.bus, at + 4 * n, word)
        view.write(at + 4 * n, word)


def _compare(ctx, judge, view, address, masters):
    ctx.set(judge.pfn, address // PAGE)
    for nonsecure, nsaid in masters:
        ctx.set(judge.nonsecure, nonsecure)
        ctx.set(judge.nsaid, nsaid)
        expected = [view.allows(address, write=w, nonsecure=nonsecure, nsaid=nsaid) for w in (False, True)]
        where = hex(address), nonsecure, nsaid
        assert ctx.get(judge.allow) == expected[0] | expected[1] << 1, where
        assert ctx.get(judge.overlap) == 3 * view.overlaps(address), where


_EVERYBODY = [(0, 0), (0, 15), *((1, nsaid) for nsaid in range(16))]


def test_every_base_and_top_of_a_region_is_exact_for_every_page():
    """All 16 x 16 bounds of a region in an address space of 16 pages, all of its pages; inverted bounds match none."""
    judge, view = _Judge(addr_width=16), Tzc400View(16)

    async def check(ctx):
        for base in range(16):
            for top in range(16):
                await _program(ctx, judge, view, 5, base * PAGE, top * PAGE + 0xFFF, access_word=1)
                for page in range(16):
                    _compare(ctx, judge, view, page * PAGE + PAGE - 1, [(1, 0)])

    run(judge, check)


@pytest.mark.parametrize("seed", range(3))
def test_random_regions_judge_every_page_and_every_master_as_the_golden_model(seed):
    """Up to eight regions, overlapping or not, some disabled, some reaching beyond the address space."""
    judge, view = _Judge(addr_width=16), Tzc400View(16)
    dice = random.Random(seed)

    async def check(ctx):
        for _ in range(6):
            await access(ctx, judge.bus, 0x110, secure := dice.getrandbits(2) << 30)
            await access(ctx, judge.bus, 0x114, rules := dice.getrandbits(32))
            view.write(0x110, secure)
            view.write(0x114, rules)
            for region in range(1, REGIONS):
                base, top = sorted((dice.randrange(20), dice.randrange(20)))
                high = dice.choice((0, 0, 0, 0, 1 << 32, 1 << 63))
                await _program(
                    ctx, judge, view, region, base * PAGE + (high if dice.random() < 0.3 else 0),
                    top * PAGE + 0xFFF + high, enable=dice.random() < 0.4, secure=dice.getrandbits(2),
                    access_word=dice.getrandbits(32),
                )  # fmt: skip
            for page in range(16):
                _compare(ctx, judge, view, page * PAGE, _EVERYBODY)

    run(judge, check)


@pytest.mark.parametrize("addr_width", [32, 40])
def test_edges_of_regions_are_exact_in_wide_address_spaces(addr_width):
    """Last byte before the base, base, top, first byte after it; regions at both ends; nothing aliases across 4 GiB."""
    judge, view = _Judge(addr_width=addr_width), Tzc400View(addr_width)
    end = 1 << addr_width
    spans = [(0, PAGE), (end - PAGE, end), (0x8000_0000, 0x8000_0000 + 5 * PAGE), (0x7FFF_F000, 0x8000_1000)]
    spans += [(0xFFFF_0000, 1 << 32), (0xFFFF_F000, (1 << 32) + PAGE), ((1 << 32) + PAGE, (1 << 32) + 3 * PAGE)]
    spans += [(0, end), (end, end + PAGE), (end - PAGE, end + PAGE), (1 << 63, 1 << 64)]

    async def check(ctx):
        for base, beyond in spans:
            await _program(ctx, judge, view, 3, base, beyond - 1, secure=3, access_word=0xFFFF_FFFF)
            edges = {0, end - 1, base - 1, base, beyond - 1, beyond, base & end - 1, beyond - 1 & end - 1}
            for address in sorted(a for a in edges if 0 <= a < end):
                _compare(ctx, judge, view, address, [(0, 0), (1, 7)])

    run(judge, check)


def test_a_region_that_begins_beyond_the_bus_never_wraps_onto_it():
    """A part that dropped the high bits would open the low addresses."""
    judge, view = _Judge(addr_width=32), Tzc400View(32)

    async def check(ctx):
        await _program(ctx, judge, view, 1, 1 << 32, (1 << 33) - 1, secure=3, access_word=0xFFFF_FFFF)
        for address in (0, PAGE, 0x8000_0000, 0xFFFF_F000):
            ctx.set(judge.pfn, address // PAGE)
            for nonsecure in (0, 1):
                ctx.set(judge.nonsecure, nonsecure)
                assert ctx.get(judge.allow) == 0

    run(judge, check)


def test_what_is_no_stored_field_cannot_be_fixed():
    for path in ("REGION[9].BASE_LOW.address", "PID0.value", "BUILD_CONFIG.address_width", "REGION.BASE_LOW.address"):
        with pytest.raises(ValueError, match=r"Fixed fields must be stored fields of tzc400, not \['"):
            RegisterBlock("tzc400", fixed={path: 0})

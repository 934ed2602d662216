"""A TZC-400 driver, unmodified, on the filter: what it asks for is what every master gets, page side included.

The flexible window is ready before the driver opens the gate: the one thing that its surroundings must see to. The
bench judges every transaction by the golden view of what the driver wrote, and by the state of its page.
"""

import random

import pytest

from flexserve_hw.bus.axi4 import Resp
from flexserve_sw.regs import FLEX_SECURE, TZC
from tests.hw.tzasc.bench import DRAM_PFN, NORMAL, PAGE, SECURE, WINDOW_PFN, C, R, S, make_filter_bench
from tests.hw.tzasc.tzc400_driver import Action, Failure, Secure, Tzc400Driver, Tzc400Error, nsaids
from tests.hw.tzasc.tzc400_golden import Tzc400View

P = WINDOW_PFN
RAM = DRAM_PFN * PAGE
WINDOW = P * PAGE
ALL = tuple(range(16))
EVERYTHING = nsaids(read=ALL, write=ALL)
GATE_KEEPER, ACTION = 0x008, 0x004


class Port:
    """Register accesses of the driver. What it writes, the golden view learns; ``polls`` are its looks at the gate."""

    def __init__(self, bench, ctx):
        self.bench, self.ctx = bench, ctx
        self.view = Tzc400View(32)
        self.polls = []
        self.while_polling = lambda: None
        bench.region_allows = lambda burst: self.view.allows(
            burst.address, write=burst.write, nonsecure=burst.world is NORMAL, nsaid=burst.nsaid
        )

    async def read(self, offset):
        assert len(self.polls) < 2000, "the driver waits for the gate in vain"
        value = await self.bench.peek(self.ctx, TZC.base + offset)
        if offset == GATE_KEEPER:
            self.polls.append((self.bench.cycle, value))
            self.while_polling()
        return value

    async def write(self, offset, value):
        assert not await self.bench.poke(self.ctx, TZC.base + offset, value)
        self.view.write(offset, value)
        if offset == ACTION:
            self.bench.denied_resp = Resp.DECERR if value & 1 else Resp.OKAY


async def power_up(bench, ctx, *, debug=True):
    """A filter with its window ready, and a driver that has seen it."""
    await bench.open_window(ctx)
    port = Port(bench, ctx)
    driver = Tzc400Driver(port.read, port.write, debug=debug)
    await driver.init()
    return driver, port


async def open_to_all(driver, *, action=Action.ERROR_AND_INTERRUPT):
    await driver.configure_region0(secure=Secure.BOTH, access=EVERYTHING)
    await driver.set_action(action)
    await driver.enable_filters()


async def settle(bench, ctx, *bursts):
    """Wait for answers; returns which were allowed."""
    await bench.done(ctx, *bursts)
    return [burst.allowed for burst in bursts]


def traffic(bench, pages):
    """Reads at the first and writes at the last bytes of each page, by every NSAID and by the secure world."""
    found = []
    for page in pages:
        first, last = page * PAGE, page * PAGE + PAGE - 128
        for nsaid in ALL:
            found += [bench.read(first, nsaid=nsaid), bench.write(last, nsaid=nsaid)]
        found += [bench.read(first, SECURE), bench.write(last, SECURE)]
    return found


@pytest.mark.parametrize("debug", [False, True], ids=["release", "debug"])
def test_firmware_boots_handles_a_violation_and_changes_the_rules(debug):
    """Both flavours: closed gate, regions, open gate, a violation, drain behind a closing gate, other rules."""

    async def scenario(bench, ctx):
        driver, port = await power_up(bench, ctx, debug=debug)
        assert (driver.filters, driver.regions, driver.address_width) == (1, 9, 32)
        early = bench.read(RAM, nsaid=1), bench.write(RAM, nsaid=2)
        await driver.disable_filters()
        await driver.configure_region0(secure=Secure.NONE, access=0)
        await driver.configure_region(
            1, RAM, RAM + 4 * PAGE - 1, secure=Secure.READ, access=nsaids(read=(1, 2, 3), write=(2, 3, 15))
        )
        await driver.configure_region(2, RAM + 4 * PAGE, RAM + 6 * PAGE - 1, secure=Secure.WRITE, access=0, filters=0)
        await driver.configure_region(3, WINDOW, WINDOW + 12 * PAGE - 1, secure=Secure.BOTH, access=EVERYTHING)
        await driver.configure_region(8, 0xFFFF_F000, 0xFFFF_FFFF, secure=Secure.BOTH, access=nsaids(read=(9,)))
        await driver.set_action(Action.ERROR_AND_INTERRUPT)
        await driver.set_speculation(read=False, write=False)
        assert [burst.accepted for burst in early] == [-1, -1]
        await driver.enable_filters()
        assert await settle(bench, ctx, *early) == [True, True]

        with pytest.raises(Tzc400Error, match="No filter has recorded a violation"):
            await driver.handle_interrupt()
        first = bench.write(RAM + 0x1080, nsaid=1, id=6, privileged=True)
        assert await settle(bench, ctx, first) == [False]
        await settle(bench, ctx, *traffic(bench, [DRAM_PFN - 1, DRAM_PFN, DRAM_PFN + 3, DRAM_PFN + 4]))
        bursts = traffic(bench, [P - 1, P, P + 11, P + 12, 0xFFFFF])
        await settle(bench, ctx, *bursts)
        assert sum(burst.allowed for burst in bursts) == 2 * 2 * 16 + 3
        assert ctx.get(bench.dut.irq_tzc)
        failure = await driver.handle_interrupt()
        violation = {"address": first.address, "write": True, "nonsecure": True, "privileged": True, "id": 1 << 24 | 6}
        expected = Failure(**violation, overrun=True, overlap=False)
        assert failure == (expected if debug else None)
        assert not ctx.get(bench.dut.irq_tzc)

        bench.memory.hold_answers = True
        last = bench.write(RAM, nsaid=2)
        await bench.until(ctx, lambda: last.accepted >= 0, "acceptance")
        port.polls.clear()
        port.while_polling = lambda: setattr(bench.memory, "hold_answers", len(port.polls) < 20)
        await driver.disable_filters()
        assert len(port.polls) > 20
        assert {value for _, value in port.polls[1:20]} == {1 << 16}
        assert last.answered < port.polls[-1][0]
        late = bench.read(RAM, nsaid=4), bench.read(RAM, nsaid=1)
        await driver.configure_region(1, RAM, RAM + 4 * PAGE - 1, secure=Secure.NONE, access=nsaids(read=(4,)))
        await driver.update_filters(2, 1)
        assert [burst.accepted for burst in late] == [-1, -1]
        await driver.enable_filters()
        assert await settle(bench, ctx, *late) == [True, False]
        assert (await driver.dump())["rules2"] == Secure.WRITE << 30 | 1
        with pytest.raises(Tzc400Error, match="Filter 0 is open already"):
            await driver.enable_filters()
        bursts = traffic(bench, [DRAM_PFN, DRAM_PFN + 4])
        await settle(bench, ctx, *bursts)
        assert sum(burst.allowed for burst in bursts) == 2

    make_filter_bench().run(scenario)


def test_the_debug_flavour_refuses_what_the_part_cannot_do():
    """So the debug run above shows that nothing of this happened; and another part is not taken for a TZC-400."""

    async def scenario(bench, ctx):
        driver, port = await power_up(bench, ctx)
        for region, base, top in ((9, 0, 0xFFF), (1, 0x800, 0xFFF), (1, 0, 0x7FF), (1, 0x2000, 0xFFF), (1, 0, 1 << 32)):
            with pytest.raises(Tzc400Error):
                await driver.configure_region(region, base, top, secure=Secure.NONE, access=0)
        with pytest.raises(Tzc400Error, match="no filter of the mask 0x2"):
            await driver.update_filters(1, 2)

        async def another(offset):
            return await bench.peek(ctx, FLEX_SECURE.base + offset if offset < 0x80 else FLEX_SECURE.ID)

        with pytest.raises(Tzc400Error, match="no TZC-400"):
            await Tzc400Driver(another, port.write, debug=True).init()

    make_filter_bench().run(scenario)


def test_a_gate_that_is_asked_to_open_too_early_opens_when_the_window_is_ready():
    """The request is kept; until every page is zeroed and the table holds a state for it, nothing passes."""

    async def scenario(bench, ctx):
        await bench.open_window(ctx, wait=False)
        port = Port(bench, ctx)
        driver = Tzc400Driver(port.read, port.write, debug=True)
        await driver.init()
        held = bench.read(RAM), bench.write(WINDOW)
        await open_to_all(driver)
        assert len(bench.scrubbed) == bench.pages
        assert set(bench.shadow.values()) == {S.NORMAL}
        assert {value for _, value in port.polls[2:-1]} == {1}
        assert port.polls[-1][1] == 1 << 16 | 1
        assert len(port.polls) > 100
        assert await settle(bench, ctx, *held) == [True, True]
        bench.golden.freed.clear()

    make_filter_bench().run(scenario)


@pytest.mark.parametrize("action", Action, ids=lambda action: action.name)
def test_each_action_answers_and_interrupts_alike_for_regions_overlaps_and_pages(action):
    async def scenario(bench, ctx):
        driver, _ = await power_up(bench, ctx)
        for region in (1, 2):
            await driver.configure_region(region, RAM, RAM + PAGE - 1, secure=Secure.BOTH, access=EVERYTHING)
        await driver.configure_region(3, RAM + PAGE, RAM + 2 * PAGE - 1, secure=Secure.BOTH, access=nsaids(read=(1,)))
        await open_to_all(driver, action=action)
        await bench.lend(ctx, P)
        for address, overlap in ((RAM, True), (RAM + PAGE, False), (WINDOW, False)):
            for write in (False, True):
                burst = (bench.write if write else bench.read)(address, nsaid=2, beats=3)
                assert await settle(bench, ctx, burst) == [False]
                resp = Resp.DECERR if action & 1 else Resp.OKAY
                assert burst.resp == [resp] * (1 if write else 3)
                assert burst.got == ([] if write else [0, 0, 0])
                assert ctx.get(bench.dut.irq_tzc) == action >> 1
                failure = await driver.handle_interrupt()
                assert (failure.address, failure.write) == (address, write)
                assert (failure.overlap, failure.overrun) == (overlap, False)
                assert not ctx.get(bench.dut.irq_tzc)

    make_filter_bench().run(scenario)


def test_an_overlap_denies_whoever_asks_and_ends_with_the_configuration_that_made_it():
    """Two regions that both permit deny where they overlap; with region 0 nothing overlaps."""

    async def scenario(bench, ctx):
        driver, _ = await power_up(bench, ctx)
        await driver.configure_region(1, RAM, RAM + 3 * PAGE - 1, secure=Secure.BOTH, access=EVERYTHING)
        await driver.configure_region(7, RAM + 2 * PAGE, WINDOW + PAGE - 1, secure=Secure.BOTH, access=EVERYTHING)
        await driver.configure_region(8, WINDOW, WINDOW + PAGE - 1, secure=Secure.BOTH, access=EVERYTHING)
        await open_to_all(driver)
        await bench.lend(ctx, P + 1)
        for page, overlap in ((DRAM_PFN + 1, False), (DRAM_PFN + 2, True), (DRAM_PFN + 3, False), (P, True)):
            for world in (NORMAL, SECURE):
                for write in (False, True):
                    burst = (bench.write if write else bench.read)(page * PAGE, world)
                    assert await settle(bench, ctx, burst) == [not overlap]
                    assert await bench.peek(ctx, TZC.INT_STATUS) == (1 << 16 | 1 if overlap else 0)
                    if overlap:
                        assert (await driver.handle_interrupt()).overlap
        # A denial of another kind first: the overlap that follows is an overrun and shows all the same.
        other = bench.read((P + 1) * PAGE)
        assert await settle(bench, ctx, other, bench.read(RAM + 2 * PAGE)) == [False, False]
        failure = await driver.handle_interrupt()
        assert (failure.address, failure.overrun, failure.overlap) == (other.address, True, True)
        await driver.update_filters(7, 0)
        assert await settle(bench, ctx, *(bench.read(page * PAGE) for page in (DRAM_PFN + 2, P))) == [True, True]

    make_filter_bench().run(scenario)


def test_the_first_failure_is_held_in_full_until_it_is_cleared():
    """Every direction, world and privilege, with other NSAIDs and IDs; a flood of each other kind behind each."""

    async def scenario(bench, ctx):
        driver, _ = await power_up(bench, ctx)
        await driver.configure_region(1, RAM, RAM + PAGE - 1, secure=Secure.NONE, access=0)
        await open_to_all(driver)
        kinds = [(w, world, p) for w in (False, True) for world in (NORMAL, SECURE) for p in (False, True)]

        def deny(kind, n):
            write, world, privileged = kind
            make = bench.write if write else bench.read
            return make(RAM + 128 * n, world, privileged=privileged, nsaid=15 - n, id=n % 8)

        for n, kind in enumerate(kinds):
            first = deny(kind, n)
            await settle(bench, ctx, first)
            for flood in (False, True):
                if flood:
                    await settle(bench, ctx, *(deny(other, m + 9) for m, other in enumerate(kinds[:6])))
                before = await driver.dump()
                assert before["status"] == 1 | flood << 8
                failure = await driver.failure(0, before["status"])
                write, world, privileged = kind
                assert failure == Failure(
                    address=first.address,
                    write=write,
                    nonsecure=world is NORMAL,
                    privileged=privileged,
                    id=first.id | first.nsaid << 24,
                    overrun=flood,
                    overlap=False,
                )
            assert await driver.handle_interrupt() == failure
            assert (await driver.dump())["status"] == 0

    make_filter_bench().run(scenario)


def test_an_access_needs_its_region_and_its_page():
    """Region permits or not, page permits or not, both worlds and directions: only one of the four passes."""

    async def scenario(bench, ctx):
        driver, _ = await power_up(bench, ctx)
        lent, own = P, P + 4
        await bench.lend(ctx, lent, 4)
        open_pages, closed = (0, 4), (2, 6)
        for region, page in enumerate(closed, start=1):
            at = WINDOW + page * PAGE
            await driver.configure_region(region, at, at + 2 * PAGE - 1, secure=Secure.NONE, access=0)
        await open_to_all(driver)
        seen = set()
        for world, mine, other in ((NORMAL, own, lent), (SECURE, lent, own)):
            for write in (False, True):
                for region_permits in (True, False):
                    for page_permits in (True, False):
                        page = (mine if page_permits else other) + (0 if region_permits else 2)
                        assert (page - P in open_pages) == region_permits
                        burst = (bench.write if write else bench.read)(page * PAGE, world, beats=2)
                        (allowed,) = await settle(bench, ctx, burst)
                        assert allowed == (region_permits and page_permits)
                        if not allowed:
                            assert (await driver.handle_interrupt()).address == page * PAGE
                        seen.add((world, write, region_permits, page_permits))
        assert len(seen) == 16

    make_filter_bench().run(scenario)


@pytest.mark.parametrize("seed", range(2))
def test_rules_may_change_under_traffic_and_each_address_goes_by_those_of_its_cycle(seed):
    """Random writes to region registers while the gate is open, half-programmed regions and overlaps among them."""
    dice = random.Random(seed)

    async def scenario(bench, ctx):
        driver, port = await power_up(bench, ctx)
        await open_to_all(driver)
        await bench.lend(ctx, P, 2)
        offsets = [0x110, 0x114, *(0x100 + 0x20 * r + 4 * n for r in (1, 4, 8) for n in (0, 2, 4, 5))]
        bursts = []
        for _ in range(250):
            offset = dice.choice(offsets)
            address = (DRAM_PFN + 12 + dice.randrange(8)) * PAGE
            rules = dice.getrandbits(32) | dice.getrandbits(32)
            value = {0x8: address | 0xFFF, 0x10: rules | (dice.random() < 0.6), 0x14: rules}.get(offset % 0x20, address)
            await port.write(offset, value)
            for _ in range(dice.randrange(4)):
                make = dice.choice((bench.read, bench.write))
                page = DRAM_PFN + 10 + dice.randrange(12)
                world = dice.choice((NORMAL, NORMAL, SECURE))
                bursts.append(make(page * PAGE, world, nsaid=dice.randrange(16), id=dice.randrange(8)))
        await bench.done(ctx, *bursts)
        allowed = sum(burst.allowed for burst in bursts)
        assert 0.2 < allowed / len(bursts) < 0.8
        assert await bench.command(ctx, SECURE, C.RELEASE, P, 2) == (R.OK, 0)

    make_filter_bench(seed=seed, stall=0.2).run(scenario)

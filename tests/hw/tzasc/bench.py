"""Bench for the whole filter: masters above, a memory below, a scoreboard that watches both.

The scoreboard holds the filter to these, in every cycle of every test:

* a transaction is allowed exactly if its region and the state of its page at its acceptance allow it, or, if that state
  had to be fetched from memory, at some time from then until its verdict;
* transactions of one ID and direction are answered in order, once, with all their beats; allowed reads carry what
  memory returned, denied reads zeros;
* no non-secure read returns a beat that a secure write left behind (SEC-01), no non-secure write lands in a page that
  is lent, being scrubbed or sealed (SEC-02), and a page is all zeros when it leaves SCRUBBING;
* pages change state only as the golden model says, and commands are answered as it answers them;
* a command is reported only when every transaction accepted before it took effect is answered (SEC-06).
"""

import random
from collections import deque
from dataclasses import dataclass, field
from functools import cache

from amaranth.sim import Simulator

from flexserve_hw.bus.axi4 import Resp
from flexserve_hw.params import BusParams, FlexMemParams
from flexserve_hw.tzasc.filter import FlexFilter
from flexserve_hw.tzasc.line import memory_pages
from flexserve_sw.machine import World
from flexserve_sw.recall import ACCESS, RecallTable
from flexserve_sw.regs import FLEX_NORMAL, FLEX_SECURE, TZC, RecallCommand, RecallResult, RecallState
from tests.hw.tzasc.clockwork import clockwork
from tests.hw.tzasc.table_memory import TABLE_PFN, TableMemory

PAGE = 4096
DRAM_PFN = 0x80000
DRAM_PAGES = 64
WINDOW_PFN = DRAM_PFN + 16
NORMAL, SECURE = World.NORMAL, World.SECURE
S, C, R = RecallState, RecallCommand, RecallResult


class variant:
    """Where the page-state table lies in the tests that run: None on chip, else so many words of it are cached."""

    cache_lines = None


def small(**changes) -> FlexMemParams:
    """Few pages, few beats per page, so that a boot takes about four hundred cycles."""
    bus = BusParams(addr_width=32, data_width=1024, id_width=3)
    settings = {"pages": 32, "group": 4, "freed_depth": 8, "grace_min": 50, "grace_max": 5000, "outstanding": 7}
    settings["cache_lines"] = variant.cache_lines
    return FlexMemParams(**{"bus": bus, **settings, **changes})


@dataclass(eq=False)
class Burst:
    """A transaction: what was asked, when it was accepted and answered, and what came of it."""

    write: bool
    address: int
    world: World
    id: int = 0
    nsaid: int = 0
    privileged: bool = False
    beats: int = 1
    size: int = 7
    kind: int = 1
    data: list = field(default_factory=list)
    strobes: list = field(default_factory=list)
    gap: int = 0
    last: list | None = None
    offered: int = -1
    accepted: int = -1
    answered: int = -1
    allowed: bool | None = None
    verdicts: set = field(default_factory=set)
    missed: bool = False
    resp: list = field(default_factory=list)
    got: list = field(default_factory=list)
    sent: int = 0

    @property
    def pfn(self):
        return self.address // PAGE

    def addresses(self):
        """Byte address of each beat's bus word (aligned to the beat)."""
        step = 1 << self.size
        if self.kind == 0:
            return [self.address] * self.beats
        start = self.address // step * step
        if self.kind == 1:
            return [self.address] + [start + n * step for n in range(1, self.beats)]
        total = step * self.beats
        low = self.address // total * total
        return [low + (start - low + n * step) % total for n in range(self.beats)]


class Memory:
    """Downstream memory: answers after ``latency`` cycles, stalls at random, remembers which world wrote a word."""

    def __init__(self, bench, *, seed, stall, latency):
        self.bench, self.random, self.stall, self.latency = bench, random.Random(seed), stall, latency
        self.step = bench.params.bus.data_width // 8
        self.words = {}
        self.dirty = {}
        self.reads, self.beats, self.answers = deque(), deque(), []
        self.write_addresses = deque()
        self.write_beats = 0
        self.hold_reads = self.hold_answers = self.hold_addresses = self.hold_scrub_answers = False
        self.data_first = False
        self.fail_scrubs = 0
        self.scrub_addresses = []
        self.busy_writes = 0

    def stalled(self):
        return self.random.random() < self.stall

    def word(self, address):
        return self.words.get(address // self.step, (self.random.getrandbits(16) | 0xAB0000, NORMAL))

    def page(self, pfn):
        first = pfn * PAGE // self.step
        return [self.words.get(n) for n in range(first, first + PAGE // self.step)]


class _Simulation:
    """An elaborated filter, used by one bench after the other: elaboration takes longer than most tests."""

    def __init__(self, params):
        self.dut = FlexFilter(params=params)
        self.bench = self.scenario = None
        self.used = False
        self.simulator = Simulator(self.dut)
        self.simulator.add_clock(1e-9)

        async def heart(ctx):
            await clockwork(self.bench, ctx)

        async def testbench(ctx):
            await self.scenario(self.bench, ctx)
            await self.bench.idle(ctx)

        self.simulator.add_testbench(heart, background=True)
        self.simulator.add_testbench(testbench)

    def run(self, bench, scenario):
        if self.used:
            self.simulator.reset()
        self.bench, self.scenario, self.used = bench, scenario, True
        try:
            self.simulator.run()
        except BaseException:
            _simulation.cache_clear()
            raise


@cache
def _simulation(params):
    return _Simulation(params)


class Bench:
    """One filter with its surroundings.

    Parameters
    ----------
    params : FlexMemParams
    seed : int
        Of everything random.
    stall : float
        Probability that a channel is not ready, or a master does not offer, in a cycle.
    latency : int
        Cycles in memory.
    """

    def __init__(self, *, params=None, seed=1, stall=0.0, latency=4, pages=12):
        self.params = params or small()
        self.simulation = _simulation(self.params)
        self.dut = self.simulation.dut
        self.random = random.Random(seed)
        self.seed, self.stall, self.pages = seed, stall, pages
        self.memory = Memory(self, seed=seed + 1, stall=stall, latency=latency)
        self.table = None
        if self.params.cache_lines is not None:
            self.table = TableMemory(self, seed=seed + 2, stall=stall, latency=latency)
        self.cycle = 0
        self.aw, self.w, self.ar = deque(), deque(), deque()
        self.waiting = {True: {}, False: {}}
        self.accepted, self.denied_log = [], []
        self.shadow = {}
        self.enabled = False
        self.golden = None
        self.open_commands = [None, None]
        self.decided = [None, None]
        self.events = []
        self.expiries = 0
        self.results = []
        self.windowless = False
        self.corrupt = None
        self.scrubbed = []
        self.quiet_pages = set()
        self.r_ready = self.b_ready = True
        self.violations = 0
        self.region_allows = lambda burst: True
        self.tolerance = 0
        self.max_wait = 5000
        self.denied_resp = Resp.DECERR

    # Traffic ---------------------------------------------------------------------------------------------------

    def read(self, address, world=NORMAL, **options):
        """Queue a read; returns its :class:`Burst`."""
        options.setdefault("size", (self.params.bus.data_width // 8).bit_length() - 1)
        burst = Burst(False, address, world, **options)
        self.ar.append(burst)
        return burst

    def write(self, address, world=NORMAL, *, data=None, **options):
        """Queue a write with ``data`` per beat (random if None)."""
        options.setdefault("size", (self.params.bus.data_width // 8).bit_length() - 1)
        burst = Burst(True, address, world, **options)
        lanes = self.params.bus.data_width // 8
        burst.data = (
            data if data is not None else [self.random.getrandbits(lanes * 8 - 1) | 1 for _ in range(burst.beats)]
        )
        burst.strobes = burst.strobes or [(1 << lanes) - 1] * burst.beats
        self.aw.append(burst)
        self.w.append(burst)
        return burst

    async def until(self, ctx, condition, what):
        """Wait for ``condition()``; fails after ``max_wait`` cycles."""
        start = self.cycle
        while not condition():
            assert self.cycle - start < self.max_wait, f"{what} did not happen (seed {self.seed})"
            await ctx.tick()

    async def done(self, ctx, *bursts):
        """Wait until ``bursts`` are answered."""
        await self.until(ctx, lambda: all(b.answered >= 0 for b in bursts), f"answer to {bursts}")

    async def idle(self, ctx):
        """Wait until nothing is queued or in flight."""
        await self.until(ctx, lambda: not (self.aw or self.w or self.ar or self.in_flight()), "idleness")

    def in_flight(self):
        return [b for directions in self.waiting.values() for queue in directions.values() for b in queue]

    # Registers -------------------------------------------------------------------------------------------------

    async def request(self, ctx, bus, address, data=None):
        ctx.set(bus.addr, address & 0xFFF)
        ctx.set(bus.write, data is not None)
        ctx.set(bus.wdata, data or 0)
        ctx.set(bus.strb, 0xF)
        ctx.set(bus.valid, 1)
        await ctx.tick()
        ctx.set(bus.valid, 0)
        return ctx.get(bus.rdata), ctx.get(bus.error)

    def frame(self, address):
        return {0x1: self.dut.tzc, 0x2: self.dut.flex_normal, 0x3: self.dut.flex_secure}[address >> 16]

    async def poke(self, ctx, address, data):
        """Write a register by its address in the map; returns whether it was refused."""
        return (await self.request(ctx, self.frame(address), address, data))[1]

    async def peek(self, ctx, address):
        """Read a register by its address in the map."""
        value, error = await self.request(ctx, self.frame(address), address)
        assert not error
        return value

    async def boot(self, ctx, *, lock=True, wait=True, grace=200, action=1):
        """What the monitor does: regions wide open, window, gate, lock."""
        for region, (base, top) in enumerate([(0, 0)]):
            await self.poke(ctx, TZC.REGION[region].ATTRIBUTES, 3 << 30)
            await self.poke(ctx, TZC.REGION[region].ID_ACCESS, 0xFFFFFFFF)
            assert base == top
        await self.poke(ctx, TZC.ACTION, action)
        await self.open_window(ctx, lock=lock, wait=wait, grace=grace)
        await self.poke(ctx, TZC.GATE_KEEPER, 1)

    async def open_window(self, ctx, *, lock=True, wait=True, grace=200):
        """The page side's part of the boot; leaves regions and gate alone."""
        await self.poke(ctx, FLEX_SECURE.WINDOW_BASE, WINDOW_PFN)
        await self.poke(ctx, FLEX_SECURE.WINDOW_PAGES, self.pages)
        await self.poke(ctx, FLEX_SECURE.TABLE_BASE, TABLE_PFN)
        await self.poke(ctx, FLEX_SECURE.GRACE, grace)
        await self.poke(ctx, FLEX_SECURE.CONTROL, 2)
        self.golden = RecallTable(
            base=WINDOW_PFN, count=self.pages, grace=grace, timers=self.params.timers, initial=S.SCRUBBING
        )
        self.enabled = True
        if wait:
            await self.ready(ctx)
        if lock:
            await self.lock(ctx)

    async def lock(self, ctx):
        await self.poke(ctx, FLEX_SECURE.CONTROL, 1)
        self.golden.locked = True

    async def ready(self, ctx):
        start = self.cycle
        while not await self.peek(ctx, FLEX_SECURE.CONTROL) & 4:
            assert self.cycle - start < 200 * self.pages + 40 * PAGE, "the window did not become ready"
        assert set(self.shadow.values()) == {S.NORMAL}
        self.golden.freed.clear()
        self.golden.owed = 0

    async def start(self, ctx, world, code, first, count=1):
        """Give a command and return."""
        frame = FLEX_SECURE if world is SECURE else FLEX_NORMAL
        self.open_commands[world is SECURE] = (code, first, count)
        assert not await self.poke(ctx, frame.CMD.FIRST, first)
        assert not await self.poke(ctx, frame.CMD.COUNT, count)
        assert not await self.poke(ctx, frame.CMD.COMMAND, code)

    async def finished(self, ctx, world):
        """Wait until the world's command is reported; returns ``(result, offender)``."""
        frame, start = FLEX_SECURE if world is SECURE else FLEX_NORMAL, self.cycle
        while (status := await self.peek(ctx, frame.CMD.STATUS)) & 1:
            assert self.cycle - start < self.max_wait, f"{world} command was not reported (seed {self.seed})"
        decided, outcome = self.decided[world is SECURE]
        late = [b for b in self.in_flight() if b.accepted <= decided]
        assert outcome.result is not R.OK or not late, f"reported before {late} were answered (seed {self.seed})"
        result, offender = R(status >> 4), await self.peek(ctx, frame.CMD.OFFENDER)
        assert (result, offender) == (outcome.result, outcome.offender), f"seed {self.seed}"
        self.decided[world is SECURE] = None
        self.results.append(result)
        return result, offender

    async def command(self, ctx, world, code, first, count=1):
        """Give a command and wait for its report."""
        await self.start(ctx, world, code, first, count)
        return await self.finished(ctx, world)

    async def lend(self, ctx, first, count=1):
        """DELEGATE and ACCEPT."""
        assert await self.command(ctx, NORMAL, C.DELEGATE, first, count) == (R.OK, 0)
        assert await self.command(ctx, SECURE, C.ACCEPT, first, count) == (R.OK, 0)

    # The clockwork ---------------------------------------------------------------------------------------------

    def run(self, scenario):
        """Run ``async scenario(bench, ctx)`` to its end, then let traffic finish."""

        self.simulation.run(self, scenario)
        return self

    def state(self, pfn):
        return self.shadow.get(pfn)

    def holds_table(self, pfn):
        """Whether the page is part of the table in memory: nobody's, once there is a window."""
        return self.table is not None and self.enabled and 0 <= pfn - TABLE_PFN < memory_pages(self.params)

    def legal(self, burst):
        """Whether ``burst`` is AXI and stays within its page."""
        step = 1 << burst.size
        if step * 8 > self.params.bus.data_width:
            return False
        if burst.kind == 1:
            return burst.address // step * step % PAGE + burst.beats * step <= PAGE
        return burst.beats in (2, 4, 8, 16) if burst.kind == 2 else burst.kind == 0 and burst.beats <= 16

    def allows(self, burst):
        """Whether page and region allow ``burst``, as things are in this cycle."""
        if not self.legal(burst) or not self.region_allows(burst) or self.holds_table(burst.pfn):
            return False
        if self.enabled and WINDOW_PFN <= burst.pfn < WINDOW_PFN + self.pages:
            state = S.CORRUPT if burst.pfn == self.corrupt else self.shadow.get(burst.pfn)
            return state is not None and len(self.shadow) == self.pages and burst.world in ACCESS[state]
        return True


def make_filter_bench(**options) -> Bench:
    """A bench for the filter; see :class:`Bench` for the options."""
    return Bench(**options)


DECERR = Resp.DECERR.value

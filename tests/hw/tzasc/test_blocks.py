"""Parts of the filter, each against a few lines of Python that say the same."""

import random

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from flexserve_hw.bus.axi4 import AXI4Shape
from flexserve_hw.params import FlexMemParams
from flexserve_hw.tzasc.bursts import stays_in_page
from flexserve_hw.tzasc.fail import FailRecord
from flexserve_hw.tzasc.frames import ManagementFrames
from flexserve_hw.tzasc.freed import FreedQueue
from flexserve_hw.tzasc.regions import RegionCheck
from flexserve_hw.tzasc.rules import NORMAL_FRAME
from flexserve_hw.tzasc.rules import TRANSITIONS as HARDWARE
from flexserve_hw.tzasc.states import CODE_WIDTH, STATES, StateWord, code, decode, first_set, popcount
from flexserve_hw.tzasc.tally import Tally
from flexserve_hw.tzasc.walk import HintedWalk
from flexserve_sw.machine import World
from flexserve_sw.recall import TRANSITIONS
from flexserve_sw.regs import FLEX_SECURE
from tests.hw.tzasc.bench import small


def run(block, testbench):
    sim = Simulator(block)
    sim.add_clock(1e-9)
    sim.add_testbench(testbench)
    sim.run()


def test_code_words_are_two_bits_apart_and_all_else_decodes_as_corrupt():
    """SEC-11: all 64 stored words; no single upset leads from one state to another."""
    m, word, state = Module(), Signal(CODE_WIDTH), Signal(3)
    m.d.comb += state.eq(decode(word))
    legal = {code(s): s.value for s in STATES}
    assert all((a ^ b).bit_count() == 2 for a in legal for b in legal if a != b)

    async def check(ctx):
        for value in range(1 << CODE_WIDTH):
            ctx.set(word, value)
            assert ctx.get(state) == legal.get(value, 7)

    sim = Simulator(m)
    sim.add_testbench(check)
    sim.run()


class _Word(wiring.Component):
    """A state word with its questions as ports."""

    word: In(8 * CODE_WIDTH)
    states: In(CODE_WIDTH)
    legal: Out(8)
    within: Out(8)
    count: Out(8)
    first: Out(3)

    def elaborate(self, platform):
        m = Module()
        word = StateWord(m, self.word, group=8, name="word")
        m.d.comb += [
            self.legal.eq(word.legal),
            self.within.eq(word.within(self.states)),
            self.count.eq(popcount(m, self.within, name="count")),
            self.first.eq(first_set(m, self.within, name="first")),
        ]
        return m


def test_word_questions_are_the_page_questions_of_each_page():
    block, rng = _Word(), random.Random(3)

    async def check(ctx):
        for _ in range(300):
            pages = [rng.choice([code(s) for s in STATES] * 3 + list(range(64))) for _ in range(8)]
            states = rng.randrange(64)
            ctx.set(block.word, sum((p >> s & 1) << (8 * s + n) for n, p in enumerate(pages) for s in range(6)))
            ctx.set(block.states, states)
            within = [p.bit_count() == 1 and bool(p & states) for p in pages]
            assert ctx.get(block.legal) == sum((p.bit_count() == 1) << n for n, p in enumerate(pages))
            assert ctx.get(block.within) == sum(w << n for n, w in enumerate(within))
            assert ctx.get(block.count) == sum(within)
            assert ctx.get(block.first) == (within.index(True) if any(within) else 0)

    run_comb(block, check)


def run_comb(block, testbench):
    sim = Simulator(block)
    sim.add_testbench(testbench)
    sim.run()


def test_command_rules_are_those_of_the_golden_model():
    golden = {
        command.value: (0 if world is World.NORMAL else 1, {s.value for s in sources}, target.value)
        for command, (world, sources, target) in TRANSITIONS.items()
    }
    ours = {c.value: (frame, {s.value for s in sources}, t.value) for c, (frame, sources, t) in HARDWARE.items()}
    assert ours == golden
    assert NORMAL_FRAME == 0


def test_bursts_that_are_illegal_or_leave_their_page_are_told_apart():
    shape = AXI4Shape(addr_width=32, data_width=128, id_width=2)
    m, request, verdict = Module(), Signal(shape.address), Signal()
    m.d.comb += verdict.eq(stays_in_page(request, data_width=128))
    rng = random.Random(4)

    def expected(address, length, size, burst):
        step, beats = 1 << size, length + 1
        if size > 4:
            return False
        if burst == 1:
            return address // step * step // 4096 == (address // step * step + beats * step - 1) // 4096
        return beats in (2, 4, 8, 16) if burst == 2 else beats <= 16

    async def check(ctx):
        seen = set()
        for _ in range(2500):
            size, burst = rng.randrange(8), rng.randrange(3)
            length = rng.choice([0, 1, 3, 7, 15, 16, 255, rng.randrange(256)])
            address = 0x80000000 + rng.choice([rng.randrange(8192), 4096 - (length + 1 << min(size, 4))]) % 8192
            ctx.set(request, {"addr": address, "len": length, "size": size, "burst": burst})
            seen.add((burst, ctx.get(verdict)))
            assert ctx.get(verdict) == expected(address, length, size, burst), (hex(address), length, size, burst)
        assert len(seen) == 6

    run_comb(m, check)


@pytest.mark.parametrize("write", [False, True])
def test_region_check_agrees_with_its_definition(write):
    block, rng = RegionCheck(params=FlexMemParams(), write=write), random.Random(5)

    async def check(ctx):
        seen = set()
        for _ in range(200):
            regions = []
            for port in block.regions:
                region = {
                    "base": rng.randrange(12),
                    "top": rng.randrange(16),
                    "enable": rng.random() < 0.3,
                    "secure_read": rng.randrange(2),
                    "secure_write": rng.randrange(2),
                    "read": rng.getrandbits(16),
                    "write": rng.getrandbits(16),
                }
                ctx.set(port, region)
                regions.append(region)
            for _ in range(8):
                pfn, nonsecure, nsaid = rng.randrange(18), rng.randrange(2), rng.randrange(16)
                ctx.set(block.pfn, pfn)
                ctx.set(block.nonsecure, nonsecure)
                ctx.set(block.nsaid, nsaid)
                hit = [r for r in regions[1:] if r["enable"] and r["base"] <= pfn <= r["top"]] or regions[:1]
                mine = hit[0]
                named, secure = ("write", "secure_write") if write else ("read", "secure_read")
                allow = len(hit) == 1 and bool(mine[named] >> nsaid & 1 if nonsecure else mine[secure])
                seen.add((ctx.get(block.allow), ctx.get(block.overlap)))
                assert (ctx.get(block.allow), ctx.get(block.overlap)) == (allow, len(hit) > 1)
        assert seen == {(0, 0), (1, 0), (0, 1)}

    run_comb(block, check)


def test_tally_tells_epochs_and_paths_apart():
    block, rng = Tally(id_width=2, limit=5), random.Random(6)

    async def check(ctx):
        while not ctx.get(block.ready):
            await ctx.tick()
        queues, epoch, fulls, olds = [[] for _ in range(4)], 0, 0, 0
        for _ in range(1500):
            if rng.random() < 0.05 and all(e == epoch for q in queues for e, _ in q):
                epoch ^= 1
                ctx.set(block.epoch, epoch)
            identity, head, done = rng.randrange(4), rng.randrange(4), rng.randrange(4)
            ctx.set(block.issue_id, identity)
            ctx.set(block.head_id, head)
            ctx.set(block.complete_id, done)
            assert ctx.get(block.full) == (len(queues[identity]) == 5)
            assert ctx.get(block.denied) == any(not f for _, f in queues[identity])
            assert ctx.get(block.forwarded) == any(f for _, f in queues[head])
            fulls += ctx.get(block.full)
            if queues[done]:
                assert ctx.get(block.complete_epoch) == queues[done][0][0]
                olds += queues[done][0][0] != epoch
            forward, issue = rng.randrange(2), rng.random() < 0.6 and len(queues[identity]) < 5
            complete = bool(queues[done]) and rng.random() < 0.5
            ctx.set(block.issue, issue)
            ctx.set(block.issue_epoch, epoch)
            ctx.set(block.issue_forward, forward)
            ctx.set(block.complete, complete)
            if complete:
                ctx.set(block.complete_forward, queues[done].pop(0)[1])
            if issue:
                queues[identity].append((epoch, forward))
            await ctx.tick()
        assert fulls > 20
        assert olds > 20

    run(block, check)


def test_simultaneous_violations_and_clears_lose_nothing():
    """SEC-13: read and write in one cycle, and a violation in the cycle of the clear."""
    block = FailRecord(params=small())

    async def deny(ctx, *, read=None, write=None, clear=0):
        for n, address in enumerate((read, write)):
            ctx.set(block.deny[n], address is not None)
            ctx.set(block.violation[n].address, address or 0)
        ctx.set(block.clear, clear)
        await ctx.tick()
        return tuple(ctx.get(x) for x in (block.status, block.overrun, block.first.address, block.write, block.count))

    async def check(ctx):
        assert await deny(ctx, read=0x10, write=0x20) == (1, 1, 0x10, 0, 2)
        assert await deny(ctx, write=0x30) == (1, 1, 0x10, 0, 3)
        assert await deny(ctx, write=0x40, clear=1) == (1, 0, 0x40, 1, 4)
        assert await deny(ctx, read=0x50) == (1, 1, 0x40, 1, 5)
        assert await deny(ctx, clear=1) == (0, 0, 0x40, 1, 5)

    run(block, check)


def _access(ctx, bus, address, *, write=False, wdata=0, valid=True):
    """Put a request on a register bus."""
    for name, value in {"valid": valid, "write": write, "addr": address, "wdata": wdata, "strb": 0xF}.items():
        ctx.set(getattr(bus, name), value)


def test_alarm_in_the_cycle_of_the_clear_is_recorded_as_a_new_one():
    block = ManagementFrames(params=small())
    alarm, alarm_page = FLEX_SECURE.ALARM & 0xFFF, FLEX_SECURE.ALARM_PAGE & 0xFFF

    async def step(ctx, *, pfn=None, clear=None):
        """One cycle: a page fails its check, software writes ALARM."""
        ctx.set(block.corrupt, pfn is not None)
        ctx.set(block.corrupt_pfn, pfn or 0)
        _access(ctx, block.secure, alarm, write=True, wdata=clear or 0, valid=clear is not None)
        await ctx.tick()
        ctx.set(block.corrupt, 0)
        seen = []
        for address in (alarm, alarm_page):
            _access(ctx, block.secure, address)
            await ctx.tick()
            seen.append(ctx.get(block.secure.rdata))
        return tuple(seen)

    async def check(ctx):
        assert await step(ctx, pfn=0x11) == (1, 0x11)
        assert await step(ctx, pfn=0x22) == (1, 0x11)
        assert await step(ctx, pfn=0x33, clear=0) == (1, 0x11)
        assert await step(ctx, pfn=0x44, clear=1) == (1, 0x44)
        assert await step(ctx, clear=1) == (0, 0x44)
        assert await step(ctx, pfn=0x55) == (1, 0x55)

    run(block, check)


def test_word_of_a_walk_stays_until_it_is_looked_at_whatever_is_hinted_meanwhile():
    """What is found in a word is scrubbed at its place: another word's pages must not be taken for it."""
    walk, rng = HintedWalk(params=small(cache_lines=2)), random.Random(7)
    words = 8

    async def look(ctx):
        ctx.set(walk.seek, 1)
        ctx.set(walk.last, words - 1)
        before, seen, hinted = None, set(), set()
        for _ in range(4000):
            ctx.set(walk.entered, rng.random() < 0.3)
            word = rng.randrange(words)
            ctx.set(walk.entered_word, word)
            ctx.set(walk.next, ctx.get(walk.valid) and rng.random() < 0.2)
            ctx.set(walk.clean, 1)
            *_, valid, now, goes, entered = await ctx.tick().sample(walk.valid, walk.word, walk.next, walk.entered)
            assert before is None or (valid, now) == (1, before)
            before = now if valid and not goes else None
            if valid and goes:
                seen.add(now)
            if entered:
                hinted.add(word)
        assert seen == hinted == set(range(words))

    run(walk, look)


def test_hint_is_found_however_it_falls_into_the_walk():
    """Every phase of the walk: the word that is hinted is looked at soon, and no hint is lost with another."""
    walk = HintedWalk(params=small(cache_lines=2))

    async def look(ctx):
        ctx.set(walk.seek, 1)
        ctx.set(walk.last, 7)
        ctx.set(walk.clean, 1)
        for delay in range(40):
            ctx.set(walk.entered, 0)
            await ctx.tick().repeat(delay + 1)
            wanted = {delay % 8, (delay * 3 + 1) % 8}
            for word in sorted(wanted):
                ctx.set(walk.entered, 1)
                ctx.set(walk.entered_word, word)
                ctx.set(walk.next, ctx.get(walk.valid))
                await ctx.tick()
            ctx.set(walk.entered, 0)
            for _ in range(60):
                ctx.set(walk.next, ctx.get(walk.valid))
                *_, valid, word, goes = await ctx.tick().sample(walk.valid, walk.word, walk.next)
                if valid and goes:
                    wanted.discard(word)
            assert not wanted

    run(walk, look)


def test_size_request_adds_up_and_saturates():
    block = FreedQueue(params=small())

    async def check(ctx):
        for pages, push, owed in ((5, 0, 5), (0, 1, 4), (2, 1, 5), (0xFFFFFFFF, 0, 0xFFFFFFFF), (1, 1, 0xFFFFFFFF)):
            ctx.set(block.request, pages != 0)
            ctx.set(block.request_pages, pages)
            ctx.set(block.push, push)
            await ctx.tick()
            assert ctx.get(block.owed) == owed

    run(block, check)


@pytest.mark.filterwarnings("ignore:.*created but never used")
def test_outstanding_limit_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"^Outstanding transactions per ID must be 1 to 255, not 0$"):
        Tally(id_width=2, limit=0)

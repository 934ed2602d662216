"""NPU gate against the golden recall model and against what it promises the NPU."""

import random

import pytest
from amaranth.sim import Simulator

from flexserve_hw.gate import GateState, NpuGate
from flexserve_sw.machine import World
from flexserve_sw.recall import RecallTable
from flexserve_sw.regs import GateNormal, GateSecure, RecallCommand, RecallResult, RecallState

N, S = GateNormal(0), GateSecure(0)
GRACE = 40


class Bench:
    """A gate, its two register frames, and an NPU that takes its time to drain and to scrub."""

    def __init__(self, *, drain=5, scrub=9):
        self.dut = NpuGate(grace_min=10, grace_max=1000)
        self.drain, self.scrub = drain, scrub
        self.now = 0
        self.trace = []

    def run(self, testbench):
        simulator = Simulator(self.dut)
        simulator.add_clock(1e-9)
        simulator.add_testbench(self.npu, background=True)
        simulator.add_testbench(self.watch, background=True)
        simulator.add_testbench(testbench)
        simulator.run()

    async def npu(self, ctx):
        """Drains ``drain`` cycles after it is asked, scrubs in ``scrub`` cycles."""
        dut, draining, scrubbing = self.dut, 0, 0
        while True:
            draining = draining + 1 if ctx.get(dut.drain) else 0
            scrubbing = scrubbing + 1 if ctx.get(dut.scrub) else 0
            assert not scrubbing or draining > self.drain, "scrub before drained"
            ctx.set(dut.drained, draining > self.drain)
            ctx.set(dut.scrubbed, scrubbing > self.scrub)
            await ctx.tick()

    async def watch(self, ctx):
        """Holds the gate in every cycle to what the NPU relies on."""
        dut = self.dut
        before, scrubbed = None, False
        async for *_, secure, live_n, live_s, drain, scrubbing, done, state in ctx.tick().sample(
            dut.secure, dut.live_normal, dut.live_secure, dut.drain, dut.scrub, dut.scrubbed, dut.state
        ):
            self.now += 1
            state = RecallState(state.value)
            assert not (live_n and live_s)
            assert not (drain and (live_n or live_s))
            assert not live_n or not secure
            assert not live_s or secure
            assert live_n == (state == RecallState.NORMAL)
            assert live_s == (state in (RecallState.FLEX, RecallState.RECALLING, RecallState.SEALED))
            if before is not None and secure != before:
                # Up: nobody had access since the scrub. Down: only with the scrub.
                assert state in (RecallState.FLEX, RecallState.SEALED) if secure else scrubbed
            before, scrubbed = secure, bool(scrubbing and done)
            self.trace.append((state, secure))

    async def access(self, ctx, secure, address, value=None, *, error=False):
        frame = self.dut.frame_s if secure else self.dut.frame_n
        ctx.set(frame.valid, 1)
        ctx.set(frame.write, value is not None)
        ctx.set(frame.addr, address)
        ctx.set(frame.wdata, value or 0)
        ctx.set(frame.strb, 0xF)
        await ctx.tick()
        ctx.set(frame.valid, 0)
        assert ctx.get(frame.error) == error
        return ctx.get(frame.rdata)

    async def give(self, ctx, secure, code, first=0, count=1, ticket=0):
        """Write a command without waiting for it."""
        cmd = (S if secure else N).CMD
        for register, value in ((cmd.FIRST, first), (cmd.COUNT, count), (cmd.TICKET, ticket), (cmd.COMMAND, code)):
            await self.access(ctx, secure, register, value)

    async def outcome(self, ctx, secure):
        """Wait for the command; (result, offender)."""
        cmd = (S if secure else N).CMD
        while cmd.STATUS__BUSY.get(status := await self.access(ctx, secure, cmd.STATUS)):
            pass
        return cmd.STATUS__RESULT.get(status), await self.access(ctx, secure, cmd.OFFENDER)

    async def command(self, ctx, secure, code, first=0, count=1, ticket=0):
        await self.give(ctx, secure, code, first, count, ticket)
        return await self.outcome(ctx, secure)

    async def state(self, ctx):
        return RecallState(await self.access(ctx, False, N.STATE))

    async def booted(self, ctx):
        await self.access(ctx, True, S.GRACE, GRACE)
        while await self.state(ctx) is not RecallState.NORMAL:
            pass

    async def lend(self, ctx):
        """To FLEX; returns the ticket."""
        assert (await self.command(ctx, False, RecallCommand.DELEGATE))[0] == RecallResult.OK
        ticket = await self.access(ctx, True, S.TICKET)
        assert (await self.command(ctx, True, RecallCommand.ACCEPT, ticket=ticket))[0] == RecallResult.OK
        return ticket


@pytest.mark.parametrize("seed", range(6))
def test_random_commands_agree_with_the_golden_model(seed):
    rng = random.Random(seed)
    bench = Bench(drain=rng.randrange(8), scrub=rng.randrange(12))
    table = RecallTable(base=0, count=1, grace=GRACE, timers=1, ticketed=True, initial=RecallState.NORMAL)
    seen = set()

    async def testbench(ctx):
        await bench.booted(ctx)
        for step in range(150):
            secure = rng.random() < 0.5
            world = World.SECURE if secure else World.NORMAL
            code = rng.choice([1, 1, 2, 2, 3, 4, 4, 5, rng.randrange(16)])
            if code == RecallCommand.SEAL and step < 140:
                code = RecallCommand.NONE
            code = RecallCommand(code) if code <= max(RecallCommand) else code
            first, count = rng.choice([(0, 1)] * 12 + [(0, 0), (1, 1), (0, 2), (2**32 - 1, 2)])
            ticket = table.ticket if rng.random() < 0.9 else table.ticket + rng.choice([-1, 1])
            ticket &= 0xFFFF_FFFF
            expected = table.command(code, first, count, by=world, now=0, ticket=ticket)
            got = await bench.command(ctx, secure, code, first, count, ticket)
            assert got == (expected.result, expected.offender), f"{seed=} {step=} {code=} {world=}"
            state = table.state(0)
            seen.add((code, expected.result))
            if state is RecallState.SCRUBBING or (state is RecallState.RECALLING and rng.random() < 0.5):
                # Let the grace period and the scrub go by.
                table.expire(GRACE)
                table.scrubbed(0)
                while await bench.state(ctx) is not RecallState.NORMAL:
                    pass
                state = RecallState.NORMAL
            elif state is RecallState.RECALLING:
                # Keep the golden model, which knows no time here, in step: release at once.
                expected = table.command(RecallCommand.RELEASE, 0, 1, by=World.SECURE, ticket=table.ticket)
                got = await bench.command(ctx, True, RecallCommand.RELEASE, ticket=table.ticket)
                assert got == (expected.result, expected.offender), f"{seed=} {step=}"
                table.scrubbed(0)
                while await bench.state(ctx) is not RecallState.NORMAL:
                    pass
                state = RecallState.NORMAL
            assert await bench.state(ctx) is state, f"{seed=} {step=}"
            assert await bench.access(ctx, True, S.TICKET) == table.ticket

    bench.run(testbench)
    assert len(seen) > 12


def test_the_gate_starts_by_scrubbing_and_does_not_report_it():
    bench = Bench()

    async def testbench(ctx):
        assert await bench.state(ctx) is RecallState.SCRUBBING
        assert (await bench.command(ctx, False, RecallCommand.DELEGATE))[0] == RecallResult.BAD_STATE
        await bench.booted(ctx)
        assert not N.IRQ_STATUS__RETURNED.get(await bench.access(ctx, False, N.IRQ_STATUS))

    bench.run(testbench)


def test_delegated_is_reported_only_after_drain_and_scrub():
    bench = Bench(drain=30, scrub=50)

    async def testbench(ctx):
        await bench.booted(ctx)
        bench.trace.clear()
        await bench.give(ctx, False, RecallCommand.DELEGATE)
        await bench.access(ctx, False, N.CMD.COMMAND, RecallCommand.CANCEL, error=True)
        while await bench.state(ctx) is not RecallState.DELEGATED:
            assert N.CMD.STATUS__BUSY.get(await bench.access(ctx, False, N.CMD.STATUS))
            assert not S.IRQ_STATUS__DELEGATED.get(await bench.access(ctx, True, S.IRQ_STATUS))
        assert (await bench.outcome(ctx, False))[0] == RecallResult.OK
        assert S.IRQ_STATUS__DELEGATED.get(await bench.access(ctx, True, S.IRQ_STATUS))
        assert sum(state == RecallState.SCRUBBING for state, _ in bench.trace) >= 80

    bench.run(testbench)


@pytest.mark.parametrize("grace", [0, 25, 5000])
def test_the_grace_period_ends_on_its_cycle_within_limits(grace):
    bench = Bench()

    async def testbench(ctx):
        await bench.booted(ctx)
        await bench.access(ctx, True, S.GRACE, grace)
        period = min(max(grace, 10), 1000)
        assert await bench.access(ctx, False, N.GRACE) == period
        await bench.lend(ctx)
        bench.trace.clear()
        assert (await bench.command(ctx, False, RecallCommand.RECALL))[0] == RecallResult.OK
        while await bench.state(ctx) is not RecallState.NORMAL:
            pass
        assert sum(state == RecallState.RECALLING for state, _ in bench.trace) == period
        status = await bench.access(ctx, True, S.IRQ_STATUS)
        assert S.IRQ_STATUS__EXPIRED.get(status)
        assert S.IRQ_STATUS__RECALL.get(status)
        assert N.IRQ_STATUS__RETURNED.get(await bench.access(ctx, False, N.IRQ_STATUS))
        # The secure bit outlives the access of the secure world by drain and scrub.
        assert {secure for state, secure in bench.trace if state == RecallState.SCRUBBING} == {1}

    bench.run(testbench)


def test_release_is_done_when_drained_and_returns_when_scrubbed():
    bench = Bench(drain=20, scrub=200)

    async def testbench(ctx):
        await bench.booted(ctx)
        ticket = await bench.lend(ctx)
        assert (await bench.command(ctx, True, RecallCommand.RELEASE, ticket=ticket + 1))[0] == RecallResult.BAD_TICKET
        assert (await bench.command(ctx, True, RecallCommand.RELEASE, ticket=ticket))[0] == RecallResult.OK
        assert ctx.get(bench.dut.drained)
        assert await bench.state(ctx) is RecallState.SCRUBBING
        assert ctx.get(bench.dut.secure)
        while await bench.state(ctx) is not RecallState.NORMAL:
            pass

    bench.run(testbench)


@pytest.mark.parametrize("lent", [False, True])
def test_a_sealed_npu_is_never_recalled_and_the_lock_stops_sealing(lent):
    bench = Bench()

    async def testbench(ctx):
        await bench.booted(ctx)
        if lent:
            await bench.lend(ctx)
        assert (await bench.command(ctx, True, RecallCommand.SEAL))[0] == RecallResult.OK
        for code in (RecallCommand.RECALL, RecallCommand.DELEGATE, RecallCommand.CANCEL):
            assert (await bench.command(ctx, False, code))[0] == RecallResult.BAD_STATE
        assert await bench.state(ctx) is RecallState.SEALED

    bench.run(testbench)


def test_the_lock_freezes_grace_managers_and_seal():
    bench = Bench()

    async def testbench(ctx):
        await bench.booted(ctx)
        await bench.access(ctx, True, S.MANAGERS, 5)
        await bench.access(ctx, True, S.CONTROL, 1)
        for register in (S.MANAGERS, S.GRACE, S.CONTROL):
            await bench.access(ctx, True, register, 0)
        assert ctx.get(bench.dut.managers) == 5
        assert await bench.access(ctx, True, S.GRACE) == GRACE
        assert await bench.access(ctx, True, S.CONTROL) == 1
        assert (await bench.command(ctx, True, RecallCommand.SEAL))[0] == RecallResult.NOT_PERMITTED

    bench.run(testbench)


def test_two_frames_commands_in_one_cycle_are_decided_one_after_the_other():
    bench = Bench()

    async def testbench(ctx):
        await bench.booted(ctx)
        for frame, cmd in ((bench.dut.frame_n, N.CMD), (bench.dut.frame_s, S.CMD)):
            secure = frame is bench.dut.frame_s
            await bench.access(ctx, secure, cmd.COUNT, 1)
            await bench.access(ctx, secure, cmd.TICKET, 1)
            ctx.set(frame.wdata, RecallCommand.ACCEPT if secure else RecallCommand.DELEGATE)
            ctx.set(frame.addr, cmd.COMMAND)
            ctx.set(frame.write, 1)
        for frame in (bench.dut.frame_n, bench.dut.frame_s):
            ctx.set(frame.valid, 1)
        await ctx.tick()
        for frame in (bench.dut.frame_n, bench.dut.frame_s):
            ctx.set(frame.valid, 0)
        results = [(await bench.outcome(ctx, secure))[0] for secure in (False, True)]
        state = await bench.state(ctx)
        serial = {
            (RecallResult.OK, RecallResult.OK): RecallState.FLEX,
            (RecallResult.OK, RecallResult.BAD_TICKET): RecallState.DELEGATED,
        }
        assert serial[tuple(results)] is state

    bench.run(testbench)


def test_any_single_upset_of_state_or_secure_bit_blocks_both_worlds():
    bench = Bench(drain=10, scrub=10)
    dut = bench.dut
    states = ("NORMAL", "LENDING", "DELEGATED", "FLEX", "RECALLING", "RETURNING", "SEALED", "BOOT")
    cases = [(state, bit) for state in states for bit in range(len(GateState) + 3)]
    passed = []

    async def reach(ctx, state):
        await bench.access(ctx, True, S.GRACE, 1000)
        if state == "BOOT":
            return
        await bench.booted(ctx)
        await bench.access(ctx, True, S.GRACE, 1000)
        if state in ("DELEGATED", "LENDING"):
            await bench.give(ctx, False, RecallCommand.DELEGATE)
            await ctx.tick().repeat(4)
            if state == "DELEGATED":
                await bench.outcome(ctx, False)
        elif state == "SEALED":
            await bench.command(ctx, True, RecallCommand.SEAL)
        elif state != "NORMAL":
            ticket = await bench.lend(ctx)
            if state == "RECALLING":
                await bench.command(ctx, False, RecallCommand.RECALL)
            if state == "RETURNING":
                await bench.give(ctx, True, RecallCommand.RELEASE, ticket=ticket)
                await ctx.tick().repeat(4)

    async def testbench(ctx):
        state, bit = cases[len(passed)]
        await reach(ctx, state)
        assert ctx.get(dut._state) == GateState[state].value
        stored, place = (dut._state, bit) if bit < len(GateState) else (dut._copies, bit - len(GateState))
        secure = ctx.get(dut.secure)
        ctx.set(stored, ctx.get(stored) ^ 1 << place)
        for _ in range(40):
            assert not ctx.get(dut.live_normal)
            assert not ctx.get(dut.live_secure)
            assert ctx.get(dut.drain)
            assert not ctx.get(dut.scrub)
            assert ctx.get(dut.secure) == secure
            assert ctx.get(dut.state).name == RecallState.CORRUPT.name
            await ctx.tick()
        assert await bench.access(ctx, True, S.ALARM) == 1
        for code in (RecallCommand.DELEGATE, RecallCommand.RECALL, RecallCommand.CANCEL):
            assert (await bench.command(ctx, False, code))[0] == RecallResult.CORRUPT_STATE, (state, bit)
        passed.append((state, bit))

    simulator = Simulator(dut)
    simulator.add_clock(1e-9)
    simulator.add_testbench(bench.npu, background=True)
    simulator.add_testbench(testbench)
    for case in cases:
        if case != cases[0]:
            simulator.reset()
        simulator.run()
    assert passed == cases


@pytest.mark.parametrize("limits", [(0, 5), (6, 5), (1, 1 << 32)])
def test_impossible_grace_limits_are_refused(limits):
    with pytest.raises(ValueError, match=r"not \("):
        NpuGate(grace_min=limits[0], grace_max=limits[1])

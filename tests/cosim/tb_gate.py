"""NPU gate alone: random commands of both worlds against the golden recall table, and an NPU that takes its time."""

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge

from flexserve_sw.machine import World
from flexserve_sw.recall import RecallTable
from flexserve_sw.regs import GATE_NORMAL, GATE_SECURE, GateSecure, RecallCommand, RecallResult, RecallState

from .bench import DECERR, NONSECURE, OKAY, SECURE, SLVERR, TB

GRACE = 1000
FRAMES = {World.NORMAL: (GATE_NORMAL, NONSECURE), World.SECURE: (GATE_SECURE, SECURE)}
SECURE_STATES = (RecallState.FLEX, RecallState.RECALLING, RecallState.SEALED)


class GateTB(TB):
    """Gate with a model of the NPU that drains and scrubs in random time."""

    async def boot(self):
        for name in ("drained", "scrubbed"):
            getattr(self.dut, name).value = 0
        await self.reset()
        self.hand_overs, self.patience = 0, 0
        cocotb.start_soon(self.engine())
        cocotb.start_soon(self.watch())
        await self.write(GATE_SECURE.GRACE, GRACE)
        while await self.state() is not RecallState.NORMAL:
            pass
        self.model = RecallTable(base=0, count=1, grace=GRACE, ticketed=True)

    async def engine(self):
        """What the NPU answers: drained, then scrubbed for as long as it is asked to be."""
        dut = self.dut
        while True:
            while not dut.drain.value:
                await RisingEdge(dut.clk)
            await ClockCycles(dut.clk, self.patience + self.rng.randrange(1, 40))
            dut.drained.value = 1
            while not dut.scrub.value:
                await RisingEdge(dut.clk)
            await ClockCycles(dut.clk, self.rng.randrange(1, 80))
            dut.scrubbed.value = 1
            while dut.scrub.value:
                await RisingEdge(dut.clk)
            dut.scrubbed.value = 0
            dut.drained.value = 0
            self.hand_overs += 1

    async def watch(self):
        """In every cycle: nobody is live during a hand-over, and only the owner is live."""
        dut = self.dut
        before, scrubbed = None, False
        while True:
            await RisingEdge(dut.clk)
            state = RecallState(int(dut.probe_state.value))
            secure, normal = bool(dut.secure.value), bool(dut.live_normal.value)
            assert normal == (state is RecallState.NORMAL)
            assert bool(dut.live_secure.value) == (state in SECURE_STATES)
            assert not (normal and secure)
            assert secure or state not in SECURE_STATES
            assert not (dut.drain.value and (normal or dut.live_secure.value))
            if before and not secure:
                assert scrubbed, "the secure bit fell without a scrub"
            before, scrubbed = secure, bool(dut.scrub.value and dut.scrubbed.value)

    async def state(self):
        return RecallState(GateSecure.STATE__STATE.get(await self.read(GATE_SECURE.STATE)))

    async def command(self, by, code, first, count, ticket):
        """Give a command; returns result and offender."""
        frame, prot = FRAMES[by]
        for register, value in ((frame.CMD.FIRST, first), (frame.CMD.COUNT, count), (frame.CMD.TICKET, ticket)):
            await self.write(register, value, prot=prot)
        await self.write(frame.CMD.COMMAND, code, prot=prot)
        while (status := await self.read(frame.CMD.STATUS, prot=prot)) & 1:
            pass
        return RecallResult(frame.CMD.STATUS__RESULT.get(status)), await self.read(frame.CMD.OFFENDER, prot=prot)

    async def settle(self):
        """Wait for a scrub to end, in hardware and in the model."""
        while await self.state() is RecallState.SCRUBBING:
            pass
        if self.model.state(0) is RecallState.SCRUBBING:
            self.model.scrubbed(0)


@cocotb.test()
async def random_commands_agree_with_the_golden_table(dut):
    tb = GateTB(dut)
    await tb.boot()
    results = set()
    codes = [code for code in RecallCommand if code is not RecallCommand.SEAL]
    for step in range(150):
        by = tb.rng.choice(list(World))
        code = tb.rng.choice(codes)
        first, count = tb.rng.choice([(0, 1)] * 6 + [(1, 1), (0, 2), (0, 0)])
        ticket = tb.model.ticket + tb.rng.choice((0, 0, 0, -1, 1))
        ticket %= 1 << 32
        got = await tb.command(by, code, first, count, ticket)
        expected = tb.model.command(code, first, count, by=by, ticket=ticket)
        assert got == (expected.result, expected.offender), f"step {step}: {by} {code!r} {first, count, ticket}"
        if tb.model.state(0) is RecallState.RECALLING and tb.rng.randrange(2):
            await ClockCycles(dut.clk, GRACE)
            tb.model.expire(GRACE)
        elif tb.model.state(0) is RecallState.RECALLING:
            # Before the grace period can end: the secure world gives back what it was asked for.
            assert (await tb.command(World.SECURE, RecallCommand.RELEASE, 0, 1, tb.model.ticket))[0] is RecallResult.OK
            tb.model.command(RecallCommand.RELEASE, 0, 1, by=World.SECURE, ticket=tb.model.ticket)
        await tb.settle()
        assert await tb.state() is tb.model.state(0), f"step {step}"
        assert await tb.read(GATE_SECURE.TICKET) == tb.model.ticket
        results.add(expected.result)
    assert {RecallResult.OK, RecallResult.BAD_STATE, RecallResult.NOT_PERMITTED, RecallResult.OUT_OF_WINDOW} <= results
    assert tb.hand_overs > 3


@cocotb.test()
async def frame_of_a_world_answers_that_world_alone(dut):
    tb = GateTB(dut)
    await tb.boot()
    await tb.read(GATE_SECURE.ID, prot=NONSECURE, expect=DECERR)
    await tb.write(GATE_SECURE.CMD.COMMAND, RecallCommand.SEAL, prot=NONSECURE, expect=DECERR)
    await tb.write(GATE_SECURE.MANAGERS, 0, prot=NONSECURE, expect=DECERR)
    await tb.read(GATE_NORMAL.STATE, prot=SECURE, expect=DECERR)
    await tb.read(GATE_SECURE.ID, prot=SECURE, expect=OKAY)
    await tb.read(GATE_NORMAL.ID, prot=NONSECURE, expect=OKAY)
    assert await tb.state() is RecallState.NORMAL
    # A master that is taken from the managers finds its frame gone.
    await tb.write(GATE_SECURE.MANAGERS, 0)
    await tb.read(GATE_NORMAL.ID, prot=NONSECURE, expect=DECERR)


@cocotb.test()
async def frame_whose_command_is_pending_refuses_another(dut):
    tb = GateTB(dut)
    await tb.boot()
    cmd = GATE_NORMAL.CMD
    await tb.write(cmd.FIRST, 0, prot=NONSECURE)
    await tb.write(cmd.COUNT, 1, prot=NONSECURE)
    tb.patience = 1000
    await tb.write(cmd.COMMAND, RecallCommand.DELEGATE, prot=NONSECURE)
    for register in (cmd.FIRST, cmd.COUNT, cmd.TICKET, cmd.COMMAND):
        await tb.write(register, 2, prot=NONSECURE, expect=SLVERR)
    assert await tb.read(cmd.STATUS, prot=NONSECURE) & 1
    assert [await tb.read(r, prot=NONSECURE) for r in (cmd.FIRST, cmd.COUNT, cmd.TICKET)] == [0, 1, 0]
    assert not dut.live_normal.value
    assert not dut.live_secure.value
    while await tb.state() is not RecallState.DELEGATED:
        pass
    assert await tb.read(GATE_NORMAL.TICKET, prot=NONSECURE) == 1

"""NPU gate alone: random commands of both worlds against the golden recall table, and an NPU that takes its time."""

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge

from flexserve_hw.params import FlexMemParams
from flexserve_sw.machine import World
from flexserve_sw.recall import RecallTable
from flexserve_sw.regs import GATE_NORMAL, GATE_SECURE, GateSecure, RecallCommand, RecallResult, RecallState

from .bench import DECERR, NONSECURE, OKAY, SECURE, SLVERR, TB

PARAMS = FlexMemParams()
GRACE_MIN, GRACE_MAX = PARAMS.grace_min, PARAMS.grace_max
GRACE = 1234
FRAMES = {World.NORMAL: (GATE_NORMAL, NONSECURE), World.SECURE: (GATE_SECURE, SECURE)}
SECURE_STATES = (RecallState.FLEX, RecallState.RECALLING, RecallState.SEALED)


class GateTB(TB):
    """Gate with a model of the NPU that drains and scrubs in random time."""

    tasks = ()

    async def boot(self):
        for name in ("drained", "scrubbed"):
            getattr(self.dut, name).value = 0
        for task in self.tasks:
            task.cancel()
        await self.reset()
        self.hand_overs, self.patience, self.recalling, self.lasted = 0, 0, 0, 0
        self.tasks = [cocotb.start_soon(self.engine()), cocotb.start_soon(self.watch())]
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
            if state is RecallState.RECALLING:
                self.recalling += 1
            elif self.recalling:
                self.lasted, self.recalling = self.recalling, 0

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

    async def agree(self, by, code, first=0, count=1, ticket=None):
        """Give a command to hardware and model, and compare what comes of it."""
        ticket = self.model.ticket if ticket is None else ticket
        before = self.model.state(0)
        got = await self.command(by, code, first, count, ticket)
        expected = self.model.command(code, first, count, by=by, ticket=ticket)
        what = f"{before!r}: {by} {code!r} {first, count, ticket}"
        assert got == (expected.result, expected.offender), what
        await self.settle()
        assert await self.state() is self.model.state(0), what
        assert await self.read(GATE_SECURE.TICKET) == self.model.ticket
        return expected.result

    async def reach(self, state):
        """Get to a state that is not sealed, by legal commands."""
        while self.model.state(0) is not state:
            assert await self.agree(*STEPS[self.model.state(0)]) is RecallResult.OK

    async def expire(self, grace):
        """Let a grace period run out."""
        while await self.state() is RecallState.RECALLING:
            await ClockCycles(self.dut.clk, 100)
        assert self.lasted == grace
        self.model.expire(grace)
        await self.settle()


STEPS = {
    RecallState.NORMAL: (World.NORMAL, RecallCommand.DELEGATE),
    RecallState.DELEGATED: (World.SECURE, RecallCommand.ACCEPT),
    RecallState.FLEX: (World.NORMAL, RecallCommand.RECALL),
    RecallState.RECALLING: (World.SECURE, RecallCommand.RELEASE),
}
"""Round and round: by whom and how a state is left for the next."""


@cocotb.test()
async def random_commands_agree_with_the_golden_table(dut):
    tb = GateTB(dut)
    await tb.boot()
    results, rng = set(), tb.rng
    codes = [code for code in RecallCommand if code is not RecallCommand.SEAL]
    for _ in range(250):
        by, code = STEPS[tb.model.state(0)] if rng.random() < 0.5 else (rng.choice(list(World)), rng.choice(codes))
        wild = rng.getrandbits(32), rng.getrandbits(32)
        odd = (1 << rng.randrange(32), 1), (0, 1 << rng.randrange(32)), (0, 0), wild
        first, count = rng.choice([(0, 1)] * 8 + list(odd))
        ticket = rng.choice([tb.model.ticket] * 3 + [tb.model.ticket ^ 1 << rng.randrange(32)])
        results.add(await tb.agree(by, code, first, count, ticket))
        if tb.model.state(0) is RecallState.RECALLING and rng.randrange(2):
            await tb.expire(GRACE)
        elif tb.model.state(0) is RecallState.RECALLING:
            # Before the grace period can end: the secure world gives back what it was asked for.
            assert await tb.agree(World.SECURE, RecallCommand.RELEASE) is RecallResult.OK
    wanted = {"OK", "BAD_STATE", "NOT_PERMITTED", "OUT_OF_WINDOW", "BAD_TICKET", "BAD_COMMAND"}
    assert {RecallResult[name] for name in wanted} <= results
    assert tb.hand_overs > 20


@cocotb.test()
async def each_command_of_each_world_in_each_state_does_what_the_golden_table_says(dut):
    tb = GateTB(dut)
    await tb.boot()
    for state in STEPS:
        for by in World:
            for code in [code for code in range(16) if code != RecallCommand.SEAL]:
                await tb.reach(state)
                await tb.agree(by, RecallCommand(code) if code in set(RecallCommand) else code)


@cocotb.test()
async def sealed_npu_is_the_secure_worlds_until_reset(dut):
    tb = GateTB(dut)
    for state in STEPS:
        for locked in (True, False):
            await tb.boot()
            await tb.reach(state)
            if locked:
                await tb.write(GATE_SECURE.CONTROL, GateSecure.CONTROL__LOCK.put(1))
                tb.model.locked = True
            got = await tb.agree(World.SECURE, RecallCommand.SEAL)
            if locked:
                assert got is RecallResult.NOT_PERMITTED
            elif got is RecallResult.OK:
                assert dut.live_secure.value
                for by in World:
                    for code in RecallCommand:
                        assert await tb.agree(by, code) is not RecallResult.OK


@cocotb.test()
async def grace_period_lasts_as_many_cycles_as_its_register_says(dut):
    tb = GateTB(dut)
    await tb.boot()
    for bits in range(33):
        period = tb.rng.getrandbits(bits) if bits else 0
        grace = min(max(period, GRACE_MIN), GRACE_MAX)
        await tb.write(GATE_SECURE.GRACE, period)
        tb.model.grace = grace
        assert await tb.read(GATE_SECURE.GRACE) == period
        assert await tb.read(GATE_NORMAL.GRACE, prot=NONSECURE) == grace
        await tb.reach(RecallState.FLEX)
        assert await tb.agree(World.NORMAL, RecallCommand.RECALL) is RecallResult.OK
        if grace < 1 << 16:
            await tb.expire(grace)
        else:
            assert await tb.agree(World.SECURE, RecallCommand.RELEASE) is RecallResult.OK


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

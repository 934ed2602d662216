"""The register fabric lets each access reach only the frames that are open to its world and NSAID."""

from dataclasses import dataclass

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.sim import Simulator

from flexserve_hw.bus.identity import Identity
from flexserve_hw.regs.block import RegisterBlock
from flexserve_hw.regs.fabric import RegisterFabric, soc_frames
from flexserve_hw.regs.source import elaborate
from tests.hw.axil import read, write

OKAY, SLVERR, DECERR = 0, 2, 3
MASTERS = {"cpu_n": Identity(nsaid=0), "cpu_s": Identity(nsaid=0, may_be_secure=True), "hostile": Identity(nsaid=3)}
BASE = {frame.name: frame.base for frame in soc_frames()}
TYPES = {child.inst_name: child.inst.original_def.type_name for child in elaborate("soc").children()}


@dataclass
class Bench:
    """The fabric with a register block behind each of its frames."""

    module: Module
    fabric: RegisterFabric
    blocks: dict


def make_bench(*names):
    fabric = RegisterFabric(masters=MASTERS, frames=soc_frames(*names), addr_width=32)
    bench = Bench(Module(), fabric, {})
    bench.module.submodules.fabric = fabric
    for frame in soc_frames(*names):
        block = bench.blocks[frame.name] = RegisterBlock(TYPES[frame.name])
        bench.module.submodules[frame.port] = block
        wiring.connect(bench.module, getattr(fabric, frame.port), block.bus)
    return bench


def run(bench, *testbenches):
    sim = Simulator(bench.module)
    sim.add_clock(1e-9)
    for testbench in testbenches:
        sim.add_testbench(testbench)
    sim.run()


def allowed(frame, master, nonsecure, managers):
    """The access rules, said a second time."""
    secure = master == "cpu_s" and not nonsecure
    if frame in ("TZC", "FLEX_SECURE", "GATE_SECURE", "NPU_SECURE"):
        return secure
    if frame in ("FLEX_NORMAL", "GATE_NORMAL"):
        return not secure and bool(managers >> (3 if master == "hostile" else 0) & 1)
    return not secure


IDENTIFICATION = {"TZC": (0xFE0, 0x60), "NPU_NORMAL": (0, 0x464C4E50), "NPU_SECURE": (0, 0x464C4E50)}
WRITABLE = {"TZC": 0x100, "NPU_NORMAL": 0x10, "NPU_SECURE": 0x10, "STORAGE": 0x08}


@pytest.mark.parametrize("managers", [0b0001, 0b1000, 0])
def test_every_master_reaches_exactly_the_frames_open_to_it(managers):
    bench = make_bench()
    names = {"FLEX_NORMAL": 0x464C584D, "FLEX_SECURE": 0x464C5853, "GATE_NORMAL": 0x464C4754}
    names |= {"GATE_SECURE": 0x464C4753, "STORAGE": 0x464C5344}

    async def check(ctx):
        ctx.set(bench.fabric.flex_normal_managers, managers)
        ctx.set(bench.fabric.gate_normal_managers, managers)
        value = 0x1000
        for master in MASTERS:
            port = getattr(bench.fabric, master)
            for nonsecure in (0, 1):
                for frame, base in BASE.items():
                    may = allowed(frame, master, nonsecure, managers)
                    offset, identity = IDENTIFICATION.get(frame, (0, names.get(frame)))
                    answer = await read(ctx, port, base + offset, nonsecure=nonsecure)
                    assert answer == ((identity, OKAY) if may else (0, DECERR)), (frame, master, nonsecure)
                    value += 0x1000
                    register = WRITABLE.get(frame, 0x20)
                    before = await stored(ctx, bench, frame, register)
                    response = await write(ctx, port, base + register, value, nonsecure=nonsecure)
                    assert response == (OKAY if may else DECERR), (frame, master, nonsecure)
                    after = await stored(ctx, bench, frame, register)
                    assert after == (value if may else before), (frame, master, nonsecure)

    run(bench, check)


async def stored(ctx, bench, frame, register):
    """What the frame's register holds, looked up without the fabric."""
    block = bench.blocks[frame]
    if frame == "TZC":
        return ctx.get(block.REGION[0].BASE_LOW.address.value) << 12
    if frame.startswith("NPU"):
        return ctx.get(block.JOB_ADDR_LO.value.value)
    return ctx.get(block.FLASH_OFFSET.value.value if frame == "STORAGE" else block.CMD.FIRST.value.value)


def test_address_outside_every_frame_answers_decerr():
    bench = make_bench("STORAGE", "FLEX_SECURE")

    async def check(ctx):
        for address in (0x0, 0x3_1000, 0x2_FFFC, 0x8_1000, 0x8003_0000, 0xFFFF_FFFC):
            for nonsecure in (0, 1):
                assert await read(ctx, bench.fabric.cpu_s, address, nonsecure=nonsecure) == (0, DECERR)
                assert await write(ctx, bench.fabric.cpu_s, address, 1, nonsecure=nonsecure) == DECERR

    run(bench, check)


def test_hole_in_a_frame_answers_slverr():
    bench = make_bench("STORAGE")

    async def check(ctx):
        assert await read(ctx, bench.fabric.cpu_n, BASE["STORAGE"] + 0x40) == (0, SLVERR)
        assert await write(ctx, bench.fabric.cpu_n, BASE["STORAGE"] + 0x40, 1) == SLVERR

    run(bench, check)


def test_commands_of_two_worlds_in_the_same_cycle_are_taken_one_after_the_other():
    bench = make_bench("FLEX_NORMAL", "FLEX_SECURE")
    strobes = []

    async def normal(ctx):
        ctx.set(bench.fabric.flex_normal_managers, 1)
        for code in (1, 3, 5):
            assert await write(ctx, bench.fabric.cpu_n, BASE["FLEX_NORMAL"] + 0x2C, code) == OKAY

    async def secure(ctx):
        for code in (2, 4, 6):
            assert await write(ctx, bench.fabric.cpu_s, BASE["FLEX_SECURE"] + 0x2C, code) == OKAY

    async def watch(ctx):
        ports = [bench.blocks[name].CMD.COMMAND.code for name in ("FLEX_NORMAL", "FLEX_SECURE")]
        signals = [signal for port in ports for signal in (port.swmod, port.written)]
        while len(strobes) < 6:
            _, _, n, n_code, s, s_code = await ctx.tick().sample(*signals)
            assert not (n and s)
            if n or s:
                strobes.append(n_code if n else s_code)

    run(bench, normal, secure, watch)
    assert sorted(strobes) == [1, 2, 3, 4, 5, 6]
    assert [code for code in strobes if code in (1, 3, 5)] == [1, 3, 5]


def test_master_that_takes_no_response_holds_up_nobody():
    bench = make_bench("STORAGE", "GATE_SECURE")

    async def stubborn(ctx):
        port = bench.fabric.hostile
        ctx.set(port.ar.payload, {"addr": BASE["STORAGE"]})
        ctx.set(port.ar.valid, 1)
        ctx.set(port.aw.payload, {"addr": BASE["STORAGE"] + 8})
        ctx.set(port.aw.valid, 1)
        ctx.set(port.w.valid, 1)

    async def check(ctx):
        await ctx.tick().repeat(20)
        for _ in range(10):
            assert await read(ctx, bench.fabric.cpu_s, BASE["GATE_SECURE"]) == (0x464C4753, OKAY)

    run(bench, stubborn, check)


def test_denied_access_takes_as_long_as_an_allowed_one():
    bench = make_bench("GATE_SECURE", "FLEX_SECURE")

    async def check(ctx):
        async def cycles(address, nonsecure):
            port = bench.fabric.cpu_s
            ctx.set(port.ar.payload, {"addr": address, "prot": {"nonsecure": nonsecure}})
            ctx.set(port.ar.valid, 1)
            ctx.set(port.r.ready, 1)
            count = 0
            async for _, _, ready, valid in ctx.tick().sample(port.ar.ready, port.r.valid):
                if ready:
                    ctx.set(port.ar.valid, 0)
                if valid:
                    return count
                count += 1

        expected = await cycles(BASE["GATE_SECURE"], 0)
        for address, nonsecure in ((BASE["GATE_SECURE"], 1), (BASE["FLEX_SECURE"], 1), (0x1234_5678, 0)):
            assert await cycles(address, nonsecure) == expected

    run(bench, check)

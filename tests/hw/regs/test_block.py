"""Register blocks do what the properties in the RDL promise."""

import pytest
from amaranth.sim import Simulator

from flexserve_hw.regs.block import RegisterBlock


def run(block, *testbenches):
    sim = Simulator(block)
    sim.add_clock(1e-9)
    for testbench in testbenches:
        sim.add_testbench(testbench)
    sim.run()


async def request(ctx, bus, *, write, addr, data=0, strb=0xF):
    """One request; returns ``(rdata, error)``. The caller sees combinational strobes through ``ctx`` in between."""
    ctx.set(bus.addr, addr)
    ctx.set(bus.write, write)
    ctx.set(bus.wdata, data)
    ctx.set(bus.strb, strb)
    ctx.set(bus.valid, 1)
    await ctx.tick()
    ctx.set(bus.valid, 0)
    ctx.set(bus.wdata, 0)
    return ctx.get(bus.rdata), ctx.get(bus.error)


async def write(ctx, bus, addr, data, strb=0xF):
    return (await request(ctx, bus, write=1, addr=addr, data=data, strb=strb))[1]


async def read(ctx, bus, addr):
    return await request(ctx, bus, write=0, addr=addr)


def test_identification_reads_its_constant():
    block = RegisterBlock("flexmem_normal")

    async def check(ctx):
        assert await read(ctx, block.bus, 0x00) == (0x464C584D, 0)
        assert await write(ctx, block.bus, 0x00, 0xFFFFFFFF) == 0
        assert await read(ctx, block.bus, 0x00) == (0x464C584D, 0)

    run(block, check)


def test_partial_strobes_change_only_their_bytes():
    block = RegisterBlock("storage")

    async def check(ctx):
        await write(ctx, block.bus, 0x08, 0x11223344)
        await write(ctx, block.bus, 0x08, 0xAABBCCDD, strb=0b0110)
        assert await read(ctx, block.bus, 0x08) == (0x11BBCC44, 0)
        assert ctx.get(block.FLASH_OFFSET.value.value) == 0x11BBCC44
        await write(ctx, block.bus, 0x08, 0x55667788, strb=0)
        assert await read(ctx, block.bus, 0x08) == (0x11BBCC44, 0)

    run(block, check)


def test_unmapped_address_answers_slverr_and_zero():
    block = RegisterBlock("storage")

    async def check(ctx):
        assert await read(ctx, block.bus, 0x040) == (0, 1)
        assert await write(ctx, block.bus, 0xFFC, 1) == 1
        assert await read(ctx, block.bus, 0x00) == (0x464C5344, 0)

    run(block, check)


def test_reserved_addresses_of_the_tzc_read_zero_with_okay():
    block = RegisterBlock("tzc400")

    async def check(ctx):
        assert await read(ctx, block.bus, 0x01C) == (0, 0)
        assert await write(ctx, block.bus, 0x01C, 1) == 0
        assert await read(ctx, block.bus, 0xFE0) == (0x60, 0)

    run(block, check)


def test_region_array_registers_are_separate_and_top_reads_inclusive():
    block = RegisterBlock("tzc400")

    async def check(ctx):
        for n in range(9):
            await write(ctx, block.bus, 0x100 + 0x20 * n + 0x8, 0x8000_0ABC + (n << 12))
        for n in range(9):
            assert await read(ctx, block.bus, 0x100 + 0x20 * n + 0x8) == (0x8000_0FFF + (n << 12), 0)
            assert ctx.get(block.REGION[n].TOP_LOW.address.value) == 0x80000 + n
            assert ctx.get(block.REGION[n].BASE_LOW.address.value) == 0

    run(block, check)


def test_command_strobe_needs_all_its_bytes_and_carries_what_is_written():
    block = RegisterBlock("gate_normal")
    command = block.CMD.COMMAND

    async def check(ctx):
        bus = block.bus
        for strb, expected in ((0b1110, 0), (0b0001, 1), (0b1111, 1)):
            ctx.set(bus.addr, 0x2C)
            ctx.set(bus.write, 1)
            ctx.set(bus.wdata, 0x5)
            ctx.set(bus.strb, strb)
            ctx.set(bus.valid, 1)
            assert ctx.get(command.code.swmod) == expected
            assert not expected or ctx.get(command.code.written) == 5
            await ctx.tick()
            ctx.set(bus.valid, 0)
            assert ctx.get(command.code.swmod) == 0
            assert ctx.get(command.code.value) == 5 * expected
            assert ctx.get(bus.error) == 0
        assert await read(ctx, bus, 0x2C) == (0, 0)

    run(block, check)


def test_rejected_write_answers_slverr_and_changes_nothing():
    block = RegisterBlock("gate_normal")

    async def check(ctx):
        bus = block.bus
        await write(ctx, bus, 0x24, 7)
        ctx.set(block.CMD.COUNT.reject, 1)
        ctx.set(block.CMD.COMMAND.reject, 1)
        assert await write(ctx, bus, 0x24, 9) == 1
        assert await read(ctx, bus, 0x24) == (7, 0)
        ctx.set(bus.addr, 0x2C)
        ctx.set(bus.write, 1)
        ctx.set(bus.strb, 0xF)
        ctx.set(bus.valid, 1)
        assert ctx.get(block.CMD.COMMAND.code.swmod) == 0
        await ctx.tick()
        ctx.set(bus.valid, 0)
        assert ctx.get(bus.error) == 1
        ctx.set(block.CMD.COUNT.reject, 0)
        assert await write(ctx, bus, 0x24, 9) == 0
        assert await read(ctx, bus, 0x24) == (9, 0)

    run(block, check)


def test_locked_field_ignores_writes_and_the_lock_cannot_be_cleared():
    block = RegisterBlock("flexmem_secure")

    async def check(ctx):
        bus = block.bus
        await write(ctx, bus, 0x10, 1234)
        await write(ctx, bus, 0x14, 1)
        ctx.set(block.GRACE.cycles.swwel, 1)
        assert await write(ctx, bus, 0x10, 1) == 0
        assert await read(ctx, bus, 0x10) == (1234, 0)
        await write(ctx, bus, 0x14, 0)
        assert await read(ctx, bus, 0x14) == (1, 0)

    run(block, check)


def test_interrupt_bit_set_and_cleared_in_the_same_cycle_stays_set():
    block = RegisterBlock("flexmem_normal")

    async def check(ctx):
        bus = block.bus
        ctx.set(block.IRQ_STATUS.freed.hwset, 1)
        await ctx.tick()
        ctx.set(block.IRQ_STATUS.freed.hwset, 0)
        assert await read(ctx, bus, 0x70) == (2, 0)
        assert ctx.get(block.irq) == 0
        await write(ctx, bus, 0x74, 2)
        assert ctx.get(block.irq) == 1
        ctx.set(block.IRQ_STATUS.freed.hwset, 1)
        await write(ctx, bus, 0x70, 2)
        ctx.set(block.IRQ_STATUS.freed.hwset, 0)
        assert await read(ctx, bus, 0x70) == (2, 0)
        await write(ctx, bus, 0x70, 0xFD)
        assert ctx.get(block.irq) == 1
        await write(ctx, bus, 0x70, 2)
        assert ctx.get(block.irq) == 0

    run(block, check)


def test_read_strobe_pops_exactly_once_and_returns_the_value_before_the_pop():
    block = RegisterBlock("flexmem_normal")
    pops = []

    async def hardware(ctx):
        await ctx.tick()
        ctx.set(block.FREED_POP.pfn.value, 0x1234)
        ctx.set(block.FREED_POP.valid.value, 1)
        async for _, _, swacc in ctx.tick().sample(block.FREED_POP.pfn.swacc):
            pops.append(swacc)
            if swacc:
                ctx.set(block.FREED_POP.valid.value, 0)

    async def check(ctx):
        await ctx.tick().repeat(3)
        assert await read(ctx, block.bus, 0x58) == (0x8000_1234, 0)
        assert await write(ctx, block.bus, 0x58, 0) == 0
        await ctx.tick().repeat(2)
        assert pops.count(1) == 1

    sim = Simulator(block)
    sim.add_clock(1e-9)
    sim.add_process(hardware)
    sim.add_testbench(check)
    sim.run()


def test_hidden_frame_reads_zero_and_ignores_writes_but_shows_what_is_visible():
    block = RegisterBlock("npu_frame", visible=("ID", "CAPS", "STATUS"))

    async def check(ctx):
        bus = block.bus
        ctx.set(block.live, 1)
        await write(ctx, bus, 0x10, 0xABCD)
        ctx.set(block.live, 0)
        ctx.set(block.CAPS.array.value, 16)
        assert await read(ctx, bus, 0x04) == (16, 0)
        assert await read(ctx, bus, 0x10) == (0, 0)
        assert await write(ctx, bus, 0x10, 1) == 0
        ctx.set(bus.addr, 0x20)
        ctx.set(bus.write, 1)
        ctx.set(bus.valid, 1)
        assert ctx.get(block.DOORBELL.tag.swmod) == 0
        await ctx.tick()
        ctx.set(bus.valid, 0)
        ctx.set(block.live, 1)
        assert await read(ctx, bus, 0x10) == (0xABCD, 0)

    run(block, check)


def test_clear_returns_every_stored_field_to_its_reset_value():
    block = RegisterBlock("flexmem_secure")

    async def check(ctx):
        bus = block.bus
        for addr, value in ((0x18, 0xFFFF), (0x14, 3), (0x20, 5)):
            await write(ctx, bus, addr, value)
        ctx.set(block.clear, 1)
        await write(ctx, bus, 0x24, 5)
        ctx.set(block.clear, 0)
        assert [await read(ctx, bus, addr) for addr in (0x18, 0x14, 0x20, 0x24)] == [(1, 0), (0, 0), (0, 0), (0, 0)]

    run(block, check)


def test_field_stored_in_hardware_only_passes_writes_on():
    block = RegisterBlock("flexmem_normal")

    async def check(ctx):
        bus, pages = block.bus, block.SIZE_REQUEST.pages
        ctx.set(pages.value, 3)
        ctx.set(bus.addr, 0x50)
        ctx.set(bus.write, 1)
        ctx.set(bus.wdata, 8)
        ctx.set(bus.strb, 0xF)
        ctx.set(bus.valid, 1)
        assert (ctx.get(pages.swmod), ctx.get(pages.written)) == (1, 8)
        await ctx.tick()
        ctx.set(bus.valid, 0)
        assert await read(ctx, bus, 0x50) == (3, 0)

    run(block, check)


def test_unknown_visible_register_is_refused():
    with pytest.raises(ValueError, match=r"not \('NOPE',\)"):
        RegisterBlock("npu_frame", visible=("NOPE",))

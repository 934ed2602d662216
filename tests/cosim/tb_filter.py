"""Flex-Mem filter alone, between a standard AXI master and a standard AXI memory."""

import cocotb
from cocotb.triggers import ClockCycles

from flexserve_sw.regs import FLEX_NORMAL, FLEX_SECURE, TZC, FlexmemSecure, RecallCommand, RecallResult, RecallState

from .bench import BASE, DECERR, MEMORY, NONSECURE, OKAY, SECURE, TB

PAGES = 64
PAGE = 4096
GRACE = 1000
OUTSIDE = BASE + PAGES * PAGE
FIRST = BASE >> 12


class FilterTB(TB):
    """Filter with a window of the first PAGES pages; everything outside is open to everyone."""

    async def boot(self):
        await self.reset()
        self.ram.write(0, self.rng.randbytes(MEMORY))
        await self.write(TZC.ACTION, 3)
        await self.write(TZC.REGION[0].ATTRIBUTES, 0xC000000F)
        await self.write(TZC.REGION[0].ID_ACCESS, 0xFFFFFFFF)
        await self.write(FLEX_SECURE.WINDOW_BASE, FIRST)
        await self.write(FLEX_SECURE.WINDOW_PAGES, PAGES)
        await self.write(FLEX_SECURE.GRACE, GRACE)
        await self.write(FLEX_SECURE.MANAGERS, 1)
        await self.write(FLEX_SECURE.CONTROL, FlexmemSecure.CONTROL__ENABLE.put(1))
        while not FlexmemSecure.CONTROL__READY.get(await self.read(FLEX_SECURE.CONTROL)):
            await ClockCycles(self.dut.clk, 200)
        assert not any(self.ram.read(0, PAGES * PAGE)), "the window must be zero before the gate opens"

    async def open(self):
        await self.write(TZC.GATE_KEEPER, 1)

    async def command(self, code, first, count, *, expect=RecallResult.OK):
        secure = code in (RecallCommand.ACCEPT, RecallCommand.RELEASE, RecallCommand.SEAL)
        frame, prot = (FLEX_SECURE, SECURE) if secure else (FLEX_NORMAL, NONSECURE)
        await self.write(frame.CMD.FIRST, first, prot=prot)
        await self.write(frame.CMD.COUNT, count, prot=prot)
        await self.write(frame.CMD.COMMAND, code, prot=prot)
        while (status := await self.read(frame.CMD.STATUS, prot=prot)) & 1:
            pass
        assert frame.CMD.STATUS__RESULT.get(status) == expect

    async def state(self, pfn):
        await self.write(FLEX_SECURE.QUERY_PAGE, pfn)
        return RecallState(FlexmemSecure.QUERY_STATE__STATE.get(await self.read(FLEX_SECURE.QUERY_STATE)))

    def memory(self, address, length):
        return bytes(self.ram.read(address % MEMORY, length))


@cocotb.test()
async def allowed_traffic_is_unchanged(dut):
    tb = FilterTB(dut)
    await tb.boot()
    await tb.open()
    for percent in (0, 40):
        tb.pause(percent)
        for start in (BASE + 3 * PAGE, OUTSIDE + PAGE):
            for offset, length in ((0, 16), (5, 100), (4096 - 7, 300), (0, 4096), (160, 5000)):
                data = tb.rng.randbytes(length)
                guard = tb.memory(start + offset - 16, 16), tb.memory(start + offset + length, 16)
                done = await tb.axi.write(start + offset, data, prot=NONSECURE)
                assert done.resp == OKAY
                assert tb.memory(start + offset, length) == data
                assert guard == (tb.memory(start + offset - 16, 16), tb.memory(start + offset + length, 16))
                got = await tb.axi.read(start + offset, length, prot=NONSECURE)
                assert (got.resp, bytes(got.data)) == (OKAY, data)


@cocotb.test()
async def lent_page_gives_the_normal_world_zeros_until_it_is_scrubbed(dut):
    tb = FilterTB(dut)
    await tb.boot()
    await tb.open()
    tb.pause(20)
    pfn, address = FIRST + 4, BASE + 4 * PAGE
    secret = bytes(tb.rng.randrange(1, 256) for _ in range(PAGE))
    guard = tb.rng.randbytes(PAGE)
    assert (await tb.axi.write(address + PAGE, guard, prot=NONSECURE)).resp == OKAY
    await tb.command(RecallCommand.DELEGATE, pfn, 1)
    await tb.command(RecallCommand.DELEGATE, pfn, 1, expect=RecallResult.BAD_STATE)
    await tb.command(RecallCommand.ACCEPT, pfn, 1)
    assert (await tb.axi.write(address, secret, prot=SECURE)).resp == OKAY

    async def normal_sees_nothing():
        got = await tb.axi.read(address, PAGE, prot=NONSECURE)
        assert got.resp == DECERR
        assert not any(got.data)
        assert (await tb.axi.write(address + 64, b"attack" * 10, prot=NONSECURE)).resp == DECERR

    await normal_sees_nothing()
    assert tb.memory(address, PAGE) == secret
    await tb.command(RecallCommand.RECALL, pfn, 1)
    assert await tb.state(pfn) == RecallState.RECALLING
    await normal_sees_nothing()
    assert bytes((await tb.axi.read(address, PAGE, prot=SECURE)).data) == secret
    while await tb.state(pfn) != RecallState.NORMAL:
        got = await tb.axi.read(address, 256, prot=NONSECURE)
        assert not any(got.data)
    assert bytes((await tb.axi.read(address, PAGE, prot=NONSECURE)).data) == bytes(PAGE)
    assert tb.memory(address + PAGE, PAGE) == guard
    denied = await tb.axi.read(address, 64, prot=SECURE)
    assert (denied.resp, any(denied.data)) == (DECERR, False)


@cocotb.test()
async def closed_gate_holds_accesses_and_opens_for_them(dut):
    tb = FilterTB(dut)
    await tb.boot()
    held = tb.axi.init_read(OUTSIDE, 64, prot=NONSECURE)
    await ClockCycles(dut.clk, 300)
    assert held.data is None
    await tb.open()
    await held.wait()
    assert bytes(held.data.data) == tb.memory(OUTSIDE, 64)

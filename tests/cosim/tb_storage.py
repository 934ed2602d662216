"""Storage DMA device alone, between a flash of Python and a standard AXI memory."""

import cocotb
from cocotb.triggers import RisingEdge

from flexserve_sw.regs import STORAGE, Storage

from .bench import BASE, NONSECURE, SLVERR, TB


class StorageTB(TB):
    """The device with a flash of 64 KiB that answers requests one after the other."""

    def __init__(self, dut):
        super().__init__(dut)
        self.flash = bytearray(self.rng.randbytes(1 << 16))
        self.idle = 0
        cocotb.start_soon(self._serve())

    async def _serve(self):
        dut = self.dut
        while True:
            dut.flash_req_ready.value = 1
            await RisingEdge(dut.clk)
            if not dut.flash_req_valid.value or dut.rst.value:
                continue
            offset, length = int(dut.flash_req_offset.value), int(dut.flash_req_length.value)
            to_flash = int(dut.flash_req_to_flash.value)
            dut.flash_req_ready.value = 0
            await (self._take if to_flash else self._give)(offset, length)

    async def _give(self, offset, length):
        dut = self.dut
        for at in range(offset, offset + length, 16):
            while self.rng.randrange(100) < self.idle:
                dut.flash_rdata_valid.value = 0
                await RisingEdge(dut.clk)
            dut.flash_rdata_valid.value = 1
            dut.flash_rdata_data.value = int.from_bytes(self.flash[at : at + 16], "little")
            await RisingEdge(dut.clk)
            while not dut.flash_rdata_ready.value:
                await RisingEdge(dut.clk)
        dut.flash_rdata_valid.value = 0

    async def _take(self, offset, length):
        dut = self.dut
        at = offset
        while at < offset + length:
            dut.flash_wdata_ready.value = self.rng.randrange(100) >= self.idle
            await RisingEdge(dut.clk)
            if dut.flash_wdata_ready.value and dut.flash_wdata_valid.value:
                self.flash[at : at + 16] = int(dut.flash_wdata_data.value).to_bytes(16, "little")
                at += 16
                assert bool(dut.flash_wdata_last.value) == (at == offset + length)
        dut.flash_wdata_ready.value = 0
        dut.flash_wdone.value = 1
        await RisingEdge(dut.clk)
        dut.flash_wdone.value = 0

    async def transfer(self, offset, address, length, to_flash):
        """Run one transfer and return its error bit."""
        for register, value in (
            (STORAGE.FLASH_OFFSET, offset),
            (STORAGE.MEM_ADDR_LO, address),
            (STORAGE.MEM_ADDR_HI, 0),
            (STORAGE.LENGTH, length),
            (STORAGE.IRQ_ENABLE, 1),
            (STORAGE.COMMAND, to_flash),
        ):
            await self.write(register, value, prot=NONSECURE)
        await self.until(self.dut.irq, 50_000)
        await self.write(STORAGE.IRQ_STATUS, 1, prot=NONSECURE)
        status = await self.read(STORAGE.STATUS, prot=NONSECURE)
        assert not Storage.STATUS__BUSY.get(status)
        return Storage.STATUS__ERROR.get(status)


@cocotb.test()
async def transfers_move_exactly_what_was_asked(dut):
    tb = StorageTB(dut)
    await tb.reset()
    for percent in (0, 35):
        tb.pause(percent)
        tb.idle = percent
        for offset, at, length in ((0, 0x100, 16), (64, 0xFF0, 4096), (4096, 0x3010, 9008)):
            before = bytes(tb.ram.read(at - 16, length + 32))
            assert not await tb.transfer(offset, BASE + at, length, 0)
            after = bytes(tb.ram.read(at - 16, length + 32))
            assert after[16:-16] == tb.flash[offset : offset + length]
            assert (after[:16], after[-16:]) == (before[:16], before[-16:])
            source = tb.rng.randbytes(length)
            tb.ram.write(at, source)
            edges = bytes(tb.flash[0x8000 - 16 : 0x8000]), bytes(tb.flash[0x8000 + length :][:16])
            assert not await tb.transfer(0x8000, BASE + at, length, 1)
            assert tb.flash[0x8000 : 0x8000 + length] == source
            assert edges == (bytes(tb.flash[0x8000 - 16 : 0x8000]), bytes(tb.flash[0x8000 + length :][:16]))


@cocotb.test()
async def illegal_size_is_an_error_and_moves_nothing(dut):
    tb = StorageTB(dut)
    await tb.reset()
    before = bytes(tb.ram.read(0, 8192))
    for length in (0, 8, 100):
        assert await tb.transfer(0, BASE + 0x1000, length, 0)
    assert bytes(tb.ram.read(0, 8192)) == before
    assert not await tb.transfer(0, BASE + 0x1000, 32, 0), "the device must work on"


@cocotb.test()
async def command_while_busy_is_refused(dut):
    tb = StorageTB(dut)
    await tb.reset()
    tb.idle = 80
    transfer = cocotb.start_soon(tb.transfer(0, BASE, 4096, 0))
    while not Storage.STATUS__BUSY.get(await tb.read(STORAGE.STATUS, prot=NONSECURE)):
        pass
    await tb.write(STORAGE.COMMAND, 1, prot=NONSECURE, expect=SLVERR)
    assert not await transfer
    assert bytes(tb.ram.read(0, 4096)) == tb.flash[:4096]

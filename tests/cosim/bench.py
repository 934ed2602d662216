"""Test bench shared by the IPs: clock, reset, register port, memory behind the master port."""

import itertools
import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiMaster, AxiProt, AxiRam

BASE = 0x8000_0000
MEMORY = 1 << 20
PLAIN_INPUTS = (
    *("secure", "live_normal", "live_secure", "ticket", "drain", "scrub"),
    *("flash_wdone", "flash_rdata_valid", "flash_req_ready", "flash_wdata_ready"),
)
"""Inputs that no bus model drives."""
OKAY, SLVERR, DECERR = 0, 2, 3
NONSECURE, SECURE = AxiProt.NONSECURE, AxiProt(0)


def stalls(seed, percent):
    """Endless pause pattern that holds a channel back in ``percent`` of the cycles."""
    rng = random.Random(seed)
    return (rng.randrange(100) < percent for _ in itertools.count())


class TB:
    """A DUT of :mod:`flexserve_hw.emit` with whatever standard ports it has.

    ``regs`` masters the register port, ``axi`` the memory port if the DUT has one, and ``ram`` answers its master port.
    """

    def __init__(self, dut):
        self.dut = dut
        self.rng = random.Random(cocotb.RANDOM_SEED)
        for name in PLAIN_INPUTS:
            if hasattr(dut, name):
                getattr(dut, name).value = 0
        # Low first: at the first edge every input has a value.
        cocotb.start_soon(Clock(dut.clk, 2, unit="ns").start(start_high=False))
        dut.s_axil_awuser.value = 0
        dut.s_axil_aruser.value = 0
        self.regs = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), dut.clk, dut.rst)
        self.axi = AxiMaster(AxiBus.from_prefix(dut, "s_axi"), dut.clk, dut.rst) if hasattr(dut, "s_axi_awid") else None
        self.ram = (
            AxiRam(AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, size=MEMORY)
            if hasattr(dut, "m_axi_awid")
            else None
        )

    async def reset(self):
        self.dut.rst.value = 1
        await ClockCycles(self.dut.clk, 4)
        self.dut.rst.value = 0
        await ClockCycles(self.dut.clk, 2)

    def pause(self, percent):
        """Hold back every channel of the memory ports in ``percent`` of the cycles."""
        seeds = itertools.count(self.rng.randrange(1 << 30))
        for side in (self.axi, self.ram):
            if side is not None:
                channels = [side.write_if.aw_channel, side.write_if.w_channel, side.write_if.b_channel]
                for channel in (*channels, side.read_if.ar_channel, side.read_if.r_channel):
                    channel.set_pause_generator(stalls(next(seeds), percent))

    async def write(self, address, value, *, prot=SECURE, expect=OKAY):
        done = await self.regs.write(address, value.to_bytes(4, "little"), prot=prot)
        assert done.resp == expect, f"register {address:#x}: {done.resp!r}"

    async def read(self, address, *, prot=SECURE, expect=OKAY):
        done = await self.regs.read(address, 4, prot=prot)
        assert done.resp == expect, f"register {address:#x}: {done.resp!r}"
        return int.from_bytes(done.data, "little")

    async def until(self, signal, cycles):
        """Wait for a wire to be high, ``cycles`` at most."""
        for _ in range(cycles):
            if signal.value:
                return
            await RisingEdge(self.dut.clk)
        raise AssertionError(f"{signal._name} did not rise within {cycles} cycles")

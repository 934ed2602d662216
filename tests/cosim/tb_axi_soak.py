"""Filter alone between AXI master and memory of cocotbext-axi: many bursts of both worlds, held back at random.

Every worker has memory of its own and knows what it must read there: ordinary workers in pages of the normal world and
outside the window, secure workers in lent pages, intruders in pages of the other world. A manager meanwhile lends pages
and takes them back, and looks at what comes back.
"""

import itertools
import json
import os
import random
from pathlib import Path

import cocotb
from cocotb.triggers import ClockCycles
from cocotb.utils import get_sim_time

from flexserve_sw.regs import FLEX_NORMAL, RecallCommand, RecallState

from .bench import BASE, DECERR, NONSECURE, OKAY, SECURE
from .tb_filter import FIRST, PAGE, PAGES, FilterTB

BURSTS = int(os.environ.get("FLEXSERVE_BURSTS", "300"))
LENT = 8
"""Pages from the window's first on that the secure world has; the next ones are the manager's."""


class Soak:
    """Counts, and the workers."""

    def __init__(self, tb):
        self.tb, self.bursts, self.denied = tb, 0, 0
        self.rounds = 0

    @property
    def done(self):
        return self.bursts >= BURSTS

    def count(self, address, length, size, denied=False):
        """Add the bursts that the master makes of an access: they end at pages and after 256 beats."""
        step, end = 1 << size, address + length
        while address < end:
            stop = min(end, address // PAGE * PAGE + PAGE, address // step * step + 256 * step)
            self.bursts += 1
            self.denied += denied
            address = stop

    def shape(self, rng, room):
        size = rng.choice([4, 4, 4, 3, 2, 1, 0])
        length = rng.choice([1, 1 << size, rng.randrange(1, 17), rng.randrange(1, 120), rng.randrange(1, 8 << size)])
        length = min(length, room)
        return rng.randrange(room - length + 1), length, size

    async def worker(self, start, room, prot, seed):
        """Writes and reads memory that nobody else writes."""
        tb, rng = self.tb, tb_random(seed)
        content = bytearray(tb.memory(start, room))
        while not self.done:
            offset, length, size = self.shape(rng, room)
            if rng.random() < 0.5:
                data = rng.randbytes(length)
                done = await tb.axi.write(start + offset, data, prot=prot, size=size)
                assert done.resp == OKAY
                content[offset : offset + length] = data
            else:
                done = await tb.axi.read(start + offset, length, prot=prot, size=size)
                assert done.resp == OKAY
                assert bytes(done.data) == content[offset : offset + length], f"{start + offset:#x}+{length}"
            self.count(start + offset, length, size)
        assert tb.memory(start, room) == bytes(content)

    async def intruder(self, start, room, prot, seed):
        """Goes for pages of the other world: gets zeros, changes nothing (their workers would notice)."""
        tb, rng = self.tb, tb_random(seed)
        while not self.done:
            offset, length, size = self.shape(rng, room)
            if rng.random() < 0.5:
                done = await tb.axi.write(start + offset, rng.randbytes(length), prot=prot, size=size)
            else:
                done = await tb.axi.read(start + offset, length, prot=prot, size=size)
                assert not any(done.data)
            assert done.resp == DECERR
            self.count(start + offset, length, size, denied=True)

    async def manager(self, pfn, seed):
        """Lends a page, has a secret written to it, takes it back and finds zeros."""
        tb, rng = self.tb, tb_random(seed)
        address, rounds = pfn * PAGE, 0
        while not self.done or not rounds:
            await tb.command(RecallCommand.DELEGATE, pfn, 1)
            await tb.command(RecallCommand.ACCEPT, pfn, 1)
            secret = bytes(rng.randrange(1, 256) for _ in range(200))
            offset = rng.randrange(PAGE - len(secret))
            assert (await tb.axi.write(address + offset, secret, prot=SECURE)).resp == OKAY
            await tb.command(rng.choice([RecallCommand.RECALL, RecallCommand.RELEASE]), pfn, 1)
            while await tb.state(pfn) is not RecallState.NORMAL:
                seen = await tb.axi.read(address + offset, len(secret), prot=NONSECURE)
                assert not any(seen.data)
                self.count(address + offset, len(secret), 4)
            await tb.read(FLEX_NORMAL.FREED_POP, prot=NONSECURE)
            back = await tb.axi.read(address, PAGE, prot=NONSECURE)
            assert (back.resp, any(back.data)) == (OKAY, False)
            self.bursts += 2
            rounds += 1
        self.rounds = rounds


def tb_random(seed):
    return random.Random(f"{cocotb.RANDOM_SEED} {seed}")


@cocotb.test()
async def many_bursts_of_both_worlds_read_what_was_written(dut):
    dut.rst.value = 0  # unknown until somebody says, in a simulator with four values
    tb = FilterTB(dut)
    # BREADY of the filter depends on BID: a memory that never answered must not drive an unknown one.
    dut.m_axi_bid.value = 0
    for side in (tb.axi, tb.ram, tb.regs):
        side.write_if.log.setLevel("WARNING")
        side.read_if.log.setLevel("WARNING")
    await tb.boot()
    await tb.open()
    await tb.command(RecallCommand.DELEGATE, FIRST, LENT)
    await tb.command(RecallCommand.ACCEPT, FIRST, LENT)
    soak, seeds = Soak(tb), itertools.count()
    window, outside = BASE, BASE + PAGES * PAGE
    free = window + (LENT + 1) * PAGE
    jobs = [soak.manager(FIRST + LENT, next(seeds))]
    for n in range(2):
        jobs.append(soak.worker(free + (1 + n) * PAGE, PAGE, NONSECURE, next(seeds)))
        jobs.append(soak.worker(outside + n * 4 * PAGE + 100, 3 * PAGE, NONSECURE, next(seeds)))
        jobs.append(soak.worker(window + n * 4 * PAGE + 50, 3 * PAGE, SECURE, next(seeds)))
        jobs.append(soak.intruder(window + n * PAGE, 2 * PAGE, NONSECURE, next(seeds)))
    jobs.append(soak.intruder(free + 3 * PAGE, 2 * PAGE, SECURE, next(seeds)))

    async def weather():
        while not soak.done:
            tb.pause(tb.rng.choice([0, 0, 10, 30, 60]))
            await ClockCycles(dut.clk, tb.rng.randrange(500, 3000))

    tasks = [cocotb.start_soon(job) for job in [*jobs, weather()]]
    for task in tasks:
        await task
    cycles = int(get_sim_time("ns")) // 2
    assert soak.denied > BURSTS // 20
    figures = {"bursts": soak.bursts, "denied": soak.denied, "pages_returned": soak.rounds, "cycles": cycles}
    if path := os.environ.get("FLEXSERVE_FIGURES"):
        Path(path).write_text(json.dumps(figures))

"""The storage DMA device moves every byte, crosses no page, reports errors and never hangs."""

import random

import pytest
from amaranth.sim import Simulator

from flexserve_hw.params import BusParams
from flexserve_hw.storage import StorageDma

PAGE = 4096
COMMAND, STATUS, IRQ_STATUS, IRQ_ENABLE = 0x18, 0x04, 0x70, 0x74


class Bench:
    """The device between a memory and a flash that stall at random and remember what they saw."""

    def __init__(self, *, seed, stall=0.3, errors=()):
        self.dut = StorageDma(bus=BusParams(id_width=3))
        self.rng = random.Random(seed)
        self.stall = stall
        self.errors = set(errors)
        self.memory, self.flash, self.requests, self.bursts = {}, {}, [], []
        self.most_outstanding = 0

    def run(self, check):
        sim = Simulator(self.dut)
        sim.add_clock(1e-9)
        sim.add_testbench(check)
        for part in (self.memory_write, self.memory_read, self.flash_device):
            sim.add_testbench(part, background=True)
        sim.run()

    async def idle(self, ctx):
        while self.rng.random() < self.stall:
            await ctx.tick()

    async def receive(self, ctx, stream):
        await self.idle(ctx)
        ctx.set(stream.ready, 1)
        while True:
            _, _, valid, payload = await ctx.tick().sample(stream.valid, stream.payload)
            if valid:
                ctx.set(stream.ready, 0)
                return payload

    async def send(self, ctx, stream, payload):
        await self.idle(ctx)
        ctx.set(stream.payload, payload)
        ctx.set(stream.valid, 1)
        ready = False
        while not ready:
            _, _, ready = await ctx.tick().sample(stream.ready)
        ctx.set(stream.valid, 0)

    def note(self, address):
        end = address.addr + 16 * (address.len + 1)
        assert address.addr // PAGE == (end - 1) // PAGE, "a burst crossed a page"
        assert (address.burst.value, address.size, address.prot.nonsecure, address.user) == (1, 4, 1, 2)
        self.bursts.append((address.addr, address.len + 1))
        return 2 if address.addr // PAGE in self.errors else 0

    async def memory_write(self, ctx):
        dma = self.dut.dma
        while True:
            address = await self.receive(ctx, dma.aw)
            resp = self.note(address)
            for beat in range(address.len + 1):
                got = await self.receive(ctx, dma.w)
                assert got.strb == 0xFFFF
                assert got.last == (beat == address.len)
                self.memory[address.addr + 16 * beat] = got.data
            await self.send(ctx, dma.b, {"id": address.id, "resp": resp})

    async def memory_read(self, ctx):
        dma = self.dut.dma
        while True:
            address = await self.receive(ctx, dma.ar)
            resp = self.note(address)
            for beat in range(address.len + 1):
                payload = {"data": self.memory.get(address.addr + 16 * beat, 0), "resp": resp}
                await self.send(ctx, dma.r, payload | {"last": beat == address.len})

    async def flash_device(self, ctx):
        dut = self.dut
        while True:
            request = await self.receive(ctx, dut.flash_req)
            self.requests.append((request.offset, request.length, request.to_flash))
            for offset in range(request.offset, request.offset + request.length, 16):
                if request.to_flash:
                    got = await self.receive(ctx, dut.flash_wdata)
                    self.flash[offset] = got.data
                    assert got.last == (offset + 16 == request.offset + request.length)
                else:
                    await self.send(ctx, dut.flash_rdata, self.flash.get(offset, 0))
            if request.to_flash:
                await ctx.tick().repeat(20)
                ctx.set(dut.flash_wdone, 1)
                await ctx.tick()
                ctx.set(dut.flash_wdone, 0)

    async def register(self, ctx, addr, value=None):
        """Write ``value``, or read; returns ``(rdata, error)``."""
        bus = self.dut.frame
        ctx.set(bus.addr, addr)
        ctx.set(bus.write, value is not None)
        ctx.set(bus.wdata, value or 0)
        ctx.set(bus.strb, 0xF)
        ctx.set(bus.valid, 1)
        await ctx.tick()
        ctx.set(bus.valid, 0)
        return ctx.get(bus.rdata), ctx.get(bus.error)

    async def start(self, ctx, *, offset, addr, length, to_flash):
        for register, value in ((0x08, offset), (0x0C, addr & 0xFFFFFFFF), (0x10, addr >> 32), (0x14, length)):
            assert await self.register(ctx, register, value) == (0, 0)
        assert await self.register(ctx, COMMAND, to_flash) == (0, 0)

    async def finish(self, ctx):
        """Wait for the interrupt, clear it, return STATUS."""
        await self.register(ctx, IRQ_ENABLE, 1)
        await ctx.tick().until(self.dut.irq)
        await self.register(ctx, IRQ_STATUS, 1)
        return (await self.register(ctx, STATUS))[0]


SIZES = [(0x8000_0000, 16), (0x8000_0FF0, 32), (0x8000_0100, PAGE), (0x8000_1230, 2 * PAGE + 48)]


@pytest.mark.parametrize("stall", [0, 0.4])
@pytest.mark.parametrize(("addr", "length"), SIZES)
def test_flash_to_memory_moves_every_byte(addr, length, stall):
    bench = Bench(seed=11, stall=stall)
    bench.flash = {0x500 + o: random.Random(o).getrandbits(128) for o in range(0, length, 16)}

    async def check(ctx):
        await bench.start(ctx, offset=0x500, addr=addr, length=length, to_flash=0)
        assert await bench.finish(ctx) == 0

    bench.run(check)
    assert bench.memory == {addr + o: bench.flash[0x500 + o] for o in range(0, length, 16)}
    assert bench.requests == [(0x500, length, 0)]


@pytest.mark.parametrize("stall", [0, 0.4])
@pytest.mark.parametrize(("addr", "length"), SIZES)
def test_memory_to_flash_moves_every_byte_and_waits_for_flash(addr, length, stall):
    bench = Bench(seed=12, stall=stall)
    bench.memory = {addr + o: random.Random(o).getrandbits(128) for o in range(0, length, 16)}

    async def check(ctx):
        await bench.start(ctx, offset=0, addr=addr, length=length, to_flash=1)
        assert await bench.finish(ctx) == 0
        assert len(bench.flash) == length // 16

    bench.run(check)
    assert bench.flash == {o: bench.memory[addr + o] for o in range(0, length, 16)}


@pytest.mark.parametrize("to_flash", [0, 1])
def test_error_response_is_reported_at_the_end_and_the_next_transfer_is_clean(to_flash):
    bench = Bench(seed=13, errors=[0x80001])
    bench.memory = {0x8000_0000 + o: 1 + o for o in range(0, 3 * PAGE, 16)}
    bench.flash = {o: 2 + o for o in range(0, 3 * PAGE, 16)}

    async def check(ctx):
        await bench.start(ctx, offset=0, addr=0x8000_0000, length=3 * PAGE, to_flash=to_flash)
        assert await bench.finish(ctx) == 0b10
        if to_flash:
            for offset in range(0, 3 * PAGE, 16):
                assert bench.flash[offset] == (0 if offset // PAGE == 1 else 1 + offset)
        await bench.start(ctx, offset=0, addr=0x8000_0000, length=32, to_flash=to_flash)
        assert await bench.finish(ctx) == 0

    bench.run(check)


@pytest.mark.parametrize(
    ("offset", "addr", "length"),
    [
        (0, 0x8000_0000, 0),
        (0, 0x8000_0000, 24),
        (8, 0x8000_0000, 16),
        (0, 0x8000_0008, 16),
        (0, 0xFFFF_FFF0, 32),
        (0, 0x1_0000_0000, 16),
    ],
)
def test_illegal_transfer_ends_with_an_error_and_touches_nothing(offset, addr, length):
    bench = Bench(seed=14, stall=0)

    async def check(ctx):
        await bench.start(ctx, offset=offset, addr=addr, length=length, to_flash=0)
        assert await bench.finish(ctx) == 0b10
        await ctx.tick().repeat(50)

    bench.run(check)
    assert (bench.requests, bench.bursts) == ([], [])


def test_last_bytes_of_the_address_space_are_reachable():
    bench = Bench(seed=15, stall=0)

    async def check(ctx):
        await bench.start(ctx, offset=0, addr=0xFFFF_FFF0, length=16, to_flash=0)
        assert await bench.finish(ctx) == 0

    bench.run(check)
    assert bench.bursts == [(0xFFFF_FFF0, 1)]


def test_command_while_busy_answers_slverr_and_the_running_transfer_keeps_its_parameters():
    bench = Bench(seed=16)

    async def check(ctx):
        await bench.start(ctx, offset=0, addr=0x8000_0000, length=PAGE, to_flash=0)
        assert await bench.register(ctx, STATUS) == (1, 0)
        assert await bench.register(ctx, COMMAND, 0) == (0, 1)
        await bench.register(ctx, 0x14, 16)
        await bench.register(ctx, 0x0C, 0x9000_0000)
        assert await bench.finish(ctx) == 0

    bench.run(check)
    assert bench.requests == [(0, PAGE, 0)]
    assert sorted(bench.memory) == [0x8000_0000 + o for o in range(0, PAGE, 16)]


def test_slow_flash_never_holds_the_bus():
    """A write burst shows on the bus only when all its beats follow without a gap."""
    bench = Bench(seed=17, stall=0)
    gaps = 0

    async def slow_flash(ctx):
        dut = bench.dut
        ctx.set(dut.flash_req.ready, 1)
        await ctx.tick().until(dut.flash_req.valid)
        for offset in range(0, 2 * PAGE, 16):
            await ctx.tick().repeat(3)
            ctx.set(dut.flash_rdata.payload, offset)
            ctx.set(dut.flash_rdata.valid, 1)
            await ctx.tick().until(dut.flash_rdata.ready)
            ctx.set(dut.flash_rdata.valid, 0)

    async def watch(ctx):
        nonlocal gaps
        dma, beats = bench.dut.dma, 0
        ctx.set(dma.aw.ready, 1)
        ctx.set(dma.w.ready, 1)
        announced = 0
        async for _, _, aw, length, w, last in ctx.tick().sample(
            dma.aw.valid, dma.aw.payload.len, dma.w.valid, dma.w.payload.last
        ):
            announced += (length + 1) if aw else 0
            gaps += bool(announced and not w)
            announced -= w
            beats += w
            if w and last and beats == 512:
                ctx.set(dma.b.valid, 1)
                await ctx.tick()
                await ctx.tick()
                return

    async def check(ctx):
        await bench.start(ctx, offset=0, addr=0x8000_0000, length=2 * PAGE, to_flash=0)
        assert await bench.finish(ctx) == 0

    sim = Simulator(bench.dut)
    sim.add_clock(1e-9)
    for part in (check, slow_flash, watch):
        sim.add_testbench(part)
    sim.run()
    assert gaps == 0


def test_width_other_than_flash_is_refused():
    with pytest.raises(ValueError, match=r"not 64$"):
        StorageDma(bus=BusParams(data_width=64))

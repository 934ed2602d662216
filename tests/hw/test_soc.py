"""The SoC joins its parts as the register map and the masters' identities say.

One boot in Amaranth's simulator, on the smallest configuration; what takes longer runs in co-simulation.
"""

import pytest
from amaranth.hdl import Module
from amaranth.sim import Simulator

from flexserve_hw.params import DRAM_BASE, FlexMemParams, NpuParams, Nsaid, SocParams
from flexserve_hw.regs.enums import RecallCommand, RecallResult, RecallState
from flexserve_hw.regs.fabric import soc_frames
from flexserve_hw.soc import MASTERS, Soc
from tests.hw.axil import read, write

PAGE = 4096
PAGES = 4
PARAMS = SocParams(
    flex=FlexMemParams(pages=PAGES, group=2, timers=1, freed_depth=16, grace_min=10),
    npu=NpuParams(n=4, a_words=64, w_words=64, c_rows=64),
    dram_bytes=PAGES * PAGE,
)
BASE = {frame.name: frame.base for frame in soc_frames()}
WINDOW = DRAM_BASE >> 12
OKAY, DECERR = 0, 3


class Phone:
    """The SoC with a memory behind it; ``seen`` are the (ID, address) pairs that reached memory."""

    def __init__(self):
        self.soc = Soc(params=PARAMS)
        self.memory, self.seen = {}, []

    def run(self, check):
        top = Module()
        top.submodules.soc = self.soc
        sim = Simulator(top)
        sim.add_clock(1e-9)
        sim.add_testbench(check)
        sim.add_testbench(self.serve, background=True)
        sim.run()

    async def serve(self, ctx):
        """Answer one burst of each direction at a time, one beat per cycle."""
        mem = self.soc.mem
        ctx.set(mem.aw.ready, 1)
        ctx.set(mem.ar.ready, 1)
        ctx.set(mem.w.ready, 1)
        writes, beats, answers, reads = [], [], [], []
        while True:
            sample = await ctx.tick().sample(
                mem.aw.valid, mem.aw.payload, mem.w.valid, mem.w.payload, mem.ar.valid, mem.ar.payload,
                mem.b.ready, mem.b.valid, mem.r.ready, mem.r.valid,
            )  # fmt: skip
            _, _, awv, aw, wv, w, arv, ar, b_ready, b_valid, r_ready, r_valid = sample
            if b_valid and b_ready:
                answers.pop(0)
            if r_valid and r_ready:
                reads.pop(0)
            if awv:
                self.seen.append((aw.id, aw.addr))
                writes.append(aw)
            if wv:
                beats.append(w)
                if w.last:
                    burst = writes.pop(0)
                    for index, beat in enumerate(beats):
                        self.memory[burst.addr + 16 * index] = beat.data
                    answers.append(burst.id)
                    beats = []
            if arv:
                self.seen.append((ar.id, ar.addr))
                reads += [(ar.id, ar.addr + 16 * index, index == ar.len) for index in range(ar.len + 1)]
            ctx.set(mem.b.valid, bool(answers))
            ctx.set(mem.r.valid, bool(reads))
            if answers:
                ctx.set(mem.b.payload, {"id": answers[0]})
            if reads:
                own, address, last = reads[0]
                ctx.set(mem.r.payload, {"id": own, "data": self.memory.get(address, 0xDEAD), "last": last})

    async def store(self, ctx, port, address, value, *, nonsecure=0):
        ctx.set(port.aw.payload, {"addr": address, "size": 4, "burst": 1, "prot": {"nonsecure": nonsecure}, "id": 5})
        ctx.set(port.w.payload, {"data": value, "strb": 0xFFFF, "last": 1})
        ctx.set(port.aw.valid, 1)
        ctx.set(port.w.valid, 1)
        ctx.set(port.b.ready, 1)
        while True:
            _, _, aw, w, b, payload = await ctx.tick().sample(port.aw.ready, port.w.ready, port.b.valid, port.b.payload)
            if aw:
                ctx.set(port.aw.valid, 0)
            if w:
                ctx.set(port.w.valid, 0)
            if b:
                assert payload.id == 5
                return payload.resp.value

    async def load(self, ctx, port, address, *, nonsecure=0):
        ctx.set(port.ar.payload, {"addr": address, "size": 4, "burst": 1, "prot": {"nonsecure": nonsecure}, "id": 6})
        ctx.set(port.ar.valid, 1)
        ctx.set(port.r.ready, 1)
        while True:
            _, _, ar, r, payload = await ctx.tick().sample(port.ar.ready, port.r.valid, port.r.payload)
            if ar:
                ctx.set(port.ar.valid, 0)
            if r:
                assert payload.id == 6
                return payload.data, payload.resp.value

    async def boot(self, ctx):
        """Everything allowed by region; the window covers all of memory; interrupts on."""
        secure = self.soc.axil_cpu_s
        for offset, value in ((0x110, 0xC000_0001), (0x114, 0xFFFF_FFFF), (0x004, 3)):
            assert await write(ctx, secure, BASE["TZC"] + offset, value) == OKAY
        flex = BASE["FLEX_SECURE"]
        for offset, value in ((0x08, WINDOW), (0x0C, PAGES), (0x10, 100), (0x74, 0x1F), (0x14, 2)):
            assert await write(ctx, secure, flex + offset, value) == OKAY
        await self.until(ctx, secure, flex + 0x14, lambda value: value & 4)
        assert await write(ctx, secure, BASE["TZC"] + 0x008, 1) == OKAY
        await self.until(ctx, secure, BASE["TZC"] + 0x008, lambda value: value >> 16 & 1)

    async def until(self, ctx, port, address, condition):
        for _ in range(2000):
            data, resp = await read(ctx, port, address)
            assert resp == OKAY
            if condition(data):
                return data
            await ctx.tick().repeat(5)
        pytest.fail(f"register {address:#x} never became what was waited for, but stayed {data:#x}")

    async def command(self, ctx, port, frame, code, *, first=WINDOW, count=1, ticket=0):
        base = BASE[frame]
        for offset, value in ((0x20, first), (0x24, count), (0x28, ticket), (0x2C, code.value)):
            assert await write(ctx, port, base + offset, value) == OKAY
        status = await self.until(ctx, port, base + 0x30, lambda value: not value & 1)
        return RecallResult(status >> 4)


def test_pages_lent_to_the_secure_world_are_closed_to_every_other_master():
    phone = Phone()
    soc = phone.soc
    secret = 0x5EC2E7

    async def check(ctx):
        await phone.boot(ctx)
        assert set(phone.memory.values()) == {0}
        assert len(phone.memory) == PAGES * PAGE // 16

        # NORMAL: the normal world writes and reads, a secure access is denied.
        phone.seen.clear()
        assert await phone.store(ctx, soc.cpu_n, DRAM_BASE, 0x11) == OKAY
        assert await phone.load(ctx, soc.hostile, DRAM_BASE) == (0x11, OKAY)
        assert await phone.load(ctx, soc.cpu_s, DRAM_BASE) == (0, DECERR)
        assert await phone.load(ctx, soc.cpu_s, DRAM_BASE, nonsecure=1) == (0x11, OKAY)
        assert [own >> 3 for own, _ in phone.seen] == [0, 4, 1]
        assert ctx.get(soc.irq_tzc)

        # FLEX: only a secure access; nothing else even reaches memory.
        assert await phone.command(ctx, soc.axil_cpu_n, "FLEX_NORMAL", RecallCommand.DELEGATE) == RecallResult.OK
        assert await phone.command(ctx, soc.axil_cpu_s, "FLEX_SECURE", RecallCommand.ACCEPT) == RecallResult.OK
        assert ctx.get(soc.irq_flex_s)
        assert not ctx.get(soc.irq_flex_n)
        assert await phone.store(ctx, soc.cpu_s, DRAM_BASE, secret) == OKAY
        phone.seen.clear()
        for port in (soc.cpu_n, soc.hostile):
            assert await phone.load(ctx, port, DRAM_BASE) == (0, DECERR)
            assert await phone.store(ctx, port, DRAM_BASE, 0x66) == DECERR
        assert await storage(ctx, phone, address=DRAM_BASE) == 0b10
        assert phone.seen == []
        assert await phone.load(ctx, soc.cpu_s, DRAM_BASE) == (secret, OKAY)

        # A device that ends its burst on the bus before its length says so draws no beat of the secure CPU into it.
        await lie_about_wlast(ctx, phone, secret)

        # Recalled and released: zeroed before the normal world sees it again.
        assert await phone.command(ctx, soc.axil_cpu_n, "FLEX_NORMAL", RecallCommand.RECALL) == RecallResult.OK
        assert await phone.command(ctx, soc.axil_cpu_s, "FLEX_SECURE", RecallCommand.RELEASE) == RecallResult.OK
        freed = await phone.until(ctx, soc.axil_cpu_n, BASE["FLEX_NORMAL"] + 0x58, lambda value: value >> 31)
        assert freed == 1 << 31 | WINDOW
        assert await phone.load(ctx, soc.cpu_n, DRAM_BASE) == (0, OKAY)

        # The storage device, as the normal-world master that it is, reaches the page again.
        phone.seen.clear()
        assert await storage(ctx, phone, address=DRAM_BASE) == 0
        assert phone.memory[DRAM_BASE] == 0xF1A5
        assert [own >> 3 for own, _ in phone.seen] == [3]

    phone.run(check)


async def lie_about_wlast(ctx, phone, secret):
    """The hostile device announces two beats for a page of its own but raises WLAST on both, beside a secure write."""
    hostile, secure, own = phone.soc.hostile, phone.soc.cpu_s, DRAM_BASE + PAGE
    beat = {"data": 0xBAD, "strb": 0xFFFF, "last": 1}
    for port, address, length in ((hostile, own, 1), (secure, DRAM_BASE + 16, 0)):
        ctx.set(port.aw.payload, {"addr": address, "len": length, "size": 4, "burst": 1, "id": 1})
        ctx.set(port.aw.valid, 1)
        await ctx.tick().until(port.aw.ready)
        ctx.set(port.aw.valid, 0)
    ctx.set(secure.w.payload, {"data": secret + 1, "strb": 0xFFFF, "last": 1})
    ctx.set(secure.w.valid, 1)
    for data in (0xBAD, 0xBAD + 1):
        await ctx.tick().repeat(20)
        ctx.set(hostile.w.payload, beat | {"data": data})
        ctx.set(hostile.w.valid, 1)
        await ctx.tick().until(hostile.w.ready)
        ctx.set(hostile.w.valid, 0)
    await ctx.tick().until(secure.w.ready)
    ctx.set(secure.w.valid, 0)
    await ctx.tick().repeat(20)
    assert (phone.memory[own], phone.memory[own + 16]) == (0xBAD, 0xBAD + 1)
    assert (phone.memory[DRAM_BASE], phone.memory[DRAM_BASE + 16]) == (secret, secret + 1)


async def storage(ctx, phone, *, address):
    """One beat from flash to memory by the storage device; returns STATUS."""
    soc, base = phone.soc, BASE["STORAGE"]
    for offset, value in ((0x0C, address), (0x14, 16), (0x74, 1), (0x18, 0)):
        assert await write(ctx, soc.axil_cpu_n, base + offset, value) == OKAY
    ctx.set(soc.flash_req.ready, 1)
    ctx.set(soc.flash_rdata.payload, 0xF1A5)
    ctx.set(soc.flash_rdata.valid, 1)
    await ctx.tick().until(soc.flash_rdata.ready)
    ctx.set(soc.flash_rdata.valid, 0)
    await ctx.tick().until(soc.irq_storage)
    status, _ = await read(ctx, soc.axil_cpu_n, base + 0x04)
    assert await write(ctx, soc.axil_cpu_n, base + 0x70, 1) == OKAY
    return status


def test_npu_changes_hands_through_its_gate_with_one_live_frame_and_the_hostile_device_manages_nothing():
    phone = Phone()
    soc = phone.soc

    async def live(ctx):
        normal, _ = await read(ctx, soc.axil_cpu_n, BASE["NPU_NORMAL"] + 0x08)
        secure, _ = await read(ctx, soc.axil_cpu_s, BASE["NPU_SECURE"] + 0x08)
        return normal & 1, secure & 1, ctx.get(soc.probe_npu_secure)

    async def state(ctx):
        return RecallState((await read(ctx, soc.axil_cpu_n, BASE["GATE_NORMAL"] + 0x04))[0])

    async def check(ctx):
        await phone.until(ctx, soc.axil_cpu_n, BASE["GATE_NORMAL"] + 0x04, lambda value: value == 0)
        assert await live(ctx) == (1, 0, 0)
        result = await phone.command(ctx, soc.axil_cpu_n, "GATE_NORMAL", RecallCommand.DELEGATE, first=0)
        assert result == RecallResult.OK
        assert (await state(ctx), await live(ctx)) == (RecallState.DELEGATED, (0, 0, 0))
        ticket, _ = await read(ctx, soc.axil_cpu_s, BASE["GATE_SECURE"] + 0x08)
        result = await phone.command(ctx, soc.axil_cpu_s, "GATE_SECURE", RecallCommand.ACCEPT, first=0, ticket=ticket)
        assert result == RecallResult.OK
        assert (await state(ctx), await live(ctx)) == (RecallState.FLEX, (0, 1, 1))
        assert await phone.command(ctx, soc.axil_cpu_n, "GATE_NORMAL", RecallCommand.RECALL, first=0) == RecallResult.OK
        assert await live(ctx) == (0, 1, 1)
        await phone.until(ctx, soc.axil_cpu_n, BASE["GATE_NORMAL"] + 0x04, lambda value: value == 0)
        assert await live(ctx) == (1, 0, 0)
        for frame, base in BASE.items():
            open_to_all = frame in ("NPU_NORMAL", "STORAGE")
            assert await write(ctx, soc.axil_hostile, base + 0x10, 0) == (OKAY if open_to_all else DECERR)

    phone.run(check)


def test_masters_carry_the_nsaids_of_the_map():
    assert [rule.nsaid for rule in MASTERS.values()] == [
        Nsaid.CPU, Nsaid.CPU, Nsaid.NPU, Nsaid.STORAGE, Nsaid.HOSTILE
    ]  # fmt: skip
    assert [name for name, rule in MASTERS.items() if rule.may_be_secure] == ["cpu_s", "npu"]

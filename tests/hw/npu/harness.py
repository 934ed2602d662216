"""Harness of the NPU's unit tests: memory on the AXI port, register accesses, a job runner."""

import random
from functools import cache

import numpy as np
from amaranth.hdl import Fragment
from amaranth.sim import Simulator, SimulatorContext

from flexserve_hw.bus.axi4 import Resp
from flexserve_hw.npu.top import FlexNpu
from flexserve_sw import npu
from flexserve_sw.regs import NpuFrame

REG = NpuFrame(0)


class AxiMemory:
    """Memory of ``size`` bytes behind an AXI4 port, with latency and random back-pressure.

    ``denied`` holds pages that answer DECERR. No data are taken before cycle ``w_from``. With ``data_first`` an address
    is taken only once its data are offered.
    Every rule of AXI4 that the NPU promises is asserted. Beats are as wide as the port.
    """

    def __init__(self, port, *, size=1 << 20, latency=8, stall=0.0, seed=0, secure=None, data_first=False):
        self.port = port
        self.beat = len(port.w.payload.strb)
        self.bytes = np.zeros(size, dtype=np.uint8)
        self.latency, self.stall, self.random = latency, stall, random.Random(seed)
        self.denied = set()
        self.reads, self.writes = [], []
        self.data_first = data_first
        self.w_from = 0
        self.secure = secure
        self.now = 0

    def check(self, address):
        addr, length = address.addr, address.len + 1
        assert addr % 16 == 0
        assert addr // 512 == (addr + self.beat * length - 1) // 512
        assert address.size == self.beat.bit_length() - 1
        assert address.user == 1
        if self.secure is not None:
            assert address.prot.nonsecure == (0 if self.secure() else 1)

    def bad(self, addr):
        return addr // 4096 in self.denied or addr >= self.bytes.size

    def quiet(self):
        return not self.reads and not self.writes

    async def serve(self, ctx: SimulatorContext):
        """Background testbench: answers reads and writes in order per direction."""
        port = self.port
        reads, writes, beats, answers = self.reads, self.writes, [], []
        r_valid = b_valid = False

        def ready():
            return self.random.random() >= self.stall

        while True:
            # Data are taken after their address, as memories do: data offered with no address taken wait for one.
            ar_ready, aw_ready, w_ready = ready(), ready(), ready() and bool(beats) and self.now >= self.w_from
            if self.data_first:
                aw_ready = aw_ready and not beats and ctx.get(port.w.valid)
            ctx.set(port.ar.ready, ar_ready)
            ctx.set(port.aw.ready, aw_ready)
            ctx.set(port.w.ready, w_ready)
            if not r_valid and reads and reads[0][0] <= self.now and ready():
                _, identity, addr, left = reads[0]
                word = 0 if self.bad(addr) else int.from_bytes(self.bytes[addr : addr + self.beat].tobytes(), "little")
                resp = Resp.DECERR if self.bad(addr) else Resp.OKAY
                ctx.set(port.r.payload, {"id": identity, "data": word, "resp": resp, "last": left == 1})
                r_valid = True
            if not b_valid and answers and answers[0][0] <= self.now and ready():
                _, identity, resp = answers[0]
                ctx.set(port.b.payload, {"id": identity, "resp": resp})
                b_valid = True
            ctx.set(port.r.valid, r_valid)
            ctx.set(port.b.valid, b_valid)
            sample = await ctx.tick().sample(
                port.ar.valid,
                port.ar.payload,
                port.aw.valid,
                port.aw.payload,
                port.w.valid,
                port.w.payload,
                port.r.ready,
                port.b.ready,
            )
            ar_valid, ar, aw_valid, aw, w_valid, w, r_ready, b_ready = sample[2:]
            self.now += 1
            if r_valid and r_ready:
                time, identity, addr, left = reads[0]
                if left == 1:
                    reads.pop(0)
                else:
                    reads[0] = (time, identity, addr + self.beat, left - 1)
                r_valid = False
            if b_valid and b_ready:
                answers.pop(0)
                writes.pop(0)
                b_valid = False
            if ar_valid and ar_ready:
                self.check(ar)
                reads.append((self.now + self.latency, ar.id, ar.addr, ar.len + 1))
            if aw_valid and aw_ready:
                self.check(aw)
                burst = [aw.id, aw.addr, aw.len + 1]
                writes.append(burst)
                beats.append(burst)
            if w_valid and w_ready:
                identity, addr, left = burst = beats[0]
                if not self.bad(addr):
                    for lane in range(self.beat):
                        if w.strb >> lane & 1:
                            self.bytes[addr + lane] = w.data >> 8 * lane & 0xFF
                burst[1:] = addr + self.beat, left - 1
                assert w.last == (left == 1)
                if left == 1:
                    beats.pop(0)
                    resp = Resp.DECERR if self.bad(addr) else Resp.OKAY
                    answers.append((self.now + self.latency, identity, resp))


class Engine:
    """A simulator that many benches use in turn: elaborating an NPU takes longer than most tests."""

    def __init__(self, params):
        self.dut = FlexNpu(params=params)
        self.fragment = Fragment.get(self.dut, None)
        self.simulator = Simulator(self.fragment)
        self.simulator.add_clock(1e-9)
        self.simulator.add_testbench(self.memory, background=True)
        self.simulator.add_testbench(self.main)
        self.bench = self.testbench = None

    async def memory(self, ctx):
        """Serves the memory of the present bench."""
        await self.bench.ram.serve(ctx)

    async def main(self, ctx):
        """Starts with the NPU owned by the normal world and scrubbed."""
        await self.bench.hand_over(ctx, secure=False)
        await self.testbench(ctx)

    def run(self, bench, testbench):
        """Run to the end, from reset."""
        used = self.bench is not None
        self.bench, self.testbench = bench, testbench
        if used:
            self.simulator.reset()
        self.simulator.run()


@cache
def engine(params):
    """The engine of this process for ``params``."""
    return Engine(params)


def random_parameters(channels, rng):
    """Bias, multiplier and shift for sums of a few thousand, with extremes among them."""
    bias = rng.integers(-(1 << 15), 1 << 15, channels).astype(np.int32)
    multiplier = rng.integers(0, 1 << 16, channels).astype(np.uint16)
    shift = rng.integers(16, 28, channels).astype(np.uint8)
    extreme = rng.random(channels) < 0.2
    bias[extreme] = rng.choice([-(1 << 31), (1 << 31) - 1, 0, 1], extreme.sum())
    shift[extreme] = rng.choice([0, 1, 40, 47, 63], extreme.sum())
    return bias, multiplier, shift


class Bench:
    """A FlexNpu with memory, driven through its frames."""

    def __init__(self, params, **memory):
        self.params = params
        depths = {name: getattr(params, name) for name in ("a_words", "w_words", "c_rows", "q_words")}
        self.caps = npu.Caps(n=params.n, **depths)
        self.engine = engine(params)
        self.dut = self.engine.dut
        self.is_secure = False
        self.ram = AxiMemory(self.dut.dma, secure=lambda: self.is_secure, **memory)

    def run(self, testbench):
        """Simulate ``testbench`` to its end."""
        self.engine.run(self, testbench)

    def place_gemm(self, m, k, n, *, rng, a=0x10000, w=0x40000, c=0x80000, by_row=False):
        """Random operands in memory, weights packed or row by row, 0xA5 where C goes.

        Returns the job and the true product.
        """
        left = rng.integers(-128, 128, (m, k), dtype=np.int8)
        right = rng.integers(-128, 128, (k, n), dtype=np.int8)
        a_stride, self.c_stride, self.c = -(-k // 16) * 16, -(-n // 4) * 16 + 16 * int(rng.integers(2)), c
        rows = rng.integers(-128, 128, (m, a_stride), dtype=np.int8)
        rows[:, :k] = left
        self.write(a, rows.tobytes())
        w_stride = None
        if by_row:
            word = max(16, self.params.n)
            w_stride = -(-n // word) * word + 16 * int(rng.integers(2))
            wide = rng.integers(-128, 128, (k, w_stride), dtype=np.int8)
            wide[:, :n] = right
            self.write(w, wide.tobytes())
        else:
            self.write(w, npu.pack_weights(right, self.params.n))
        self.write(c, b"\xa5" * (m * (self.c_stride + 16) + 64))
        job = npu.gemm_program(
            m=m, k=k, n=n, a_addr=a, a_stride=a_stride, w_addr=w, c_addr=c, c_stride=self.c_stride, caps=self.caps,
            w_stride=w_stride,
        )  # fmt: skip
        return job, left.astype(np.int32) @ right.astype(np.int32)

    def place_quantised_gemm(self, m, k, n, *, rng, relu=False, parameters=0x70000):
        """As :meth:`place_gemm` with int8 results. Returns the job and what C must hold."""
        job, sums = self.place_gemm(m, k, n, rng=rng)
        self.c_stride = -(-n // 16) * 16 + 16 * int(rng.integers(2))
        bias, multiplier, shift = random_parameters(n, rng)
        self.write(parameters, npu.pack_parameters(bias, multiplier, shift, self.params.n))
        first = next(d for d in job if isinstance(d, npu.Load))
        job = npu.gemm_program(
            m=m, k=k, n=n, a_addr=first.address, a_stride=first.stride, w_addr=0x40000, c_addr=self.c,
            c_stride=self.c_stride, caps=self.caps, requantise=npu.Requantise(address=parameters, relu=relu),
        )  # fmt: skip
        wide = (values.astype(np.int64) for values in (bias, multiplier, shift))
        return job, npu.requantise(sums, *wide, relu=relu)

    def quantised(self, m, n):
        """C in int8 as it lies in memory, and what lies around it."""
        rows = self.ram.bytes[self.c : self.c + m * self.c_stride].reshape(m, -1)
        around = np.concatenate([rows[:, n:].reshape(-1), self.ram.bytes[self.c + m * self.c_stride :][:64]])
        return rows[:, :n].copy().view(np.int8), around

    def product(self, m, n):
        """C as it lies in memory, and what lies around it."""
        rows = self.ram.bytes[self.c : self.c + m * self.c_stride].reshape(m, -1)
        around = np.concatenate([rows[:, 4 * n :].reshape(-1), self.ram.bytes[self.c + m * self.c_stride :][:64]])
        return rows[:, : 4 * n].copy().view("<i4"), around

    def write(self, address, payload):
        """Put bytes into memory."""
        self.ram.bytes[address : address + len(payload)] = np.frombuffer(payload, dtype=np.uint8)

    async def hand_over(self, ctx, *, secure, ticket=0):
        """What the gate does: block, drain, scrub, flip, open. Returns cycles of drain and scrub."""
        dut = self.dut
        ctx.set(dut.live_normal, 0)
        ctx.set(dut.live_secure, 0)
        ctx.set(dut.drain, 1)
        begin = self.ram.now
        while not ctx.get(dut.drained):
            await ctx.tick()
        assert self.ram.quiet()
        drained = self.ram.now
        ctx.set(dut.scrub, 1)
        while not ctx.get(dut.scrubbed):
            await ctx.tick()
        done = self.ram.now
        ctx.set(dut.scrub, 0)
        ctx.set(dut.secure, secure)
        ctx.set(dut.ticket, ticket)
        self.is_secure = secure
        await ctx.tick()
        ctx.set(dut.drain, 0)
        ctx.set(dut.live_secure if secure else dut.live_normal, 1)
        return drained - begin, done - drained

    async def access(self, ctx, secure, address, value=None):
        """Register read, or write of ``value``."""
        frame = self.dut.frame_s if secure else self.dut.frame_n
        ctx.set(frame.valid, 1)
        ctx.set(frame.write, value is not None)
        ctx.set(frame.addr, address)
        ctx.set(frame.wdata, value or 0)
        ctx.set(frame.strb, 0xF)
        await ctx.tick()
        ctx.set(frame.valid, 0)
        assert not ctx.get(frame.error)
        return ctx.get(frame.rdata)

    async def ring(self, ctx, address, count, *, tag=0, ticket=0, secure=None):
        """Queue a job."""
        secure = self.is_secure if secure is None else secure
        await self.access(ctx, secure, REG.JOB_ADDR_LO, address)
        await self.access(ctx, secure, REG.JOB_COUNT, count)
        await self.access(ctx, secure, REG.JOB_TICKET, ticket)
        await self.access(ctx, secure, REG.DOORBELL, tag)

    async def finish(self, ctx, *, limit=200_000):
        """Wait for the interrupt flags; returns and clears them."""
        start = self.ram.now
        while self.ram.now - start < limit:
            status = await self.access(ctx, self.is_secure, REG.IRQ_STATUS)
            if status:
                await self.access(ctx, self.is_secure, REG.IRQ_STATUS, status)
                return status
        raise AssertionError("no interrupt")

    async def job(self, ctx, descriptors, *, address=0x1000, tag=0, ticket=0, limit=200_000):
        """Put a job into memory, run it, return the interrupt flags."""
        program = npu.encode_program(descriptors)
        self.write(address, program)
        await self.ring(ctx, address, len(descriptors), tag=tag, ticket=ticket)
        return await self.finish(ctx, limit=limit)

    async def fault(self, ctx):
        """(code, index, address) of the fault record."""
        word = await self.access(ctx, self.is_secure, REG.FAULT)
        low = await self.access(ctx, self.is_secure, REG.FAULT_ADDR_LO)
        high = await self.access(ctx, self.is_secure, REG.FAULT_ADDR_HI)
        return NpuFrame.FAULT__CODE.get(word), NpuFrame.FAULT__INDEX.get(word), low | high << 32

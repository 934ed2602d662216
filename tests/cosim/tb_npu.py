"""Flex-NPU alone, with its memory: GEMMs against numpy."""

import cocotb
import numpy as np

from flexserve_sw import npu
from flexserve_sw.regs import NPU_NORMAL, NPU_SECURE, NpuFrame

from .bench import BASE, DECERR, NONSECURE, OKAY, SECURE, TB

PROGRAM, A, W, C = 0x1000, 0x10000, 0x40000, 0x80000


class NpuTB(TB):
    """NPU in the hands of one world."""

    async def give(self, secure):
        await self.reset()
        self.dut.secure.value = secure
        self.dut.live_secure.value = secure
        self.dut.live_normal.value = not secure
        self.frame, self.prot = (NPU_SECURE, SECURE) if secure else (NPU_NORMAL, NONSECURE)
        self.caps = npu.Caps.from_register(await self.read(self.frame.CAPS, prot=self.prot))
        await self.write(self.frame.IRQ_ENABLE, 3, prot=self.prot)

    async def gemm(self, m, k, n):
        """Run a random GEMM and compare every value, and the bytes around the result."""
        a = np.frombuffer(self.rng.randbytes(m * k), np.int8).reshape(m, k)
        w = np.frombuffer(self.rng.randbytes(k * n), np.int8).reshape(k, n)
        a_stride, c_stride = -(-k // 16) * 16, -(-4 * n // 16) * 16
        padded = np.zeros((m, a_stride), np.int8)
        padded[:, :k] = a
        self.ram.write(A, padded.tobytes())
        self.ram.write(W, npu.pack_weights(w, self.caps.n))
        guard = self.rng.randbytes(m * c_stride + 64)
        self.ram.write(C - 32, guard)
        program = npu.encode_program(
            npu.gemm_program(
                m=m, k=k, n=n, a_addr=BASE + A, a_stride=a_stride, w_addr=BASE + W, c_addr=BASE + C, c_stride=c_stride,
                caps=self.caps,
            )
        )  # fmt: skip
        self.ram.write(PROGRAM, program)
        await self.run(len(program) // npu.DESCRIPTOR_BYTES)
        raw = np.frombuffer(bytes(self.ram.read(C, m * c_stride)), np.uint8).reshape(m, c_stride)
        got = raw[:, : 4 * n].copy().view("<i4")
        np.testing.assert_array_equal(got, a.astype(np.int32) @ w.astype(np.int32))
        assert bytes(self.ram.read(C - 32, 32)) == guard[:32]
        assert bytes(self.ram.read(C + m * c_stride, 32)) == guard[-32:]

    async def run(self, count):
        frame, prot = self.frame, self.prot
        await self.write(frame.JOB_ADDR_LO, BASE + PROGRAM, prot=prot)
        await self.write(frame.JOB_ADDR_HI, 0, prot=prot)
        await self.write(frame.JOB_COUNT, count, prot=prot)
        await self.write(frame.JOB_TICKET, 0, prot=prot)
        await self.write(frame.DOORBELL, 7, prot=prot)
        await self.until(self.dut.irq_s if frame is NPU_SECURE else self.dut.irq_n, 100_000)
        status = await self.read(frame.IRQ_STATUS, prot=prot)
        assert not NpuFrame.IRQ_STATUS__FAULT.get(status), hex(await self.read(frame.FAULT, prot=prot))
        await self.write(frame.IRQ_STATUS, status, prot=prot)
        assert await self.read(frame.DONE_TAG, prot=prot) == 7


@cocotb.test()
async def ragged_gemms_equal_numpy_with_and_without_back_pressure(dut):
    tb = NpuTB(dut)
    await tb.give(secure=False)
    for percent in (0, 30):
        tb.pause(percent)
        for m, k, n in ((1, 1, 1), (4, 4, 4), (3, 7, 5), (17, 33, 9), (2, 64, 21)):
            await tb.gemm(m, k, n)


@cocotb.test()
async def world_of_every_dma_access_is_the_secure_bit(dut):
    tb = NpuTB(dut)
    seen = {"ar": set(), "aw": set()}

    async def watch():
        while True:
            await cocotb.triggers.RisingEdge(dut.clk)
            for channel, worlds in seen.items():
                if getattr(dut, f"m_axi_{channel}valid").value:
                    worlds.add(int(getattr(dut, f"m_axi_{channel}prot").value) >> 1 & 1)

    await tb.give(secure=True)
    cocotb.start_soon(watch())
    await tb.gemm(5, 9, 6)
    assert seen == {"ar": {0}, "aw": {0}}
    await tb.give(secure=False)
    for worlds in seen.values():
        worlds.clear()
    await tb.gemm(5, 9, 6)
    assert seen == {"ar": {1}, "aw": {1}}


@cocotb.test()
async def frame_of_a_world_answers_that_world_alone(dut):
    tb = NpuTB(dut)
    await tb.give(secure=False)
    await tb.read(NPU_SECURE.ID, prot=NONSECURE, expect=DECERR)
    await tb.write(NPU_SECURE.DOORBELL, 1, prot=NONSECURE, expect=DECERR)
    await tb.read(NPU_SECURE.ID, prot=SECURE, expect=OKAY)
    await tb.read(NPU_NORMAL.ID, prot=SECURE, expect=DECERR)

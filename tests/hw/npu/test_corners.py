"""The smallest NPU, where queues are larger than memories and the address space ends early; and single cycles."""

import pytest
from amaranth.hdl import MemoryInstance
from harness import REG, Bench

from flexserve_hw.params import BusParams, NpuParams
from flexserve_sw import npu
from flexserve_sw.regs import NpuFault

SMALLEST = NpuParams(n=4, a_words=8, w_words=8, c_rows=8, q_words=8, bus=BusParams(addr_width=20, id_width=3))
LIST, OTHER, OUT, END = 0x1000, 0x2000, 0x20000, 1 << 20
STORE = npu.Store(address=OUT, stride=16, rows=8, n=4, c_base=0, c_step=0)


def memories(part):
    """Contents of every memory of an elaborated design."""
    if isinstance(part, MemoryInstance):
        yield part._data
    for child, *_ in part.subfragments:
        yield from memories(child)


def test_a_scrub_zeroes_every_word_of_every_memory_of_the_smallest_npu():
    bench = Bench(SMALLEST)
    found = list(memories(bench.engine.fragment))

    async def testbench(ctx):
        for memory in found:
            for place in range(memory.depth):
                ctx.set(memory[place], (1 << memory[place].shape().width) - 1)
        assert all(ctx.get(memory[place]) for memory in found for place in range(memory.depth))
        await bench.hand_over(ctx, secure=True, ticket=1)
        assert not [place for memory in found for place in range(memory.depth) if ctx.get(memory[place])]

    bench.run(testbench)
    # Both queues of beats and that of announced bursts are deeper than any bank of this NPU.
    assert sorted(memory.depth for memory in found)[-4:] == [8, 32, 64, 64]


@pytest.mark.parametrize("before", [1, 2, 5, 12])
def test_a_list_past_the_end_of_the_address_space_is_a_fetch_error_and_never_wraps_around(before):
    bench = Bench(SMALLEST)

    async def testbench(ctx):
        # Behind the end the list would go on at address zero, with a store.
        bench.write(END - 32 * before, npu.encode_program([npu.Fence()] * before))
        bench.write(0, npu.encode_program([STORE]))
        bench.write(OUT, b"\xa5" * 128)
        await bench.ring(ctx, END - 32 * before, before + 1)
        assert await bench.finish(ctx, limit=2_000) == 2
        assert await bench.fault(ctx) == (NpuFault.FETCH_ERROR, before, END)
        assert (bench.ram.bytes[OUT : OUT + 128] == 0xA5).all()
        # A list that ends with the address space is good.
        await bench.ring(ctx, END - 32 * before, before)
        assert await bench.finish(ctx, limit=2_000) == 1
        assert await bench.job(ctx, [STORE], limit=2_000) == 1

    bench.run(testbench)


def test_an_abort_around_the_end_of_a_job_stops_the_next_one_in_every_cycle():
    bench = Bench(SMALLEST)

    async def testbench(ctx):
        bench.write(LIST, npu.encode_program([npu.Fence()] * 2))
        bench.write(OTHER, npu.encode_program([npu.Fence()] * 8 + [STORE]))
        bench.write(OUT, b"\xa5" * 128)
        finished = []
        for when in range(4, 44):
            count = await bench.access(ctx, False, REG.DONE_COUNT)
            await bench.ring(ctx, LIST, 2)
            await bench.ring(ctx, OTHER, 9)
            await ctx.tick().repeat(when)
            await bench.access(ctx, False, REG.CONTROL, 1)
            await ctx.tick().repeat(100)
            assert REG.STATUS__BUSY.get(await bench.access(ctx, False, REG.STATUS)) == 0, when
            assert (bench.ram.bytes[OUT : OUT + 128] == 0xA5).all(), when
            assert REG.IRQ_STATUS__FAULT.get(await bench.access(ctx, False, REG.IRQ_STATUS)), when
            assert (await bench.fault(ctx))[0] == NpuFault.ABORTED, when
            await bench.access(ctx, False, REG.IRQ_STATUS, 3)
            finished.append(await bench.access(ctx, False, REG.DONE_COUNT) - count)
        # The sweep passes over the end of the first job; the second never ends.
        assert finished == sorted(finished)
        assert set(finished) == {0, 1}

    bench.run(testbench)


def test_a_fault_in_the_cycle_in_which_the_one_before_is_cleared_is_recorded():
    bench = Bench(SMALLEST)

    async def testbench(ctx):
        flags = []
        for when in range(6):
            await bench.ring(ctx, LIST, 0)
            await ctx.tick().repeat(8)
            assert await bench.fault(ctx) == (NpuFault.BAD_DESCRIPTOR, 0, LIST)
            await bench.ring(ctx, LIST + 16, 1)
            await ctx.tick().repeat(when + 1)
            await bench.access(ctx, False, REG.IRQ_STATUS, 2)
            await ctx.tick().repeat(12)
            flags.append(REG.IRQ_STATUS__FAULT.get(await bench.access(ctx, False, REG.IRQ_STATUS)))
            if flags[-1]:
                assert await bench.fault(ctx) == (NpuFault.BAD_DESCRIPTOR, 0, LIST + 16), when
            await bench.access(ctx, False, REG.IRQ_STATUS, 3)
        # Clears before the fault and with it leave the flag up, later ones do not.
        assert flags == sorted(flags, reverse=True)
        assert set(flags) == {0, 1}

    bench.run(testbench)

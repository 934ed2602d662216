"""Elastic buffers and the arbiter keep order, lose nothing and cost no throughput."""

import random

import pytest
from amaranth.sim import Simulator

from flexserve_hw.bus.arbiter import RoundRobin
from flexserve_hw.bus.buffer import BypassBuffer, StreamBuffer, StreamQueue


def transfer(dut, *, items, send, take, seed=1):
    """Push ``items``; both sides act with the given probabilities. Returns what came out and the cycles it took."""
    rng = random.Random(seed)
    out, cycles = [], 0

    async def driver(ctx):
        for item in items:
            while rng.random() >= send:
                await ctx.tick()
            ctx.set(dut.i.payload, item)
            ctx.set(dut.i.valid, 1)
            await ctx.tick().until(dut.i.ready)
            ctx.set(dut.i.valid, 0)

    async def checker(ctx):
        nonlocal cycles
        held = None
        while len(out) < len(items):
            ready = rng.random() < take
            ctx.set(dut.o.ready, ready)
            _, _, valid, payload = await ctx.tick().sample(dut.o.valid, dut.o.payload)
            cycles += 1
            if held is not None:
                assert (valid, payload) == (1, held), f"an offered payload changed before it was taken (seed {seed})"
            held = payload if valid and not ready else None
            if valid and ready:
                out.append(payload)

    sim = Simulator(dut)
    sim.add_clock(1e-9)
    sim.add_testbench(driver)
    sim.add_testbench(checker)
    sim.run()
    return out, cycles


@pytest.mark.parametrize("make", [BypassBuffer, StreamBuffer, lambda shape: StreamQueue(shape=shape, depth=4)])
@pytest.mark.parametrize(("send", "take"), [(1, 1), (1, 0.5), (0.5, 1), (0.6, 0.6)])
def test_buffers_keep_order_under_back_pressure(make, send, take):
    items = list(range(200))
    out, _ = transfer(make(shape=8), items=items, send=send, take=take, seed=7)
    assert out == items


@pytest.mark.parametrize("make", [StreamBuffer, lambda shape: StreamQueue(shape=shape, depth=2)])
def test_buffers_pass_one_payload_per_cycle_with_one_cycle_latency(make):
    _, cycles = transfer(make(shape=8), items=list(range(100)), send=1, take=1)
    assert cycles == 101


def test_bypass_costs_no_cycle_and_takes_one_payload_from_a_stalled_source():
    _, cycles = transfer(BypassBuffer(shape=8), items=list(range(100)), send=1, take=1)
    assert cycles == 100
    dut = BypassBuffer(shape=8)

    async def check(ctx):
        ctx.set(dut.i.payload, 1)
        ctx.set(dut.i.valid, 1)
        assert (ctx.get(dut.i.ready), ctx.get(dut.o.valid), ctx.get(dut.o.payload)) == (1, 1, 1)
        await ctx.tick()
        ctx.set(dut.i.payload, 2)
        ctx.set(dut.o.ready, 1)
        assert (ctx.get(dut.i.ready), ctx.get(dut.o.payload)) == (0, 1)
        await ctx.tick()
        assert (ctx.get(dut.i.ready), ctx.get(dut.o.valid), ctx.get(dut.o.payload)) == (1, 1, 2)

    sim = Simulator(dut)
    sim.add_clock(1e-9)
    sim.add_testbench(check)
    sim.run()


@pytest.mark.parametrize("count", [1, 3, 5])
def test_arbiter_serves_all_requesters_in_turn(count):
    dut = RoundRobin(count=count)
    served = []

    async def check(ctx):
        ctx.set(dut.requests, (1 << count) - 1)
        ctx.set(dut.advance, 1)
        for _ in range(3 * count):
            served.append(ctx.get(dut.grant))
            await ctx.tick()
        ctx.set(dut.requests, 0)
        assert ctx.get(dut.valid) == 0

    sim = Simulator(dut)
    sim.add_clock(1e-9)
    sim.add_testbench(check)
    sim.run()
    assert served == list(range(count)) * 3


@pytest.mark.parametrize(
    ("make", "sentence"),
    [(lambda: RoundRobin(count=0), r"not 0$"), (lambda: StreamQueue(shape=1, depth=3), r"not 3$")],
)
def test_impossible_sizes_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()

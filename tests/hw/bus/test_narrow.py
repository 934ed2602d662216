"""Beats of 128 bits cross narrower buses whole, in order, with the right answers."""

import random
from collections import deque

import pytest
from amaranth.sim import Simulator

from flexserve_hw.bus.axi4 import AXI4Signature, Burst, Resp
from flexserve_hw.bus.narrow import NarrowBus

WIDE = AXI4Signature(addr_width=32, data_width=128, id_width=2)
FIELDS = ("id", "addr", "len", "size", "burst", "user")


def simulate(dut, *testbenches):
    sim = Simulator(dut)
    sim.add_clock(1e-9)
    for testbench in testbenches:
        sim.add_testbench(testbench)
    sim.run()


async def offer(ctx, stream, payloads, rng, *, pause):
    """Drive a stream with payloads one after the other."""
    for payload in payloads:
        while rng.random() < pause:
            await ctx.tick()
        ctx.set(stream.payload, payload)
        ctx.set(stream.valid, 1)
        await ctx.tick().until(stream.ready)
        ctx.set(stream.valid, 0)


async def take(ctx, stream, count, rng, *, pause):
    """Payloads of a stream, which must not change before they are taken."""
    taken, held = [], None
    while len(taken) < count:
        ready = rng.random() >= pause
        ctx.set(stream.ready, ready)
        _, _, valid, payload = await ctx.tick().sample(stream.valid, stream.payload)
        assert held is None or (valid, payload) == (1, held)
        held = payload if valid and not ready else None
        if valid and ready:
            taken.append(payload)
    ctx.set(stream.ready, 0)
    return taken


@pytest.mark.parametrize("width", [16, 32, 64])
@pytest.mark.parametrize("pause", [0.0, 0.4])
def test_addresses_and_write_beats_are_cut(width, pause):
    ratio, rng = 128 // width, random.Random(width)
    dut = NarrowBus(wide=WIDE, data_width=width)
    bursts = [
        {"id": rng.randrange(4), "addr": 16 * rng.randrange(1 << 20), "len": rng.randrange(256 // ratio), "size": 4,
         "burst": Burst.INCR, "user": rng.randrange(16)}
        for _ in range(12)
    ]  # fmt: skip
    beats = [
        {"data": rng.randrange(1 << 128), "strb": rng.randrange(1 << 16), "last": beat == burst["len"]}
        for burst in bursts
        for beat in range(burst["len"] + 1)
    ]

    def check_addresses(found):
        for burst, address in zip(bursts, found, strict=True):
            expected = burst | {"len": (burst["len"] + 1) * ratio - 1, "size": (width // 8).bit_length() - 1}
            assert {name: getattr(address, name) for name in FIELDS} == expected

    async def master(ctx):
        await offer(ctx, dut.wide.aw, bursts, rng, pause=pause)

    async def reader(ctx):
        await offer(ctx, dut.wide.ar, bursts, rng, pause=pause)

    async def writer(ctx):
        await offer(ctx, dut.wide.w, beats, rng, pause=pause)

    async def write_addresses(ctx):
        check_addresses(await take(ctx, dut.narrow.aw, len(bursts), rng, pause=pause))

    async def read_addresses(ctx):
        check_addresses(await take(ctx, dut.narrow.ar, len(bursts), rng, pause=pause))

    async def data(ctx):
        found = await take(ctx, dut.narrow.w, ratio * len(beats), rng, pause=pause)
        for number, beat in enumerate(beats):
            parts = found[number * ratio : (number + 1) * ratio]
            assert sum(part.data << i * width for i, part in enumerate(parts)) == beat["data"]
            assert sum(part.strb << i * width // 8 for i, part in enumerate(parts)) == beat["strb"]
            assert [part.last for part in parts] == [0] * (ratio - 1) + [beat["last"]]

    async def answers(ctx):
        await offer(ctx, dut.narrow.b, [{"id": i % 4, "resp": Resp(i % 4)} for i in range(8)], rng, pause=pause)

    async def answered(ctx):
        found = await take(ctx, dut.wide.b, 8, rng, pause=pause)
        assert [(answer.id, answer.resp) for answer in found] == [(i % 4, Resp(i % 4)) for i in range(8)]

    simulate(dut, master, reader, writer, write_addresses, read_addresses, data, answers, answered)


@pytest.mark.parametrize("width", [16, 32, 64])
@pytest.mark.parametrize("pause", [0.0, 0.4])
def test_read_beats_are_put_together_however_ids_are_mixed(width, pause):
    ratio, rng = 128 // width, random.Random(width)
    dut = NarrowBus(wide=WIDE, data_width=width)
    queues, expected = {i: deque() for i in range(4)}, {i: [] for i in range(4)}
    for identity, queue in queues.items():
        for beat in range(40):
            parts = [
                {"id": identity, "data": rng.randrange(1 << width), "last": 0,
                 "resp": rng.choice([Resp.SLVERR, Resp.DECERR]) if rng.random() < 0.1 else Resp.OKAY}
                for _ in range(ratio)
            ]  # fmt: skip
            parts[-1]["last"] = last = beat % 5 == 4
            queue.extend(parts)
            whole = sum(part["data"] << i * width for i, part in enumerate(parts))
            bad = [part["resp"] for part in parts if part["resp"] is not Resp.OKAY]
            expected[identity].append((whole, bad[0] if bad else Resp.OKAY, last))
    mixed = []
    while any(queues.values()):
        mixed.append(rng.choice([queue for queue in queues.values() if queue]).popleft())
    assert {resp for beats in expected.values() for _, resp, _ in beats} == {Resp.OKAY, Resp.SLVERR, Resp.DECERR}

    async def memory(ctx):
        await offer(ctx, dut.narrow.r, mixed, rng, pause=pause)

    async def master(ctx):
        found = await take(ctx, dut.wide.r, 160, rng, pause=pause)
        for identity, beats in expected.items():
            assert [(r.data, r.resp, r.last) for r in found if r.id == identity] == beats

    simulate(dut, memory, master)


@pytest.mark.parametrize("width", [16, 32, 64])
def test_no_cycle_is_lost(width):
    dut = NarrowBus(wide=WIDE, data_width=width)
    taken = []

    async def main(ctx):
        for stream in (dut.wide.w, dut.narrow.r):
            ctx.set(stream.valid, 1)
        for stream in (dut.narrow.w, dut.wide.r):
            ctx.set(stream.ready, 1)
        for _ in range(32):
            written = dut.wide.w.ready, dut.narrow.w.valid
            _, _, *seen = await ctx.tick().sample(*written, dut.wide.r.valid, dut.narrow.r.ready)
            taken.append(seen)

    simulate(dut, main)
    whole = [number % (128 // width) == 128 // width - 1 for number in range(32)]
    assert taken == [[last, 1, last, 1] for last in whole]


@pytest.mark.parametrize("width", [8, 128, 256])
def test_other_widths_are_refused(width):
    with pytest.raises(ValueError, match=f"a half, a quarter or an eighth of 128 data bits, not {width}"):
        NarrowBus(wide=WIDE, data_width=width)

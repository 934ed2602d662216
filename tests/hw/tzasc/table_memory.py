"""Memory that holds the page-state table, with errors on request."""

import random
from collections import deque

from flexserve_hw.bus.axi4 import Resp
from flexserve_hw.tzasc.line import line_beats, line_bytes, table_line

PAGE = 4096
TABLE_PFN = 0x80008


class TableMemory:
    """Answers the table's port after ``latency`` cycles, stalls at random, and holds each line to its format.

    ``lines`` are what memory holds, by number; ``fail_reads`` and ``fail_writes`` the next answers that are errors.
    """

    def __init__(self, bench, *, seed, stall, latency):
        self.bench, self.random, self.stall, self.latency = bench, random.Random(seed), stall, latency
        self.lines = {}
        self.fetches = self.stores = 0
        self.fail_reads = self.fail_writes = 0
        self.hold = False
        self.slowest = 0
        self._reads, self._addresses, self._beats, self._answers = deque(), deque(), deque(), deque()

    @property
    def _bus(self):
        return self.bench.dut.table_bus

    def begin(self, ctx):
        """Start with nothing offered."""
        self.slowest = 12 + self.latency + int(line_beats(self.bench.params) * 4 / (1 - self.stall))
        for channel in (self._bus.r, self._bus.b):
            ctx.set(channel.valid, 0)
        self._offered_r = self._offered_b = False
        bus = self._bus
        self.samples = [bus.ar.valid, bus.ar.payload, bus.aw.valid, bus.aw.payload, bus.w.valid, bus.w.payload]
        self.samples += [bus.r.ready, bus.b.ready]

    def _stalled(self):
        return self.random.random() < self.stall

    def offer(self, ctx):
        """Drive this cycle's handshakes."""
        bus, now = self._bus, self.bench.cycle
        self._ready = {name: not self._stalled() for name in ("ar", "aw", "w")}
        for name, ready in self._ready.items():
            ctx.set(getattr(bus, name).ready, ready)
        if not self._offered_r and self._reads and self._reads[0][0] <= now and not self.hold and not self._stalled():
            _, beats = self._reads[0]
            ctx.set(bus.r.payload, {"id": 0, "data": beats[0][0], "resp": beats[0][1], "last": len(beats) == 1})
            self._offered_r = True
        answered = self._answers and self._answers[0][0] <= now and not self.hold
        if not self._offered_b and answered and not self._stalled():
            ctx.set(bus.b.payload, {"id": 0, "resp": self._answers[0][1]})
            self._offered_b = True
        ctx.set(bus.r.valid, self._offered_r)
        ctx.set(bus.b.valid, self._offered_b)

    def _word(self, address):
        params = self.bench.params
        offset = address.addr - self.base
        assert offset % line_bytes(params) == 0, f"{address} is no line"
        assert (address.len + 1, address.prot.nonsecure) == (line_beats(params), 0)
        assert 0 <= offset // line_bytes(params) < params.pages // params.group, f"{address} is beyond the table"
        return offset // line_bytes(params)

    @property
    def base(self):
        """Byte address of the table."""
        return TABLE_PFN * PAGE

    def look(self, values):
        """Follow this cycle's handshakes."""
        ar_valid, ar, aw_valid, aw, w_valid, w, r_ready, b_ready = values
        params, now = self.bench.params, self.bench.cycle
        width = params.bus.data_width
        if self._offered_r and r_ready:
            self._offered_r = False
            self._reads[0][1].pop(0)
            if not self._reads[0][1]:
                self._reads.popleft()
        if self._offered_b and b_ready:
            self._offered_b = False
            self._answers.popleft()
        if ar_valid and self._ready["ar"]:
            word = self._word(ar)
            self.fetches += 1
            resp = Resp.OKAY
            if self.fail_reads:
                self.fail_reads -= 1
                resp = Resp.SLVERR
            line = self.lines.get(word, self.random.getrandbits(width * line_beats(params)))
            beats = [(line >> n * width & (1 << width) - 1, resp) for n in range(line_beats(params))]
            self._reads.append((now + self.latency, beats))
        if aw_valid and self._ready["aw"]:
            self._addresses.append(self._word(aw))
        if w_valid and self._ready["w"]:
            assert w.strb == (1 << width // 8) - 1
            self._beats.append(w.data)
            assert w.last == (len(self._beats) % line_beats(params) == 0)
        if self._addresses and len(self._beats) >= line_beats(params):
            word = self._addresses.popleft()
            line = sum(self._beats.popleft() << n * width for n in range(line_beats(params)))
            states = line & (1 << params.group * 6) - 1
            assert line == table_line(params, word, states), f"line {word} is not in its format"
            self.stores += 1
            resp = Resp.OKAY
            if self.fail_writes:
                self.fail_writes -= 1
                resp = Resp.SLVERR
            else:
                self.lines[word] = line
            self._answers.append((now + self.latency, resp))

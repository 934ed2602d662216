"""Load unit: memory to scratchpads."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..bus.buffer import StreamBuffer, StreamQueue
from ..params import NpuParams
from ..regs.enums import NpuSpace
from .commands import load_command
from .dma import OUTSTANDING, BurstWalker, burst

__all__ = ["LoadUnit", "fault_place"]

_MOST = 32
"""Beats of the longest read burst."""

_AHEAD = 512
"""Beats that may be on their way: enough for a memory latency of as many cycles. A stopped job waits for them."""


def fault_place(addr_width: int) -> data.StructLayout:
    """A failed transfer: its descriptor and byte address; one bit more than the bus has, for what lies past its end."""
    return data.StructLayout({"index": 16, "addr": addr_width + 1})


class LoadUnit(wiring.Component):
    """Runs LOADs: up to 31 bursts, 512 beats at most, are requested ahead, also of following LOADs, and placed as they
    arrive.

    Parameters
    ----------
    params : NpuParams

    Members
    -------
    command : In(stream)
        Checked LOADs. One is taken when its token is there and all requests of the one before are made.
    freed : In(1), take_freed : Out(1), give : Out(1)
        Tokens from and to the execute unit.
    ar : Out(stream(burst)), r : In(stream)
        Read requests and beats with ``error`` and ``last``, in order.
    a_en, w_en, q_en, addr, word : Out
        Write to the activation scratchpad, the weight scratchpad or the requantisation parameters.
    stop : In(1)
        Request nothing more; from the next cycle on, throw away what arrives.
    quiet : Out(1)
        Every request is answered.
    idle : Out(1)
        And nothing taken is unfinished.
    fault : Out(1), where : Out
        A beat failed, or a row begins past the end of the address space.

    Latency and ordering
    --------------------
    LOADs finish in order. One beat is placed per cycle for N of at least 16, else one word; a word is written two
    cycles after its beat was taken from the bus.
    """

    def __init__(self, *, params: NpuParams):
        self._params = params
        width = params.bus.addr_width
        super().__init__(
            {
                "command": In(stream.Signature(load_command(params))),
                "freed": In(1),
                "take_freed": Out(1),
                "give": Out(1),
                "ar": Out(stream.Signature(burst(width))),
                "r": In(stream.Signature(data.StructLayout({"data": 128, "error": 1, "last": 1}))),
                "a_en": Out(1),
                "w_en": Out(1),
                "q_en": Out(1),
                "addr": Out(16),
                "word": Out(8 * params.n),
                "stop": In(1),
                "quiet": Out(1),
                "idle": Out(1),
                "fault": Out(1),
                "where": Out(fault_place(width)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        layout = load_command(self._params)
        m.submodules.walker = walker = BurstWalker(addr_width=self._params.bus.addr_width, most=_MOST)
        m.submodules.places = places = StreamQueue(shape=layout, depth=4)
        command = self.command.payload
        take = Signal()
        waiting = Signal()
        issue = Signal()
        outstanding = Signal(range(OUTSTANDING + 1))
        ahead = Signal(range(_AHEAD + 1))
        beyond = Signal()
        bursts = walker.bursts
        m.d.comb += [
            take.eq(self.command.valid & walker.rows.ready & places.i.ready & (self.freed | ~command.wait_next)),
            self.command.ready.eq(take),
            self.take_freed.eq(take & command.wait_next),
            walker.rows.valid.eq(take),
            walker.rows.payload.index.eq(command.index),
            walker.rows.payload.addr.eq(command.addr),
            walker.rows.payload.stride.eq(command.stride),
            walker.rows.payload.rows.eq(command.rows),
            walker.rows.payload.beats.eq(command.beats),
            walker.rows.payload.linear.eq(command.linear),
            places.i.valid.eq(take),
            places.i.payload.eq(command),
            beyond.eq(bursts.valid & bursts.payload.beyond),
            issue.eq(
                bursts.valid
                & ~beyond
                & ~self.stop
                & (outstanding != OUTSTANDING)
                & (ahead <= _AHEAD - _MOST)
                & (~waiting | self.ar.ready)
            ),
            bursts.ready.eq(issue),
            self.ar.valid.eq(waiting),
            self.quiet.eq(~waiting & (outstanding == 0)),
        ]
        with m.If(issue):
            m.d.sync += [waiting.eq(1), self.ar.payload.eq(bursts.payload)]
        with m.Elif(self.ar.ready):
            m.d.sync += waiting.eq(0)
        answered = self.r.valid & self.r.ready & self.r.payload.last
        arrived = self.r.valid & self.r.ready
        m.d.sync += [
            outstanding.eq(outstanding + issue - answered),
            ahead.eq(ahead + Mux(issue, bursts.payload.beats, 0) - arrived),
        ]
        # What the bus offers has come a long way already.
        m.submodules.beats = beats = StreamBuffer(shape=self.r.payload.shape())
        wiring.connect(m, wiring.flipped(self.r), beats.i)
        placing, failed, row_start = self._place(m, places.o, beats.o)
        m.d.comb += self.idle.eq(self.quiet & walker.idle & ~placing & ~places.o.valid)
        # What failed stays unfinished, so that the job cannot end before it is told.
        m.d.sync += [
            self.fault.eq((failed | beyond) & ~self.stop),
            self.where.index.eq(Mux(failed, self._placed.index, bursts.payload.index)),
            self.where.addr.eq(Mux(failed, row_start, bursts.payload.addr | (1 << self._params.bus.addr_width))),
        ]
        return m

    def _place(self, m, places, r):
        """Cut beats into words and write them. Returns: is placing, a beat failed, address of the beat."""
        n = self._params.n
        self._placed = now = Signal(load_command(self._params))
        active = Signal()
        end = Signal()
        rows = Signal(16)
        left = Signal(17)
        addr = Signal(self._params.bus.addr_width)
        row = Signal(self._params.bus.addr_width)
        place = Signal(16)
        row_place = Signal(16)
        word_end = Signal()
        row_end, short = Signal(), Signal()  # left, now.row_bytes is one word at most
        use = Signal()
        # Nothing is placed behind a beat that failed, whenever the stop comes.
        failed, deaf = Signal(), Signal()
        m.d.comb += [use.eq(r.valid & active & ~deaf & ~r.payload.error), failed.eq(r.valid & active & r.payload.error)]
        with m.If(failed | self.stop):
            m.d.sync += deaf.eq(1)
        lanes = Cat(left > lane for lane in range(n))
        raw = Signal(8 * n)
        if n == 32:
            low = Signal(128)
            second = Signal()
            m.d.comb += [
                word_end.eq(use & (second | (left <= 16))),
                raw.eq(Mux(second, Cat(low, r.payload.data), r.payload.data)),
                r.ready.eq(deaf | active),
            ]
            with m.If(use):
                m.d.sync += [low.eq(r.payload.data), second.eq(~second & (left > 16))]
        else:
            part = Signal(range(max(2, 16 // n)))
            m.d.comb += [
                word_end.eq(use),
                raw.eq(r.payload.data.word_select(part, 8 * n) if n < 16 else r.payload.data),
                r.ready.eq(deaf | (active & (r.payload.error | row_end | (part == 16 // n - 1)))),
            ]
            if n < 16:
                with m.If(use):  # beats hold several words
                    m.d.sync += part.eq(Mux(r.ready, 0, part + 1))
        m.d.comb += end.eq(word_end & row_end & (rows == 1))
        # Block RAMs lie all over an FPGA: a word sets out for its own from registers, and the token with it.
        m.d.sync += [
            self.a_en.eq(word_end & (now.space == NpuSpace.ACTIVATIONS)),
            self.w_en.eq(word_end & (now.space == NpuSpace.WEIGHTS)),
            self.q_en.eq(word_end & (now.space == NpuSpace.PARAMETERS)),
            self.give.eq(end & now.signal_next),
        ]
        with m.If(word_end):
            m.d.sync += self.addr.eq(place)
            for lane in range(n):
                bits = slice(8 * lane, 8 * lane + 8)
                m.d.sync += self.word[bits].eq(Mux(lanes[lane], raw[bits], 0))
        with m.If(use & r.ready):
            m.d.sync += addr.eq(addr + 16)
        with m.If(word_end):
            m.d.sync += [place.eq(place + now.word_step), left.eq(left - n), row_end.eq(left <= 2 * n)]
            with m.If(row_end):
                m.d.sync += [
                    place.eq(row_place + now.row_step),
                    row_place.eq(row_place + now.row_step),
                    left.eq(now.row_bytes),
                    row_end.eq(short),
                    rows.eq(rows - 1),
                    addr.eq(row + now.stride),
                    row.eq(row + now.stride),
                ]
        m.d.comb += places.ready.eq(end | ~active)
        with m.If(end | ~active):
            m.d.sync += active.eq(places.valid)
            with m.If(places.valid):
                start = places.payload
                m.d.sync += [
                    now.eq(start),
                    rows.eq(start.rows),
                    left.eq(start.row_bytes),
                    row_end.eq(start.row_bytes <= n),
                    short.eq(start.row_bytes <= n),
                    place.eq(start.base),
                    row_place.eq(start.base),
                    addr.eq(start.addr),
                    row.eq(start.addr),
                ]
        return active, failed, addr

"""Store unit: accumulators to memory."""

from amaranth.hdl import C, Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..bus.buffer import StreamBuffer, StreamQueue
from ..params import NpuParams
from .commands import store_command
from .dma import OUTSTANDING, BeatQueue, BurstWalker, burst, walk
from .load import fault_place
from .parameters import CHANNEL, lanes
from .requantise import Requantiser

__all__ = ["STORE_QUEUE", "StoreUnit"]

_MOST = 16
"""Beats of the longest write burst."""

STORE_QUEUE = 64
"""Beats that can wait for the bus: several bursts, so that reading rows never waits for an address to be taken."""

_UNDER_WAY = 13
"""Beats at most between the rows and that queue: so many must still fit when a piece of a row is taken."""

_ROWS = 4
"""Rows that are read ahead: enough for one row's pieces after the other's in spite of the latency of a read."""


def _row_part(n: int) -> data.StructLayout:
    """What is used of a row of accumulators: up to which piece, and whether that ends a row of the STORE."""
    return data.StructLayout({"final": range(max(n // 4, n // lanes(n))), "last": 1})


def _tail() -> data.StructLayout:
    """What the rows of a STORE need on their way out; as in its command. ``single``: there is one."""
    layout = {"signal_prev": 1, "last_bytes": 5, "rows": 16, "quantise": 1, "relu": 1, "q_row": 14}
    return data.StructLayout({**layout, "single": 1})


class StoreUnit(wiring.Component):
    """Runs STOREs: rows are cut into beats first, requantised if asked, and a burst is announced when all its beats are
    there.

    A write therefore never holds the bus while the accumulators are busy, and a stopped job leaves none half done.

    Parameters
    ----------
    params : NpuParams

    Members
    -------
    command : In(stream)
        Checked STOREs. One is taken when its token is there and the rows of the one before are read.
    computed : In(1), take_computed : Out(1), give : Out(1)
        Tokens from and to the execute unit. One is given when the last row, and its parameters, are no longer needed.
    c_en, c_row : Out, c_ok, c_data : In
        Accumulator reads, see :class:`~flexserve_hw.npu.accumulator.Accumulator`.
    q_en, q_row : Out, q_data : In
        Parameter reads, see :class:`~flexserve_hw.npu.parameters.ParameterMemory`.
    aw : Out(stream(burst)), w : Out(stream), b : In(stream)
        Write requests; beats, which wait for no request to be taken; one ``error`` bit for each burst, in order.
    stop : In(1)
        Announce nothing more, and from the next cycle on read no row; announced bursts are finished. Stays high until
        the unit is reset.
    quiet : Out(1)
        Every announced burst is answered.
    idle : Out(1)
        And nothing taken is unfinished.
    fault : Out(1), where : Out
        A burst was refused, or a row begins past the end of the address space.
    kept : Out(16)
        Every STORE before the descriptor of this index is in memory, all its bursts answered without an error.
    scrub, scrub_addr : In
        As for :class:`~flexserve_hw.npu.scratchpad.Scratchpad`.

    Latency and ordering
    --------------------
    STOREs and their bursts keep their order. One beat of int32 per cycle for N of at least 8; N / 2 values of int8.
    """

    def __init__(self, *, params: NpuParams):
        self._params = params
        width = params.bus.addr_width
        super().__init__(
            {
                "command": In(stream.Signature(store_command(params))),
                "computed": In(1),
                "take_computed": Out(1),
                "give": Out(1),
                "c_en": Out(1),
                "c_row": Out(range(params.c_rows)),
                "c_ok": In(1),
                "c_data": In(32 * params.n),
                "q_en": Out(1),
                "q_row": Out(14),
                "q_data": In(data.ArrayLayout(CHANNEL, lanes(params.n))),
                "aw": Out(stream.Signature(burst(width))),
                "w": Out(stream.Signature(data.StructLayout({"data": 128, "strb": 16, "last": 1}))),
                "b": In(stream.Signature(data.StructLayout({"error": 1}))),
                "stop": In(1),
                "quiet": Out(1),
                "idle": Out(1),
                "fault": Out(1),
                "where": Out(fault_place(width)),
                "kept": Out(16),
                "scrub": In(1),
                "scrub_addr": In(range(STORE_QUEUE)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.walker = walker = BurstWalker(addr_width=self._params.bus.addr_width, most=_MOST)
        m.submodules.walks = walks = StreamQueue(shape=walk(self._params.bus.addr_width), depth=2)
        m.submodules.beats = beats = BeatQueue(width=144, depth=STORE_QUEUE, spare=_UNDER_WAY)
        m.d.comb += [beats.scrub.eq(self.scrub), beats.scrub_addr.eq(self.scrub_addr)]
        reading = self._read_rows(m, walks, beats)
        wiring.connect(m, walks.o, walker.rows)
        self._write(m, walker, beats)
        m.d.comb += self.idle.eq(self.quiet & walker.idle & ~walks.o.valid & ~reading & ~beats.o.valid)
        return m

    def _read_rows(self, m, walks, beats):
        """Read the rows of accumulators that a STORE names and cut them into beats. Returns whether any is underway."""
        n = self._params.n
        command = self.command.payload
        take = Signal()
        active = Signal()
        now = Signal(store_command(self._params))
        rows = Signal(16)
        left = Signal(16)
        row = Signal(range(self._params.c_rows))
        start = Signal(range(self._params.c_rows))
        granted = Signal()
        tile_last = Signal()
        coming = Signal(2)
        coming_pieces = Signal(range(max(n // 4, n // lanes(n)) + 1))
        coming_last = Signal()
        coming_part = Signal(_row_part(n))
        held = StreamQueue(shape=data.StructLayout({"part": _row_part(n), "row": 32 * n}), depth=_ROWS)
        m.submodules.rows = held
        room = Signal(range(_ROWS + 1), init=_ROWS)
        # Rows read for one STORE may still wait when the next is taken: how its rows end travels in the same order.
        tails = StreamQueue(shape=_tail(), depth=4)
        m.submodules.tails = tails
        # What hangs on a STORE's tail reaches far: it is shown from a register.
        m.submodules.tail = tail = StreamBuffer(shape=_tail())
        wiring.connect(m, tails.o, tail.i)
        per_row = Mux(now.quantise, n // lanes(n), n // 4)
        m.d.comb += [
            self.command.ready.eq(take),
            self.take_computed.eq(take & command.wait_prev),
            walks.i.valid.eq(take),
            walks.i.payload.index.eq(command.index),
            walks.i.payload.addr.eq(command.addr),
            walks.i.payload.stride.eq(command.stride),
            walks.i.payload.rows.eq(command.rows),
            walks.i.payload.beats.eq(command.beats),
            walks.i.payload.linear.eq(command.linear),
            tails.i.valid.eq(take),
            *(tails.i.payload[name].eq(command[name]) for name, _ in _tail() if name != "single"),
            tails.i.payload.single.eq(command.rows == 1),
            self.c_en.eq(active & (room != 0)),
            self.c_row.eq(row),
            granted.eq(self.c_en & self.c_ok),
            tile_last.eq(left <= per_row),
            held.i.valid.eq(coming[1]),
            held.i.payload.part.eq(coming_part),
            held.i.payload.row.eq(self.c_data),
        ]
        m.d.sync += [
            # Hundreds of registers follow this one; what it waits for only gets better until it is high.
            take.eq(
                self.command.valid
                & ~take
                & ~active
                & walks.i.ready
                & tails.i.ready
                & (self.computed | ~command.wait_prev)
            ),
            coming.eq(Cat(granted, coming)),
            coming_part.final.eq(coming_pieces - 1),
            coming_part.last.eq(coming_last),
        ]
        with m.If(take):
            m.d.sync += [
                active.eq(1),
                now.eq(command),
                rows.eq(command.rows),
                left.eq(command.pieces),
                row.eq(command.c_base),
                start.eq(command.c_base),
            ]
        with m.If(granted):
            m.d.sync += [
                coming_pieces.eq(Mux(tile_last, left, per_row)),
                coming_last.eq(tile_last),
                left.eq(left - per_row),
                row.eq(row + now.c_step),
            ]
            with m.If(tile_last):
                m.d.sync += [
                    left.eq(now.pieces),
                    row.eq(start + 1),
                    start.eq(start + 1),
                    rows.eq(rows - 1),
                    active.eq(rows != 1),
                ]
        with m.If(self.stop):
            m.d.sync += active.eq(0)
        m.d.sync += room.eq(room - granted + (held.o.valid & held.o.ready))
        busy = self._cut_rows(m, held.o, tail.o, beats)
        return active | coming.any() | held.o.valid | busy

    def _cut_rows(self, m, held, tails, beats):
        """Cut rows into beats, of int32 as they are, of int8 through the requantiser. Returns whether it is busy."""
        n, per_row = self._params.n, self._params.n // 4
        m.submodules.requantiser = requantiser = Requantiser(n=n)
        part, row, tail = held.payload.part, held.payload.row, tails.payload
        piece = Signal(range(max(2, per_row)))
        q_at = Signal.like(tail.q_row)
        fresh = Signal(init=1)
        taken, last_piece = Signal(), Signal()
        ending, row_number = Signal(5), Signal(16)
        m.d.comb += [
            last_piece.eq(piece == part.final),
            # Rows of one kind wait until those of the other are through.
            taken.eq(held.valid & tails.valid & beats.roomy & (tail.quantise | requantiser.idle)),
            held.ready.eq(taken & last_piece),
            requantiser.i.valid.eq(taken & tail.quantise),
            requantiser.i.payload.sums.eq(row.word_select(piece[0], 32 * lanes(n))),
            requantiser.i.payload.end.eq(ending),
            requantiser.i.payload.relu.eq(tail.relu),
            requantiser.parameters.eq(self.q_data),
            self.q_en.eq(requantiser.i.valid),
            self.q_row.eq(Mux(fresh, tail.q_row, q_at)),
        ]
        with m.If(taken):
            m.d.sync += [
                piece.eq(Mux(last_piece, 0, piece + 1)),
                q_at.eq(self.q_row + 1),
                fresh.eq(part.last & last_piece),
            ]
        out = Signal(data.StructLayout({"valid": 1, "data": 128, "end": 5}))
        given = Signal()
        done = requantiser.o.payload
        plain = row.word_select(piece, 128) if per_row > 1 else row
        m.d.sync += [
            out.valid.eq((taken & ~tail.quantise) | requantiser.o.valid),
            out.data.eq(Mux(requantiser.o.valid, done.data, plain)),
            out.end.eq(Mux(requantiser.o.valid, done.end, ending)),
        ]
        strobe = Mux(out.end == 0, 0xFFFF, Cat(out.end > byte for byte in range(16)))
        row_end = taken & part.last & last_piece
        started, final_row = Signal(), Signal()
        m.d.comb += [
            ending.eq(Mux(part.last & last_piece, tail.last_bytes, 0)),
            tails.ready.eq(row_end & Mux(started, final_row, tail.single)),
            self.give.eq(given),
            beats.i.valid.eq(out.valid),
            beats.i.payload.eq(Cat(out.data, strobe)),
        ]
        # The last row is read long before it is cut, and its parameters are read only then.
        m.d.sync += given.eq(tails.ready & tail.signal_prev)
        with m.If(row_end):
            m.d.sync += [
                row_number.eq(Mux(tails.ready, 0, row_number + 1)),
                started.eq(~tails.ready),
                final_row.eq(row_number + 2 == tail.rows),
            ]
        return ~requantiser.idle | out.valid

    def _write(self, m, walker, beats):
        """Announce bursts whose beats are there, send the beats, collect the answers."""
        width = self._params.bus.addr_width
        entry = data.StructLayout({"place": fault_place(width), "ends": 1})
        # The queue shows a burst before its answer: a memory answers a cycle after it took the last beat at least.
        m.submodules.places = places = BeatQueue(width=entry.size, depth=OUTSTANDING + 1)
        place = entry(places.o.payload)
        m.submodules.lengths = lengths = StreamQueue(shape=5, depth=4)
        ready = Signal(range(STORE_QUEUE + 4))
        outstanding = Signal(range(OUTSTANDING + 1))
        issue = Signal()
        waiting = Signal()
        beyond = Signal()
        answered, error = Signal(), Signal()
        able = Signal()
        bursts = walker.bursts
        m.d.comb += [
            beyond.eq(bursts.valid & bursts.payload.beyond),
            issue.eq(able & ~self.stop & ~waiting),
            bursts.ready.eq(issue),
            self.aw.valid.eq(waiting),
            # Beats follow the announcement, not its acceptance: a memory may take AW only once it sees W.
            lengths.i.valid.eq(issue),
            lengths.i.payload.eq(bursts.payload.beats - 1),
            places.i.valid.eq(issue),
            places.i.payload.eq(Cat(bursts.payload.index, bursts.payload.addr, C(0, 1), bursts.payload.ends)),
            places.o.ready.eq(answered),
            places.scrub.eq(self.scrub),
            places.scrub_addr.eq(self.scrub_addr),
            self.b.ready.eq(1),
            self.quiet.eq(outstanding == 0),
        ]
        with m.If(issue):
            m.d.sync += [waiting.eq(1), self.aw.payload.eq(bursts.payload)]
        with m.Elif(self.aw.ready):
            m.d.sync += waiting.eq(0)
        m.d.sync += [
            # What a burst waits for only gets better until it is announced.
            able.eq(
                bursts.valid
                & ~beyond
                & ~issue
                & (ready >= bursts.payload.beats)
                & (outstanding != OUTSTANDING)
                & lengths.i.ready
            ),
            ready.eq(ready + (beats.i.valid & beats.i.ready) - Mux(issue, bursts.payload.beats, 0)),
            outstanding.eq(outstanding + issue - answered),
            answered.eq(self.b.valid),
            error.eq(self.b.payload.error),
        ]
        sent = Signal(5)
        m.d.comb += [
            self.w.valid.eq(beats.o.valid & lengths.o.valid),
            self.w.payload.data.eq(beats.o.payload[:128]),
            self.w.payload.strb.eq(beats.o.payload[128:]),
            self.w.payload.last.eq(sent == lengths.o.payload),
            beats.o.ready.eq(self.w.ready & lengths.o.valid),
            lengths.o.ready.eq(self.w.valid & self.w.ready & self.w.payload.last),
        ]
        with m.If(self.w.valid & self.w.ready):
            m.d.sync += sent.eq(Mux(self.w.payload.last, 0, sent + 1))
        refused = answered & error
        # Told in the first cycle in which the job could be seen to be finished.
        m.d.sync += [self.fault.eq((refused | beyond) & ~self.stop), self.where.eq(place.place)]
        lost = Signal()
        with m.If(answered):
            m.d.sync += lost.eq(lost | error)
            with m.If(place.ends & ~lost & ~error):
                m.d.sync += self.kept.eq(place.place.index + 1)
        with m.If(~refused):
            m.d.sync += [
                self.where.index.eq(bursts.payload.index),
                self.where.addr.eq(bursts.payload.addr | (1 << width)),
            ]

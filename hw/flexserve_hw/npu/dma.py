"""What the NPU's DMA engines share: the cut of rows into bursts, and a scrubbed queue of beats."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .scratchpad import Scratchpad

__all__ = ["BEAT_BYTES", "OUTSTANDING", "BeatQueue", "BurstWalker", "burst", "walk"]

BEAT_BYTES = 16
"""Bytes of a beat inside."""

OUTSTANDING = 31
"""Bursts per direction that may be unanswered: enough rows of two beats to cover a memory latency of 60 cycles."""


def walk(addr_width: int) -> data.StructLayout:
    """Rows to walk: as in the unit commands; ``linear`` not 0 makes one row of that many beats of all of them."""
    return data.StructLayout({"index": 16, "addr": addr_width, "stride": 32, "rows": 16, "beats": 17, "linear": 31})


def burst(addr_width: int) -> data.StructLayout:
    """An INCR burst of ``beats`` full beats for descriptor ``index``.

    ``beyond``: it begins past the end of the address space. ``ends``: it is the walk's last.
    """
    return data.StructLayout({"index": 16, "addr": addr_width, "beats": 6, "beyond": 1, "ends": 1})


class BurstWalker(wiring.Component):
    """Cuts rows of beats into bursts.

    Parameters
    ----------
    addr_width : int
        Bits of a byte address.
    most : int
        Beats of the longest burst, a power of two up to 32. Bursts end where the address is a multiple of as many
        beats, so none crosses 4 KiB.

    Members
    -------
    rows : In(stream), bursts : Out(stream)
    idle : Out(1)
        No rows are held, and no burst is shown.

    Latency and ordering
    --------------------
    One burst per cycle, the first two cycles after its rows are taken; one cycle between walks. ``bursts`` comes from
    registers and stays until it is taken.
    """

    def __init__(self, *, addr_width: int, most: int):
        if not 2 <= most <= 32 or most & (most - 1):
            raise ValueError(f"Longest burst must be a power of two from 2 to 32 beats, not {most!r}")
        self._addr_width, self._most = addr_width, most
        super().__init__(
            {
                "rows": In(stream.Signature(walk(addr_width))),
                "bursts": Out(stream.Signature(burst(addr_width))),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        most, width = self._most, self._addr_width
        low, high = 4, 4 + (most - 1).bit_length()
        active = Signal()
        index = Signal(16)
        rows = Signal(16)
        left = Signal(31)
        beats = Signal(17)
        addr = Signal(width + 1)
        row = Signal(width + 1)
        stride = Signal(32)
        room = Signal(range(most + 1))  # to the next boundary
        row_end = Signal()
        row_next = Signal(width + 1)
        go = Signal()
        start, bursts = self.rows.payload, self.bursts
        m.d.comb += [
            row_end.eq(~left[most.bit_length() :].any() & (left[: most.bit_length()] <= room)),
            row_next.eq(Mux(row[width], 0, row + stride) | (row[width] << width)),
            go.eq(~bursts.valid | bursts.ready),
            self.rows.ready.eq(~active),
            self.idle.eq(~active & ~bursts.valid),
        ]
        with m.If(go):
            m.d.sync += bursts.valid.eq(active)
        with m.If(self.rows.valid & ~active):
            m.d.sync += [
                active.eq(1),
                index.eq(start.index),
                addr.eq(start.addr),
                room.eq(most - start.addr[low:high]),
                row.eq(start.addr),
                stride.eq(start.stride),
                beats.eq(start.beats),
                left.eq(Mux(start.linear != 0, start.linear, start.beats)),
                rows.eq(Mux(start.linear != 0, 1, start.rows)),
            ]
        with m.If(active & go):
            # A burst that does not end its row ends at a boundary, whatever its size.
            m.d.sync += [
                bursts.payload.index.eq(index),
                bursts.payload.addr.eq(addr),
                bursts.payload.beats.eq(Mux(row_end, left, room)),
                bursts.payload.beyond.eq(addr[width]),
                bursts.payload.ends.eq(row_end & (rows == 1)),
                left.eq(left - room),
                addr.eq((addr[high:] + 1) << high),
                room.eq(most),
            ]
            with m.If(row_end):
                m.d.sync += [
                    rows.eq(rows - 1),
                    left.eq(beats),
                    addr.eq(row_next),
                    room.eq(most - row_next[low:high]),
                    row.eq(row_next),
                    active.eq(rows != 1),
                ]
        return m


class BeatQueue(wiring.Component):
    """First-in first-out memory that can be scrubbed.

    Parameters
    ----------
    width : int
        Bits of an entry.
    depth : int
        Entries in memory, a power of two; one more waits at the output.
    spare : int
        Entries that ``roomy`` keeps back.

    Members
    -------
    i : In(stream), o : Out(stream)
    roomy : Out(1)
        Register: more than ``spare`` entries fit, those of this cycle and of the one before among them.
    scrub, scrub_addr : In
        As for :class:`~flexserve_hw.npu.scratchpad.Scratchpad`; the queue must be empty.

    Latency and ordering
    --------------------
    Two cycles from ``i`` to ``o``, full throughput; ``i.ready`` and ``o.valid`` are registers or depend on them alone.
    """

    def __init__(self, *, width: int, depth: int, spare: int = 0):
        self._memory = Scratchpad(width=width, depth=depth)
        self._depth, self._spare = depth, spare
        super().__init__(
            {
                "i": In(stream.Signature(width)),
                "o": Out(stream.Signature(width)),
                "roomy": Out(1),
                "scrub": In(1),
                "scrub_addr": In(range(depth)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = self._memory
        head = Signal(range(self._depth))
        tail = Signal(range(self._depth))
        level = Signal(range(self._depth + 1))
        full = Signal()
        fetch = Signal()
        push = Signal()
        m.d.comb += [
            self.i.ready.eq(level != self._depth),
            push.eq(self.i.valid & self.i.ready),
            fetch.eq((level != 0) & (~full | self.o.ready)),
            self.o.valid.eq(full),
            self.o.payload.eq(memory.r_data),
            memory.w_en.eq(push),
            memory.w_addr.eq(tail),
            memory.w_data.eq(self.i.payload),
            memory.r_en.eq(fetch),
            memory.r_addr.eq(head),
            memory.scrub.eq(self.scrub),
            memory.scrub_addr.eq(self.scrub_addr),
        ]
        m.d.sync += [
            level.eq(level + push - fetch),
            head.eq(head + fetch),
            tail.eq(tail + push),
            full.eq(fetch | (full & ~self.o.ready)),
            self.roomy.eq(level < self._depth - self._spare),
        ]
        return m

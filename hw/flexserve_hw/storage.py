"""The storage DMA device: moves ciphertext between flash and memory, as a normal-world master."""

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from .bus.axi4 import PAGE_BYTES, Burst
from .params import BusParams, Nsaid
from .regs.block import RegisterBlock
from .regs.regbus import RegisterBusSignature

__all__ = ["StorageDma", "FLASH_REQUEST"]

FLASH_REQUEST = data.StructLayout({"offset": 32, "length": 32, "to_flash": 1})
"""A transfer as flash sees it: byte offset, bytes, and whether memory is the source."""

_BUFFER_BEATS = 512
"""Beats between flash and bus: two pages of 16-byte beats, so that one is filled while the other moves."""

_MAX_BURSTS = 7
"""Bursts whose responses may be outstanding."""


def _failed(payload):
    """SLVERR and DECERR have the upper bit set."""
    return payload.resp.as_value()[1]


class _Cursor:
    """Walks a transfer in bursts that end at 4 KiB boundaries, at its end, or after 256 beats."""

    def __init__(self, m, name, *, addr_width, count_width, beat_bits):
        self._m = m
        self._beat_bits = beat_bits
        self.addr = Signal(addr_width, name=f"{name}_addr")
        self.left = Signal(count_width, name=f"{name}_left")
        page_beats = PAGE_BYTES >> beat_bits
        self.limit = min(page_beats, 256)
        index = self.addr[beat_bits : beat_bits + (self.limit - 1).bit_length()]
        self.room = Signal(range(self.limit + 1), name=f"{name}_room")
        self.beats = Signal(range(self.limit + 1), name=f"{name}_beats")
        m.d.comb += [
            self.room.eq(self.limit - index),
            self.beats.eq(Mux(self.left < self.room, self.left, self.room)),
        ]

    def load(self, addr, left):
        """Begin at ``addr`` with ``left`` beats."""
        return [self.addr.eq(addr), self.left.eq(left)]

    def step(self, beats):
        """Move on by ``beats``."""
        return [self.addr.eq(self.addr + (beats << self._beat_bits)), self.left.eq(self.left - beats)]


class StorageDma(wiring.Component):
    """Moves bytes between flash and memory by the registers of the map ``storage``.

    Parameters
    ----------
    bus : BusParams
        Widths of the memory port; 128 data bits.

    Members
    -------
    frame : In(RegisterBusSignature())
        Registers.
    dma : Out(AXI4Signature)
        Memory port: non-secure, NSAID of the storage device, ID 0, INCR bursts.
    flash_req : Out(stream of FLASH_REQUEST)
        One request per transfer, the next one only after the transfer before has ended.
    flash_rdata : In(stream of 128 bits)
        What flash reads: ``length / 16`` beats per request.
    flash_wdata : Out(stream of data, last)
        What flash shall write, ``last`` with the last beat of the request.
    flash_wdone : In(1)
        The write has reached flash. Sampled every cycle from the request until the transfer ends.
    irq : Out(1)
        A transfer ended, and the interrupt is enabled.

    Latency and ordering
    --------------------
    A write burst is announced only once all its data are in the buffer, a read burst only once the buffer has room for
    all of it: flash, however slow, never holds the bus. Up to 7 bursts are outstanding; bursts have up to 256 beats and
    never cross 4 KiB. A transfer ends when all responses are in and, towards flash, ``flash_wdone`` came. An error
    response does not stop it, so that flash and bus are always left idle: the error is reported at the end, and beats
    read with an error are passed on as zeros. An illegal size or alignment, or addresses past the end of the bus, end
    the transfer with an error at once, and neither port sees it.
    """

    def __init__(self, *, bus: BusParams):
        if bus.data_width != 128:
            raise ValueError(f"Storage DMA must have 128 data bits, not {bus.data_width!r}")
        self._bus = bus
        super().__init__(
            {
                "frame": In(RegisterBusSignature()),
                "dma": Out(bus.axi4),
                "flash_req": Out(stream.Signature(FLASH_REQUEST)),
                "flash_rdata": In(stream.Signature(bus.data_width)),
                "flash_wdata": Out(stream.Signature(data.StructLayout({"data": bus.data_width, "last": 1}))),
                "flash_wdone": In(1),
                "irq": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.regs = regs = RegisterBlock("storage")
        m.submodules.buffer = buffer = SyncFIFOBuffered(width=self._bus.data_width, depth=_BUFFER_BEATS)
        wiring.connect(m, wiring.flipped(self.frame), regs.bus)

        beat_bits = (self._bus.data_width // 8 - 1).bit_length()
        widths = {"addr_width": self._bus.addr_width, "count_width": 32 - beat_bits, "beat_bits": beat_bits}
        bursts, beats = _Cursor(m, "burst", **widths), _Cursor(m, "beat", **widths)
        busy, to_flash, failed, error = Signal(), Signal(), Signal(), Signal()
        asked, stored = Signal(), Signal()
        pending = Signal(range(_MAX_BURSTS + 1))
        start, legal, begin, finish = Signal(), Signal(), Signal(), Signal()

        base = (regs.MEM_ADDR_HI.value.value << 32) | regs.MEM_ADDR_LO.value.value
        length, offset = regs.LENGTH.value.value, regs.FLASH_OFFSET.value.value
        unaligned = base[:beat_bits] | length[:beat_bits] | offset[:beat_bits]
        m.d.comb += [
            start.eq(regs.COMMAND.to_flash.swmod),
            legal.eq(~unaligned.any() & length.any() & (base[:64] + length <= 1 << self._bus.addr_width)),
            begin.eq(start & legal),
            regs.COMMAND.reject.eq(busy),
            regs.STATUS.busy.value.eq(busy),
            regs.STATUS.error.value.eq(error),
            regs.IRQ_STATUS.done.hwset.eq(finish | (start & ~legal)),
            self.irq.eq(regs.irq),
            self.flash_req.payload.offset.eq(self._latched(m, begin, offset, "flash_offset")),
            self.flash_req.payload.length.eq(self._latched(m, begin, length, "flash_length")),
            self.flash_req.payload.to_flash.eq(to_flash),
            self.flash_req.valid.eq(busy & ~asked),
        ]
        with m.If(start):
            m.d.sync += error.eq(~legal)
        with m.If(begin):
            m.d.sync += [busy.eq(1), to_flash.eq(regs.COMMAND.to_flash.written), failed.eq(0)]
            m.d.sync += [asked.eq(0), stored.eq(0)]
            m.d.sync += bursts.load(base, length >> beat_bits)
            m.d.sync += beats.load(base, length >> beat_bits)
        with m.If(self.flash_req.valid & self.flash_req.ready):
            m.d.sync += asked.eq(1)
        with m.If(busy & self.flash_wdone):
            m.d.sync += stored.eq(1)
        m.d.comb += finish.eq(
            busy & asked & ~bursts.left.any() & ~beats.left.any() & ~pending.any() & (stored | ~to_flash)
        )
        with m.If(finish):
            m.d.sync += [busy.eq(0), error.eq(failed)]

        issued, ended = Signal(), Signal()
        m.d.sync += pending.eq(pending + issued - ended)
        inward, outward = busy & ~to_flash, busy & to_flash
        credit = self._credit(m, begin, regs.COMMAND.to_flash.written, inward, issued, bursts, buffer)
        self._issue(m, bursts, credit, pending, inward, outward, issued)
        self._to_memory(m, buffer, beats, inward, issued, bursts)
        self._from_memory(m, buffer, beats, outward)
        b, r = self.dma.b, self.dma.r
        m.d.comb += ended.eq((b.valid & b.ready) | (r.valid & r.ready & r.payload.last))
        with m.If((b.valid & _failed(b.payload)) | (r.valid & _failed(r.payload))):
            m.d.sync += failed.eq(1)
        return m

    def _latched(self, m, begin, value, name):
        latched = Signal(len(value), name=name)
        with m.If(begin):
            m.d.sync += latched.eq(value)
        return latched

    def _credit(self, m, begin, outward_next, inward, issued, bursts, buffer):
        """Beats that may still be announced: towards memory those in the buffer, from memory the room in it."""
        credit = Signal(range(_BUFFER_BEATS + 1))
        gain = Mux(inward, buffer.w_en & buffer.w_rdy, buffer.r_en & buffer.r_rdy)
        m.d.sync += credit.eq(credit + gain - Mux(issued, bursts.beats, 0))
        with m.If(begin):
            m.d.sync += credit.eq(Mux(outward_next, _BUFFER_BEATS, 0))
        return credit

    def _issue(self, m, bursts, credit, pending, inward, outward, issued):
        """Announce the next burst; its address waits in a register until it is taken."""
        dma = self.dma
        free = ~dma.aw.valid & ~dma.ar.valid
        m.d.comb += issued.eq(
            (inward | outward) & free & bursts.left.any() & (credit >= bursts.beats) & (pending != _MAX_BURSTS)
        )
        for channel, direction in ((dma.aw, inward), (dma.ar, outward)):
            with m.If(channel.ready):
                m.d.sync += channel.valid.eq(0)
            with m.If(issued & direction):
                m.d.sync += [
                    channel.valid.eq(1),
                    channel.payload.addr.eq(bursts.addr),
                    channel.payload.len.eq(bursts.beats - 1),
                ]
            m.d.comb += [
                channel.payload.size.eq((self._bus.data_width // 8 - 1).bit_length()),
                channel.payload.burst.eq(Burst.INCR),
                channel.payload.prot.nonsecure.eq(1),
                channel.payload.user.eq(Const(Nsaid.STORAGE)),
            ]
        with m.If(issued):
            m.d.sync += bursts.step(bursts.beats)

    def _to_memory(self, m, buffer, beats, inward, issued, bursts):
        """Flash fills the buffer; beats leave it once their burst is announced."""
        dma, w = self.dma, self.dma.w
        owed = Signal(range(_BUFFER_BEATS + 1))
        sent = w.valid & w.ready
        m.d.sync += owed.eq(owed + Mux(issued & inward, bursts.beats, 0) - sent)
        m.d.comb += [
            w.valid.eq(inward & owed.any() & buffer.r_rdy),
            w.payload.data.eq(buffer.r_data),
            w.payload.strb.eq(~Const(0, len(w.payload.strb))),
            w.payload.last.eq((beats.left == 1) | (beats.room == 1)),
            dma.b.ready.eq(1),
        ]
        with m.If(inward):
            m.d.comb += [
                self.flash_rdata.ready.eq(buffer.w_rdy),
                buffer.w_en.eq(self.flash_rdata.valid),
                buffer.w_data.eq(self.flash_rdata.payload),
                buffer.r_en.eq(sent),
            ]
            with m.If(sent):
                m.d.sync += beats.step(1)

    def _from_memory(self, m, buffer, beats, outward):
        """Memory fills the buffer; flash takes from it."""
        r, wdata = self.dma.r, self.flash_wdata
        m.d.comb += r.ready.eq(1)
        with m.If(outward):
            m.d.comb += [
                buffer.w_en.eq(r.valid),
                buffer.w_data.eq(Mux(_failed(r.payload), 0, r.payload.data)),
                wdata.valid.eq(buffer.r_rdy),
                wdata.payload.data.eq(buffer.r_data),
                wdata.payload.last.eq(beats.left == 1),
                buffer.r_en.eq(wdata.ready),
            ]
            with m.If(wdata.valid & wdata.ready):
                m.d.sync += beats.step(1)

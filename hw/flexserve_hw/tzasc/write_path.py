"""Writes: allowed ones pass, denied ones are swallowed, and the scrubber's go in between."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from flexserve_hw.bus.axi4 import AXI4Shape, Resp
from flexserve_hw.bus.buffer import BypassBuffer
from flexserve_hw.params import FlexMemParams

from .layouts import path_members
from .lookup import Lookup
from .read_path import choose, describe
from .tally import Tally

__all__ = ["WritePath", "downstream_shape"]

_SCRUB_AHEAD = 2
"""Scrub bursts among them: one whose beats go out, one to follow without a gap."""


def downstream_shape(params: FlexMemParams) -> AXI4Shape:
    """Channels below the filter: one more ID bit, set in the scrubber's transactions."""
    bus = params.bus
    return AXI4Shape(addr_width=bus.addr_width, data_width=bus.data_width, id_width=bus.id_width + 1)


class WritePath(wiring.Component):
    """AW, W and B from upstream to downstream, with the scrubber's bursts in the idle slots.

    A burst's beats are counted by its AWLEN; the WLAST that comes from upstream is not believed, so that no master
    can shift beats into another burst. Beats of a denied burst are swallowed, and the answer follows the last of
    them. Writes of one ID are answered in order, as reads are.

    A write is denied only when there is room for its answer, and keeps that room until the answer is taken. So beats
    wait for their own master, and those that go downstream for memory, but never for an answer.

    A scrub burst goes downstream when the write channel is idle or about to be, or, under load, when it is owed: for
    every ``(scrub_share - 1) * scrub_beats`` beats of upstream bursts, denied ones too, one; and while one is owed no
    upstream address goes ahead of it. So an upstream burst waits for at most twice ``scrub_beats`` beats, and those
    that are owed for the one burst before it, which has up to 256 beats.

    Parameters
    ----------
    params : FlexMemParams

    Members
    -------
    up_aw, up_w, up_b : upstream channels
    down_aw, down_w, down_b : downstream channels, with one more ID bit
    scrub_aw : In(stream)
        Bursts of ``scrub_beats`` beats of zeros to write: ``addr`` and ``id``.
    scrub_b : Out
        ``valid``, ``id``, ``okay``: a scrub burst was answered.
    others
        See :func:`.layouts.path_members`.

    Latency and ordering
    --------------------
    AW takes one cycle and one address per cycle. W is offered from the cycle after its address is, whether or not that
    is taken, as AXI asks; it passes combinationally, one beat per cycle across bursts. B passes combinationally.
    """

    def __init__(self, *, params: FlexMemParams):
        self._params = params
        shape, below = params.bus.axi4.shape, downstream_shape(params)
        scrub = data.StructLayout({"addr": shape.addr_width, "id": shape.id_width})
        answer = data.StructLayout({"valid": 1, "id": shape.id_width, "okay": 1})
        super().__init__(
            {
                "up_aw": In(stream.Signature(shape.address)),
                "up_w": In(stream.Signature(shape.write_data)),
                "up_b": Out(stream.Signature(shape.write_response)),
                "down_aw": Out(stream.Signature(below.address)),
                "down_w": Out(stream.Signature(below.write_data)),
                "down_b": In(stream.Signature(below.write_response)),
                "scrub_aw": In(stream.Signature(scrub)),
                "scrub_b": Out(answer),
                **path_members(params),
            }
        )

    def elaborate(self, platform):
        m = Module()
        params = self._params
        m.submodules.lookup = lookup = Lookup(params=params, write=True)
        m.submodules.tally = tally = Tally(id_width=params.bus.id_width, limit=params.outstanding)
        connect(m, flipped(self.up_aw), lookup.upstream)
        connect(m, lookup.table, flipped(self.table))
        m.d.comb += [
            lookup.open.eq(self.open & tally.ready),
            lookup.window.eq(self.window),
            lookup.epoch.eq(self.epoch),
            *(theirs.eq(ours) for theirs, ours in zip(lookup.regions, self.regions, strict=True)),
            self.accept.eq(lookup.accept),
            tally.epoch.eq(self.epoch),
        ]

        # Upstream bursts in the order of their addresses, and downstream bursts in the order of theirs.
        route_layout = data.StructLayout({"allow": 1, "len": 8, "id": params.bus.id_width, "resp": Resp})
        m.submodules.route = route = fifo.SyncFIFO(width=route_layout.size, depth=params.bursts_ahead)
        m.submodules.source = source = fifo.SyncFIFO(width=1, depth=params.bursts_ahead)
        entry, head = Signal(route_layout), Signal(route_layout)
        verdict, request = lookup.verdict.payload, lookup.verdict.payload.request

        overdue = Signal()
        room = Signal()
        ours = stream.Signature(self.up_aw.payload.shape()).create(path=("ours",))
        m.d.comb += [
            ours.payload.eq(request),
            ours.valid.eq(lookup.verdict.valid & verdict.allow & ~tally.full & ~tally.denied & route.w_rdy),
            self.allow.eq(ours.valid & ours.ready),
            self.deny.eq(lookup.verdict.valid & ~verdict.allow & ~tally.full & route.w_rdy & room & ~overdue),
            lookup.verdict.ready.eq(self.allow | self.deny),
            tally.issue.eq(lookup.verdict.ready),
            tally.issue_id.eq(request.id),
            tally.issue_epoch.eq(verdict.epoch),
            tally.issue_forward.eq(verdict.allow),
            entry.allow.eq(verdict.allow),
            entry.len.eq(request.len),
            entry.id.eq(request.id),
            entry.resp.eq(Mux(self.decerr, Resp.DECERR, Resp.OKAY)),
            route.w_data.eq(entry),
            route.w_en.eq(lookup.verdict.ready),
            head.eq(route.r_data),
        ]
        describe(m, self, verdict)
        scrub_done = self._addresses(m, ours, source, overdue)
        self._beats(m, route, head, source, scrub_done)
        self._answers(m, tally, room)
        return m

    def _addresses(self, m, ours, source, overdue):
        """Join upstream and scrub addresses; return the strobe to raise when a scrub burst has sent its beats.

        Drives ``overdue``: a scrub burst is owed.
        """
        params = self._params
        # An address counts as sent when it is offered, so that its beats never wait for its acceptance.
        m.submodules.aw_buffer = buffer = BypassBuffer(shape=self.down_aw.payload.shape())
        connect(m, buffer.o, flipped(self.down_aw))
        sent, scrub, idle = buffer.i, Signal(), Signal()
        due = max(1, (params.scrub_share - 1) * params.scrub_beats)
        owed = Signal(range(due + 256))
        paid = Signal.like(owed)
        ahead = Signal(range(_SCRUB_AHEAD + 1))
        scrub_done = Signal()
        ready = self.scrub_aw.valid & (ahead != _SCRUB_AHEAD)
        m.d.comb += [
            # Idle: no upstream address is ready to go, and at most one upstream burst has its beats still to come.
            idle.eq(~ours.valid & (source.level <= ahead + 1)),
            # Upstream waits even while no scrub burst may go: addresses far ahead of their data would dilute the share.
            overdue.eq(self.scrub_aw.valid & (owed >= due)),
            scrub.eq(ready & (idle | overdue)),
            sent.valid.eq(source.w_rdy & (scrub | (ours.valid & ~overdue))),
            ours.ready.eq(source.w_rdy & sent.ready & ~scrub & ~overdue),
            self.scrub_aw.ready.eq(source.w_rdy & sent.ready & scrub),
            source.w_en.eq(sent.valid & sent.ready),
            source.w_data.eq(scrub),
        ]
        with m.If(scrub):
            m.d.comb += [
                sent.payload.id.eq(Cat(self.scrub_aw.payload.id, Const(1))),
                sent.payload.addr.eq(self.scrub_aw.payload.addr),
                sent.payload.len.eq(params.scrub_beats - 1),
                sent.payload.size.eq((params.bus.data_width // 8).bit_length() - 1),
                sent.payload.burst.eq(1),
            ]
        with m.Else():
            m.d.comb += [
                sent.payload.id.eq(Cat(ours.payload.id, Const(0, 1))),
                *(
                    sent.payload[name].eq(ours.payload[name])
                    for name in ("addr", "len", "size", "burst", "prot", "user")
                ),
            ]
        granted = sent.valid & sent.ready
        m.d.sync += ahead.eq(ahead + (granted & scrub) - scrub_done)
        # Beats of denied bursts count: they keep the data of the allowed ones behind them, and so the scrub's, waiting.
        m.d.comb += paid.eq(Mux(granted & scrub, Mux(overdue, owed - due, 0), owed))
        upstream = ((granted & ~scrub) | self.deny) & self.scrub_aw.valid
        m.d.sync += owed.eq(paid + Mux(upstream, ours.payload.len + 1, 0))
        return scrub_done

    def _beats(self, m, route, head, source, scrub_done):
        """Send each beat where its address went."""
        beat = Signal(8)
        scrub_beat = Signal(range(self._params.scrub_beats))
        last, scrubbing = Signal(), Signal()
        layout = data.StructLayout({"id": self._params.bus.id_width, "resp": Resp})
        m.submodules.denied = denied = fifo.SyncFIFO(width=layout.size, depth=self._params.denied_writes)
        answer = Signal(layout)
        passes = route.r_rdy & head.allow & source.r_rdy & ~source.r_data
        swallows = route.r_rdy & ~head.allow
        m.d.comb += [
            scrubbing.eq(source.r_rdy & source.r_data),
            last.eq(beat == head.len),
            self.up_w.ready.eq((passes & self.down_w.ready) | swallows),
            self.down_w.valid.eq(scrubbing | (passes & self.up_w.valid)),
            route.r_en.eq(self.up_w.valid & self.up_w.ready & last),
            scrub_done.eq(scrubbing & self.down_w.ready & (scrub_beat == self._params.scrub_beats - 1)),
            source.r_en.eq(scrub_done | (route.r_en & head.allow)),
            answer.id.eq(head.id),
            answer.resp.eq(head.resp),
            denied.w_data.eq(answer),
            denied.w_en.eq(route.r_en & ~head.allow),
        ]
        with m.If(scrubbing):
            m.d.comb += [
                self.down_w.payload.strb.eq(~0),
                self.down_w.payload.last.eq(scrub_beat == self._params.scrub_beats - 1),
            ]
        with m.Else():
            m.d.comb += [
                self.down_w.payload.data.eq(self.up_w.payload.data),
                self.down_w.payload.strb.eq(self.up_w.payload.strb),
                self.down_w.payload.last.eq(last),
            ]
        with m.If(self.up_w.valid & self.up_w.ready):
            m.d.sync += beat.eq(Mux(last, 0, beat + 1))
        with m.If(scrubbing & self.down_w.ready):
            m.d.sync += scrub_beat.eq(scrub_beat + 1)
        self._denied = denied, layout

    def _answers(self, m, tally, room):
        """Join the answers from below with those of denied writes, and sort out the scrubber's.

        Drives ``room``: one more write may be denied.
        """
        denied, layout = self._denied
        promised = Signal(range(self._params.denied_writes + 1))
        m.d.comb += room.eq(promised != self._params.denied_writes)
        m.d.sync += promised.eq(promised + self.deny - denied.r_en)
        head = Signal(layout)
        response = stream.Signature(self.up_b.payload.shape())
        below, here = response.create(path=("below",)), response.create(path=("here",))
        id_width = self._params.bus.id_width
        scrub = self.down_b.payload.id[id_width]
        m.d.comb += [
            head.eq(denied.r_data),
            below.valid.eq(self.down_b.valid & ~scrub),
            below.payload.id.eq(self.down_b.payload.id[:id_width]),
            below.payload.resp.eq(self.down_b.payload.resp),
            self.down_b.ready.eq(scrub | below.ready),
            self.scrub_b.valid.eq(self.down_b.valid & scrub),
            self.scrub_b.id.eq(self.down_b.payload.id[:id_width]),
            self.scrub_b.okay.eq(self.down_b.payload.resp == Resp.OKAY),
            tally.head_id.eq(head.id),
            here.valid.eq(denied.r_rdy & ~tally.forwarded),
            here.payload.id.eq(head.id),
            here.payload.resp.eq(head.resp),
            denied.r_en.eq(here.valid & here.ready),
        ]
        from_below, from_here = choose(m, "b", self.up_b, [below, here], ends=Const(1))
        m.d.comb += [
            self.up_b.payload.eq(Mux(from_here, here.payload, below.payload)),
            self.done.eq(self.up_b.valid & self.up_b.ready),
            self.done_epoch.eq(tally.complete_epoch),
            tally.complete.eq(self.done),
            tally.complete_id.eq(self.up_b.payload.id),
            tally.complete_forward.eq(from_below),
        ]

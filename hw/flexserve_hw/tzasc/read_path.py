"""Reads: allowed ones pass, denied ones are answered here with zeros."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from flexserve_hw.bus.axi4 import Resp
from flexserve_hw.params import FlexMemParams

from .layouts import path_members
from .lookup import Lookup
from .tally import Tally

__all__ = ["DENIED_READ_DATA", "ReadPath", "describe", "choose"]

DENIED_READ_DATA = 0
"""What every beat of a denied read carries."""


def choose(m: Module, name: str, sink, sources: list, *, ends) -> list:
    """Join ``sources`` into stream ``sink``, in turn, never changing the source of a transfer once it is offered.

    ``ends`` says whether the payload offered is the last of its burst. Returns, per source, whether it is chosen.
    Payloads are left to the caller.
    """
    first, second = sources
    held = Signal(name=f"{name}_held")
    owner = Signal(name=f"{name}_owner")
    last_owner = Signal(name=f"{name}_last_owner")
    pick = Signal(name=f"{name}_pick")
    m.d.comb += [
        pick.eq(Mux(held, owner, Mux(last_owner, ~first.valid, second.valid))),
        sink.valid.eq(Mux(pick, second.valid, first.valid)),
        first.ready.eq(~pick & sink.ready),
        second.ready.eq(pick & sink.ready),
    ]
    with m.If(sink.valid):
        m.d.sync += [owner.eq(pick), held.eq(~(sink.ready & ends))]
        with m.If(sink.ready & ends):
            m.d.sync += last_owner.eq(pick)
    return [~pick, pick]


def describe(m: Module, path, verdict) -> None:
    """Drive ``path.violation`` and ``path.corrupt`` from a verdict."""
    request = verdict.request
    m.d.comb += [
        path.violation.address.eq(request.addr),
        path.violation.id.eq(request.id),
        path.violation.nsaid.eq(request.user),
        path.violation.privileged.eq(request.prot.privileged),
        path.violation.nonsecure.eq(request.prot.nonsecure),
        path.violation.overlap.eq(verdict.overlap),
        path.corrupt.eq(path.deny & verdict.corrupt),
    ]


class ReadPath(wiring.Component):
    """AR and R from upstream to downstream.

    A denied read waits in a queue of its own until every forwarded read of its ID is answered, then its beats are
    made here: :data:`DENIED_READ_DATA`, with OKAY or DECERR. An allowed read whose ID has denied ones waiting waits
    before going downstream, so that reads of one ID are answered in order. Bursts from the two sources are not
    interleaved by the path.

    Parameters
    ----------
    params : FlexMemParams

    Members
    -------
    up_ar, up_r : upstream channels
    down_ar, down_r : downstream channels; IDs as upstream
    others
        See :func:`.layouts.path_members`.

    Latency and ordering
    --------------------
    AR takes one cycle and one address per cycle; R passes combinationally. A denied read takes two cycles to its first
    beat, whatever it was denied for.
    """

    def __init__(self, *, params: FlexMemParams):
        self._params = params
        shape = params.bus.axi4.shape
        super().__init__(
            {
                "up_ar": In(stream.Signature(shape.address)),
                "up_r": Out(stream.Signature(shape.read_data)),
                "down_ar": Out(stream.Signature(shape.address)),
                "down_r": In(stream.Signature(shape.read_data)),
                **path_members(params),
            }
        )

    def elaborate(self, platform):
        m = Module()
        params = self._params
        m.submodules.lookup = lookup = Lookup(params=params, write=False)
        m.submodules.tally = tally = Tally(id_width=params.bus.id_width, limit=params.outstanding)
        connect(m, flipped(self.up_ar), lookup.upstream)
        connect(m, lookup.table, flipped(self.table))
        m.d.comb += [
            lookup.open.eq(self.open & tally.ready),
            lookup.window.eq(self.window),
            lookup.epoch.eq(self.epoch),
            *(theirs.eq(ours) for theirs, ours in zip(lookup.regions, self.regions, strict=True)),
            self.accept.eq(lookup.accept),
            tally.epoch.eq(self.epoch),
        ]

        layout = data.StructLayout({"id": params.bus.id_width, "len": 8, "resp": Resp})
        m.submodules.denied = denied = fifo.SyncFIFO(width=layout.size, depth=params.denied_depth)
        entry, head = Signal(layout), Signal(layout)
        verdict, request = lookup.verdict.payload, lookup.verdict.payload.request
        m.d.comb += [
            self.down_ar.payload.eq(request),
            self.down_ar.valid.eq(lookup.verdict.valid & verdict.allow & ~tally.full & ~tally.denied),
            self.allow.eq(self.down_ar.valid & self.down_ar.ready),
            self.deny.eq(lookup.verdict.valid & ~verdict.allow & ~tally.full & denied.w_rdy),
            lookup.verdict.ready.eq(self.allow | self.deny),
            tally.issue.eq(lookup.verdict.ready),
            tally.issue_id.eq(request.id),
            tally.issue_epoch.eq(verdict.epoch),
            tally.issue_forward.eq(verdict.allow),
            entry.id.eq(request.id),
            entry.len.eq(request.len),
            entry.resp.eq(Mux(self.decerr, Resp.DECERR, Resp.OKAY)),
            denied.w_data.eq(entry),
            denied.w_en.eq(self.deny),
            head.eq(denied.r_data),
        ]
        describe(m, self, verdict)

        zeros = stream.Signature(self.up_r.payload.shape()).create(path=("zeros",))
        beat = Signal(8)
        m.d.comb += [
            tally.head_id.eq(head.id),
            zeros.valid.eq(denied.r_rdy & ~tally.forwarded),
            zeros.payload.id.eq(head.id),
            zeros.payload.data.eq(DENIED_READ_DATA),
            zeros.payload.resp.eq(head.resp),
            zeros.payload.last.eq(beat == head.len),
            denied.r_en.eq(zeros.valid & zeros.ready & zeros.payload.last),
        ]
        with m.If(zeros.valid & zeros.ready):
            m.d.sync += beat.eq(Mux(zeros.payload.last, 0, beat + 1))

        from_below, from_here = choose(m, "r", self.up_r, [self.down_r, zeros], ends=self.up_r.payload.last)
        m.d.comb += self.up_r.payload.eq(Mux(from_here, zeros.payload, self.down_r.payload))
        m.d.comb += [
            self.done.eq(self.up_r.valid & self.up_r.ready & self.up_r.payload.last),
            self.done_epoch.eq(tally.complete_epoch),
            tally.complete.eq(self.done),
            tally.complete_id.eq(self.up_r.payload.id),
            tally.complete_forward.eq(from_below),
        ]
        return m

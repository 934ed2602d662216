"""Outstanding transactions per AXI ID, by epoch and by path."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Tally"]


class _Events(wiring.Component):
    """Number of events per ID since reset, modulo ``2**width``: one event and three readings per cycle."""

    def __init__(self, *, id_width: int, width: int, reads: int):
        self._id_width = id_width
        self._width = width
        super().__init__(
            {
                "clear": In(1),
                "en": In(1),
                "id": In(id_width),
                "at": In(id_width).array(reads),
                "count": Out(width).array(reads),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.counts = counts = memory.Memory(shape=self._width, depth=1 << self._id_width, init=[])
        write, own = counts.write_port(), counts.read_port(domain="comb")
        m.d.comb += [
            own.addr.eq(self.id),
            write.addr.eq(self.id),
            write.en.eq(self.en | self.clear),
            write.data.eq(Mux(self.clear, 0, own.data + 1)),
        ]
        for at, count in zip(self.at, self.count, strict=True):
            read = counts.read_port(domain="comb")
            m.d.comb += [read.addr.eq(at), count.eq(read.data)]
        return m


class Tally(wiring.Component):
    """Count transactions between issue and completion.

    A transaction is forwarded or denied, and belongs to one of two epochs. Those of one ID complete in the order of
    their issue, so while the old epoch has any, the next to complete is of the old one.

    The counts are differences of event counters in memories, each written from one side, so that an issue and a
    completion of the same ID can share a cycle.

    Parameters
    ----------
    id_width : int
        Bits of an ID.
    limit : int
        Transactions that may be outstanding per ID.

    Members
    -------
    ready : Out(1)
        High once the memories are cleared after reset, ``2**id_width`` cycles; nothing may be issued before.
    epoch : In(1)
        The present epoch; the other one is old.
    issue, issue_epoch, issue_forward : In(1), issue_id : In
        A transaction is issued. ``issue_id`` is looked at in every cycle, for ``full`` and ``denied``.
    full : Out(1), denied : Out(1)
        ``issue_id`` has ``limit`` transactions outstanding; it has denied ones.
    head_id : In, forwarded : Out(1)
        ``head_id`` has forwarded transactions outstanding.
    complete, complete_forward : In(1), complete_id : In
        A transaction is answered in full.
    complete_epoch : Out(1)
        Epoch of the oldest transaction of ``complete_id``.

    Latency and ordering
    --------------------
    Outputs are combinational in the IDs; events count from the next cycle on.
    """

    def __init__(self, *, id_width: int, limit: int):
        if not 1 <= limit <= 255:
            raise ValueError(f"Outstanding transactions per ID must be 1 to 255, not {limit!r}")
        self._id_width = id_width
        self._limit = limit
        super().__init__(
            {
                "ready": Out(1),
                "epoch": In(1),
                "issue": In(1),
                "issue_id": In(id_width),
                "issue_epoch": In(1),
                "issue_forward": In(1),
                "full": Out(1),
                "denied": Out(1),
                "head_id": In(id_width),
                "forwarded": Out(1),
                "complete": In(1),
                "complete_id": In(id_width),
                "complete_forward": In(1),
                "complete_epoch": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        width = self._limit.bit_length()
        clear = Signal(self._id_width + 1)
        m.d.comb += self.ready.eq(clear[-1])
        with m.If(~self.ready):
            m.d.sync += clear.eq(clear + 1)

        def events(name, count, identity, reads):
            part = _Events(id_width=self._id_width, width=width, reads=len(reads))
            m.submodules[name] = part
            m.d.comb += [
                part.clear.eq(~self.ready),
                part.en.eq(count),
                part.id.eq(Mux(self.ready, identity, clear[:-1])),
                *(at.eq(read) for at, read in zip(part.at, reads, strict=True)),
            ]
            return list(part.count)

        at_issue, at_complete = [], []
        for epoch in range(2):
            reads = [self.issue_id, self.complete_id]
            up = events(f"issued_{epoch}", self.issue & (self.issue_epoch == epoch), self.issue_id, reads)
            down = events(f"completed_{epoch}", self.complete & (self.complete_epoch == epoch), self.complete_id, reads)
            at_issue.append((up[0] - down[0])[:width])
            at_complete.append((up[1] - down[1])[:width])
        reads = [self.issue_id, self.head_id]
        up = events("forwards", self.issue & self.issue_forward, self.issue_id, reads)
        down = events("returns", self.complete & self.complete_forward, self.complete_id, reads)
        outstanding = at_issue[0] + at_issue[1]
        m.d.comb += [
            self.full.eq(outstanding == self._limit),
            self.denied.eq(outstanding[:width] != (up[0] - down[0])[:width]),
            self.forwarded.eq(up[1] != down[1]),
            self.complete_epoch.eq(Mux(Mux(self.epoch, at_complete[0], at_complete[1]).any(), ~self.epoch, self.epoch)),
        ]
        return m

"""Drains stall nobody: two copies of a path whose epochs turn at different times cannot be told apart."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from flexserve_hw.tzasc.read_path import ReadPath
from flexserve_hw.tzasc.write_path import WritePath
from tests.formal.harness import Harness, proof
from tests.formal.ideal import IdealTally, replace
from tests.formal.reduced import PATH, PATH_REDUCTIONS

EPOCH = {"epoch", "done_epoch"}
"""What the drain sees and makes of a path: the only ports in which the copies may differ."""


class TotalTally(IdealTally):
    """An ideal tally that decides by the transactions of an ID, whatever their epochs; a lemma says it's the same."""

    def elaborate(self, platform):
        m, port, ids = Module(), self.port, range(len(self.forwards))
        self.totals = [Signal.like(self.forwards[n], name=f"total_of{n}") for n in ids]
        waited = Signal(range(len(ids) + 1))
        m.d.comb += port.ready.eq(waited == len(ids))
        with m.If(~port.ready):
            m.d.sync += waited.eq(waited + 1)
        for n in ids:
            issue, complete = port.issue & (port.issue_id == n), port.complete & (port.complete_id == n)
            m.d.sync += self.totals[n].eq(self.totals[n] + issue - complete)
            forward, back = issue & port.issue_forward, complete & port.complete_forward
            m.d.sync += self.forwards[n].eq(self.forwards[n] + forward - back)
            for e, count in enumerate(self.epochs[n]):
                up, down = issue & (port.issue_epoch == e), complete & (port.complete_epoch == e)
                m.d.sync += count.eq(count + up - down)
        totals, forwards = Array(self.totals), Array(self.forwards)
        epochs = [Array(self.epochs[n][e] for n in ids) for e in range(2)]
        old = Mux(port.epoch, epochs[0][port.complete_id], epochs[1][port.complete_id])
        m.d.comb += [
            port.full.eq(totals[port.issue_id] == self._limit),
            port.denied.eq(totals[port.issue_id] != forwards[port.issue_id]),
            port.forwarded.eq(forwards[port.head_id] != 0),
            port.complete_epoch.eq(Mux(old != 0, ~port.epoch, port.epoch)),
        ]
        return m


class PlainQueue:
    """The library's SyncFIFO as registers: it comes up empty and with equal contents in both copies."""

    def __init__(self, port: SyncFIFO):
        self.port = port

    def elaborate(self, platform):
        m, port = Module(), self.port
        level, entries = Signal(range(port.depth + 1)), [Signal(port.width) for _ in range(port.depth)]
        push, pop = port.w_en & port.w_rdy, port.r_en & port.r_rdy
        m.d.comb += [port.w_rdy.eq(level != port.depth), port.r_rdy.eq(level != 0), port.r_data.eq(entries[0])]
        m.d.comb += [port.level.eq(level), port.w_level.eq(level), port.r_level.eq(level)]
        m.d.sync += level.eq(level + push - pop)
        for n, entry in enumerate(entries):
            kept = Mux(pop, entries[n + 1], entry) if n + 1 < port.depth else entry
            m.d.sync += entry.eq(Mux(push & (level - pop == n), port.w_data, kept))
        return m


@proof(reductions=PATH_REDUCTIONS, variants={"reads": {"part": ReadPath}, "writes": {"part": WritePath}}, limit=300)
def copies(h: Harness, *, part: type) -> None:
    """All outputs of a path but the epoch of an answer are the same in every cycle, whenever which epochs turn.

    Management reaches a path by the state of the page that is accessed, by the epoch, and by the scrubber's own bursts.
    The copies have the same states and the same scrub bursts; when an epoch turns is the whole difference.
    """
    paths, tallies = [part(params=PATH) for _ in "ab"], []
    for path, name in zip(paths, "ab", strict=True):

        def ideal(port):
            tallies.append(TotalTally(port, id_width=PATH.bus.id_width, limit=PATH.outstanding))
            return tallies[-1]

        queues = ["denied"] if part is ReadPath else ["denied", "route", "source"]
        replace(path, tally=ideal, **dict.fromkeys(queues, PlainQueue))
        h.dut(path, name)
    first, second = paths
    pairs = list(zip(first.signature.flatten(first), second.signature.flatten(second), strict=True))
    for (path, member, a), (_, _, b) in pairs:
        if member.flow != In:
            continue
        name, width = "_".join(map(str, path)), len(Value.cast(a))
        mine = h.free(name, width)
        h.m.d.comb += [
            Value.cast(a).eq(mine),
            Value.cast(b).eq(h.free(f"{name}_b", width) if path[0] in EPOCH else mine),
        ]
    answer = first.down_r if part is ReadPath else first.down_b
    for n in range(1 << PATH.bus.id_width):
        owed = tallies[0].forwards[n] != 0
        h.assume(f"memory_answers_what_it_owes{n}", ~(answer.valid & (answer.payload.id == n)) | owed)
        for tally, name in zip(tallies, "ab", strict=True):
            h.prove(f"total_of_id{n}_{name}", tally.totals[n] == tally.owed(n), lemma=True)
    same = [
        (path, Value.cast(a) == Value.cast(b))
        for (path, member, a), (_, _, b) in pairs
        if member.flow == Out and path[0] not in EPOCH
    ]
    for port in dict.fromkeys(path[0] for path, _ in same):
        h.prove(f"{port}_is_the_same", Cat(equal for path, equal in same if path[0] == port).all(), sec="SEC-06 SEC-12")
    h.cover(
        "epochs_differ_with_traffic",
        (first.epoch != second.epoch) & first.done & (first.done_epoch != second.done_epoch),
    )

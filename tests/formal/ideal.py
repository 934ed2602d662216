"""Plain counterparts of parts: proved to behave as the part does, they stand in its place in the proofs of others."""

import itertools

from amaranth.hdl import Array, Module, Mux, Signal, Value
from amaranth.lib import fifo, wiring

from flexserve_hw.tzasc.tally import Tally

__all__ = ["IdealQueue", "IdealTally", "Nothing", "replace"]


class IdealTally:
    """:class:`Tally` with a counter per ID and kind, which both sides write.

    Attributes
    ----------
    epochs : list
        Per ID, transactions outstanding in each epoch.
    forwards : list
        Per ID, those among them that were forwarded.
    """

    def __init__(self, port: Tally, *, id_width: int, limit: int):
        self.port = port
        self._limit = limit
        ids = range(1 << id_width)
        self.epochs = [[Signal(range(limit + 2), name=f"epoch{e}_of{n}") for e in range(2)] for n in ids]
        self.forwards = [Signal(range(limit + 2), name=f"forwards_of{n}") for n in ids]

    def owed(self, identity: int):
        """Transactions of an ID that are outstanding."""
        return self.epochs[identity][0] + self.epochs[identity][1]

    def elaborate(self, platform):
        m, port = Module(), self.port
        waited = Signal(range(len(self.forwards) + 1))
        m.d.comb += port.ready.eq(waited == len(self.forwards))
        with m.If(~port.ready):
            m.d.sync += waited.eq(waited + 1)
        for n, (epochs, forwards) in enumerate(zip(self.epochs, self.forwards, strict=True)):
            issue, complete = port.issue & (port.issue_id == n), port.complete & (port.complete_id == n)
            for e, count in enumerate(epochs):
                up, down = issue & (port.issue_epoch == e), complete & (port.complete_epoch == e)
                m.d.sync += count.eq(count + up - down)
            up, down = issue & port.issue_forward, complete & port.complete_forward
            m.d.sync += forwards.eq(forwards + up - down)
        totals, forwards = Array(self.owed(n) for n in range(len(self.forwards))), Array(self.forwards)
        old, present = ([epochs[e] for epochs in self.epochs] for e in (0, 1))
        first, second = Array(old)[port.complete_id], Array(present)[port.complete_id]
        m.d.comb += [
            port.full.eq(totals[port.issue_id] == self._limit),
            port.denied.eq(totals[port.issue_id] != forwards[port.issue_id]),
            port.forwarded.eq(forwards[port.head_id] != 0),
            port.complete_epoch.eq(
                Mux(Mux(port.epoch, first, second) != 0, ~port.epoch, port.epoch),
            ),
        ]
        return m


class IdealQueue:
    """:class:`amaranth.lib.fifo.SyncFIFO` in registers, the oldest entry first.

    Attributes
    ----------
    entries : list of Signal
        What is in it; meaningful below ``level``.
    level : Signal
    """

    def __init__(self, port: fifo.SyncFIFO):
        self.port = port
        self.level = port.level
        self.entries = [Signal(port.width, name=f"entry{n}") for n in range(port.depth)]

    def __getitem__(self, at):
        """Entry number ``at``."""
        return Array(self.entries)[at] if isinstance(at, Value) else self.entries[at]

    def elaborate(self, platform):
        m, port = Module(), self.port
        level = Signal(range(port.depth + 1))
        put, get = port.w_en & port.w_rdy, port.r_en & port.r_rdy
        m.d.comb += [
            port.level.eq(level),
            port.w_level.eq(level),
            port.r_level.eq(level),
            port.w_rdy.eq(level != port.depth),
            port.r_rdy.eq(level != 0),
            port.r_data.eq(self.entries[0]),
        ]
        m.d.sync += level.eq(level + put - get)
        with m.If(get):
            m.d.sync += [entry.eq(after) for entry, after in itertools.pairwise(self.entries)]
        for n, entry in enumerate(self.entries):
            with m.If(put & (level == n + get)):
                m.d.sync += entry.eq(port.w_data)
        return m


class Nothing:
    """What is left of a part that is cut out: its outputs are up to the proof."""

    def __init__(self, port: wiring.Component):
        self.port = port

    def elaborate(self, platform):
        return Module()


def replace(component: wiring.Component, **parts) -> Module:
    """Let the submodules of ``component`` named in ``parts`` be elaborated by what the given functions make of them.

    The wiring around them stays that of the component, whose module is returned.
    """
    module = component.elaborate(None)
    for name, part in parts.items():
        inner = getattr(module.submodules, name)
        inner.elaborate = part(inner).elaborate
    component.elaborate = lambda platform: module
    return module

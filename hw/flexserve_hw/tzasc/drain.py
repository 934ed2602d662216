"""Epochs: when is every transaction that was accepted under the old state gone?"""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Drain", "Wait", "follow"]


class Wait(enum.Enum, shape=2):
    """What someone who waits for a drain waits for."""

    NOTHING = 0
    """Not waiting: the drain is over."""
    FLIP = 1
    """An epoch must begin."""
    DRAINED = 2
    """The epoch before must become empty."""


class Drain(wiring.Component):
    """Count accepted transactions in two epochs, and turn the epoch after the table changed.

    A transaction belongs to the epoch of the cycle in which its address was accepted, which is when its table lookup is
    made. The epoch turns only after the last write of a change, so whoever looked up the old state is in the old epoch.
    Once that is empty, ``drained`` says so, and the epoch can turn again. New traffic never waits for any of this.

    Parameters
    ----------
    width : int
        Bits of a counter of accepted transactions of one direction.

    Members
    -------
    changed : In(1)
        The table is written in this cycle in a way that needs a drain.
    hold : In(1)
        More writes of the same change will follow: the epoch does not turn.
    accept, done : In(1) per direction; done_epoch : In(1) per direction
        Transactions accepted and answered.
    epoch : Out(1)
        The present epoch.
    flip : Out(1), drained : Out(1)
        The epoch turns at the end of this cycle; the old epoch is found empty in this cycle.
    wanted : Out(1), draining : Out(1)
        A change waits for its flip; an old epoch is not known to be empty.
    quiet : Out(1)
        Neither: every change so far is drained.
    in_flight : Out(1)
        Some accepted transaction is not answered yet.

    Latency and ordering
    --------------------
    With nothing in flight, ``flip`` comes one cycle after ``changed`` and ``drained`` one cycle after ``flip``.
    """

    def __init__(self, *, width: int):
        self._width = width
        super().__init__(
            {
                "changed": In(1),
                "hold": In(1),
                "accept": In(1).array(2),
                "done": In(1).array(2),
                "done_epoch": In(1).array(2),
                "epoch": Out(1),
                "flip": Out(1),
                "drained": Out(1),
                "wanted": Out(1),
                "draining": Out(1),
                "quiet": Out(1),
                "in_flight": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        busy = []
        for direction, (accept, done, done_epoch) in enumerate(
            zip(self.accept, self.done, self.done_epoch, strict=True)
        ):
            counts = []
            for epoch in range(2):
                count = Signal(self._width, name=f"count_{'rw'[direction]}{epoch}")
                up, down = accept & (self.epoch == epoch), done & (done_epoch == epoch)
                m.d.sync += count.eq(count + up - down)
                counts.append(count)
            busy.append(counts)
        empty = ~Mux(self.epoch, busy[0][0] | busy[1][0], busy[0][1] | busy[1][1]).any()
        m.d.comb += [
            self.flip.eq(self.wanted & ~self.hold & ~self.draining),
            self.drained.eq(self.draining & empty),
            self.quiet.eq(~self.wanted & ~self.draining),
            self.in_flight.eq((busy[0][0] | busy[0][1] | busy[1][0] | busy[1][1]).any()),
        ]
        m.d.sync += self.wanted.eq(self.changed | (self.wanted & ~self.flip))
        with m.If(self.flip):
            m.d.sync += [self.epoch.eq(~self.epoch), self.draining.eq(1)]
        with m.Elif(self.drained):
            m.d.sync += self.draining.eq(0)
        return m


def follow(wait, *, flip, drained):
    """Statement for ``m.d.sync`` that moves a :class:`Wait` along; who waits sets FLIP in the cycle of the change."""
    over = Mux((wait == Wait.DRAINED) & drained, Wait.NOTHING, wait)
    return wait.eq(Mux((wait == Wait.FLIP) & flip, Wait.DRAINED, over))

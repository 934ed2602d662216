"""Round-robin choice among requests."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["RoundRobin"]


class RoundRobin(wiring.Component):
    """Fair arbiter: whoever was served last waits for everybody else.

    Parameters
    ----------
    count : int
        Number of requesters, at least 1.

    Members
    -------
    requests : In(count)
        One bit per requester.
    advance : In(1)
        The chosen request is served in this cycle; it has the lowest priority from the next cycle on.
    valid : Out(1)
        Some request is up.
    grant : Out(range(count))
        The chosen one, meaningful while ``valid``.

    Latency and ordering
    --------------------
    ``grant`` and ``valid`` depend combinationally on ``requests``. Without ``advance`` a choice may change while
    requests come up; a caller that must not change its mind registers it.
    """

    def __init__(self, *, count: int):
        if count < 1:
            raise ValueError(f"Arbiter must have at least one requester, not {count!r}")
        self._count = count
        super().__init__({"requests": In(count), "advance": In(1), "valid": Out(1), "grant": Out(range(count))})

    def elaborate(self, platform):
        m = Module()
        last = Signal(range(self._count), init=self._count - 1)
        m.d.comb += self.valid.eq(self.requests.any())
        with m.Switch(last):
            for served in range(self._count):
                with m.Case(served):
                    # Lowest priority first, so that the last assignment that applies is the one to be served next.
                    for offset in range(self._count, 0, -1):
                        candidate = (served + offset) % self._count
                        with m.If(self.requests[candidate]):
                            m.d.comb += self.grant.eq(candidate)
        with m.If(self.advance & self.valid):
            m.d.sync += last.eq(self.grant)
        return m

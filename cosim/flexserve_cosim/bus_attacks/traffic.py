"""What crosses the filter: bursts of the masters above it, accesses that arrive in the memory below."""

from __future__ import annotations

from dataclasses import dataclass, field

from flexserve_sw.machine import World

__all__ = ["ALL", "FIXED", "INCR", "WRAP", "Burst", "beat_addresses"]

FIXED, INCR, WRAP = 0, 1, 2
"""AxBURST."""

ALL = 1 << 16
"""More beats than any burst has: nothing is withheld."""

BUS = 16
"""Bytes of a beat of full width."""


@dataclass(eq=False)
class Burst:
    """A transaction of a master: what is asked, how far it may go, and what came of it.

    ``allowance`` is how many of its beats the master gives or takes for now: raise it to let the burst go on. Cycles
    are -1 until they come. ``lasts`` is a lie about WLAST per beat.
    """

    write: bool
    address: int
    beats: int
    world: World
    id: int = 0
    nsaid: int = 0
    size: int = 4
    kind: int = INCR
    allowance: int = ALL
    data: list[int] = field(default_factory=list)
    strobes: list[int] = field(default_factory=list)
    lasts: list[bool] = field(default_factory=list)
    offered: int = -1
    accepted: int = -1
    answered: int = -1
    sent: int = 0
    got: list[int] = field(default_factory=list)
    responses: list[int] = field(default_factory=list)

    @property
    def moved(self) -> int:
        """Beats that have crossed the upstream port."""
        return self.sent if self.write else len(self.got)

    @property
    def latency(self) -> int:
        """Cycles from the offer of the address to the last answer."""
        return self.answered - self.offered


def beat_addresses(address: int, beats: int, size: int, kind: int) -> list[int]:
    """Byte address of each beat, as AXI counts them."""
    step = 1 << size
    start = address // step * step
    if kind == FIXED:
        return [address] * beats
    if kind == WRAP:
        total = step * beats
        low = start // total * total
        return [low + (start - low + n * step) % total for n in range(beats)]
    return [address] + [start + n * step for n in range(1, beats)]

"""The page-state table as it is stored: looked at to judge by, and upset."""

from __future__ import annotations

from flexserve_hw.tzasc.states import CODE_WIDTH, STATES
from flexserve_sw.regs import RecallState

from .bus import FilterBus

__all__ = ["CODE_WIDTH", "CODES", "code_of", "flip", "overwrite"]

GROUP = 4
"""Pages in a word; the same number as in the simulated filter's parameters, which a test holds."""

CODES = {1 << n: RecallState(state.value) for n, state in enumerate(STATES)}
"""States by their code words."""


def code_of(bus: FilterBus, index: int) -> int:
    """What is stored of the page with that index in the window."""
    number = index // GROUP
    word = int(bus.signal("table.states")[number].value) if bus.lines is None else bus.lines.stored(number)
    return sum((word >> bit * GROUP + index % GROUP & 1) << bit for bit in range(CODE_WIDTH))


def flip(bus: FilterBus, index: int, bits: int) -> None:
    """Flip bits of a page's code word in the next cycle, whatever stands there then."""
    mask = sum((bits >> bit & 1) << bit * GROUP + index % GROUP for bit in range(CODE_WIDTH))

    def action() -> None:
        if bus.lines is not None:
            bus.lines.flip(index // GROUP, mask)
            return
        handle = bus.signal("table.states")[index // GROUP]
        handle.value = int(handle.value) ^ mask

    bus.upset(action)


def overwrite(bus: FilterBus, index: int, code: int) -> None:
    """Replace a page's code word in the next cycle."""
    bus.upset(lambda: flip(bus, index, code_of(bus, index) ^ code))

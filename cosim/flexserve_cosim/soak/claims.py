"""What a replay claims about transactions, to be held against them."""

from __future__ import annotations

from typing import NamedTuple

from flexserve_sw.regs import RecallState

__all__ = ["Change", "Drained", "Evidence"]


class Change(NamedTuple):
    """From ``cycle`` on a page (index in the window) is in a state."""

    page: int
    cycle: int
    state: RecallState


class Drained(NamedTuple):
    """Every transaction accepted up to ``change`` must be answered before ``claim``."""

    change: int
    claim: int
    what: str


class Evidence(NamedTuple):
    """What a register with evidence of violations held; violations before ``since`` were cleared."""

    cycle: int
    since: int
    address: int
    value: int

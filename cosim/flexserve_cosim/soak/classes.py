"""What a campaign must have seen at least once; a class that never came up was not tested."""

from __future__ import annotations

from collections.abc import Mapping

from flexserve_sw.machine import World
from flexserve_sw.recall import ACCESS
from flexserve_sw.regs import RecallState

__all__ = ["CACHED", "REQUIRED", "missing"]

_STATES = [state for state in RecallState if state is not RecallState.CORRUPT]

REQUIRED: tuple[str, ...] = (
    *(f"{world} {direction} allowed" for world in ("normal", "secure") for direction in ("read", "write")),
    *(
        f"{world.name.lower()} {direction} in {state.name} denied"
        for world in World
        for direction in ("read", "write")
        for state in _STATES
        if world not in ACCESS[state]
    ),
    *(
        f"{direction} {what}"
        for direction in ("read", "write")
        for what in (
            "under way while its page is closed to it",
            "accepted in the cycle of a change, allowed",
            "accepted in the cycle of a change, denied",
            "accepted a cycle before a change",
            "answered by memory with an error",
        )
    ),
    "denied read under way while its page is opened to it",
    "denied write under way while its page is opened to it",
    *(
        f"denied burst: {kind}"
        for kind in ("wider than the bus", "reserved type", "long FIXED", "odd WRAP", "over the page's end")
    ),
    *(f"{kind} allowed" for kind in ("FIXED", "WRAP", "narrow", "unaligned", "up to the page's last byte")),
    *(f"{kind} allowed" for kind in ("interleaved", "address after its data", "wrong WLAST", "more than 128 beats")),
    *(f"{kind} denied" for kind in ("wrong WLAST", "more than 128 beats")),
    "denied by region",
    "denied by overlapping regions",
    "denied behind an allowed one of its ID",
    "secure access before a page is accepted again",
    *(f"command {name} OK" for name in ("DELEGATE", "ACCEPT", "RECALL", "RELEASE", "CANCEL", "SEAL")),
    *(f"command {name} BAD_STATE" for name in ("DELEGATE", "ACCEPT", "RECALL", "RELEASE", "CANCEL", "SEAL")),
    *(f"command {name} OUT_OF_WINDOW" for name in ("DELEGATE", "ACCEPT", "RECALL", "RELEASE")),
    *(f"command {name} NOT_PERMITTED" for name in ("DELEGATE", "ACCEPT", "RECALL", "RELEASE", "CANCEL", "SEAL")),
    "command RECALL NO_SLOT",
    "command NONE BAD_COMMAND",
    "commands of both worlds at once",
    "command port refused while busy",
    "doorbell without its byte",
    "register access refused",
    "grace period ran out",
    "grace period ran out for the rest of a range",
    "recall by size",
    "recall by size paid off",
    "page returned",
    "freed page taken",
    "scrub answered with an error",
    "gate closed under traffic",
    "configuration locked",
    "unsound window",
    "cold reset",
    "warm reset",
    "under way at a reset",
    "quiet point",
)


CACHED: tuple[str, ...] = (
    *(f"{direction} looked up in memory, {what}" for direction in ("read", "write") for what in ("allowed", "denied")),
    "state changed while it was looked up in memory",
    "denied: the table's own memory",
    "window over its table",
)
"""The same with a page-state table in memory."""


def missing(seen: Mapping[str, int], *, cached: bool) -> list[str]:
    """Classes that did not come up; ``cached``: those of a table in memory should have."""
    return [name for name in (*REQUIRED, *(CACHED if cached else ())) if not seen.get(name)]

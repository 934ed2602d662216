"""The configurations that proofs look at, and why what they leave out loses nothing."""

from flexserve_hw.params import BusParams, FlexMemParams

__all__ = ["PATH", "PATH_LIMIT", "PATH_REDUCTIONS", "TABLES"]

PATH = FlexMemParams(
    bus=BusParams(addr_width=14, data_width=8, id_width=1),
    pages=2,
    group=1,
    timers=1,
    freed_depth=2,
    outstanding=2,
    grace_min=1,
    grace_max=3,
    scrub_share=2,
    scrub_beats=2,
    scrub_slots=1,
    bursts_ahead=2,
    denied_depth=1,
    denied_writes=2,
)
"""For a path, or a part of one, alone: the table is a free input there."""

PATH_LIMIT = (PATH.outstanding << PATH.bus.id_width) + 1
"""Accepted transactions of a direction that may wait for their answers: all IDs full, and one being judged."""

TABLES = {"on_chip": {"at_once": True}, "cached": {"at_once": False}}
"""Variants of a proof: a page-state table that answers in the next cycle, or when it can."""

PATH_REDUCTIONS = {
    "addresses of 14 bits (4 pages)": "a page number is compared with region and window bounds and else only copied",
    "8 data bits": "data are passed on or replaced as a whole; no decision looks at them",
    "1 ID bit": "an ID indexes tallies that are all alike: one stands for any ID, the other for all others",
    "2 outstanding per ID": "a forwarded and a denied one of an ID meet, and the limit is hit",
    "2 writes ahead or denied, 1 denied read": "a small queue is full and empty most often; a deeper one waits less",
    "bursts of at most 4 beats": "a beat counter is compared with the length; beats between first and last are alike",
    "regions 1 to 8 off, region 0 free in every cycle": "the region side gives a verdict of one bit, here any",
    "scrub bursts of 2 beats": "the least that has a first and a last beat of its own",
}

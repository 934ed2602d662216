"""Which page-table words the accesses of a run need, and how often a cache of such words holds them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from flexserve_hw.params import DRAM_BASE
from flexserve_sw.fast.filter import Filter
from flexserve_sw.fast.session import simulate
from flexserve_sw.machine import World

from .figures import Figure
from .phone import PAGE

__all__ = ["cache_figures", "hit_rate", "llm_stream", "random_stream", "weight_stream"]

JOB = "flexserve_sw.designs.job:serve"
SIZES = (1, 2, 4, 8, 16, 32, 64, 256, 1024)
"""Cached words of the sweep."""


@dataclass(frozen=True)
class Access:
    """A burst that the filter judges: its page in the window or outside of it, by index, its direction and world."""

    page: int
    write: bool
    secure: bool = False


@contextmanager
def _listening(seen: list[Access]) -> Iterator[None]:
    """Note every burst that comes to any filter of the transaction-level machine meanwhile."""

    def listener(page: int, write: bool, world: World) -> None:
        seen.append(Access(page - DRAM_BASE // PAGE, write, world is World.SECURE))

    Filter.listener = staticmethod(listener)
    try:
        yield
    finally:
        Filter.listener = None


def llm_stream(*, tokens: int = 24, pressure: int = 24) -> list[Access]:
    """Bursts of the default run in design flexserve, all masters, on the transaction-level machine."""
    seen: list[Access] = []
    with _listening(seen):
        simulate(JOB, {"design": "flexserve", "tokens": tokens, "pressure": pressure})
    return seen


def weight_stream(*, size: int = 256 << 20, burst: int = 1024) -> list[Access]:
    """Weights of ``size`` bytes read once, in order, as a token of a large model does."""
    return [Access(offset // PAGE, write=False, secure=True) for offset in range(0, size, burst)]


def random_stream(pages: int, *, accesses: int = 200_000, seed: int = 1) -> list[Access]:
    """Accesses to pages at random, which no cache can serve."""
    rng = random.Random(seed)
    return [Access(rng.randrange(pages), rng.random() < 0.5) for _ in range(accesses)]


def hit_rate(stream: Sequence[Access], *, lines: int, group: int) -> float:
    """Share of lookups that a direct-mapped cache of ``lines`` table words of ``group`` pages answers at once.

    Each world has a bank of so many of its own.
    """
    held: dict[tuple[bool, int], int] = {}
    hits = 0
    for access in stream:
        word = access.page // group
        entry = access.secure, word % lines
        hits += held.get(entry, -1) == word
        held[entry] = word
    return hits / len(stream)


def cache_figures(*, group: int, pages: int = 4 << 20) -> list[Figure]:
    """Hit rates by cache size: the run of the embedded model, weights in order, and accesses at random."""
    run = llm_stream()
    streams = (
        ("the embedded model's run", run),
        ("weights read in order", weight_stream()),
        (f"accesses at random in {pages * PAGE >> 30} GiB", random_stream(pages)),
    )
    words = len({access.page // group for access in run})
    found = [
        Figure(group="cache", name="bursts of the embedded model's run", value=len(run), unit="bursts"),
        Figure(group="cache", name="table words that they need", value=words, unit="words"),
    ]
    for lines in SIZES:
        for name, stream in streams:
            rate = 100 * hit_rate(stream, lines=lines, group=group)
            found.append(Figure(group="cache", name=f"hits with {lines} words cached, {name}", value=rate, unit="%"))
    return found

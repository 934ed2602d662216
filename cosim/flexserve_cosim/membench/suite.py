"""Every measurement of the memory bench, in the order in which they leave a filter usable for the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from flexserve_hw.params import FlexMemParams

from ..compiler import Progress
from .access import added_latency, denied_latency, lost_beats, stalls
from .cached import CACHED, hit_latency, hits_of, initialisation, miss_cost, rates
from .driver import Driver
from .figures import Figure
from .management import bandwidth, command_rate, lending, recall_bound, scrub_delay, under_load
from .phone import Phone
from .stream import llm_stream, random_stream

__all__ = ["GROUPS", "LARGE", "measure", "measure_cached", "measure_large"]

LARGE = 65_536
"""Pages of 256 MiB."""

GROUPS = {
    "latency": "Latency added to allowed accesses, filter against wires",
    "throughput": "Beats lost at full load, filter against wires",
    "stall": "Unrelated traffic, cycle by cycle against a run without management",
    "commands": "Range commands",
    "lending": "Lending and recall on an idle bus; software takes no time",
    "scrub": "Scrubber",
    "recall": "Bounded recall",
    "denied": "Denied accesses",
    "table": "A table in memory behind a cache",
    "cache": "A table in memory: lookups that a direct-mapped cache of its words answers at once (model)",
}
"""Groups of figures, and what they are about."""


def measure(flex: FlexMemParams, *, seed: int, progress: Progress | None = None) -> Iterator[Figure]:
    """All figures of a filter but those of a large window."""
    with (
        Driver(flex, seed=seed, progress=progress) as driver,
        Driver(flex, wired=True, seed=seed, progress=progress) as wires,
    ):
        phone = Phone(driver)
        steps: tuple[tuple[str, Callable[[], list[Figure]]], ...] = (
            ("the latency of accesses", lambda: added_latency(phone, wires)),
            ("full load", lambda: lost_beats(phone, wires, seed=seed)),
            ("management beside traffic", lambda: stalls(phone, seed=seed)),
            ("commands", lambda: command_rate(phone)),
            ("lending and recall", lambda: lending(phone, (1, 64))),
            (
                "the scrubber",
                lambda: [*bandwidth(phone), *under_load(phone, seed=seed), *scrub_delay(phone, seed=seed)],
            ),
            ("the bound of a recall", lambda: recall_bound(phone)),
            ("denied accesses", lambda: denied_latency(phone)),
        )
        for what, step in steps:
            if progress:
                progress(f"Measuring {what}")
            yield from step()


def measure_large(flex: FlexMemParams, *, seed: int, progress: Progress | None = None) -> Iterator[Figure]:
    """Lending and recall of a window of 256 MiB, all at once."""
    with Driver(flex, seed=seed, progress=progress) as driver:
        if progress:
            progress(f"Zeroing a window of {flex.pages * 4 >> 10} MiB, then lending and recalling it (minutes)")
        phone = Phone(driver)
        yield from lending(phone, (flex.pages,))
        yield from command_rate(phone)[-6:]


def measure_cached(*, seed: int, progress: Progress | None = None) -> Iterator[Figure]:
    """All figures of a filter whose page-state table lies in memory, and of one for 16 GiB."""
    flex = CACHED
    with (
        Driver(flex, seed=seed, progress=progress) as driver,
        Driver(flex, wired=True, seed=seed, progress=progress) as wires,
    ):
        phone = Phone(driver)
        steps: tuple[tuple[str, Callable[[], list[Figure]]], ...] = (
            ("hits", lambda: hit_latency(phone, wires)),
            ("misses", lambda: miss_cost(phone)),
            ("commands", lambda: rates(phone)),
            ("the accesses of a run", lambda: hits_of(phone, "the embedded model's run", llm_stream())),
            (
                "accesses at random",
                lambda: hits_of(phone, "accesses at random", random_stream(flex.pages, accesses=20_000, seed=seed)),
            ),
        )
        for what, step in steps:
            if progress:
                progress(f"Measuring {what} with the table in memory")
            yield from step()
    if progress:
        progress("Writing the table of 16 GiB")
    yield from initialisation(seed=seed)

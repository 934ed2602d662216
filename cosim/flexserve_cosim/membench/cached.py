"""What a page-state table in memory costs: hits, misses, commands, hit rates on the RTL, and 16 GiB."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flexserve_hw.params import BusParams, FlexMemParams
from flexserve_hw.tzasc.line import line_bytes, memory_pages
from flexserve_sw.regs import FLEX_SECURE, TZC, FlexmemSecure, RecallState

from .access import added_latency
from .driver import Burst, Driver, Record, Step
from .figures import Figure
from .management import command_rate, lending
from .phone import BASE_PFN, PAGE, Phone, page_address, table_base, write
from .stream import Access, hit_rate

__all__ = ["CACHED", "HUGE", "hit_latency", "hits_of", "initialisation", "miss_cost", "rates"]

CACHED = FlexMemParams(cache_lines=16)
"""The default filter with half of its table's words cached, so that a range over all of them misses."""

HUGE = FlexMemParams(bus=BusParams(addr_width=40), pages=4 << 20, cache_lines=64)
"""A filter for 16 GiB."""

_LATENCIES = (5, 20, 60, 100)
"""Cycles of the table's memory."""
_SPACED = 600
S = RecallState


def _answers(driver: Driver, reads: Sequence[Burst], writes: Sequence[Burst]) -> tuple[list[Record], list[Record]]:
    driver.traffic(reads=reads, writes=writes)
    driver.play(Step("B"), Step("D"))
    return driver.records()


def hit_latency(phone: Phone, wires: Driver) -> list[Figure]:
    """Cycles that single accesses take longer than over wires if the word of their page is cached."""
    warm = [Burst(address=page_address(1))]
    _answers(phone.driver, warm, warm)
    return [replace(f, group="table", name=f"{f.name}, word cached") for f in added_latency(phone, wires)[:3]]


def miss_cost(phone: Phone) -> list[Figure]:
    """Cycles by which a miss is later than a hit, by the latency of the table's memory, idle otherwise."""
    flex, found = phone.driver.flex, []
    assert flex.cache_lines is not None
    # Words 0 and `cache_lines` share an entry; each access to one after the other misses, each second one hits.
    apart = flex.cache_lines * flex.group
    pages = [0, 0, apart, apart, 0, 0]
    bursts = [Burst(start=_SPACED * n, address=page_address(page)) for n, page in enumerate(pages)]
    before = phone.driver.table_latency
    for latency in _LATENCIES:
        phone.driver.slow_table(latency)
        for kind in ("read", "write"):
            _answers(phone.driver, [replace(bursts[2], start=0)], ())
            records = _answers(phone.driver, bursts if kind == "read" else (), bursts if kind == "write" else ())
            spent = [r.answered - r.offered for r in records[kind == "write"]]
            misses, hits = spent[0::2], spent[1::2]
            if len({*misses}) != 1 or len({*hits}) != 1:
                raise RuntimeError(f"Misses and hits must take the same every time, not {spent}")
            beats = line_bytes(flex) * 8 // flex.bus.data_width
            found.append(
                Figure(
                    group="table",
                    name=f"{kind} whose word is fetched, table's memory {latency} cycles",
                    value=misses[0] - hits[0],
                    unit="cycles more",
                    at_most=latency + beats + 3,
                )
            )
    phone.driver.slow_table(before)
    return found


def rates(phone: Phone) -> list[Figure]:
    """Commands over cached words and over more words than are cached, and the lending of 64 pages."""
    flex = phone.driver.flex
    assert flex.cache_lines is not None
    latency = phone.driver.table_latency
    found = []
    for figure in command_rate(phone):
        if "to the decision" in figure.name:
            found.append(replace(figure, group="table", name=f"{figure.name}, memory {latency} cycles", at_least=None))
    return [*found, *(replace(f, group="table") for f in lending(phone, (64,)))]


def hits_of(phone: Phone, name: str, stream: Sequence[Access]) -> list[Figure]:
    """Lookups on the RTL that the cache answers at once, for a stream of accesses, and what the model says."""
    flex = phone.driver.flex
    assert flex.cache_lines is not None
    inside = [access for access in stream if 0 <= access.page < phone.pages]
    reads: list[Burst] = []
    writes: list[Burst] = []
    # Far enough apart that they are looked up in their order.
    every = 2 * phone.driver.table_latency + 40
    last = [0, 0]
    for n, access in enumerate(inside):
        at, queue = n * every, writes if access.write else reads
        queue.append(
            Burst(start=at, address=page_address(access.page), id=n % 64, nonsecure=int(not access.secure)),
        )
        last[access.write] = at
    phone.play(Step("M"))
    phone.driver.traffic(reads=reads, writes=writes, keep=False)
    _, (seen,) = phone.driver.play(Step("B"), Step("D"), Step("S"), limit=len(inside) * every + 100_000)
    if seen.hits + seen.misses != len(inside):
        raise RuntimeError(f"Every access must be looked up once, not {seen.hits + seen.misses} of {len(inside)}")
    model = 100 * hit_rate(inside, lines=flex.cache_lines, group=flex.group)
    what = f"{flex.cache_lines} words cached, {name}"
    return [
        Figure(group="table", name=f"hits on the RTL with {what}", value=100 * seen.hits / len(inside), unit="%"),
        Figure(
            group="table",
            name=f"the model of the cache is off, {what}",
            value=abs(100 * seen.hits / len(inside) - model),
            unit="% points",
            # The model begins with an empty cache.
            at_most=0.1 + 100 * 2 * flex.cache_lines / len(inside),
        ),
    ]


def initialisation(*, seed: int) -> list[Figure]:
    """16 GiB on the RTL: how long the table takes to be written, with the gate closed, and the window to be zeroed.

    The table is written to its end; of the zeroing, which is bound by the bus, a part is run and the rest computed.
    """
    part = 200_000
    with Driver(HUGE, seed=seed) as driver:
        words = HUGE.pages // HUGE.group
        probe = Burst(address=BASE_PFN * PAGE)
        enable, ready = FlexmemSecure.CONTROL__ENABLE.put(1), FlexmemSecure.CONTROL__READY.put(1)
        driver.traffic(reads=[probe], writes=[probe])
        outcomes, (begun, ended) = driver.play(
            write(TZC.REGION[0].ATTRIBUTES, 0xC000000F),
            write(TZC.REGION[0].ID_ACCESS, 0xFFFFFFFF),
            write(FLEX_SECURE.WINDOW_BASE, BASE_PFN),
            write(FLEX_SECURE.WINDOW_PAGES, HUGE.pages),
            write(FLEX_SECURE.TABLE_BASE, table_base(HUGE)),
            write(FLEX_SECURE.CONTROL, enable),
            write(TZC.GATE_KEEPER, 1),
            Step("B"),
            Step("E", S.SCRUBBING, HUGE.pages),
            Step("C", 2_000),
            Step("S"),
            Step("C", part),
            Step("S"),
            Step("R", FLEX_SECURE.CONTROL),
            limit=10 * words + part + 10_000,
        )
        closed = not outcomes[-1].value & ready and ended.reads_answered == ended.writes_answered == 0
        if not closed or ended.stores < words:
            raise RuntimeError("The filter must stay closed, and the table be written, before the window is zeroed")
    took = begun.last_store - outcomes[5].doorbell
    pages = ended.changed(S.NORMAL).pages - begun.changed(S.NORMAL).pages
    return [
        Figure(group="table", name="memory of the table, 16 GiB", value=memory_pages(HUGE) * 4, unit="KiB"),
        Figure(group="table", name="writing the table, 16 GiB", value=took, unit="cycles"),
        Figure(group="table", name="zeroing at boot, 16 GiB", value=part / pages, unit="cycles/page"),
        Figure(
            group="table",
            name="zeroing 16 GiB at that rate (computed)",
            value=part / pages * HUGE.pages / 1e6,
            unit="million cycles",
        ),
    ]

"""The filter's cost on its RTL: what must never regress, on a window small enough to boot at once."""

import pytest

from flexserve_cosim.membench.access import added_latency, denied_latency, lost_beats, stalls
from flexserve_cosim.membench.cached import HUGE, hit_latency, hits_of, initialisation, miss_cost
from flexserve_cosim.membench.driver import Burst, Driver, Step
from flexserve_cosim.membench.figures import Figure
from flexserve_cosim.membench.management import bandwidth, command_rate, recall_bound, under_load
from flexserve_cosim.membench.phone import BASE_PFN, PAGE, Phone, page_address
from flexserve_cosim.membench.stream import Access, hit_rate, llm_stream, random_stream
from flexserve_hw.params import FlexMemParams
from flexserve_sw.regs import RecallCommand, RecallState

from .support import SEED

pytestmark = [pytest.mark.rtl, pytest.mark.xdist_group("membench")]

FLEX = FlexMemParams(pages=1024)


@pytest.fixture(scope="module")
def phone():
    with Driver(FLEX, seed=SEED) as driver:
        yield Phone(driver)


@pytest.fixture(scope="module")
def wires():
    with Driver(FLEX, wired=True, seed=SEED) as driver:
        yield driver


def hold(figures, *, limits):
    """Every figure keeps its limit, and so many have one."""
    missed = [(f.name, f.value, f.limit) for f in figures if f.holds is False]
    assert not missed
    assert sum(f.holds is not None for f in figures) == limits


def test_accesses_get_at_most_two_cycles_of_latency(phone, wires):
    hold(added_latency(phone, wires), limits=6)


def test_full_load_loses_no_beat(phone, wires):
    hold(lost_beats(phone, wires, bursts=400, seed=SEED), limits=8)


def test_management_stalls_no_unrelated_access(phone):
    hold(stalls(phone, seed=SEED), limits=16)


def test_commands_over_large_ranges_take_16_pages_per_cycle(phone):
    hold(command_rate(phone), limits=3)


def test_scrubber_fills_an_idle_bus_and_keeps_its_share_under_load(phone):
    hold([*bandwidth(phone), *under_load(phone, seed=SEED)], limits=10)


def test_worst_recall_keeps_its_bound(phone):
    hold(recall_bound(phone, pages=2), limits=2)


def test_denied_accesses_take_the_same_time_in_every_state(phone):
    hold(denied_latency(phone), limits=4)


def test_bench_sees_beats_that_a_memory_loses(phone, wires):
    """Control: reads of one ID beyond what the filter keeps outstanding do lose beats, and the bench says so."""
    reads = [Burst(address=page_address(0), id=0) for _ in range(200)]
    spans = []
    for driver in (phone.driver, wires):
        usual = driver.memory_latency
        driver.slow_down(2 * FLEX.outstanding)
        driver.traffic(reads=reads)
        driver.play(Step("B"), Step("D"))
        records, _ = driver.records()
        driver.slow_down(usual)
        spans.append(records[-1].answered - records[0].answered)
    assert spans[1] == len(reads) - 1
    assert spans[0] > spans[1]


@pytest.mark.parametrize(
    ("limits", "value", "holds"),
    [({"at_most": 2}, 2, True), ({"at_most": 2}, 3, False), ({"at_least": 2}, 1, False), ({}, 9, None)],
)
def test_figure_says_whether_it_keeps_its_limit(limits, value, holds):
    assert Figure(group="latency", name="x", value=value, unit="cycles", **limits).holds is holds


def test_cache_model_counts_what_a_direct_mapped_cache_holds():
    """Words 0 and 2 meet in one entry of two, words 0 and 1 do not; a word is held from its first lookup on."""
    pages = [Access(word * 64, write=False) for word in (0, 0, 1, 0, 2, 0, 1)]
    assert hit_rate(pages, lines=2, group=64) == 3 / 7
    assert hit_rate(pages, lines=4, group=64) == 4 / 7


def test_accesses_of_a_run_are_recorded_from_every_master():
    seen = llm_stream(tokens=1, pressure=0)
    assert {access.write for access in seen} == {False, True}
    assert len({access.page for access in seen}) > 50


CACHED = FlexMemParams(pages=512, cache_lines=4)


@pytest.fixture(scope="module")
def cached():
    with Driver(CACHED, seed=SEED) as driver:
        yield Phone(driver)


def test_hit_in_the_tables_cache_adds_no_latency_and_a_miss_one_line(cached, wires):
    hold(hit_latency(cached, wires), limits=3)
    hold(miss_cost(cached), limits=8)


def test_hits_on_the_rtl_are_those_of_the_model(cached):
    hold(hits_of(cached, "at random", random_stream(CACHED.pages, accesses=1_000, seed=SEED)), limits=1)


def test_cached_commands_do_what_those_on_chip_do(cached):
    hold(command_rate(cached)[:2], limits=0)


def test_table_of_16_gib_is_written_with_the_gate_closed():
    figures = {figure.name: figure.value for figure in initialisation(seed=SEED)}
    # Four lines under way in a memory of 20 cycles: a line in a little more than six.
    assert figures["writing the table, 16 GiB"] < 7 * HUGE.pages // HUGE.group
    assert figures["zeroing at boot, 16 GiB"] < 260


def test_last_pages_of_16_gib_are_lent_denied_and_taken_back():
    pages = HUGE.group
    with Driver(HUGE, seed=SEED) as driver:
        base = BASE_PFN + HUGE.pages - pages
        phone = Phone(driver, base=base, pages=pages)
        last = base + pages - 1
        phone.play(*phone.lend(pages - 1, 1))
        bursts = [
            Burst(start=100 * n, address=page * PAGE, nonsecure=nonsecure)
            for n, (page, nonsecure) in enumerate((page, world) for page in (last, last - 1) for world in (0, 1))
        ]
        driver.traffic(reads=bursts, writes=bursts)
        driver.play(Step("B"), Step("D"))
        denied = [[bool(record.response) for record in records] for records in driver.records()]
        assert denied == [[False, True, True, False]] * 2
        phone.play(
            Step("M"),
            *phone.command(RecallCommand.RECALL, pages - 1, 1),
            Step("E", RecallState.NORMAL, 1),
            Step("C", 100),
        )
        driver.traffic(reads=bursts[:2])
        driver.play(Step("B"), Step("D"))
        assert [bool(record.response) for record in driver.records()[0]] == [True, False]

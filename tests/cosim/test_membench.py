"""The filter's cost on its RTL: what must never regress, on a window small enough to boot at once."""

import pytest

from flexserve_cosim.membench.access import added_latency, denied_latency, lost_beats, stalls
from flexserve_cosim.membench.driver import Burst, Driver, Step
from flexserve_cosim.membench.figures import Figure
from flexserve_cosim.membench.management import bandwidth, command_rate, recall_bound, under_load
from flexserve_cosim.membench.phone import Phone, page_address
from flexserve_cosim.membench.stream import Access, hit_rate, llm_stream
from flexserve_hw.params import FlexMemParams

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
    hold([*bandwidth(phone), *under_load(phone, seed=SEED)], limits=8)


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

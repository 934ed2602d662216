"""The soak campaign in short: it passes on the filter, and notices faults put into it and lies in its records."""

import shutil

import numpy as np
import pytest

from flexserve_cosim.build import emitted
from flexserve_cosim.soak.campaign import Campaign, Finding, run_segment
from flexserve_cosim.soak.classes import CACHED, REQUIRED
from flexserve_cosim.soak.judge import judge
from flexserve_cosim.soak.records import EVENT, TRANSACTION, Flag, Kind, Mismatch
from flexserve_cosim.soak.simulator import Course, bench, filter_params, simulate

from .saboteur import FAULTS, sabotaged
from .support import SEED, rerun

pytestmark = pytest.mark.rtl

SHORT = Course(transactions=12_000, episode=5_000, stretch=1_000)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The small filter, with faults in it of which none is switched on."""
    design = tmp_path_factory.mktemp("soak") / "sabotaged.v"
    source = emitted("filter", filter_params("small")) / "flexserve_filter.v"
    design.write_text(sabotaged(source.read_text()))
    return bench("small", verilog=design)


@pytest.fixture(scope="module")
def records(small, tmp_path_factory):
    """What a run without a fault leaves."""
    folder = tmp_path_factory.mktemp("records")
    simulate(small, folder, seed=SEED, course=SHORT)
    return folder


def test_filter_agrees_with_the_golden_model_in_every_step(small, records):
    seen = judge(records, small.params)
    assert seen["transactions"] >= SHORT.transactions, f"run again with\n  {rerun()}"
    came_up = [name for name in REQUIRED if seen[name]]
    assert len(came_up) > 0.7 * len(REQUIRED), sorted(set(REQUIRED) - set(came_up))


@pytest.fixture(scope="module")
def cached():
    """The filter with its page-state table in memory."""
    return bench("cached")


@pytest.fixture(scope="module")
def cached_records(cached, tmp_path_factory):
    """What a run of it leaves."""
    folder = tmp_path_factory.mktemp("cached")
    simulate(cached, folder, seed=SEED, course=SHORT)
    return folder


def test_filter_with_its_table_in_memory_agrees_with_the_golden_model(cached, cached_records):
    seen = judge(cached_records, cached.params)
    assert seen["transactions"] >= SHORT.transactions, f"run again with\n  {rerun()}"
    looked_up = [name for name in CACHED if seen[name]]
    assert set(CACHED) - set(looked_up) <= {"window over its table"}
    assert seen["read looked up in memory, allowed"] > 0.01 * SHORT.transactions


def test_lie_about_a_verdict_that_was_looked_up_in_memory_is_noticed(cached, cached_records, tmp_path):
    shutil.copytree(cached_records, tmp_path, dirs_exist_ok=True)
    transactions = np.fromfile(tmp_path / "transactions.bin", TRANSACTION)
    missed = transactions["flags"] & (Flag.MISSED | Flag.ABORTED) == Flag.MISSED
    at = np.flatnonzero(missed & (transactions["forwarded"] != 0))[100]
    transactions["forwarded"][at] = 0
    transactions.tofile(tmp_path / "transactions.bin")
    with pytest.raises(Mismatch, match="is denied, not forwarded"):
        judge(tmp_path, cached.params)


@pytest.mark.parametrize("number", range(1, len(FAULTS) + 1), ids=lambda number: FAULTS[number - 1].name)
def test_fault_in_the_filter_is_noticed(small, number):
    with pytest.raises(Finding):
        for seed in range(SEED, SEED + 3):
            run_segment(small, variant="small", seed=seed, course=SHORT, plusargs=(f"fault={number}",), timeout=60)


def lie_about_a_verdict(transactions, events):
    at = np.flatnonzero((transactions["forwarded"] != 0) & (transactions["flags"] & Flag.ABORTED == 0))[100]
    transactions["forwarded"][at] = 0


def lie_about_an_answer(transactions, events):
    at = np.flatnonzero((transactions["forwarded"] == 0) & (transactions["answered"] != 0))[100]
    transactions["response"][at] ^= 3


def lie_about_a_state(transactions, events):
    events["c"][np.flatnonzero(events["kind"] == Kind.PAGE)[-40]] ^= 1


def lie_about_a_result(transactions, events):
    events["d"][np.flatnonzero(events["kind"] == Kind.DECISION)[20]] ^= 1


def lie_about_a_report(transactions, events):
    """A report before its decision."""
    at = np.flatnonzero((events["kind"] == Kind.INTERRUPT) & (events["a"] < 2) & (events["c"] == 1))[20]
    events["cycle"][at] -= 12


def lie_about_a_register(transactions, events):
    at = np.flatnonzero(events["kind"] == Kind.QUIET)[1]
    reads = np.flatnonzero((events["kind"] == Kind.ACCESS) & (events["d"] & 1 == 0) & (np.arange(len(events)) > at))
    events["c"][reads[4]] += 1


def lie_about_a_write(transactions, events):
    """Data of a write that reach memory long after its page has changed hands."""
    mine = (transactions["landed"] != 0) & (transactions["prot"] & 2 == 0) & (transactions["flags"] & Flag.ABORTED == 0)
    transactions["landed"][np.flatnonzero(mine)[:200]] += 4000


LIES = [value for name, value in list(globals().items()) if name.startswith("lie_about_")]


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
def test_lie_in_the_records_is_noticed(small, records, tmp_path, lie):
    transactions = np.fromfile(records / "transactions.bin", TRANSACTION)
    events = np.fromfile(records / "events.bin", EVENT)
    lie(transactions, events)
    transactions.tofile(tmp_path / "transactions.bin")
    events.tofile(tmp_path / "events.bin")
    with pytest.raises(Mismatch):
        judge(tmp_path, small.params)


def test_campaign_goes_on_where_it_was_and_says_what_never_came_up(small, tmp_path):
    course = Course(transactions=2_000, episode=1_000, stretch=400)
    told = []

    def campaign(transactions):
        return Campaign(tmp_path, {"small": small}, transactions=transactions, seed=SEED, course=course)

    first = campaign(2_000).run(told.append)
    second = campaign(3 * first["transactions"]).run(told.append)
    assert any("Going on after 1 segments" in text for text in told)
    assert second["segments"] > first["segments"] == 1
    assert second["mismatches"] == 0
    assert second["missing"], "a few thousand transactions do not see everything"
    shutil.rmtree(tmp_path)
    assert not campaign(1).segments

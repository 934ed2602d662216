"""The demo on the RTL and on the transaction-level machine: same answers, same states of every page, same time."""

import pytest

from flexserve_cosim.build import build
from flexserve_cosim.fastbench.compare import agreement
from flexserve_cosim.fastbench.jobs import bench_jobs
from flexserve_cosim.fastbench.suite import on_both

DEMO = ("flexserve", "nw-base", "strawman", "strawman-opt", "flexserve (no recall)")


@pytest.mark.rtl
@pytest.mark.xdist_group("soc")
@pytest.mark.parametrize("name", DEMO)
def test_run_of_the_demo_is_the_same_on_both_machines(name: str) -> None:
    simulator = build("soc")
    with bench_jobs() as jobs:
        figures = on_both(simulator, {job.name: job for job in jobs}[name], timed=False)
    missed = [f"{figure.name} {figure.value:.4g} {figure.unit}" for figure in figures if figure.holds is False]
    assert not missed
    assert sum(figure.holds is True for figure in figures) == (11 if name == "flexserve" else 9)


def result(**changes: object) -> dict[str, object]:
    """A result with as much in it as is compared."""
    whole: dict[str, object] = {
        "tokens": [1, 2],
        "page_sequences": {"7": ["DELEGATED", "FLEX"]},
        "page_states": [{"cycle": 1, "FLEX": 1}],
        "pages_moved": {"dropped": 0},
        "violations": 0,
        "ttft_cycles": 1000,
        "decode_cycles_per_token": 100.0,
        "decode_cycles": [100, 100],
        "simulation": {"cycles": 2000},
        "recall": {"recalls": [{"by": "size", "latency_cycles": 50}]},
    }
    return whole | changes


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({}, set()),
        ({"tokens": [1, 3]}, {"tokens that differ"}),
        ({"tokens": [1]}, {"tokens that differ"}),
        ({"page_sequences": {"7": ["DELEGATED"]}}, {"pages that go through other states"}),
        ({"page_sequences": {"8": ["DELEGATED", "FLEX"]}}, {"pages that go through other states"}),
        ({"page_states": []}, {"changes of how many pages are in which state, in order"}),
        ({"pages_moved": {"dropped": 1}}, {"sums of pages moved that differ"}),
        ({"violations": 1}, {"violations seen"}),
        ({"ttft_cycles": 1051}, {"time to first token"}),
        ({"decode_cycles": [100, 94]}, {"decode, the token that is off most"}),
        ({"decode_cycles_per_token": 94.0}, {"decode, median token"}),
        ({"simulation": {"cycles": 2101}}, {"all cycles"}),
        ({"recall": {"recalls": [{"by": "size", "latency_cycles": 53}]}}, {"recall by size"}),
    ],
)
def test_each_difference_misses_its_limit(changes: dict[str, object], missed: set[str]) -> None:
    figures = list(agreement("job", result(), result(**changes)))
    assert {figure.name.partition(":")[0] for figure in figures if figure.holds is False} == missed


def test_machines_that_did_not_do_the_same_are_not_compared() -> None:
    with pytest.raises(ValueError, match="must do the same, not 2 and 1 times"):
        list(agreement("job", result(), result(decode_cycles=[100])))

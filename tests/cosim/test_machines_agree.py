"""The demo on the RTL and on the transaction-level machine: same answers, same states of every page, same time."""

from typing import Any

import pytest

from flexserve_cosim.build import build
from flexserve_cosim.fastbench.compare import agreement
from flexserve_cosim.fastbench.jobs import NAMES, bench_jobs
from flexserve_cosim.fastbench.speed import FASTER, Sampler, Stopwatch, Times, measure, speed
from flexserve_cosim.fastbench.suite import on_both
from tests.sw.phone_bench import serve_fast

RECALLED = ("flexserve", "flexserve (int8 KV)")
DEMO = (*RECALLED, "nw-base", "strawman", "strawman-opt", "flexserve (no recall)")


@pytest.mark.rtl
@pytest.mark.xdist_group("soc")
@pytest.mark.parametrize("name", DEMO)
def test_run_of_the_demo_is_the_same_on_both_machines(name: str) -> None:
    simulator = build("soc")
    with bench_jobs() as jobs:
        figures = on_both(simulator, {job.name: job for job in jobs}[name])
    missed = [f"{figure.name} {figure.value:.4g} {figure.unit}" for figure in figures if figure.holds is False]
    assert not missed
    assert sum(figure.holds is True for figure in figures) == (11 if name in RECALLED else 9)


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


def test_every_job_has_its_name() -> None:
    with bench_jobs() as jobs:
        assert tuple(job.name for job in jobs) == NAMES
        assert set(DEMO) < set(NAMES)


def test_stopwatch_goes_from_power_on_to_the_end_by_processor_time() -> None:
    watch = Stopwatch()
    stamps = (("boot", "begin", 3.0), ("boot", "end", 4.0), ("close", "begin", 9.0), ("close", "end", 9.5))
    for name, event, busy in stamps:
        watch.see({"kind": "phase", "name": name, "event": event, "cpu": busy, "time": 100 + 2 * busy})
    watch.see({"kind": "token", "cpu": 20.0})
    assert watch.seconds == 6.5


def test_first_time_of_a_process_is_told_from_the_others() -> None:
    durations = iter([7.0, 0.5, 0.25, 9.0, 1.0, 1.0, 1.0])

    def fast(listener: Any) -> None:
        serve_fast()
        for name, event, busy in (("boot", "begin", 1.0), ("close", "end", 1.0 + next(durations))):
            listener({"kind": "phase", "name": name, "event": event, "cpu": busy})

    times = measure(fast, runs=3)
    assert (times.first, times.again) == (7.0, 0.5)
    assert 0 < times.software_share < 1


def test_speed_is_of_the_median_process_with_and_without_the_software_of_the_job() -> None:
    compiled = [Times.of([0.2, 0.05, 0.1, 0.125]), Times(0.1, 0.3), Times(4.0, 0.025)]
    python = [Times(0.5, 0.25, 0.4), Times(9.0, 0.1, 0.2), Times(0.3, 8.0, 0.9)]
    figures = {figure.name: figure for figure in speed("job", 10.0, compiled, python)}
    assert figures["compiled: first job of a process"].value == 0.2
    faster = figures["compiled: times faster"]
    assert (faster.value, faster.at_least, faster.holds) == (50.0, FASTER, False)
    assert figures["compiled: times faster, the job again"].value == 100.0
    assert figures["as Python: first job of a process"].value == 0.5
    faster = figures["as Python: times faster"]
    assert (faster.value, faster.at_least) == (20.0, None)
    again = figures["as Python: times faster, the job again"]
    assert (again.value, again.at_least) == (40.0, None)
    own = figures["as Python: of that time, the job's own software, the same on both"].value
    assert own == pytest.approx(0.25 * 0.4)
    without = figures["as Python: times faster without the software"]
    assert without.value == pytest.approx((10.0 - own) / (0.25 - own))


def test_sampler_tells_the_machine_from_its_software() -> None:
    with Sampler() as sampler:
        for _ in range(4):
            serve_fast()
    assert min(sampler.machine, sampler.software) > 0
    assert sampler.software_share == sampler.software / (sampler.software + sampler.machine)

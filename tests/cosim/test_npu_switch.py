"""The NPU changes hands in time, out of the middle of the longest jobs that there are."""

from typing import Any

import pytest

from flexserve_cosim.build import build
from flexserve_cosim.npubench.switch import JOBS
from flexserve_cosim.session import simulate
from flexserve_sw.designs.plan import ARGUMENTS
from flexserve_sw.fast.memory import DramTiming

pytestmark = pytest.mark.rtl

JOB = "flexserve_cosim.npubench.switch:measure_switches"
SWITCH, RECALL = 2_000, 20_000


def switches(memory: DramTiming, names: list[str]) -> dict[str, Any]:
    argument = {"jobs": names, "after": [300, 4_000, 5_017], "pages": 1_024}
    return simulate(build("soc"), JOB, argument, dram=memory, timeout=300)


def test_a_world_switch_takes_2000_cycles_at_most_with_drain_and_scrub() -> None:
    result = switches(DramTiming(), list(JOBS))
    assert 1_024 < result["to_secure_idle"] <= SWITCH
    assert 1_024 < result["to_normal_idle"] <= SWITCH
    assert [entry["job"] for entry in result["busy"]] == list(JOBS)
    assert max(entry["to_secure"] for entry in result["busy"]) <= SWITCH
    assert max(entry["recall_beyond_grace"] for entry in result["busy"]) <= SWITCH


def test_a_recall_that_nobody_answers_ends_in_time_with_a_quarter_of_the_bandwidth() -> None:
    (entry,) = switches(DramTiming(bytes_per_cycle=4.0), ["reading and writing"])["busy"]
    # Bursts are on the bus, so this is not the time of an idle NPU.
    assert entry["recall_beyond_grace"] > SWITCH
    assert ARGUMENTS["npu_grace"] + entry["recall_beyond_grace"] <= RECALL

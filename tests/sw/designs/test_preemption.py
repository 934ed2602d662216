"""The OS takes the NPU back in the middle of the secure world's jobs, and lends it again: the answer is the same."""

from __future__ import annotations

from typing import Any

import pytest

from flexserve_cosim.build import build
from flexserve_cosim.session import simulate as simulate_rtl
from flexserve_sw.designs.plan import ARGUMENTS
from flexserve_sw.fast import simulate as simulate_fast
from flexserve_sw.llm import KvArithmetic, complete
from tests.sw.designs.test_rtl import TIMING, options
from tests.sw.llm.tiny import CONFIG, checkpoint

JOB = "tests.sw.designs.recalls:serve_with_recalls"
PROMPT = "a he cab"
BOUND = 20_000
"""Cycles within which the OS has a busy NPU back."""


def check(result: dict[str, Any], *, recalls: int, kv: KvArithmetic = "float") -> None:
    """The answer is right, and every recall was answered in time."""
    assert tuple(result["tokens"]) == complete(checkpoint(CONFIG), PROMPT, 6, kv=kv).tokens
    assert (result["bit_exact"], result["reference_equal"], result["violations"]) == (True, True, 0)
    assert len(result["latencies"]) == recalls
    assert max(result["latencies"]) <= BOUND


@pytest.mark.parametrize("gap", [37, 90, 150, 400, 700])
@pytest.mark.parametrize("kv", ["float", "int8"])
def test_recalls_anywhere_in_the_answer_change_nothing(gap: int, kv: KvArithmetic) -> None:
    result = simulate_fast(JOB, options(gap=gap, most=25, kv=kv), cycles=5_000_000, **TIMING)
    check(result, recalls=25, kv=kv)
    assert result["recall"]["npu_jobs_resumed"] > 0
    # The secure world stops its job at once, long before its grace period ends.
    assert max(result["latencies"]) < ARGUMENTS["npu_grace"] / 2
    assert result["expired_grace_periods"] == 0


def test_a_secure_world_that_hears_nothing_loses_the_npu_in_time_and_computes_again() -> None:
    result = simulate_fast(JOB, options(gap=150, most=4, deaf=True), cycles=5_000_000, **TIMING)
    check(result, recalls=4)
    assert result["expired_grace_periods"] == 4
    assert min(result["latencies"]) >= ARGUMENTS["npu_grace"]


@pytest.mark.rtl
@pytest.mark.parametrize(
    ("gap", "deaf", "kv"), [(150, False, "float"), (700, False, "float"), (150, True, "float"), (400, False, "int8")]
)
def test_rtl_gives_the_npu_back_in_the_middle_of_a_job_and_goes_on_after(
    gap: int, deaf: bool, kv: KvArithmetic
) -> None:
    recalls = 3 if deaf else 20
    wanted = options(gap=gap, most=recalls, deaf=deaf, kv=kv)
    result = simulate_rtl(build("soc"), JOB, wanted, cycle_limit=5_000_000, **TIMING)
    check(result, recalls=recalls, kv=kv)
    assert deaf or result["recall"]["npu_jobs_resumed"] > 0
    assert result["expired_grace_periods"] == (recalls if deaf else 0)

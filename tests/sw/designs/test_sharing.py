"""A program of the normal world and the secure model share the NPU, and both get right results in time."""

from __future__ import annotations

from typing import Any

import pytest

from flexserve_cosim.build import build
from flexserve_cosim.session import simulate as simulate_rtl
from flexserve_sw.fast import simulate
from flexserve_sw.llm import complete
from tests.sw.designs.test_rtl import TIMING, options
from tests.sw.llm.tiny import CONFIG, checkpoint

JOBS = "flexserve_sw.designs.sharing"


def run(job: str, **more: Any) -> dict[str, Any]:
    return simulate(f"{JOBS}:{job}", options(**more), cycles=20_000_000, **TIMING)


@pytest.mark.parametrize(("period", "slice_"), [(40_000, 0), (20_000, 3_000), (5_000, 3_000)])
def test_frames_and_answer_are_right_whatever_the_load(period: int, slice_: int) -> None:
    result = run("share", period=period, slice=slice_)
    shared = result["sharing"]
    assert tuple(result["tokens"]) == complete(checkpoint(CONFIG), "a he cab", 6).tokens
    assert (result["bit_exact"], result["violations"], result["expired_grace_periods"]) == (True, 0, 0)
    assert shared["wrong_values"] == 0
    assert shared["frames"] == len(shared["latency"]) > 1
    assert shared["recalls"] == sum(bool(cycles) for cycles in shared["recalled"]) > 0
    assert shared["lendings"] >= shared["recalls"]
    assert shared["recall_cycles_max"] < 20_000
    assert 0 < shared["switch_share"] < 1


def test_the_secure_world_keeps_the_npu_for_its_slice() -> None:
    short, long = (run("share", period=5_000, slice=length) for length in (0, 10_000))
    assert long["sharing"]["recalls"] < short["sharing"]["recalls"]
    assert max(long["sharing"]["waited"]) > 5_000
    assert long["recall"]["npu_jobs_resumed"] <= short["recall"]["npu_jobs_resumed"]


def test_frames_alone_are_never_kept_waiting() -> None:
    shared = run("watch", period=30_000, frames=4)["sharing"]
    assert (shared["frames"], shared["wrong_values"], shared["lendings"], shared["recalls"]) == (4, 0, 0, 0)
    assert max(shared["waited"]) < 100


@pytest.mark.rtl
def test_frames_and_answer_are_right_on_the_rtl() -> None:
    result = simulate_rtl(
        build("soc"), f"{JOBS}:share", options(period=30_000, slice=2_000), cycle_limit=10_000_000, **TIMING
    )
    shared = result["sharing"]
    assert tuple(result["tokens"]) == complete(checkpoint(CONFIG), "a he cab", 6).tokens
    assert (result["bit_exact"], result["violations"], result["expired_grace_periods"]) == (True, 0, 0)
    assert (shared["wrong_values"], shared["frames"] > 1, shared["recalls"] > 0) == (0, True, True)
    assert shared["recall_cycles_max"] < 20_000

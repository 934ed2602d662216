"""The two machines give the same answers to a random program, in almost the same time."""

from typing import Any

import pytest

from flexserve_cosim.build import build
from flexserve_cosim.session import simulate as simulate_rtl
from flexserve_sw.fast import FlashTiming, simulate

JOB = "flexserve_sw.lockstep:play"
FLASH = FlashTiming(latency=500, bytes_per_cycle=8.0)
STEPS = 200


def fast(seed: int) -> dict[str, Any]:
    """The program on the transaction-level machine."""
    return simulate(JOB, {"steps": STEPS, "seed": seed}, flash=FLASH, cycles=10_000_000)


def test_program_meets_refusals_denials_faults_and_success() -> None:
    log = fast(2)["log"]
    text = str(log)
    assert {entry[0] for entry in log} >= {"command_pages", "command_npu", "load", "store", "job", "transfer", "freed"}
    for outcome in ("DECERR", "SLVERR"):
        assert outcome in text
    commands = [entry[1] for entry in log if entry[0] == "command_pages" and isinstance(entry[1][0], int)]
    assert {status >> 4 for _, status, _ in commands} >= {0, 1, 2, 3, 6}


def test_same_seed_same_answers_and_another_seed_others() -> None:
    first, again, other = fast(1), fast(1), fast(2)
    assert (first["log"], first["states"], first["cycles"]) == (again["log"], again["states"], again["cycles"])
    assert first["log"] != other["log"]


@pytest.mark.rtl
@pytest.mark.xdist_group("soc")
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_rtl_gives_the_same_answers_within_two_percent_of_the_time(seed: int) -> None:
    expected = fast(seed)
    argument = {"steps": STEPS, "seed": seed}
    found = simulate_rtl(build("soc"), JOB, argument, flash=FLASH, cycle_limit=10_000_000, timeout=300)
    for number, (rtl, model) in enumerate(zip(found["log"], expected["log"], strict=True)):
        assert rtl == model, f"step {number} of seed {seed}"
    assert found["states"] == expected["states"]
    assert found["cycles"] == pytest.approx(expected["cycles"], rel=0.02)

"""What a run and an attack say in the end follows from their sessions, and a failure anywhere shows."""

from typing import Any

import pytest

from flexserve_cosim.report.attacks import attacks_page, evidence_text
from flexserve_cosim.report.run import busy_share
from flexserve_cosim.results import Clock, attack_summary, failures, run_summary


def result(**changes: Any) -> dict[str, Any]:
    """What the serving job returns."""
    return {
        "text": "ab", "tokens": [1, 2], "bit_exact": True, "reference_equal": True, "compared_values": 10,
        "ttft_cycles": 100, "ttft_phases": {"compute": 60, "other": 40}, "ttft_busy": {"compute": 60},
        "decode_cycles_per_token": 7, "decode_cycles": [7], "npu": {"useful_utilisation": 0.5}, "world_switches": 4,
        "violations": 0, "recall": {"pages": 0, "latency_cycles_max": None, "recalls": []}, "pages_moved": {},
        "cma_pages_migrated": 0, "simulation": {"cycles": 1000, "seconds": 2.0, "peak_rss_bytes": 50},
    } | changes  # fmt: skip


def summary(designs: dict[str, dict[str, Any]], calm: dict[str, Any] | None = None) -> dict[str, Any]:
    return run_summary(designs, calm, speeds=dict.fromkeys(designs, 1.5), about={"version": "0"})


def test_ratios_are_relative_to_flexserve() -> None:
    run = summary({"nw-base": result(ttft_cycles=50), "flexserve": result()})
    assert run["design"] == "flexserve"
    assert run["ttft_ratios"] == {"nw-base": 0.5}
    assert run["designs"]["flexserve"]["ttft_ratio"] == 1
    assert run["sim_cycles"] == 2000


def test_without_flexserve_there_is_nothing_to_be_relative_to() -> None:
    run = summary({"strawman": result(npu=None)})
    assert run["ttft_ratios"] == {}
    assert run["npu_utilisation"] is None
    assert "recall" not in run


@pytest.mark.parametrize("flaw", [{"bit_exact": False}, {"reference_equal": False}])
@pytest.mark.parametrize("where", ["flexserve", "nw-base", "calm"])
def test_one_wrong_value_in_any_session_makes_the_run_not_bit_exact(flaw: dict[str, bool], where: str) -> None:
    sessions = {name: result(**(flaw if name == where else {})) for name in ("flexserve", "nw-base", "calm")}
    calm = sessions.pop("calm")
    assert summary(sessions, calm)["bit_exact"] is False


def test_answer_that_a_recall_changed_is_reported() -> None:
    assert summary({"flexserve": result()}, result())["recall"]["tokens_equal"] is True
    assert summary({"flexserve": result()}, result(tokens=[1, 3]))["recall"]["tokens_equal"] is False


def test_run_that_is_as_it_must_be_has_no_failures() -> None:
    assert failures(summary({"flexserve": result()}, result())) == []


def test_changed_answer_and_wrong_value_are_failures() -> None:
    changed = failures(summary({"flexserve": result()}, result(tokens=[1, 3])))
    assert changed == ["The answer with recalls differs from the answer without."]
    wrong = failures(summary({"flexserve": result(bit_exact=False)}))
    assert wrong == ["A value or a token differs from the int8 reference."]


def test_speed_is_cycles_over_wall_clock_time_of_the_phase() -> None:
    clock = Clock("prefill")
    for name, event, cycle, time in (
        ("boot", "begin", 0, 0.0), ("boot", "end", 900, 5.0),
        ("prefill", "begin", 1000, 10.0), ("prefill", "end", 301_000, 12.0),
    ):  # fmt: skip
        assert clock.khz is None
        clock.see({"kind": "phase", "name": name, "event": event, "cycle": cycle, "time": time})
    assert clock.khz == 150.0


def test_attacks_are_paired_with_their_controls() -> None:
    blocked = {"name": "x", "property": "SEC-01", "outcome": "blocked", "evidence": {"leaked_bytes": 0}, "cycles": 5,
               "control_kind": "unprotected", "level": "bus", "weakness": "CWE-208 Timing"}  # fmt: skip
    success = {**blocked, "outcome": "succeeded", "control": "open regions"}
    both = attack_summary([blocked], [success], about={"version": "0", "options": {"seed": 1}})
    assert both["all_blocked"] is True
    assert both["all_controls_succeeded"] is True
    assert both["attacks"][0]["control"] == {
        "how": "open regions", "outcome": "succeeded", "evidence": {"leaked_bytes": 0}, "cycles": 5,
    }  # fmt: skip
    assert "1 of 1" in attacks_page(both)
    lost = attack_summary([success], [{**success, "outcome": "blocked"}], about={})
    assert lost["all_blocked"] is False
    assert lost["all_controls_succeeded"] is False
    with pytest.raises(ValueError, match="must have one control"):
        attack_summary([blocked], [], about={})


def test_evidence_keeps_zero_leaks_and_drops_other_zeros() -> None:
    seen = {
        "attempts": 3,
        "leaked_bytes": 0,
        "stray_bytes": 0,
        "responses": {"DECERR": 3},
        "moved": [],
        "faulted": True,
    }
    assert evidence_text(seen) == "3 attempts; 0 leaked bytes; responses: DECERR 3; moved: none; faulted: yes"


def test_busy_share_covers_exactly_the_time_of_the_spans() -> None:
    spans = [(1000, 1500), (1400, 1600), (2000, 3000), (7, 9)]
    timeline = [{"track": "npu", "begin": b, "end": e} for b, e in spans[:3]]
    timeline.append({"track": "boot", "begin": 0, "end": 1000})
    points = busy_share(timeline, "npu")
    width = points[1][0] - points[0][0]
    assert sum(share * width for _, share in points) == pytest.approx(600 + 1000)
    assert all(0 <= share <= 1 for _, share in points)
    assert busy_share(timeline, "cpu") == []

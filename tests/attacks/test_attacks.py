"""Every attack is blocked, and each succeeds once the protection is off: a test that can't fail proves nothing."""

from functools import cache
from typing import Any

import pytest

from flexserve_sw.attacker.case import Evidence, attack
from flexserve_sw.attacker.job import select
from flexserve_sw.attacker.suite import ATTACKS
from flexserve_sw.errors import UserError
from flexserve_sw.fast import simulate

JOB = "flexserve_sw.attacker.job:attack"
LIMIT = 20_000_000
"""Cycles that one campaign may take."""


@cache
def campaign(names: tuple[str, ...], control: bool) -> dict[str, dict[str, Any]]:
    """Reports of attacks that are mounted together, on the transaction-level machine."""
    messages: list[dict[str, Any]] = []
    argument = {"attack": names, "control": control, "seed": 1}
    result = simulate(JOB, argument, on_message=messages.append, cycles=LIMIT)
    assert [message["name"] for message in messages] == list(names)
    return {report["name"]: report for report in result["attacks"]}


def mount(name: str, *, control: bool) -> dict[str, Any]:
    """Report of one attack."""
    together = tuple(other for other, case in ATTACKS.items() if case.campaign is ATTACKS[name].campaign)
    return campaign(together, control)[name]


@pytest.mark.xdist_group("attacks")
@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_blocked(name: str) -> None:
    report = mount(name, control=False)
    assert report["outcome"] == "blocked", report["evidence"]


@pytest.mark.xdist_group("attacks")
@pytest.mark.parametrize("name", ATTACKS)
def test_attack_succeeds_without_protection(name: str) -> None:
    report = mount(name, control=True)
    assert report["outcome"] == "succeeded", report["evidence"]


@pytest.mark.parametrize("array", [4, 8, 32])
@pytest.mark.parametrize("control", [False, True])
def test_npu_attacks_work_for_every_array_size(array: int, control: bool) -> None:
    names = ("npu-read", "npu-write", "npu-residue", "npu-poison", "npu-interference", "npu-replay")
    result = simulate(JOB, {"attack": names, "control": control}, array=array, cycles=LIMIT)
    outcome = "succeeded" if control else "blocked"
    assert {report["name"]: report["outcome"] for report in result["attacks"]} == dict.fromkeys(names, outcome)


def test_another_seed_gives_other_secrets_and_the_same_verdicts() -> None:
    names = [name for name in ATTACKS if not name.startswith("model-")]
    for control, outcome in ((False, "blocked"), (True, "succeeded")):
        result = simulate(JOB, {"attack": names, "control": control, "seed": 2026}, seed=2026, cycles=LIMIT)
        assert {report["name"]: report["outcome"] for report in result["attacks"]} == dict.fromkeys(names, outcome)


def test_attacks_go_for_every_property_that_software_can_attack() -> None:
    assert {case.aim for case in ATTACKS.values()} >= {f"SEC-{n:02}" for n in range(1, 14) if n not in (11, 12)}


def test_every_attack_has_a_story_and_says_how_its_control_is_run() -> None:
    for case in ATTACKS.values():
        assert len(case.story) > 40, case.name
        assert case.control.endswith("."), case.name


def test_names_are_unique() -> None:
    async def again(scene: object) -> Evidence:
        """An attack under a name that is taken."""
        return Evidence(False)

    with pytest.raises(ValueError, match="name of its own and a story, not 'cpu-read'"):
        attack("cpu-read", "SEC-01", control="")(again)


def test_unknown_attack_is_a_user_error_that_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"no attack 'nothing'; choose one of .*cpu-read"):
        select("nothing")

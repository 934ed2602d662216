"""Every attack is blocked, and the control of each succeeds: a test that can't fail proves nothing."""

from functools import cache
from typing import Any

import pytest

from flexserve_sw.attacker import model
from flexserve_sw.attacker.case import ControlKind, Evidence, attack, select
from flexserve_sw.attacker.suite import ATTACKS
from flexserve_sw.attacker.visitor import PRESSURE, Visitor
from flexserve_sw.attacker.weakness import Weakness
from flexserve_sw.errors import UserError
from flexserve_sw.fast import FastMachine, simulate

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


@pytest.mark.xdist_group("attacks")
@pytest.mark.parametrize(
    ("name", "lent"),
    [
        ("double-delegation", ["alone", "hidden"]),
        ("lend-sealed", ["OK"]),
        ("lend-outside", ["own memory", "CMA area"]),
    ],
)
def test_hardware_itself_lends_what_it_should_not_in_the_controls_of_a_lying_allocator(
    name: str, lent: list[str]
) -> None:
    for control, expected in ((False, []), (True, lent)):
        answers = mount(name, control=control)["evidence"]["delegate"]
        if isinstance(answers, str):
            answers = {answers: answers}
        assert [offer for offer, answer in answers.items() if answer == "OK"] == expected


@pytest.mark.xdist_group("attacks")
@pytest.mark.parametrize("control", [False, True])
def test_snoop_on_a_recall_sees_the_whole_of_it(control: bool) -> None:
    seen = mount("model-recall-snoop", control=control)["evidence"]
    assert seen["pages_taken"] == PRESSURE
    assert set(seen["reads_by_state"]) == (set() if control else {"RECALLING", "SCRUBBING"})


@pytest.mark.parametrize(
    ("taken", "states", "complaint"),
    [
        (PRESSURE - 1, {"RECALLING": 1, "SCRUBBING": 1}, "must have taken 8 pages while the device snooped, not 7"),
        (PRESSURE, {"RECALLING": 1}, r"not missed \['SCRUBBING'\]"),
    ],
)
def test_snoop_on_a_recall_that_it_missed_gets_no_verdict(taken: int, states: dict[str, int], complaint: str) -> None:
    visitor = Visitor(FastMachine(), protected=True)
    visitor.taken = taken
    visitor.states.update(states)
    with pytest.raises(RuntimeError, match=complaint):
        model.check_recall(visitor)


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


def test_reports_tell_controls_that_are_not_the_attack_itself() -> None:
    entitled = {name for name, case in ATTACKS.items() if case.kind is ControlKind.ENTITLED}
    assert entitled == {"secure-register-write", "secure-register-read", "usurped-command"}
    for name in ("usurped-command", "log-flood", "cpu-read"):
        assert mount(name, control=True)["control_kind"] == ATTACKS[name].kind.value


def test_names_are_unique() -> None:
    async def again(scene: object) -> Evidence:
        """An attack under a name that is taken."""
        return Evidence(False)

    with pytest.raises(ValueError, match="name of its own and a story, not 'cpu-read'"):
        attack("cpu-read", "SEC-01", weakness=Weakness.GRANULARITY, control="")(again)


def test_unknown_attack_is_a_user_error_that_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"no attack 'nothing': flexserve attack --list shows all"):
        select(ATTACKS, "nothing")

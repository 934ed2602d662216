"""The attacks once more, mounted on the RTL."""

from functools import cache
from typing import Any

import pytest

from flexserve_cosim.build import build
from flexserve_cosim.session import simulate
from flexserve_sw.attacker.suite import ATTACKS

pytestmark = [pytest.mark.rtl, pytest.mark.xdist_group("soc")]


@cache
def reports(control: bool) -> dict[str, dict[str, Any]]:
    """What came of every attack, in one session."""
    argument = {"attack": None, "control": control, "seed": 1}
    result = simulate(build("soc"), "flexserve_sw.attacker.job:attack", argument, cycle_limit=40_000_000, timeout=540)
    return {report["name"]: report for report in result["attacks"]}


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_on_rtl_is_blocked(name: str) -> None:
    report = reports(control=False)[name]
    assert report["outcome"] == "blocked", report["evidence"]


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_on_rtl_succeeds_without_protection(name: str) -> None:
    report = reports(control=True)[name]
    assert report["outcome"] == "succeeded", report["evidence"]

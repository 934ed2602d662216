"""``flexserve attack`` on the RTL: verdicts with evidence, each beside a control that gets through."""

import json
from pathlib import Path

import pytest

from flexserve_cosim.bus_attacks.suite import BUS_ATTACKS
from tests.e2e.command import flexserve

pytestmark = [pytest.mark.rtl, pytest.mark.xdist_group("e2e")]

NAMES = ["cpu-read", "aba"]


def test_attacks_are_listed_without_mounting_any() -> None:
    done = flexserve("attack", "--list", "--only", "bus", timeout=100)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in BUS_ATTACKS)
    assert "cpu-read" not in done.stdout


def test_attacks_on_the_bus_alone_need_no_phone(tmp_path: Path) -> None:
    file = tmp_path / "attack.json"
    done = flexserve("attack", "--only", "bus", "--attack", "table-upset", "--json", file, timeout=580)
    assert done.returncode == 0, done.stderr
    assert "1 of 1 attacks blocked; 1 of 1 controls succeeded." in done.stdout
    (report,) = json.loads(file.read_text())["attacks"]
    assert (report["level"], report["weakness"]) == ("bus", "CWE-1261 Improper Handling of Single Event Upsets")
    assert report["evidence"]["trials"] == 48


def test_verdicts_are_written_with_their_controls_and_a_page_shows_them(tmp_path: Path) -> None:
    chosen = [option for name in NAMES for option in ("--attack", name)]
    files = ("--json", tmp_path / "attack.json", "--report", tmp_path / "attack.html")
    done = flexserve("attack", *chosen, *files, timeout=580)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 attacks blocked; 2 of 2 controls succeeded." in done.stdout
    summary = json.loads((tmp_path / "attack.json").read_text())
    assert summary["machine"] == "rtl"
    assert [(a["name"], a["property"], a["outcome"]) for a in summary["attacks"]] == [
        ("cpu-read", "SEC-01", "blocked"), ("aba", "SEC-04", "blocked"),
    ]  # fmt: skip
    assert all(a["control"]["outcome"] == "succeeded" and a["control"]["how"] for a in summary["attacks"])
    leaks = [
        a["leaked_bytes"] for a in (summary["attacks"][0]["evidence"], summary["attacks"][0]["control"]["evidence"])
    ]
    assert leaks[0] == 0 < leaks[1]
    page = (tmp_path / "attack.html").read_text()
    assert all(name in page for name in NAMES)

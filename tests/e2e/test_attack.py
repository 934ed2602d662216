"""``flexserve attack`` on the RTL: verdicts with evidence, each beside a control that gets through."""

import json
from pathlib import Path

import pytest

from tests.e2e.command import flexserve

pytestmark = [pytest.mark.rtl, pytest.mark.xdist_group("e2e")]

NAMES = ["cpu-read", "aba"]


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

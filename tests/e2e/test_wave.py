"""A layout shows every probe once, under its role, by names that the waveform has."""

import json
import os
import re
from pathlib import Path

import pytest

from flexserve_cosim.wave import CODES, GROUPS, code_text, layout, roles
from flexserve_sw.regs import RecallState
from tests.e2e.command import flexserve


def test_every_probe_is_in_the_first_group_that_wants_it() -> None:
    ports = [
        "probe_filter_ar_deny",
        "probe_page_event_pfn",
        "probe_npu_secure",
        "probe_npu_phase",
        "probe_new",
        "flash_x",
    ]
    grouped = roles(ports)
    assert grouped["Worlds"] == ["probe_npu_secure"]
    assert grouped["NPU phases"] == ["probe_npu_phase"]
    assert grouped["Other probes"] == ["probe_new"]
    shown = [port for members in grouped.values() for port in members]
    assert sorted(shown) == sorted(ports[:-1])


def test_vectors_have_ranges_and_coded_values_their_names(tmp_path: Path) -> None:
    text = layout(
        {"probe_page_event_state": 3, "probe_scrub_active": 1},
        dump=tmp_path / "x.vcd",
        codes={"probe_page_event_state": tmp_path / "names.txt"},
    )
    assert "phone.soc.probe_page_event_state[2:0]" in text
    assert re.search(r"phone\.soc\.probe_scrub_active$", text, flags=re.MULTILINE)
    assert str(tmp_path / "names.txt") in text
    assert f"{RecallState.SCRUBBING:x} SCRUBBING\n" in code_text("probe_page_event_state")


@pytest.mark.rtl
@pytest.mark.xdist_group("e2e")
def test_short_run_is_recorded_with_a_layout_whose_signals_are_there(tmp_path: Path) -> None:
    # A path from here, as most people give one.
    done = flexserve("wave", "--output", os.path.relpath(tmp_path), "--pressure", "4", timeout=580)
    assert done.returncode == 0, done.stderr
    (dump,) = [path for path in tmp_path.iterdir() if path.suffix in (".fst", ".vcd")]
    assert dump.stat().st_size > 100_000
    text = (tmp_path / "flexserve.gtkw").read_text()
    groups = re.findall(r"^-(.+)$", text, flags=re.MULTILINE)
    assert [group for group in GROUPS if group != "Other probes" and group not in groups] == []
    assert all((tmp_path / f"{port.removeprefix('probe_')}.names.txt").exists() for port in CODES)
    assert json.dumps(str(dump)) in text
    if dump.suffix == ".vcd":
        names = set(re.findall(r"\$var \w+ +\d+ \S+ (\w+)", dump.read_text()[:2_000_000]))
        shown = set(re.findall(r"phone\.soc\.(\w+)", text))
        assert shown - names == set()

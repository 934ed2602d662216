"""Attacks on the filter's pins: all of them on the RTL, each beside its control."""

import re
from functools import cache
from typing import Any

import pytest

from flexserve_cosim.bus_attacks.case import attack
from flexserve_cosim.bus_attacks.scene import BusScene
from flexserve_cosim.bus_attacks.session import VARIANTS, bus_build, simulate_bus
from flexserve_cosim.bus_attacks.suite import AGAIN, BUS_ATTACKS, OWN_TABLE_ATTACKS, PIN_ATTACKS, TABLE_ATTACKS
from flexserve_cosim.bus_attacks.table import CODES, GROUP
from flexserve_cosim.bus_attacks.traffic import FIXED, INCR, WRAP, beat_addresses
from flexserve_cosim.commands.attack import ALL_ATTACKS
from flexserve_sw.attacker.case import ControlKind, Evidence, Level
from flexserve_sw.attacker.suite import ATTACKS
from flexserve_sw.attacker.weakness import Weakness
from tests.cosim.support import SEED

LEAST = {
    "midburst-read-lend": 17,
    "midburst-write-lend": 17,
    "midburst-read-recall": 17,
    "midburst-write-recall": 17,
    "midburst-denied-read": 17,
    "midburst-denied-write": 17,
    "outstanding-reads": 9 * 5,
    "outstanding-writes": 9 * 5,
    "false-last-beat": 1 << 8,
    "failed-scrub": 16 * 2,
    "paused-scrub": 17,
    "table-upset": 8 * 6,
    "upset-under-way": 2 * 6 * 11,
    "reset-any-state": 8 * 8,
    "line-upset": 128,
    "line-swap": 6,
    "entry-upset": 8 + 6,
    "fetch-error": 2 * 5 * 4,
    "table-reach": 2 * 16 * 24 * 2,
    "line-race": 3 * 30,
    "window-upset-in-fetch": 10 * 2,
    "latency-of-line": 16 * 2 * 2,
    "latency-of-miss": 20 * 2 * 2,
}
"""Tries of the attacks that go through a whole space: every beat position, transition, burst, bit or cycle."""


CASES = [
    pytest.param(name, level, marks=pytest.mark.xdist_group(f"{level.value} attacks"))
    for level, attacks in PIN_ATTACKS.items()
    for name in attacks
]
"""Each level in a simulator of its own."""


@cache
def reports(control: bool, level: Level = Level.BUS) -> dict[str, dict[str, Any]]:
    """What came of every attack of a level, in one session."""
    result = simulate_bus(bus_build(level=level), None, level=level, control=control, seed=SEED, timeout=540)
    return {report["name"]: report for report in result["attacks"]}


@pytest.mark.rtl
@pytest.mark.parametrize(("name", "level"), CASES)
def test_attack_on_the_bus_is_blocked(name: str, level: Level) -> None:
    report = reports(control=False, level=level)[name]
    assert report["outcome"] == "blocked", report["evidence"]
    assert report["evidence"]["trials"] >= LEAST.get(name.removeprefix(AGAIN), 1)


@pytest.mark.rtl
@pytest.mark.parametrize(("name", "level"), CASES)
def test_attack_on_the_bus_succeeds_without_protection(name: str, level: Level) -> None:
    report = reports(control=True, level=level)[name]
    assert report["outcome"] == "succeeded", report["evidence"]


@pytest.mark.rtl
@pytest.mark.xdist_group("bus attacks")
def test_denied_upsets_raise_the_alarm_every_time() -> None:
    for name in ("table-upset", "window-upset"):
        seen = reports(control=False)[name]["evidence"]
        assert seen["results"] == {"alarm": seen["trials"]}


@pytest.mark.rtl
@pytest.mark.xdist_group("table attacks")
def test_upsets_of_a_table_in_memory_raise_the_alarm_every_time() -> None:
    names = ("line-upset", "line-swap", "entry-upset", "fetch-error", "lost-line", "window-upset-in-fetch")
    for name in (*names, "cached-table-upset", "cached-window-upset"):
        seen = reports(control=False, level=Level.TABLE)[name]["evidence"]
        assert seen["results"] == {"alarm": seen["trials"]}, name


@pytest.mark.rtl
@pytest.mark.xdist_group("table attacks")
def test_races_with_a_line_are_run_on_both_sides_of_the_change() -> None:
    seen = reports(control=False, level=Level.TABLE)["line-race"]["evidence"]["results"]
    assert min(seen["first allowed"], seen["first denied"]) >= 10


@pytest.mark.rtl
@pytest.mark.xdist_group("bus attacks")
def test_controls_of_bursts_in_flight_fail_at_every_position() -> None:
    """Not at one lucky beat: what the filter holds up would have happened wherever the burst stood."""
    for name in ("midburst-write-lend", "midburst-write-recall", "midburst-denied-read", "midburst-denied-write"):
        seen = reports(control=True)[name]["evidence"]
        assert seen["breaches"] == seen["trials"] == 17
    for name in ("midburst-read-lend", "midburst-read-recall"):
        # With all its beats given before the change, a read has nothing left to bring.
        assert reports(control=True)[name]["evidence"]["breaches"] == 16


def test_names_are_unique_across_levels() -> None:
    assert list(ALL_ATTACKS) == [*ATTACKS, *BUS_ATTACKS, *TABLE_ATTACKS]
    assert len(ALL_ATTACKS) == len(ATTACKS) + len(BUS_ATTACKS) + len(TABLE_ATTACKS)
    assert {case.level for case in BUS_ATTACKS.values()} == {Level.BUS}
    assert {case.level for case in TABLE_ATTACKS.values()} == {Level.TABLE}
    assert set(TABLE_ATTACKS) == {*(f"cached-{name}" for name in BUS_ATTACKS), *OWN_TABLE_ATTACKS}
    assert {case.level for case in ATTACKS.values()} == {Level.SYSTEM}


def test_a_name_that_is_taken_is_refused() -> None:
    async def again(scene: BusScene) -> Evidence:
        """An attack under a name that is taken."""
        return Evidence(False)

    with pytest.raises(ValueError, match="name of its own and a story, not 'false-last-beat'"):
        attack("false-last-beat", "SEC-02", weakness=Weakness.RACE)(again)


def test_every_attack_says_what_it_does_and_how_its_control_is_run() -> None:
    for case in (*BUS_ATTACKS.values(), *TABLE_ATTACKS.values()):
        assert len(case.story) > 40, case.name
        assert case.control.endswith("."), case.name
    entitled = {name for name, case in BUS_ATTACKS.items() if case.kind is ControlKind.ENTITLED}
    assert entitled == {"closed-frames", "partial-strobes"}


def test_both_levels_go_for_every_property_of_the_filter() -> None:
    filter_properties = {f"SEC-{n:02}" for n in (*range(1, 9), 11, 12, 13)}
    assert {case.aim for case in BUS_ATTACKS.values()} == filter_properties
    assert {case.aim for case in ALL_ATTACKS.values()} == {f"SEC-{n:02}" for n in range(1, 14)}
    assert {case.weakness for case in ALL_ATTACKS.values()} == set(Weakness)


def test_every_weakness_is_an_entry_of_the_enumeration_and_has_one_number() -> None:
    assert all(re.fullmatch(r"CWE-\d+ \S.*\S", weakness.value) for weakness in Weakness)
    assert len({weakness.number for weakness in Weakness}) == len(Weakness)


def test_scripts_know_the_simulated_filter() -> None:
    assert {params.flex.group for params in VARIANTS.values()} == {GROUP}
    assert [params.flex.cache_lines for params in VARIANTS.values()] == [None, 2]
    assert len(CODES) == 6


@pytest.mark.parametrize(
    ("burst", "addresses"),
    [
        ((0x1003, 3, 2, INCR), [0x1003, 0x1004, 0x1008]),
        ((0x1008, 4, 2, WRAP), [0x1008, 0x100C, 0x1000, 0x1004]),
        ((0x1003, 2, 2, FIXED), [0x1003, 0x1003]),
        ((0x1FF0, 2, 4, INCR), [0x1FF0, 0x2000]),
    ],
)
def test_beats_lie_where_axi_says(burst: tuple[int, int, int, int], addresses: list[int]) -> None:
    assert beat_addresses(*burst) == addresses

"""Platform files."""

from pathlib import Path

import pytest

from flexserve_sw.errors import UserError
from flexserve_sw.platforms import load_platform

PHONE = Path(__file__).parents[2] / "sw" / "flexserve_sw" / "platforms" / "phone.toml"


def test_the_phone_is_the_default_and_every_cost_lies_in_its_range_and_names_its_source() -> None:
    phone = load_platform()
    assert phone == load_platform("phone") == load_platform(str(PHONE))
    for table in (phone.scale, phone.cpu, phone.system, phone.dram, phone.flash):
        for cost in vars(table).values():
            assert cost.low <= cost.value <= cost.high
            assert cost.source


def test_costs_become_cycles_of_the_clock() -> None:
    phone = load_platform()
    assert phone.seconds(phone.cpu.smc_round_trip, 1_000_000_000) == 500
    assert phone.seconds(phone.cpu.smc_round_trip, 2_000_000_000) == 1000
    assert phone.at_rate(4001, phone.flash.bandwidth, 1_000_000_000) == 2001
    assert phone.per_cycle(phone.dram.bandwidth, 1_000_000_000) == 16


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[cpu]", "[cpus]", r"must have a table \[cpu\]"),
        ("int8_rate ", "int8_speed ", r"table \[cpu\] with exactly"),
        ("value = 5.0e-7", 'value = "fast"', "finite numbers"),
        ("value = 5.0e-7", "value = true", "finite numbers"),
        ("value = 5.0e-7", "value = nan", "finite numbers"),
        ("value = 5.0e-7", "value = 5.0e-6", "must lie in its own range"),
        ("range = [2.0e-7, 7.0e-7]", "range = [2.0e-7]", r"range as \[lowest, highest\]"),
        ('value = 5.0e-7, unit = "s"', 'value = 5.0e-7, unit = "ms"', "must be in s, not 'ms'"),
        ('value = 5.0e-7, unit = "s", ', "value = 5.0e-7, ", "value, unit, range and source"),
        ("value = 0.5, unit", "value = 0.96, unit", "must lie in its own range"),
        ("range = [2.0e9, 2.4e9]", "range = [2.0e9, 2.4e9", "is not TOML"),
    ],
)
def test_what_is_wrong_with_a_platform_file_is_said_in_one_sentence(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    text = PHONE.read_text()
    assert old in text
    path = tmp_path / "broken.toml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=message) as caught:
        load_platform(str(path))
    assert "\n" not in str(caught.value)


def test_a_platform_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can't be read"):
        load_platform(str(tmp_path / "none.toml"))

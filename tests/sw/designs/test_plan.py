"""A run is checked before anything is simulated."""

from pathlib import Path
from typing import Any

import pytest

from flexserve_sw.designs.design import DESIGNS
from flexserve_sw.designs.plan import check
from flexserve_sw.errors import UserError
from tests.sw.phone_bench import argument


@pytest.mark.parametrize("design", DESIGNS)
def test_a_plan_gives_every_design_a_memory_map_that_fits(design: str) -> None:
    plan = check(argument(design=design))
    assert plan.design is DESIGNS[design]
    room = plan.layout.cma if design.startswith("strawman") else plan.layout.lendable
    assert room.count > plan.pages
    assert plan.layout.window_pages <= 256


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"design": "rigid"}, "There is no design 'rigid'; choose from flexserve, nw-base, strawman, strawman-opt."),
        ({"colour": 1}, "There is no option 'colour'"),
        ({"prompt": "a" * 500}, "context holds 48"),
        ({"prompt": ""}, None),
        ({"prompt": 3}, "The prompt must be text"),
        ({"tokens": 0}, "Option tokens must be a whole number from 1"),
        ({"tokens": 1000}, "do not fit"),
        ({"tokens": True}, "Option tokens must be a whole number"),
        ({"tokens": "many"}, "not 'many'"),
        ({"array": 12}, "4, 8, 16 or 32"),
        ({"seed": -1}, "Option seed"),
        ({"recall_by": "force"}, "not by 'force'"),
        ({"kv": "int4"}, "Keys and values are kept as float, int8, int8-cpu, not as 'int4'."),
        ({"kv": None}, "not as None"),
        ({"pressure": 5000}, "can't take 5000 pages back"),
        ({"pressure_at": 9}, "Option pressure_at"),
        ({"capacity": 64}, "from 128 to"),
        ({"dram_bytes": 1 << 20}, "choose a smaller model or more memory"),
        ({"flash_bytes": 1 << 16}, "does not fit flash"),
        ({"checkpoint": "/nowhere.bin"}, "nowhere"),
        ({"platform": "/nowhere.toml"}, "can't be read"),
    ],
)
def test_what_is_wrong_with_a_run_is_said_in_one_sentence(options: dict[str, Any], message: str | None) -> None:
    if message is None:
        check(argument(**options))
        return
    with pytest.raises(UserError) as caught:
        check(argument(**options))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    raw = Path(argument()["tokenizer"]).read_bytes()
    other = tmp_path / "other.bin"
    other.write_bytes(raw[: len(raw) - 9])
    with pytest.raises(UserError):
        check(argument(tokenizer=str(other)))


def test_pressure_is_for_designs_that_can_give_memory_back() -> None:
    assert check(argument(pressure=4)).pressure == 4
    assert check(argument(design="strawman", pressure=4)).pressure == 0

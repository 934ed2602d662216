"""Sites of an array's multipliers and accumulators."""

import copy
import re
from typing import Any

import pytest

from flexserve_cosim.floorplan import ARRAY, place_array
from flexserve_sw.errors import UserError


def netlist(*, rows: int = ARRAY) -> dict[str, Any]:
    """What Yosys writes of an array with ``rows`` rows of weights, the factors of its products in either order."""
    nets: dict[str, Any] = {"core.array.lane_0": {"bits": [9_000, "0"]}}
    other = {"type": "MULT18X18D", "connections": {"A0": [7], "B0": [8]}, "attributes": {}}
    cells: dict[str, Any] = {"core.other": other}
    for row in range(rows):
        bits = list(range(100 * row + 100, 100 * row + 100 + 8 * ARRAY))
        nets[f"core.array.weights_{row}"] = {"bits": bits}
        for column in range(ARRAY):
            factors = [[bits[8 * column]], [9_000]][:: 1 if column % 2 else -1]
            cells[f"core.array.${row}.{column}"] = {
                "type": "MULT18X18D",
                "connections": dict(zip(("A0", "B0"), factors, strict=True)),
                "attributes": {},
            }
    for bank in range(4):
        for lane in range(ARRAY):
            name = f"core.accumulator.bank_{bank}.bank_0.0.{lane}"
            cells[name] = {"type": "DP16KD", "connections": {}, "attributes": {}}
    return {"modules": {"top": {"netnames": nets, "cells": cells}}}


def test_every_multiplier_and_memory_has_a_site_of_its_own_and_a_column_keeps_together() -> None:
    found = netlist()
    place_array(found, "top")
    cells = found["modules"]["top"]["cells"]
    sites = {name: cell["attributes"]["BEL"] for name, cell in cells.items() if name != "core.other"}
    assert "BEL" not in cells["core.other"]["attributes"]
    assert len(set(sites.values())) == len(sites) == ARRAY * ARRAY + 4 * ARRAY
    for column in range(ARRAY):
        mine = [site for name, site in sites.items() if re.search(rf"(\$\d\.|\.0\.){column}$", name)]
        across = [int(site[1:].split("/")[0]) for site in mine]
        assert len(mine) == ARRAY + 4
        assert max(across) - min(across) <= 6


def test_a_netlist_without_such_an_array_is_refused_and_left_as_it_was() -> None:
    found = netlist(rows=ARRAY - 1)
    before = copy.deepcopy(found)
    with pytest.raises(UserError, match="88 of the 96"):
        place_array(found, "top")
    assert found == before

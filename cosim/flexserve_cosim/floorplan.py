"""Where an 8x8 array's multipliers and accumulators go in an ECP5-85, since a placer takes them for scattered cells."""

from __future__ import annotations

import re
from typing import Any

from flexserve_sw.errors import UserError

__all__ = ["ARRAY", "place_array"]

ARRAY = 8
"""Rows and columns of the array that this plan is for."""

_BLOCKS = (31, 40, 49, 58, 69, 78, 87, 96)
"""First column of eight neighbouring blocks of the fabric, one for each column of the array: a block has four
multipliers in each row of them, and four block RAMs in the row between."""

_MULTIPLIERS = ((0, 0), (1, 1), (4, 4), (5, 5))
"""Column within a block, and index of the site, of its multipliers."""

_UPPER, _MEMORIES, _LOWER = 34, 46, 58
"""Rows of the fabric: multipliers, the block RAMs between them, multipliers."""


def place_array(netlist: dict[str, Any], top: str) -> None:
    """Give every multiplier of the array and every block RAM of the accumulators of module ``top`` its site.

    A column of the array lies in a block: rows of the array take turns above and below the block RAMs that hold the
    column's accumulators, so a sum goes a short way to the next row, and a lane passes the columns one by one.
    ``netlist`` is what Yosys writes as JSON; it is changed in place. Raises :class:`UserError` if it does not have the
    cells of an 8x8 array.
    """
    module = netlist["modules"][top]
    weights: dict[int, tuple[int, int]] = {}
    for name, net in module["netnames"].items():
        if found := re.search(r"\.array\.weights_(\d+)$", name):
            row = int(found[1])
            weights |= {bit: (row, index // 8) for index, bit in enumerate(net["bits"]) if isinstance(bit, int)}
    sites: dict[str, str] = {}
    for name, cell in module["cells"].items():
        if cell["type"] == "MULT18X18D":
            factors = [weights.get(cell["connections"][f"{side}0"][0]) for side in "AB"]
            for row, column in filter(None, factors):
                offset, index = _MULTIPLIERS[row // 2]
                sites[name] = f"X{_BLOCKS[column] + offset}/Y{_LOWER if row % 2 else _UPPER}/MULT18_{index}"
        elif found := re.search(r"\.accumulator\.bank_(\d)\.bank_0\.0\.(\d)$", name):
            bank, lane = int(found[1]), int(found[2])
            sites[name] = f"X{_BLOCKS[lane] + 2 * bank}/Y{_MEMORIES}/EBR{bank}"
    expected = ARRAY * ARRAY + 4 * ARRAY
    if len(set(sites.values())) != expected or len(sites) != expected:
        raise UserError(f"The netlist has {len(sites)} of the {expected} multipliers and memories of an 8x8 array.")
    for name, site in sites.items():
        module["cells"][name]["attributes"]["BEL"] = site

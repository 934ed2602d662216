"""The suites on the filter's pins: every module of attacks, entered into the catalogue of its level."""

from __future__ import annotations

from dataclasses import replace

from flexserve_sw.attacker.case import Attack, Evidence, Level

from . import bursts, cached, evidence, frames, outstanding, races, ranges, resets, scrubs, timing, upsets
from .bus import FilterBus
from .case import catalogue

__all__ = ["AGAIN", "BUS_ATTACKS", "OWN_TABLE_ATTACKS", "PIN_ATTACKS", "TABLE_ATTACKS"]

MODULES = (bursts, outstanding, scrubs, ranges, frames, evidence, resets, upsets, timing, cached, races)

BUS_ATTACKS: dict[str, Attack[FilterBus]] = catalogue(Level.BUS)
"""Every attack on the filter with its table on chip, by name."""

OWN_TABLE_ATTACKS: dict[str, Attack[FilterBus]] = catalogue(Level.TABLE)
"""Attacks that need a table in memory."""

AGAIN = "cached-"
"""Prefix of an attack on the bus that is mounted on the filter with its table in memory too."""


def _again(case: Attack[FilterBus]) -> Attack[FilterBus]:
    name = f"{AGAIN}{case.name}"

    async def campaign(bus: FilterBus, protected: bool, seed: int) -> dict[str, Evidence]:
        return {name: (await case.campaign(bus, protected, seed))[case.name]}

    return replace(case, name=name, level=Level.TABLE, campaign=campaign)


TABLE_ATTACKS: dict[str, Attack[FilterBus]] = {
    **{case.name: case for case in map(_again, BUS_ATTACKS.values())},
    **OWN_TABLE_ATTACKS,
}
"""Every attack on the filter with its table in memory: those on the bus once more, and its own."""

PIN_ATTACKS = {Level.BUS: BUS_ATTACKS, Level.TABLE: TABLE_ATTACKS}
"""Attacks by level."""

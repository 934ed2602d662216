"""The suite on the bus: every module of attacks, entered into one catalogue."""

from __future__ import annotations

from flexserve_sw.attacker.case import Attack

from . import bursts, evidence, frames, outstanding, ranges, resets, scrubs, timing, upsets
from .bus import FilterBus
from .case import catalogue

__all__ = ["BUS_ATTACKS"]

MODULES = (bursts, outstanding, scrubs, ranges, frames, evidence, resets, upsets, timing)

BUS_ATTACKS: dict[str, Attack[FilterBus]] = catalogue()
"""Every attack by name."""

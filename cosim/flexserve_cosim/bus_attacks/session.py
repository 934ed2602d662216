"""Runs attacks on the bus in a simulator of the filter alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from flexserve_hw.params import FlexMemParams, SocParams
from flexserve_hw.tzasc.cache import BANKS
from flexserve_sw.attacker.case import Level

from ..build import build
from ..compiler import Progress, SimBuild
from ..session import converse

__all__ = ["INTERNALS", "PARAMS", "VARIANTS", "bus_build", "simulate_bus"]

PARAMS = SocParams(flex=FlexMemParams(pages=64, group=4, grace_min=50, grace_max=5_000))
"""A filter with a small window, so that resets are cheap; buses and depths are the product's."""

VARIANTS = {Level.BUS: PARAMS, Level.TABLE: replace(PARAMS, flex=replace(PARAMS.flex, cache_lines=2))}
"""The filter that attacks of a level are mounted on: with its table on chip, and in memory behind a cache."""

_STORED = {Level.BUS: ("states",), Level.TABLE: tuple(BANKS)}

INTERNALS = (
    "window.stored",
    "window.complement",
    "read_path.lookup.permitted",
    "write_path.lookup.permitted",
)
"""What scripts upset or break inside the filter, beside the table: the window, and what a verdict is made from."""


def bus_build(progress: Progress | None = None, *, level: Level = Level.BUS) -> SimBuild:
    """The simulator that the attacks of a level run on."""
    internals = (*(f"table.{name}" for name in _STORED[level]), *INTERNALS)
    return build("filter", VARIANTS[level], internals=internals, progress=progress)


def simulate_bus(
    build: SimBuild,
    attacks: Sequence[str] | None,
    *,
    level: Level = Level.BUS,
    control: bool,
    seed: int,
    on_message: Callable[[Mapping[str, Any]], None] | None = None,
    timeout: float | None = None,
    stop: threading.Event | None = None,
) -> dict[str, Any]:
    """Mount attacks by name, or all, and return their reports; see :func:`flexserve_cosim.session.simulate`."""
    names = None if attacks is None else list(attacks)
    argument = {"attack": names, "level": level.value, "control": control, "seed": seed}
    return converse(
        build,
        module="flexserve_cosim.bus_attacks.bench",
        order={"argument": argument},
        on_message=on_message,
        seed=seed,
        timeout=timeout,
        stop=stop,
    )

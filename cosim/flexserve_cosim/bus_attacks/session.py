"""Runs attacks on the bus in a simulator of the filter alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flexserve_hw.params import FlexMemParams, SocParams

from ..build import build
from ..compiler import Progress, SimBuild
from ..session import converse

__all__ = ["INTERNALS", "PARAMS", "bus_build", "simulate_bus"]

PARAMS = SocParams(flex=FlexMemParams(pages=64, group=4, grace_min=50, grace_max=5_000))
"""A filter with a small window, so that resets are cheap; buses and depths are the product's."""

INTERNALS = (
    "table.states",
    "window.stored",
    "window.complement",
    "read_path.lookup.permitted",
    "write_path.lookup.permitted",
)
"""What scripts upset or break inside the filter: stored permission state, and what a verdict is made from."""


def bus_build(progress: Progress | None = None) -> SimBuild:
    """The simulator that the attacks run on."""
    return build("filter", PARAMS, internals=INTERNALS, progress=progress)


def simulate_bus(
    build: SimBuild,
    attacks: Sequence[str] | None,
    *,
    control: bool,
    seed: int,
    on_message: Callable[[Mapping[str, Any]], None] | None = None,
    timeout: float | None = None,
    stop: threading.Event | None = None,
) -> dict[str, Any]:
    """Mount attacks by name, or all, and return their reports; see :func:`flexserve_cosim.session.simulate`."""
    argument = {"attack": None if attacks is None else list(attacks), "control": control, "seed": seed}
    return converse(
        build,
        module="flexserve_cosim.bus_attacks.bench",
        order={"argument": argument},
        on_message=on_message,
        seed=seed,
        timeout=timeout,
        stop=stop,
    )

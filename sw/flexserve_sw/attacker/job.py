"""The attacks as a job for either machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

from ..machine import Machine
from .case import Attack, reports, select
from .confined import Confined
from .suite import ATTACKS

__all__ = ["attack", "mount"]


async def mount(
    machine: Machine, cases: Iterable[Attack[Machine]], *, control: bool, seed: int
) -> list[dict[str, Any]]:
    """Mount the attacks of one campaign on a freshly reset machine and report what came of each."""
    cases = list(cases)
    confined, begin = Confined(machine), machine.now
    try:
        evidence = await cases[0].campaign(confined, not control, seed)
    finally:
        await confined.end()
    return reports(cases, evidence, control=control, cycles=machine.now - begin)


async def attack(machine: Machine, argument: dict[str, Any], emit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Mount attacks one campaign after the other, each after a reset.

    ``argument``: ``attack`` (name, names, or None for all), ``control`` (run with the protection off), ``seed``. Each
    report is emitted as it is made, as ``{"kind": "attack", ...}``, with the cycles of its campaign, boot included; the
    result is ``{"attacks": [...]}``.
    """
    control, seed = bool(argument.get("control", False)), int(argument.get("seed", 1))
    done: list[dict[str, Any]] = []
    for _, cases in groupby(select(ATTACKS, argument.get("attack")), key=lambda case: case.campaign):
        for report in await mount(machine, cases, control=control, seed=seed):
            emit({"kind": "attack", **report})
            done.append(report)
    return {"attacks": done, "control": control, "seed": seed}

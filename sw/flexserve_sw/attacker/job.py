"""The attacks as a job for either machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import UserError
from ..machine import Machine
from .case import Attack
from .scene import Scene
from .suite import ATTACKS

__all__ = ["attack", "mount", "select"]


def select(name: str | None) -> list[Attack]:
    """The attack called ``name``, or all. :class:`UserError` if there is none."""
    if name is None:
        return list(ATTACKS.values())
    if name not in ATTACKS:
        raise UserError(f"Attack {name!r} does not exist; choose one of {', '.join(ATTACKS)}.")
    return [ATTACKS[name]]


async def mount(machine: Machine, case: Attack, *, control: bool, seed: int) -> dict[str, Any]:
    """Boot a fresh scene, mount one attack on it, and report what came of it."""
    scene = await Scene.open(machine, protected=not control, seed=seed)
    begin = machine.now
    evidence = await case.mount(scene)
    return {
        "name": case.name,
        "property": case.aim,
        "story": case.story,
        "control": case.control if control else None,
        "outcome": "succeeded" if evidence.success else "blocked",
        "evidence": evidence.seen,
        "cycles": machine.now - begin,
    }


async def attack(machine: Machine, argument: dict[str, Any], emit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Mount attacks one after the other, each after a reset.

    ``argument``: ``attack`` (name, or None for all), ``control`` (run with the protection off), ``seed``. Each report
    is emitted as it is made, as ``{"kind": "attack", ...}``; the result is ``{"attacks": [...]}``.
    """
    control, seed = bool(argument.get("control", False)), int(argument.get("seed", 1))
    reports = []
    for case in select(argument.get("attack")):
        report = await mount(machine, case, control=control, seed=seed)
        emit({"kind": "attack", **report})
        reports.append(report)
    return {"attacks": reports, "control": control, "seed": seed}

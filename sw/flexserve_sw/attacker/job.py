"""The attacks as a job for either machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any

from ..errors import UserError
from ..machine import Machine
from .case import Attack
from .confined import Confined
from .suite import ATTACKS

__all__ = ["attack", "mount", "select"]


def select(names: str | Sequence[str] | None) -> list[Attack]:
    """The attacks of one name or several, or all, in the suite's order; :class:`UserError` for an unknown name."""
    wanted = list(ATTACKS) if names is None else [names] if isinstance(names, str) else list(names)
    for name in wanted:
        if name not in ATTACKS:
            raise UserError(f"There is no attack {name!r}; choose one of {', '.join(ATTACKS)}.")
    return [case for name, case in ATTACKS.items() if name in wanted]


async def mount(machine: Machine, cases: Iterable[Attack], *, control: bool, seed: int) -> list[dict[str, Any]]:
    """Mount the attacks of one campaign on a freshly reset machine and report what came of each."""
    cases = list(cases)
    confined, begin = Confined(machine), machine.now
    try:
        evidence = await cases[0].campaign(confined, not control, seed)
    finally:
        await confined.end()
    return [
        {
            "name": case.name,
            "property": case.aim,
            "story": case.story,
            "control": case.control if control else None,
            "control_kind": case.kind.value,
            "outcome": "succeeded" if evidence[case.name].success else "blocked",
            "evidence": evidence[case.name].seen,
            "cycles": machine.now - begin,
        }
        for case in cases
    ]


async def attack(machine: Machine, argument: dict[str, Any], emit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Mount attacks one campaign after the other, each after a reset.

    ``argument``: ``attack`` (name, names, or None for all), ``control`` (run with the protection off), ``seed``. Each
    report is emitted as it is made, as ``{"kind": "attack", ...}``, with the cycles of its campaign, boot included; the
    result is ``{"attacks": [...]}``.
    """
    control, seed = bool(argument.get("control", False)), int(argument.get("seed", 1))
    reports: list[dict[str, Any]] = []
    for _, cases in groupby(select(argument.get("attack")), key=lambda case: case.campaign):
        for report in await mount(machine, cases, control=control, seed=seed):
            emit({"kind": "attack", **report})
            reports.append(report)
    return {"attacks": reports, "control": control, "seed": seed}

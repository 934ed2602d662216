"""What an attack is, and how its verdict comes about."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import Enum
from typing import Any, Generic, TypeVar

from ..errors import UserError
from ..machine import Machine
from .scene import Scene
from .weakness import Weakness

__all__ = [
    "Attack",
    "Campaign",
    "Catalogue",
    "ControlKind",
    "Evidence",
    "Level",
    "attack",
    "catalogue",
    "enter",
    "reports",
    "select",
]

M = TypeVar("M")
"""What attacks of a level are mounted on."""


@dataclass(frozen=True)
class Evidence:
    """What the attacker saw. ``success`` follows from what is in ``seen``, never from an expectation."""

    success: bool
    seen: dict[str, Any] = field(default_factory=dict)


class ControlKind(Enum):
    """In what a control differs from its attack. None pretends: the answers are the hardware's in each."""

    UNPROTECTED = "unprotected"
    """The same attack on the same hardware; the service does not use the protection."""
    MISCONFIGURED = "misconfigured"
    """The same attack on the protected phone, whose monitor left out or got wrong one step of its configuration."""
    CARELESS = "careless"
    """The same attack on the protected phone, whose secure software neglects one of its duties."""
    BROKEN = "broken"
    """The same attack on hardware in which what protects is broken in one place, or in more than it is built for."""
    ENTITLED = "entitled"
    """Not the attack: the same accesses by one who may make them, which hardware can't be configured to give others."""


class Level(Enum):
    """Where the attacker stands."""

    SYSTEM = "system"
    """Software and devices of the phone."""
    BUS = "bus"
    """Whoever drives the filter's pins: every beat of every channel, and the memory below."""
    TABLE = "table"
    """The same, where the filter's page-state table lies in memory behind a cache."""


Campaign = Callable[[M, bool, int], Awaitable[dict[str, Evidence]]]
"""Mounts attacks on a machine it resets first: ``(machine, protected, seed)``; the evidence by name of the attack."""


@dataclass(frozen=True)
class Attack(Generic[M]):
    """A named attack.

    ``aim`` is the security property it goes for, ``weakness`` what it hopes to find, ``story`` what the attacker does,
    ``control`` how it is repeated such that it must succeed, and ``kind`` in what that differs from the attack. Attacks
    of one ``campaign`` are mounted together.
    """

    name: str
    aim: str
    weakness: Weakness
    story: str
    control: str
    kind: ControlKind
    level: Level
    campaign: Campaign[M]


class Catalogue(Generic[M]):
    """Attacks of one level.

    Parameters
    ----------
    level
        What is attacked.

    ``attacks`` has them by name, in the order in which they were entered.
    """

    def __init__(self, level: Level) -> None:
        self.level = level
        self.attacks: dict[str, Attack[M]] = {}

    def enter(
        self,
        name: str,
        aim: str,
        *,
        weakness: Weakness,
        story: str,
        control: str,
        campaign: Campaign[M],
        kind: ControlKind = ControlKind.UNPROTECTED,
    ) -> None:
        """Put an attack into the catalogue."""
        if name in self.attacks or not story:
            raise ValueError(f"An attack must have a name of its own and a story, not {name!r}")
        self.attacks[name] = Attack(name, aim, weakness, " ".join(story.split()), control, kind, self.level, campaign)


def select(attacks: dict[str, Attack[M]], names: str | Iterable[str] | None) -> list[Attack[M]]:
    """The attacks of one name or several, or all, in the suite's order; :class:`UserError` for an unknown name."""
    wanted = list(attacks) if names is None else [names] if isinstance(names, str) else list(names)
    for name in wanted:
        if name not in attacks:
            near = get_close_matches(name, attacks)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            raise UserError(f"There is no attack {name!r}: {hint}flexserve attack --list shows all {len(attacks)}.")
    return [case for name, case in attacks.items() if name in wanted]


def reports(
    cases: Iterable[Attack[M]], evidence: dict[str, Evidence], *, control: bool, cycles: int
) -> list[dict[str, Any]]:
    """What came of attacks that were mounted together in ``cycles``."""
    return [
        {
            "name": case.name,
            "level": case.level.value,
            "property": case.aim,
            "weakness": case.weakness.value,
            "story": case.story,
            "control": case.control if control else None,
            "control_kind": case.kind.value,
            "outcome": "succeeded" if evidence[case.name].success else "blocked",
            "evidence": evidence[case.name].seen,
            "cycles": cycles,
        }
        for case in cases
    ]


_SYSTEM: Catalogue[Machine] = Catalogue(Level.SYSTEM)
enter = _SYSTEM.enter

Mount = Callable[[Scene], Awaitable[Evidence]]


def attack(
    name: str, aim: str, *, weakness: Weakness, control: str, kind: ControlKind = ControlKind.UNPROTECTED
) -> Callable[[Mount], Mount]:
    """Enter an attack on a small scene of its own; the docstring is the story.

    The scene of a control that is not ``UNPROTECTED`` is a protected one; ``scene.control`` tells it from the attack's.
    """

    def decorate(mount: Mount) -> Mount:
        async def campaign(machine: Machine, protected: bool, seed: int) -> dict[str, Evidence]:
            guarded = protected or kind is not ControlKind.UNPROTECTED
            scene = await Scene.open(machine, protected=guarded, control=not protected, seed=seed)
            return {name: await mount(scene)}

        story = mount.__doc__ or ""
        enter(name, aim, weakness=weakness, story=story, control=control, kind=kind, campaign=campaign)
        return mount

    return decorate


def catalogue() -> dict[str, Attack[Machine]]:
    """Every attack on the system by name, in the order in which they were entered."""
    return dict(_SYSTEM.attacks)

"""What an attack is, and how its verdict comes about."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ..machine import Machine
from .scene import Scene

__all__ = ["Attack", "Campaign", "ControlKind", "Evidence", "attack", "catalogue", "enter"]


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
    ENTITLED = "entitled"
    """Not the attack: the same accesses by one who may make them, which hardware can't be configured to give others."""


Campaign = Callable[[Machine, bool, int], Awaitable[dict[str, Evidence]]]
"""Mounts attacks on a machine it resets first: ``(machine, protected, seed)``; the evidence by name of the attack."""


@dataclass(frozen=True)
class Attack:
    """A named attack.

    ``aim`` is the security property it goes for, ``story`` what the attacker does, ``control`` how it is repeated such
    that it must succeed, and ``kind`` in what that differs from the attack. Attacks of one ``campaign`` are mounted
    together.
    """

    name: str
    aim: str
    story: str
    control: str
    kind: ControlKind
    campaign: Campaign


_CATALOGUE: dict[str, Attack] = {}


def enter(
    name: str,
    aim: str,
    *,
    story: str,
    control: str,
    campaign: Campaign,
    kind: ControlKind = ControlKind.UNPROTECTED,
) -> None:
    """Put an attack into the catalogue."""
    if name in _CATALOGUE or not story:
        raise ValueError(f"An attack must have a name of its own and a story, not {name!r}")
    _CATALOGUE[name] = Attack(name, aim, " ".join(story.split()), control, kind, campaign)


Mount = Callable[[Scene], Awaitable[Evidence]]


def attack(
    name: str, aim: str, *, control: str, kind: ControlKind = ControlKind.UNPROTECTED
) -> Callable[[Mount], Mount]:
    """Enter an attack on a small scene of its own; the docstring is the story.

    The scene of a control that is not ``UNPROTECTED`` is a protected one; ``scene.control`` tells it from the attack's.
    """

    def decorate(mount: Mount) -> Mount:
        async def campaign(machine: Machine, protected: bool, seed: int) -> dict[str, Evidence]:
            guarded = protected or kind is not ControlKind.UNPROTECTED
            scene = await Scene.open(machine, protected=guarded, control=not protected, seed=seed)
            return {name: await mount(scene)}

        enter(name, aim, story=mount.__doc__ or "", control=control, kind=kind, campaign=campaign)
        return mount

    return decorate


def catalogue() -> dict[str, Attack]:
    """Every attack by name, in the order in which they were entered."""
    return dict(_CATALOGUE)

"""What an attack is, and how its verdict comes about."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from ..machine import Machine
from .scene import Scene

__all__ = ["Attack", "Campaign", "Evidence", "attack", "catalogue", "enter"]


@dataclass(frozen=True)
class Evidence:
    """What the attacker saw. ``success`` follows from what is in ``seen``, never from an expectation."""

    success: bool
    seen: dict[str, Any] = field(default_factory=dict)


Campaign = Callable[[Machine, bool, int], Awaitable[dict[str, Evidence]]]
"""Mounts attacks on a machine it resets first: ``(machine, protected, seed)``; the evidence by name of the attack."""


@dataclass(frozen=True)
class Attack:
    """A named attack.

    ``aim`` is the security property it goes for, ``story`` what the attacker does, ``control`` how the same attack is
    run with the protection off: by legitimate configuration of the same hardware and software, never by pretending.
    Attacks of one ``campaign`` are mounted together.
    """

    name: str
    aim: str
    story: str
    control: str
    campaign: Campaign


_CATALOGUE: dict[str, Attack] = {}


def enter(name: str, aim: str, *, story: str, control: str, campaign: Campaign) -> None:
    """Put an attack into the catalogue."""
    if name in _CATALOGUE or not story:
        raise ValueError(f"An attack must have a name of its own and a story, not {name!r}")
    _CATALOGUE[name] = Attack(name, aim, " ".join(story.split()), control, campaign)


Mount = Callable[[Scene], Awaitable[Evidence]]


def attack(name: str, aim: str, *, control: str) -> Callable[[Mount], Mount]:
    """Enter an attack on a small scene of its own; the docstring is the story."""

    def decorate(mount: Mount) -> Mount:
        async def campaign(machine: Machine, protected: bool, seed: int) -> dict[str, Evidence]:
            return {name: await mount(await Scene.open(machine, protected=protected, seed=seed))}

        enter(name, aim, story=mount.__doc__ or "", control=control, campaign=campaign)
        return mount

    return decorate


def catalogue() -> dict[str, Attack]:
    """Every attack by name, in the order in which they were entered."""
    return dict(_CATALOGUE)

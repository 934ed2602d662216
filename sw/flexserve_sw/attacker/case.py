"""What an attack is, and how its verdict comes about."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .scene import Scene

__all__ = ["Attack", "Evidence", "Mount", "attack", "catalogue"]


@dataclass(frozen=True)
class Evidence:
    """What the attacker saw. ``success`` follows from what is in ``seen``, never from an expectation."""

    success: bool
    seen: dict[str, Any] = field(default_factory=dict)


Mount = Callable[["Scene"], Awaitable[Evidence]]


@dataclass(frozen=True)
class Attack:
    """A named attack.

    ``aim`` is the security property it goes for, ``story`` what the attacker does, ``control`` how the same attack is
    run with the protection off: by legitimate configuration of the same hardware and software, never by pretending.
    """

    name: str
    aim: str
    story: str
    control: str
    mount: Mount


_CATALOGUE: dict[str, Attack] = {}


def attack(name: str, aim: str, *, control: str) -> Callable[[Mount], Mount]:
    """Enter a coroutine into the catalogue; its docstring is the story."""

    def enter(mount: Mount) -> Mount:
        if name in _CATALOGUE or not mount.__doc__:
            raise ValueError(f"An attack must have a name of its own and a story, not {name!r}")
        _CATALOGUE[name] = Attack(name, aim, " ".join(mount.__doc__.split()), control, mount)
        return mount

    return enter


def catalogue() -> dict[str, Attack]:
    """Every attack by name, in the order in which they were entered."""
    return dict(_CATALOGUE)

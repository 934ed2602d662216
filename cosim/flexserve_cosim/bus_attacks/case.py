"""The catalogue of attacks on the bus, and how one is entered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from flexserve_sw.attacker.case import Attack, Catalogue, ControlKind, Evidence, Level
from flexserve_sw.attacker.weakness import Weakness

from .bus import FilterBus
from .scene import BusScene

__all__ = ["ORDINARY", "attack", "catalogue"]

ORDINARY = "The service does not use the protection: it keeps its secret in ordinary memory outside the window."

_CATALOGUES: dict[Level, Catalogue[FilterBus]] = {level: Catalogue(level) for level in (Level.BUS, Level.TABLE)}

Mount = Callable[[BusScene], Awaitable[Evidence]]


def attack(
    name: str,
    aim: str,
    *,
    weakness: Weakness,
    control: str = ORDINARY,
    kind: ControlKind = ControlKind.UNPROTECTED,
    level: Level = Level.BUS,
) -> Callable[[Mount], Mount]:
    """Enter an attack on a filter of its own; the docstring is the story. The attack boots the scene itself."""

    def decorate(mount: Mount) -> Mount:
        async def campaign(bus: FilterBus, protected: bool, seed: int) -> dict[str, Evidence]:
            guarded = protected or kind is not ControlKind.UNPROTECTED
            return {name: await mount(BusScene(bus, protected=guarded, control=not protected, seed=seed))}

        story = mount.__doc__ or ""
        _CATALOGUES[level].enter(
            name, aim, weakness=weakness, story=story, control=control, kind=kind, campaign=campaign
        )
        return mount

    return decorate


def catalogue(level: Level) -> dict[str, Attack[FilterBus]]:
    """Every attack of a level by name, in the order in which they were entered."""
    return dict(_CATALOGUES[level].attacks)

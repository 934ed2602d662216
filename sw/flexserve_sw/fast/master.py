"""Who is on the interconnect."""

from __future__ import annotations

from enum import Enum

__all__ = ["Master"]


class Master(Enum):
    """Masters on the interconnect: index on the filter's ID, and NSAID."""

    NORMAL_CPU = (0, 0)
    SECURE_CPU = (1, 0)
    NPU = (2, 1)
    STORAGE = (3, 2)
    HOSTILE = (4, 3)

    __hash__ = object.__hash__  # as of World: a member is itself alone

    def __init__(self, index: int, nsaid: int) -> None:
        self.index, self.nsaid = index, nsaid

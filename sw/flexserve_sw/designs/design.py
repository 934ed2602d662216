"""The systems compared: four policies over one executor."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ..errors import UserError

__all__ = ["DESIGNS", "Design", "MemoryKind", "find_design"]


class MemoryKind(Enum):
    """Where a model's memory comes from."""

    FLEX = "flex"
    """Pages of the flexible window, lent one by one."""
    CMA = "cma"
    """A contiguous area that the OS clears and the monitor makes secure."""
    ORDINARY = "ordinary"
    """Any pages; the OS can read them."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """One system.

    ``npu`` multiplies on the NPU, in the world that has the model; ``pipeline`` loads beside computing. A design in the
    secure world keeps its model encrypted in flash.
    """

    name: str
    memory: MemoryKind
    npu: bool
    pipeline: bool
    summary: str

    @property
    def secure(self) -> bool:
        """Whether the model is hidden from the OS."""
        return self.memory is not MemoryKind.ORDINARY

    @property
    def recallable(self) -> bool:
        """Whether the OS can take memory back in the middle of an answer."""
        return self.memory is MemoryKind.FLEX


DESIGNS = {
    design.name: design
    for design in (
        Design(
            name="flexserve",
            memory=MemoryKind.FLEX,
            npu=True,
            pipeline=True,
            summary="recallable pages and NPU, pipelined loading",
        ),
        Design(
            name="nw-base",
            memory=MemoryKind.ORDINARY,
            npu=True,
            pipeline=True,
            summary="normal world, unprotected: NPU, pipelined loading, no encryption",
        ),
        Design(
            name="strawman",
            memory=MemoryKind.CMA,
            npu=False,
            pipeline=False,
            summary="TrustZone: contiguous memory, CPU only, one step after the other",
        ),
        Design(
            name="strawman-opt",
            memory=MemoryKind.CMA,
            npu=True,
            pipeline=True,
            summary="TrustZone: contiguous memory, secure NPU, pipelined loading",
        ),
    )
}
"""Designs by name."""


def find_design(name: str) -> Design:
    """Look a design up; raises :class:`UserError`."""
    if name not in DESIGNS:
        raise UserError(f"There is no design {name!r}; choose from {', '.join(DESIGNS)}.")
    return DESIGNS[name]

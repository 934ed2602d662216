"""The suite: every module of attacks, entered into one catalogue."""

from __future__ import annotations

from . import lending, memory, npu, recall, registers, storage
from .case import Attack, catalogue

__all__ = ["ATTACKS"]

MODULES = (memory, storage, npu, recall, lending, registers)

ATTACKS: dict[str, Attack] = catalogue()
"""Every attack by name."""

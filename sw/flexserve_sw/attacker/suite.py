"""The suite: every module of attacks, entered into one catalogue."""

from __future__ import annotations

from ..machine import Machine
from . import lending, memory, model, npu, recall, registers, storage, swap
from .case import Attack, catalogue

__all__ = ["ATTACKS"]

MODULES = (memory, storage, swap, npu, recall, lending, registers, model)

ATTACKS: dict[str, Attack[Machine]] = catalogue()
"""Every attack by name."""

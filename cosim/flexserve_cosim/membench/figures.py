"""A measured figure beside its limit."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Figure"]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What was measured, and what it must not exceed (``at_most``) or fall below (``at_least``), if anything."""

    group: str
    name: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def holds(self) -> bool | None:
        """Whether it keeps its limit; None without one."""
        if self.at_most is None and self.at_least is None:
            return None
        return (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )

    @property
    def limit(self) -> str:
        """The limit as text."""
        if self.at_most is not None:
            return f"<= {self.at_most:,.6g}"
        return "" if self.at_least is None else f">= {self.at_least:,.6g}"

    def as_json(self) -> dict[str, Any]:
        """For the results file."""
        return asdict(self) | {"holds": self.holds}

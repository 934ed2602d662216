"""What the diagrams have in common: addresses, contents, and how samples are called."""

from collections.abc import Callable

from flexserve_hw.bus.axi4 import Resp
from tests.hw.tzasc.bench import PAGE, WINDOW_PFN

__all__ = ["CONTENT", "LENT", "OWN", "names", "resp", "word"]

LENT, OWN = WINDOW_PFN * PAGE, (WINDOW_PFN + 4) * PAGE
"""A page that is lent, and one that is not."""

CONTENT = [0xD0, 0xD1, 0xD2, 0xD3]
"""Beats of a burst; the diagrams call them D0 to D3."""


def names(**values: int) -> Callable[[int], str]:
    """Label that calls known values by name and shows others in hexadecimal."""
    known = {value: name for name, value in values.items()}
    return lambda value: known.get(value, f"{value:x}")


def resp(value) -> str:
    """Name of a response."""
    return Resp(value).name


def word(value: int) -> str:
    """Name of a data beat."""
    return f"D{CONTENT.index(value)}" if value in CONTENT else f"{value:x}"

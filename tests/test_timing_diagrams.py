"""The timing diagrams of the documentation show what the RTL does today."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from docs.timing.diagrams import DIAGRAMS
from docs.timing.record import Diagram, Row

FOLDER = Path(__file__).parent.parent / "docs" / "timing"


def test_every_committed_diagram_is_what_the_simulation_gives_and_none_is_left_over() -> None:
    render = pytest.importorskip("docs.timing.render", reason="the docs extra is not installed")
    made = render.sources()
    assert {path.stem: path.read_text() for path in FOLDER.glob("*.json")} == made, "run make docs"
    assert {path.stem: path.read_text() for path in FOLDER.glob("*.svg")} == {
        name: render.drawing(text) for name, text in made.items()
    }, "run make docs"


def test_the_integration_guide_shows_every_diagram() -> None:
    guide = (FOLDER.parent / "integration.md").read_text()
    assert [name for name in DIAGRAMS if f"](timing/{name}.svg)" not in guide] == []


def lane(
    *samples: object, label: Callable[[Any], str] | None = None, marks: tuple[tuple[str, str, int], ...] = ()
) -> dict[str, object]:
    """The lane that samples of one row become."""
    row = Row("x", None, label)
    row.samples = list(samples)
    return Diagram("", {"g": [row]}, marks=list(marks)).source()["signal"][2][1]


def test_bits_buses_blanks_and_marks_become_waves() -> None:
    assert lane(0, 1, 1, None, 0)["wave"] == "01.x0"
    bus = lane(None, "A", "A", "B", None, label=str, marks=(("M", "x", 3),))
    assert bus == {"name": "x", "wave": "x3.3x", "data": ["A", "B"], "node": "...M"}


def test_cycles_without_change_are_left_out_but_never_marked_ones() -> None:
    assert lane(*[0] * 10, 1)["wave"] == "0...|1"
    assert lane(*[0] * 10, 1, marks=(("M", "x", 8),))["wave"] == "0...|..1"

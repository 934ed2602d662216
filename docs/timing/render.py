"""Write docs/timing/*.json from the RTL's simulation and draw them as SVG. ``make docs`` runs it; a test holds both."""

import json
from pathlib import Path

import wavedrom

from .diagrams import DIAGRAMS

__all__ = ["FOLDER", "drawing", "sources"]

FOLDER = Path(__file__).parent


def sources() -> dict[str, str]:
    """Text of each JSON file by its name without suffix."""
    return {name: _text(make().source()) for name, make in DIAGRAMS.items()}


def drawing(source: str) -> str:
    """SVG of a JSON file, on white, whatever the page that shows it has."""
    head, mark, rest = wavedrom.render(source).tostring().partition("<defs>")
    return f'{head}<rect width="100%" height="100%" fill="white"/>{mark}{rest}\n'


def _text(source: dict) -> str:
    """One lane on a line, so that a change can be read as a difference."""
    lanes = ",\n".join(f"    {json.dumps(lane)}" for lane in source["signal"])
    rest = {key: value for key, value in source.items() if key != "signal"}
    return json.dumps(rest, indent=2).removesuffix("\n}") + f',\n  "signal": [\n{lanes}\n  ]\n}}\n'


if __name__ == "__main__":
    for name, text in sources().items():
        (FOLDER / f"{name}.json").write_text(text)
        (FOLDER / f"{name}.svg").write_text(drawing(text))

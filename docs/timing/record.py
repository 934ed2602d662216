"""Record ports of the simulated filter, cycle by cycle, as the rows of a WaveDrom diagram."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["Diagram", "Row"]

@dataclass
class Row:
    """A line of a diagram: its name, what is sampled, and how.

    ``label`` turns a sample into the text of a bus, cycle after cycle; without it the row is a bit. The row is blank
    while ``valid`` samples low. ``colour`` is the digit of a WaveDrom data brick.
    """

    name: str
    signal: Any
    label: Callable[[Any], str] | None = None
    valid: Any = None
    colour: str = "3"
    samples: list = field(default_factory=list)

    def sample(self, value, valid) -> None:
        """Take the sample of one cycle; None stands for a blank."""
        shown = value if self.label is None else self.label(value)
        self.samples.append(shown if valid else None)


@dataclass
class Diagram:
    """Rows in named groups, and the arrows between them.

    ``marks`` are ``(letter, row name, cycle)``; ``edges`` are WaveDrom's, between such letters. Of cycles without any
    change, ``still`` are shown and the rest is left out.
    """

    title: str
    groups: dict[str, list[Row]]
    marks: list[tuple[str, str, int]] = field(default_factory=list)
    edges: list[str] = field(default_factory=list)
    hscale: int = 1
    still: int = 3

    @property
    def rows(self) -> list[Row]:
        """All rows from top to bottom."""
        return [row for group in self.groups.values() for row in group]

    def row(self, name: str) -> Row:
        """The row of this name."""
        return next(row for row in self.rows if row.name == name)

    def mark(self, letter: str, name: str, value: Any = 1, *, after: int = 0) -> int:
        """Put ``letter`` where row ``name`` first has ``value``, in cycle ``after`` or later; returns the cycle."""
        cycle = self.row(name).samples.index(value, after)
        self.marks.append((letter, name, cycle))
        return cycle

    async def record(self, ctx, cycles: int, actions: dict[int, Callable[[], None]] | None = None) -> None:
        """Sample every row for ``cycles`` clock cycles; ``actions`` are called at the beginning of theirs."""
        rows = self.rows
        signals = [signal for row in rows for signal in (row.signal, row.signal if row.valid is None else row.valid)]
        for cycle in range(cycles):
            (actions or {}).get(cycle, lambda: None)()
            _, _, *values = await ctx.tick().sample(*signals)
            for n, row in enumerate(rows):
                row.sample(values[2 * n], row.valid is None or values[2 * n + 1])

    def part(self, first: int, last: int, title: str, edges: list[str], *, without: tuple[str, ...] = ()) -> "Diagram":
        """Cycles ``first`` to ``last`` as a diagram of their own, without some groups of rows."""
        groups = {
            name: [replace(row, samples=row.samples[first : last + 1]) for row in rows]
            for name, rows in self.groups.items()
            if name not in without
        }
        return replace(self, title=title, groups=groups, marks=[], edges=edges)

    def source(self) -> dict:
        """The diagram as WaveDrom takes it."""
        kept = self._kept()
        lanes: list = [{"name": "clk", "wave": "p" + "".join("|" if gap else "." for _, gap in kept[1:])}]
        for title, rows in self.groups.items():
            lanes += [{}, [title, *(self._lane(row, kept) for row in rows)]]
        return {
            "head": {"text": self.title},
            "signal": lanes,
            "edge": self.edges,
            "config": {"hscale": self.hscale},
        }

    def _kept(self) -> list[tuple[int, bool]]:
        """Cycles that are shown, and whether others are left out in their place."""
        columns = list(zip(*(row.samples for row in self.rows), strict=True))
        marked = {cycle for *_, cycle in self.marks}
        kept: list[tuple[int, bool]] = []
        still = 0
        for cycle, column in enumerate(columns):
            still = still + 1 if cycle and column == columns[cycle - 1] and cycle not in marked else 0
            if still <= self.still:
                kept.append((cycle, False))
            elif still == self.still + 1:
                kept.append((cycle, True))
        return kept

    def _lane(self, row: Row, kept: list[tuple[int, bool]]) -> dict:
        wave, data, previous = "", [], object()
        for cycle, gap in kept:
            value = row.samples[cycle]
            if gap:
                wave += "|"
            elif value == previous:
                wave += "."
            elif value is None:
                wave += "x"
            elif row.label is None:
                wave += str(int(value))
            else:
                wave += row.colour
                data.append(value)
            previous = value
        lane = {"name": row.name, "wave": wave}
        if data:
            lane["data"] = data
        letters = {cycle: letter for letter, name, cycle in self.marks if name == row.name}
        if letters:
            lane["node"] = "".join(letters.get(cycle, ".") for cycle, _ in kept).rstrip(".")
        return lane

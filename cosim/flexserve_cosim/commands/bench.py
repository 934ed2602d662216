"""``flexserve bench``: what the hardware costs, in cycles and in an FPGA, each figure beside its limit."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flexserve_hw.params import FlexMemParams
from flexserve_sw.errors import UserError

from ..membench.figures import Figure
from ..membench.suite import GROUPS, LARGE, measure, measure_large
from ..outputs import pending
from ..toolchain import find_toolchain

__all__ = ["MemoryOptions", "bench_memory", "figure_table"]


@dataclass(frozen=True, kw_only=True)
class MemoryOptions:
    """The command line of ``flexserve bench mem``; see its help."""

    pages: int
    large: bool
    seed: int
    json: Path | None


def bench_memory(options: MemoryOptions, console: Console) -> bool:
    """Measure the filter; return whether every figure keeps its limit."""

    def tell(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    try:
        flex = FlexMemParams(pages=options.pages)
    except ValueError as error:
        raise UserError(f"{error}; choose another --pages.") from None
    if not 1 <= options.seed < 1 << 31:
        raise UserError(f"The seed must be from 1 to {(1 << 31) - 1}, not {options.seed}.")
    find_toolchain()
    with pending(options.json) as (json,):
        figures = list(measure(flex, seed=options.seed, progress=tell))
        if options.large:
            figures += measure_large(replace(flex, pages=LARGE), seed=options.seed, progress=tell)
        console.print(figure_table(figures, GROUPS))
        missed = [figure for figure in figures if figure.holds is False]
        if json is not None:
            json.write_json(
                {
                    "version": importlib.metadata.version("flexserve"),
                    "parameters": asdict(flex),
                    "seed": options.seed,
                    "figures": [figure.as_json() for figure in figures],
                    "holds": not missed,
                }
            )
    for figure in missed:
        tell(f"MISSED: {figure.name}: {figure.value:,.6g} {figure.unit}, limit {figure.limit}")
    limited = sum(figure.holds is not None for figure in figures)
    tell(f"{limited - len(missed)} of {limited} limits kept.")
    if options.json is not None:
        tell(f"Wrote {options.json}")
    return not missed


def figure_table(figures: Iterable[Figure], titles: dict[str, str]) -> Table:
    """Figures by group, each with its limit."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column, justify in (("figure", "left"), ("value", "right"), ("unit", "left"), ("limit", "right"), ("", "left")):
        table.add_column(column, justify="right" if justify == "right" else "left", overflow="fold")
    groups: dict[str, list[Figure]] = {}
    for figure in figures:
        groups.setdefault(figure.group, []).append(figure)
    for group, members in groups.items():
        table.add_row(Text(titles[group], style="bold"))
        for row in _rows(members):
            table.add_row(*row)
    return table


def _rows(figures: Sequence[Figure]) -> Iterable[tuple[str | Text, ...]]:
    verdicts = {
        True: Text("kept", style="green"),
        False: Text("MISSED", style="bold red"),
        None: Text(""),
    }
    for figure in figures:
        value = f"{figure.value:,.0f}" if float(figure.value).is_integer() else f"{figure.value:,.2f}"
        yield f"  {figure.name}", value, figure.unit, figure.limit, verdicts[figure.holds]

"""``flexserve bench``: what the hardware costs, in cycles and in an FPGA, each figure beside its limit."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flexserve_hw.params import BusParams, FlexMemParams, NpuParams, SocParams
from flexserve_sw.errors import UserError

from ..compiler import build_root
from ..fastbench.jobs import NAMES
from ..fastbench.suite import compare_machines
from ..fpga import DEVICES, Cost, cost_of
from ..membench.figures import Figure
from ..membench.stream import cache_figures
from ..membench.suite import GROUPS, LARGE, measure, measure_cached, measure_large
from ..outputs import PendingFile, pending
from ..toolchain import find_toolchain

__all__ = [
    "DESIGNS", "FastOptions", "FpgaOptions", "MemoryOptions", "bench_fast", "bench_fpga", "bench_memory",
    "figure_table",
]  # fmt: skip

DESIGNS: dict[str, tuple[str, SocParams]] = {
    "filter": ("filter", SocParams()),
    "filter-small": (
        "filter",
        SocParams(
            flex=FlexMemParams(pages=256, group=4, timers=1, freed_depth=16, outstanding=3, bus=BusParams(id_width=4)),
            npu=NpuParams(bus=BusParams(id_width=1)),
        ),
    ),
    "filter-cached": (
        "filter",
        SocParams(
            flex=FlexMemParams(bus=BusParams(addr_width=40), pages=4 << 20, cache_lines=64),
            npu=NpuParams(bus=BusParams(addr_width=40, id_width=3)),
            dram_bytes=16 << 30,
        ),
    ),
    "npu-8x8": ("npu", SocParams(npu=NpuParams(n=8))),
}
"""Designs whose cost in an FPGA is measured: the filter by default, a small one, one for 16 GiB, and an NPU."""


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
        figures += measure_cached(seed=options.seed, progress=tell)
        if options.large:
            figures += measure_large(replace(flex, pages=LARGE), seed=options.seed, progress=tell)
        tell("Following the accesses of a run through caches of the table")
        figures += cache_figures(group=flex.group)
        console.print(figure_table(figures, GROUPS))
        _write(json, figures, {"parameters": asdict(flex), "seed": options.seed})
    return _verdict(figures, options.json, tell)


@dataclass(frozen=True, kw_only=True)
class FastOptions:
    """The command line of ``flexserve bench fast``; see its help."""

    jobs: tuple[str, ...]
    json: Path | None


def bench_fast(options: FastOptions, console: Console) -> bool:
    """Hold the transaction-level machine beside the RTL; return whether every figure keeps its limit."""

    def tell(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    for name in options.jobs:
        if name not in NAMES:
            raise UserError(f"There is no job {name!r}; jobs are {', '.join(NAMES)}.")
    find_toolchain()
    with pending(options.json) as (json,):
        figures = list(compare_machines(names=options.jobs, progress=tell))
        console.print(figure_table(figures, {figure.group: figure.group for figure in figures}))
        _write(json, figures, {"python": sys.version})
    return _verdict(figures, options.json, tell)


def _write(file: PendingFile | None, figures: Sequence[Figure], about: dict[str, Any]) -> None:
    """Write the figures, if to a file."""
    if file is not None:
        file.write_json(
            {
                "version": importlib.metadata.version("flexserve"),
                **about,
                "figures": [figure.as_json() for figure in figures],
                "holds": all(figure.holds is not False for figure in figures),
            }
        )


def _verdict(figures: Sequence[Figure], path: Path | None, tell: Callable[[str], None]) -> bool:
    """Tell which figures miss their limits; whether none does."""
    missed = [figure for figure in figures if figure.holds is False]
    for figure in missed:
        tell(f"MISSED: {figure.group}: {figure.name}: {figure.value:,.6g} {figure.unit}, limit {figure.limit}")
    limited = sum(figure.holds is not None for figure in figures)
    tell(f"{limited - len(missed)} of {limited} limits kept.")
    if path is not None:
        tell(f"Wrote {path}")
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


@dataclass(frozen=True, kw_only=True)
class FpgaOptions:
    """The command line of ``flexserve bench fpga``; see its help."""

    designs: tuple[str, ...]
    device: str
    place: bool
    route: bool
    timeout: float
    json: Path | None


def bench_fpga(options: FpgaOptions, console: Console) -> None:
    """Synthesise the designs, place and route them, and show what they cost."""
    unknown = set(options.designs) - set(DESIGNS)
    if unknown:
        raise UserError(f"Designs are {', '.join(DESIGNS)}, not {', '.join(sorted(unknown))}.")
    if options.device not in DEVICES:
        raise UserError(f"Devices are {', '.join(DEVICES)}, not {options.device}.")
    costs: list[Cost] = []
    with pending(options.json) as (json,):
        for name in options.designs or tuple(DESIGNS):
            ip, params = DESIGNS[name]
            console.print(f"Synthesising {name} (minutes)", highlight=False)
            folder = build_root() / "fpga" / name
            how = {"place": options.place, "route": options.route}
            costs.append(cost_of(name, ip, params, folder, device=options.device, timeout=options.timeout, **how))
        if json is not None:
            json.write_json({"device": options.device, "designs": [asdict(cost) for cost in costs]})
    for cost in costs:
        console.print(_block_table(cost))
    table = Table(title=options.device, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("design", "LUT4", "carry", "FF", "LUT RAM", "block RAM", "DSP", "MHz"):
        table.add_column(column, justify="left" if column == "design" else "right")
    for cost in costs:
        counts = (cost.lut, cost.carry, cost.ff, cost.lut_ram, cost.bram, cost.dsp)
        table.add_row(cost.design, *(f"{count:,}" for count in counts), _frequency(cost))
    console.print(table)
    for cost in costs:
        if cost.path:
            console.print(f"Slowest path of {cost.design}: {' to '.join(cost.path)}", highlight=False)


def _block_table(cost: Cost) -> Table:
    """The submodules that have a hundredth of the LUTs or more, or block RAM or multipliers, with what is below."""
    title = f"Blocks of {cost.design}, synthesised apart"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("block", "LUT4", "FF", "LUT RAM", "block RAM", "DSP"):
        table.add_column(column, justify="left" if column == "block" else "right")
    most = max(block["lut"] for block in cost.blocks.values())
    for path, block in sorted(cost.blocks.items()):
        if block["lut"] * 100 >= most or block["bram"] or block["dsp"]:
            table.add_row(path, *(f"{block[name]:,}" for name in ("lut", "ff", "lut_ram", "bram", "dsp")))
    return table


def _frequency(cost: Cost) -> str:
    if cost.mhz is None:
        return "not placed"
    return f"{cost.mhz:.1f}" if cost.routed else f"{cost.mhz:.1f} (placed, not routed)"

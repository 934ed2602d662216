"""``flexserve bench npu`` and ``flexserve bench gemms``: the NPU in cycles, and bit by bit."""

from __future__ import annotations

import importlib.metadata
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from flexserve_hw.params import NpuParams
from flexserve_sw.errors import UserError

from ..npubench.alone import Alone
from ..npubench.campaign import VARIANTS, Mismatch, case, check
from ..npubench.faults import FAULTS, provoke
from ..npubench.lists import check_lists
from ..npubench.suite import GROUPS, Measurements, as_json, figures, measure
from ..outputs import pending
from ..report.run import require_plots
from ..toolchain import find_toolchain
from .bench import figure_table

__all__ = ["GemmOptions", "NpuOptions", "bench_gemms", "bench_npu"]


@dataclass(frozen=True, kw_only=True)
class NpuOptions:
    """The command line of ``flexserve bench npu``; see its help."""

    sweep: bool
    json: Path | None
    report: Path | None


@dataclass(frozen=True, kw_only=True)
class GemmOptions:
    """The command line of ``flexserve bench gemms``; see its help."""

    count: int
    seed: int
    json: Path | None


def bench_npu(options: NpuOptions, console: Console) -> bool:
    """Measure the NPU in the phone's SoC; return whether every figure keeps its limit."""

    def tell(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    find_toolchain()
    if options.report is not None:
        require_plots()
    with pending(options.json, options.report) as (json, report):
        found = measure(sweep=options.sweep, progress=tell)
        all_figures = figures(found)
        console.print(figure_table(all_figures, GROUPS))
        missed = [figure for figure in all_figures if figure.holds is False]
        if json is not None:
            json.write_json(
                {
                    "version": importlib.metadata.version("flexserve"),
                    "parameters": asdict(NpuParams()),
                    "figures": [figure.as_json() for figure in all_figures],
                    "jobs": as_json(found),
                    "holds": not missed,
                }
            )
        if report is not None:
            report.write(_page(found))
    for figure in missed:
        tell(f"MISSED: {figure.name}: {figure.value:,.6g} {figure.unit}, limit {figure.limit}")
    limited = sum(figure.holds is not None for figure in all_figures)
    tell(f"{limited - len(missed)} of {limited} limits kept.")
    for path in (options.json, options.report):
        if path is not None:
            tell(f"Wrote {path}")
    return not missed


def _page(found: Measurements) -> str:
    # matplotlib takes a second to import, and only a report needs it.
    from ..report.npu import npu_page

    return npu_page(found, version=importlib.metadata.version("flexserve"))


def bench_gemms(options: GemmOptions, console: Console) -> bool:
    """Run random GEMMs, random lists and every fault on NPUs of all sizes; return whether all was right."""

    def tell(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    if options.count < 1 or not 1 <= options.seed < 1 << 31:
        raise UserError(f"Count and seed must be at least 1, not {options.count} and {options.seed}.")
    find_toolchain()
    sizes: list[dict[str, object]] = []
    wrong: list[str] = []
    with pending(options.json) as (json,):
        for number, (n, params) in enumerate(VARIANTS.items()):
            # The seed alone says on which NPU a GEMM runs.
            first = options.seed + (number - options.seed) % len(VARIANTS)
            seeds = range(first, options.seed + options.count, len(VARIANTS))
            if not seeds:
                continue
            cycles = good = ordered = faults = 0
            with Alone(params, seed=options.seed, progress=tell) as npu:
                for seed in seeds:
                    try:
                        cycles += check(npu, case(seed))
                        good += 1
                    except Mismatch as error:
                        wrong.append(str(error))
                    try:
                        cycles += check_lists(npu, seed)
                        ordered += 1
                    except Mismatch as error:
                        wrong.append(str(error))
                for name in FAULTS:
                    try:
                        provoke(npu, name, seed=options.seed)
                        faults += 1
                    except Mismatch as error:
                        wrong.append(str(error))
            tell(
                f"N = {n}: {good:,} of {len(seeds):,} GEMMs and {ordered:,} of {len(seeds):,} runs of random lists "
                f"bit-exact in {cycles:,} cycles, {faults} of {len(FAULTS)} faults reported, the NPU good after"
            )
            sizes.append(
                {"n": n, "gemms": len(seeds), "exact": good, "lists": ordered, "cycles": cycles, "faults": faults}
            )
        if json is not None:
            json.write_json({"seed": options.seed, "sizes": sizes, "faults": list(FAULTS), "wrong": wrong})
    for text in wrong:
        tell(f"WRONG: {text}")
    return not wrong

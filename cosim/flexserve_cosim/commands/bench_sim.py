"""``flexserve bench sim``: how fast the phone is simulated, beside a bare C++ loop and a stock cocotb build."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from flexserve_sw.errors import UserError
from flexserve_sw.platforms import load_platform

from ..outputs import pending
from ..report.run import require_plots
from ..report.sim import sim_page
from ..simbench.measure import CONFIGURATIONS, PHASES, Bench, Run, bench, figures
from ..toolchain import find_toolchain
from .bench import figure_table
from .common import CLOCK_HZ, dram_timing, flash_timing, soc_params

__all__ = ["SimOptions", "bench_sim"]

TITLES = {
    "prefill": "Prefill of the demo, from the request to the first token",
    "prefill-forward": "The forward pass in it, in which the array works",
}


@dataclass(frozen=True, kw_only=True)
class SimOptions:
    """The command line of ``flexserve bench sim``; see its help."""

    prompt: str
    array: int
    rounds: int
    seed: int
    json: Path | None
    report: Path | None


def bench_sim(options: SimOptions, console: Console) -> bool:
    """Measure; return whether every figure keeps its limit."""

    def tell(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    if options.rounds < 1:
        raise UserError(f"There must be at least one round, not {options.rounds}.")
    if not 1 <= options.seed < 1 << 31:
        raise UserError(f"The seed must be from 1 to {(1 << 31) - 1}, not {options.seed}.")
    if options.report is not None:
        require_plots()
    params, platform = soc_params(options.array), load_platform()
    find_toolchain()
    with (
        pending(options.json, options.report) as (json, report),
        bench(
            params,
            argument(options),
            dram=dram_timing(platform),
            flash=flash_timing(platform),
            clock_hz=CLOCK_HZ,
            progress=tell,
        ) as simulators,
    ):
        rounds: list[dict[str, Run]] = []
        for number in range(options.rounds):
            tell(f"Round {number + 1} of {options.rounds}")
            rounds.append({name: simulators.run(name) for name in CONFIGURATIONS})
        found = figures(rounds)
        summary = _summary(options, simulators, rounds) | {
            "figures": [figure.as_json() for figure in found],
            "holds": all(figure.holds is not False for figure in found),
        }
        if json is not None:
            json.write_json(summary)
        if report is not None:
            report.write(sim_page(summary))
    console.print(figure_table(found, TITLES))
    missed = [figure for figure in found if figure.holds is False]
    for figure in missed:
        tell(f"MISSED: {figure.name} in {figure.group}: {figure.value:.3g} {figure.unit}, limit {figure.limit}")
    for path in (options.json, options.report):
        if path is not None:
            tell(f"Wrote {path}")
    return not missed


def argument(options: SimOptions) -> dict[str, Any]:
    """Argument of the serving job: the demo's, but that the answer ends with its first token."""
    return {
        "design": "flexserve",
        "checkpoint": None,
        "tokenizer": None,
        "prompt": options.prompt,
        "tokens": 1,
        "pressure": 0,
        "array": options.array,
        "seed": options.seed,
        "timeline": False,
    }


def _summary(options: SimOptions, simulators: Bench, rounds: list[dict[str, Run]]) -> dict[str, Any]:
    recorded = simulators.recorded
    spans = {phase: recorded.phases[phase] for phase in PHASES}
    return {
        "version": importlib.metadata.version("flexserve"),
        "toolchain": find_toolchain().version,
        "options": {"prompt": options.prompt, "array": options.array, "rounds": options.rounds, "seed": options.seed},
        "tokens": recorded.outcome["tokens"],
        "wakes": recorded.wakes,
        "cycles": {name: end.cycle - begin.cycle for name, (begin, end) in spans.items()},
        "configurations": {
            name: {
                "build": simulators.builds[name].key,
                **{
                    phase: {
                        "khz": [taken[name].khz(phase) for taken in rounds],
                        "cpu_khz": [taken[name].cpu_khz(phase) for taken in rounds],
                    }
                    for phase in PHASES
                },
            }
            for name in CONFIGURATIONS
        },
    }

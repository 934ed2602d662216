"""``flexserve bench share``: what it costs that the NPU changes hands between the worlds."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from flexserve_sw.errors import UserError

from ..npubench.world import GROUPS, measure_world
from ..outputs import pending
from ..toolchain import find_toolchain
from .bench import figure_table

__all__ = ["ShareOptions", "bench_share"]


@dataclass(frozen=True, kw_only=True)
class ShareOptions:
    """The command line of ``flexserve bench share``; see its help."""

    tokens: int
    seed: int
    json: Path | None


def bench_share(options: ShareOptions, console: Console) -> bool:
    """Measure hand-overs and sharing; return whether every figure keeps its limit."""

    def tell(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    if not 1 <= options.seed < 1 << 31:
        raise UserError(f"The seed must be from 1 to {(1 << 31) - 1}, not {options.seed}.")
    find_toolchain()
    with pending(options.json) as (json,):
        figures = list(measure_world(seed=options.seed, tokens=options.tokens, progress=tell))
        console.print(figure_table(figures, GROUPS))
        missed = [figure for figure in figures if figure.holds is False]
        if json is not None:
            json.write_json(
                {
                    "version": importlib.metadata.version("flexserve"),
                    "seed": options.seed,
                    "tokens": options.tokens,
                    "figures": [figure.as_json() for figure in figures],
                    "holds": not missed,
                }
            )
    for figure in missed:
        tell(f"MISSED: {figure.name}: {figure.value:,.6g} {figure.unit}, limit {figure.limit}")
    limited = sum(figure.holds is not None for figure in figures)
    tell(f"{limited - len(missed)} of {limited} limits kept.")
    return not missed

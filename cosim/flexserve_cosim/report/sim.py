"""The page about the speed of simulation."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from .page import Card, page, section, table

__all__ = ["sim_page"]

NAMES = {
    "cosim": "co-simulation: ports and probes visible, clock and memories in C++",
    "bare": "bare C++ loop: the same Verilog, a recording in place of software",
    "stock": "stock cocotb: every signal public, clock driven by cocotb",
}


def sim_page(summary: Mapping[str, Any]) -> str:
    """HTML of what ``flexserve bench sim --json`` writes."""
    from . import plots  # matplotlib takes a second to load and is an extra

    configurations = summary["configurations"]
    limited = [figure for figure in summary["figures"] if figure["at_least"] is not None]
    cards: list[Card] = [
        (f"{figure['value']:.2f}×", figure["name"], f"{figure['group']}; limit {figure['at_least']:g}×")
        for figure in limited
        if "wall" in figure["name"]
    ]
    rows = [
        [
            figure["name"],
            (figure["group"], "name"),
            f"{figure['value']:.3f}",
            f"{figure['at_least']:g}",
            ("kept", "good") if figure["holds"] else ("MISSED", "bad"),
        ]
        for figure in limited
    ]
    parts = []
    for phase, cycles in summary["cycles"].items():
        speeds = {NAMES[name]: parts_of[phase]["khz"] for name, parts_of in configurations.items()}
        text = f"{cycles:,} cycles, the same in all three. The bar is the median, a dot is a run."
        parts.append(section(f"Speed in {phase}", text, plots.speed_bars(speeds)))
    parts.append(
        section(
            "Limits",
            "Speed of the co-simulation as a multiple of the others', the median of the rounds.",
            table(["Figure", "Phase", "Multiple", "At least", ""], rows, numbers=(2, 3)),
        )
    )
    fastest = median(configurations["cosim"]["prefill"]["khz"])
    return page(
        title="FlexServe: speed of simulation",
        subtitle=f"The SoC with a {summary['options']['array']}×{summary['options']['array']} NPU in the prefill of "
        f"“{summary['options']['prompt']}”; software is entered {summary['wakes']:,} times",
        answer=None,
        cards=[(f"{fastest:,.0f} kHz", "Co-simulation", "prefill, wall clock"), *cards],
        sections=parts,
        foot=f"FlexServe {summary['version']}, seed {summary['options']['seed']}, {summary['toolchain']}.",
    )

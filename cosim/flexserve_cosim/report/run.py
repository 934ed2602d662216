"""The page about a run: what the model said, what protecting it cost, and what the recall did."""

from __future__ import annotations

import importlib.util
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from flexserve_sw.errors import UserError

from ..tables import recall_lines
from .page import Card, page, section, table

__all__ = ["require_plots", "run_page"]

_BINS = 240


def require_plots() -> None:
    """Raise :class:`UserError` unless plots can be drawn."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError("A report needs matplotlib: install it with pip install 'flexserve[report]'.")


def run_page(
    run: Mapping[str, Any],
    timelines: Mapping[str, Sequence[Mapping[str, Any]]],
    history: Sequence[tuple[int, Mapping[str, int]]],
) -> str:
    """HTML of a run.

    Parameters
    ----------
    run
        What ``--json`` writes.
    timelines
        Per design, spans and instants in cycles.
    history
        ``(cycle, {state: pages})`` at each change, of the design that is shown.
    """
    from . import plots  # matplotlib takes a second to load and is an extra

    designs = run["designs"]
    decode = {n: d["decode_cycles_per_token"] for n, d in designs.items() if d["decode_cycles_per_token"] is not None}
    busy = {name: busy_share(timelines[name], "npu") for name in designs}
    busy = {name: points for name, points in busy.items() if points}
    recalls = run["recall"]["recalls"] if "recall" in run else []
    parts = [
        section(
            "Time to first token",
            "Cycles from the request to the first token. Each cycle counts once: while something is computed, whatever "
            "runs beside it is hidden and counts as compute.",
            plots.ttft_bars({name: design["ttft_phases"] for name, design in designs.items()}),
        ),
        section("Designs", "The same prompt, model and hardware; only the isolation differs.", _design_table(designs)),
    ]
    if decode:
        text = "Median of the cycles per token after the first."
        parts.append(section("Decode", text, plots.decode_bars(decode)))
    if busy:
        text = "Share of time in which the NPU has a job, from the request to the end of the answer."
        parts.append(section("NPU", text, plots.npu_timeline(busy)))
    if recalls:
        text = (
            "The operating system took pages back in the middle of the answer: from the request until the last page "
            f"was back in its hands, zeroed. {recall_lines(run)}"
        )
        parts.append(section("Recall under pressure", text, plots.recall_latency(recalls)))
    if history:
        text = "Pages of the flexible window that are not the operating system's to read, by state."
        marks = [(r["begin"], r["end"], f"by {r['by']}") for r in recalls]
        end = max(e["end"] for e in timelines[run["design"]] if "end" in e)
        parts.append(section("Pages", text, plots.page_states(history, end=end, marks=marks)))
    size, seed, model = run["options"]["array"], run["options"]["seed"], run["model"]
    return page(
        title="FlexServe run",
        subtitle=f"{model['checkpoint']} model: {model['layers']} layers of {model['dim']}, {model['vocab']} tokens; "
        f"on a {size}×{size} NPU, simulated cycle by cycle from RTL",
        answer=(run["prompt"], run["text"].removeprefix(run["prompt"])),
        cards=_cards(run),
        sections=parts,
        foot=f"FlexServe {run['version']}, seed {seed}, {run['sim_cycles']:,} simulated cycles in all.",
    )


def _cards(run: Mapping[str, Any]) -> list[Card]:
    cards: list[Card] = [
        (
            "yes" if run["bit_exact"] else "NO",
            "Bit-exact",
            f"{run['compared_values']:,} values compared with the reference",
        )
    ]
    designs, ratios = run["designs"], run["ttft_ratios"]
    if "flexserve" in designs:
        flexserve = designs["flexserve"]
        cards.append((f"{flexserve['ttft_cycles']:,}", "TTFT, flexserve", "cycles"))
        if flexserve["decode_cycles_per_token"] is not None:
            cards.append((f"{flexserve['decode_cycles_per_token']:,.0f}", "Decode, flexserve", "cycles per token"))
    cards += [(f"{ratio:.2f}×", f"{name} TTFT", "relative to flexserve") for name, ratio in ratios.items()]
    if run.get("recall", {}).get("recalls"):
        equal = "the answer is the same" if run["recall"]["tokens_equal"] else "the answer CHANGED"
        longest = max(run["recall"]["recalls"], key=lambda recall: recall["latency_cycles"])
        below = f"cycles, {longest['pages']} of {run['recall']['pages']} pages; {equal}"
        cards.append((f"{run['recall']['latency_cycles_max']:,}", "Longest recall", below))
    cards.append((f"{run['violations']:,}", "Violations seen", "accesses the filter denied"))
    cards.append(
        (f"{run['perplexity']:.3f}", "Perplexity", f"int8, on held-out text; float32 {run['perplexity_float32']:.3f}")
    )
    if run["sim_khz"] is not None:
        cards.append((f"{run['sim_khz']:,.0f} kHz", "Simulation speed", "in prefill, measured"))
    return cards


def _design_table(designs: Mapping[str, Mapping[str, Any]]) -> str:
    head = ["Design", "TTFT, cycles", "vs flexserve", "Decode, cycles/token", "NPU use in prefill"]
    head += ["World switches", "Violations", "Bit-exact"]
    rows: list[list[str | tuple[str, str]]] = []
    for name, design in designs.items():
        ratio, share, decode = design["ttft_ratio"], design["npu_utilisation"], design["decode_cycles_per_token"]
        rows.append([
            name, f"{design['ttft_cycles']:,}", "" if ratio is None else f"{ratio:.2f}×",
            "" if decode is None else f"{decode:,.0f}", "no NPU" if share is None else f"{100 * share:.1f} %",
            f"{design['world_switches']:,}", f"{design['violations']:,}",
            ("yes", "good") if design["bit_exact"] and design["reference_equal"] else ("NO", "bad"),
        ])  # fmt: skip
    return table(head, rows, numbers=range(1, 7))


def busy_share(timeline: Sequence[Mapping[str, Any]], track: str) -> list[tuple[float, float]]:
    """Share of time covered by spans of ``track`` in equal slices from the end of boot to the timeline's last cycle."""
    spans = [(e["begin"], e["end"]) for e in timeline if e["track"] == track and "end" in e]
    if not spans:
        return []
    begin = max((e["end"] for e in timeline if e["track"] == "boot" and "end" in e), default=min(b for b, _ in spans))
    end = max(max(e["end"] for e in timeline if "end" in e), begin + _BINS)
    edges = [begin + (end - begin) * i / _BINS for i in range(_BINS + 1)]
    covered, reached = [0.0] * _BINS, begin
    for first, last in sorted(spans):
        low = max(first, reached)
        reached = max(reached, last)
        if low < last:
            for i in range(max(0, bisect_right(edges, low) - 1), min(_BINS, bisect_right(edges, last))):
                covered[i] += max(0.0, min(last, edges[i + 1]) - max(low, edges[i]))
    return [(edges[i] - begin, covered[i] / (edges[i + 1] - edges[i])) for i in range(_BINS)]

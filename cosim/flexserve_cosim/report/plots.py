"""Plots of a run as SVG text to put into a page. Needs matplotlib (extra ``report``)."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = [
    "INK",
    "MUTED",
    "canvas",
    "decode_bars",
    "legend",
    "npu_timeline",
    "page_states",
    "recall_latency",
    "styled",
    "svg",
    "ttft_bars",
    "value_label",
]

INK, MUTED, GRID = "#1c2430", "#667085", "#e4e7ec"

PHASE_COLOURS = {
    "init": "#98a2b3",
    "allocate": "#e69f00",
    "load": "#3b7dd8",
    "decrypt": "#8e5bd0",
    "switch": "#d1495b",
    "compute": "#1a9e77",
    "other": "#c9b8a8",
}
"""Colours of phases, in the order in which they are stacked."""

STATE_COLOURS = {
    "SEALED": "#4a5568",
    "FLEX": "#1a9e77",
    "DELEGATED": "#f0c05a",
    "RECALLING": "#e07b39",
    "SCRUBBING": "#d1495b",
    "CORRUPT": "#000000",
}
"""Colours of page states other than NORMAL, in the order in which they are stacked."""

DESIGN_COLOURS = {"flexserve": "#1a9e77", "nw-base": "#3b7dd8", "strawman": "#d1495b", "strawman-opt": "#e07b39"}

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"

_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["Inter", "Segoe UI", "Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "grid.color": GRID,
    "legend.frameon": False,
    "legend.borderpad": 0.1,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


P = ParamSpec("P")


def styled(plot: Callable[P, str]) -> Callable[P, str]:
    """Draw under the page's style, which matplotlib looks at when something is made."""

    @wraps(plot)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> str:
        with matplotlib.rc_context({**_STYLE, "svg.hashsalt": plot.__name__}):
            return plot(*args, **kwargs)

    return drawn


@styled
def ttft_bars(phases: Mapping[str, Mapping[str, int]]) -> str:
    """Time to first token per design, stacked by phase. ``phases`` are cycles; each cycle counts once."""
    figure, axes = canvas(height=0.55 * len(phases) + 1.35)
    named = dict.fromkeys([*PHASE_COLOURS, *(phase for parts in phases.values() for phase in parts)])
    names = [phase for phase in named if any(parts.get(phase) for parts in phases.values())]
    left = [0.0] * len(phases)
    for name in names:
        widths = [parts.get(name, 0) / 1e6 for parts in phases.values()]
        colour = PHASE_COLOURS.get(name, MUTED)
        axes.barh(range(len(phases)), widths, left=left, height=0.62, color=colour, label=name, ec="white", lw=0.6)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    for row, total in enumerate(left):
        value_label(axes, total, row, f"{total:.3f}")
    axes.set_yticks(range(len(phases)), list(phases))
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.invert_yaxis()
    axes.set_xlim(0, max(left, default=1) * 1.12 or 1)
    axes.set_xlabel("million cycles from request to first token")
    axes.grid(axis="x")
    legend(figure, axes, len(names))
    return svg(figure)


@styled
def decode_bars(cycles: Mapping[str, float]) -> str:
    """Cycles per generated token of each design."""
    figure, axes = canvas(height=0.5 * len(cycles) + 0.75)
    values = [value / 1e3 for value in cycles.values()]
    colours = [DESIGN_COLOURS.get(name, MUTED) for name in cycles]
    axes.barh(range(len(values)), values, height=0.62, color=colours)
    for row, value in enumerate(values):
        value_label(axes, value, row, f"{value:,.1f}")
    axes.set_yticks(range(len(values)), list(cycles))
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.invert_yaxis()
    axes.set_xlim(0, max(values, default=1) * 1.12 or 1)
    axes.set_xlabel("thousand cycles per decoded token")
    axes.grid(axis="x")
    return svg(figure)


@styled
def page_states(
    history: Sequence[tuple[int, Mapping[str, int]]], *, end: int, marks: Sequence[tuple[int, int, str]] = ()
) -> str:
    """Pages by state over time, those that are NORMAL left out; beside it the marked part, drawn out.

    ``history`` are ``(cycle, {state: pages})`` at changes and holds until ``end``; ``marks`` are intervals with a name.
    """
    points = [*history, (end, history[-1][1])]
    used = [state for state in STATE_COLOURS if any(counts.get(state) for _, counts in points)]
    figure = Figure(figsize=(9.6, 3.5), layout="constrained")
    whole, *detail = figure.subplots(1, 2 if marks else 1, squeeze=False, width_ratios=[3, 2] if marks else [1])[0]
    _stack(whole, points, used, unit=1e6)
    whole.set_xlim(points[0][0] / 1e6, end / 1e6)
    whole.set_xlabel("million cycles since power-up")
    whole.set_ylabel("pages")
    for axes in detail:
        first, last = min(mark[0] for mark in marks), max(mark[1] for mark in marks)
        margin = (last - first) / 12
        whole.axvspan(first / 1e6, last / 1e6, color=INK, alpha=0.1, linewidth=0)
        _stack(axes, [(cycle - first, counts) for cycle, counts in points], used, unit=1e3)
        axes.set_xlim(-margin / 1e3, (last - first + margin) / 1e3)
        axes.set_xlabel("thousand cycles since the recall")
        for begin, until, text in marks:
            axes.axvline((until - first) / 1e3, color=INK, linewidth=0.8, linestyle=(0, (3, 3)))
            middle = ((begin + until) / 2 - first) / 1e3
            axes.text(middle, 1.01, text, transform=axes.get_xaxis_transform(), ha="center", fontsize=8, color=MUTED)
    legend(figure, whole, len(used))
    return svg(figure)


def _stack(axes: Axes, points: Sequence[tuple[int, Mapping[str, int]]], states: Sequence[str], *, unit: float) -> None:
    times = [cycle / unit for cycle, _ in points]
    layers = [[counts.get(state, 0) for _, counts in points] for state in states]
    axes.stackplot(times, layers, labels=states, colors=[STATE_COLOURS[s] for s in states], step="post", linewidth=0)
    axes.set_ylim(bottom=0)


@styled
def npu_timeline(busy: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Share of time in which the NPU has a job, over time: one strip per design. ``busy`` are ``(cycle, share)``."""
    figure = Figure(figsize=(9.6, 0.72 * len(busy) + 0.7), layout="constrained")
    rows = figure.subplots(max(1, len(busy)), sharex=True, squeeze=False)[:, 0]
    for axes, (design, points) in zip(rows, busy.items(), strict=False):
        times, shares = [cycle / 1e6 for cycle, _ in points], [100 * share for _, share in points]
        colour = DESIGN_COLOURS.get(design, MUTED)
        axes.fill_between(times, shares, step="post", color=colour, alpha=0.85, linewidth=0)
        axes.set_ylim(0, 100)
        axes.set_yticks([0, 100], ["0", "100 %"])
        axes.set_ylabel(design, rotation=0, ha="right", va="center", color=INK)
        axes.grid(axis="y")
    rows[-1].set_xlim(left=0)
    rows[-1].set_xlabel("million cycles since the request")
    return svg(figure)


@styled
def recall_latency(recalls: Sequence[Mapping[str, Any]]) -> str:
    """Cycles from asking for pages to having them, per recall. Each has ``pages``, ``latency_cycles`` and ``by``."""
    figure, axes = canvas(height=0.5 * max(1, len(recalls)) + 0.9)
    values = [recall["latency_cycles"] / 1e3 for recall in recalls]
    axes.barh(range(len(values)), values, height=0.55, color="#e07b39")
    for row, value in enumerate(values):
        value_label(axes, value, row, f"{value:,.1f}")
    axes.set_yticks(range(len(values)), [f"{r['pages']} pages by {r['by']}" for r in recalls])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.invert_yaxis()
    axes.set_xlim(0, max([*values, 1e-3]) * 1.15)
    axes.set_xlabel("thousand cycles from the request until all pages are back and zero")
    axes.grid(axis="x")
    return svg(figure)


def canvas(*, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9.6, height), layout="constrained")
    return figure, figure.subplots()


def legend(figure: Figure, axes: Axes, count: int) -> None:
    """Above the plot, flush left, so that it never lies over data."""
    handles, labels = axes.get_legend_handles_labels()
    columns = max(1, count)
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, handlelength=1, columnspacing=1.4)


def value_label(axes: Axes, at: float, row: int, text: str) -> None:
    """A figure to the right of a bar's end."""
    axes.annotate(text, (at, row), xytext=(5, 0), textcoords="offset points", va="center", fontweight="bold", color=INK)


def svg(figure: Figure) -> str:
    """The figure as an SVG element whose internal names do not meet those of another figure on the page."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<g id=\"[^\"]*\"", "<g", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    box = re.search(r'viewBox="([^"]*)"', svg)
    if box is None:
        raise ValueError(f"Plots must have a view box, not {svg[:80]!r}")
    head = f'<svg viewBox="{box[1]}" role="img" xmlns="{_SVG}" xmlns:xlink="{_XLINK}">'
    return re.sub(r"<svg [^>]*>", lambda _: head, svg, count=1)

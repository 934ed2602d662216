"""Plots of the NPU bench."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .plots import INK, MUTED, canvas, legend, styled, svg, value_label

__all__ = ["error_bars", "roofline", "token_split", "use_bars"]

Point = tuple[str, float, float, str]
"""Name, multiply-accumulates per byte of operands and result, multiply-accumulates per cycle, kind."""

_COLOURS = {"decode": "#d1495b", "prefill": "#1a9e77", "GEMM": "#3b7dd8"}
_PARTS = {"weights on the bus": "#3b7dd8", "start, end and gaps": "#d1495b"}


@styled
def roofline(points: Sequence[Point], *, peak: float, bytes_per_cycle: float) -> str:
    """Measured jobs under the limits of array and bus."""
    figure, axes = canvas(height=4.2)
    x = np.geomspace(0.5, max(256.0, 2 * max(point[1] for point in points)), 200)
    axes.plot(x, np.minimum(peak, bytes_per_cycle * x), color=INK, linewidth=1.2)
    for kind, colour in _COLOURS.items():
        chosen = [point for point in points if point[3] == kind]
        if chosen:
            axes.scatter([p[1] for p in chosen], [p[2] for p in chosen], s=26, color=colour, label=kind, zorder=3)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xlabel("multiply-accumulates per byte of operands and result")
    axes.set_ylabel("multiply-accumulates per cycle")
    axes.grid()
    legend(figure, axes, len(_COLOURS))
    return svg(figure)


@styled
def use_bars(shares: Mapping[str, float]) -> str:
    """Use of the array, in percent, by shape."""
    figure, axes = canvas(height=0.24 * len(shares) + 0.9)
    axes.barh(range(len(shares)), list(shares.values()), height=0.66, color="#1a9e77")
    for row, share in enumerate(shares.values()):
        value_label(axes, share, row, f"{share:.1f}")
    axes.set_yticks(range(len(shares)), list(shares), fontsize=8)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.invert_yaxis()
    axes.set_xlim(0, 112)
    axes.margins(y=0.01)
    axes.set_xlabel("% of the array's multiply-accumulates, doorbell to interrupt")
    axes.grid(axis="x")
    return svg(figure)


@styled
def token_split(parts: Mapping[str, tuple[float, float]]) -> str:
    """Cycles of a token's linear layers: those in which weights cross the bus, and the rest."""
    figure, axes = canvas(height=0.5 * len(parts) + 1.1)
    left = [0.0] * len(parts)
    for number, (label, colour) in enumerate(_PARTS.items()):
        widths = [part[number] / 1e3 for part in parts.values()]
        axes.barh(range(len(parts)), widths, left=left, height=0.62, color=colour, label=label, ec="white", lw=0.6)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    for row, total in enumerate(left):
        value_label(axes, total, row, f"{total:,.1f}")
    axes.set_yticks(range(len(parts)), list(parts))
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.invert_yaxis()
    axes.set_xlim(0, max(left) * 1.12)
    axes.set_xlabel("thousand cycles, doorbell to interrupt")
    axes.grid(axis="x")
    legend(figure, axes, len(_PARTS))
    return svg(figure)


@styled
def error_bars(errors: Sequence[tuple[float, float]], *, limit: float) -> str:
    """Error of the cost model, in percent, over the cycles of the job."""
    figure, axes = canvas(height=2.6)
    axes.scatter([cycles for cycles, _ in errors], [error for _, error in errors], s=18, color="#3b7dd8")
    for edge in (-limit, limit):
        axes.axhline(edge, color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
    axes.set_xscale("log")
    axes.set_xlabel("cycles on the RTL")
    axes.set_ylabel("estimate, % off")
    axes.grid()
    return svg(figure)

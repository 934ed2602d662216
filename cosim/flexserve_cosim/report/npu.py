"""The page of the NPU bench."""

from __future__ import annotations

from typing import Any

from ..membench.figures import Figure
from ..npubench.suite import DECODE, GROUPS, PREFILL, YARDSTICKS, Measurements, figures, name
from .npu_plots import error_bars, roofline, token_split, use_bars
from .page import page, section, table

__all__ = ["npu_page"]

_PEAK, _BUS_BYTES, _ERROR = 256, 16, 3.0
_LAYERS = 5


def npu_page(found: Measurements, *, version: str) -> str:
    """HTML of what ``flexserve bench npu`` measured."""
    rows = figures(found)
    limited = [figure for figure in rows if figure.holds is not None]
    kept = sum(figure.holds is True for figure in limited)
    jobs = found.secure
    large = jobs[next(iter(YARDSTICKS)),]
    errors = [(job["cycles"], 100 * (job["estimate"] / job["cycles"] - 1)) for job in jobs.values()]
    token = jobs[tuple(DECODE[0])]
    streamed = 100 * token["weight_bytes"] / (_BUS_BYTES * token["cycles"])
    return page(
        title="Flex-NPU, measured",
        subtitle="16x16 int8 in the phone's SoC, on the RTL; operands in DRAM behind the filter; doorbell to interrupt",
        answer=None,
        cards=[
            (f"{kept} of {len(limited)}", "Limits kept", "each figure beside its limit below"),
            (f"{100 * large['ideal'] / large['cycles']:.1f} %", "Of the array's limit", "GEMM (128, 512, 512), int8"),
            (f"{streamed:.1f} %", "Of the bus carries weights", "a token's linear layers in one job"),
            (
                f"{max(abs(error) for _, error in errors):.1f} %",
                "Largest error",
                f"of the cost model, {len(errors)} jobs",
            ),
        ],
        sections=[
            section("Roofline", "Under the line: what array and bus allow together.", _roofline(jobs)),
            section(
                "A token's linear layers",
                "Weights cross the bus once per token; the rest is the start and the end of jobs and gaps between.",
                token_split(_split(jobs)),
            ),
            section("Use of the array by shape", GROUPS["shape"] + ".", use_bars(_use(rows))),
            section(
                "Cost model", "What the planner expects, against what the RTL takes.", error_bars(errors, limit=_ERROR)
            ),
            section("Figures", "All figures, with limits where there are any.", _figures(rows)),
        ],
        foot=f"FlexServe {version}.",
    )


def _roofline(jobs: dict[Any, dict[str, Any]]) -> str:
    kinds = {tuple(job): kind for kind, group in (("decode", DECODE), ("prefill", PREFILL)) for job in group}
    points = [
        (name(sizes), job["macs"] / job["bytes"], job["macs"] / job["cycles"], kinds.get(sizes, "GEMM"))
        for sizes, job in jobs.items()
    ]
    return roofline(points, peak=_PEAK, bytes_per_cycle=_BUS_BYTES)


def _split(jobs: dict[Any, dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """One job, a job per layer, a job per product: cycles of weights, and other ones."""
    whole, layer, *products, classifier = (jobs[tuple(job)] for job in DECODE)
    ways = {
        "one job": [whole],
        "a job per layer": [*[layer] * _LAYERS, classifier],
        "a job per product": [*products * _LAYERS, classifier],
    }
    split = {}
    for way, members in ways.items():
        weights = sum(job["weight_bytes"] for job in members) / _BUS_BYTES
        split[way] = (weights, sum(job["cycles"] for job in members) - weights)
    return split


def _use(rows: list[Figure]) -> dict[str, float]:
    return {figure.name: figure.value for figure in rows if figure.group == "shape"}


def _figures(rows: list[Figure]) -> str:
    verdicts = {True: ("kept", "good"), False: ("MISSED", "bad"), None: ("", "")}
    body = [
        (figure.name, f"{figure.value:,.6g}", figure.unit, figure.limit, verdicts[figure.holds])
        for figure in rows
        if figure.group != "shape"
    ]
    return table(["Figure", "Value", "Unit", "Limit", ""], body, numbers=[1, 3])

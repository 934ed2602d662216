"""Every measurement of the NPU bench: the RTL in the phone's SoC, from the doorbell's write to the interrupt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from flexserve_hw.params import SocParams
from flexserve_sw.fast.memory import DramTiming

from ..build import build
from ..compiler import Progress
from ..membench.figures import Figure
from ..session import simulate

__all__ = [
    "DECODE",
    "GROUPS",
    "LAYER",
    "PREFILL",
    "RANDOM",
    "SWEEP",
    "YARDSTICKS",
    "Measurements",
    "as_json",
    "figures",
    "measure",
    "name",
]

JOB = "flexserve_cosim.npubench.job:measure"

DRAM = DramTiming(latency=60, bytes_per_cycle=16.0, refresh_interval=0, refresh_cycles=0)
"""Memory for all figures: 60 cycles of latency, the full bandwidth of the bus, no refresh."""

Size = tuple[int, int, int, bool]
"""Rows, terms, columns, and whether results are int8."""

YARDSTICKS: dict[Size, tuple[int, int, int]] = {
    (128, 512, 512, True): (133_500, 178_175, 138_751),
    (128, 512, 512, False): (133_500, 178_175, 138_751),
    (64, 64, 64, True): (1_500, 1_759, 1_503),
    (64, 64, 172, True): (3_400, 4_839, 4_135),
}
"""GEMMs with a limit, and what SCALE-Sim 3.0.0 gives for a 16x16 array without DMA, weight- and output-stationary."""

LAYER: tuple[tuple[int, int], ...] = ((64, 128), (64, 64), (64, 344), (172, 64))
"""(K, N) of a layer like stories260K's: queries, keys and values; output; gate and up; down."""

_LAYERS, _CLASSIFIER = 5, (64, 512)

DECODE: list[list[Size]] = [
    [(1, k, n, False) for k, n in [*LAYER * _LAYERS, _CLASSIFIER]],
    [(1, k, n, False) for k, n in LAYER],
    *[[(1, k, n, False)] for k, n in [*LAYER, _CLASSIFIER]],
]
"""Jobs of one decoded token: all of it in one, a layer in one, and each product alone."""

PREFILL: list[list[Size]] = [[(64, k, n, False)] for k, n in LAYER]
"""Jobs of a layer for 64 rows."""

SWEEP: list[list[Size]] = [
    [(m, k, n, int8)]
    for m, (k, n), int8 in product((1, 5, 16, 64, 128), ((64, 64), (64, 172), (200, 100), (256, 256)), (False, True))
]
"""Jobs whose use of the array is shown by shape."""


def _random(count: int, seed: int) -> list[list[Size]]:
    rng = np.random.default_rng(seed)
    jobs: list[list[Size]] = []
    for _ in range(count):
        m, k, n = (int(size) for size in rng.integers(1, (201, 257, 257)))
        jobs.append([(m, k, n, bool(rng.integers(2)))])
    return jobs


RANDOM: list[list[Size]] = _random(40, 4)
"""Jobs of random sizes, for the cost model."""

GROUPS = {
    "gemm": "GEMMs (M, N, K), 16x16, operands in DRAM (60 cycles), through the filter, secure; doorbell to interrupt",
    "decode": "Decode: weights as a share of the bus's bandwidth, one row",
    "filter": "Secure and through the filter, against normal and past it",
    "estimate": "Cost model of the planner against RTL",
    "shape": "Use of the array by shape",
}
"""Groups of figures, and what they are about."""

_BUS_BYTES = 16

_LIMIT = 10_000_000
"""Cycles in which all jobs end, or something hangs."""


@dataclass(frozen=True)
class Measurements:
    """Results of jobs by their sizes, through the filter in the secure world and past it in the normal one."""

    secure: dict[tuple[Size, ...], dict[str, Any]]
    bare: dict[tuple[Size, ...], dict[str, Any]]


def measure(*, sweep: bool = True, progress: Progress | None = None) -> Measurements:
    """Run every job on the RTL; each value of each result is compared on the way."""
    common = [*[[size] for size in YARDSTICKS], *PREFILL, *DECODE]
    runs = []
    for bypass, jobs in ((False, [*common, *([*SWEEP, *RANDOM] if sweep else [])]), (True, common)):
        simulator = build("soc", SocParams(bypass=bypass), progress=progress)
        if progress:
            progress(f"Running {len(jobs)} jobs " + ("past the filter" if bypass else "through the filter"))
        argument = {"secure": not bypass, "bypass": bypass, "pages": 512, "jobs": jobs}
        result = simulate(simulator, JOB, argument, dram=DRAM, cycle_limit=_LIMIT)
        runs.append({tuple(job): found for job, found in zip(map(tuple, jobs), result["results"], strict=True)})
    return Measurements(*runs)


def as_json(found: Measurements) -> list[dict[str, Any]]:
    """Every job with what was measured of it in both worlds."""
    return [
        {"name": name(sizes), **job, "cycles_past_the_filter": found.bare.get(sizes, {}).get("cycles")}
        for sizes, job in found.secure.items()
    ]


def name(sizes: Sequence[Size]) -> str:
    """A job's name; a GEMM is (M, N, K): rows, columns, terms."""
    if len(sizes) > 1:
        what = "a layer" if len(sizes) == len(LAYER) else "a token"
        return f"{what}: {len(sizes)} products in one job"
    m, k, n, int8 = sizes[0]
    return f"({m}, {n}, {k}) {'int8' if int8 else 'int32'}"


def figures(found: Measurements) -> list[Figure]:
    """The figures, each with its limit if it has one."""
    return [*_gemms(found.secure), *_decode(found.secure), *_filter(found), *_estimates(found.secure), *_shapes(found)]


def _gemms(jobs: Mapping[tuple[Size, ...], Mapping[str, Any]]) -> list[Figure]:
    rows = []
    for size, (limit, *scale_sim) in YARDSTICKS.items():
        rows.append(Figure(group="gemm", name=name([size]), value=jobs[size,]["cycles"], unit="cycles", at_most=limit))
        for kind, cycles in zip(("weight", "output"), scale_sim, strict=True):
            label = f"  SCALE-Sim without DMA, {kind}-stationary"
            rows.append(Figure(group="gemm", name=label, value=cycles, unit="cycles"))
        rows.append(Figure(group="gemm", name="  limit of the arithmetic", value=jobs[size,]["ideal"], unit="cycles"))
    return rows


def _share(job: Mapping[str, Any]) -> float:
    return 100 * float(job["weight_bytes"]) / (_BUS_BYTES * float(job["cycles"]))


def _decode(jobs: Mapping[tuple[Size, ...], Mapping[str, Any]]) -> list[Figure]:
    return [
        Figure(
            group="decode",
            name=name(sizes),
            value=_share(jobs[tuple(sizes)]),
            unit="%",
            at_least=90 if sizes is DECODE[0] else None,
        )
        for sizes in DECODE
    ]


def _filter(found: Measurements) -> list[Figure]:
    rows = []
    sums = {"prefill": PREFILL, "decode": DECODE[:1]}
    for what, group in sums.items():
        protected, bare = (sum(run[tuple(job)]["cycles"] for job in group) for run in (found.secure, found.bare))
        extra = 100 * (protected / bare - 1)
        rows.append(Figure(group="filter", name=f"cycles more, {what}", value=extra, unit="%", at_most=0.5))
    for size in YARDSTICKS:
        extra = 100 * (found.secure[size,]["cycles"] / found.bare[size,]["cycles"] - 1)
        rows.append(Figure(group="filter", name=f"cycles more, {name([size])}", value=extra, unit="%"))
    return rows


def _estimates(jobs: Mapping[tuple[Size, ...], Mapping[str, Any]]) -> list[Figure]:
    errors = {sizes: 100 * abs(job["estimate"] / job["cycles"] - 1) for sizes, job in jobs.items()}
    worst = max(errors, key=errors.__getitem__)
    label = f"largest error of {len(errors)} jobs: {name(worst)}"
    mean = sum(errors.values()) / len(errors)
    return [
        Figure(group="estimate", name=label, value=errors[worst], unit="%", at_most=3),
        Figure(group="estimate", name="mean error", value=mean, unit="%"),
    ]


def _shapes(found: Measurements) -> list[Figure]:
    rows = []
    for sizes in [*PREFILL, *SWEEP]:
        job = found.secure.get(tuple(sizes))
        if job is not None:
            use = 100 * job["macs"] / (job["cycles"] * 256)
            rows.append(Figure(group="shape", name=name(sizes), value=use, unit="% of 256 MAC per cycle"))
    return rows

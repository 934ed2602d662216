"""Runs every job on both machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

from flexserve_hw.params import FlexMemParams, SocParams
from flexserve_sw.fast import simulate as simulate_fast
from flexserve_sw.platforms import load_platform

from ..build import SimBuild, build
from ..commands.common import CLOCK_HZ, dram_timing, flash_timing
from ..compiler import Progress
from ..membench.figures import Figure
from ..session import simulate as simulate_rtl
from .compare import agreement
from .jobs import JOB, BenchJob, bench_jobs
from .speed import Stopwatch, Times, measure, speed

__all__ = ["compare_machines", "on_both"]

Listener = Callable[[Mapping[str, Any]], None]

_PROCESSES = 3
"""In which the transaction-level machine is timed, one after the other."""


def _fast(job: BenchJob, listener: Listener) -> dict[str, Any]:
    platform = load_platform()
    return simulate_fast(
        JOB,
        job.argument,
        on_message=listener,
        pages=job.pages,
        dram_bytes=job.dram_bytes,
        dram=dram_timing(platform),
        flash=flash_timing(platform),
    )


def _rtl(simulator: SimBuild, job: BenchJob, listener: Listener) -> dict[str, Any]:
    platform = load_platform()
    return simulate_rtl(
        simulator,
        JOB,
        job.argument,
        on_message=listener,
        dram=dram_timing(platform),
        flash=flash_timing(platform),
        clock_hz=CLOCK_HZ,
    )


def on_both(simulator: SimBuild, job: BenchJob, *, timed: bool = True) -> list[Figure]:
    """Figures of one job; ``timed``: also how long it takes, which asks for a machine that does nothing else."""
    watch = Stopwatch()
    rtl = _rtl(simulator, job, watch.see)
    figures = list(agreement(job.name, rtl, _fast(job, lambda message: None)))
    if timed:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as processes:
            figures += speed(job.name, watch.seconds, list(processes.map(_measure, [job] * _PROCESSES)))
    return figures


def _measure(job: BenchJob) -> Times:
    """Times of a job on the transaction-level machine in this process."""
    return measure(partial(_fast, job))


def compare_machines(*, names: tuple[str, ...] = (), progress: Progress) -> Iterator[Figure]:
    """Figures of every job, or of those named, one job at a time."""
    with bench_jobs() as jobs:
        for job in jobs:
            if not names or job.name in names:
                params = SocParams(flex=FlexMemParams(pages=job.pages), dram_bytes=job.dram_bytes)
                simulator = build("soc", params, progress=progress)
                progress(f"Running {job.name} on both machines")
                yield from on_both(simulator, job)

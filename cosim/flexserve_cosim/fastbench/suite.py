"""Runs every job on both machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from flexserve_hw.params import FlexMemParams, SocParams
from flexserve_sw.fast import simulate as simulate_fast
from flexserve_sw.platforms import load_platform

from ..build import SimBuild, build
from ..commands.common import CLOCK_HZ, dram_timing, flash_timing
from ..compiler import Progress
from ..membench.figures import Figure
from ..native import compile_software
from ..session import simulate as simulate_rtl
from ..session import simulate_native
from .compare import agreement
from .jobs import JOB, BenchJob, bench_jobs
from .speed import Stopwatch, Times, measure, speed

__all__ = ["compare_machines", "on_both"]

Listener = Callable[[Mapping[str, Any]], None]

_PROCESSES, _RUNS = 3, 6
"""In which the transaction-level machine is timed, one after the other, and how often it does the job in each."""


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


def _compiled(folder: Path, job: BenchJob) -> Times:
    """Times of a job on the compiled transaction-level machine in a process of its own."""
    platform, watch = load_platform(), Stopwatch()
    simulate_native(
        folder,
        JOB,
        job.argument,
        on_message=watch.see,
        pages=job.pages,
        dram_bytes=job.dram_bytes,
        dram=dram_timing(platform),
        flash=flash_timing(platform),
        runs=_RUNS,
    )
    return Times.of(watch.laps)


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


def on_both(simulator: SimBuild, job: BenchJob, *, folder: Path | None = None) -> list[Figure]:
    """Figures of one job; with the ``folder`` of the compiled software also how long it takes, which asks for a machine
    that does nothing else.
    """
    watch = Stopwatch()
    rtl = _rtl(simulator, job, watch.see)
    figures = list(agreement(job.name, rtl, _fast(job, lambda message: None)))
    if folder is not None:
        compiled = [_compiled(folder, job) for _ in range(_PROCESSES)]
        with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as processes:
            python = list(processes.map(_measure, [job] * _PROCESSES))
        figures += speed(job.name, watch.seconds, compiled, python)
    return figures


def _measure(job: BenchJob) -> Times:
    """Times of a job on the transaction-level machine in this process."""
    return measure(partial(_fast, job), runs=_RUNS - 1)


def compare_machines(*, names: tuple[str, ...] = (), progress: Progress) -> Iterator[Figure]:
    """Figures of every job, or of those named, one job at a time."""
    folder = compile_software(progress=progress)
    with bench_jobs() as jobs:
        for job in jobs:
            if not names or job.name in names:
                params = SocParams(flex=FlexMemParams(pages=job.pages), dram_bytes=job.dram_bytes)
                simulator = build("soc", params, progress=progress)
                progress(f"Running {job.name} on both machines")
                yield from on_both(simulator, job, folder=folder)

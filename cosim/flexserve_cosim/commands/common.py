"""What several subcommands need: SoC parameters, a platform's timing, a way to run jobs on the RTL."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flexserve_hw.bus.axi4 import PAGE_BYTES
from flexserve_hw.params import DRAM_BASE, NPU_BUS_WIDTHS, BusParams, FlexMemParams, NpuParams, SocParams
from flexserve_sw.errors import UserError
from flexserve_sw.fast import simulate as simulate_fast
from flexserve_sw.fast.memory import DramTiming, FlashTiming
from flexserve_sw.platforms import Platform, load_platform

from ..build import SimBuild
from ..session import Stopped, simulate, simulate_native
from ..sessions import Job, Simulate

__all__ = [
    "CLOCK_HZ", "dram_timing", "filter_params", "flash_timing", "npu_params", "on_fast", "on_native", "on_rtl",
    "soc_params",
]  # fmt: skip

CLOCK_HZ = 1_000_000_000
"""The SoC's clock, by which costs in seconds become cycles."""


def soc_params(array: int) -> SocParams:
    """Parameters of the SoC with an ``array`` wide NPU. Raises :class:`UserError` if there is no such array."""
    try:
        return SocParams(npu=NpuParams(n=array))
    except ValueError as error:
        raise UserError(f"{error}; choose another --array.") from None


def npu_params(array: int, data_width: int) -> SocParams:
    """Parameters of an NPU alone with an ``array`` and a bus of ``data_width`` bits. Raises :class:`UserError`."""
    if data_width not in NPU_BUS_WIDTHS:
        widths = ", ".join(map(str, NPU_BUS_WIDTHS))
        raise UserError(f"An NPU's bus must have one of {widths} data bits, not {data_width}; choose another --bus.")
    params = soc_params(array)
    npu = replace(params.npu, bus=replace(params.npu.bus, data_width=data_width))
    flex = replace(params.flex, bus=replace(params.flex.bus, data_width=data_width))
    return replace(params, npu=npu, flex=flex)


def filter_params(pages: int, cache_lines: int) -> SocParams:
    """Parameters of a filter for ``pages`` pages, its table in memory if ``cache_lines`` words of it are cached.

    Addresses have 32 bits, or 40 if memory with such a window does not fit them. Raises :class:`UserError`.
    """
    memory = pages * PAGE_BYTES
    width = 32 if memory <= (1 << 32) - DRAM_BASE else 40
    try:
        return SocParams(
            flex=FlexMemParams(bus=BusParams(addr_width=width), pages=pages, cache_lines=cache_lines or None),
            npu=NpuParams(bus=BusParams(addr_width=width, id_width=3)),
            dram_bytes=max(memory, SocParams().dram_bytes),
        )
    except ValueError as error:
        raise UserError(f"{error}; choose other --pages or --cache-lines.") from None


def dram_timing(platform: Platform) -> DramTiming:
    """The platform's memory in cycles of the SoC."""
    return DramTiming(
        latency=platform.seconds(platform.dram.latency, CLOCK_HZ),
        bytes_per_cycle=platform.per_cycle(platform.dram.bandwidth, CLOCK_HZ),
    )


def flash_timing(platform: Platform) -> FlashTiming:
    """The platform's storage in cycles of the SoC."""
    return FlashTiming(
        latency=platform.seconds(platform.flash.latency, CLOCK_HZ),
        bytes_per_cycle=platform.per_cycle(platform.flash.bandwidth, CLOCK_HZ),
    )


def on_fast(*, array: int, seed: int) -> Simulate:
    """A way to run jobs on the transaction-level machine, one at a time."""
    platform = load_platform()

    def run(job: Job, emit: Callable[[Mapping[str, Any]], None], stop: threading.Event) -> dict[str, Any]:
        def listen(message: Mapping[str, Any]) -> None:
            if stop.is_set():
                raise Stopped("The machine was stopped because the run was given up.")
            emit(message)

        return simulate_fast(
            job.function,
            dict(job.argument),
            on_message=listen,
            array=array,
            dram=dram_timing(platform),
            flash=flash_timing(platform),
            seed=seed,
        )

    return run


def on_native(folder: Path, *, array: int, seed: int) -> Simulate:
    """A way to run jobs on the transaction-level machine as it was compiled into ``folder``."""
    platform = load_platform()

    def run(job: Job, emit: Callable[[Mapping[str, Any]], None], stop: threading.Event) -> dict[str, Any]:
        return simulate_native(
            folder,
            job.function,
            dict(job.argument),
            on_message=emit,
            array=array,
            dram=dram_timing(platform),
            flash=flash_timing(platform),
            seed=seed,
            stop=stop,
        )

    return run


def on_rtl(build: SimBuild, recording: SimBuild | None, *, seed: int) -> Simulate:
    """A way to run jobs on the RTL: on ``recording`` those that want a waveform, on ``build`` the others."""
    platform = load_platform()

    def run(job: Job, emit: Callable[[Mapping[str, Any]], None], stop: threading.Event) -> dict[str, Any]:
        chosen = build if job.waves is None else recording
        if chosen is None:
            raise ValueError(f"A job with a waveform needs a recording build, not {job.waves!r} without one")
        return simulate(
            chosen,
            job.function,
            dict(job.argument),
            on_message=emit,
            dram=dram_timing(platform),
            flash=flash_timing(platform),
            clock_hz=CLOCK_HZ,
            waves=job.waves,
            seed=seed,
            stop=stop,
        )

    return run

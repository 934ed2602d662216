"""What it costs that the NPU changes hands: the hand-over itself, and two worlds that share the NPU."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from statistics import mean
from typing import Any

from flexserve_hw.params import SocParams
from flexserve_sw.designs.plan import ARGUMENTS
from flexserve_sw.fast.memory import DramTiming
from flexserve_sw.platforms import load_platform

from ..build import build
from ..commands.common import CLOCK_HZ, dram_timing, on_rtl
from ..compiler import Progress, SimBuild
from ..membench.figures import Figure
from ..session import simulate
from ..sessions import Job
from .switch import JOBS

__all__ = ["GROUPS", "measure_world"]

GROUPS = {
    "switch": "World switch, from the command's write to its interrupt; software takes no time",
    "recall": "Recall of an NPU in the middle of the longest job that it takes, which the secure world does not answer",
    "sharing": "The secure model and a stream of frames of the normal world share the NPU",
}
"""Groups of figures, and what they are about."""

_SWITCH, _RECALL = 2_000, 20_000
"""Cycles that a world switch and a recall may take."""

_MEMORIES = (
    DramTiming(),
    DramTiming(latency=200),
    DramTiming(bytes_per_cycle=8.0),
    DramTiming(bytes_per_cycle=4.0),
)
"""Memories behind the filter: the platform's kind first."""

_AFTER = (200, 1_000, 5_000, 5_003, 5_017, 6_100)
"""Cycles after the doorbell at which the NPU is taken away."""

_SECURE_PAGES = 1_856
"""Pages of the secure world in the bench of the hand-over: a window of whole granules; the rest is the OS's."""

_PERIODS = (100_000, 50_000, 25_000)
"""Cycles from frame to frame."""

_SLICE = 20_000
"""Cycles for which the secure world keeps the NPU at least."""

_FRAMES = 10


def measure_world(*, seed: int, tokens: int = 8, progress: Progress | None = None) -> Iterator[Figure]:
    """All figures, on the RTL at its default size."""
    phone = build("soc", SocParams(), progress=progress)
    for memory in _MEMORIES:
        if progress:
            progress(f"Handing the NPU over, memory of {memory.latency} cycles and {memory.bytes_per_cycle:g} B/cycle")
        yield from _switches(phone, memory, seed=seed)
    yield from _sharing(phone, seed=seed, tokens=tokens, progress=progress)


def _switches(phone: SimBuild, memory: DramTiming, *, seed: int) -> Iterator[Figure]:
    argument = {"jobs": list(JOBS), "after": _AFTER, "pages": _SECURE_PAGES}
    job = "flexserve_cosim.npubench.switch:measure_switches"
    result = simulate(phone, job, argument, dram=memory, clock_hz=CLOCK_HZ, seed=seed)
    where = f"memory of {memory.latency} cycles, {memory.bytes_per_cycle:g} B/cycle"
    if memory == _MEMORIES[0]:
        for name, key in (
            ("idle, to the secure world: DELEGATE with scrub, ACCEPT", "to_secure_idle"),
            ("idle, to the normal world: RELEASE with scrub", "to_normal_idle"),
        ):
            yield Figure(group="switch", name=name, value=result[key], unit="cycles", at_most=_SWITCH)
    for entry in result["busy"]:
        name = f"normal job {entry['job']!r} stopped, to the secure world; {where}"
        limit = _SWITCH if memory == _MEMORIES[0] else None
        yield Figure(group="switch", name=name, value=entry["to_secure"], unit="cycles", at_most=limit)
    for entry in result["busy"]:
        total = ARGUMENTS["npu_grace"] + entry["recall_beyond_grace"]
        name = f"secure job {entry['job']!r}, of it {entry['recall_beyond_grace']:,} beyond grace; {where}"
        yield Figure(group="recall", name=name, value=total, unit="cycles", at_most=_RECALL)


def _sharing(phone: SimBuild, *, seed: int, tokens: int, progress: Progress | None) -> Iterator[Figure]:
    run = on_rtl(phone, None, seed=seed)

    def measure(name: str, function: str, **argument: Any) -> dict[str, Any]:
        if progress:
            progress(f"Running {name}")
        job = Job(name=name, function=f"flexserve_sw.designs.{function}", argument={"tokens": tokens, **argument})
        return run(job, lambda _: None, threading.Event())

    def figure(name: str, value: float, unit: str, **limits: float) -> Figure:
        return Figure(group="sharing", name=name, value=value, unit=unit, **limits)

    alone = measure("the model alone", "job:serve", timeline=False)
    yield figure("model alone: time to the first token", alone["ttft_cycles"], "cycles")
    yield figure("model alone: decode", alone["decode_cycles_per_token"], "cycles per token")
    frames = measure("frames alone", "sharing:watch", period=_PERIODS[-1], frames=_FRAMES)["sharing"]
    yield figure("frames alone: latency, mean", mean(frames["latency"]), "cycles")
    for period in _PERIODS:
        both = measure(
            f"both, a frame every {period:,} cycles", "sharing:share", period=period, slice=_SLICE, timeline=False
        )
        yield from _shared(both, alone, frames, period)
    if progress:
        memory = dram_timing(load_platform())
        progress(f"Sharing was measured with memory of {memory.latency} cycles, {memory.bytes_per_cycle:g} B/cycle")


def _shared(both: dict[str, Any], alone: dict[str, Any], frames: dict[str, Any], period: int) -> Iterator[Figure]:
    shared = both["sharing"]
    wrong = shared["wrong_values"] + both["wrong_values"] + (both["tokens"] != alone["tokens"])

    def figure(name: str, value: float, unit: str, **limits: float) -> Figure:
        return Figure(
            group="sharing", name=f"a frame every {period:,} cycles: {name}", value=value, unit=unit, **limits
        )

    yield figure("values of frames and model that are wrong", wrong, "", at_most=0)
    yield figure("time to the first token", both["ttft_cycles"], "cycles")
    yield figure(
        "time to the first token, more than alone", 100 * (both["ttft_cycles"] / alone["ttft_cycles"] - 1), "%"
    )
    yield figure("decode", both["decode_cycles_per_token"], "cycles per token")
    yield figure("frames done", shared["frames"], "")
    yield figure("frames done per million cycles", 1e6 * shared["frames"] / shared["cycles"], "")
    yield figure("latency of a frame, mean", mean(shared["latency"]), "cycles")
    yield figure("latency of a frame, most", max(shared["latency"]), "cycles")
    yield figure("latency of a frame, mean, alone = 1", mean(shared["latency"]) / mean(frames["latency"]), "")
    yield figure("NPU lent", shared["lendings"], "times")
    yield figure("jobs of the model stopped and resumed", both["recall"]["npu_jobs_resumed"], "")
    yield figure("grace periods that ran out", both["expired_grace_periods"], "")
    if shared["recalls"]:
        yield figure("recall, mean, with its software", shared["recall_cycles"] / shared["recalls"], "cycles")
        yield figure("recall, most, with its software", shared["recall_cycles_max"], "cycles", at_most=_RECALL)
    if shared["lendings"]:
        yield figure("lending, mean, with its software", shared["lend_cycles"] / shared["lendings"], "cycles")
    yield figure("time spent on handing over", 100 * shared["switch_share"], "%")

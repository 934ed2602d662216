"""Builds and starts the simulation of a soak run: the filter between agents in C++, which write records to files."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from flexserve_hw.params import BusParams, FlexMemParams, SocParams
from flexserve_hw.tzasc.line import line_bytes, memory_pages
from flexserve_sw.errors import UserError
from flexserve_sw.regs import FLEX_NORMAL, FLEX_SECURE, TZC, Block, Reg, Sub, Subs

from ..build import build
from ..compiler import Design, Progress, SimBuild, compile_design

__all__ = ["VARIANTS", "Bench", "Course", "SimulationFailed", "bench", "filter_params", "simulate"]

_HERE = Path(__file__).parent
_VIOLATION = 3
_MEMORY_END = (1 << 20) - 4096
"""Page frames below which memory begins, somewhere else for every seed: it ends below 4 GiB, as regions have it."""

DRIVER = tuple(sorted([*_HERE.glob("*.cpp"), *_HERE.glob("*.h")]))
"""The C++ around the filter."""


class SimulationFailed(Exception):
    """A check of the simulation's own failed; says which and in which cycle."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A filter with the agents around it: its parameters, and the simulator."""

    params: FlexMemParams
    window: int
    build: SimBuild


@dataclass(frozen=True, kw_only=True)
class Course:
    """How long a run is: transactions in all, between resets and between quiet points."""

    transactions: int
    episode: int
    stretch: int


_DEFAULT = FlexMemParams(grace_min=200, grace_max=20_000)

VARIANTS: dict[str, tuple[FlexMemParams, int]] = {
    "default": (_DEFAULT, 2 * _DEFAULT.group),
    "small": (
        FlexMemParams(
            bus=BusParams(data_width=512, id_width=4),
            pages=64,
            group=4,
            timers=2,
            freed_depth=4,
            outstanding=3,
            grace_min=40,
            grace_max=4000,
            scrub_beats=8,
            scrub_slots=2,
            bursts_ahead=4,
            denied_depth=2,
            denied_writes=2,
        ),
        64,
    ),
    "cached": (
        FlexMemParams(
            bus=BusParams(data_width=256, id_width=4),
            pages=512,
            grace_min=200,
            grace_max=20_000,
            outstanding=7,
            scrub_slots=2,
            cache_lines=2,
        ),
        256,
    ),
}
"""Parameters of the filter, and pages of the window at most. ``default`` has the default sizes of all but the grace
period; in ``small`` every queue is short and pages have few beats, so that its corners are visited often; in
``cached`` the table lies in memory, and the window has twice as many of its words as the cache, two beats each."""


def bench(variant: str, *, verilog: Path | None = None, waves: bool = False, progress: Progress | None = None) -> Bench:
    """The simulator of a variant; ``verilog`` replaces the filter, with the same ports and perhaps ``mutsel``."""
    if variant not in VARIANTS:
        raise UserError(f"There is no soak variant {variant!r}: choose one of {', '.join(VARIANTS)}.")
    params, window = VARIANTS[variant]
    if verilog is None:
        made = build("filter", filter_params(variant), driver=DRIVER, waves=waves, progress=progress)
    else:
        design = Design(name=verilog.stem, sources=(verilog,), top="flexserve_filter", driver=DRIVER)
        made = compile_design(design, waves=waves, progress=progress)
    return Bench(params=params, window=window, build=made)


def filter_params(variant: str) -> SocParams:
    """Parameters of a SoC with the variant's filter, and masters that fit its bus."""
    params, soc = VARIANTS[variant][0], SocParams()
    bus = replace(params.bus, id_width=params.bus.id_width - (soc.flex.bus.id_width - soc.npu.bus.id_width))
    return replace(soc, flex=params, npu=replace(soc.npu, bus=bus))


def simulate(
    bench: Bench,
    folder: Path,
    *,
    seed: int,
    course: Course,
    mutant: int = 0,
    plusargs: tuple[str, ...] = (),
    waves: Path | None = None,
    timeout: float | None = None,
) -> None:
    """Run the simulation and leave its records in ``folder``.

    ``mutant`` goes to the design's input ``mutsel`` if it has one, ``plusargs`` to what the Verilog asks for.
    Raises :class:`SimulationFailed` if it finds something wrong by itself, or does not end within ``timeout`` seconds.
    """
    params = bench.params
    values = {
        "seed": seed * 1_000,
        "id_width": params.bus.id_width,
        "pages": params.pages,
        "group": params.group,
        "timers": params.timers,
        "scrub_beats": params.scrub_beats,
        "grace_min": params.grace_min,
        "grace_max": params.grace_max,
        "transactions": course.transactions,
        "episode": course.episode,
        "stretch": course.stretch,
        "window": bench.window,
        "memory": params.group * random.Random(seed).randrange(1, _MEMORY_END // params.group),
        "line_bytes": 0 if params.cache_lines is None else line_bytes(params),
        "table_pages": 0 if params.cache_lines is None else memory_pages(params),
        "mutsel": mutant,
        **dict(_registers()),
    }
    command = [str(bench.build.executable), str(folder), *(f"{name}={value}" for name, value in values.items())]
    command += [f"+verilator+seed+{seed}", "+verilator+rand+reset+2", *(f"+{text}" for text in plusargs)]
    if waves is not None:
        command.append(f"waves={waves}")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise SimulationFailed(f"the simulation did not end within {timeout:g} s") from None
    if done.returncode == _VIOLATION:
        raise SimulationFailed(done.stdout.strip())
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-400:]
        raise SimulationFailed(f"the simulator died with {done.returncode}: {said}")


def _registers() -> Iterator[tuple[str, int]]:
    """Names and addresses of the filter's registers."""
    for name, block in (("TZC", TZC), ("FLEX_NORMAL", FLEX_NORMAL), ("FLEX_SECURE", FLEX_SECURE)):
        yield from _walk(name, block)


def _walk(path: str, block: Block) -> Iterator[tuple[str, int]]:
    for name, entry in vars(type(block)).items():
        value = getattr(block, name)
        if isinstance(entry, Reg):
            yield f"{path}.{name}", value
        elif isinstance(entry, Sub):
            yield from _walk(f"{path}.{name}", value)
        elif isinstance(entry, Subs):
            for index, part in enumerate(value):
                yield from _walk(f"{path}.{name}{index}", part)

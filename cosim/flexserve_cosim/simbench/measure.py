"""Runs the prefill of the demo in three simulations of the same phone, in turn, and compares their speed.

``cosim``
    Our build, as every command uses it.
``bare``
    The same Verilog, responders and compiler flags in a C++ loop without Python, cocotb and VPI (``bare.cpp``). It
    repeats a recording of what software did in the first, and checks that everything comes back in the same cycle.
``stock``
    cocotb's own runner, main loop and clock, every signal public (``stock_build.py``); it runs the same Python job.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from flexserve_hw.params import SocParams
from flexserve_sw.fast.memory import DramTiming, FlashTiming

from ..build import build
from ..compiler import Progress, SimBuild
from ..membench.figures import Figure
from ..session import converse
from .stock_build import build_stock

__all__ = ["CONFIGURATIONS", "LEAST_OF_BARE", "LEAST_OF_STOCK", "PHASES", "Bench", "Mark", "Run", "figures"]

CONFIGURATIONS = ("cosim", "bare", "stock")
PHASES = ("prefill", "prefill-forward")
"""Parts of a run in which speed is measured: request to first token, and of that the forward pass."""

LEAST_OF_BARE, LEAST_OF_STOCK = 0.8, 5.0
"""What the co-simulation's speed must be as a multiple of the others'."""

JOB = "flexserve_sw.designs.job:serve"
_BARE = tuple(Path(__file__).parent / name for name in ("bare.cpp", "stimulus.h"))
_SESSION, _RECORDING, _STOCK = (f"flexserve_cosim.{name}" for name in ("bench", "simbench.recording", "simbench.stock"))

Message = dict[str, Any]


class Mark(NamedTuple):
    """A moment of a run: its cycle, and wall-clock and CPU seconds since some begin."""

    cycle: int
    wall: float
    cpu: float


@dataclass(frozen=True)
class Run:
    """A run of a configuration: begin and end of each phase, what came of the job, and how often Python was entered.

    The replay checks by itself what comes of it, and has neither.
    """

    configuration: str
    phases: dict[str, tuple[Mark, Mark]]
    outcome: Message
    wakes: int

    def khz(self, phase: str) -> float:
        """Cycles per wall-clock millisecond."""
        begin, end = self.phases[phase]
        return (end.cycle - begin.cycle) / (end.wall - begin.wall) / 1e3

    def cpu_khz(self, phase: str) -> float:
        """Cycles per millisecond of CPU time, which other programs disturb less."""
        begin, end = self.phases[phase]
        return (end.cycle - begin.cycle) / (end.cpu - begin.cpu) / 1e3


class Bench:
    """The three simulators and the recording.

    Parameters
    ----------
    argument
        Of the serving job; the answer should end with its first token.
    dram, flash, clock_hz
        The platform.
    folder
        For the recording.
    """

    def __init__(
        self,
        params: SocParams,
        argument: Message,
        *,
        dram: DramTiming,
        flash: FlashTiming,
        clock_hz: int,
        folder: Path,
        progress: Progress | None = None,
    ) -> None:
        self._seed, self._folder = int(argument["seed"]), folder
        self._order = {
            "function": JOB,
            "argument": argument,
            "dram": asdict(dram),
            "flash": asdict(flash),
            "dram_bytes": params.dram_bytes,
            "flash_bytes": 64 << 20,
            "clock_hz": clock_hz,
            "cycle_limit": None,
            "recording": str(folder),
        }
        self.builds: dict[str, SimBuild] = {
            "cosim": build("soc", params, progress=progress),
            "bare": build("soc", params, driver=_BARE, progress=progress),
            "stock": build_stock(params, progress=progress),
        }
        if progress:
            progress("Recording what software does")
        self.recorded = self._session("cosim", _RECORDING)

    def run(self, configuration: str) -> Run:
        """Run one of the three; raises :class:`RuntimeError` if it does other work than the recorded run."""
        match configuration:
            case "cosim":
                run = self._session("cosim", _SESSION)
            case "stock":
                run = self._session("stock", _STOCK)
            case "bare":
                run = self._replay()
            case _:
                raise ValueError(f"A configuration must be one of {CONFIGURATIONS}, not {configuration!r}")
        cycles = [mark.cycle for phase in PHASES for mark in run.phases[phase]]
        expected = [mark.cycle for phase in PHASES for mark in self.recorded.phases[phase]]
        if cycles != expected or (run.outcome and run.outcome != self.recorded.outcome):
            raise RuntimeError(f"{configuration} did other work than was recorded: {cycles}, not {expected}")
        return run

    def _session(self, configuration: str, module: str) -> Run:
        open_phases: dict[str, Mark] = {}
        phases: dict[str, tuple[Mark, Mark]] = {}

        def see(message: Message) -> None:
            if message.get("kind") != "phase" or message["name"] not in PHASES:
                return
            mark = Mark(message["cycle"], message["time"], message["cpu"])
            if message["event"] == "begin":
                open_phases[message["name"]] = mark
            else:
                phases[message["name"]] = (open_phases.pop(message["name"]), mark)

        build = self.builds[configuration]
        result = converse(build, module=module, order=self._order, on_message=see, seed=self._seed, timeout=600)
        simulation = result.pop("simulation")
        return Run(configuration, phases, {**result, "cycles": simulation["cycles"]}, simulation["wakes"])

    def _replay(self) -> Run:
        cycles = sorted({mark.cycle for phase in PHASES for mark in self.recorded.phases[phase]})
        command = [str(self.builds["bare"].executable), str(self._folder), *map(str, cycles)]
        command += [f"+verilator+seed+{self._seed}", "+verilator+rand+reset+2"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode:
            raise RuntimeError(f"The bare loop failed: {done.stderr.strip() or f'exit code {done.returncode}'}")
        marks: dict[int, Mark] = {}
        for line in done.stdout.splitlines():
            cycle, wall, cpu = line.split()
            marks[int(cycle)] = Mark(int(cycle), float(wall), float(cpu))
        recorded = self.recorded.phases
        return Run("bare", {name: (marks[b.cycle], marks[e.cycle]) for name, (b, e) in recorded.items()}, {}, 0)


@contextmanager
def bench(params: SocParams, argument: Message, **options: Any) -> Iterator[Bench]:
    """A bench whose recording lasts as long as the block."""
    with tempfile.TemporaryDirectory(prefix="flexserve-") as name:
        yield Bench(params, argument, folder=Path(name), **options)


def figures(rounds: list[dict[str, Run]]) -> list[Figure]:
    """Speeds, the median of all rounds, and ratios, the median of those of each round, with their limits."""
    found = []
    for phase in PHASES:
        for kind, speed in _SPEEDS.items():
            for name in CONFIGURATIONS:
                value = median(speed(taken[name], phase) for taken in rounds)
                found.append(Figure(group=phase, name=f"{name}, by {kind}", value=value, unit="kHz"))
            for other, limit in (("bare", LEAST_OF_BARE), ("stock", LEAST_OF_STOCK)):
                ratio = median(speed(taken["cosim"], phase) / speed(taken[other], phase) for taken in rounds)
                found.append(
                    Figure(group=phase, name=f"cosim / {other}, by {kind}", value=ratio, unit="x", at_least=limit)
                )
    return found


_SPEEDS: dict[str, Callable[[Run, str], float]] = {"wall clock": Run.khz, "CPU time": Run.cpu_khz}

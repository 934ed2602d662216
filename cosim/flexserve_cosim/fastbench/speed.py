"""How long a job takes on either machine, and how much of that is the job's own software."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from types import FrameType, TracebackType
from typing import Any

import flexserve_sw

from ..membench.figures import Figure

__all__ = ["FASTER", "Sampler", "Stopwatch", "Times", "measure", "speed"]

Listener = Callable[[Mapping[str, Any]], None]

FASTER = 100.0
"""How many times faster than the RTL the transaction-level machine is to be."""

_SOFTWARE = Path(flexserve_sw.__file__).parent
_MACHINE = ("fast", "tasks.py", "recall.py")
"""Parts of the package that are the machine."""
_EITHER = ("npu", "integers.py", "machine.py", "regs.py")
"""Parts that both sides use: they count for whoever called them."""

_PERIOD = 0.001


class Stopwatch:
    """Seconds of processor time from power-on to the end of a job, by the stamps on its messages.

    Start of a process, imports, reading the model, and the reference at the end are in neither machine's time. On a
    computer that does nothing else, it is the time on the clock, for neither machine waits for anything.
    """

    def __init__(self) -> None:
        self._begin = 0.0
        self.laps: list[float] = []

    def see(self, message: Mapping[str, Any]) -> None:
        """Take note of a message with its ``cpu``."""
        if message.get("kind") == "phase" and (message["name"], message["event"]) == ("boot", "begin"):
            self._begin = message["cpu"]
        if message.get("kind") == "phase" and (message["name"], message["event"]) == ("close", "end"):
            self.laps.append(message["cpu"] - self._begin)

    @property
    def seconds(self) -> float:
        """What the last job took."""
        return self.laps[-1]


class Sampler:
    """Looks a thousand times a second of this process's time at who is at work: the machine or its software.

    To be used in the main thread, as a context.
    """

    def __init__(self) -> None:
        self.machine = self.software = 0

    def __enter__(self) -> Sampler:
        self._before = signal.signal(signal.SIGPROF, self._look)
        signal.setitimer(signal.ITIMER_PROF, _PERIOD, _PERIOD)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, self._before)

    @property
    def software_share(self) -> float:
        """Share of the samples in which software was at work."""
        return self.software / max(1, self.machine + self.software)

    def _look(self, number: int, frame: FrameType | None) -> None:
        while frame is not None:
            path = Path(frame.f_code.co_filename)
            part = path.relative_to(_SOFTWARE).parts[0] if path.is_relative_to(_SOFTWARE) else _EITHER[0]
            if part not in _EITHER:
                self.machine += part in _MACHINE
                self.software += part not in _MACHINE
                return
            frame = frame.f_back


@dataclass(frozen=True)
class Times:
    """Seconds that a job takes in a process of its own: the ``first`` time, and when it is done ``again``.

    The first time a model's job lists are planned and worked out; after that they are known to the process.
    ``software_share`` is of the times after the first; None: nobody can look into what is compiled.
    """

    first: float
    again: float
    software_share: float | None = None

    @classmethod
    def of(cls, laps: Sequence[float]) -> Times:
        """The times of a process that has done nothing else before."""
        return cls(laps[0], median(laps[1:]))


def measure(fast: Callable[[Listener], Any], *, runs: int = 5) -> Times:
    """Times of a job in this process, which has not done it before; ``fast`` runs it, with a listener."""
    watch = Stopwatch()
    for _ in range(1 + runs):
        fast(watch.see)
    with Sampler() as sampler:
        for _ in range(runs):
            fast(lambda message: None)
    return replace(Times.of(watch.laps), software_share=sampler.software_share)


def speed(name: str, rtl_seconds: float, compiled: Sequence[Times], python: Sequence[Times]) -> list[Figure]:
    """Seconds of the job ``name`` on the RTL and on the transaction-level machine, compiled and not; of several
    processes the median.
    """

    def figure(what: str, value: float, unit: str, at_least: float | None = None) -> Figure:
        return Figure(group=name, name=what, value=value, unit=unit, at_least=at_least)

    figures = [figure("RTL", rtl_seconds, "s")]
    for how, processes, limit in (("compiled", compiled, FASTER), ("as Python", python, None)):
        first, again = median(times.first for times in processes), median(times.again for times in processes)
        figures += [
            figure(f"{how}: first job of a process", first, "s"),
            figure(f"{how}: times faster", rtl_seconds / first, "x", limit),
            figure(f"{how}: the job again", again, "s"),
            figure(f"{how}: times faster, the job again", rtl_seconds / again, "x"),
        ]
    own = again * median(times.software_share or 0.0 for times in python)
    return [
        *figures,
        figure("as Python: of that time, the job's own software, the same on both", own, "s"),
        figure("as Python: times faster without the software", (rtl_seconds - own) / max(1e-9, again - own), "x"),
    ]

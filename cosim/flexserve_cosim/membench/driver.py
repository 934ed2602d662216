"""The filter between the bench's masters and memory, as a child process that plays scenarios."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from flexserve_hw.params import FlexMemParams, SocParams
from flexserve_sw.regs import RecallState

from ..build import build
from ..compiler import Progress, SimBuild

__all__ = ["Burst", "Driver", "Outcome", "Record", "Snapshot", "Step", "build_bench"]

_FILES = tuple(Path(__file__).parent / n for n in ("main.cpp", "bench.h", "agents.h", "lines.h", "registers.h"))
_LIMIT = 2_000_000


def build_bench(flex: FlexMemParams, *, progress: Progress | None = None) -> SimBuild:
    """The bench around a filter with these parameters."""
    masters = replace(SocParams().npu, bus=replace(flex.bus, id_width=flex.bus.id_width - 3))
    params = SocParams(flex=flex, npu=masters, dram_bytes=max(flex.pages * 4096, SocParams.dram_bytes))
    return build("filter", params, driver=_FILES, progress=progress)


@dataclass(frozen=True, kw_only=True)
class Burst:
    """What a master asks for, from ``start`` cycles after the traffic began; a write's data follow ``lag`` later."""

    start: int = 0
    address: int
    beats: int = 1
    size: int = 4
    kind: int = 1
    id: int = 0
    nonsecure: int = 1
    nsaid: int = 0
    lag: int = 0


class Record(NamedTuple):
    """Cycles in which the steps of a burst happened, and what came back. Data of a read come last, of a write first."""

    offered: int
    accepted: int
    first: int
    last: int
    answered: int
    response: int
    nonzero: int


class Step(NamedTuple):
    """A step of a script; see ``registers.h`` for the kinds."""

    kind: str
    a: int = 0
    b: int = 0
    c: int = 0
    d: int = 0


class Outcome(NamedTuple):
    """Cycles in which a step began, its address or data were taken, and it ended; what an access brought back."""

    began: int
    doorbell: int
    ended: int
    value: int
    response: int


class Events(NamedTuple):
    """Pages that changed to a state since the last mark, and the cycles of the first and the last change."""

    pages: int
    first: int
    last: int


class Snapshot:
    """Counters at one moment. Scrub and event counters start at the last mark."""

    size = 19 + 3 * 8

    def __init__(self, values: Sequence[int]) -> None:
        (
            self.cycle,
            self.read_beats,
            self.write_beats,
            self.scrub_beats,
            self.memory_beats,
            self.first_scrub,
            self.last_scrub,
            self.scrub_cycles,
            self.freed,
            self.decided_normal,
            self.decided_secure,
            self.expired,
            self.reads_answered,
            self.writes_answered,
            self.hits,
            self.misses,
            self.fetches,
            self.stores,
            self.last_store,
        ) = values[:19]
        self._events = [Events(*values[19 + 3 * n :][:3]) for n in range(8)]

    def changed(self, state: RecallState) -> Events:
        """Pages that changed to ``state``."""
        return self._events[state]


class Driver:
    """A running bench. A context manager; the process ends with it.

    Parameters
    ----------
    flex
        Parameters of the filter.
    wired
        Wires in place of the filter.
    latency
        Cycles of the memory between the last handshake of a request and its first answer.
    """

    def __init__(
        self,
        flex: FlexMemParams,
        *,
        wired: bool = False,
        latency: int = 20,
        seed: int = 1,
        progress: Progress | None = None,
    ) -> None:
        self.flex = flex
        executable = build_bench(flex, progress=progress).executable
        kind = "wired" if wired else "filter"
        # The scrubber's transactions are marked by the top bit of what is one bit wider than the masters' IDs.
        options = [kind, str(flex.bus.id_width), f"+verilator+seed+{seed}", "+verilator+rand+reset+2"]
        self._process = subprocess.Popen(
            [str(executable), *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._lines: list[str] = []
        self.slow_down(latency)
        self.slow_table(latency)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def slow_down(self, latency: int) -> None:
        """Set the memory's latency from now on."""
        self.memory_latency = latency
        self._lines.append(f"latency {latency}")

    def slow_table(self, latency: int) -> None:
        """Set the latency of the memory that the page-state table lies in from now on."""
        self.table_latency = latency
        self._lines.append(f"table {latency}")

    def traffic(
        self, *, reads: Iterable[Burst] = (), writes: Iterable[Burst] = (), loop: bool = False, keep: bool = True
    ) -> None:
        """What the masters play when a script says so; ``loop``: until it says stop; ``keep``: every record."""
        self._lines.append(f"traffic {int(loop)} {int(keep)}")
        for where, bursts in (("read", reads), ("write", writes)):
            self._lines += [f"burst {where} {' '.join(map(str, astuple(burst)))}" for burst in bursts]

    def play(self, *steps: Step, limit: int = _LIMIT) -> tuple[list[Outcome], list[Snapshot]]:
        """Do the steps; returns an outcome for each and the snapshots. Fails if that takes ``limit`` cycles."""
        self._lines += [f"step {' '.join(map(str, step))}" for step in steps]
        values = self._ask(f"go {limit}")
        ended, count = values[:2]
        outcomes = [Outcome(*values[2 + 5 * n :][:5]) for n in range(count)]
        if not ended:
            raise TimeoutError(f"Step {count} ({steps[count]}) did not end within {limit:,} cycles")
        rest = values[2 + 5 * count :]
        snapshots = [Snapshot(rest[at : at + Snapshot.size]) for at in range(0, len(rest), Snapshot.size)]
        return outcomes, snapshots

    def records(self) -> tuple[list[Record], list[Record]]:
        """What became of the reads and of the writes of the present traffic."""
        found = []
        for where in ("read", "write"):
            values = self._ask(f"records {where}")
            found.append([Record(*values[at : at + 7]) for at in range(0, len(values), 7)])
        return found[0], found[1]

    def _ask(self, question: str) -> list[int]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write("\n".join([*self._lines, question, ""]))
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the empty answer below says it
        self._lines.clear()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"The memory bench ended with exit code {self._process.wait()}")
        return [int(word) for word in answer.split()]

"""A campaign: many segments, each with a seed of its own, until enough transactions were checked.

What is finished is kept in a state file, so that a campaign that was interrupted goes on where it was. Segments count
only for the filter they were run on: another build starts anew.
"""

from __future__ import annotations

import json
import resource
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .classes import missing
from .judge import judge
from .records import Mismatch
from .simulator import Bench, Course, SimulationFailed, simulate

__all__ = ["Campaign", "Finding", "Segment", "run_segment"]

COURSE = Course(transactions=200_000, episode=30_000, stretch=4_000)
"""A segment: a few resets and some fifty quiet points."""


class Finding(Exception):
    """A segment went wrong. Says what, and the command that repeats it with waves."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A finished segment: what was seen, and what it cost in seconds and in seconds of processor time."""

    variant: str
    seed: int
    seen: dict[str, int]
    seconds: float
    cpu_seconds: float


def run_segment(
    bench: Bench,
    *,
    variant: str,
    seed: int,
    course: Course = COURSE,
    mutant: int = 0,
    plusargs: tuple[str, ...] = (),
    waves: Path | None = None,
    timeout: float | None = None,
) -> Segment:
    """Simulate and judge one segment. Raises :class:`Finding` if anything is wrong."""
    began, before = time.monotonic(), _cpu()
    with tempfile.TemporaryDirectory(prefix="flexserve-soak-") as name:
        folder = Path(name)
        try:
            simulate(
                bench, folder, seed=seed, course=course, mutant=mutant, plusargs=plusargs, waves=waves, timeout=timeout
            )
            seen = judge(folder, bench.params)
        except (SimulationFailed, Mismatch) as error:
            raise Finding(f"{variant}, seed {seed}: {error}") from error
    return Segment(
        variant=variant, seed=seed, seen=dict(seen), seconds=time.monotonic() - began, cpu_seconds=_cpu() - before
    )


class Campaign:
    """Segments of some variants in turn, and the files in ``folder`` that say how far it is.

    Parameters
    ----------
    folder
        Where ``state.json`` and ``summary.json`` are.
    benches
        The simulators by variant.
    transactions
        How many must be checked, over all variants.
    seed
        Of the first segment; the others count on from it.
    course
        Of every segment.
    """

    def __init__(
        self,
        folder: Path,
        benches: dict[str, Bench],
        *,
        transactions: int,
        seed: int,
        course: Course = COURSE,
    ) -> None:
        self._folder, self._benches, self._course = folder, benches, course
        self._wanted, self._seed = transactions, seed
        self._key = {
            "builds": {name: bench.build.key for name, bench in benches.items()},
            "seed": seed,
            "course": asdict(course),
        }
        self.segments: list[Segment] = self._finished()

    @property
    def transactions(self) -> int:
        """Checked so far."""
        return sum(segment.seen["transactions"] for segment in self.segments)

    def run(self, tell: Callable[[str], None]) -> dict[str, Any]:
        """Run what is missing and return the summary, which is also written. Raises :class:`Finding`."""
        if self.segments:
            tell(f"Going on after {len(self.segments)} segments with {self.transactions:,} transactions")
        names = list(self._benches)
        while self.transactions < self._wanted:
            number = len(self.segments)
            variant, seed = names[number % len(names)], self._seed + number
            try:
                segment = run_segment(self._benches[variant], variant=variant, seed=seed, course=self._course)
            except Finding as finding:
                self._write("summary.json", self.summary() | {"mismatches": 1, "finding": str(finding)})
                raise Finding(f"{finding}\nrun it again with waves:\n  {rerun(variant, seed)}") from finding
            self.segments.append(segment)
            self._write("state.json", {"key": self._key, "segments": [vars(part) for part in self.segments]})
            rate = segment.seen["transactions"] / segment.cpu_seconds
            done = f"{self.transactions:,} of {self._wanted:,} transactions"
            tell(f"{variant}, seed {seed}: {done}, {rate:,.0f} per second of processor time")
        summary = self.summary()
        self._write("summary.json", summary)
        return summary

    def summary(self) -> dict[str, Any]:
        """Totals over all finished segments."""
        seen: Counter[str] = Counter()
        for segment in self.segments:
            seen += Counter(segment.seen)
        seconds, cpu = (sum(getattr(part, name) for part in self.segments) for name in ("seconds", "cpu_seconds"))
        totals = {name: seen.pop(name, 0) for name in ("transactions", "commands", "cycles")}
        return {
            **totals,
            "mismatches": 0,
            "segments": len(self.segments),
            "variants": dict(Counter(segment.variant for segment in self.segments)),
            "seed": self._seed,
            "seconds": round(seconds, 1),
            "cpu_seconds": round(cpu, 1),
            "transactions_per_cpu_second": round(totals["transactions"] / cpu) if cpu else 0,
            "missing": missing(seen, cached=any(b.params.cache_lines is not None for b in self._benches.values())),
            "seen": dict(sorted(seen.items())),
        }

    def _finished(self) -> list[Segment]:
        try:
            state = json.loads((self._folder / "state.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return []
        return [Segment(**part) for part in state["segments"]] if state.get("key") == self._key else []

    def _write(self, name: str, content: dict[str, Any]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        fresh = self._folder / f".{name}"
        fresh.write_text(json.dumps(content, indent=2) + "\n")
        shutil.move(fresh, self._folder / name)


def rerun(variant: str, seed: int) -> str:
    """Command that repeats one segment."""
    return f"flexserve soak --variant {variant} --segment {seed} --waves soak"


def _cpu() -> float:
    """Processor seconds of this process and its children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)

"""Mutation testing: change the design in one place at a time, and see whether the tests and the proofs notice.

``python -m tests.mutants.run`` samples mutants of the filter and of the NPU gate, runs the simulation regressions and
the proofs on every one, shows by a proof of equivalence which of those that nobody noticed are no faults, and writes it
all to ``build/mutants/summary.json``. It goes on where it was stopped, unless the design has changed.

Mutants are sampled part by part, so that small parts are looked at as closely as large ones. Cells on which nothing but
the probe ports depends are left out: probes only watch.
"""

import argparse
import hashlib
import json
import re
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from amaranth.back import rtlil
from amaranth.hdl import Fragment, UnusedElaboratable
from rich.console import Console
from rich.table import Table

from flexserve_hw.gate import NpuGate
from flexserve_hw.tzasc.filter import FlexFilter
from tests.formal.engines import ABC

from . import formal, simulate
from .netlist import Mutant, Netlist
from .surroundings import SURROUNDINGS

ROOT = Path(__file__).parents[2]
SEED = 1

PARTS: dict[str, dict[str, tuple[str, int]]] = {
    "filter": {
        "read path": (r"core\.read_path.*", 40),
        "write path": (r"core\.write_path.*", 45),
        "engine": (r"core\.engine(\.check)?", 36),
        "timers": (r"core\.engine\.timers", 16),
        "census": (r"core\.engine\.census", 8),
        "scrubber": (r"core\.scrubber.*", 36),
        "drain": (r"core\.drain", 12),
        "window": (r"core\.window", 12),
        "freed queue": (r"core\.freed.*", 12),
        "fail record": (r"core\.fail", 12),
        "table": (r"core\.table.*", 6),
        "core": (r"core", 12),
        "frames": (r"(frames|region_frame).*", 18),
    },
    "gate": {"gate": (r"", 50), "gate frames": (r"regs_.*", 12)},
}
"""Per design its parts: pattern of their submodules, and how many mutants are taken."""

QUICK: dict[str, Any] = {"frames": 10, "conflicts": 2_000, "reduce": False}
DEEP: dict[str, Any] = {"frames": 50, "conflicts": 10_000, "reduce": True}
"""Limits of a search for a counterexample: of that on every mutant, in which most fall, and of that on what is left."""
EQUIVALENCE = 30
"""Seconds of processor time for each part of a proof of equivalence."""


STEPS = ("simulation", "formal", "equivalent", "deep formal")
KILLED = ("by both", "by simulation", "by proofs")
ENDS = (*KILLED, "equivalent", "survived", "open")
"""What can become of a mutant. ``open``: nothing noticed it yet, and not all steps have been taken."""
WANTED = 98.0
"""Least share, in percent, of the mutants not shown to be equivalent that must be killed."""


Tell = Callable[[Mutant, str, object], None]
"""Tells of a mutant what a step found."""


class State:
    """Results so far, on disk; those of another design or sample are forgotten."""

    def __init__(self, path: Path, key: str):
        self._path = path
        stored = json.loads(path.read_text()) if path.exists() else {}
        self.results: dict[str, dict[str, Any]] = stored.get("results", {}) if stored.get("key") == key else {}
        self._key, self._lock = key, threading.Lock()

    def forget(self, keep: Callable[[int, dict[str, Any]], object]) -> None:
        """Take every step anew on the mutants whose results are not to be kept."""
        self.results = {number: result for number, result in self.results.items() if keep(int(number), result)}

    def get(self, mutant: Mutant, way: str, find: Callable[[], Any]) -> Any:
        """The result of ``way`` for ``mutant``, found now if it is not known."""
        number = str(mutant.number)
        if way not in self.results.get(number, {}):
            started = time.monotonic()
            found = {way: find(), f"{way} seconds": round(time.monotonic() - started, 1)}
            with self._lock:
                self.results.setdefault(number, {}).update(found)
                fresh = self._path.with_suffix(".new")
                fresh.write_text(json.dumps({"key": self._key, "results": self.results}, indent=1))
                fresh.replace(self._path)
        return self.results[number][way]


class Campaign:
    """The mutants of one design."""

    def __init__(self, ip: str, folder: Path, *, jobs: int, again: bool = False, only: Sequence[int] = ()):
        self.ip, self.folder, self._jobs = ip, folder / ip, jobs
        self.netlist: Netlist = simulate.flat_netlist(ip, self.folder / "netlist")
        self.mutants = self.netlist.sample(PARTS[ip], seed=SEED, root=simulate.ROOT)
        self.chosen = [mutant for mutant in self.mutants if not only or mutant.number in only]
        if missing := set(only) - {mutant.number for mutant in self.mutants}:
            raise ValueError(f"Mutants of the {ip} are 1 to {len(self.mutants)}, not {sorted(missing)}")
        self._proofs: list[formal.MutantModel] | None = None
        self._spared: dict[str, int] = {}
        self._sparing = threading.Lock()
        sample = json.dumps([mutant.row() for mutant in self.mutants])
        # Sources are named by their path: the same design in another folder is the same.
        text = (self.netlist.folder / "flat.il").read_text().replace(str(ROOT), "") + sample
        self.state = State(self.folder / "state.json", hashlib.sha256(text.encode()).hexdigest())
        if again:
            self.state.forget(lambda number, result: _noticed(result) or result.get("equivalent"))
        if only:
            self.state.forget(lambda number, result: number not in only)

    def _design(self) -> NpuGate | FlexFilter:
        return NpuGate() if self.ip == "gate" else FlexFilter(params=simulate.parameters(self.ip).flex)

    def _missing(self, way: str) -> bool:
        return any(way not in self.result(mutant) for mutant in self.chosen)

    def simulate(self, tell: Tell) -> None:
        """Run the regression on every mutant; on none of them first: it must pass."""
        if not self._missing("simulation"):
            return
        if self.ip == "filter":
            soak = simulate.filter_bench(self.netlist, self.mutants)
            find = partial(simulate.filter_finding, soak)
        else:
            build = simulate.gate_build(self.netlist, self.mutants)
            find = partial(simulate.gate_finding, build)
        if finding := find(0):
            raise RuntimeError(f"The regression must pass without a mutant, but: {finding}")
        self._each(self.chosen, "simulation", lambda mutant: find(mutant.number), tell)

    def _each(self, mutants: Sequence[Mutant], step: str, find: Callable[[Mutant], Any], tell: Tell) -> None:
        """Take ``step`` on every mutant, some at a time."""

        def take(mutant: Mutant) -> None:
            tell(mutant, step, self.state.get(mutant, step, partial(find, mutant)))

        pool = ThreadPoolExecutor(self._jobs)
        try:
            for _ in pool.map(take, mutants):
                pass
        finally:
            # What ends a run early ends it with what is being done, not with what is planned.
            pool.shutdown(cancel_futures=True)

    def prove(self, tell: Tell, mutants: Sequence[Mutant]) -> None:
        """Look for a refuted claim in every proof that a mutant has a place in, until one is found."""
        self._search("formal", dict.fromkeys(mutants), QUICK, tell)

    def prove_deeply(self, tell: Tell) -> None:
        """Look again, further and for longer, against what is left and not equivalent."""
        self._search("deep formal", self._left(), DEEP, tell)

    def _search(self, step: str, mutants: Iterable[Mutant], limits: dict[str, Any], tell: Tell) -> None:
        untried = [mutant for mutant in mutants if step not in self.result(mutant)]
        if untried:
            models = self._models()
            self._each(untried, step, lambda mutant: self._refuted(models, mutant.number, limits), tell)

    def _refuted(self, models: Sequence[formal.MutantModel], number: int, limits: dict[str, Any]) -> str | None:
        """The first proof with a refuted claim, or None; of those that the mutant has a place in."""
        for model in [model for model in models if number in model.found]:
            if cycles := formal.refute(model, number, **limits):
                self._spare(model, cycles)
                return f"{model.name} refuted after {cycles} cycles"
        return None

    def _spare(self, model: formal.MutantModel, cycles: int) -> None:
        """Make sure that what refutes a mutant does not refute the original: raises :class:`RuntimeError`."""
        with self._sparing:
            if self._spared.get(model.name, 0) >= cycles:
                return
            if formal.refute(model, 0, frames=cycles, conflicts=0, reduce=True):
                raise RuntimeError(f"The proof {model.name} must hold without a mutant, but is refuted")
            self._spared[model.name] = cycles

    def _models(self) -> list[formal.MutantModel]:
        """Models of all proofs that mutants have a place in."""
        if self._proofs is None:
            self._proofs = formal.proof_models(
                self.folder / "proofs", Fragment.get(self._design(), None), self.chosen, jobs=self._jobs
            )
        return self._proofs

    def _left(self) -> list[Mutant]:
        """Mutants that nothing noticed so far, and that are not known to be equivalent."""
        return [m for m in self.chosen if not self.killed(m) and not self.result(m).get("equivalent")]

    def compare(self, tell: Tell) -> None:
        """Of the mutants that nothing noticed, show which behave as the original, at the sizes that are simulated.

        At smaller ones upper bits of what is wider would never change, and their mutants look equivalent.
        """
        left = [mutant for mutant in self._left() if "equivalent" not in self.result(mutant)]
        if not left:
            return
        source = rtlil.convert(self._design(), name="top")
        models: dict[str, formal.MutantModel | None] = {}
        for path in dict.fromkeys(path for mutant in left for path in _around(mutant)):
            models[path] = formal.with_mutants(
                "equivalence",
                self.folder / "equivalence" / (path or "whole"),
                source,
                places=[("", path)],
                mutants=left,
                watched=r"(?!probe_).*",
                top=_module(source, path),
            )
        surrounded = {path: self._surrounded(path, left) for path in models if path in SURROUNDINGS}

        def same(model: formal.MutantModel | None, mutant: Mutant) -> bool:
            placed = model is not None and mutant.number in model.found
            return placed and formal.equivalent(model, mutant.number, seconds=EQUIVALENCE)

        def compare(mutant: Mutant) -> str | None:
            """Where it is seen to be equivalent. What a part can't tell from the original, what is around it can't."""
            for path in _around(mutant):
                if same(models[path], mutant):
                    return path or self.ip
            for path in _around(mutant):
                if same(surrounded.get(path), mutant):
                    return f"{path} in its surroundings"
            return None

        self._each(left, "equivalent", compare, tell)

    def _surrounded(self, path: str, mutants: Sequence[Mutant]) -> formal.MutantModel | None:
        """The part of the filter at ``path``, with ``mutants``, in its surroundings."""
        module, ports = SURROUNDINGS[path](simulate.parameters(self.ip).flex).finish()
        return formal.with_mutants(
            "equivalence",
            self.folder / "equivalence" / f"{path} surrounded",
            rtlil.convert(module, ports=ports, name="top"),
            places=[("dut", path)],
            mutants=mutants,
            watched=".*",
        )

    def rows(self) -> list[dict[str, Any]]:
        """Every mutant with what became of it."""
        rows = []
        for mutant in self.mutants:
            result = self.result(mutant)
            seen, refuted = bool(result.get("simulation")), _refuted(result)
            if seen or refuted:
                end = "by both" if seen and refuted else "by simulation" if seen else "by proofs"
            elif result.get("equivalent"):
                end = "equivalent"
            else:
                taken = all(step in result for step in STEPS)
                end = "survived" if taken else "open"
            rows.append({"design": self.ip, **mutant.row(), "end": end, **result})
        return rows

    def killed(self, mutant: Mutant) -> bool:
        """Whether simulation or proofs noticed it."""
        return _noticed(self.result(mutant))

    def result(self, mutant: Mutant) -> dict[str, Any]:
        """What each step taken so far found."""
        return self.state.results.get(str(mutant.number), {})


def _around(mutant: Mutant) -> list[str]:
    """Paths of the submodule that a mutant is in and of those around it, the smallest first."""
    parts = mutant.place.module.split(".") if mutant.place.module else []
    return [".".join(parts[:depth]) for depth in range(len(parts), -1, -1)]


def _module(source: str, path: str) -> str:
    """The module of RTLIL that stands at a path."""
    name = r"\.".join(rf"{re.escape(part)}(?:\$\d+)?" for part in ["top", *filter(None, path.split("."))])
    found = re.search(rf"(?m)^module \\({name})$", source)
    if found is None:
        raise ValueError(f"Submodule must be in the design, not {path!r}")
    return found[1]


def _refuted(result: dict[str, Any]) -> bool:
    return bool(result.get("formal") or result.get("deep formal"))


def _noticed(result: dict[str, Any]) -> bool:
    return bool(result.get("simulation")) or _refuted(result)


def summary(campaigns: Sequence[Campaign], seconds: float) -> dict[str, Any]:
    """Score, what killed how many by part, and every mutant."""
    rows = [row for campaign in campaigns for row in campaign.rows()]
    names = dict.fromkeys(row["part"] for row in rows)
    parts = {name: _count(row for row in rows if row["part"] == name) for name in names}
    return {"seconds": round(seconds), "seed": SEED, "total": _count(rows), "parts": parts, "mutants": rows}


def _count(rows) -> dict[str, Any]:
    rows = list(rows)
    ends = Counter(row["end"] for row in rows)
    counted = len(rows) - ends["equivalent"] - ends["open"]
    killed = sum(ends[end] for end in KILLED)
    score = round(100 * killed / counted, 1) if counted else None
    return {"mutants": len(rows), **{end: ends[end] for end in ENDS}, "score": score}


def show(result: dict[str, Any], console: Console) -> None:
    """The table, and every survivor with its place in the source."""
    table = Table(title=f"Mutation testing, seed {result['seed']}")
    table.add_column("part")
    columns = ("mutants", *ENDS, "score")
    for column in columns:
        table.add_column(column, justify="right")
    for name, counts in (*result["parts"].items(), ("all", result["total"])):
        table.add_row(name, *(str(counts[column]) for column in columns), end_section=name == [*result["parts"]][-1])
    console.print(table)
    for row in result["mutants"]:
        if row["end"] == "survived":
            where = f"{row['mode']} at {row['port']}[{row['bit']}] of {row['kind']}, {row['line']}"
            console.print(f"survived: {row['part']} {row['mutant']}: {where}", markup=False, highlight=False)


def main() -> int:
    """Command line; 1 if fewer than the wanted share of mutants is killed, of those not shown to be equivalent."""
    warnings.simplefilter("ignore", UnusedElaboratable)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step", choices=STEPS, action="append", help="take these steps alone; all by default")
    parser.add_argument("--design", choices=tuple(PARTS), action="append", help="of these designs alone")
    parser.add_argument("--quick", action="store_true", help="look for proofs only against what simulation left")
    parser.add_argument("--again", action="store_true", help="try those that nothing noticed anew: tests have changed")
    parser.add_argument("--mutant", type=int, action="append", default=[], help="these numbers of one design, anew")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "mutants")
    options = parser.parse_args()
    if ABC is None:
        sys.exit("Mutation testing needs ABC for the proofs: install Debian's berkeley-abc.")
    options.output.mkdir(parents=True, exist_ok=True)
    console, started = Console(width=max(120, Console().width)), time.monotonic()

    def tell(mutant: Mutant, step: str, result: object) -> None:
        text = str(result).partition("\n")[0][:100]
        console.print(f"{mutant.part} {mutant.number}: {step}: {text}", markup=False, highlight=False)

    if options.mutant and len(options.design or PARTS) != 1:
        parser.error("numbers are those of one design: give --design as well")
    how = {"jobs": options.jobs, "again": options.again, "only": options.mutant}
    campaigns = [Campaign(name, options.output, **how) for name in options.design or PARTS]
    steps = options.step or STEPS
    for campaign in campaigns:
        if "simulation" in steps:
            campaign.simulate(tell)
    for campaign in campaigns:
        if "formal" in steps:
            # First those that simulation left: they decide the score.
            left = [mutant for mutant in campaign.chosen if not campaign.killed(mutant)]
            campaign.prove(tell, left if options.quick else [*left, *campaign.chosen])
    for campaign in campaigns:
        if "equivalent" in steps:
            campaign.compare(tell)
        if "deep formal" in steps:
            campaign.prove_deeply(tell)
    result = summary(campaigns, time.monotonic() - started)
    (options.output / "summary.json").write_text(json.dumps(result, indent=1) + "\n")
    show(result, console)
    return int((result["total"]["score"] or 0) < WANTED or bool(result["total"]["open"]))


if __name__ == "__main__":
    sys.exit(main())

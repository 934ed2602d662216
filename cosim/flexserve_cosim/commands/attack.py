"""``flexserve attack``: every attack on the RTL, and a control of each, which must succeed."""

from __future__ import annotations

import importlib.metadata
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from flexserve_sw.attacker.case import Attack, Level, select
from flexserve_sw.attacker.suite import ATTACKS
from flexserve_sw.errors import UserError

from ..build import build
from ..bus_attacks.session import bus_build, simulate_bus
from ..bus_attacks.suite import PIN_ATTACKS
from ..outputs import pending
from ..report.attacks import attacks_page
from ..results import attack_summary
from ..sessions import Job, Simulate, run_jobs
from ..tables import attack_list, attack_table
from ..toolchain import find_toolchain
from ..views import View, view
from .common import on_rtl, soc_params

__all__ = ["ALL_ATTACKS", "AttackOptions", "attack"]

JOB = "flexserve_sw.attacker.job:attack"
PINS_JOB = "pins"
CONTROLS = {False: "attacks", True: "controls"}
"""What a session mounts, by whether the protection is off."""

ALL_ATTACKS: dict[str, Attack[Any]] = {**ATTACKS, **PIN_ATTACKS[Level.BUS], **PIN_ATTACKS[Level.TABLE]}
"""Every attack of every level by name."""


@dataclass(frozen=True, kw_only=True)
class AttackOptions:
    """The command line of ``flexserve attack``; see its help."""

    attacks: tuple[str, ...]
    only: str | None
    listing: bool
    array: int
    seed: int
    json: Path | None
    report: Path | None


def attack(options: AttackOptions, console: Console) -> bool:
    """Mount the attacks; return whether every one was blocked and every control succeeded."""
    cases = _chosen(options)
    if options.listing:
        console.print(attack_list(cases))
        return True
    if not 1 <= options.seed < 1 << 31:
        raise UserError(f"The seed must be from 1 to {(1 << 31) - 1}, not {options.seed}.")
    params = soc_params(options.array)
    find_toolchain()
    names = {level: [case.name for case in cases if case.level is level] for level in Level}
    jobs = [
        Job(
            name=f"{level.value} {session}",
            function=JOB if level is Level.SYSTEM else PINS_JOB,
            argument={"attack": chosen, "control": control, "seed": options.seed}
            | ({} if level is Level.SYSTEM else {"level": level.value}),
        )
        for level, chosen in names.items()
        for control, session in CONTROLS.items()
        if chosen
    ]
    with pending(options.json, options.report) as (json, report):
        done = dict.fromkeys((job.name for job in jobs), 0)
        total = {job.name: len(job.argument["attack"]) for job in jobs}
        with view(console) as watcher:

            def on_message(job: str, message: Mapping[str, Any]) -> None:
                if message.get("kind") == "attack":
                    done[job] += 1
                    what = f"{message['name']}: {message['outcome']}"
                    watcher.step(job, done[job], total[job], what, message["cycle"])

            simulate = _simulate(array=options.array, seed=options.seed, names=names, watcher=watcher)
            results = run_jobs(jobs, simulate, on_message)
        summary = attack_summary(
            _reports(results, control=False),
            _reports(results, control=True),
            about={
                "version": importlib.metadata.version("flexserve"),
                "machine": "rtl",
                "options": {"array": params.npu.n, "seed": options.seed},
                "sim_cycles": sum(result["simulation"]["cycles"] for result in results.values()),
            },
        )
        if json is not None:
            json.write_json(summary)
        if report is not None:
            report.write(attacks_page(summary))
    console.print(attack_table(summary))
    blocked = sum(a["outcome"] == "blocked" for a in summary["attacks"])
    succeeded = sum(a["control"]["outcome"] == "succeeded" for a in summary["attacks"])
    console.print(
        f"{blocked} of {len(cases)} attacks blocked; {succeeded} of {len(cases)} controls succeeded.",
        highlight=False,
    )
    for path in (options.json, options.report):
        if path is not None:
            console.print(f"Wrote {path}", highlight=False, soft_wrap=True)
    return bool(summary["all_blocked"] and summary["all_controls_succeeded"])


def _chosen(options: AttackOptions) -> list[Attack[Any]]:
    """The attacks that the command line names, or all, of one level or of both."""
    levels = [level.value for level in Level]
    if options.only is not None and options.only not in levels:
        raise UserError(f"Attacks are mounted at one of the levels {', '.join(levels)}, not {options.only!r}.")
    cases = select(ALL_ATTACKS, list(options.attacks) or None)
    cases = [case for case in cases if options.only is None or case.level.value == options.only]
    if not cases:
        raise UserError(f"None of these attacks is mounted at the level {options.only}; leave --only out.")
    return cases


def _simulate(*, array: int, seed: int, names: Mapping[Level, list[str]], watcher: View) -> Simulate:
    """A way to run the sessions of all levels; only simulators that are needed are built."""
    on_soc: Simulate | None = None
    if names[Level.SYSTEM]:
        on_soc = on_rtl(build("soc", soc_params(array), progress=watcher.note), None, seed=seed)
    alone = {level: bus_build(watcher.note, level=level) for level in PIN_ATTACKS if names[level]}

    def run(job: Job, emit: Callable[[Mapping[str, Any]], None], stop: threading.Event) -> dict[str, Any]:
        if job.function != PINS_JOB and on_soc is not None:
            return on_soc(job, emit, stop)
        level = Level(job.argument["level"])
        return simulate_bus(
            alone[level],
            job.argument["attack"],
            level=level,
            control=job.argument["control"],
            seed=job.argument["seed"],
            on_message=emit,
            stop=stop,
        )

    return run


def _reports(results: Mapping[str, Mapping[str, Any]], *, control: bool) -> list[Mapping[str, Any]]:
    return [report for result in results.values() if result["control"] is control for report in result["attacks"]]

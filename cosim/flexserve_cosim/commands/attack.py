"""``flexserve attack``: every attack on the RTL, and a control of each, which must succeed."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from flexserve_sw.attacker.case import select
from flexserve_sw.attacker.suite import ATTACKS
from flexserve_sw.errors import UserError

from ..build import build
from ..outputs import pending
from ..report.attacks import attacks_page
from ..results import attack_summary
from ..sessions import Job, run_jobs
from ..tables import attack_table
from ..toolchain import find_toolchain
from ..views import view
from .common import on_rtl, soc_params

__all__ = ["AttackOptions", "attack"]

JOB = "flexserve_sw.attacker.job:attack"
CONTROLS = {False: "attacks", True: "controls"}
"""Names of the two sessions, by whether the protection is off."""


@dataclass(frozen=True, kw_only=True)
class AttackOptions:
    """The command line of ``flexserve attack``; see its help."""

    attacks: tuple[str, ...]
    array: int
    seed: int
    json: Path | None
    report: Path | None


def attack(options: AttackOptions, console: Console) -> bool:
    """Mount the attacks; return whether every one was blocked and every control succeeded."""
    names = list(options.attacks) or None
    count = len(select(ATTACKS, names))
    if not 1 <= options.seed < 1 << 31:
        raise UserError(f"The seed must be from 1 to {(1 << 31) - 1}, not {options.seed}.")
    params = soc_params(options.array)
    find_toolchain()
    with pending(options.json, options.report) as (json, report):
        done = dict.fromkeys(CONTROLS.values(), 0)
        with view(console) as watcher:
            jobs = [
                Job(name=session, function=JOB, argument={"attack": names, "control": control, "seed": options.seed})
                for control, session in CONTROLS.items()
            ]

            def on_message(job: str, message: Mapping[str, Any]) -> None:
                if message.get("kind") == "attack":
                    done[job] += 1
                    what = f"{message['name']}: {message['outcome']}"
                    watcher.step(job, done[job], count, what, message["cycle"])

            rtl = on_rtl(build("soc", params, progress=watcher.note), None, seed=options.seed)
            results = run_jobs(jobs, rtl, on_message)
        summary = attack_summary(
            results[CONTROLS[False]]["attacks"],
            results[CONTROLS[True]]["attacks"],
            about={
                "version": importlib.metadata.version("flexserve"),
                "machine": "rtl",
                "options": {"array": options.array, "seed": options.seed},
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
        f"{blocked} of {count} attacks blocked; {succeeded} of {count} controls succeeded.",
        highlight=False,
    )
    for path in (options.json, options.report):
        if path is not None:
            console.print(f"Wrote {path}", highlight=False, soft_wrap=True)
    return bool(summary["all_blocked"] and summary["all_controls_succeeded"])

"""Tables on the console."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import mean
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from flexserve_sw.attacker.case import Attack

__all__ = ["attack_list", "attack_table", "design_table", "phase_table", "recall_lines", "tries"]


def _yes(value: bool) -> Text:
    return Text("yes", style="green") if value else Text("NO", style="bold red")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    return table


def design_table(run: Mapping[str, Any]) -> Table:
    """The designs compared: what a user waits for, and what protecting them costs."""
    table = _table(
        "Designs",
        "design", "TTFT cycles", "vs flexserve", "median decode cycles/token", "NPU use", "recall cycles",
        "world switches", "violations", "bit-exact",
    )  # fmt: skip
    for name, design in run["designs"].items():
        ratio, share, decode = design["ttft_ratio"], design["npu_utilisation"], design["decode_cycles_per_token"]
        latency = design["recall"]["latency_cycles_max"]
        table.add_row(
            name,
            f"{design['ttft_cycles']:,}",
            "-" if ratio is None else f"{ratio:.2f}x",
            "-" if decode is None else f"{decode:,.0f}",
            "no NPU" if share is None else f"{100 * share:.1f} %",
            "-" if latency is None else f"{latency:,}",
            f"{design['world_switches']:,}",
            f"{design['violations']:,}",
            _yes(design["bit_exact"] and design["reference_equal"]),
        )
    return table


def phase_table(run: Mapping[str, Any]) -> Table:
    """Where the time to the first token went, in cycles that each count once."""
    designs = run["designs"]
    phases = dict.fromkeys(phase for design in designs.values() for phase in design["ttft_phases"])
    table = _table("Time to first token by phase, in cycles", "design", *phases)
    for name, design in designs.items():
        table.add_row(name, *(f"{design['ttft_phases'].get(phase, 0):,}" for phase in phases))
    return table


def recall_lines(run: Mapping[str, Any]) -> str:
    """What the recall did, in a sentence or two."""
    recall = run.get("recall")
    if recall is None or not recall["recalls"]:
        return ""
    ways = ", ".join(f"{r['pages']} by {r['by']} in {r['latency_cycles']:,} cycles" for r in recall["recalls"])
    same = "the same answer" if recall["tokens_equal"] else "ANOTHER ANSWER"
    sentence = f"Recall in the middle of the answer: {ways}; {same} as without it."
    steps, without = run["designs"][run["design"]]["decode_cycles"], recall["decode_cycles_per_token_without"]
    if not steps or without is None:
        return sentence
    return f"{sentence} With it a token takes {mean(steps):,.0f} cycles on average, without it {without:,.0f}."


def tries(evidence: Mapping[str, Any]) -> str:
    """How often an attack was tried, if it counts that."""
    number = evidence.get("trials", evidence.get("attempts"))
    return "" if number is None else f"{number:,}"


def attack_list(cases: Iterable[Attack[Any]]) -> Table:
    """Attacks with what each does."""
    table = Table(title="Attacks", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("attack", "level", "aims at", "weakness", "control is"):
        table.add_column(column, no_wrap=True)
    table.add_column("what the attacker does", overflow="fold")
    for case in cases:
        table.add_row(case.name, case.level.value, case.aim, case.weakness.number, case.kind.value, case.story)
    return table


def attack_table(attacks: Mapping[str, Any]) -> Table:
    """Attacks, what came of each, and what came of its control, with the kind of the control."""
    table = Table(title="Attacks", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("attack", "level", "aims at", "weakness"):
        table.add_column(column, no_wrap=True)
    table.add_column("tries", justify="right")
    for column in ("outcome", "control", "control is"):
        table.add_column(column)
    for attack in attacks["attacks"]:
        blocked, succeeded = attack["outcome"] == "blocked", attack["control"]["outcome"] == "succeeded"
        table.add_row(
            attack["name"],
            attack["level"],
            attack["property"],
            attack["weakness"].partition(" ")[0],
            tries(attack["evidence"]),
            Text(attack["outcome"], style="green" if blocked else "bold red"),
            Text(attack["control"]["outcome"], style="green" if succeeded else "bold red"),
            attack["control_kind"],
        )
    return table

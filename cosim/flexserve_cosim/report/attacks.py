"""The page about the attacks: each beside its control."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from .page import attack_table, page, section

__all__ = ["attacks_page", "evidence_text"]


_SHOWN = ("breaches", "leaked_bytes", "changed_bytes", "leaked_beats", "changed_beats")
"""Counts that say something when they are zero."""


def attacks_page(summary: Mapping[str, Any]) -> str:
    """HTML of what ``flexserve attack --json`` writes."""
    attacks = summary["attacks"]
    blocked = sum(attack["outcome"] == "blocked" for attack in attacks)
    succeeded = sum(attack["control"]["outcome"] == "succeeded" for attack in attacks)
    tries = sum(attack["evidence"].get("trials", attack["evidence"].get("attempts", 0)) for attack in attacks)
    by_level = Counter(attack["level"] for attack in attacks)
    levels = ", ".join(f"{count} on the {level}" for level, count in by_level.items())
    properties = sorted({attack["property"] for attack in attacks})
    shown = [{**attack, "seen": evidence_text(attack["evidence"])} for attack in attacks]
    return page(
        title="FlexServe under attack",
        subtitle="A compromised kernel, hostile devices and a hostile bus, cycle by cycle against the RTL",
        answer=None,
        cards=[
            (f"{blocked} of {len(attacks)}", "Attacks blocked", levels),
            (f"{succeeded} of {len(attacks)}", "Controls succeeded", "where what should stop the attack is missing"),
            (f"{tries:,}", "Single tries", "counted by attacks that sweep"),
            (str(len(properties)), "Properties aimed at", ", ".join(properties)),
        ],
        sections=[
            section(
                "Attacks",
                "Each verdict is computed from what the attacker saw. A control that succeeds shows that the attack is "
                "able to.",
                attack_table(shown),
            )
        ],
        foot=f"FlexServe {summary['version']}, seed {summary['options']['seed']}.",
    )


def evidence_text(evidence: Mapping[str, Any]) -> str:
    """What an attacker saw, in a line; counts that stayed zero are left out, but for leaks and changes."""
    parts = []
    for name, value in evidence.items():
        label = name.replace("_", " ")
        match value:
            case bool():
                parts.append(f"{label}: {'yes' if value else 'no'}")
            case str():
                parts.append(f"{label}: {value}")
            case int():
                parts += [f"{value:,} {label}"] if value or name in _SHOWN else []
            case Mapping():
                parts += [f"{label}: {', '.join(f'{k} {v}' for k, v in value.items())}"] if value else []
            case _:
                parts.append(f"{label}: {', '.join(map(str, value)) or 'none'}")
    return "; ".join(parts)

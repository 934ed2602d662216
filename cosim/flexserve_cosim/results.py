"""What came of a run, put together from the results of its sessions: the content of ``--json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

__all__ = ["Clock", "attack_summary", "failures", "run_summary"]

Message = Mapping[str, Any]

REFERENCE = "flexserve"
"""Design that the others are compared with, and whose answer a run shows."""


class Clock:
    """Simulation speed over a phase, from the stamps on a session's messages."""

    def __init__(self, phase: str) -> None:
        self._phase = phase
        self._begin: tuple[int, float] | None = None
        self.khz: float | None = None

    def see(self, message: Message) -> None:
        """Take note of a message with ``cycle`` and ``time``."""
        if message.get("kind") != "phase" or message["name"] != self._phase:
            return
        stamp = (int(message["cycle"]), float(message["time"]))
        if message["event"] == "begin":
            self._begin = stamp
        elif self._begin is not None and stamp[1] > self._begin[1]:
            self.khz = (stamp[0] - self._begin[0]) / (stamp[1] - self._begin[1]) / 1e3


def run_summary(
    designs: Mapping[str, Message],
    calm: Message | None,
    *,
    speeds: Mapping[str, float | None],
    about: Message,
) -> dict[str, Any]:
    """Summary of a run.

    Parameters
    ----------
    designs
        Result of the serving job per design.
    calm
        Result of the reference design without memory pressure, if it ran with pressure too.
    speeds
        Simulation speed in prefill per session, kHz; ``sim_khz`` is the median of those that use the NPU.
    about
        Entries about the run as a whole (version, prompt, options, perplexity, ...), taken over as they are.
    """
    shown = REFERENCE if REFERENCE in designs else next(iter(designs))
    answer = designs[shown]
    sessions = [*designs.values(), *([calm] if calm is not None else [])]
    base = designs[REFERENCE]["ttft_cycles"] if REFERENCE in designs else None
    # Only sessions whose prefill runs on the array tell how fast the array simulates.
    on_npu = {name for name, result in designs.items() if result["npu"] is not None}
    measured = [khz for name, khz in speeds.items() if khz is not None and (name in on_npu or name not in designs)]
    summary: dict[str, Any] = {
        **about,
        "design": shown,
        "text": answer["text"],
        "tokens": answer["tokens"],
        "bit_exact": all(s["bit_exact"] and s["reference_equal"] for s in sessions),
        "compared_values": sum(s["compared_values"] for s in sessions),
        "sim_khz": median(measured) if measured else None,
        "sim_khz_sessions": measured,
        "sim_cycles": sum(s["simulation"]["cycles"] for s in sessions),
        "peak_memory_bytes": max(s["simulation"]["peak_rss_bytes"] for s in sessions),
        "world_switches": answer["world_switches"],
        "violations": sum(s["violations"] for s in sessions),
        "npu_utilisation": None if answer["npu"] is None else answer["npu"]["useful_utilisation"],
        "ttft_ratios": _ratios(designs, base),
        "designs": {name: _design(result, speeds[name], base) for name, result in designs.items()},
    }
    if calm is not None:
        summary["recall"] = {
            **answer["recall"],
            "tokens_equal": answer["tokens"] == calm["tokens"],
            "decode_cycles_per_token_without": calm["decode_cycles_per_token"],
        }
    return summary


def failures(summary: Message) -> list[str]:
    """What in a run's summary is not as it must be, a sentence each."""
    wrong = []
    if not summary["bit_exact"]:
        wrong.append("A value or a token differs from the int8 reference.")
    if "recall" in summary and not summary["recall"]["tokens_equal"]:
        wrong.append("The answer with recalls differs from the answer without.")
    return wrong


def _ratios(designs: Mapping[str, Message], base: int | None) -> dict[str, float]:
    """Time to first token of the other designs as a multiple of the reference's."""
    return {} if base is None else {n: d["ttft_cycles"] / base for n, d in designs.items() if n != REFERENCE}


def _design(result: Message, khz: float | None, base: int | None) -> dict[str, Any]:
    simulation = result["simulation"]
    return {
        "ttft_cycles": result["ttft_cycles"],
        "ttft_ratio": None if base is None else result["ttft_cycles"] / base,
        "ttft_phases": result["ttft_phases"],
        "ttft_busy": result["ttft_busy"],
        "decode_cycles_per_token": result["decode_cycles_per_token"],
        "decode_cycles": result["decode_cycles"],
        "npu": result["npu"],
        "npu_utilisation": None if result["npu"] is None else result["npu"]["useful_utilisation"],
        "tokens": result["tokens"],
        "bit_exact": result["bit_exact"],
        "reference_equal": result["reference_equal"],
        "compared_values": result["compared_values"],
        "world_switches": result["world_switches"],
        "violations": result["violations"],
        "recall": result["recall"],
        "pages_moved": result["pages_moved"],
        "cma_pages_migrated": result["cma_pages_migrated"],
        "sim_khz": khz,
        "sim_cycles": simulation["cycles"],
        "sim_seconds": simulation["seconds"],
        "peak_memory_bytes": simulation["peak_rss_bytes"],
    }


def attack_summary(attacks: Sequence[Message], controls: Sequence[Message], *, about: Message) -> dict[str, Any]:
    """Summary of the attacks: each with the report of its control, where what should stop it is missing."""
    by_name = {control["name"]: control for control in controls}
    if sorted(by_name) != sorted(attack["name"] for attack in attacks):
        raise ValueError(f"Every attack must have one control, not {sorted(by_name)!r}")
    paired = [
        {
            **{key: value for key, value in attack.items() if key not in ("kind", "control")},
            "control": {
                "how": by_name[attack["name"]]["control"],
                **{key: by_name[attack["name"]][key] for key in ("outcome", "evidence", "cycles")},
            },
        }
        for attack in sorted(attacks, key=lambda attack: str(attack["property"]))
    ]
    return {
        **about,
        "attacks": paired,
        "all_blocked": all(attack["outcome"] == "blocked" for attack in paired),
        "all_controls_succeeded": all(attack["control"]["outcome"] == "succeeded" for attack in paired),
    }

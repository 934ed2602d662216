"""Write docs/attacks.md from the catalogues of attacks. ``make docs`` runs it; a test holds the page equal to it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flexserve_cosim.bus_attacks.suite import AGAIN
from flexserve_cosim.commands.attack import ALL_ATTACKS
from flexserve_sw.attacker.case import Attack, Level

PAGE = Path(__file__).parent / "attacks.md"

_INTRO = """# Attacks

Generated from the catalogues in `sw/flexserve_sw/attacker/` and `cosim/flexserve_cosim/bus_attacks/` by `make docs`.
`make attack` mounts all of them on the RTL, each beside a control that must succeed; `flexserve attack --list` shows
them, `--attack NAME` and `--only LEVEL` choose. What a kind of control means is in [verification](verification.md).
"""

_LEVELS = {
    Level.SYSTEM: """The attacker is software and devices on the simulated phone: a compromised kernel, a hostile DMA
device, a storage controller, an NPU in the wrong hands. The same attacks run on the transaction-level machine.""",
    Level.BUS: """The attacker drives the pins of the filter alone: it holds any beat of any channel, commands in any
cycle, resets, and has a memory below that reads and writes as late as AXI lets it. Stored bits are upset, and hardware
is broken for a control, through signals that only this build of the simulator shows; the product has no port for it.
The filter has a small table and window, so that resets are cheap; its buses, queues and depths are the product's.""",
    Level.TABLE: """The same attacker, and the same filter with its page-state table in memory. All {again} attacks on
the bus are mounted on it once more, under their names with `cached-` before them, while the cache gives up all its
entries every few cycles and lines arrive as late as AXI lets them. These are its own. The table lies in the same memory
as everything else; what memory does wrong in a control, it does wrong in more than the filter is built for.""",
}


def render() -> str:
    """Text of the page."""
    lines = [_INTRO]
    for level, text in _LEVELS.items():
        cases = [case for case in ALL_ATTACKS.values() if case.level is level]
        own = [case for case in cases if not case.name.startswith(AGAIN)]
        text = text.format(again=len(cases) - len(own))
        lines += [f"## {level.value.capitalize()} ({len(cases)})", "", text, "", *_table(own), ""]
    lines += ["## By weakness", "", "| weakness | attacks |", "|---|---|"]
    # Catalogues are in the order of imports, which is not always the same.
    by_name = sorted(
        (case for case in ALL_ATTACKS.values() if not case.name.startswith(AGAIN)), key=lambda case: case.name
    )
    for weakness in sorted({case.weakness for case in ALL_ATTACKS.values()}, key=lambda w: int(w.number[4:])):
        names = ", ".join(f"`{case.name}`" for case in by_name if case.weakness is weakness)
        lines.append(f"| {weakness.value} | {names} |")
    return "\n".join(lines) + "\n"


def _table(cases: Iterable[Attack[Any]]) -> list[str]:
    lines = ["| attack | aims at | weakness | what the attacker does | control |", "|---|---|---|---|---|"]
    for case in sorted(cases, key=lambda case: (case.aim, case.name)):
        control = f"*{case.kind.value}*: {case.control}"
        lines.append(f"| `{case.name}` | {case.aim} | {case.weakness.number} | {case.story} | {control} |")
    return lines


if __name__ == "__main__":
    PAGE.write_text(render())

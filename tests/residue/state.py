"""Every register and memory of a design, from its netlist, and which of them a scrub brings to a fixed value."""

import json
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from amaranth.back import rtlil

from tests.mutants.netlist import yosys

from .ternary import Ternary

__all__ = ["KEPT", "Element", "Kept", "elements", "kept", "netlist", "scrub"]

KEPT = Path(__file__).with_name("kept.toml")


@dataclass(frozen=True, kw_only=True)
class Element:
    """A register, or a memory's words or its read register: its bits, and whether a scrub leaves its reset value in it.

    Words count as scrubbed if all are zero, and the read register likewise.
    """

    name: str
    bits: int
    scrubbed: bool


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a scrub leaves alone: names (patterns), its class, and the reason why that gives nothing away."""

    names: tuple[str, ...]
    kind: str
    reason: str

    def covers(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.names)


def kept(part: str) -> list[Kept]:
    """The entries of ``kept.toml`` for a part of the design."""
    entries = tomllib.loads(KEPT.read_text())[part]
    return [Kept(names=tuple(e["names"]), kind=e["kind"], reason=e["reason"]) for e in entries]


def netlist(component, folder: Path) -> Ternary:
    """A component's flat netlist, all of it unknown."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "source.il").write_text(rtlil.convert(component, name="design"))
    flat = ["hierarchy -top design", "proc", "flatten", "memory_collect", "write_json flat.json"]
    yosys(folder, "flat", "source.il", flat)
    return Ternary(json.loads((folder / "flat.json").read_text())["modules"]["design"])


def scrub(design: Ternary, *, limit: int) -> int:
    """Scrub an NPU whose whole state and whose inputs are unknown, as the gate does it; return the cycles.

    Known is what a scrub begins with: the gate asks for it and no frame is live, the controller is idle and has not
    scrubbed yet, and no job is queued or about to be. ``drained`` says so of the jobs: with any of them it is not high.
    """
    for name, value in (("rst", 0), ("drain", 1), ("scrub", 1), ("live_normal", 0), ("live_secure", 0)):
        design.assume(design.net(name), value)
    for name in ("control_state", "finished"):
        design.assume(design.net(name), 0)
    (drained,), (scrubbed,) = design.net("drained"), design.net("scrubbed")
    jobs = [bit for name in ("queue.level", "normal_ring", "secure_ring") for bit in design.net(f"frames.{name}")]
    for bit in jobs:
        design.assume([bit], 1)
        design.settle()
        if design.read(drained) != 0:
            raise ValueError("With a job queued or about to be the NPU must not be drained")
        design.assume([bit], 0)
    design.settle()
    if design.read(drained) != 1 or design.read(scrubbed) != 0:
        raise ValueError("A scrub must begin drained and not scrubbed")
    for cycle in range(1, limit + 1):
        design.step()
        if design.read(scrubbed) == 1:
            return cycle
    raise ValueError(f"A scrub must end within {limit} cycles whatever the state, not later")


def elements(design: Ternary) -> list[Element]:
    """Every register and memory, and whether its value is known to be the one after a reset, or zero."""
    found = [
        Element(
            name=register.name,
            bits=len(register.bits),
            scrubbed=all(design.read(bit) == value for bit, value in zip(register.bits, register.reset, strict=True)),
        )
        for register in design.registers
    ]
    for array in design.arrays:
        clean = all(not any(bit != 0 for bit in word) for word in array.words)
        found.append(Element(name=f"{array.name} words", bits=len(array.words) * array.width, scrubbed=clean))
        output = all(design.read(bit) == 0 for bit in array.output)
        found.append(Element(name=f"{array.name} read register", bits=array.width, scrubbed=output))
    return found

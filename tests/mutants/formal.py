"""Kill mutants by the proofs of ``tests/formal``: a mutant that refutes a claim is killed."""

import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl import Fragment
from amaranth.lib import wiring

from flexserve_hw.regs.block import RegisterBlock
from tests.formal.engines import ABC
from tests.formal.harness import BAD, Harness, Proof
from tests.formal.model import PREPARE, TO_AIG
from tests.formal.runner import proofs

from .aiger import Aiger
from .netlist import CONTROL, Mutant, Netlist

__all__ = ["MutantModel", "Verdict", "components", "equivalent", "proof_models", "search", "with_mutants"]


def components(fragment: Fragment, path: str = "") -> Iterator[tuple[str, str]]:
    """Kind and path of every component of a design; a kind is a class, of register blocks the map too."""
    for origin in fragment.origins or ():
        if isinstance(origin, wiring.Component):
            kind = type(origin).__name__
            yield (f"{kind} {origin._map.inst_name}" if isinstance(origin, RegisterBlock) else kind), path
    for child, name, _ in fragment.subfragments:
        yield from components(child, f"{path}.{name}" if path else name)


@dataclass(frozen=True, kw_only=True)
class MutantModel:
    """A netlist in AIGER with mutants in it, to be chosen by its control inputs.

    ``found`` are the numbers of the mutants that have a place in it, ``control`` the bits of the choice by input,
    ``outputs`` those that are looked at.
    """

    name: str
    folder: Path
    found: frozenset[int]
    aiger: Aiger
    control: dict[int, int]
    outputs: tuple[int, ...]

    def write(self, path: Path, mutant: int) -> None:
        """The netlist with one mutant, or with none for 0."""
        fixed = {number: bool(mutant >> bit & 1) for number, bit in self.control.items()}
        self.aiger.write(path, fixed=fixed, outputs=list(self.outputs))


def with_mutants(
    name: str,
    folder: Path,
    source: str,
    *,
    places: Sequence[tuple[str, str]],
    mutants: Sequence[Mutant],
    watched: str,
) -> MutantModel | None:
    """Put ``mutants`` into a netlist whose ``places`` (path, part of the design that stands there) are under mutation.

    ``watched`` is a pattern of the outputs to look at. None if no mutant has a place in the netlist.
    """
    netlist = Netlist(folder, source, top="top")
    commands, found = [], set()
    for mutant in mutants:
        for root, below in places:
            command = netlist.find(mutant, root=root, below=below)
            if command:
                commands.append(command)
                found.add(mutant.number)
    if not found:
        return None
    netlist.mutate(commands, [*PREPARE.split("\n"), *TO_AIG.split("\n")])
    control: dict[int, int] = {}
    outputs = []
    for line in (folder / "design.aim").read_text().splitlines():
        kind, number, *rest = line.split()
        if len(rest) != 2:
            continue
        bit, signal = rest
        if kind == "input" and signal == CONTROL:
            control[int(number)] = int(bit)
        elif kind == "output" and re.fullmatch(watched, signal):
            outputs.append(int(number))
    return MutantModel(
        name=name,
        folder=folder,
        found=frozenset(found),
        aiger=Aiger.read(folder / "design.aig"),
        control=control,
        outputs=tuple(outputs),
    )


def _places(harness: Harness, design: dict[str, list[str]]) -> list[tuple[str, str]]:
    """Where in a proof which parts of the design stand."""
    places = []
    for name, fragment in harness.designs.items():
        kinds = [kind for kind, path in components(fragment) if not path]
        places += [(name, path) for kind in kinds for path in design.get(kind, ())]
    return places


def proof_models(
    folder: Path, design: Fragment, mutants: Sequence[Mutant], words: Sequence[str] = ()
) -> list[MutantModel]:
    """The models of all proofs on ``design`` and its parts, smallest first."""
    paths: dict[str, list[str]] = {}
    for kind, path in components(design):
        paths.setdefault(kind, []).append(path)
    models = []
    for proof in proofs(words):
        model = _model(folder / proof.name, proof, paths, mutants)
        if model is not None:
            models.append(model)
    return sorted(models, key=lambda model: len(model.aiger.ands))


def _model(folder: Path, proof: Proof, paths: dict[str, list[str]], mutants: Sequence[Mutant]) -> MutantModel | None:
    harness = proof.harness()
    places = _places(harness, paths)
    if not places:
        return None
    module, ports = harness.finish()
    source = rtlil.convert(module, ports=ports, name="top")
    return with_mutants(proof.name, folder, source, places=places, mutants=mutants, watched=f"{BAD}.*")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a proof says of a mutant: a claim is ``refuted`` after so many cycles, or all are ``proved``, or neither."""

    refuted: int | None
    proved: bool


def search(model: MutantModel, mutant: int, *, seconds: int) -> Verdict:
    """Prove or refute the claims with this mutant, each for ``seconds`` at most."""
    path = model.folder / f"mutant{mutant}.aig"
    model.write(path, mutant)
    # Where nothing is refuted, merging all that is equal most often leaves nothing to search.
    reduce = "strash; orpos; scleanup; scorr; dc2"
    text = abc(f"read_aiger {path.name}; {reduce}; bmc3 -T {seconds} -F 50; pdr -T {seconds}", model.folder)
    path.unlink()
    refuted = re.search(r"asserted in frame (\d+)", text)
    return Verdict(refuted=int(refuted[1]) + 1 if refuted else None, proved="Property proved" in text)


def equivalent(model: MutantModel, mutant: int, *, seconds: int) -> bool:
    """Whether no input sequence after reset ever tells the mutant from the original, by induction and PDR."""
    names = ("original.aig", "mutant.aig")
    for name, number in zip(names, (0, mutant), strict=True):
        model.write(model.folder / name, number)
    reduce = "scleanup; scorr; dc2; scorr -F 2"
    text = abc(f"miter {' '.join(names)}; {reduce}; print_stats; pdr -T {seconds}", model.folder)
    for name in names:
        (model.folder / name).unlink()
    return "Property proved" in text or "Networks are equivalent" in text


def abc(commands: str, folder: Path, *, limit: int = 900) -> str:
    """What ABC says."""
    try:
        return subprocess.run(
            [str(ABC), "-c", commands], cwd=folder, capture_output=True, text=True, timeout=limit, check=False
        ).stdout
    except subprocess.TimeoutExpired:
        return ""

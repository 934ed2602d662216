"""Three-valued simulation of a flat netlist: a bit is 0, 1, or unknown; what is known holds whatever the unknown is.

Every operation may call a bit unknown that is not, never the other way round. So a register that ends known, from a
state in which everything is unknown, has that value from *every* state and for *every* input that was unknown.
"""

import re
from collections import defaultdict
from dataclasses import dataclass
from heapq import heappop, heappush

from .operations import OPERATIONS, merge

__all__ = ["Array", "Register", "Ternary"]


@dataclass(frozen=True)
class Register:
    """Flip-flops of the netlist with one name: their nets, their next values' nets, and what a reset makes of them."""

    name: str
    bits: tuple
    nexts: tuple
    reset: tuple


class Array:
    """A memory of the netlist: one clocked write port, one clocked read port whose output is a register.

    ``words`` are tuples of bits; ``output`` the nets of the read register.
    """

    def __init__(self, name: str, cell: dict) -> None:
        ports = {key: int(cell["parameters"][key], 2) for key in ("RD_PORTS", "WR_PORTS")}
        clocked = {cell["parameters"][key] for key in ("RD_CLK_ENABLE", "WR_CLK_ENABLE")}
        plain = {bit for key in ("RD_ARST", "RD_SRST") for bit in cell["connections"][key]} == {"0"}
        if set(ports.values()) != {1} or clocked != {"1"} or not plain:
            raise ValueError(f"Memory must have one clocked port each to write and to read, not {ports!r}: {name}")
        self.name = name
        self.width = int(cell["parameters"]["WIDTH"], 2)
        self.nets = cell["connections"]
        self.output = tuple(self.nets["RD_DATA"])
        self.words = [(None,) * self.width] * int(cell["parameters"]["SIZE"], 2)

    def write(self, read) -> None:
        """A clock edge at the write port; ``read`` gives the value of a net."""
        enables = [read(bit) for bit in self.nets["WR_EN"]]
        if enables.count(0) == self.width:
            return
        data = [read(bit) for bit in self.nets["WR_DATA"]]
        address = [read(bit) for bit in self.nets["WR_ADDR"]]
        known = None not in address
        places = [sum(bit << i for i, bit in enumerate(address))] if known else range(len(self.words))
        for place in places:
            word = self.words[place]
            if known and enables.count(1) == self.width:
                self.words[place] = tuple(data)
                continue
            written = tuple(new if enable else old for new, old, enable in zip(data, word, enables, strict=True))
            sure = known and None not in enables
            self.words[place] = written if sure else tuple(map(merge, zip(word, written, strict=True)))

    def read(self, read) -> tuple:
        """What the read register becomes at a clock edge."""
        enable = read(self.nets["RD_EN"][0])
        held = tuple(map(read, self.output))
        if enable == 0:
            return held
        address = [read(bit) for bit in self.nets["RD_ADDR"]]
        word = (None,) * self.width
        if None not in address:
            word = self.words[sum(bit << i for i, bit in enumerate(address))]
        return word if enable else tuple(map(merge, zip(held, word, strict=True)))


class Ternary:
    """Simulates ``flat``, a module of Yosys's JSON: processes made cells, memories collected, one clock.

    All is unknown until ``assume`` says otherwise. Nets are numbers, as in the netlist; None is an unknown bit.
    """

    def __init__(self, flat: dict) -> None:
        cells = {name: cell for name, cell in flat["cells"].items() if cell["type"] != "$scopeinfo"}
        strange = {cell["type"] for cell in cells.values()} - {"$dff", "$mem_v2", *OPERATIONS}
        if strange:
            raise ValueError(f"Cells must be of known types, not {sorted(strange)!r}")
        self._flat = flat
        self._values: dict = defaultdict(lambda: None, {"0": 0, "1": 1})
        self.arrays = [
            Array(cell["parameters"]["MEMID"].lstrip("\\"), cell)
            for cell in cells.values()
            if cell["type"] == "$mem_v2"
        ]
        self.registers = list(self._registers({n: cell for n, cell in cells.items() if cell["type"] == "$dff"}))
        operations = [cell for cell in cells.values() if cell["type"] in OPERATIONS]
        self._operations = _sorted(operations)
        self._users = defaultdict(list)
        for index, cell in enumerate(self._operations):
            for bit in {bit for port in ("A", "B", "S") for bit in cell["connections"].get(port, ())}:
                self._users[bit].append(index)
        self._dirty = list(range(len(self._operations)))
        self._waiting = set(self._dirty)

    def _registers(self, cells):
        """Registers by the shortest name that their bits have in the submodule that they stand in."""
        names: dict = {}
        resets: dict = {}
        for path, net in sorted(self._flat["netnames"].items(), key=lambda item: (len(item[0]), item[0])):
            module, _, name = path.rpartition(".")
            init = net["attributes"].get("init")
            for index, bit in enumerate(net["bits"]):
                if not net["hide_name"] or name.startswith("$signal"):
                    names.setdefault((module, bit), path)
                if init is not None and init[-1 - index] in "01":
                    resets[bit] = int(init[-1 - index])
        for cell, content in cells.items():
            module = ".".join(re.findall(r"\\([^.]+)(?=\.)", cell.removeprefix("$flatten")))
            bits, nexts = content["connections"]["Q"], content["connections"]["D"]
            yield Register(names[module, bits[0]], tuple(bits), tuple(nexts), tuple(map(resets.get, bits)))

    def net(self, name: str) -> tuple:
        """The bits of a public name."""
        return tuple(self._flat["netnames"][name]["bits"])

    def read(self, bit) -> int | None:
        """Value of a bit after :meth:`settle`."""
        return self._values[bit]

    def assume(self, bits, value: int) -> None:
        """Let inputs or registers have this value from now on, registers until the next edge."""
        for index, bit in enumerate(bits):
            self._set(bit, value >> index & 1)

    def _set(self, bit, value: int | None) -> None:
        if self._values[bit] != value:
            self._values[bit] = value
            for user in self._users[bit]:
                if user not in self._waiting:
                    self._waiting.add(user)
                    heappush(self._dirty, user)

    def settle(self) -> None:
        """Let combinational logic follow."""
        while self._dirty:
            index = heappop(self._dirty)
            self._waiting.discard(index)
            cell = self._operations[index]
            nets = cell["connections"]
            words = {port: [self._values[bit] for bit in nets[port]] for port in ("A", "B", "S") if port in nets}
            results = OPERATIONS[cell["type"]](words, cell["parameters"], len(nets["Y"]))
            for bit, value in zip(nets["Y"], results, strict=True):
                self._set(bit, value)

    def step(self) -> None:
        """A clock edge."""
        self.settle()
        updates = [(r.bits, [self._values[bit] for bit in r.nexts]) for r in self.registers]
        updates += [(array.output, array.read(self.read)) for array in self.arrays]
        for array in self.arrays:
            array.write(self.read)
        for bits, values in updates:
            for bit, value in zip(bits, values, strict=True):
                self._set(bit, value)
        self.settle()


def _sorted(cells: list[dict]) -> list[dict]:
    """Operations so that each comes after those that it depends on."""
    maker = {bit: index for index, cell in enumerate(cells) for bit in cell["connections"]["Y"]}
    needs = [
        {maker[bit] for port in ("A", "B", "S") for bit in cell["connections"].get(port, ()) if bit in maker}
        for cell in cells
    ]
    users = defaultdict(list)
    for index, sources in enumerate(needs):
        for source in sources:
            users[source].append(index)
    ready = [index for index, sources in enumerate(needs) if not sources]
    left = [len(sources) for sources in needs]
    order = []
    while ready:
        index = ready.pop()
        order.append(index)
        for user in users[index]:
            left[user] -= 1
            if not left[user]:
                ready.append(user)
    if len(order) != len(cells):
        raise ValueError("Netlist must have no combinational loop")
    return [cells[index] for index in order]

"""Binary AIGER files with some inputs fixed: one netlist serves for all mutants in it."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Aiger"]


@dataclass(frozen=True, kw_only=True)
class Aiger:
    """An AIGER file; a literal is twice a variable, plus one if inverted, and variable 0 is false."""

    inputs: int
    latches: tuple[int, ...]
    outputs: tuple[int, ...]
    ands: tuple[tuple[int, int], ...]

    @classmethod
    def read(cls, path: Path) -> "Aiger":
        """Read a file whose latches all start at zero."""
        content = path.read_bytes()
        header, _, rest = content.partition(b"\n")
        kind, _, inputs, latches, outputs, ands = header.split()[:6]
        if kind != b"aig":
            raise ValueError(f"File must be binary AIGER, not {kind!r}")
        lines = rest.split(b"\n", int(latches) + int(outputs))
        nexts = tuple(int(line.split()[0]) for line in lines[: int(latches)])
        if any(len(line.split()) > 1 and line.split()[1] != b"0" for line in lines[: int(latches)]):
            raise ValueError("Latches must all start at zero")
        ends = tuple(int(line) for line in lines[int(latches) : -1])
        return cls(
            inputs=int(inputs),
            latches=nexts,
            outputs=ends,
            ands=tuple(_gates(lines[-1], int(inputs) + int(latches), int(ands))),
        )

    def write(self, path: Path, *, fixed: dict[int, bool], outputs: list[int]) -> None:
        """Write the file with the inputs of ``fixed`` constant, and only the ``outputs`` of these numbers.

        Fixed inputs stay in the file, so that all such files have the same inputs, but nothing depends on them.
        """
        first = 1 + self.inputs + len(self.latches)
        literal = [2 * variable for variable in range(first + len(self.ands))]
        for number, value in fixed.items():
            literal[1 + number] = int(value)
        fresh: list[tuple[int, int]] = []
        for offset, (left, right) in enumerate(self.ands):
            a, b = literal[left >> 1] ^ (left & 1), literal[right >> 1] ^ (right & 1)
            if a < b:
                a, b = b, a
            if b == 0 or a ^ b == 1:
                value = 0
            elif b == 1 or a == b:
                value = a
            else:
                value = 2 * (first + len(fresh))
                fresh.append((a, b))
            literal[first + offset] = value
        body = bytearray()
        for offset, (a, b) in enumerate(fresh):
            _encode(body, 2 * (first + offset) - a)
            _encode(body, a - b)
        ends = [literal[self.outputs[n] >> 1] ^ (self.outputs[n] & 1) for n in outputs]
        nexts = [literal[end >> 1] ^ (end & 1) for end in self.latches]
        top = first - 1 + len(fresh)
        head = f"aig {top} {self.inputs} {len(nexts)} {len(ends)} {len(fresh)}\n"
        text = head + "".join(f"{value}\n" for value in (*nexts, *ends))
        path.write_bytes(text.encode() + bytes(body))


def _gates(content: bytes, variables: int, count: int):
    position = 0
    for number in range(count):
        deltas = []
        for _ in range(2):
            value = shift = 0
            while content[position] & 0x80:
                value |= (content[position] & 0x7F) << shift
                shift += 7
                position += 1
            deltas.append(value | content[position] << shift)
            position += 1
        left = 2 * (1 + variables + number) - deltas[0]
        yield left, left - deltas[1]


def _encode(body: bytearray, value: int) -> None:
    while value & ~0x7F:
        body.append(value & 0x7F | 0x80)
        value >>= 7
    body.append(value)

"""Puts masks back together that Yosys takes apart, which costs Verilator an operation per bit.

``x & 64'h3333_3333_3333_3333`` comes out of Yosys as two assignments, one of zeros and one of wires, between dozens of
slices. Verilator assembles the word from them bit by bit, in every cycle; of a mask it makes one instruction.
"""

from __future__ import annotations

import re
from collections import defaultdict

__all__ = ["whole_masks"]

_NAME = r"(?:\\\S+ |[A-Za-z_][\w$]*)"
_SLICE = rf"{_NAME} ?\[\d+(?::\d+)?\]"
_LIST = rf"\{{ {_SLICE}(?:, {_SLICE})* \}}"
_ASSIGN = re.compile(rf"^  assign ({_LIST}|{_SLICE}) = ({_LIST}|{_SLICE}|\d+'[dh]0+);\n", re.MULTILINE)
_PART = re.compile(rf"({_NAME}) ?\[(\d+)(?::(\d+))?\]")
_WIRE = re.compile(rf"^  (?:wire|reg|input|output(?: reg)?) \[(\d+):0\] ({_NAME}) ?(?:=[^;]*)?;$", re.MULTILINE)

_LEAST = 4
"""Slices from which on an assignment is worth it."""

Bit = tuple[str, int]


def whole_masks(verilog: str) -> str:
    """The same modules, with every wire that is another one, shifted and masked, assigned as that."""
    return "".join(_module(part) for part in re.split(r"(?m)^(?=(?:\(\*.*\*\)\n)*module )", verilog))


def _module(text: str) -> str:
    widths = {name.strip(): int(top) + 1 for top, name in _WIRE.findall(text)}
    statements: dict[str, list[re.Match[str]]] = defaultdict(list)
    for match in _ASSIGN.finditer(text):
        targets = {name.strip() for name, _, _ in _PART.findall(match[1])}
        if len(targets) == 1:
            statements[targets.pop()].append(match)
    changes: list[tuple[int, int, str]] = []
    for name, matches in statements.items():
        whole = _whole(name, widths, matches)
        if whole is not None:
            changes.append((*matches[0].span(), whole))
            changes += [(*match.span(), "") for match in matches[1:]]
    for begin, end, new in sorted(changes, reverse=True):
        text = text[:begin] + new + text[end:]
    return text


def _whole(name: str, widths: dict[str, int], matches: list[re.Match[str]]) -> str | None:
    """One assignment in place of ``matches``, or None if they are no mask of one wire."""
    if name not in widths or sum(len(_PART.findall(match[1])) for match in matches) < _LEAST:
        return None
    source: dict[int, Bit | None] = {}
    for match in matches:
        targets = _bits(match[1])
        values: list[Bit | None] = list(_bits(match[2]))
        if "'" in match[2].partition("[")[0]:
            values = [None] * len(targets)
        if len(values) != len(targets):
            return None
        source.update((at, value) for (_, at), value in zip(targets, values, strict=True))
    used = {(value[0], value[1] - at) for at, value in source.items() if value is not None}
    if set(source) != set(range(widths[name])) or len(used) != 1:
        return None
    wire, shift = used.pop()
    if wire not in widths:
        return None
    width = widths[name]
    mask = sum(1 << at for at, value in source.items() if value is not None)
    low, high = max(0, shift), min(widths[wire], width + shift) - 1
    part = f"{_named(wire)}[{high}:{low}]"
    moved = part if shift >= 0 else f"{{ {part}, {-shift}'h0 }}"
    return f"  assign {_named(name)} = {moved} & {width}'h{mask:x};\n"


def _bits(text: str) -> list[Bit]:
    """Bits that a slice or a concatenation of slices names, the highest first."""
    found: list[Bit] = []
    for name, high, low in _PART.findall(text):
        found += [(name.strip(), at) for at in range(int(high), int(low or high) - 1, -1)]
    return found


def _named(name: str) -> str:
    """The name as it is written in an expression."""
    return f"{name} " if name.startswith("\\") else name

"""Write the register map as typed Python constants for software.

The output is committed as ``sw/flexserve_sw/regs.py``; a test holds it equal to what this module writes.
"""

from collections.abc import Iterator
from enum import Enum

from systemrdl.node import AddrmapNode, FieldNode, Node, RegfileNode, RegNode

from .source import DESCRIPTORS, elaborate

_HEADER = '''"""Registers, descriptors and code words. Generated from the SystemRDL sources by ``make regs``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, TypeVar


class Field:
    """Bits ``lsb`` to ``lsb + width - 1`` of a 32-bit register or descriptor word."""

    __slots__ = ("_end", "_mask", "lsb", "width")

    def __init__(self, lsb: int, width: int) -> None:
        self.lsb, self.width = lsb, width
        self._end = 1 << width
        self._mask = self._end - 1

    def get(self, word: int) -> int:
        """Value of the field in ``word``."""
        return word >> self.lsb & self._mask

    def put(self, value: int) -> int:
        """``value`` shifted into place; ``ValueError`` if it does not fit."""
        if not 0 <= value < self._end:
            raise ValueError(f"Field value must fit {self.width} bits, not {value!r}")
        return value << self.lsb


@dataclass(frozen=True)
class Block:
    """A group of registers at byte address ``base``."""

    base: int


class Reg:
    """Offset in a block; on an instance, the register's byte address, which the instance keeps."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self._name = ""

    def __set_name__(self, owner: type[Block], name: str) -> None:
        self._name = name

    def __get__(self, block: Block, owner: type[Block]) -> int:
        address: int = block.__dict__.setdefault(self._name, block.base + self.offset)
        return address


B = TypeVar("B", bound=Block)


class Sub(Generic[B]):
    """A block within a block; on an instance, that block, which the instance keeps."""

    def __init__(self, offset: int, kind: type[B]) -> None:
        self.offset = offset
        self.kind = kind
        self._name = ""

    def __set_name__(self, owner: type[Block], name: str) -> None:
        self._name = name

    def __get__(self, block: Block, owner: type[Block]) -> B:
        part: B = block.__dict__.setdefault(self._name, self.kind(block.base + self.offset))
        return part


class Subs(Generic[B]):
    """An array of blocks within a block; on an instance, the tuple of them."""

    def __init__(self, offset: int, kind: type[B], count: int, step: int) -> None:
        self.offset, self.kind, self.count, self.step = offset, kind, count, step

    def __get__(self, block: Block, owner: type[Block]) -> tuple[B, ...]:
        return tuple(self.kind(block.base + self.offset + i * self.step) for i in range(self.count))
'''


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _hex(value: int, digits: int = 1) -> str:
    return f"0x{value:0{digits}X}"


def _enums(root: Node) -> Iterator[type[Enum]]:
    for node in root.descendants(unroll=False):
        if isinstance(node, FieldNode) and (encode := node.get_property("encode")) is not None:
            yield encode


def _kind(node: Node) -> str:
    """Class name of the block that describes ``node``: its type, or its place if it has none."""
    name = node.inst.original_def.type_name if node.inst.original_def is not None else None
    if name is None or (name == node.inst_name and isinstance(node, RegfileNode)):
        name = f"{node.parent.inst.original_def.type_name}_{node.inst_name.lower()}"
    return _camel(name)


def _title(node: Node) -> str:
    """Name of a block; a group of registers without a name of its own is called by its place."""
    if "name" in node.list_properties():
        return node.get_property("name")
    return f"One {node.inst_name} of {node.parent.get_property('name')}"


def _members(node: Node) -> Iterator[str]:
    for child in node.children(unroll=False):
        if isinstance(child, RegNode):
            yield f"    {child.inst_name} = Reg({_hex(child.raw_address_offset, 3)})"
            for field in child.fields():
                yield f"    {child.inst_name}__{field.inst_name.upper()} = Field({field.lsb}, {field.width})"
        elif isinstance(child, RegfileNode):
            offset, kind = _hex(child.raw_address_offset, 3), _kind(child)
            if child.is_array:
                count, step = child.array_dimensions[0], _hex(child.array_stride)
                yield f"    {child.inst_name} = Subs({offset}, {kind}, {count}, {step})"
            else:
                yield f"    {child.inst_name} = Sub({offset}, {kind})"


def _blocks(node: Node, done: set[str]) -> Iterator[str]:
    for child in node.children(unroll=False):
        if isinstance(child, AddrmapNode | RegfileNode):
            yield from _blocks(child, done)
    kind = _kind(node)
    if kind in done:
        return
    done.add(kind)
    yield f"\n\nclass {kind}(Block):"
    yield f'    """{_title(node)}."""\n'
    yield from _members(node)


def render() -> str:
    """Return the text of ``regs.py``."""
    soc = elaborate("soc")
    roots = [soc, *(elaborate(name) for name in DESCRIPTORS)]
    lines = [_HEADER.rstrip()]
    seen: dict[str, type[Enum]] = {}
    for root in roots:
        for enum in _enums(root):
            seen.setdefault(enum.type_name, enum)
    for name, enum in seen.items():
        lines.append(f"\n\nclass {_camel(name)}(IntEnum):")
        lines.append(f'    """Code words of ``{name}``."""\n')
        for member in enum:
            lines.append(f"    {member.name} = {member.value}")
            lines.append(f'    """{" ".join((member.rdl_desc or member.name).split())}"""')
    done: set[str] = set()
    for frame in soc.children(unroll=False):
        lines.extend(_blocks(frame, done))
    for root in roots[1:]:
        lines.extend(_blocks(root, done))
        lines.append(f"    SIZE_BYTES = {root.size}")
    lines.append("\n")
    for frame in soc.children(unroll=False):
        lines.append(f"{frame.inst_name} = {_kind(frame)}({_hex(frame.absolute_address, 8)})")
    return "\n".join(lines).rstrip() + "\n"

"""Write docs/registers.md from the SystemRDL sources. ``make docs`` runs it; a test holds the page equal to it."""

from collections.abc import Iterator
from pathlib import Path

from systemrdl.node import AddrmapNode, FieldNode, RegfileNode, RegNode

from flexserve_hw.regs.source import DESCRIPTORS, elaborate

PAGE = Path(__file__).parent / "registers.md"

_INTRO = """# Register reference

Generated from the SystemRDL sources in `hw/flexserve_hw/regs/` by `make docs`, which also writes an HTML version
with search and a C header to `build/docs/`. All registers have 32 bits. An access to an unassigned offset answers
SLVERR, but in the region control frame, where it reads as zero as in a TZC-400. Fields without a reset value are driven
by hardware. How the frames are used is in the [programmer's guide](programmers_guide.md).
"""


def render() -> str:
    """Text of the page."""
    soc = elaborate("soc")
    frames = [frame for frame in soc.children(unroll=False) if isinstance(frame, AddrmapNode)]
    lines = [_INTRO, "| frame | address | |", "|---|---|---|"]
    lines += [f"| {f.inst_name} | `{f.absolute_address:#010x}` | {_text(f)[0]} |" for f in frames]
    kinds: dict[str, list[AddrmapNode]] = {}
    for frame in frames:
        kinds.setdefault(str(frame.inst.type_name), []).append(frame)
    for group in kinds.values():
        lines += list(_map(group[0], ", ".join(frame.inst_name for frame in group)))
    for name in DESCRIPTORS:
        lines += list(_map(elaborate(name), "in memory"))
    lines += list(_code_words([soc, *map(elaborate, DESCRIPTORS)]))
    return "\n".join(lines).rstrip() + "\n"


def _map(node: AddrmapNode, where: str) -> Iterator[str]:
    name, text = _text(node)
    yield f"\n## {name} ({where})\n"
    if text:
        yield f"{text}\n"
    yield "| offset | register | field | bits | access | reset | |"
    yield "|---|---|---|---|---|---|---|"
    yield from _rows(node, 0, "")


def _rows(node: AddrmapNode | RegfileNode, base: int, prefix: str, every: str = "") -> Iterator[str]:
    for child in node.children(unroll=False):
        if isinstance(child, RegfileNode):
            name, step = child.inst_name, every
            if child.is_array:
                name, step = f"{name}[n]", f" + n × {child.array_stride:#x}, n < {child.array_dimensions[0]}"
            yield from _rows(child, base + child.raw_address_offset, f"{prefix}{name}.", step)
        elif isinstance(child, RegNode):
            yield from _fields(child, base, prefix, every)


def _fields(register: RegNode, base: int, prefix: str, every: str) -> Iterator[str]:
    name, text = _text(register)
    about = ". ".join(part.rstrip(".") for part in (name if name != register.inst_name else "", text) if part)
    offset = f"`{base + register.raw_address_offset:#05x}`{every}"
    for index, field in enumerate(register.fields()):
        bits = f"{field.high}:{field.low}" if field.width > 1 else str(field.low)
        encode = field.get_property("encode")
        words = f" Code words: [{encode.type_name}](#{encode.type_name})." if encode is not None else ""
        own = _text(field)[1]
        description = " ".join(part for part in ((f"{about}." if about and not index else ""), own) if part) + words
        cells = (offset, f"{prefix}{register.inst_name}") if not index else ("", "")
        columns = (*cells, field.inst_name, bits, _access(field), _reset(field), description.strip())
        yield f"| {' | '.join(columns)} |"


def _reset(field: FieldNode) -> str:
    reset = field.get_property("reset")
    driven = field.is_hw_writable and not field.is_sw_writable
    return "" if reset is None or driven else f"{int(reset):#x}"


def _access(field: FieldNode) -> str:
    access = str(field.get_property("sw").name)
    effect = field.get_property("onwrite")
    return access if effect is None else f"{access}, {effect.name}"


def _code_words(roots: list[AddrmapNode]) -> Iterator[str]:
    yield "\n## Code words"
    seen = set()
    for root in roots:
        for node in root.descendants(unroll=False):
            encode = node.get_property("encode") if isinstance(node, FieldNode) else None
            if encode is None or encode.type_name in seen:
                continue
            seen.add(encode.type_name)
            yield f"\n### {encode.type_name}\n"
            yield "| value | name | |"
            yield "|---|---|---|"
            for member in encode:
                yield f"| {member.value} | `{member.name}` | {' '.join((member.rdl_desc or '').split())} |"


def _text(node: AddrmapNode | RegNode | FieldNode) -> tuple[str, str]:
    """Name and description, each on one line."""
    name = node.get_property("name", default=node.inst_name) or ""
    return " ".join(str(name).split()), " ".join(str(node.get_property("desc") or "").split())


if __name__ == "__main__":
    PAGE.write_text(render())

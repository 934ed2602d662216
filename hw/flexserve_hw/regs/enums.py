"""Code words of the RDL as Amaranth enumerations, so that hardware and software spell them alike."""

from amaranth.lib import enum
from systemrdl.node import FieldNode

from .source import DESCRIPTORS, elaborate

__all__ = ["NpuFault", "NpuOp", "NpuSpace", "RecallCommand", "RecallResult", "RecallState"]


def _enum(name: str) -> type[enum.Enum]:
    """The enumeration that fields are encoded by, as wide as those fields."""
    rdl_name = "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
    for root in ("soc", *DESCRIPTORS):
        for node in elaborate(root).descendants(unroll=False):
            source = node.get_property("encode") if isinstance(node, FieldNode) else None
            if source is not None and source.type_name == rdl_name:
                namespace = enum.EnumType.__prepare__(name, (enum.Enum,))
                for member in source:
                    namespace[member.name] = member.value
                namespace["__module__"] = __name__
                return enum.EnumType(name, (enum.Enum,), namespace, shape=node.width)
    raise ValueError(f"A field must be encoded by the enumeration, not {rdl_name!r}")


RecallState = _enum("RecallState")
"""State of a recallable unit."""

RecallCommand = _enum("RecallCommand")
"""Commands of the recall protocol."""

RecallResult = _enum("RecallResult")
"""What became of a command."""

NpuFault = _enum("NpuFault")
"""Why a job ended early."""

NpuOp = _enum("NpuOp")
"""Operations of an NPU descriptor."""

NpuSpace = _enum("NpuSpace")
"""Destinations of a LOAD."""

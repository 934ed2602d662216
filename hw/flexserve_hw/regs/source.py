"""The one description of every register: where it lies and how it is compiled."""

from functools import cache
from pathlib import Path

from systemrdl import RDLCompiler
from systemrdl.node import AddrmapNode

RDL_DIRECTORY = Path(__file__).parent

DESCRIPTORS = ("npu_descriptor_load", "npu_descriptor_matmul", "npu_descriptor_store")
"""Address maps that lay out NPU job descriptors in memory rather than registers."""


@cache
def compiler() -> RDLCompiler:
    """Compile ``soc.rdl`` and everything it includes, once per process."""
    rdl = RDLCompiler()
    rdl.compile_file(str(RDL_DIRECTORY / "soc.rdl"), incl_search_paths=[str(RDL_DIRECTORY)])
    return rdl


@cache
def elaborate(name: str) -> AddrmapNode:
    """Return address map ``name`` (``soc``, one frame type, or one of :data:`DESCRIPTORS`)."""
    return compiler().elaborate(name).top

"""Register reference for people and for C, through the PeakRDL exporters."""

from pathlib import Path

from .source import DESCRIPTORS, elaborate

__all__ = ["write_c_header", "write_html"]


def write_c_header(path: Path) -> None:
    """Write the register map of the SoC as one C header; needs the package ``peakrdl-cheader``."""
    from peakrdl_cheader.exporter import CHeaderExporter

    path.parent.mkdir(parents=True, exist_ok=True)
    CHeaderExporter().export(elaborate("soc"), str(path), explode_top=True, instantiate=True)


def write_html(directory: Path) -> None:
    """Write the register map and the NPU descriptors as HTML, ``index.html`` the entry; needs ``peakrdl-html``."""
    from peakrdl_html import HTMLExporter

    directory.mkdir(parents=True, exist_ok=True)
    HTMLExporter().export([elaborate("soc"), *(elaborate(name) for name in DESCRIPTORS)], str(directory))
    for launcher in directory.glob("launcher-*"):
        launcher.unlink()

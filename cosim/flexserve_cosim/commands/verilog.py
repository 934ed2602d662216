"""``flexserve verilog``: the SoC and each IP alone as Verilog, with everything an integrator reads beside it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flexserve_hw.emit import IPS, WAIVERS, emit
from flexserve_sw.errors import UserError

from ..outputs import directory
from .common import filter_params, npu_params, soc_params

__all__ = ["verilog"]


def verilog(
    output: Path,
    ips: tuple[str, ...],
    array: int,
    bus: int | None,
    pages: int | None,
    cache_lines: int | None,
    console: Console,
) -> None:
    """Write ``flexserve_<ip>.v``, its port map and probe list, and the lint waivers, into ``output``.

    ``pages`` and ``cache_lines`` are of the filter alone, ``bus`` are the data bits of the NPU alone; the SoC keeps its
    own, and so do these where they are None.
    """
    unknown = [ip for ip in ips if ip not in IPS]
    if unknown:
        raise UserError(f"There is no IP {unknown[0]!r}; choose from {', '.join(IPS)}.")
    if bus is not None and ips != ("npu",):
        raise UserError("--bus is of the NPU alone: write it with --ip npu and no other.")
    if (pages, cache_lines) != (None, None) and ips and "filter" not in ips:
        raise UserError("--pages and --cache-lines are of the filter alone: write it with --ip filter.")
    params = soc_params(array)
    alone = {
        "filter": filter_params(params.flex.pages if pages is None else pages, cache_lines or 0),
        "npu": params if bus is None else npu_params(array, bus),
    }
    home = directory(output)
    table = Table(title="Verilog", title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in ("design", "module", "ports", "probes", "lines", "file"):
        table.add_column(column, justify="right" if column in ("ports", "probes", "lines") else "left", overflow="fold")
    with tempfile.TemporaryDirectory(dir=home, prefix=".new-") as name:
        fresh = Path(name)
        for ip in ips or tuple(IPS):
            made = emit(ip, alone.get(ip, params), fresh)
            lines = len(made.verilog.read_text().splitlines())
            counts = (str(len(made.ports)), str(len(made.probes)), f"{lines:,}")
            table.add_row(ip, made.top, *counts, str(output / made.verilog.name))
        shutil.copy(WAIVERS, fresh / WAIVERS.name)
        for path in fresh.iterdir():
            path.replace(home / path.name)
    console.print(table)

"""``flexserve wave``: a waveform of a short run, with a layout to look at it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from flexserve_sw.designs.plan import check
from flexserve_sw.errors import UserError

from ..build import build, emitted
from ..outputs import directory, pending
from ..sessions import Job, run_jobs
from ..toolchain import find_toolchain
from ..views import view
from ..wave import code_files, code_text, layout
from .common import on_rtl, soc_params

__all__ = ["wave"]

JOB = "flexserve_sw.designs.job:serve"
PROMPT, TOKENS = "Once", 2
"""What is recorded: boot, loading, a prefill and a decode step, with a recall between them."""


def wave(output: Path, pressure: int, array: int, seed: int, console: Console) -> None:
    """Record ``flexserve.fst`` (or ``.vcd``) and ``flexserve.gtkw`` into ``output``."""
    if not 1 <= seed < 1 << 31:
        raise UserError(f"The seed must be from 1 to {(1 << 31) - 1}, not {seed}.")
    params = soc_params(array)
    argument: dict[str, Any] = {
        "design": "flexserve", "prompt": PROMPT, "tokens": TOKENS, "pressure": pressure, "pressure_at": 1,
        "array": array, "seed": seed, "timeline": False,
    }  # fmt: skip
    plan = check(argument)
    find_toolchain()
    home = directory(output)
    with view(console, prompt=PROMPT) as watcher:
        recording = build("soc", params, waves=True, progress=watcher.note)
        dump = home / f"flexserve.{recording.waves}"
        codes = code_files(home)
        with pending(dump, home / "flexserve.gtkw", *codes.values()) as (waveform, shown, *names):

            def on_message(name: str, message: Mapping[str, Any]) -> None:
                if message.get("kind") == "token":
                    watcher.token(message["text"])
                    watcher.step(name, message["index"], plan.tokens, "decode", message["cycle"])
                elif message.get("kind") == "phase" and message["event"] == "begin":
                    watcher.step(name, 0, plan.tokens, message["name"], message["cycle"])

            if waveform is None or shown is None:
                raise RuntimeError("Both files were asked for")
            job = Job(name="flexserve", function=JOB, argument=argument, waves=waveform.temporary)
            result = run_jobs([job], on_rtl(recording, recording, seed=seed), on_message)["flexserve"]
            folder = emitted("soc", params)
            ports = json.loads((folder / "flexserve_soc.json").read_text())["ports"]
            widths = {port["name"]: port["width"] for port in ports}
            shown.write(layout(widths, dump=dump.absolute(), codes={p: f.absolute() for p, f in codes.items()}))
            for port, file in zip(codes, names, strict=True):
                if file is not None:
                    file.write(code_text(port))
    cycles = result["simulation"]["cycles"]
    console.print(
        f"Wrote {dump} ({dump.stat().st_size / 1e6:.1f} MB, {cycles:,} cycles) and its layout.", highlight=False
    )
    console.print(
        f"Look at it with: gtkwave --rcvar 'do_initial_zoom_fit yes' {shlex.quote(str(home / 'flexserve.gtkw'))}",
        highlight=False,
        soft_wrap=True,
    )

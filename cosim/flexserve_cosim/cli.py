"""The command ``flexserve``: declares options, turns errors into one sentence and an exit code."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from flexserve_sw.errors import UserError

__all__ = ["app", "main"]

EXIT_CHECK, EXIT_USER, EXIT_INTERRUPTED = 1, 2, 130

WIDTH = 130
"""Columns of tables that go to a file or a pipe."""

app = typer.Typer(
    name="flexserve",
    help="Recallable isolation for on-device language models, simulated cycle by cycle from RTL.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

bench_app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)
app.add_typer(bench_app, name="bench", help="Measure what the hardware costs, each figure beside its limit.")


@app.command("run")
def run_command(
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="llama2.c .bin, .gguf, or a folder with config.json and model.safetensors. Default: the embedded one."
        ),
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Tokenizer in llama2.c format, for checkpoints without one.")
    ] = None,
    prompt: Annotated[str, typer.Option(help="What the model continues.")] = "Once upon a time",
    tokens: Annotated[int, typer.Option(help="New tokens to generate.")] = 24,
    design: Annotated[
        list[str] | None,
        typer.Option(help="Design to run: flexserve, nw-base, strawman, strawman-opt. Repeatable; default all."),
    ] = None,
    kv: Annotated[
        str,
        typer.Option(
            help="Keys and values as float, attention on the CPU; or as int8, its products on the NPU of a design that"
            " has one; or as int8-cpu, the same products on the CPU."
        ),
    ] = "float",
    pressure: Annotated[
        int, typer.Option(help="Pages that the operating system takes back in the middle of the answer.")
    ] = 24,
    array: Annotated[int, typer.Option(help="Width of the NPU's array: 4, 8, 16 or 32.")] = 16,
    machine: Annotated[
        str,
        typer.Option(
            help="rtl: simulate the RTL. fast: a transaction-level model of it, without Verilator. native: that model"
            " and its software compiled to machine code (two minutes, once)."
        ),
    ] = "rtl",
    seed: Annotated[
        int, typer.Option(help="Seed of everything random: contents at power-up, who occupies which page.")
    ] = 1,
    waves: Annotated[
        Path | None, typer.Option(help="Write a waveform of the whole run of the first design (large).")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Write a timeline for the Perfetto viewer (ui.perfetto.dev).")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write every figure of the run.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write one self-contained HTML page with plots.")] = None,
) -> None:
    """Let a language model answer from protected memory on the simulated phone, and compare designs.

    Ends with 1 if a value differs from the reference or a recall changed the answer.
    """
    from .commands.run import RunOptions, run

    options = RunOptions(
        checkpoint=checkpoint,
        tokenizer=tokenizer,
        prompt=prompt,
        tokens=tokens,
        kv=kv,
        designs=tuple(design or ()),
        pressure=pressure,
        array=array,
        machine=machine,
        seed=seed,
        waves=waves,
        trace=trace,
        json=json,
        report=report,
    )
    if not run(options, console()):
        raise typer.Exit(EXIT_CHECK)


@app.command("attack")
def attack_command(
    attack: Annotated[
        list[str] | None, typer.Option(help="Attack to mount; repeatable, default all. --list shows them.")
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            help="Only attacks of one level: system (the phone), bus (the filter's pins) or table (with its table in"
            " memory)."
        ),
    ] = None,
    listing: Annotated[bool, typer.Option("--list", help="Show the attacks instead of mounting them.")] = False,
    array: Annotated[int, typer.Option(help="Width of the NPU's array: 4, 8, 16 or 32.")] = 16,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 1,
    json: Annotated[Path | None, typer.Option(help="Write every verdict with its evidence.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write one self-contained HTML page.")] = None,
) -> None:
    """Attack the simulated phone and its filter; mount a control of each attack, where what should stop it is missing.

    Ends with 1 if an attack got through, or if a control did not.
    """
    from .commands.attack import AttackOptions
    from .commands.attack import attack as mount

    options = AttackOptions(
        attacks=tuple(attack or ()), only=only, listing=listing, array=array, seed=seed, json=json, report=report
    )
    if not mount(options, console()):
        raise typer.Exit(EXIT_CHECK)


@app.command("soak")
def soak_command(
    transactions: Annotated[int, typer.Option(help="Transactions to check in all.")] = 10_000_000,
    variant: Annotated[
        list[str] | None, typer.Option(help="default, small or cached. Repeatable; default all, in turn.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the first segment; the others count on from it.")] = 1,
    segment: Annotated[int | None, typer.Option(help="Run the one segment with this seed.")] = None,
    waves: Annotated[Path | None, typer.Option(help="Write a waveform of that segment (large).")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for the state and the summary.")] = None,
) -> None:
    """Put the filter alone under long random traffic and management, and hold every step to the golden model.

    An interrupted campaign goes on where it was. Ends with 1 if anything differs, or if something was never tried.
    """
    from .commands.soak import SoakOptions, soak

    options = SoakOptions(
        transactions=transactions,
        variants=tuple(variant or ()),
        seed=seed,
        segment=segment,
        waves=waves,
        output=output,
    )
    if not soak(options, console()):
        raise typer.Exit(EXIT_CHECK)


@bench_app.command("mem")
def bench_memory_command(
    pages: Annotated[int, typer.Option(help="Capacity of the page-state table.")] = 2048,
    large: Annotated[bool, typer.Option(help="Lend and recall 256 MiB, too (minutes).")] = True,
    seed: Annotated[int, typer.Option(help="Seed of the traffic and of contents at power-up.")] = 1,
    json: Annotated[Path | None, typer.Option(help="Write every figure.")] = None,
) -> None:
    """Measure the Flex-Mem filter alone: latency, lost beats, stalls, commands, lending, recall, scrubbing.

    Ends with 1 if a figure misses its limit.
    """
    from .commands.bench import MemoryOptions, bench_memory

    if not bench_memory(MemoryOptions(pages=pages, large=large, seed=seed, json=json), console()):
        raise typer.Exit(EXIT_CHECK)


@bench_app.command("fast")
def bench_fast_command(
    job: Annotated[
        list[str] | None,
        typer.Option(help="Job: a design, or another of the bench, as '(wide model)'. Repeatable; default all."),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write every figure.")] = None,
) -> None:
    """Hold the transaction-level machine beside the RTL: the same jobs, their answers, times, and how long they take.

    Wants a computer that does nothing else. Ends with 1 if a figure misses its limit.
    """
    from .commands.bench import FastOptions, bench_fast

    if not bench_fast(FastOptions(jobs=tuple(job or ()), json=json), console()):
        raise typer.Exit(EXIT_CHECK)


@bench_app.command("share")
def bench_share_command(
    tokens: Annotated[int, typer.Option(help="Tokens that the model answers while frames come.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of frames and of contents at power-up.")] = 1,
    json: Annotated[Path | None, typer.Option(help="Write every figure.")] = None,
) -> None:
    """Measure on the RTL how long the NPU takes to change hands, and how two worlds get on that share it.

    Ends with 1 if a figure misses its limit.
    """
    from .commands.bench_share import ShareOptions, bench_share

    if not bench_share(ShareOptions(tokens=tokens, seed=seed, json=json), console()):
        raise typer.Exit(EXIT_CHECK)


@bench_app.command("npu")
def bench_npu_command(
    sweep: Annotated[bool, typer.Option(help="Measure many shapes, too.")] = True,
    json: Annotated[Path | None, typer.Option(help="Write every figure.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write one self-contained HTML page with plots.")] = None,
) -> None:
    """Measure the NPU in the phone's SoC: GEMMs, decode, the filter's share, the planner's cost model.

    Ends with 1 if a figure misses its limit.
    """
    from .commands.bench_npu import NpuOptions, bench_npu

    if not bench_npu(NpuOptions(sweep=sweep, json=json, report=report), console()):
        raise typer.Exit(EXIT_CHECK)


@bench_app.command("gemms")
def bench_gemms_command(
    count: Annotated[
        int, typer.Option(help="Random GEMMs, and runs of four random lists, over array sizes 4, 8, 16, 32.")
    ] = 1000,
    seed: Annotated[int, typer.Option(help="Of the first GEMM; the others count up from it.")] = 1,
    json: Annotated[Path | None, typer.Option(help="Write what was run and what was wrong.")] = None,
) -> None:
    """Run random GEMMs, random job lists and every fault of a job on NPUs of all sizes, beside an unkind memory.

    Ends with 1 if anything is wrong.
    """
    from .commands.bench_npu import GemmOptions, bench_gemms

    if not bench_gemms(GemmOptions(count=count, seed=seed, json=json), console()):
        raise typer.Exit(EXIT_CHECK)


@bench_app.command("fpga")
def bench_fpga_command(
    design: Annotated[
        list[str] | None, typer.Option(help="filter, filter-small, filter-cached or npu-8x8; repeatable, default all.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="Part: LFE5UM5G-85F-8, LFE5U-85F-8, LFE5U-85F-7 or LFE5U-85F-6.")
    ] = "LFE5UM5G-85F-8",
    place: Annotated[bool, typer.Option(help="Place, for the frequency.")] = True,
    route: Annotated[bool, typer.Option(help="Route too; without, the frequency is an estimate.")] = True,
    timeout: Annotated[float, typer.Option(help="Seconds that one tool may take.")] = 3600,
    json: Annotated[Path | None, typer.Option(help="Write every figure.")] = None,
) -> None:
    """Synthesise, place and route the filter and an NPU for an ECP5-85 (extra `fpga`; tens of minutes)."""
    from .commands.bench import FpgaOptions, bench_fpga

    bench_fpga(
        FpgaOptions(
            designs=tuple(design or ()), device=device, place=place, route=route, timeout=timeout, json=json
        ),
        console(),
    )


@bench_app.command("sim")
def bench_sim_command(
    prompt: Annotated[str, typer.Option(help="What the model continues.")] = "Once upon a time",
    array: Annotated[int, typer.Option(help="Width of the NPU's array: 4, 8, 16 or 32.")] = 16,
    rounds: Annotated[int, typer.Option(help="Runs of each simulator, in turn.")] = 3,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 1,
    json: Annotated[Path | None, typer.Option(help="Write every figure.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write one self-contained HTML page with plots.")] = None,
) -> None:
    """Measure the speed of simulation in prefill, beside a bare C++ loop and a stock cocotb build of the same design.

    Ends with 1 if a figure misses its limit.
    """
    from .commands.bench_sim import SimOptions, bench_sim

    options = SimOptions(prompt=prompt, array=array, rounds=rounds, seed=seed, json=json, report=report)
    if not bench_sim(options, console()):
        raise typer.Exit(EXIT_CHECK)


@app.command("wave")
def wave_command(
    output: Annotated[Path, typer.Option(help="Folder for the waveform and its GTKWave layout.")] = Path("build/wave"),
    pressure: Annotated[int, typer.Option(help="Pages that the operating system takes back.")] = 8,
    array: Annotated[int, typer.Option(help="Width of the NPU's array: 4, 8, 16 or 32.")] = 16,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 1,
) -> None:
    """Record a waveform of a short run, with a layout grouped by role."""
    from .commands.wave import wave

    wave(output, pressure, array, seed, console())


@app.command("verilog")
def verilog_command(
    output: Annotated[Path, typer.Option(help="Folder for the Verilog, port maps and lint waivers.")] = Path(
        "build/verilog"
    ),
    ip: Annotated[list[str] | None, typer.Option(help="Design to write; repeatable, default all.")] = None,
    array: Annotated[int, typer.Option(help="Width of the NPU's array: 4, 8, 16 or 32.")] = 16,
    bus: Annotated[
        int | None, typer.Option(help="Data bits of the bus of the NPU alone: 32, 64 or 128, the default.")
    ] = None,
    pages: Annotated[
        int | None, typer.Option(help="Pages in the page-state table of the filter alone; default 2048.")
    ] = None,
    cache_lines: Annotated[
        int | None,
        typer.Option(help="Words of that table that are cached, which lies in memory then; 0, the default: on chip."),
    ] = None,
) -> None:
    """Write the SoC and each IP alone as Verilog."""
    from .commands.verilog import verilog

    verilog(output, tuple(ip or ()), array, bus, pages, cache_lines, console())


@app.command("info")
def info_command() -> None:
    """Show tools, simulated hardware and platform costs."""
    from .commands.info import info

    info(console())


def console() -> Console:
    """Standard output; wide enough for the tables: a terminal that is not breaks lines, but cuts no number."""
    plain = Console()
    return plain if plain.width >= WIDTH else Console(width=WIDTH)


def _on_terminate(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Entry point. Exit codes: 0 done, 1 a check failed, 2 the user can mend it, 130 interrupted."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _on_terminate)
    try:
        app()
    except UserError as error:
        print(f"flexserve: {error}", file=sys.stderr)
        sys.exit(EXIT_USER)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)

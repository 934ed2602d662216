"""``flexserve run``: a model answers a prompt on the simulated phone, in one or more designs."""

from __future__ import annotations

import importlib.metadata
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from flexserve_hw.params import SocParams
from flexserve_sw.designs.design import DESIGNS, find_design
from flexserve_sw.designs.plan import Plan, check
from flexserve_sw.errors import UserError
from flexserve_sw.llm import held_out_text, perplexity

from ..build import build
from ..native import compile_software
from ..outputs import pending
from ..report.run import require_plots, run_page
from ..results import REFERENCE, Clock, failures, run_summary
from ..sessions import WORKERS, Job, Simulate, run_jobs
from ..tables import design_table, phase_table, recall_lines
from ..toolchain import find_toolchain, wave_format
from ..trace import chrome_trace
from ..views import View, view
from .common import CLOCK_HZ, on_fast, on_native, on_rtl, soc_params

__all__ = ["RunOptions", "run"]

JOB = "flexserve_sw.designs.job:serve"
CALM = f"{REFERENCE} (no recall)"
PERPLEXITY = "perplexity"
RTL, FAST, NATIVE = "rtl", "fast", "native"
"""Machines that a run can be on."""

FORWARD = "prefill-forward"
"""Part of the run in which simulation speed is measured: the forward pass over the prompt, where the array works."""

STORIES = 16
"""Held-out stories over which a run states the model's perplexity."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The command line of ``flexserve run``; see its help."""

    checkpoint: Path | None
    tokenizer: Path | None
    prompt: str
    tokens: int
    kv: str
    designs: tuple[str, ...]
    pressure: int
    array: int
    machine: str
    seed: int
    waves: Path | None
    trace: Path | None
    json: Path | None
    report: Path | None

    def argument(self, design: str, *, pressure: int) -> dict[str, Any]:
        """Argument of the serving job."""
        return {
            "design": design,
            "checkpoint": None if self.checkpoint is None else str(self.checkpoint.absolute()),
            "tokenizer": None if self.tokenizer is None else str(self.tokenizer.absolute()),
            "prompt": self.prompt,
            "tokens": self.tokens,
            "kv": self.kv,
            "pressure": pressure,
            "array": self.array,
            "seed": self.seed,
        }


def run(options: RunOptions, console: Console) -> bool:
    """Check, simulate, write and show what came of it; return whether it is as it must be."""
    designs = tuple(dict.fromkeys(options.designs)) or tuple(DESIGNS)
    for name in designs:
        find_design(name)
    if not 1 <= options.seed < 1 << 31:
        raise UserError(f"The seed must be from 1 to {(1 << 31) - 1}, not {options.seed}.")
    if options.report is not None:
        require_plots()
    if options.machine not in (RTL, FAST, NATIVE):
        raise UserError(f"The machine must be {RTL}, {FAST} or {NATIVE}, not {options.machine}.")
    if options.machine != RTL and options.waves is not None:
        raise UserError(f"Only the RTL has waveforms; leave out --machine {options.machine} or --waves.")
    params = soc_params(options.array)
    waves = _wave_name(options.waves)
    with pending(options.json, options.trace, options.report, waves) as (json, trace, report, wave):
        plans = {name: check(options.argument(name, pressure=options.pressure)) for name in designs}
        shown = REFERENCE if REFERENCE in designs else designs[0]
        with ExitStack() as stack:
            watcher = stack.enter_context(view(console, prompt=options.prompt))
            if waves != options.waves:
                why = wave_format()[1] or f"on this computer waveforms are {wave_format()[0].upper()}"
                watcher.note(f"The waveform is written as {waves}: {why}")
            jobs = _jobs(options, designs, shown, None if wave is None else wave.temporary)
            simulate = _machine(options, params, watcher)
            results, speeds = _simulate(
                jobs, simulate, plans[shown], watcher, shown, workers=1 if options.machine == FAST else WORKERS
            )
        measured = results.pop(PERPLEXITY)
        calm = results.pop(CALM, None)
        summary = run_summary(results, calm, speeds=speeds, about={**_about(options, plans[shown]), **measured})
        timelines = {name: result["timeline"] for name, result in results.items()}
        history = [_counts(entry) for entry in results[shown]["page_states"]]
        if json is not None:
            json.write_json(summary)
        if trace is not None:
            trace.write_json(chrome_trace(timelines, {shown: history}, clock_hz=CLOCK_HZ))
        if report is not None:
            report.write(run_page(summary, timelines, history))
    console.print()
    console.print(design_table(summary), phase_table(summary))
    console.print(recall_lines(summary), highlight=False)
    if options.machine == RTL and summary["sim_khz"] is not None:
        console.print(
            f"{summary['sim_cycles']:,} cycles simulated; {summary['sim_khz']:,.0f} kHz in prefill.", highlight=False
        )
    for path in (options.json, options.trace, options.report, waves):
        if path is not None:
            console.print(f"Wrote {path}", highlight=False, soft_wrap=True)
    wrong = failures(summary)
    for sentence in wrong:
        console.print(sentence, style="bold red", highlight=False, soft_wrap=True)
    return not wrong


def _wave_name(path: Path | None) -> Path | None:
    """The waveform's file with the ending of the format that can be written here."""
    return None if path is None else path.with_suffix(f".{wave_format()[0]}")


def _jobs(options: RunOptions, designs: tuple[str, ...], shown: str, waves: Path | None) -> list[Job]:
    """The shown design first, so that its tokens come at once."""
    jobs = [
        Job(
            name=name,
            function=JOB,
            argument=options.argument(name, pressure=options.pressure),
            waves=waves if name == shown else None,
        )
        for name in sorted(designs, key=lambda name: name != shown)
    ]
    if REFERENCE in designs and options.pressure:
        jobs.append(
            Job(name=CALM, function=JOB, argument=options.argument(REFERENCE, pressure=0) | {"timeline": False})
        )
    jobs.append(Job(name=PERPLEXITY, function=PERPLEXITY))
    return jobs


def _machine(options: RunOptions, params: SocParams, watcher: View) -> Simulate:
    """How a job is run: on the RTL, built if it has not been yet, or on the transaction-level machine."""
    if options.machine == FAST:
        return on_fast(array=options.array, seed=options.seed)
    if options.machine == NATIVE:
        return on_native(compile_software(progress=watcher.note), array=options.array, seed=options.seed)
    find_toolchain()
    recording = None if options.waves is None else build("soc", params, waves=True, progress=watcher.note)
    return on_rtl(build("soc", params, progress=watcher.note), recording, seed=options.seed)


def _simulate(
    jobs: list[Job], machine: Simulate, plan: Plan, watcher: View, shown: str, *, workers: int
) -> tuple[dict[str, dict[str, Any]], dict[str, float | None]]:
    """Run the jobs under the view; results by job, and simulation speed in prefill by design."""
    clocks = {job.name: Clock(FORWARD) for job in jobs}
    steps = dict.fromkeys(clocks, 0)
    total = plan.tokens + 3

    def simulate(job: Job, emit: Callable[[Mapping[str, Any]], None], stop: threading.Event) -> dict[str, Any]:
        if job.function == PERPLEXITY:
            return _perplexity(plan, stop)
        result = machine(job, emit, stop)
        simulation = result["simulation"]
        emit({"kind": "ended", "cycle": simulation["cycles"], "seconds": simulation["seconds"]})
        return result

    def on_message(name: str, message: Mapping[str, Any]) -> None:
        clocks[name].see(message)
        match message.get("kind"):
            case "phase" if message["event"] == "begin" and message["name"] != FORWARD:
                steps[name] += message["name"] != "boot"
                watcher.step(name, min(steps[name], total), total, message["name"], message["cycle"])
                if name == shown and message["name"] == "close":
                    watcher.answered()
            case "token":
                steps[name] += 1
                watcher.step(name, min(steps[name], total), total, "decode", message["cycle"])
                if name == shown:
                    watcher.token(message["text"])
            case "ended":
                watcher.ended(name, message["cycle"], message["seconds"])

    results = run_jobs(jobs, simulate, on_message, workers=workers)
    return results, {name: clock.khz for name, clock in clocks.items()}


def _perplexity(plan: Plan, stop: threading.Event) -> dict[str, Any]:
    """How well the model predicts held-out text, in the arithmetic of the run and in float32."""
    texts = held_out_text()[:STORIES]

    def until_stopped() -> Any:
        for text in texts:
            if stop.is_set():
                return
            yield text

    return {
        "perplexity": perplexity(plan.checkpoint, until_stopped(), arithmetic="int8", kv=plan.kv.arithmetic),
        "perplexity_float32": perplexity(plan.checkpoint, until_stopped(), arithmetic="float32"),
        "perplexity_stories": len(texts),
    }


def _counts(entry: Mapping[str, int]) -> tuple[int, dict[str, int]]:
    """An entry of the page history as cycle and pages by state."""
    return entry["cycle"], {state: pages for state, pages in entry.items() if state != "cycle"}


def _about(options: RunOptions, plan: Plan) -> dict[str, Any]:
    config = plan.checkpoint.config
    return {
        "version": importlib.metadata.version("flexserve"),
        "machine": options.machine,
        "clock_hz": CLOCK_HZ,
        "platform": plan.platform.name,
        "prompt": options.prompt,
        "prompt_tokens": len(plan.prompt),
        "model": {
            "checkpoint": "embedded" if options.checkpoint is None else str(options.checkpoint),
            "dim": config.dim, "hidden": config.hidden, "layers": config.layers, "heads": config.heads,
            "kv_heads": config.kv_heads, "vocab": config.vocab, "image_bytes": plan.model.size,
        },
        "options": {
            "tokens": options.tokens, "kv": options.kv, "pressure": options.pressure, "array": options.array,
            "seed": options.seed,
        },
    }  # fmt: skip

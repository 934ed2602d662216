"""``flexserve run --machine fast``: the same command and outputs without Verilator."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from flexserve_sw.llm import complete, default_checkpoint
from tests.e2e.command import flexserve

TOKENS, PRESSURE = 4, 8


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """A short run of two designs, on a computer whose Verilator and compiler are not found."""
    folder = tmp_path_factory.mktemp("fast")
    done = flexserve(
        "run", "--machine", "fast", "--design", "flexserve", "--design", "strawman", "--tokens", str(TOKENS),
        "--pressure", str(PRESSURE), "--json", folder / "run.json", "--trace", folder / "trace.json",
        "--report", folder / "report.html", environment={"PATH": str(folder)}, timeout=300,
    )  # fmt: skip
    return done, folder


def test_answer_and_recall_are_those_of_any_run(outputs: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    done, folder = outputs
    assert done.returncode == 0, done.stderr
    summary: dict[str, Any] = json.loads((folder / "run.json").read_text())
    reference = complete(default_checkpoint(), summary["prompt"], TOKENS)
    assert (summary["machine"], summary["tokens"]) == ("fast", list(reference.tokens))
    assert (summary["bit_exact"], summary["violations"]) == (True, 0)
    assert (summary["recall"]["pages"], summary["recall"]["tokens_equal"]) == (PRESSURE, True)
    assert done.stdout.splitlines()[0] == summary["text"].splitlines()[0]


def test_trace_and_report_are_written(outputs: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    _, folder = outputs
    trace = json.loads((folder / "trace.json").read_text())
    names = {e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "process_name"}
    assert {f"flexserve: {r}" for r in ("normal world", "secure world", "NPU", "pages", "storage")} <= names
    assert (folder / "report.html").read_text().count("<svg") == 5


def test_keys_and_values_in_int8_give_the_answer_of_their_own_reference_in_every_design(tmp_path: Path) -> None:
    done = flexserve(
        "run", "--machine", "fast", "--kv", "int8", "--tokens", str(TOKENS), "--pressure", str(PRESSURE),
        "--json", tmp_path / "run.json", timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary: dict[str, Any] = json.loads((tmp_path / "run.json").read_text())
    reference = complete(default_checkpoint(), summary["prompt"], TOKENS, kv="int8")
    assert [design["tokens"] for design in summary["designs"].values()] == [list(reference.tokens)] * 4
    assert (summary["bit_exact"], summary["violations"], summary["options"]["kv"]) == (True, 0, "int8")
    assert (summary["recall"]["pages"], summary["recall"]["tokens_equal"]) == (PRESSURE, True)
    assert summary["perplexity"] == pytest.approx(summary["perplexity_float32"], rel=0.01)


@pytest.mark.rtl
@pytest.mark.xdist_group("native")
def test_compiled_machine_writes_the_same_figures(
    outputs: tuple[subprocess.CompletedProcess[str], Path], tmp_path: Path
) -> None:
    done = flexserve(
        "run", "--machine", "native", "--design", "flexserve", "--design", "strawman", "--tokens", str(TOKENS),
        "--pressure", str(PRESSURE), "--json", tmp_path / "run.json", timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected, found = (json.loads((folder / "run.json").read_text()) for folder in (outputs[1], tmp_path))
    assert (expected["machine"], found["machine"]) == ("fast", "native")
    for summary in (expected, found, *expected["designs"].values(), *found["designs"].values()):
        for name in ("machine", "sim_khz", "sim_khz_sessions", "sim_seconds", "peak_memory_bytes"):
            summary.pop(name, None)
    assert found == expected


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--machine", "quick"), "The machine must be rtl, fast or native, not quick."),
        (("--machine", "fast", "--waves", "wave.vcd"), "Only the RTL has waveforms; leave out --machine fast"),
        (("--machine", "native", "--waves", "wave.vcd"), "Only the RTL has waveforms; leave out --machine native"),
        (("--machine", "native"), "Compiling the software needs a C compiler, but there is no nocc; install one"),
    ],
)
def test_machine_that_can_not_be_is_refused(arguments: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    done = flexserve("run", *arguments, environment={"CC": "nocc", "FLEXSERVE_BUILD": str(tmp_path / "build")})
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert not list(tmp_path.iterdir())


def test_job_that_the_bench_does_not_know_is_refused() -> None:
    done = flexserve("bench", "fast", "--job", "quick")
    assert (done.returncode, done.stdout) == (2, "")
    assert "There is no job 'quick'; jobs are flexserve, nw-base" in done.stderr

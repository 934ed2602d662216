"""``flexserve run`` on the RTL, as a user runs it: a prompt answered from lent pages on the lent NPU, with a recall."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from flexserve_sw.llm import complete, default_checkpoint, read_checkpoint
from tests.e2e.command import flexserve

pytestmark = [pytest.mark.rtl, pytest.mark.xdist_group("e2e")]

TOKENS, PRESSURE = 4, 8


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """One short run of two designs with everything written."""
    folder = tmp_path_factory.mktemp("run")
    done = flexserve(
        "run", "--design", "flexserve", "--design", "nw-base", "--tokens", str(TOKENS), "--pressure", str(PRESSURE),
        "--json", folder / "run.json", "--trace", folder / "trace.json", "--report", folder / "report.html",
        timeout=550,
    )  # fmt: skip
    return done, folder


@pytest.fixture(scope="module")
def summary(outputs: tuple[subprocess.CompletedProcess[str], Path]) -> dict[str, Any]:
    done, folder = outputs
    assert done.returncode == 0, done.stderr
    loaded: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return loaded


def test_answer_is_that_of_the_int8_reference_bit_by_bit(summary: dict[str, Any]) -> None:
    reference = complete(default_checkpoint(), summary["prompt"], TOKENS)
    assert summary["text"] == reference.text
    assert summary["tokens"] == list(reference.tokens)
    assert summary["bit_exact"] is True
    assert summary["compared_values"] > 10_000


def test_recall_in_the_middle_leaves_the_answer_as_it_is(summary: dict[str, Any]) -> None:
    recall = summary["recall"]
    assert recall["pages"] == PRESSURE
    assert recall["latency_cycles_max"] == max(r["latency_cycles"] for r in recall["recalls"]) > 0
    assert recall["tokens_equal"] is True


def test_figures_are_measured_on_the_rtl_and_belong_together(summary: dict[str, Any]) -> None:
    assert summary["machine"] == "rtl"
    assert summary["sim_khz"] > 0
    assert summary["sim_cycles"] > sum(d["ttft_cycles"] for d in summary["designs"].values())
    assert summary["peak_memory_bytes"] < 2 << 30
    assert 1 < summary["perplexity"] < default_checkpoint().config.vocab
    assert list(summary["designs"]) == ["flexserve", "nw-base"]
    base = summary["designs"]["flexserve"]["ttft_cycles"]
    assert summary["ttft_ratios"] == {"nw-base": summary["designs"]["nw-base"]["ttft_cycles"] / base}
    for design in summary["designs"].values():
        assert sum(design["ttft_phases"].values()) == design["ttft_cycles"]
        assert 0 < design["npu_utilisation"] <= 1
        assert design["violations"] == 0
    assert summary["designs"]["flexserve"]["world_switches"] > 0 == summary["designs"]["nw-base"]["world_switches"]


def test_tokens_stream_to_standard_output_and_a_table_follows(
    outputs: tuple[subprocess.CompletedProcess[str], Path], summary: dict[str, Any]
) -> None:
    done, _ = outputs
    lines = done.stdout.splitlines()
    assert lines[0] == summary["text"].splitlines()[0]
    assert any(line.split()[:1] == ["flexserve"] and line.split()[-1] == "yes" for line in lines)
    assert "the same answer as without it" in done.stdout


def test_trace_has_both_designs_and_every_role(outputs: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    trace = json.loads((outputs[1] / "trace.json").read_text())
    names = {e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "process_name"}
    assert {f"flexserve: {r}" for r in ("normal world", "secure world", "NPU", "pages", "storage")} <= names
    assert not any(name.startswith("nw-base: secure") for name in names)
    assert all(e["dur"] >= 0 for e in trace["traceEvents"] if e["ph"] == "X")


def test_report_is_one_page_that_needs_nothing_else(
    outputs: tuple[subprocess.CompletedProcess[str], Path], summary: dict[str, Any]
) -> None:
    page = (outputs[1] / "report.html").read_text()
    assert page.count("<svg") == 5  # first token, decode, NPU, recall, pages
    addresses = set(re.findall(r"https?://[^\"'\s<>)]+", page))
    assert {a for a in addresses if not a.startswith("http://www.w3.org/")} == set()
    assert "<script" not in page
    assert "<link" not in page
    assert f"{summary['designs']['flexserve']['ttft_cycles']:,}" in page


@pytest.mark.parametrize("total", [16, 64])
def test_foreign_checkpoint_answers_like_its_reference(shared_data: Path, tmp_path: Path, total: int) -> None:
    model, tokenizer = shared_data / "stories260K.bin", shared_data / "tok512.bin"
    count = total - 5  # tokens of the prompt
    done = flexserve(
        "run", "--design", "flexserve", "--checkpoint", model, "--tokenizer", tokenizer, "--tokens", str(count),
        "--pressure", "4", "--json", tmp_path / "run.json", timeout=550,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["text"] == complete(read_checkpoint(model, tokenizer), "Once upon a time", count).text
    assert run["bit_exact"] is True
    assert run["recall"]["tokens_equal"] is True

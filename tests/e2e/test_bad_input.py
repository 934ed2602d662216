"""What a user can get wrong ends in one sentence and exit code 2, before anything is simulated or written."""

import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flexserve_sw.llm import default_checkpoint
from flexserve_sw.llm.tokenizer import write_llama2c_tokenizer
from tests.e2e.command import flexserve, in_process

SIZES = {"dim": 32, "hidden": 48, "layers": 1, "heads": 2, "kv_heads": 2, "vocab": 259, "seq_len": 64}


def write_model(folder: Path, **sizes: int) -> tuple[Path, Path]:
    """A random llama2.c checkpoint and its tokenizer."""
    s = {**SIZES, **sizes}
    head = s["dim"] // s["heads"]
    per_layer = 2 * s["dim"] + 2 * s["dim"] ** 2 + 2 * s["dim"] * s["kv_heads"] * head + 3 * s["dim"] * s["hidden"]
    count = s["vocab"] * s["dim"] + s["layers"] * per_layer + s["dim"] + s["seq_len"] * head
    values = np.random.default_rng(1).standard_normal(count, dtype=np.float32)
    model, tokenizer = folder / "model.bin", folder / "tokenizer.bin"
    model.write_bytes(struct.pack("<7i", *s.values()) + values.tobytes())
    pieces = [b"<unk>", b"<s>", b"</s>", *(f"<0x{byte:02X}>".encode() for byte in range(256))]
    pieces += [f"piece{i}".encode() for i in range(s["vocab"] - len(pieces))]
    write_llama2c_tokenizer(tokenizer, pieces, [0.0] * len(pieces))
    return model, tokenizer


def missing(folder: Path) -> list[str | Path]:
    return ["--checkpoint", folder / "nowhere.bin"]


def truncated(folder: Path) -> list[str | Path]:
    model, tokenizer = write_model(folder)
    model.write_bytes(model.read_bytes()[:-1000])
    return ["--checkpoint", model, "--tokenizer", tokenizer]


def garbage(folder: Path) -> list[str | Path]:
    _, tokenizer = write_model(folder)
    noise = folder / "noise.bin"
    noise.write_bytes(np.random.default_rng(2).bytes(5000))
    return ["--checkpoint", noise, "--tokenizer", tokenizer]


def empty_file(folder: Path) -> list[str | Path]:
    (folder / "empty.bin").write_bytes(b"")
    return ["--checkpoint", folder / "empty.bin"]


def foreign_tokenizer(folder: Path) -> list[str | Path]:
    model, _ = write_model(folder)
    other = folder / "other"
    other.mkdir()
    return ["--checkpoint", model, "--tokenizer", write_model(other, vocab=300)[1]]


def no_tokenizer(folder: Path) -> list[str | Path]:
    return ["--checkpoint", write_model(folder)[0]]


def shapes_that_disagree(folder: Path) -> list[str | Path]:
    model, tokenizer = write_model(folder)
    raw = bytearray(model.read_bytes())
    raw[0:4] = struct.pack("<i", 64)
    model.write_bytes(bytes(raw))
    return ["--checkpoint", model, "--tokenizer", tokenizer]


def too_large(folder: Path) -> list[str | Path]:
    model, tokenizer = write_model(folder, dim=512, hidden=1536, layers=5, heads=8, kv_heads=8)
    return ["--checkpoint", model, "--tokenizer", tokenizer]


def long_prompt(folder: Path) -> list[str | Path]:
    return ["--prompt", "Once upon a time there was a fox. " * default_checkpoint().config.seq_len]


CASES: dict[str, tuple[Callable[[Path], list[str | Path]], str]] = {
    "missing checkpoint": (missing, "Cannot read checkpoint"),
    "truncated checkpoint": (truncated, "is cut off"),
    "garbage checkpoint": (garbage, "is no known model file"),
    "empty checkpoint": (empty_file, "is cut off"),
    "tokenizer of another vocabulary": (foreign_tokenizer, "okenizer"),
    "checkpoint without a tokenizer": (no_tokenizer, "brings no tokenizer"),
    "shapes that disagree": (shapes_that_disagree, "its sizes ask for"),
    "model larger than memory": (too_large, "The model needs"),
    "prompt longer than the context": (long_prompt, "The prompt has"),
    "no tokens": (lambda folder: ["--tokens", "0"], "Option tokens"),
    "too many tokens": (lambda folder: ["--tokens", "5000"], "do not fit the context"),
    "unknown design": (lambda folder: ["--design", "sandbox"], "There is no design 'sandbox'"),
    "unknown array": (lambda folder: ["--array", "7"], "Array size must be"),
    "pressure beyond the model": (lambda folder: ["--pressure", "100000"], "can't take 100000 pages"),
    "negative pressure": (lambda folder: ["--pressure", "-1"], "Option pressure"),
    "unknown keys and values": (lambda folder: ["--kv", "int4"], "Keys and values are kept as float, int8, int8-cpu"),
    "bad seed": (lambda folder: ["--seed", "0"], "The seed must be"),
    "output in a missing folder": (lambda folder: ["--report", folder / "none" / "r.html"], "Cannot write"),
    "output that is a folder": (lambda folder: ["--trace", folder], "it is a folder"),
    "output that is a device": (lambda folder: ["--json", "/dev/full"], "not a regular file"),
}


def is_one_sentence(done: subprocess.CompletedProcess[str]) -> bool:
    """Exit 2, nothing on standard output, one line without a traceback on standard error."""
    return (
        done.returncode == 2
        and done.stdout == ""
        and done.stderr.startswith("flexserve: ")
        and done.stderr.count("\n") == 1
        and done.stderr.rstrip()[-1] in ".;)"
        and "Traceback" not in done.stderr
    )


@pytest.mark.parametrize("case", CASES)
def test_mistake_is_one_sentence_exit_2_and_leaves_no_file(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make, words = CASES[case]
    inputs, outputs = tmp_path / "in", tmp_path / "out"
    inputs.mkdir()
    outputs.mkdir()
    # The case's own options come last and win.
    common = ("run", "--json", outputs / "run.json", "--trace", outputs / "trace.json")
    done = in_process(capsys, monkeypatch, *common, *make(inputs))
    assert is_one_sentence(done), done
    assert words in done.stderr
    assert os.listdir(outputs) == []


def test_missing_compiler_is_said_with_what_to_install(tmp_path: Path) -> None:
    done = flexserve("run", "--json", tmp_path / "run.json", environment={"PATH": str(tmp_path)})
    assert is_one_sentence(done), done
    assert "C++ compiler" in done.stderr
    assert "g++" in done.stderr
    assert os.listdir(tmp_path) == []


def test_cache_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    done = flexserve("run", "--json", tmp_path / "run.json", environment={"FLEXSERVE_BUILD": "/proc/nowhere"})
    assert is_one_sentence(done), done
    assert "FLEXSERVE_BUILD" in done.stderr
    assert os.listdir(tmp_path) == []


def test_unknown_attack_is_said_with_how_to_list_the_known_ones(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = in_process(capsys, monkeypatch, "attack", "--attack", "bribery")
    assert is_one_sentence(done), done
    assert "'bribery'" in done.stderr
    assert "flexserve attack --list" in done.stderr
    listed = in_process(capsys, monkeypatch, "attack", "--list")
    assert listed.returncode == 0
    assert "cpu-read" in listed.stdout


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--only", "moon"), "system, bus, table, not 'moon'"),
        (("--only", "bus", "--attack", "cpu-read"), "None of these attacks is mounted at the level bus"),
    ],
)
def test_level_without_attacks_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], complaint: str
) -> None:
    done = in_process(capsys, monkeypatch, "attack", *options)
    assert is_one_sentence(done), done
    assert complaint in done.stderr


def test_unknown_ip_lists_the_known_ones(tmp_path: Path) -> None:
    done = flexserve("verilog", "--ip", "toaster", "--output", tmp_path / "v")
    assert is_one_sentence(done), done
    assert "filter" in done.stderr
    assert not (tmp_path / "v").exists()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--ip", "filter", "--bus", "64"), "--bus is of the NPU alone"),
        (("--bus", "64"), "--bus is of the NPU alone"),
        (("--ip", "npu", "--ip", "soc", "--bus", "64"), "--bus is of the NPU alone"),
        (("--ip", "npu", "--pages", "4096"), "are of the filter alone"),
    ],
)
def test_option_of_another_design_is_refused(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    options: tuple[str, ...],
    complaint: str,
) -> None:
    done = in_process(capsys, monkeypatch, "verilog", *options, "--output", tmp_path / "v")
    assert is_one_sentence(done), done
    assert complaint in done.stderr
    assert os.listdir(tmp_path) == []


def test_soak_of_nothing_is_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    done = in_process(capsys, monkeypatch, "soak", "--transactions", "0")
    assert is_one_sentence(done), done
    assert "at least one transaction, not 0" in done.stderr


def test_bus_that_no_npu_has_is_said_with_those_it_can_have(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done = in_process(capsys, monkeypatch, "verilog", "--ip", "npu", "--bus", "256", "--output", tmp_path / "v")
    assert is_one_sentence(done), done
    assert "one of 32, 64, 128 data bits, not 256" in done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "known"),
    [(("--device", "XC7A35T"), "LFE5UM5G-85F-8, LFE5U-85F-8"), (("--design", "toaster"), "filter-small")],
)
def test_fpga_bench_lists_what_it_knows(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    options: tuple[str, str],
    known: str,
) -> None:
    done = in_process(capsys, monkeypatch, "bench", "fpga", *options, "--json", tmp_path / "fpga.json")
    assert is_one_sentence(done), done
    assert options[1] in done.stderr
    assert known in done.stderr
    assert os.listdir(tmp_path) == []


def test_option_that_does_not_exist_ends_with_2_and_no_traceback() -> None:
    done = flexserve("run", "--colour", "red")
    assert done.returncode == 2
    assert "--colour" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_names_every_option_of_run() -> None:
    text = flexserve("run", "--help").stdout
    options = ["checkpoint", "tokenizer", "prompt", "tokens", "kv", "design", "pressure", "array", "seed"]
    options += ["waves", "trace", "json", "report"]
    assert [option for option in options if f"--{option} " not in text] == []

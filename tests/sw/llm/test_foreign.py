"""A real checkpoint that others trained reads as it should. Skipped where it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from flexserve_sw.errors import UserError
from flexserve_sw.llm.checkpoint import Checkpoint
from flexserve_sw.llm.load import read_checkpoint
from flexserve_sw.llm.reference import complete, perplexity

PROMPT = "Once upon a time"
START = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."
TEXT = [START + " One day, she saw a big, red ball."]


@pytest.fixture(scope="module")
def model(shared_data: Path) -> Checkpoint:
    return read_checkpoint(shared_data / "stories260K.bin", shared_data / "tok512.bin")


def test_sizes_are_those_of_its_header(model: Checkpoint) -> None:
    c = model.config
    assert (c.dim, c.hidden, c.layers, c.heads, c.kv_heads, c.vocab, c.tied) == (64, 172, 5, 8, 4, 512, True)
    assert c.macs_per_token == 259_328


def test_float32_greedy_text(model: Checkpoint) -> None:
    assert complete(model, PROMPT, 60, arithmetic="float32").text.startswith(START)


def test_int8_tells_the_same_beginning_and_is_about_as_good(model: Checkpoint) -> None:
    assert complete(model, PROMPT, 60, arithmetic="int8").text.startswith(START)
    whole, quantised = (perplexity(model, TEXT, arithmetic=kind) for kind in ("float32", "int8"))
    assert 1.0 < whole < 4.0
    assert quantised == pytest.approx(whole, rel=0.05)


def test_its_tokenizer_joins_the_prompt(model: Checkpoint) -> None:
    assert model.tokenizer.encode(PROMPT) == [1, 403, 407, 261, 378]


def test_a_cut_file_and_a_foreign_tokenizer_are_refused(shared_data: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.bin"
    cut.write_bytes((shared_data / "stories260K.bin").read_bytes()[:-4])
    with pytest.raises(UserError, match="cut off"):
        read_checkpoint(cut, shared_data / "tok512.bin")
    with pytest.raises(UserError, match=r"512 tokens but checkpoint \(embedded\) has 768"):
        read_checkpoint(tokenizer=shared_data / "tok512.bin")

"""One model through every format is the same model; what cannot be read is refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from flexserve_sw.errors import UserError
from flexserve_sw.llm.checkpoint import Checkpoint
from flexserve_sw.llm.load import read_checkpoint
from flexserve_sw.llm.reference import complete
from flexserve_sw.llm.tokenizer import Tokenizer
from tests.sw.llm import tiny

CONFIGS = pytest.mark.parametrize("config", [tiny.CONFIG, tiny.UNTIED], ids=["tied", "untied"])


def _same(read: Checkpoint, model: Checkpoint, *, tolerance: float = 0.0) -> None:
    assert read.config == model.config
    assert read.tensors.keys() >= model.tensors.keys()
    for name, values in model.tensors.items():
        assert read.tensors[name].dtype == np.float32
        np.testing.assert_allclose(read.tensors[name], values, rtol=0, atol=tolerance, err_msg=name)
    assert read.tokenizer.encode("abc he é cab..") == model.tokenizer.encode("abc he é cab..")


@CONFIGS
def test_llama2c_comes_back(tmp_path: Path, config: tiny.ModelConfig) -> None:
    model = tiny.checkpoint(config)
    path = tiny.write_llama2c(tmp_path / "m.bin", model)
    _same(read_checkpoint(path, tiny.write_tokenizer(tmp_path / "t.bin")), model)


@CONFIGS
@pytest.mark.parametrize("kind", ["F32", "F16"])
def test_safetensors_come_back_with_their_rotary_halves_paired(
    tmp_path: Path, config: tiny.ModelConfig, kind: str
) -> None:
    model = tiny.checkpoint(config)
    folder = tiny.write_hf(tmp_path / "m", model, dtype=kind)
    _same(read_checkpoint(folder), model)
    _same(read_checkpoint(folder / "model.safetensors", folder / "tokenizer.bin"), model)


@CONFIGS
@pytest.mark.parametrize(("kind", "tolerance"), [("F32", 0.0), ("F16", 0.0), ("Q8_0", 0.01)])
def test_gguf_comes_back(tmp_path: Path, config: tiny.ModelConfig, kind: str, tolerance: float) -> None:
    model = tiny.checkpoint(config)
    _same(read_checkpoint(tiny.write_gguf(tmp_path / "m.gguf", model, kind=kind)), model, tolerance=tolerance)


def test_bfloat16_is_read(tmp_path: Path) -> None:
    model = tiny.checkpoint()
    folder = tiny.write_hf(tmp_path / "m", model)
    file = folder / "model.safetensors"
    raw = safetensors.numpy.load_file(file)
    halves = {name: (values.view(np.uint32) >> 16).astype(np.uint16) for name, values in raw.items()}
    serialised = bytearray(safetensors.numpy.save(halves))
    size = int.from_bytes(serialised[:8], "little")
    header = bytes(serialised[8 : 8 + size]).replace(b'"U16"', b'"BF16"')
    file.write_bytes(len(header).to_bytes(8, "little") + header + serialised[8 + size :])
    _same(read_checkpoint(folder), model, tolerance=0.01)


def test_all_formats_answer_alike(tmp_path: Path) -> None:
    model = tiny.checkpoint()
    readers = [
        read_checkpoint(tiny.write_llama2c(tmp_path / "m.bin", model), tiny.write_tokenizer(tmp_path / "t.bin")),
        read_checkpoint(tiny.write_hf(tmp_path / "m", model)),
        read_checkpoint(tiny.write_gguf(tmp_path / "m.gguf", model)),
    ]
    assert {complete(read, "abc", 20).text for read in readers} == {complete(model, "abc", 20).text}


def _llama2c(tmp_path: Path) -> tuple[Path, Path]:
    return tiny.write_llama2c(tmp_path / "m.bin", tiny.checkpoint()), tiny.write_tokenizer(tmp_path / "t.bin")


def _refused(path: Path, message: str, tokenizer: Path | None = None) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_checkpoint(path, tokenizer)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    _refused(tmp_path / "none.bin", "Cannot read checkpoint .*No such file")
    _refused(tmp_path / "none.safetensors", "There is no file")
    _refused(tmp_path, "There is no file")


def test_llama2c_of_another_size_is_refused(tmp_path: Path) -> None:
    path, tokenizer = _llama2c(tmp_path)
    raw = path.read_bytes()
    for damaged, message in ((raw[:20], "too few"), (raw[:-1], "cut off"), (raw + b"x", "too long"), (b"", "too few")):
        path.write_bytes(damaged)
        _refused(path, message, tokenizer)


def test_llama2c_with_sizes_that_disagree_is_refused(tmp_path: Path) -> None:
    path, tokenizer = _llama2c(tmp_path)
    raw = path.read_bytes()
    for word, value, message in (
        (3, 5, "heads"),
        (4, 3, "kv_heads"),
        (0, -1, "dim"),
        (2, 3, "cut off"),
        (5, 0, "vocab"),
    ):
        path.write_bytes(raw[: 4 * word] + value.to_bytes(4, "little", signed=True) + raw[4 * word + 4 :])
        _refused(path, message, tokenizer)
    path.write_bytes(b"24ka" + raw[4:])
    _refused(path, "version 1 or later", tokenizer)


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path, tokenizer = _llama2c(tmp_path)
    raw = bytearray(path.read_bytes())
    raw[100:104] = b"\x00\x00\xc0\x7f"
    path.write_bytes(raw)
    _refused(path, "embedding holds NaN", tokenizer)


def test_llama2c_without_tokenizer_is_refused(tmp_path: Path) -> None:
    _refused(_llama2c(tmp_path)[0], "brings no tokenizer")


def test_tokenizer_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    path, tokenizer = _llama2c(tmp_path)
    raw = tokenizer.read_bytes()
    tokenizer.write_bytes(raw + raw[-9:])
    _refused(path, "281 tokens but checkpoint .* has 280", tokenizer)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model_type", "qwen3", "only 'llama'"),
        ("hidden_size", 64, "is .* where its sizes ask for"),
        ("hidden_size", "64", "sizes that make no model"),
        ("num_hidden_layers", 3, "has no tensor model.layers.2"),
        ("num_hidden_layers", 1, "has tensor 'model.layers.1"),
        ("rope_scaling", {"rope_type": "llama3", "factor": 8.0}, "rotary scaling"),
        ("attention_bias", True, "attention biases"),
        ("mlp_bias", True, "feed-forward biases"),
        ("hidden_act", "gelu", "other than silu"),
        ("head_dim", 16, "head_dim 16"),
        ("rope_theta", 1e400, "sizes that make no model"),
        ("vocab_size", 281, "280 tokens but checkpoint .* has 281"),
        ("tie_word_embeddings", False, "has no tensor lm_head.weight"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(tmp_path: Path, key: str, value: object, message: str) -> None:
    folder = tiny.write_hf(tmp_path / "m", tiny.checkpoint())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, key: value}))
    _refused(folder, message)


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"model_type": "llama"}', "[" * 100_000])
def test_configurations_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    folder = tiny.write_hf(tmp_path / "m", tiny.checkpoint())
    (folder / "config.json").write_text(text)
    _refused(folder, "config.json")


def test_incomplete_directories_are_refused(tmp_path: Path) -> None:
    folder = tiny.write_hf(tmp_path / "m", tiny.checkpoint())
    (folder / "tokenizer.bin").unlink()
    _refused(folder, "neither tokenizer.bin nor tokenizer.json")
    (folder / "config.json").unlink()
    _refused(folder, "config.json: No such file")


def test_safetensors_of_another_type_are_refused(tmp_path: Path) -> None:
    folder = tiny.write_hf(tmp_path / "m", tiny.checkpoint())
    file = folder / "model.safetensors"
    raw = safetensors.numpy.load_file(file)
    safetensors.numpy.save_file({name: values.astype(np.float64) for name, values in raw.items()}, file)
    _refused(folder, "as F64; only F32, F16 and BF16")


def test_gguf_that_is_not_plain_llama_is_refused(tmp_path: Path) -> None:
    model = tiny.checkpoint()
    _refused(tiny.write_gguf(tmp_path / "a.gguf", model, architecture="qwen2"), "architecture 'qwen2'")
    _refused(tiny.write_gguf(tmp_path / "b.gguf", model, kind="Q4_0"), "as Q4_0; use a file in F32, F16 or Q8_0")
    cut = tiny.write_gguf(tmp_path / "c.gguf", model)
    cut.write_bytes(cut.read_bytes()[:-1000])
    _refused(cut, "damaged")
    cut.write_bytes(cut.read_bytes()[:500])
    _refused(cut, "ends inside its header")


def _tokenizer_json(tokenizer: Tokenizer, **changes: object) -> str:
    pieces = {piece.decode().strip("\n").replace(" ", "\u2581"): token for token, piece in enumerate(tokenizer.pieces)}
    merges = []
    ranked = sorted(range(259, len(tokenizer)), key=lambda token: -tokenizer.scores[token])
    for token in ranked:
        text = tokenizer.pieces[token].decode().replace(" ", "\u2581")
        halves = ((text[:i], text[i:]) for i in range(1, len(text)))
        merges += [f"{left} {right}" for left, right in halves if left in pieces and right in pieces]
    model = {"type": "BPE", "byte_fallback": True, "unk_token": "<unk>", "vocab": pieces, "merges": merges, **changes}
    added = [{"id": token, "content": text, "special": True} for token, text in enumerate(("<unk>", "<s>", "</s>"))]
    normalizer = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, {"type": "Replace"}]}
    return json.dumps({"added_tokens": added, "normalizer": normalizer, "model": model})


def test_tokenizer_json_joins_as_the_same_tokenizer_with_scores(tmp_path: Path) -> None:
    model = tiny.checkpoint()
    folder = tiny.write_hf(tmp_path / "m", model)
    (folder / "tokenizer.bin").unlink()
    (folder / "tokenizer.json").write_text(_tokenizer_json(model.tokenizer))
    read = read_checkpoint(folder).tokenizer
    for text in ("abc he", "aaaa.. é cab", "hehe ab", "Zoë"):
        assert read.encode(text) == model.tokenizer.encode(text)
        assert read.decode(read.encode(text)) == text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "Unigram"}, "no BPE with byte fallback"),
        ({"byte_fallback": False}, "no BPE with byte fallback"),
        ({"vocab": {"a": 5}}, "token numbers are not"),
        ({"merges": ["a nothing"]}, "damaged"),
        ({"merges": [["a"]]}, "damaged"),
        ({"vocab": None}, "damaged"),
    ],
)
def test_other_tokenizer_json_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    folder = tiny.write_hf(tmp_path / "m", tiny.checkpoint())
    (folder / "tokenizer.bin").unlink()
    (folder / "tokenizer.json").write_text(_tokenizer_json(tiny.tokenizer(), **changes))
    _refused(folder, message)

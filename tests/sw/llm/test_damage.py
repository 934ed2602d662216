"""Whatever is done to a file, reading it either works or ends in the one error with the one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flexserve_sw.errors import UserError
from flexserve_sw.llm.load import read_checkpoint
from flexserve_sw.llm.tokenizer import read_llama2c_tokenizer
from tests.sw.llm import tiny

EXAMPLES = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
HEADER = 1 << 14
EDITS = st.lists(st.tuples(st.integers(0, HEADER), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4)


def _read_or_refuse(read: Callable[[], object]) -> None:
    sentence = ""
    try:
        read()
    except UserError as error:
        sentence = str(error)
    assert "\n" not in sentence


def _damage(raw: bytes, edits: list[tuple[int, bytes]], keep: float) -> bytes:
    out = bytearray(raw)
    for offset, patch in edits:
        place = offset % len(out)
        out[place : place + len(patch)] = patch
    return bytes(out[: int(len(out) * keep)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damage")
    model = tiny.checkpoint(tiny.UNTIED)
    tiny.write_llama2c(folder / "m.bin", model)
    tiny.write_tokenizer(folder / "t.bin")
    tiny.write_gguf(folder / "m.gguf", model)
    tiny.write_hf(folder / "hf", model)
    return folder


@pytest.mark.parametrize("name", ["m.bin", "m.gguf", "hf/model.safetensors", "hf/config.json", "hf/tokenizer.bin"])
@EXAMPLES
@given(edits=EDITS, keep=st.sampled_from([1.0, 1.0, 0.999, 0.5, 0.01, 0.0]))
def test_a_damaged_file_is_read_or_refused(
    folder: Path, tmp_path: Path, name: str, edits: list[tuple[int, bytes]], keep: float
) -> None:
    for source in ("hf/config.json", "hf/model.safetensors", "hf/tokenizer.bin", name):
        target = tmp_path / source
        target.parent.mkdir(exist_ok=True)
        target.write_bytes((folder / source).read_bytes())
    (tmp_path / name).write_bytes(_damage((folder / name).read_bytes(), edits, keep))
    path = tmp_path / ("hf" if name.startswith("hf") else name)
    _read_or_refuse(lambda: read_checkpoint(path, None if path.name == "hf" else folder / "t.bin"))
    if name == "m.gguf":
        _read_or_refuse(lambda: read_checkpoint(path))


@pytest.mark.parametrize("start", [b"", b"GGUF\x03\x00\x00\x00", b"24ka", b"\x20\x00\x00\x00", b"{", b"PK\x03\x04"])
@EXAMPLES
@given(rest=st.binary(max_size=200))
def test_garbage_is_refused(tmp_path: Path, start: bytes, rest: bytes) -> None:
    for name in ("x.bin", "x.safetensors"):
        path = tmp_path / name
        path.write_bytes(start + rest)
        with pytest.raises(UserError):
            read_checkpoint(path, tiny.write_tokenizer(tmp_path / "t.bin"))


@EXAMPLES
@given(raw=st.binary(max_size=300))
def test_a_garbage_tokenizer_is_read_or_refused(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "t.bin"
    path.write_bytes(raw)
    _read_or_refuse(lambda: read_llama2c_tokenizer(path))


@EXAMPLES
@given(
    text=st.text(max_size=100)
    | st.recursive(
        st.none() | st.integers(),
        lambda x: st.lists(x) | st.dictionaries(st.sampled_from(["model", "type", "vocab", "merges"]), x),
    ).map(str)
)
def test_a_garbage_tokenizer_json_is_refused(folder: Path, tmp_path: Path, text: str) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / "hf" / name).read_bytes())
    (tmp_path / "tokenizer.json").write_text(text.replace("'", '"').replace("None", "null"), encoding="utf-8")
    with pytest.raises(UserError):
        read_checkpoint(tmp_path)

"""The tokenizer joins what it should and gives back what it was given."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexserve_sw.errors import UserError
from flexserve_sw.llm.tokenizer import Tokenizer, read_llama2c_tokenizer
from tests.sw.llm import tiny

TINY = tiny.tokenizer()


def _joined_slowly(tokenizer: Tokenizer, text: str) -> list[bytes]:
    """Best score first, leftmost of equals, one join per look at the whole text."""
    ranks = {piece: score for piece, score in list(zip(tokenizer.pieces, tokenizer.scores, strict=True))[259:]}
    symbols = [character.encode() for character in " " + text]
    while True:
        unions = [(ranks[a + b], -i) for i, (a, b) in enumerate(pairwise(symbols)) if a + b in ranks]
        if not unions:
            return symbols
        at = -max(unions)[1]
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(alphabet="abche. é", min_size=1, max_size=40))
def test_joins_best_score_first_and_leftmost(text: str) -> None:
    tokens = TINY.encode(text, bos=False)
    assert [TINY.pieces[token] for token in tokens] == _joined_slowly(TINY, text)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_comes_back(text: str) -> None:
    tokens = TINY.encode(text)
    assert tokens[0] == TINY.bos
    assert TINY.decode(tokens) == text


def test_special_tokens_cannot_be_typed() -> None:
    assert not {TINY.bos, TINY.eos} & set(TINY.encode("<s> </s> <unk> <0x41>", bos=False))
    assert TINY.decode([TINY.bos, TINY.eos]) == ""


def test_a_long_text_is_encoded_quickly_enough_to_be_refused_for_its_length() -> None:
    assert len(TINY.encode("abc " * 50_000)) > 50_000


def test_a_character_without_token_is_refused() -> None:
    tokenizer = Tokenizer(pieces=(b"<unk>", b"<s>", b"</s>", b"a"), scores=(0.0,) * 4, unknown=None, prefix=False)
    with pytest.raises(UserError, match="'b', which the tokenizer cannot write"):
        tokenizer.encode("ab")


def test_file_comes_back(tmp_path: Path) -> None:
    read = read_llama2c_tokenizer(tiny.write_tokenizer(tmp_path / "t.bin"))
    assert read == TINY


@pytest.mark.parametrize(("cut", "message"), [(3, "0 tokens"), (9, "ends inside"), (-1, "bad length")])
def test_damaged_file_is_refused(tmp_path: Path, cut: int, message: str) -> None:
    path = tiny.write_tokenizer(tmp_path / "t.bin")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match=message):
        read_llama2c_tokenizer(path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Cannot read tokenizer"):
        read_llama2c_tokenizer(tmp_path / "none.bin")


def test_scores_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    path = tiny.write_tokenizer(tmp_path / "t.bin")
    raw = bytearray(path.read_bytes())
    raw[4:8] = b"\x00\x00\xc0\x7f"
    path.write_bytes(raw)
    with pytest.raises(UserError, match="not NaN or infinite"):
        read_llama2c_tokenizer(path)


@pytest.mark.parametrize("bad", [{"bos": 9}, {"eos": -1}, {"unknown": 4}, {"scores": (0.0,)}])
def test_constructor_checks(bad: dict[str, object]) -> None:
    arguments: dict[str, object] = {"pieces": (b"a", b"b", b"c", b"d"), "scores": (0.0,) * 4, **bad}
    with pytest.raises(ValueError, match=", not "):
        Tokenizer(**arguments)

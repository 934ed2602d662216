"""Reader of ``tokenizer.json`` as converted from SentencePiece: BPE with byte fallback and U+2581 for a space."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import UserError
from .tokenizer import Tokenizer


def read_tokenizer_json(path: Path) -> Tokenizer:
    """Read the file; a piece's score is the rank of the first merge that makes it.

    Raises :class:`UserError` for other kinds of tokenizer and for damage.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("it is no JSON object")
        return _tokenizer(path, values)
    except OSError as error:
        raise UserError(f"Cannot read tokenizer {path}: {error.strerror or error}; check the path.") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"Tokenizer {path} is damaged: {error}.") from error


def _tokenizer(path: Path, values: dict[str, Any]) -> Tokenizer:
    model = values.get("model", {})
    if model.get("type") != "BPE" or not model.get("byte_fallback"):
        raise UserError(f"Tokenizer {path} is no BPE with byte fallback; give a llama2.c tokenizer file instead.")
    vocab: dict[str, int] = dict(model["vocab"])
    added = values.get("added_tokens") or []
    for entry in added:
        vocab.setdefault(entry["content"], entry["id"])
    pieces: list[bytes | None] = [None] * len(vocab)
    for text, token in vocab.items():
        if not isinstance(token, int) or not 0 <= token < len(pieces) or pieces[token] is not None:
            raise ValueError(f"its token numbers are not 0 to {len(pieces) - 1}, once each")
        pieces[token] = text.replace("\u2581", " ").encode()
    scores = [-float(len(model["merges"]) + 1)] * len(pieces)
    for rank, merge in reversed(list(enumerate(model["merges"]))):
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        scores[vocab[left + right]] = -float(rank)
    unknown = model.get("unk_token")
    return Tokenizer(
        pieces=tuple(piece for piece in pieces if piece is not None),
        scores=tuple(scores),
        bos=vocab["<s>"],
        eos=vocab["</s>"],
        unknown=None if unknown is None else vocab[unknown],
        prefix=_prefix(values),
        controls=frozenset(vocab[entry["content"]] for entry in added if entry.get("special")),
    )


def _prefix(values: dict[str, Any]) -> bool:
    normalizer = values.get("normalizer") or {}
    steps = normalizer.get("normalizers", [normalizer])
    before = values.get("pre_tokenizer") or {}
    prepended = any(step.get("type") == "Prepend" for step in steps)
    return prepended or (before.get("type") == "Metaspace" and before.get("prepend_scheme", "always") != "never")

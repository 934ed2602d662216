"""Byte-pair tokenizer training: which neighbours to join, most frequent first.

Nothing is joined across a space, nor letters with punctuation: a prompt that stops before a comma is then made of
the tokens that the text with the comma has.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

SPECIAL = (b"<unk>", b"\n<s>\n", b"\n</s>\n")
RUN = re.compile(r" ?[^\W_]+| ?[^\w\s]+|\s|_")
"""Letters and digits, or punctuation, either with the space before it."""


def train(texts: Iterable[str], size: int) -> tuple[list[bytes], list[float]]:
    """Pieces and scores of a tokenizer of ``size`` tokens: specials, all bytes, joined pieces, single characters."""
    words = Counter(word for text in texts for word in _words(text))
    characters = sorted({character for word in words for character in word})
    merges: list[str] = []
    parts = {word: list(word) for word in words}
    room = size - len(SPECIAL) - 256 - len(characters)
    if room < 0:
        raise ValueError(f"size must leave room for {len(characters)} characters, not {size!r}")
    while len(merges) < room:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            for pair in zip(parts[word], parts[word][1:], strict=False):
                pairs[pair] += count
        if not pairs:
            raise ValueError(f"size must be at most {size - room + len(merges)} for this text, not {size!r}")
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        joined = best[0] + best[1]
        if joined not in merges:
            merges.append(joined)
        for word, symbols in parts.items():
            parts[word] = _join(symbols, best)
    pieces = [*SPECIAL, *(f"<0x{byte:02X}>".encode() for byte in range(256))]
    scores = [0.0] * len(pieces) + [-float(rank) for rank in range(len(merges) + len(characters))]
    return pieces + [piece.encode() for piece in merges + characters], scores


def _words(text: str) -> list[str]:
    return RUN.findall(" " + text)


def _join(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for symbol in symbols:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return out

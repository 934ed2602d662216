"""Byte-pair tokenizer with scores and byte fallback, as LLaMA models use it, and the llama2.c file format for it."""

from __future__ import annotations

import heapq
import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError

__all__ = ["Tokenizer", "read_llama2c_tokenizer", "write_llama2c_tokenizer"]

PIECE_LIMIT = 1 << 12
"""Longest piece in bytes that a tokenizer file may hold."""


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """Pieces of text and the order in which they are joined.

    Encoding starts from single characters, bytes where a character is no piece, and joins the neighbours whose union
    has the highest score, leftmost first, until nothing joins.

    Parameters
    ----------
    pieces
        Bytes of each token. Tokens named ``<0xHH>`` stand for one byte.
    scores
        One per piece.
    bos, eos
        Tokens that begin and end a text; either ends an answer.
    unknown
        Token of a character that has no piece and no bytes, or none.
    prefix
        A space is put before the text, and taken off after ``bos``.
    """

    pieces: tuple[bytes, ...]
    scores: tuple[float, ...]
    bos: int = 1
    eos: int = 2
    unknown: int | None = 0
    prefix: bool = True
    controls: frozenset[int] = frozenset()
    _ids: dict[bytes, int] = field(init=False, repr=False, compare=False, default_factory=dict)
    _bytes: dict[int, int] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.scores) != len(self.pieces):
            raise ValueError(f"scores must be one per piece ({len(self.pieces)}), not {len(self.scores)!r}")
        if any(not math.isfinite(score) for score in self.scores):
            raise ValueError("scores must be finite numbers, not NaN or infinite")
        for name in ("bos", "eos", "unknown"):
            token = getattr(self, name)
            if token is not None and not 0 <= token < len(self.pieces):
                raise ValueError(f"{name} must be one of the {len(self.pieces)} tokens, not {token!r}")
        special = {self.bos, self.eos, self.unknown} | self.controls
        for token, piece in enumerate(self.pieces):
            if len(piece) == 6 and piece.startswith(b"<0x") and piece.endswith(b">"):
                try:
                    self._bytes[token] = int(piece[3:5], 16)
                except ValueError:
                    self._ids.setdefault(piece, token)
            elif token not in special and piece:
                self._ids.setdefault(piece, token)

    def __len__(self) -> int:
        return len(self.pieces)

    @property
    def stops(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return frozenset({self.bos, self.eos})

    def encode(self, text: str, *, bos: bool = True) -> list[int]:
        """Tokens of ``text``, after ``bos`` if asked. Raises :class:`UserError` for a character that has no token."""
        symbols = self._symbols((" " if self.prefix and text else "") + text)
        return ([self.bos] if bos else []) + self._merge(symbols)

    def decode(self, tokens: Iterable[int]) -> str:
        """Text of ``tokens``; special tokens give nothing, bytes that are no UTF-8 give U+FFFD."""
        out = bytearray()
        previous: int | None = None
        for token in tokens:
            out += self.piece(token, previous)
            previous = token
        return out.decode("utf-8", errors="replace")

    def piece(self, token: int, previous: int | None = None) -> bytes:
        """Bytes that ``token`` adds to a text after ``previous``; the space that encoding put first is taken off."""
        if not 0 <= token < len(self.pieces):
            raise ValueError(f"token must be below {len(self.pieces)}, not {token!r}")
        if token in self.stops or token == self.unknown or token in self.controls:
            return b""
        if token in self._bytes:
            return bytes([self._bytes[token]])
        piece = self.pieces[token]
        return piece[1:] if self.prefix and previous == self.bos and piece.startswith(b" ") else piece

    def _symbols(self, text: str) -> list[int]:
        fallback = {value: token for token, value in self._bytes.items()}
        symbols: list[int] = []
        for character in text:
            raw = character.encode("utf-8", errors="replace")
            if raw in self._ids:
                symbols.append(self._ids[raw])
            elif all(byte in fallback for byte in raw):
                symbols += [fallback[byte] for byte in raw]
            elif self.unknown is not None:
                symbols.append(self.unknown)
            else:
                raise UserError(f"The prompt holds {character!r}, which the tokenizer cannot write; leave it out.")
        return symbols

    def _merge(self, symbols: list[int]) -> list[int]:
        # A heap over a linked list: linear-logarithmic, so a huge prompt is refused for its length and not waited for.
        tokens: list[int | None] = list(symbols)
        after = list(range(1, len(symbols) + 1))
        before = list(range(-1, len(symbols) - 1))
        heap: list[tuple[float, int, int, int, int]] = []

        def offer(left: int) -> None:
            if left < 0 or after[left] >= len(tokens):
                return
            a, b = tokens[left], tokens[after[left]]
            if a is None or b is None or a in self._bytes or b in self._bytes:
                return
            union = self._ids.get(self.pieces[a] + self.pieces[b])
            if union is not None:
                heapq.heappush(heap, (-self.scores[union], left, a, b, union))

        for left in range(len(symbols) - 1):
            offer(left)
        while heap:
            _, left, a, b, union = heapq.heappop(heap)
            right = after[left]
            if tokens[left] != a or right >= len(tokens) or tokens[right] != b:
                continue
            tokens[left], tokens[right] = union, None
            after[left] = after[right]
            if after[left] < len(tokens):
                before[after[left]] = left
            offer(before[left])
            offer(left)
        return [token for token in tokens if token is not None]


def read_llama2c_tokenizer(path: str | Path) -> Tokenizer:
    """Read a llama2.c tokenizer: ``uint32`` longest piece, then per token ``float32`` score, ``int32`` length, bytes.

    Raises :class:`UserError` for a file that is missing, cut off or no tokenizer.
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"Cannot read tokenizer {path}: {error.strerror or error}; check the path.") from error
    pieces: list[bytes] = []
    scores: list[float] = []
    offset = 4
    while offset < len(raw):
        if offset + 8 > len(raw):
            raise UserError(
                f"Tokenizer {path} ends inside token {len(pieces)}; it is cut off or no llama2.c tokenizer."
            )
        score, length = struct.unpack_from("<fi", raw, offset)
        offset += 8
        if not 0 <= length <= PIECE_LIMIT or offset + length > len(raw):
            raise UserError(f"Tokenizer {path} has a bad length at token {len(pieces)}; it is no llama2.c tokenizer.")
        pieces.append(raw[offset : offset + length])
        scores.append(score)
        offset += length
    if len(pieces) < 3:
        raise UserError(f"Tokenizer {path} holds {len(pieces)} tokens; it is empty or no llama2.c tokenizer.")
    try:
        return Tokenizer(pieces=tuple(pieces), scores=tuple(scores))
    except ValueError as damage:
        raise UserError(f"Tokenizer {path} is damaged: {damage}.") from damage


def write_llama2c_tokenizer(path: str | Path, pieces: Sequence[bytes], scores: Sequence[float]) -> None:
    """Write pieces and scores in the format that :func:`read_llama2c_tokenizer` reads."""
    out = bytearray(struct.pack("<I", max(len(piece) for piece in pieces)))
    for piece, score in zip(pieces, scores, strict=True):
        out += struct.pack("<fi", score, len(piece)) + piece
    Path(path).write_bytes(bytes(out))

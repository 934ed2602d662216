"""Reader of GGUF files of architecture ``llama``: F32, F16 and Q8_0 tensors, SentencePiece-style tokenizer.

GGUF stores q and k with rotary pairs side by side (2i, 2i + 1), as this project computes: nothing is permuted.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from ..errors import UserError
from .arithmetic import Float
from .checkpoint import Checkpoint, expected_shapes
from .config import ModelConfig
from .tokenizer import Tokenizer

MAGIC = b"GGUF"
NAMES = {
    "attention_norm": "attn_norm", "q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output",
    "ffn_norm": "ffn_norm", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down",
}  # fmt: skip
TOP_NAMES = {"embedding": "token_embd.weight", "norm": "output_norm.weight", "classifier": "output.weight"}
TYPES = {
    gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16, gguf.GGMLQuantizationType.Q8_0,
}  # fmt: skip
SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY = 8, 9
MAX_DIMENSIONS = 4
CONTROL, BYTE = 3, 6
"""Token types of special tokens and of single bytes."""


def is_gguf(path: Path) -> bool:
    """Whether the file starts as GGUF files do."""
    with path.open("rb") as file:
        return file.read(4) == MAGIC


class _Walk:
    """Steps over a GGUF header and checks that all it announces is in the file; the package's reader trusts it."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.offset = 4

    def number(self, form: str) -> int:
        size = struct.calcsize(form)
        self.skip(size)
        return int(struct.unpack_from(form, self.raw, self.offset - size)[0])

    def skip(self, size: int) -> None:
        self.offset += size
        if self.offset > len(self.raw):
            raise UserError("it ends inside its header")

    def value(self, kind: int) -> None:
        if kind == STRING:
            self.skip(self.number("<Q"))
        elif kind in SCALAR_BYTES:
            self.skip(SCALAR_BYTES[kind])
        elif kind == ARRAY:
            element, length = self.number("<I"), self.number("<Q")
            if element in SCALAR_BYTES:
                self.skip(SCALAR_BYTES[element] * length)
            elif element == STRING:
                for _ in range(length):
                    self.value(STRING)
            else:
                raise UserError(f"it has an array of unknown type {element}")
        else:
            raise UserError(f"it has a value of unknown type {kind}")

    def header(self) -> None:
        version = self.number("<I")
        if version not in (2, 3):
            raise UserError(f"it has version {version}, and only 2 and 3 are known")
        tensors, values = self.number("<Q"), self.number("<Q")
        for _ in range(values):
            self.value(STRING)
            self.value(self.number("<I"))
        for _ in range(tensors):
            self.value(STRING)
            dimensions = self.number("<I")
            if dimensions > MAX_DIMENSIONS:
                raise UserError(f"it has a tensor of {dimensions} dimensions")
            self.skip(8 * dimensions + 4 + 8)


def read_gguf(path: Path, tokenizer: Tokenizer | None) -> Checkpoint:
    """Read a GGUF file. Raises :class:`UserError` for damage and for models that are not plain LLaMA."""
    with path.open("rb") as file:
        raw = file.read()
    try:
        _Walk(raw).header()
        reader = gguf.GGUFReader(path)
        metadata: dict[str, Any] = {key: field.contents() for key, field in reader.fields.items()}
        stored = {tensor.name: tensor for tensor in reader.tensors}
    except UserError as error:
        raise UserError(f"GGUF file {path} cannot be read: {error}.") from error
    except Exception as error:  # the package's parser raises whatever its slices and views raise on damaged input
        raise UserError(f"GGUF file {path} is damaged: {type(error).__name__} while parsing it.") from error
    config = _config(path, metadata, tied=TOP_NAMES["classifier"] not in stored)
    wanted = {ours: _name(ours) for ours in expected_shapes(config)}
    for name in stored:
        if name not in wanted.values():
            raise UserError(
                f"GGUF file {path} has tensor {name!r}, which plain LLaMA models do not; use another model."
            )
    tensors: dict[str, Float] = {}
    for ours, theirs in wanted.items():
        if theirs not in stored:
            raise UserError(f"GGUF file {path} has no tensor {theirs}; it is incomplete or not a LLaMA model.")
        tensor = stored[theirs]
        if tensor.tensor_type not in TYPES:
            raise UserError(
                f"GGUF file {path} stores {theirs} as {tensor.tensor_type.name}; use a file in F32, F16 or Q8_0."
            )
        with np.errstate(over="ignore", invalid="ignore"):
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        tensors[ours] = np.asarray(values, np.float32)
    own = tokenizer or _tokenizer(path, metadata)
    return Checkpoint(name=str(path), config=config, tensors=tensors, tokenizer=own)


def _name(ours: str) -> str:
    if ours in TOP_NAMES:
        return TOP_NAMES[ours]
    _, layer, kind = ours.split(".")
    return f"blk.{layer}.{NAMES[kind]}.weight"


def _config(path: Path, metadata: dict[str, Any], *, tied: bool) -> ModelConfig:
    architecture = metadata.get("general.architecture")
    if architecture != "llama":
        raise UserError(f"GGUF file {path} holds a model of architecture {architecture!r}; only 'llama' is supported.")

    def get(key: str, default: Any = None) -> Any:
        value = metadata.get(f"llama.{key}", default)
        if value is None:
            raise UserError(f"GGUF file {path} has no llama.{key}; it is incomplete.")
        return value

    vocab = metadata.get("tokenizer.ggml.tokens", [])
    try:
        heads = get("attention.head_count")
        config = ModelConfig(
            dim=get("embedding_length"),
            hidden=get("feed_forward_length"),
            layers=get("block_count"),
            heads=heads,
            kv_heads=get("attention.head_count_kv", heads),
            vocab=metadata.get("llama.vocab_size", len(vocab)),
            seq_len=get("context_length"),
            rope_theta=float(get("rope.freq_base", 10000.0)),
            norm_eps=float(f"{get('attention.layer_norm_rms_epsilon', 1e-5):.6g}"),
            tied=tied,
        )
    except (ValueError, TypeError) as error:
        raise UserError(f"GGUF file {path} has sizes that make no model: {error}.") from error
    for key in ("rope.dimension_count", "attention.key_length", "attention.value_length"):
        if get(key, config.head_dim) != config.head_dim:
            raise UserError(f"GGUF file {path} has llama.{key} {get(key)!r}; only {config.head_dim} is supported here.")
    if metadata.get("llama.rope.scaling.type", "none") != "none":
        raise UserError(f"GGUF file {path} scales its rotary positions, which is not supported; use another model.")
    return config


def _tokenizer(path: Path, metadata: dict[str, Any]) -> Tokenizer:
    kind = metadata.get("tokenizer.ggml.model")
    if kind != "llama":
        raise UserError(f"GGUF file {path} has a tokenizer of kind {kind!r}; give a llama2.c tokenizer file instead.")

    def get(key: str, default: Any) -> Any:
        return metadata.get(f"tokenizer.ggml.{key}", default)

    try:
        types = list(get("token_type", []))
        pieces = tuple(str(token).replace("\u2581", " ").encode() for token in get("tokens", []))
        return Tokenizer(
            pieces=pieces,
            scores=tuple(float(score) for score in get("scores", [])),
            bos=int(get("bos_token_id", 1)),
            eos=int(get("eos_token_id", 2)),
            unknown=int(get("unknown_token_id", 0)),
            prefix=bool(get("add_space_prefix", True)),
            controls=frozenset(token for token, type_ in enumerate(types) if type_ == CONTROL),
        )
    except (ValueError, TypeError) as error:
        raise UserError(f"GGUF file {path} has a damaged tokenizer: {error}.") from error

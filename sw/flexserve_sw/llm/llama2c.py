"""Reader and writer of llama2.c checkpoints, version 0: seven int32 sizes, then float32 tensors without names."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from ..errors import UserError
from .arithmetic import Float
from .checkpoint import Checkpoint
from .config import ModelConfig
from .tokenizer import Tokenizer

VERSIONED_MAGIC = 0x616B3432
"""First word of llama2.c files of version 1 and later."""

PER_LAYER = ("attention_norm", "q", "k", "v", "o", "ffn_norm", "gate", "down", "up")
"""Each of these is stored for all layers at once, in this order."""


def _layout(config: ModelConfig) -> list[tuple[str, tuple[int, ...]]]:
    dim, kv_dim, hidden = config.dim, config.kv_dim, config.hidden
    shapes: dict[str, tuple[int, ...]] = {
        "attention_norm": (dim,), "q": (dim, dim), "k": (kv_dim, dim), "v": (kv_dim, dim), "o": (dim, dim),
        "ffn_norm": (dim,), "gate": (hidden, dim), "down": (dim, hidden), "up": (hidden, dim),
    }  # fmt: skip
    order: list[tuple[str, tuple[int, ...]]] = [("embedding", (config.vocab, dim))]
    order += [(name, (config.layers, *shapes[name])) for name in PER_LAYER]
    order += [("norm", (dim,)), ("rotary table", (2, config.seq_len, config.head_dim // 2))]
    if not config.tied:
        order.append(("classifier", (config.vocab, dim)))
    return order


def read_llama2c(path: Path, tokenizer: Tokenizer | None) -> Checkpoint:
    """Read a version-0 file. Raises :class:`UserError` if it is not exactly one, and without a tokenizer."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(28)
        if len(header) < 28:
            raise UserError(f"Checkpoint {path} has {size} bytes, too few for any model; it is cut off.")
        dim, hidden, layers, heads, kv_heads, vocab, seq_len = struct.unpack("<7i", header)
        if dim == VERSIONED_MAGIC:
            raise UserError(f"Checkpoint {path} is a llama2.c file of version 1 or later; export it as version 0.")
        try:
            config = ModelConfig(
                dim=dim, hidden=hidden, layers=layers, heads=heads, kv_heads=kv_heads, vocab=abs(vocab),
                seq_len=seq_len, tied=vocab > 0,
            )  # fmt: skip
        except ValueError as error:
            raise UserError(f"Checkpoint {path} is no known model file: {error}.") from error
        layout = _layout(config)
        expected = 28 + 4 * sum(_count(shape) for _, shape in layout)
        if size != expected:
            problem = "cut off" if size < expected else "too long"
            raise UserError(f"Checkpoint {path} is {problem}: its sizes ask for {expected} bytes and it has {size}.")
        if tokenizer is None:
            raise UserError(f"Checkpoint {path} brings no tokenizer; give its llama2.c file with --tokenizer.")
        tensors: dict[str, Float] = {}
        for name, shape in layout:
            raw = file.read(4 * _count(shape))
            values = np.frombuffer(raw, "<f4").astype(np.float32).reshape(shape)
            if name in ("embedding", "norm", "classifier"):
                tensors[name] = values
            elif name != "rotary table":
                tensors |= {f"layers.{layer}.{name}": values[layer] for layer in range(config.layers)}
    return Checkpoint(name=str(path), config=config, tensors=tensors, tokenizer=tokenizer)


def write_llama2c(path: Path, checkpoint: Checkpoint) -> Path:
    """Write a version-0 file; the tokenizer goes into a file of its own."""
    config = checkpoint.config
    tensors = checkpoint.tensors | {"rotary table": np.zeros((2, config.seq_len, config.head_dim // 2), np.float32)}
    vocab = config.vocab if config.tied else -config.vocab
    sizes = (config.dim, config.hidden, config.layers, config.heads, config.kv_heads, vocab, config.seq_len)
    with path.open("wb") as file:
        file.write(struct.pack("<7i", *sizes))
        for name, _ in _layout(config):
            parts = [f"layers.{layer}.{name}" for layer in range(config.layers)] if name in PER_LAYER else [name]
            file.writelines(tensors[part].astype("<f4").tobytes() for part in parts)
    return path


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count

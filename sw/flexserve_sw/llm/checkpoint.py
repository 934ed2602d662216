"""A model as read from a file: sizes, float32 tensors and tokenizer, whatever the format."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from .arithmetic import Float
from .config import ModelConfig
from .tokenizer import Tokenizer

__all__ = ["Checkpoint", "expected_shapes"]


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of a checkpoint and its shape; matrices are ``[outputs, inputs]``."""
    dim, kv_dim, hidden = config.dim, config.kv_dim, config.hidden
    shapes: dict[str, tuple[int, ...]] = {"embedding": (config.vocab, dim)}
    for layer in range(config.layers):
        shapes |= {
            f"layers.{layer}.{name}": shape
            for name, shape in (
                ("attention_norm", (dim,)),
                ("q", (dim, dim)),
                ("k", (kv_dim, dim)),
                ("v", (kv_dim, dim)),
                ("o", (dim, dim)),
                ("ffn_norm", (dim,)),
                ("gate", (hidden, dim)),
                ("up", (hidden, dim)),
                ("down", (dim, hidden)),
            )
        }
    shapes["norm"] = (dim,)
    if not config.tied:
        shapes["classifier"] = (config.vocab, dim)
    return shapes


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A float32 model with rotary pairs (2i, 2i + 1).

    Parameters
    ----------
    name
        Where it came from, for messages.
    config
        Sizes.
    tensors
        As :func:`expected_shapes` lists them.
    tokenizer
        As many pieces as the model has tokens.

    Raises :class:`UserError` when a tensor is missing, has another shape or is not finite, or the tokenizer is of
    another vocabulary.
    """

    name: str
    config: ModelConfig
    tensors: dict[str, Float]
    tokenizer: Tokenizer

    def __post_init__(self) -> None:
        if len(self.tokenizer) != self.config.vocab:
            raise UserError(
                f"The tokenizer has {len(self.tokenizer)} tokens but checkpoint {self.name} has {self.config.vocab};"
                " give the tokenizer that belongs to it."
            )
        for name, shape in expected_shapes(self.config).items():
            tensor = self.tensors.get(name)
            if tensor is None:
                raise UserError(f"Checkpoint {self.name} has no tensor {name}; it is incomplete or not a LLaMA model.")
            if tensor.shape != shape:
                raise UserError(
                    f"Checkpoint {self.name}: tensor {name} is {tensor.shape} where its sizes ask for {shape}."
                )
            if not np.isfinite(tensor).all():
                raise UserError(f"Checkpoint {self.name}: tensor {name} holds NaN or infinity; the file is damaged.")

    def linear(self, name: str) -> Float:
        """Matrix ``[K, N]`` of a linear layer, q, k, v and gate, up side by side."""
        if name == "classifier":
            parts = ["embedding" if self.config.tied else "classifier"]
        else:
            prefix, _, kind = name.rpartition(".")
            fused = {"qkv": ("q", "k", "v"), "gate_up": ("gate", "up")}
            parts = [f"{prefix}.{part}" for part in fused.get(kind, (kind,))]
        return np.ascontiguousarray(np.concatenate([self.tensors[part] for part in parts]).T)

"""Sizes of a LLaMA-architecture model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

SIZE_LIMIT = 1 << 24
"""No size of a model that this project can run comes near it; what is larger is a damaged header."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes and constants of one model.

    Parameters
    ----------
    dim
        Width of the residual stream.
    hidden
        Width between the feed-forward projections.
    layers, heads, kv_heads
        Transformer layers; query heads; key and value heads, each shared by ``heads / kv_heads`` query heads.
    vocab
        Tokens.
    seq_len
        Longest context, prompt and answer together, in tokens.
    rope_theta
        Base of the rotary position frequencies.
    norm_eps
        Added to the mean square in RMSNorm.
    tied
        The classifier is the embedding.
    """

    dim: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    vocab: int
    seq_len: int
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    tied: bool = True

    def __post_init__(self) -> None:
        for name in ("dim", "hidden", "layers", "heads", "kv_heads", "vocab", "seq_len"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < SIZE_LIMIT:
                raise ValueError(f"Model size {name} must be an integer from 1 to {SIZE_LIMIT - 1}, not {value!r}")
        if self.dim % self.heads or (self.dim // self.heads) % 2:
            raise ValueError(f"dim must be heads ({self.heads}) times an even head size, not {self.dim!r}")
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads must divide heads ({self.heads}), not {self.kv_heads!r}")
        for name, low, high in (("rope_theta", 1.0, 1e12), ("norm_eps", 1e-12, 1.0)):
            value = getattr(self, name)
            if not isinstance(value, float) or not low <= value <= high:
                raise ValueError(f"{name} must be a number from {low:g} to {high:g}, not {value!r}")

    @cached_property
    def head_dim(self) -> int:
        """Width of a head."""
        return self.dim // self.heads

    @cached_property
    def kv_dim(self) -> int:
        """Width of a row of keys, and of a row of values."""
        return self.kv_heads * self.head_dim

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Every linear layer in the order of use: name to ``(K, N)``, inputs and outputs."""
        shapes: dict[str, tuple[int, int]] = {}
        for layer in range(self.layers):
            shapes[f"layers.{layer}.qkv"] = (self.dim, self.dim + 2 * self.kv_dim)
            shapes[f"layers.{layer}.o"] = (self.dim, self.dim)
            shapes[f"layers.{layer}.gate_up"] = (self.dim, 2 * self.hidden)
            shapes[f"layers.{layer}.down"] = (self.hidden, self.dim)
        shapes["classifier"] = (self.dim, self.vocab)
        return shapes

    @property
    def macs_per_token(self) -> int:
        """Multiply-accumulates per token in linear layers and classifier."""
        return sum(k * n for k, n in self.linears.values())

    @property
    def parameters(self) -> int:
        """Stored values, the embedding counted once when tied."""
        classifier = 0 if self.tied else self.vocab * self.dim
        linear = sum(k * n for name, (k, n) in self.linears.items() if name != "classifier")
        return self.vocab * self.dim + linear + (2 * self.layers + 1) * self.dim + classifier

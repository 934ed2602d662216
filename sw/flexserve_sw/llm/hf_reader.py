"""Reader of safetensors with the names and the ``config.json`` of Hugging Face's LLaMA models, in one file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from ..errors import UserError
from .arithmetic import Float
from .checkpoint import Checkpoint, expected_shapes
from .config import ModelConfig
from .tokenizer import Tokenizer, read_llama2c_tokenizer
from .tokenizer_json import read_tokenizer_json

WEIGHTS_FILE = "model.safetensors"
NAMES = {
    "attention_norm": "input_layernorm", "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj",
    "o": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm", "gate": "mlp.gate_proj", "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}  # fmt: skip
TOP_NAMES = {"embedding": "model.embed_tokens.weight", "norm": "model.norm.weight", "classifier": "lm_head.weight"}
MISSING: Any = object()
deserialize: Any = safetensors.deserialize  # untyped; the only entry that gives raw BF16


def hf_name(ours: str) -> str:
    """Hugging Face's name of a tensor."""
    if ours in TOP_NAMES:
        return TOP_NAMES[ours]
    _, layer, kind = ours.split(".")
    return f"model.layers.{layer}.{NAMES[kind]}.weight"


def interleave(matrix: Float, heads: int) -> Float:
    """Rows of a q or k matrix from halves (i, i + d/2), as Hugging Face rotates, to pairs (2i, 2i + 1)."""
    rows, columns = matrix.shape
    return np.ascontiguousarray(
        matrix.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
    )


def deinterleave(matrix: Float, heads: int) -> Float:
    """The inverse of :func:`interleave`."""
    rows, columns = matrix.shape
    return np.ascontiguousarray(
        matrix.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
    )


def read_hf(path: Path, tokenizer: Tokenizer | None, *, name: str | None = None) -> Checkpoint:
    """Read a directory, or a ``.safetensors`` file beside its ``config.json``.

    The tokenizer is ``tokenizer``, else ``tokenizer.bin`` (llama2.c format) or ``tokenizer.json`` in the directory.
    Raises :class:`UserError` for damage and for models that are not plain LLaMA.
    """
    weights = path / WEIGHTS_FILE if path.is_dir() else path
    folder = weights.parent
    name = name or str(path)
    if not weights.exists():
        raise UserError(f"There is no file {weights}; give a directory with {WEIGHTS_FILE} in one file, or that file.")
    config = _config(folder / "config.json")
    stored = _tensors(weights)
    if hf_name("classifier") in stored and config.tied:
        del stored[hf_name("classifier")]
    wanted = {ours: hf_name(ours) for ours in expected_shapes(config)}
    for theirs in stored:
        if theirs not in wanted.values() and not theirs.endswith("rotary_emb.inv_freq"):
            raise UserError(f"{weights} has tensor {theirs!r}, which plain LLaMA models do not; use another model.")
    tensors: dict[str, Float] = {}
    for (ours, theirs), shape in zip(wanted.items(), expected_shapes(config).values(), strict=True):
        if theirs not in stored:
            raise UserError(
                f"{weights} has no tensor {theirs}; it is incomplete or does not belong to its config.json."
            )
        tensors[ours] = stored[theirs]
        kind = ours.rpartition(".")[2]
        if kind in ("q", "k") and tensors[ours].shape == shape:
            tensors[ours] = interleave(tensors[ours], config.heads if kind == "q" else config.kv_heads)
    return Checkpoint(name=name, config=config, tensors=tensors, tokenizer=tokenizer or _tokenizer(folder))


def _config(path: Path) -> ModelConfig:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}; safetensors need it beside them.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON; it is damaged.") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} is not a model configuration; it is damaged.")
    if values.get("model_type") != "llama":
        raise UserError(f"{path} describes a model of type {values.get('model_type')!r}; only 'llama' is supported.")

    def get(key: str, default: Any = MISSING) -> Any:
        value = values.get(key, default)
        if value is MISSING:
            raise UserError(f"{path} has no {key}; it is incomplete.")
        return value

    rope = get("rope_parameters", None) or get("rope_scaling", None) or {}
    unsupported = {
        "rotary scaling": isinstance(rope, dict) and rope.get("rope_type", rope.get("type", "default")) == "default",
        "an activation other than silu": get("hidden_act", "silu") == "silu",
        "attention biases": not get("attention_bias", False),
        "feed-forward biases": not get("mlp_bias", False),
    }
    for what, absent in unsupported.items():
        if not absent:
            raise UserError(f"{path} asks for {what}, which is not supported; use another model.")
    try:
        heads = get("num_attention_heads")
        config = ModelConfig(
            dim=get("hidden_size"),
            hidden=get("intermediate_size"),
            layers=get("num_hidden_layers"),
            heads=heads,
            kv_heads=heads if get("num_key_value_heads", None) is None else get("num_key_value_heads"),
            vocab=get("vocab_size"),
            seq_len=get("max_position_embeddings", 2048),
            rope_theta=float(rope.get("rope_theta", get("rope_theta", 10000.0))),
            norm_eps=float(get("rms_norm_eps", 1e-6)),
            tied=bool(get("tie_word_embeddings", False)),
        )
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{path} has sizes that make no model: {error}.") from error
    if get("head_dim", None) not in (None, config.head_dim):
        raise UserError(f"{path} has head_dim {get('head_dim')!r}; only hidden_size / heads is supported.")
    return config


def _tensors(path: Path) -> dict[str, Float]:
    try:
        entries = deserialize(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise UserError(f"{path} is no safetensors file or is cut off: {error}.") from error
    out: dict[str, Float] = {}
    for name, entry in entries:
        data, kind = entry["data"], entry["dtype"]
        if kind == "BF16":
            values = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
        elif kind in ("F32", "F16"):
            values = np.frombuffer(data, "<f4" if kind == "F32" else "<f2").astype(np.float32)
        else:
            raise UserError(f"{path} stores {name} as {kind}; only F32, F16 and BF16 are supported.")
        out[name] = values.reshape(entry["shape"])
    return out


def _tokenizer(folder: Path) -> Tokenizer:
    if (folder / "tokenizer.bin").exists():
        return read_llama2c_tokenizer(folder / "tokenizer.bin")
    if (folder / "tokenizer.json").exists():
        return read_tokenizer_json(folder / "tokenizer.json")
    raise UserError(f"{folder} has neither tokenizer.bin nor tokenizer.json; give a llama2.c tokenizer file.")

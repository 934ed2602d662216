"""A small random model and writers that put it into every format that can be read."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import safetensors.numpy

from flexserve_sw.llm.arithmetic import Float
from flexserve_sw.llm.checkpoint import Checkpoint, expected_shapes
from flexserve_sw.llm.config import ModelConfig
from flexserve_sw.llm.gguf_reader import NAMES as GGUF_NAMES
from flexserve_sw.llm.gguf_reader import TOP_NAMES as GGUF_TOP_NAMES
from flexserve_sw.llm.hf_reader import hf_name
from flexserve_sw.llm.llama2c import write_llama2c as write_llama2c
from flexserve_sw.llm.tokenizer import Tokenizer, write_llama2c_tokenizer

SEED = 7
CONFIG = ModelConfig(dim=32, hidden=64, layers=2, heads=4, kv_heads=2, vocab=280, seq_len=48)
UNTIED = ModelConfig(dim=32, hidden=64, layers=1, heads=4, kv_heads=4, vocab=280, seq_len=24, tied=False)


def tokenizer() -> Tokenizer:
    """Specials, all bytes, a few letters and joins."""
    letters = [b" ", b"a", b"b", b"c", b"h", b"e", b"\xc3\xa9", b"."]
    joins = [b" a", b"ab", b"abc", b"he", b" he", b"bc", b" ab", b"ca", b"cab", b"aa", b"aaa", b"a.", b".."]
    pieces = [b"<unk>", b"\n<s>\n", b"\n</s>\n", *(f"<0x{byte:02X}>".encode() for byte in range(256)), *joins, *letters]
    return Tokenizer(
        pieces=tuple(pieces), scores=(0.0,) * 259 + tuple(-float(i) for i in range(len(joins) + len(letters)))
    )


def checkpoint(config: ModelConfig = CONFIG) -> Checkpoint:
    """Weights of the size that trained ones have, so that activations neither die nor explode."""
    random = np.random.default_rng(SEED)
    tensors: dict[str, Float] = {}
    for name, shape in expected_shapes(config).items():
        values = random.standard_normal(shape) * 0.3 + (1.0 if name.endswith("norm") else 0.0)
        tensors[name] = values.astype(np.float16).astype(np.float32)
    return Checkpoint(name="tiny", config=config, tensors=tensors, tokenizer=tokenizer())


def write_tokenizer(path: Path) -> Path:
    """llama2.c tokenizer file."""
    own = tokenizer()
    write_llama2c_tokenizer(path, own.pieces, own.scores)
    return path


def halves(matrix: Float, heads: int) -> Float:
    """Rotary pairs (2i, 2i + 1) to halves, row by row."""
    size = matrix.shape[0] // heads
    rows = [head * size + pair * 2 + part for head in range(heads) for part in (0, 1) for pair in range(size // 2)]
    return matrix[rows]


def write_hf(folder: Path, model: Checkpoint, *, dtype: str = "F32") -> Path:
    """config.json, model.safetensors, tokenizer.bin."""
    folder.mkdir(parents=True, exist_ok=True)
    c = model.config
    tensors = {}
    for name, values in model.tensors.items():
        kind = name.rpartition(".")[2]
        if kind in ("q", "k"):
            values = halves(values, c.heads if kind == "q" else c.kv_heads)
        tensors[hf_name(name)] = np.ascontiguousarray(values, {"F32": np.float32, "F16": np.float16}[dtype])
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(
        json.dumps(
            {
                "model_type": "llama", "hidden_size": c.dim, "intermediate_size": c.hidden,
                "num_hidden_layers": c.layers, "num_attention_heads": c.heads, "num_key_value_heads": c.kv_heads,
                "vocab_size": c.vocab, "max_position_embeddings": c.seq_len, "rms_norm_eps": c.norm_eps,
                "rope_theta": c.rope_theta, "tie_word_embeddings": c.tied,
            }
        )
    )  # fmt: skip
    write_tokenizer(folder / "tokenizer.bin")
    return folder


def write_gguf(path: Path, model: Checkpoint, *, kind: str = "F32", architecture: str = "llama") -> Path:
    """GGUF by the package's own writer; matrices as ``kind``, vectors as F32."""
    c = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(c.seq_len)
    writer.add_embedding_length(c.dim)
    writer.add_block_count(c.layers)
    writer.add_feed_forward_length(c.hidden)
    writer.add_head_count(c.heads)
    writer.add_head_count_kv(c.kv_heads)
    writer.add_layer_norm_rms_eps(c.norm_eps)
    writer.add_rope_dimension_count(c.head_dim)
    writer.add_vocab_size(c.vocab)
    writer.add_tokenizer_model("llama")
    own = model.tokenizer
    pieces = [piece.replace(b" ", "\u2581".encode()) for piece in own.pieces]
    writer.add_token_list([piece.strip() if token in (1, 2) else piece for token, piece in enumerate(pieces)])
    writer.add_token_scores(own.scores)
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * (len(own) - 259))
    target = gguf.GGMLQuantizationType[kind]
    for name, values in model.tensors.items():
        layer_name = name.split(".")
        theirs = GGUF_TOP_NAMES.get(name) or f"blk.{layer_name[1]}.{GGUF_NAMES[layer_name[-1]]}.weight"
        if values.ndim == 1:
            writer.add_tensor(theirs, values)
        else:
            writer.add_tensor(theirs, gguf.quants.quantize(values, target), raw_dtype=target)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path

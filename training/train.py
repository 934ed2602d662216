"""Train the embedded checkpoint: `python training/train.py OUT`, with the extra `train`.

Writes ``config.json``, ``model.safetensors`` (float16, Hugging Face names), ``tokenizer.bin`` and ``held_out.txt`` to
OUT. The same seed gives the same stories and the same tokenizer. One thread, about twenty minutes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path

import bpe
import numpy as np
import safetensors.numpy
import stories
import torch
from muon import Muon
from torch import nn
from torch.nn import functional

from flexserve_sw.llm.checkpoint import expected_shapes
from flexserve_sw.llm.config import ModelConfig
from flexserve_sw.llm.hf_reader import deinterleave, hf_name
from flexserve_sw.llm.tokenizer import Tokenizer, read_llama2c_tokenizer, write_llama2c_tokenizer

CONFIG = ModelConfig(dim=96, hidden=180, layers=4, heads=6, kv_heads=3, vocab=768, seq_len=256, norm_eps=1e-5)
TOKENIZER_STORIES = 3000
HELD_OUT_STORIES = 64
WINDOW = 160
ADAM_RATE = 4e-3
MUON_RATE = 0.02
CAST_EMPHASIS = 4.0
"""Weight of the loss on names, animals, things, colours and places: what a story must remember."""
WARM_STEPS = 50
COOL_SHARE = 0.6


class Linear(nn.Linear):
    """Without bias."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)
        nn.init.normal_(self.weight, std=0.5 * inputs**-0.5)


class Layer(nn.Module):
    """One transformer layer; rotary pairs (2i, 2i + 1)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.attention_norm = nn.RMSNorm(config.dim, eps=config.norm_eps)
        self.q = Linear(config.dim, config.dim)
        self.k = Linear(config.dim, config.kv_dim)
        self.v = Linear(config.dim, config.kv_dim)
        self.o = Linear(config.dim, config.dim)
        self.ffn_norm = nn.RMSNorm(config.dim, eps=config.norm_eps)
        self.gate = Linear(config.dim, config.hidden)
        self.up = Linear(config.dim, config.hidden)
        self.down = Linear(config.hidden, config.dim)
        for last in (self.o, self.down):
            nn.init.zeros_(last.weight)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        config = self.config
        batch, rows, _ = x.shape
        normed = self.attention_norm(x)
        q = self.q(normed).view(batch, rows, config.heads, config.head_dim).transpose(1, 2)
        k = self.k(normed).view(batch, rows, config.kv_heads, config.head_dim).transpose(1, 2)
        v = self.v(normed).view(batch, rows, config.kv_heads, config.head_dim).transpose(1, 2)
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.o(mixed.transpose(1, 2).reshape(batch, rows, config.dim))
        normed = self.ffn_norm(x)
        return x + self.down(functional.silu(self.gate(normed)) * self.up(normed))


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


class Model(nn.Module):
    """The architecture of :mod:`flexserve_sw.llm.model` with a tied classifier."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocab, config.dim)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.dim, eps=config.norm_eps)
        pairs = torch.arange(config.head_dim // 2, dtype=torch.float64)
        angle = torch.arange(config.seq_len, dtype=torch.float64)[:, None] * config.rope_theta ** (
            -2.0 * pairs / config.head_dim
        )
        self.register_buffer("cos", angle.cos().float())
        self.register_buffer("sin", angle.sin().float())

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x, self.cos[: tokens.shape[1]], self.sin[: tokens.shape[1]])
        return functional.linear(self.norm(x), self.embedding.weight)


def encode_stories(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    """Tokens of each text. Pieces never cross a space, so each word is encoded once and remembered."""
    words: dict[str, list[int]] = {}

    def encode(text: str) -> list[int]:
        tokens = [tokenizer.bos]
        for word in text.split(" "):
            if word not in words:
                words[word] = tokenizer.encode(word, bos=False)
            tokens += words[word]
        return tokens

    encoded = [encode(text) for text in texts]
    if encoded[0] != tokenizer.encode(texts[0]):
        raise RuntimeError("A word alone is encoded differently from the word in its text")
    return encoded


def windows(encoded: list[list[int]], bos: int) -> torch.Tensor:
    """Rows of ``WINDOW + 1`` tokens, each from the beginning of a story on, filled up with the stories after it."""
    rows = []
    for start in range(len(encoded) - 8):
        row: list[int] = []
        for story in encoded[start:]:
            row += story
            if len(row) > WINDOW:
                break
        rows.append([*row, bos][: WINDOW + 1])
    return torch.tensor(rows)


def export(model: Model, folder: Path) -> None:
    """Write the weights as float16 with Hugging Face names, and the sizes."""
    state = model.state_dict()
    tensors: dict[str, np.ndarray] = {}
    for name in expected_shapes(CONFIG):
        values = state[f"{name}.weight"].numpy()
        kind = name.rpartition(".")[2]
        if kind in ("q", "k"):
            values = deinterleave(values, CONFIG.heads if kind == "q" else CONFIG.kv_heads)
        tensors[hf_name(name)] = values.astype(np.float16)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    sizes = {
        "model_type": "llama",
        "hidden_size": CONFIG.dim,
        "intermediate_size": CONFIG.hidden,
        "num_hidden_layers": CONFIG.layers,
        "num_attention_heads": CONFIG.heads,
        "num_key_value_heads": CONFIG.kv_heads,
        "vocab_size": CONFIG.vocab,
        "max_position_embeddings": CONFIG.seq_len,
        "rope_theta": CONFIG.rope_theta,
        "rms_norm_eps": CONFIG.norm_eps,
        "tie_word_embeddings": CONFIG.tied,
        "hidden_act": "silu",
        "torch_dtype": "float16",
    }
    (folder / "config.json").write_text(json.dumps(sizes, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--seed", type=int, default=2603)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--stories", type=int, default=30000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    arguments.out.mkdir(parents=True, exist_ok=True)

    texts = list(itertools.islice(stories.stories(seed=arguments.seed, held_out=False), arguments.stories))
    held_out = list(itertools.islice(stories.stories(seed=arguments.seed, held_out=True), HELD_OUT_STORIES))
    (arguments.out / "held_out.txt").write_text("\n".join(held_out) + "\n", encoding="utf-8")
    write_llama2c_tokenizer(arguments.out / "tokenizer.bin", *bpe.train(texts[:TOKENIZER_STORIES], CONFIG.vocab))
    tokenizer = read_llama2c_tokenizer(arguments.out / "tokenizer.bin")
    rows = windows(encode_stories(tokenizer, texts), tokenizer.bos)
    judged = windows(encode_stories(tokenizer, held_out), tokenizer.bos)
    model = Model(CONFIG)
    emphasis = torch.ones(CONFIG.vocab)
    for word in (*stories.GIRLS, *stories.BOYS, *stories.ANIMALS, *stories.THINGS, *stories.COLOURS, *stories.PLACES):
        emphasis[tokenizer.encode(word, bos=False)] = CAST_EMPHASIS
    matrices = [parameter for parameter in model.layers.parameters() if parameter.dim() == 2]
    inside = {id(parameter) for parameter in matrices}
    others = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    muon = Muon(matrices)
    adam = torch.optim.AdamW(others, betas=(0.9, 0.98), eps=1e-9, weight_decay=0.0)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(arguments.seed))
    started = time.monotonic()
    for step in range(arguments.steps):
        share = min(1.0, (step + 1) / WARM_STEPS, (arguments.steps - step) / (arguments.steps * COOL_SHARE))
        for group in adam.param_groups:
            group["lr"] = ADAM_RATE * share
        picked = order[torch.arange(step * arguments.batch, (step + 1) * arguments.batch) % len(order)]
        batch = rows[picked]
        wanted = batch[:, 1:].flatten()
        losses = functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), wanted, reduction="none")
        loss = (losses * emphasis[wanted]).sum() / emphasis[wanted].sum()
        model.zero_grad(set_to_none=True)
        loss.backward()
        muon.step(MUON_RATE * share)
        adam.step()
        if step % 50 == 0 or step + 1 == arguments.steps:
            with torch.no_grad():
                held = functional.cross_entropy(model(judged[:, :-1]).flatten(0, 1), judged[:, 1:].flatten())
            seconds = time.monotonic() - started
            print(f"step {step:5d}  loss {loss.item():.4f}  held-out {held.item():.4f}  {seconds:.0f} s", flush=True)
        if step % 200 == 199:
            export(model, arguments.out)
    export(model, arguments.out)


if __name__ == "__main__":
    main()

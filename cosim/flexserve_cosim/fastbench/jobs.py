"""The jobs that both machines run: runs of the demo, one with int8 keys and values, and those of two larger models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from flexserve_sw.designs.design import DESIGNS
from flexserve_sw.designs.plan import ARGUMENTS
from flexserve_sw.llm import Checkpoint, ModelConfig, default_checkpoint
from flexserve_sw.llm.checkpoint import expected_shapes
from flexserve_sw.llm.llama2c import write_llama2c
from flexserve_sw.llm.tokenizer import write_llama2c_tokenizer

__all__ = ["JOB", "LARGER", "NAMES", "WIDE", "BenchJob", "bench_jobs"]

JOB = "flexserve_sw.designs.job:serve"

LARGER = ModelConfig(dim=256, hidden=512, layers=4, heads=8, kv_heads=4, vocab=768, seq_len=256)
"""A model of ten times the weights of the embedded one: what a table of the default size has room for."""

WIDE = ModelConfig(dim=512, hidden=1024, layers=6, heads=8, kv_heads=4, vocab=768, seq_len=256)
"""A model of 15 million parameters, as wide as small ones that are in use."""

_CALM, _KV = "flexserve (no recall)", "flexserve (int8 KV)"
_LARGER, _WIDE = "(larger model)", "(wide model)"

NAMES = (*DESIGNS, _CALM, _KV, _LARGER, _WIDE)
"""Of all jobs, in order."""

_PRESSURE = 24
_TOKENS, _LARGER_TOKENS = 24, 8


@dataclass(frozen=True)
class BenchJob:
    """A serving job by name, on a machine with so many pages in its table and bytes of memory."""

    name: str
    argument: dict[str, Any]
    pages: int = ARGUMENTS["capacity"]
    dram_bytes: int = ARGUMENTS["dram_bytes"]


@contextmanager
def bench_jobs() -> Iterator[list[BenchJob]]:
    """The jobs, while the files that they read exist."""
    with TemporaryDirectory(prefix="flexserve-fast-") as folder:
        demo = {"tokens": _TOKENS, "pressure": _PRESSURE}
        jobs = [BenchJob(name, {**demo, "design": name}) for name in DESIGNS]
        jobs.append(BenchJob(_CALM, {**demo, "design": "flexserve", "pressure": 0}))
        jobs.append(BenchJob(_KV, {**demo, "design": "flexserve", "kv": "int8"}))
        larger = {**_model(Path(folder), "larger", LARGER), "tokens": _LARGER_TOKENS, "design": "flexserve"}
        jobs.append(BenchJob(_LARGER, larger))
        pages, dram_bytes = 1 << 14, 1 << 26
        machine = {"capacity": pages, "dram_bytes": dram_bytes}
        wide = {**_model(Path(folder), "wide", WIDE), "tokens": _TOKENS, "design": "flexserve", **machine}
        yield [*jobs, BenchJob(_WIDE, wide, pages, dram_bytes)]


def _model(folder: Path, name: str, config: ModelConfig) -> dict[str, str]:
    """A model with random weights of the size that trained ones have: its answers mean nothing."""
    random = np.random.default_rng(7)
    tensors = {
        tensor: (random.standard_normal(shape) * 0.3 + tensor.endswith("norm")).astype(np.float32)
        for tensor, shape in expected_shapes(config).items()
    }
    tokenizer = default_checkpoint().tokenizer
    words = folder / "tokenizer.bin"
    write_llama2c_tokenizer(words, tokenizer.pieces, tokenizer.scores)
    model = Checkpoint(name=name, config=config, tensors=tensors, tokenizer=tokenizer)
    return {"checkpoint": str(write_llama2c(folder / f"{name}.bin", model)), "tokenizer": str(words)}

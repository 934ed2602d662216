"""The jobs that both machines run: the runs of the demo, one with int8 keys and values, and one of a larger model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from flexserve_sw.designs.design import DESIGNS
from flexserve_sw.llm import Checkpoint, ModelConfig, default_checkpoint
from flexserve_sw.llm.checkpoint import expected_shapes
from flexserve_sw.llm.llama2c import write_llama2c
from flexserve_sw.llm.tokenizer import write_llama2c_tokenizer

__all__ = ["JOB", "LARGER", "NAMES", "BenchJob", "bench_jobs"]

JOB = "flexserve_sw.designs.job:serve"

LARGER = ModelConfig(dim=256, hidden=512, layers=4, heads=8, kv_heads=4, vocab=768, seq_len=256)
"""A model of ten times the weights of the embedded one: what a table of the default size has room for."""

_CALM, _KV, _MODEL = "flexserve (no recall)", "flexserve (int8 KV)", "(larger model)"

NAMES = (*DESIGNS, _CALM, _KV, _MODEL)
"""Of all jobs, in order."""

_PRESSURE = 24
_TOKENS, _LARGER_TOKENS = 24, 8


@dataclass(frozen=True)
class BenchJob:
    """A serving job by name."""

    name: str
    argument: dict[str, Any]


@contextmanager
def bench_jobs() -> Iterator[list[BenchJob]]:
    """The jobs, while the files that they read exist."""
    with TemporaryDirectory(prefix="flexserve-fast-") as folder:
        demo = {"tokens": _TOKENS, "pressure": _PRESSURE}
        jobs = [BenchJob(name, {**demo, "design": name}) for name in DESIGNS]
        jobs.append(BenchJob(_CALM, {**demo, "design": "flexserve", "pressure": 0}))
        jobs.append(BenchJob(_KV, {**demo, "design": "flexserve", "kv": "int8"}))
        argument = {**_larger(Path(folder)), "tokens": _LARGER_TOKENS, "design": "flexserve"}
        yield [*jobs, BenchJob(_MODEL, argument)]


def _larger(folder: Path) -> dict[str, str]:
    """A model with random weights of the size that trained ones have: its answers mean nothing."""
    random = np.random.default_rng(7)
    tensors = {
        name: (random.standard_normal(shape) * 0.3 + name.endswith("norm")).astype(np.float32)
        for name, shape in expected_shapes(LARGER).items()
    }
    tokenizer = default_checkpoint().tokenizer
    words = folder / "tokenizer.bin"
    write_llama2c_tokenizer(words, tokenizer.pieces, tokenizer.scores)
    model = Checkpoint(name="larger", config=LARGER, tensors=tensors, tokenizer=tokenizer)
    return {"checkpoint": str(write_llama2c(folder / "larger.bin", model)), "tokenizer": str(words)}

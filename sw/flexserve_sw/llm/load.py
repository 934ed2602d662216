"""Which reader a checkpoint needs, and the checkpoint that comes with the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from ..errors import UserError
from .checkpoint import Checkpoint
from .gguf_reader import is_gguf, read_gguf
from .hf_reader import read_hf
from .llama2c import read_llama2c
from .tokenizer import read_llama2c_tokenizer

__all__ = ["default_checkpoint", "held_out_text", "read_checkpoint"]


def read_checkpoint(path: str | Path | None = None, tokenizer: str | Path | None = None) -> Checkpoint:
    """Read a checkpoint; the format is known by its content. Without ``path``: the project's own.

    Supported: llama2.c version 0 (with its tokenizer in ``tokenizer``); GGUF of architecture ``llama`` with F32, F16 or
    Q8_0 tensors; a directory with ``config.json`` and ``model.safetensors`` (F32, F16, BF16), or that file. GGUF and
    safetensors bring their tokenizer along; ``tokenizer`` (llama2.c format) takes its place. Raises :class:`UserError`.
    """
    if path is None:
        return default_checkpoint(tokenizer)
    file = Path(path)
    own = None if tokenizer is None else read_llama2c_tokenizer(tokenizer)
    try:
        if file.is_dir() or file.suffix == ".safetensors":
            return read_hf(file, own)
        if is_gguf(file):
            return read_gguf(file, own)
        return read_llama2c(file, own)
    except OSError as error:
        raise UserError(f"Cannot read checkpoint {path}: {error.strerror or error}; check the path.") from error
    except MemoryError as error:
        raise UserError(f"Checkpoint {path} does not fit this computer's memory; use a smaller model.") from error


def default_checkpoint(tokenizer: str | Path | None = None) -> Checkpoint:
    """The checkpoint that the project trained itself and that comes with the package."""
    own = None if tokenizer is None else read_llama2c_tokenizer(tokenizer)
    with resources.as_file(resources.files(__package__) / "data") as folder:
        return read_hf(folder, own, name="(embedded)")


def held_out_text() -> list[str]:
    """Stories that the embedded checkpoint never saw, one per entry."""
    text = (resources.files(__package__) / "data" / "held_out.txt").read_text(encoding="utf-8")
    return text.splitlines()

"""Phones on the transaction-level machine with a model small enough for tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from flexserve_sw.designs.job import Hook, serve
from flexserve_sw.designs.phone import Phone
from flexserve_sw.designs.plan import check
from flexserve_sw.fast import FastMachine
from flexserve_sw.npu import Caps
from tests.sw.llm.tiny import CONFIG, checkpoint, write_llama2c, write_tokenizer

SMALL = {"capacity": 256, "dram_bytes": 4 << 20, "flash_bytes": 8 << 20}
LIMIT = 10_000_000
"""Cycles after which a test has hung."""

T = TypeVar("T")


@cache
def _files() -> tuple[TemporaryDirectory[str], dict[str, str]]:
    folder = TemporaryDirectory(prefix="flexserve-tiny-")
    path = Path(folder.name)
    model = write_llama2c(path / "tiny.bin", checkpoint(CONFIG))
    return folder, {"checkpoint": str(model), "tokenizer": str(write_tokenizer(path / "tok.bin"))}


def argument(**options: Any) -> dict[str, Any]:
    """Argument of a serving job over the tiny model."""
    return {**_files()[1], **SMALL, "prompt": "a he cab", "tokens": 8, **options}


def machine(seed: int = 1, array: int = 16) -> FastMachine:
    """A machine of the size that :func:`argument` plans for."""
    return FastMachine(
        pages=SMALL["capacity"],
        dram_bytes=SMALL["dram_bytes"],
        flash_bytes=SMALL["flash_bytes"],
        caps=Caps(n=array),
        seed=seed,
    )


def serve_fast(
    *, hook: Hook | None = None, messages: list[dict[str, Any]] | None = None, **options: Any
) -> dict[str, Any]:
    """Run the serving job; ``hook`` looks into the phone, ``messages`` collects what the job emits."""
    own = machine(array=options.get("array", 16))
    job = serve(own, argument(**options), (messages if messages is not None else []).append, hook=hook)
    return own.kernel.complete(own.spawn(job, name="serve"), limit=LIMIT)


def on_phone(program: Callable[[Phone], Awaitable[T]], **options: Any) -> T:
    """Boot a phone and run ``program`` on it."""
    own = machine(array=options.get("array", 16))

    async def main() -> T:
        phone = Phone.assemble(own, check(argument(**options)))
        await phone.boot()
        return await program(phone)

    return own.kernel.complete(own.spawn(main(), name="program"), limit=LIMIT)

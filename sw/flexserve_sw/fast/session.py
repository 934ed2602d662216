"""Running a job on the transaction-level machine."""

from __future__ import annotations

import gc
import importlib
import resource
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import UserError
from ..npu import Caps
from .machine import FastMachine
from .memory import DramTiming, FlashTiming

__all__ = ["find_job", "simulate"]

Message = dict[str, Any]
JobFunction = Callable[[FastMachine, dict[str, Any], Callable[[Message], None]], Awaitable[dict[str, Any]]]


def find_job(job: str) -> JobFunction:
    """The coroutine function named ``package.module:function``; :class:`UserError` if there is none."""
    module, _, name = job.partition(":")
    try:
        function: JobFunction = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"Job {job!r} can't be found ({error}); name it as package.module:function.") from error
    return function


_COLLECT_AFTER = 100_000
"""Objects that a job has made when cycles among them are looked for."""


@contextmanager
def _few_collections() -> Iterator[None]:
    """Look for cycles seldom, and only among what a job makes, of which nearly all is freed by count of references.

    With the interpreter's own settings it takes a twentieth of the time.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def simulate(
    job: str,
    argument: dict[str, Any],
    *,
    on_message: Callable[[Message], None] | None = None,
    pages: int = 2048,
    dram_bytes: int = 16 << 20,
    flash_bytes: int = 64 << 20,
    array: int = 16,
    dram: DramTiming | None = None,
    flash: FlashTiming | None = None,
    seed: int = 1,
    cycles: int | None = None,
) -> dict[str, Any]:
    """Run ``job`` with ``argument`` and return its result with a ``simulation`` entry of cycles and seconds.

    ``on_message`` gets every message of the job with ``cycle``, ``time`` (seconds since the epoch) and ``busy``
    (seconds of processor time that this process has had) added.
    ``cycles`` bounds simulated time; past it, or when everything waits for ever, ``RuntimeError`` is raised.
    """
    machine = FastMachine(
        pages=pages,
        dram_bytes=dram_bytes,
        flash_bytes=flash_bytes,
        caps=Caps(n=array),
        dram=dram,
        flash=flash,
        seed=seed,
    )
    function = find_job(job)

    def emit(message: Message) -> None:
        if on_message is not None:
            on_message({**message, "cycle": machine.now, "time": time.time(), "cpu": time.process_time()})

    async def run() -> dict[str, Any]:
        return await function(machine, argument, emit)

    begin = time.perf_counter()
    with _few_collections():
        result = machine.kernel.complete(machine.spawn(run(), name=job), limit=cycles)
    seconds = time.perf_counter() - begin
    simulation = {
        "machine": "fast",
        "cycles": machine.now,
        "seconds": seconds,
        "khz": machine.now / seconds / 1e3,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "seed": seed,
    }
    return {**result, "simulation": simulation}

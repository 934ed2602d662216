"""Several simulator sessions, a bounded number at a time, and a clean end whatever happens."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Job", "Simulate", "run_jobs"]

Message = Mapping[str, Any]

WORKERS = 2
"""Sessions at a time: each simulator keeps one core busy, and two cores are what every machine has."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job for a fresh simulated phone.

    ``function`` is ``"package.module:name"``, ``argument`` what it is called with, ``waves`` where a waveform goes.
    """

    name: str
    function: str
    argument: Mapping[str, Any] = field(default_factory=dict)
    waves: Path | None = None


Simulate = Callable[[Job, Callable[[Message], None], threading.Event], dict[str, Any]]
"""Run one job, pass its messages on, give up soon after the event is set, return its result."""


def run_jobs(
    jobs: Sequence[Job],
    simulate: Simulate,
    on_message: Callable[[str, Message], None],
    *,
    workers: int = WORKERS,
) -> dict[str, dict[str, Any]]:
    """Run ``jobs`` in order, at most ``workers`` at a time; return their results by name.

    ``on_message`` is called in the caller's thread. The first error, from a job or from ``on_message`` (Ctrl-C too),
    stops the jobs that run and drops the ones that wait; it is raised when all have ended.
    """
    if len({job.name for job in jobs}) != len(jobs):
        raise ValueError(f"Jobs must have different names, not {[job.name for job in jobs]!r}")
    inbox: queue.SimpleQueue[tuple[str, Message] | None] = queue.SimpleQueue()
    stop = threading.Event()

    def one(job: Job) -> dict[str, Any]:
        return simulate(job, lambda message: inbox.put((job.name, message)), stop)

    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="session") as pool:
        try:
            futures: dict[str, Future[dict[str, Any]]] = {}
            for job in jobs:
                futures[job.name] = future = pool.submit(one, job)
                future.add_done_callback(lambda _: inbox.put(None))
            running = len(futures)
            while running:
                entry = inbox.get()
                if entry is not None:
                    on_message(*entry)
                    continue
                running -= 1
                for future in futures.values():
                    if future.done():
                        future.result()
            return {name: future.result() for name, future in futures.items()}
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise

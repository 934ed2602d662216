"""Sessions run at most two at a time, and one that fails takes the others with it."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from flexserve_cosim.sessions import Job, run_jobs

JOBS = [Job(name=name, function="x:y") for name in "abcde"]


def test_results_come_by_name_and_messages_in_the_callers_thread() -> None:
    seen: list[tuple[str, Any, str]] = []

    def simulate(job: Job, emit: Callable[[Any], None], stop: threading.Event) -> dict[str, Any]:
        emit({"n": 1})
        return {"name": job.name}

    results = run_jobs(JOBS, simulate, lambda name, m: seen.append((name, m["n"], threading.current_thread().name)))
    assert results == {name: {"name": name} for name in "abcde"}
    assert sorted(seen) == [(name, 1, threading.main_thread().name) for name in "abcde"]


def test_no_more_than_two_run_at_once() -> None:
    running, peak, lock = 0, 0, threading.Lock()

    def simulate(job: Job, emit: Callable[[Any], None], stop: threading.Event) -> dict[str, Any]:
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
        time.sleep(0.02)
        with lock:
            running -= 1
        return {}

    run_jobs(JOBS, simulate, lambda name, message: None)
    assert peak == 2


def test_failure_stops_the_running_one_and_drops_the_waiting_ones() -> None:
    started: list[str] = []

    def simulate(job: Job, emit: Callable[[Any], None], stop: threading.Event) -> dict[str, Any]:
        started.append(job.name)
        if job.name == "b":
            raise RuntimeError("b broke")
        assert stop.wait(10)
        return {}

    with pytest.raises(RuntimeError, match="b broke"):
        run_jobs(JOBS, simulate, lambda name, message: None)
    assert sorted(started)[:2] == ["a", "b"]
    assert len(started) <= 3  # the freed worker may have taken one more before the failure was seen


def test_interrupt_in_the_caller_waits_for_every_session_to_end() -> None:
    ended: list[str] = []

    def simulate(job: Job, emit: Callable[[Any], None], stop: threading.Event) -> dict[str, Any]:
        emit({})
        assert stop.wait(10)
        time.sleep(0.05)
        ended.append(job.name)
        return {}

    def interrupt(name: str, message: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_jobs(JOBS[:2], simulate, interrupt)
    assert sorted(ended) == ["a", "b"]

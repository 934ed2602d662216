"""A run that is cut off leaves no process, no locked build and no file, wherever it was."""

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flexserve_cosim.build import build
from tests.e2e.command import COMMAND, descendants

pytestmark = [pytest.mark.rtl, pytest.mark.xdist_group("e2e")]

PATIENCE = 300.0
"""Seconds until a stage of a run must have come."""


def start(folder: Path, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*COMMAND, "run", "--tokens", "8", "--json", str(folder / "run.json")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment},
    )  # fmt: skip


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def wait_for(process: "subprocess.Popen[str]", wanted: Callable[[str], bool]) -> list[int]:
    """Descendants once one of them is a ``wanted`` command."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        assert process.poll() is None, process.communicate()
        try:
            found = descendants(process.pid)
        except OSError:  # one of them ended between two looks
            continue
        if any(wanted(command_of(pid)) for pid in found):
            return found
        time.sleep(0.05)
    raise TimeoutError("the run never came that far")


def alive(pid: int) -> bool:
    """Whether it runs; one that only waits for its parent to take note of its end does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: list[int]) -> bool:
    """Whether all of them end within ten seconds."""
    end = time.monotonic() + 10
    while any(map(alive, pids)):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def unlocked(folder: Path) -> bool:
    """Whether every build lock below ``folder`` can be had."""
    for path in folder.rglob("*.lock"):
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
    return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=["Ctrl-C", "closed terminal"])
def test_interrupted_simulation_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    build()  # so that the run has its simulator at once
    process = start(tmp_path)
    children = wait_for(process, lambda name: name == "sim")
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert gone(children)
    assert os.listdir(tmp_path) == []


def test_interrupted_build_leaves_no_process_and_no_lock(tmp_path: Path) -> None:
    cache, outputs = tmp_path / "cache", tmp_path / "out"
    outputs.mkdir()
    process = start(outputs, FLEXSERVE_BUILD=str(cache))
    children = wait_for(process, lambda name: name in ("verilator_bin", "make", "cc1plus"))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert gone(children)
    assert unlocked(cache)
    assert os.listdir(outputs) == []


def test_simulator_that_dies_is_said_in_one_sentence(tmp_path: Path) -> None:
    build()
    process = start(tmp_path)
    children = wait_for(process, lambda name: name == "sim")
    simulator = next(pid for pid in children if command_of(pid) == "sim")
    os.kill(simulator, signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    last = err.splitlines()[-1]
    assert last.startswith("flexserve: The simulator died (signal SIGKILL)")
    assert "Traceback" not in err
    assert gone(children)
    assert os.listdir(tmp_path) == []

"""Runs the ``flexserve`` command as a user does: a process of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from flexserve_cosim.cli import main

COMMAND = [sys.executable, "-c", "from flexserve_cosim.cli import main; main()"]


def flexserve(
    *arguments: str | Path, timeout: float = 120, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run it to its end. Environment variables are added to this process's."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **(environment or {})},
    )


def in_process(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str | Path
) -> subprocess.CompletedProcess[str]:
    """Run it in this process, which saves starting one; for mistakes that are found before anything is built."""

    def refuse() -> None:
        raise AssertionError("went on to the simulator")

    for name in ("run", "attack", "wave"):
        monkeypatch.setattr(f"flexserve_cosim.commands.{name}.find_toolchain", refuse)
    monkeypatch.setattr(sys, "argv", ["flexserve", *map(str, arguments)])
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    shown = capsys.readouterr()
    return subprocess.CompletedProcess(list(map(str, arguments)), code, shown.out, shown.err)


def descendants(pid: int) -> list[int]:
    """Processes that ``pid`` started, and theirs."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        for child in map(int, (task / "children").read_text().split()):
            found += [child, *descendants(child)]
    return found

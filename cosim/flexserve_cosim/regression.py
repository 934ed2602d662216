"""Runs cocotb test benches of one IP: a module of ``@cocotb.test()`` functions on a build without the phone harness."""

from __future__ import annotations

import subprocess
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from .compiler import SimBuild
from .session import child, simulator_environment

__all__ = ["RegressionFailed", "run_regression"]


class RegressionFailed(AssertionError):
    """A cocotb test failed, or the simulator ended before the tests did. Says how to run it again."""


def run_regression(
    build: SimBuild,
    module: str,
    *,
    seed: int,
    rerun: str,
    parameters: dict[str, str] | None = None,
    timeout: float = 300,
) -> int:
    """Run every cocotb test of ``module`` on ``build`` and return how many passed.

    Parameters
    ----------
    module
        Importable from here: it is looked for where this process looks.
    seed
        Of cocotb's random numbers and of the contents of uninitialised registers and memories.
    rerun
        Command that repeats the run; part of the failure's message.
    parameters
        Environment variables that the test bench reads.
    timeout
        Wall-clock seconds after which the run is a failure.
    """
    with tempfile.TemporaryDirectory(prefix="flexserve-") as name:
        directory = Path(name)
        log = directory / "log.txt"
        environment = simulator_environment(build, module=module, seed=seed, directory=directory) | (parameters or {})
        command = [str(build.executable), f"+verilator+seed+{seed}", "+verilator+rand+reset+2"]
        with (
            log.open("wb") as output,
            child(command, env=environment, cwd=directory, stdout=output, stderr=output) as process,
        ):
            try:
                process.wait(timeout)
                ending = f"exit code {process.returncode}"
            except subprocess.TimeoutExpired:
                ending = f"no end within {timeout:g} s"
        text = log.read_text(errors="replace")
        passed, failed = _results(directory / "results.xml")
        if failed or not passed or process.returncode:
            outcome = f"{module} on {build.name}: {failed} failed, {passed} passed, {ending}"
            raise RegressionFailed(f"{outcome}; run again with\n  {rerun}\n{text[-6000:]}")
        return passed


def _results(path: Path) -> tuple[int, int]:
    """Tests that passed and that failed, from cocotb's report; nothing passed if there is none."""
    if not path.exists():
        return 0, 0
    cases = list(ElementTree.parse(path).getroot().iter("testcase"))
    failed = sum(1 for case in cases if case.find("failure") is not None or case.find("error") is not None)
    skipped = sum(1 for case in cases if case.find("skipped") is not None)
    return len(cases) - failed - skipped, failed

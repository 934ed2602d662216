"""Runs jobs on the simulated phone: one child process per job, messages streamed back as they come."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cocotb_tools.config
import find_libpython

from flexserve_sw.errors import UserError
from flexserve_sw.fast.memory import DramTiming, FlashTiming

from .compiler import SimBuild

__all__ = [
    "JobFailed", "SimulatorDied", "Stopped", "converse", "simulate", "simulate_native", "simulator_environment",
]  # fmt: skip

Message = dict[str, Any]

_STAMPS = ("cycle", "time", "cpu")

_MALLOC = {f"MALLOC_{name}_": str(64 << 20) for name in ("TRIM_THRESHOLD", "TOP_PAD", "MMAP_THRESHOLD")}
"""Settings of the C library by which memory that was freed is kept: giving it back and asking again for every other
array takes longer than computing with it.
"""


class SimulatorDied(UserError):
    """The process of a session, a simulator or the compiled machine, ended before its job did."""


class Stopped(Exception):
    """The job was given up because its caller asked for that."""


class JobFailed(Exception):
    """The job raised inside the simulator; carries its traceback."""

    def __init__(self, message: str, traceback: str) -> None:
        super().__init__(f"{message}\n\n{traceback}")
        self.message = message
        self.traceback = traceback


def simulator_environment(build: SimBuild, *, module: str, seed: int, directory: Path) -> dict[str, str]:
    """Environment in which a simulator finds this Python, cocotb and the test module."""
    libpython = find_libpython.find_libpython()
    if libpython is None:
        raise UserError("This Python has no shared library for the simulator to load: use one that has.")
    environment = dict(os.environ)
    environment.update(
        {
            "COCOTB_TEST_MODULES": module,
            "COCOTB_TOPLEVEL": build.top,
            "COCOTB_RANDOM_SEED": str(seed),
            "COCOTB_RESULTS_FILE": str(directory / "results.xml"),
            "COCOTB_TRUST_INERTIAL_WRITES": "1",
            "COCOTB_ANSI_OUTPUT": "0",
            "COCOTB_REWRITE_ASSERTION_FILES": "",  # rewriting compiles every module anew at each start
            "TOPLEVEL_LANG": "verilog",
            "GPI_USERS": f"{libpython};{cocotb_tools.config.pygpi_entry_point()}",
            "PYGPI_PYTHON_BIN": sys.executable,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
    )
    return environment


@contextmanager
def child(command: list[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process in its own group that does not outlive the block."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def simulate(
    build: SimBuild,
    function: str,
    argument: Message,
    *,
    on_message: Callable[[Message], None] | None = None,
    dram: DramTiming | None = None,
    flash: FlashTiming | None = None,
    flash_bytes: int = 64 << 20,
    clock_hz: int = 1_000_000_000,
    waves: Path | None = None,
    seed: int = 1,
    cycle_limit: int | None = None,
    timeout: float | None = None,
    stop: threading.Event | None = None,
) -> Message:
    """Run the job ``package.module:function`` on the RTL and return its result.

    Parameters
    ----------
    build
        Simulator with the phone harness.
    argument
        Handed to the job; JSON-able, like its messages and its result.
    on_message
        Called with each message of the job as it is made, with ``cycle``, ``time`` (seconds since the epoch) and
        ``cpu`` (seconds of processor time that the simulator has had) added.
    dram, flash, flash_bytes, clock_hz
        The platform.
    waves
        File for the waveform; ``build`` must be one that can record.
    seed
        Of what is unknown at power-up: memory contents and uninitialised registers.
    cycle_limit, timeout
        Simulated cycles and wall-clock seconds after which the job is given up.
    stop
        Another thread sets it to have the job given up: the child is killed and :class:`Stopped` raised.

    The result's entry ``simulation`` has ``machine`` (``"rtl"``), ``cycles``, ``seconds``, ``khz``, ``wakes``,
    ``peak_rss_bytes``, ``seed`` and ``build``.
    Raises :class:`SimulatorDied`, :class:`JobFailed`, or the job's own :class:`UserError`.
    """
    return converse(
        build,
        module="flexserve_cosim.bench",
        order={
            "function": function,
            "argument": argument,
            "dram": asdict(dram or DramTiming()),
            "flash": asdict(flash or FlashTiming()),
            "dram_bytes": build.dram_bytes,
            "flash_bytes": flash_bytes,
            "clock_hz": clock_hz,
            "cycle_limit": cycle_limit,
        },
        on_message=on_message,
        waves=waves,
        seed=seed,
        timeout=timeout,
        stop=stop,
    )


def converse(
    build: SimBuild,
    *,
    module: str,
    order: Message,
    on_message: Callable[[Message], None] | None = None,
    waves: Path | None = None,
    seed: int = 1,
    timeout: float | None = None,
    stop: threading.Event | None = None,
) -> Message:
    """Run ``module`` inside a simulator with ``order`` and return its result; see :func:`simulate` for the rest."""
    if waves is not None and build.waves is None:
        raise ValueError(f"Waveforms need a build that can record them, not {build.name!r}")
    if not 1 <= seed < 1 << 31:
        raise ValueError(f"Seed must be from 1 to 2**31 - 1, not {seed!r}")
    command = [str(build.executable), f"+verilator+seed+{seed}", "+verilator+rand+reset+2"]
    if waves is not None:
        command += ["--trace-file", str(waves.absolute())]  # the process has a folder of its own
    with tempfile.TemporaryDirectory(prefix="flexserve-") as name:
        directory = Path(name)
        environment = simulator_environment(build, module=module, seed=seed, directory=directory)
        environment |= {"COCOTB_LOG_LEVEL": "WARNING", "GPI_LOG_LEVEL": "WARNING"}
        end = _run(command, environment, directory, {**order, "seed": seed}, on_message, timeout, stop)
    if waves is not None and not (waves.exists() and waves.stat().st_size):
        raise SimulatorDied(f"The simulator wrote no waveform into {waves}.")
    simulation = end["simulation"] | {"seed": seed, "build": build.key}
    return {**end["result"], "simulation": simulation}


def simulate_native(
    folder: Path,
    function: str,
    argument: Message,
    *,
    on_message: Callable[[Message], None] | None = None,
    pages: int = 2048,
    dram_bytes: int = 16 << 20,
    array: int = 16,
    dram: DramTiming | None = None,
    flash: FlashTiming | None = None,
    seed: int = 1,
    runs: int = 1,
    stop: threading.Event | None = None,
) -> Message:
    """Run a job ``runs`` times in one process on the transaction-level machine as compiled into ``folder``.

    Returns the last result; the rest is as of :func:`simulate` and of :func:`flexserve_sw.fast.simulate`.
    """
    order = {
        "function": function,
        "argument": argument,
        "machine": {
            "pages": pages,
            "dram_bytes": dram_bytes,
            "array": array,
            "seed": seed,
        },
        "dram": asdict(dram or DramTiming()),
        "flash": asdict(flash or FlashTiming()),
        "runs": runs,
    }
    path = os.pathsep.join([str(folder), *(path for path in sys.path if path)])
    environment = {**_MALLOC, **os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-m", "flexserve_cosim.native_session"]
    with tempfile.TemporaryDirectory(prefix="flexserve-") as name:
        return _run(
            command, environment, Path(name), order, on_message, None, stop, what="The compiled machine"
        )


def _run(
    command: list[str],
    environment: dict[str, str],
    directory: Path,
    order: Message,
    on_message: Callable[[Message], None] | None,
    timeout: float | None,
    stop: threading.Event | None,
    *,
    what: str = "The simulator",
) -> Message:
    """Start the session's process, pass its messages on, and return the body of its last one."""
    log, session = directory / "log.txt", directory / "session.json"
    session.write_text(json.dumps(order))
    receive, send = os.pipe()
    environment = {**environment, "FLEXSERVE_SESSION": str(session), "FLEXSERVE_MESSAGES": str(send)}
    timed_out = threading.Event()
    with os.fdopen(receive) as stream, log.open("wb") as output:
        try:
            with child(
                command, env=environment, cwd=directory, stdout=output, stderr=output, pass_fds=[send]
            ) as process:
                os.close(send)
                send = -1

                def give_up() -> None:
                    timed_out.set()
                    os.killpg(process.pid, signal.SIGKILL)

                watchdog = threading.Timer(timeout, give_up) if timeout is not None else None
                if watchdog:
                    watchdog.start()
                ended = threading.Event()
                watcher = threading.Thread(target=_kill_when, args=(process, stop, ended), daemon=True)
                if stop is not None:
                    watcher.start()
                try:
                    for line in stream:
                        if not line.endswith("\n"):
                            break  # the child died in the middle of a message
                        message = json.loads(line)
                        if message["type"] == "message":
                            if on_message:
                                on_message(message["body"] | {stamp: message[stamp] for stamp in _STAMPS})
                        elif message["type"] == "error":
                            raise _error(message["body"])
                        else:
                            process.wait()
                            body: Message = message["body"]
                            return body
                    code = process.wait()
                finally:
                    if watchdog:
                        watchdog.cancel()
                    ended.set()
                    if stop is not None:
                        watcher.join()
        finally:
            if send >= 0:
                os.close(send)
    if stop is not None and stop.is_set():
        raise Stopped(f"{what} was stopped because the run was given up.")
    if timed_out.is_set():
        raise SimulatorDied(f"{what} was stopped: its job did not end within {timeout:g} s.")
    tail = " | ".join(log.read_text(errors="replace").strip().splitlines()[-4:]) or "nothing"
    raise SimulatorDied(f"{what} died ({_reason(code)}) before its job ended; the last lines it wrote: {tail}")


def _kill_when(process: subprocess.Popen[bytes], stop: threading.Event, ended: threading.Event) -> None:
    """Kill the child's group soon after ``stop`` is set, unless it ended before."""
    while not ended.is_set():
        if stop.wait(0.1) and process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            return


def _error(body: Message) -> Exception:
    if body["kind"] == "user":
        return UserError(body["message"])
    return JobFailed(body["message"], body["traceback"])


def _reason(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

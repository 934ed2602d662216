"""The NPU alone between an unkind memory and a register port, as a child process."""

from __future__ import annotations

import mmap
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from flexserve_hw.params import NpuParams, SocParams
from flexserve_sw.npu import Caps, Descriptor, encode_program
from flexserve_sw.regs import NPU_NORMAL, NPU_SECURE, NpuFault, NpuFrame

from ..build import build
from ..compiler import Progress

__all__ = ["MEMORY_BYTES", "Alone", "Conditions", "Outcome"]

MEMORY_BYTES = 4 << 20
"""Bytes from address 0 on; beyond, memory answers with an error."""

_FILES = tuple(Path(__file__).parent / name for name in ("main.cpp", "memory.h"))
_DECERR = 3


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """How memory behaves: cycles of latency and random ones on top, pauses of each channel in thousandths of the time.

    ``overtake``: beats of the two IDs mix; ``data_first``: an address of a write is taken once its data are offered.
    """

    latency: int = 60
    jitter: int = 0
    stall: int = 0
    overtake: bool = False
    data_first: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a job ended: fault (NONE if it was good), descriptor, address; and how long it took."""

    fault: NpuFault
    index: int
    address: int
    cycles: int


class Alone:
    """A running NPU; a context manager. ``memory`` is what its bus sees.

    Raises :class:`RuntimeError` when a rule of the bus is broken or a job does not end.
    """

    def __init__(self, params: NpuParams, *, seed: int = 1, progress: Progress | None = None) -> None:
        simulator = build("npu", SocParams(npu=params), driver=_FILES, progress=progress)
        self.caps = Caps(
            n=params.n, a_words=params.a_words, w_words=params.w_words, c_rows=params.c_rows, q_words=params.q_words
        )
        self._seed = seed
        with tempfile.TemporaryFile() as file:
            file.truncate(MEMORY_BYTES)
            self._mapping = mmap.mmap(file.fileno(), MEMORY_BYTES)
            self.memory: npt.NDArray[np.uint8] = np.frombuffer(self._mapping, np.uint8)
            path = f"/proc/self/fd/{file.fileno()}"
            command = [str(simulator.executable), path, f"+verilator+seed+{seed}", "+verilator+rand+reset+2"]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=[file.fileno()]
            )
            self._ask("beats")  # by its answer it has opened the file
        self._frame = NPU_NORMAL
        self._ticket = 0
        self.own(secure=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def own(self, *, secure: bool) -> int:
        """Hand the NPU over; returns the cycles of drain and scrub."""
        self._frame = NPU_SECURE if secure else NPU_NORMAL
        self._ticket += 1
        (cycles,) = self._ask(f"own {int(secure)} {self._ticket}")
        self._write(self._frame.IRQ_ENABLE, 3)
        return cycles

    def behave(self, conditions: Conditions, *, seed: int) -> None:
        """Set how memory behaves from now on; what was denied is allowed again."""
        c = conditions
        self._ask(f"memory {c.latency} {c.jitter} {c.stall} {int(c.overtake)} {int(c.data_first)} {seed}")
        self._ask("allow")

    def deny(self, address: int, *, response: int = _DECERR, after: int = 0) -> None:
        """Answer accesses to the page of ``address`` with ``response``, ``after`` so many cycles."""
        self._ask(f"deny {address // mmap.PAGESIZE} {response} {after}")

    def write(self, address: int, payload: bytes) -> None:
        """Put bytes into memory."""
        self.memory[address : address + len(payload)] = np.frombuffer(payload, np.uint8)

    def start(self, address: int, count: int, *, ticket: int | None = None) -> None:
        """Queue a job."""
        frame = self._frame
        self._write(frame.JOB_ADDR_LO, address & 0xFFFF_FFFF)
        self._write(frame.JOB_ADDR_HI, address >> 32)
        self._write(frame.JOB_COUNT, count)
        self._write(frame.JOB_TICKET, self._ticket if ticket is None else ticket)
        self._write(frame.DOORBELL, 1)

    def abort(self) -> None:
        """End the running job and those that wait."""
        self._write(self._frame.CONTROL, 1)

    def finish(self, *, limit: int = 5_000_000) -> Outcome:
        """Wait for the interrupt, take it and tell how the job ended; nothing of it is on the bus any more."""
        frame = self._frame
        begin = self.cycle
        ended, now = self._ask(f"wait {limit}")
        if not ended:
            raise RuntimeError(f"The job did not end within {limit:,} cycles")
        status = self._read(frame.IRQ_STATUS)
        word = self._read(frame.FAULT)
        address = self._read(frame.FAULT_ADDR_LO) | self._read(frame.FAULT_ADDR_HI) << 32
        fault = NpuFault(NpuFrame.FAULT__CODE.get(word)) if NpuFrame.IRQ_STATUS__FAULT.get(status) else NpuFault.NONE
        self._write(frame.IRQ_STATUS, status)
        if not self._ask("beats")[2]:
            raise RuntimeError("A job was reported as ended with a transaction on the bus")
        return Outcome(fault, NpuFrame.FAULT__INDEX.get(word), address, now - begin)

    def put_list(self, job: list[Descriptor], address: int) -> None:
        """Put a job's list into memory."""
        self.write(address, encode_program(job))

    def run(self, job: list[Descriptor], address: int, *, limit: int = 5_000_000) -> Outcome:
        """Put a list at ``address`` and run it."""
        self.put_list(job, address)
        self.start(address, len(job))
        return self.finish(limit=limit)

    def wait(self, cycles: int) -> None:
        """Let time pass, up to the next interrupt."""
        self._ask(f"wait {cycles}")

    @property
    def cycle(self) -> int:
        """Cycles since the simulation began."""
        return self._ask("wait 0")[1]

    def _write(self, address: int, value: int) -> None:
        (response,) = self._ask(f"write {address} {value} {int(self._frame is NPU_NORMAL)}")
        if response:
            raise RuntimeError(f"Register {address:#x} answers a write with {response}")

    def _read(self, address: int) -> int:
        response, value = self._ask(f"read {address} {int(self._frame is NPU_NORMAL)}")
        if response:
            raise RuntimeError(f"Register {address:#x} answers a read with {response}")
        return value

    def _ask(self, question: str) -> list[int]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(question + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the empty answer below says it
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"The NPU bench (seed {self._seed}) ended with exit code {self._process.wait()}")
        return [int(word) for word in answer.split()]

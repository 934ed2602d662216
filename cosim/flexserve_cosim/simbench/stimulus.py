"""Records what software does to the simulated phone and what comes back, for a replay without Python.

The file is read by ``stimulus.h``: a head, then records of equal size, some with bytes behind them.
"""

from __future__ import annotations

import ctypes
import enum
import struct
import zlib
from pathlib import Path
from typing import Any

from flexserve_sw.machine import BEAT_BYTES

__all__ = ["Recorder"]

_MAGIC = b"FLXSTIM1"
_HEAD = struct.Struct("<8s7Q2d")
_RECORD = struct.Struct("<QQ8I")


class _Kind(enum.IntEnum):
    LOAD, STORE, REGISTER, RESET, COMPLETION, END = range(6)


class Recorder:
    """The simulator's functions, each call of which is written down; stands for the library in a machine.

    Parameters
    ----------
    library
        The functions themselves.
    folder
        Where ``stimulus.bin``, ``dram.bin`` and ``flash.bin`` go; the memories as they are before the first access.
    """

    def __init__(self, library: ctypes.CDLL, folder: Path) -> None:
        self._library, self._folder = library, folder
        self._records: list[bytes] = []
        self._loads: dict[int, tuple[int, int]] = {}
        self._memories: dict[str, tuple[int, int]] = {}
        self._cycles: dict[str, tuple[int, ...]] = {}
        self._rates: dict[str, float] = {}
        self._base = 0
        self._accessed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)

    def end(self) -> None:
        """Write the file; it ends with checksums of what the memories hold now."""
        self._record(_Kind.END, *(zlib.crc32(self._contents(name)) for name in ("dram", "flash")))
        sizes = (self._base, self._memories["dram"][1], self._memories["flash"][1])
        cycles, rates = (*self._cycles["dram"], *self._cycles["flash"]), (self._rates["dram"], self._rates["flash"])
        with (self._folder / "stimulus.bin").open("wb") as stream:
            stream.write(_HEAD.pack(_MAGIC, *sizes, *cycles, *rates))
            stream.writelines(self._records)

    def phone_dram(self, address: int, base: int, size: int) -> None:
        """Place DRAM."""
        self._memories["dram"], self._base = (address, size), base
        self._library.phone_dram(address, base, size)

    def phone_dram_timing(self, read: int, write: int, rate: float, interval: int, refresh: int) -> None:
        """Set DRAM's timing; the replay has one latency for both directions, as the machine does."""
        if read != write:
            raise ValueError(f"Latency of DRAM must be the same for reads and writes, not {read!r} and {write!r}")
        self._cycles["dram"], self._rates["dram"] = (read, interval, refresh), rate
        self._library.phone_dram_timing(read, write, rate, interval, refresh)

    def phone_flash(self, address: int, size: int) -> None:
        """Place flash."""
        self._memories["flash"] = (address, size)
        self._library.phone_flash(address, size)

    def phone_flash_timing(self, latency: int, rate: float) -> None:
        """Set flash's timing."""
        self._cycles["flash"], self._rates["flash"] = (latency,), rate
        self._library.phone_flash_timing(latency, rate)

    def phone_load(self, port: int, address: int, length: int, prot: int, buffer: int) -> int:
        """Post a load."""
        self._access(_Kind.LOAD, port, address, length, prot)
        token = int(self._library.phone_load(port, address, length, prot, buffer))
        self._loads[token] = (buffer, length)
        return token

    def phone_store(self, port: int, address: int, length: int, prot: int, buffer: int) -> int:
        """Post a store."""
        self._access(_Kind.STORE, port, address, length, prot, payload=ctypes.string_at(buffer, length))
        return int(self._library.phone_store(port, address, length, prot, buffer))

    def phone_register(self, *arguments: int) -> int:
        """Post an access to a register."""
        self._access(_Kind.REGISTER, *arguments)
        return int(self._library.phone_register(*arguments))

    def phone_reset(self, cycles: int) -> int:
        """Begin a reset."""
        self._record(_Kind.RESET, cycles)
        return int(self._library.phone_reset(cycles))

    def phone_completion(self, completion: Any) -> int:
        """Take what has ended."""
        found = int(self._library.phone_completion(completion))
        if found:
            ended = completion._obj
            loaded = ctypes.string_at(*self._loads.pop(ended.token, (0, 0)))
            self._record(_Kind.COMPLETION, ended.token, ended.response, ended.data, payload=loaded)
        return found

    def _contents(self, name: str) -> bytes:
        return ctypes.string_at(*self._memories[name])

    def _access(self, kind: _Kind, *values: int, payload: bytes = b"") -> None:
        if not self._accessed:
            self._accessed = True
            (self._folder / "dram.bin").write_bytes(self._contents("dram"))
            (self._folder / "flash.bin").write_bytes(self._contents("flash").rstrip(b"\0"))
        self._record(kind, *values, payload=payload)

    def _record(self, kind: _Kind, *values: int, payload: bytes = b"") -> None:
        padded = (*values, *([0] * (7 - len(values))))
        head = _RECORD.pack(self._library.phone_cycle(), len(payload), kind, *padded)
        self._records.append(head + payload + bytes(-len(payload) % BEAT_BYTES))

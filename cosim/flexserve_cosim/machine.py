"""The phone as software sees it, on the RTL: every access crosses the simulated bus with its world on it."""

from __future__ import annotations

import ctypes
import heapq
import mmap
from collections.abc import Coroutine, Iterable
from itertools import count
from typing import Any, TypeVar

import numpy as np

from flexserve_sw.fast.memory import DRAM_BASE, DramTiming, FlashTiming
from flexserve_sw.machine import (
    BEAT_BYTES,
    BusFault,
    Event,
    Initiator,
    Interrupt,
    MachineDied,
    Memory,
    Response,
    World,
    normal_world,
)
from flexserve_sw.tasks import Kernel, Latch, SimTask

from .simlib import Completion, load_library

__all__ = ["AccessAborted", "RtlMachine"]

T = TypeVar("T")

RESET_CYCLES = 16
"""Cycles for which reset is held."""

PROT_NONSECURE = 0b010
"""``AxPROT`` of a non-secure data access."""

_PORTS = {initiator: port for port, initiator in enumerate(Initiator)}
_LINES = {line: 1 << bit for bit, line in enumerate(Interrupt)}
_NEVER = (1 << 64) - 1
_ABORTED = 4


class AccessAborted(Exception):
    """Reset was pulsed while the access was under way; nothing is known about what it did."""

    def __init__(self, address: int) -> None:
        super().__init__(f"Access to {address:#x} was cut off by reset")


class _Pending:
    """A posted access: who waits for it, and the buffer that hardware may still touch."""

    __slots__ = ("address", "buffer", "done", "response", "value")

    def __init__(self, done: Latch, address: int, buffer: Any = None) -> None:
        self.done = done
        self.address = address
        self.buffer = buffer
        self.response = 0
        self.value = 0


class RtlMachine:
    """:class:`flexserve_sw.machine.Machine` over the burst and register engines around the RTL.

    Parameters
    ----------
    kernel
        Scheduler of the tasks that use the machine.
    clock_hz
        Frequency of the SoC clock.
    dram_bytes, flash_bytes
        Sizes of the memories, whole pages.
    dram, flash
        Their timing.
    seed
        Of the unknown contents of DRAM at power-up.
    library
        The simulator's functions, if not those of this process.

    ``wakes`` counts how often Python was entered; at cycle ``limit`` (None: never) it is entered whatever happens.
    """

    def __init__(
        self,
        *,
        kernel: Kernel,
        clock_hz: int,
        dram_bytes: int,
        flash_bytes: int,
        dram: DramTiming,
        flash: FlashTiming,
        seed: int,
        library: Any = None,
    ) -> None:
        for name, size in (("DRAM", dram_bytes), ("Flash", flash_bytes)):
            if size <= 0 or size % mmap.PAGESIZE:
                raise ValueError(f"{name} size must be whole pages, not {size!r}")
        self._kernel = kernel
        self._clock_hz = clock_hz
        self._library = library or load_library()
        self._pending: dict[int, _Pending] = {}
        self._delays: list[tuple[int, int, Latch]] = []
        self._order = count()
        self._lines: dict[Interrupt, list[Event]] = {}
        self.wakes = 0
        self.limit: int | None = None
        self._dram = _map(DRAM_BASE, dram_bytes)
        self._dram.bytes[:] = np.frombuffer(np.random.default_rng(seed).bytes(dram_bytes), np.uint8)
        self._flash = _map(0, flash_bytes)
        self._library.phone_dram(self._dram.bytes.ctypes.data, DRAM_BASE, dram_bytes)
        self._library.phone_dram_timing(
            dram.latency, dram.latency, dram.bytes_per_cycle, dram.refresh_interval, dram.refresh_cycles
        )
        self._library.phone_flash(self._flash.bytes.ctypes.data, flash_bytes)
        self._library.phone_flash_timing(flash.latency, flash.bytes_per_cycle)

    @property
    def clock_hz(self) -> int:
        """Frequency that turns platform costs in seconds into cycles."""
        return self._clock_hz

    @property
    def now(self) -> int:
        """Cycles since the simulation started; does not restart at reset."""
        return int(self._library.phone_cycle())

    @property
    def dram(self) -> Memory:
        """Memory behind the filter, for checks only."""
        return self._dram

    @property
    def flash(self) -> Memory:
        """Storage behind the storage DMA device, base 0."""
        return self._flash

    async def reset(self) -> None:
        """Pulse reset; memory keeps its contents. Accesses under way raise :class:`AccessAborted` in their tasks."""
        await self._post(0, self._library.phone_reset(RESET_CYCLES))

    async def read_register(self, address: int, *, by: Initiator, world: World | None = None) -> int:
        """Read a 32-bit register over AXI4-Lite. Raises :class:`BusFault`."""
        token = self._library.phone_register(_PORTS[by], 0, _register(address), 0, 0, _prot(by, world))
        access = await self._post(address, token)
        if access.response:
            raise BusFault(address, Response(access.response), access.value.to_bytes(4, "little"))
        return access.value

    async def write_register(
        self, address: int, value: int, *, by: Initiator, world: World | None = None, strobe: int = 0xF
    ) -> None:
        """Write a 32-bit register over AXI4-Lite. Raises :class:`BusFault`."""
        if not 0 <= value < 1 << 32:
            raise ValueError(f"Register value must fit 32 bits, not {value!r}")
        if not 0 <= strobe < 16:
            raise ValueError(f"Register strobe must fit 4 bits, not {strobe!r}")
        token = self._library.phone_register(_PORTS[by], 1, _register(address), value, strobe, _prot(by, world))
        access = await self._post(address, token)
        if access.response:
            raise BusFault(address, Response(access.response))

    async def write_registers(
        self, values: Iterable[tuple[int, int]], *, by: Initiator, world: World | None = None
    ) -> None:
        """Write registers one after the other. Raises :class:`BusFault`."""
        for address, value in values:
            await self.write_register(address, value, by=by, world=world)

    async def load(self, address: int, length: int, *, by: Initiator, world: World | None = None) -> bytes:
        """Read through the filter; see :meth:`flexserve_sw.machine.Machine.load`."""
        _check_range(address, length)
        if length == 0:
            return b""
        buffer = ctypes.create_string_buffer(length)
        token = self._library.phone_load(_PORTS[by], address, length, _prot(by, world), ctypes.addressof(buffer))
        access = await self._post(address, token, buffer)
        if access.response:
            raise BusFault(address, Response(access.response), buffer.raw)
        return buffer.raw

    async def store(self, address: int, payload: bytes, *, by: Initiator, world: World | None = None) -> None:
        """Write through the filter; see :meth:`flexserve_sw.machine.Machine.store`."""
        _check_range(address, len(payload))
        if not payload:
            return
        buffer = ctypes.create_string_buffer(bytes(payload), len(payload))
        token = self._library.phone_store(_PORTS[by], address, len(payload), _prot(by, world), ctypes.addressof(buffer))
        access = await self._post(address, token, buffer)
        if access.response:
            raise BusFault(address, Response(access.response))

    async def delay(self, cycles: int) -> None:
        """Let simulated time pass."""
        if cycles < 0:
            raise ValueError(f"A delay must be 0 cycles or more, not {cycles!r}")
        if cycles == 0:
            await self._kernel.pause()
            return
        latch = Latch(self._kernel)
        heapq.heappush(self._delays, (self.now + cycles, next(self._order), latch))
        self._arm()
        await latch.wait()

    async def wait_interrupt(self, line: Interrupt) -> None:
        """Return when the line is high; at once if it is."""
        latch = Latch(self._kernel)
        self.announce(line, latch)
        await latch.wait()

    def announce(self, line: Interrupt, event: Event) -> None:
        """Set an event when the line is high next; at once if it is."""
        if self.pending(line):
            event.set()
        else:
            self._lines.setdefault(line, []).append(event)
            self._arm()

    def pending(self, line: Interrupt) -> bool:
        """Whether the line is high now."""
        return bool(self._library.phone_interrupts() & _LINES[line])

    def spawn(self, coroutine: Coroutine[Any, Any, T], *, name: str) -> SimTask[T]:
        """Start a coroutine beside the caller."""
        return self._kernel.spawn(coroutine, name=name)

    def event(self) -> Latch:
        """Make a fresh, unset event."""
        return Latch(self._kernel)

    def dispatch(self) -> None:
        """Hand what the simulator has to tell to the tasks that wait for it. Called once per wake."""
        self.wakes += 1
        completion = Completion()
        while self._library.phone_completion(ctypes.byref(completion)):
            access = self._pending.pop(completion.token, None)
            if access is None:
                raise MachineDied(f"The simulator completed an access that nobody made: token {completion.token}")
            access.response = completion.response
            access.value = completion.data
            access.done.set()
        now = self.now
        while self._delays and self._delays[0][0] <= now:
            heapq.heappop(self._delays)[2].set()
        for line in [line for line in self._lines if self.pending(line)]:
            for event in self._lines.pop(line):
                event.set()
        self._arm()

    def idle(self) -> bool:
        """Whether nothing is under way that could wake a task: every waiter would wait for ever."""
        return not self._pending and not self._delays and not self._lines

    def under_way(self) -> str:
        """What hardware or time still owes to tasks, for a report of why a job does not go on."""
        accesses = sorted({f"{access.address:#x}" for access in self._pending.values()})
        lines = [line.value for line in self._lines]
        return f"accesses to [{', '.join(accesses)}], interrupts [{', '.join(lines)}], {len(self._delays)} delays"

    async def _post(self, address: int, token: int, buffer: Any = None) -> _Pending:
        access = self._pending[token] = _Pending(Latch(self._kernel), address, buffer)
        await access.done.wait()
        if access.response == _ABORTED:
            raise AccessAborted(address)
        return access

    def _arm(self) -> None:
        """Tell the main loop when to enter Python next."""
        alarm = self._delays[0][0] if self._delays else _NEVER
        self._library.phone_alarm(alarm if self.limit is None else min(alarm, self.limit))
        self._library.phone_watch(sum(_LINES[line] for line in self._lines))


def _map(base: int, size: int) -> Memory:
    """Fresh memory that the simulator and numpy share; pages that are never touched cost nothing."""
    return Memory(base, np.frombuffer(mmap.mmap(-1, size), np.uint8))


def _prot(by: Initiator, world: World | None) -> int:
    return PROT_NONSECURE if normal_world(by, world) else 0


def _register(address: int) -> int:
    if not 0 <= address < 1 << 32 or address % 4:
        raise ValueError(f"Register address must be a multiple of 4 below 2**32, not {address!r}")
    return address


def _check_range(address: int, length: int) -> None:
    if not 0 <= address < 1 << 32 or address % BEAT_BYTES:
        raise ValueError(f"Address must be a multiple of {BEAT_BYTES} below 2**32, not {address!r}")
    if length < 0 or length % BEAT_BYTES or address + length > 1 << 32:
        raise ValueError(f"Length must be a multiple of {BEAT_BYTES} that ends within 2**32, not {length!r}")

"""The phone as a transaction-level model."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from ..machine import WINDOW_GRANULE, BusFault, Event, Initiator, Interrupt, Memory, Response, World, normal_world
from ..npu import Caps, NpuState
from ..regs import FLEX_NORMAL, FLEX_SECURE, GATE_NORMAL, GATE_SECURE, NPU_NORMAL, NPU_SECURE, STORAGE, TZC, Block
from ..tasks import Latch, SimTask
from .filter import Filter
from .gate import NpuGate
from .job import Memories
from .kernel import Hardware, Kernel, Line
from .master import Master
from .memory import Dram, DramTiming, FlashTiming
from .npu import Npu
from .registers import FULL, Frame, Register, Value
from .storage import StorageDma

__all__ = ["FastMachine"]

T = TypeVar("T")

CLOCK_HZ = 1_000_000_000
REQUEST_CYCLES, ANSWER_CYCLES = 3, 2
"""Cycles of a register access until it takes effect, and from then to its answer."""
_WHOLE_CYCLES = REQUEST_CYCLES + ANSWER_CYCLES
RESET_CYCLES = 16

_MASTERS = {
    Initiator.NORMAL_CPU: Master.NORMAL_CPU,
    Initiator.SECURE_CPU: Master.SECURE_CPU,
    Initiator.HOSTILE_DEVICE: Master.HOSTILE,
}

_SIDES = {
    (by, world): (master, World.NORMAL if normal_world(by, world) else World.SECURE)
    for by, master in _MASTERS.items()
    for world in (None, *World)
}
"""Master and world of an access on the bus, by who asks for it, and for which world."""

_SECURE_FRAMES = frozenset(block.base for block in (TZC, FLEX_SECURE, NPU_SECURE, GATE_SECURE))
_EVERYBODY = Value(reset=FULL)
_FRAME_BYTES = 0x1000


@dataclass(slots=True)
class _Way:
    """Where an access goes: to the register at ``offset`` in ``frame``, while the bit ``manager`` is in ``managers``.

    ``register`` is what is there, ``word`` that again if it only keeps what is written.
    """

    frame: Frame | None
    offset: int
    managers: Value
    manager: int
    register: Register | None
    word: Value | None

    def read(self) -> tuple[Response, int]:
        """Answer a read."""
        frame, register = self.frame, self.register
        if frame is None or not self.managers.value & self.manager:
            return Response.DECERR, 0
        if register is not None and frame.live:
            return Response.OKAY, register.read()
        return frame.read(self.offset)

    def write(self, value: int, strobe: int) -> Response:
        """Answer a write."""
        if self.frame is None or not self.managers.value & self.manager:
            return Response.DECERR
        return self.frame.write(self.offset, value, strobe)

    def keeps(self) -> Value | None:
        """The register, if all that a write does now is to change it."""
        return self.word if self.frame and self.frame.live and self.managers.value & self.manager else None


class _Soc:
    """The hardware between one reset and the next."""

    def __init__(
        self, kernel: Kernel, lines: dict[Interrupt, Line], *, dram: Dram, flash: Memory, flash_timing: FlashTiming,
        pages: int, npu: Memories,
    ) -> None:  # fmt: skip
        self.hardware = Hardware(kernel)
        self.filter = Filter(
            self.hardware,
            tzc=lines[Interrupt.TZC],
            normal=lines[Interrupt.FLEX_NORMAL],
            secure=lines[Interrupt.FLEX_SECURE],
            dram=dram,
            capacity=pages,
        )
        self.npu = Npu(
            self.hardware,
            lines[Interrupt.NPU_NORMAL],
            lines[Interrupt.NPU_SECURE],
            filter_=self.filter,
            dram=dram,
            memories=npu,
        )
        self.gate = NpuGate(self.hardware, lines[Interrupt.GATE_NORMAL], lines[Interrupt.GATE_SECURE], npu=self.npu)
        self.storage = StorageDma(
            self.hardware, lines[Interrupt.STORAGE], filter_=self.filter, flash=flash, timing=flash_timing
        )
        frames: dict[Block, Frame] = {
            TZC: self.filter.regions.frame,
            FLEX_NORMAL: self.filter.pages.normal_frame,
            FLEX_SECURE: self.filter.pages.secure_frame,
            NPU_NORMAL: self.npu.frame(World.NORMAL),
            NPU_SECURE: self.npu.frame(World.SECURE),
            GATE_NORMAL: self.gate.normal_frame,
            GATE_SECURE: self.gate.secure_frame,
            STORAGE: self.storage.frame,
        }
        self.ways: dict[tuple[Initiator, World | None, int], _Way] = {}
        managers = {FLEX_NORMAL: self.filter.pages.managers, GATE_NORMAL: self.gate.managers}
        self._frames = {
            block.base: (frame, block.base in _SECURE_FRAMES, managers.get(block, _EVERYBODY))
            for block, frame in frames.items()
        }

    def find(self, address: int, by: Initiator, world: World | None) -> _Way:
        """What a master reaches at ``address``."""
        way = self.ways.get((by, world, address))
        if way is None:
            if address % 4:
                raise ValueError(f"A register address must be a multiple of 4, not {address!r}")
            way = self.ways[by, world, address] = self._find(address, by, world)
        return way

    def _find(self, address: int, by: Initiator, world: World | None) -> _Way:
        master, side = _SIDES[by, world]
        offset = address % _FRAME_BYTES
        frame, secure, managers = self._frames.get(address - offset, (None, False, _EVERYBODY))
        if frame is None or secure is not (side is World.SECURE):
            return _Way(None, 0, _EVERYBODY, 0, None, None)
        register = frame.register(offset)
        word = register if isinstance(register, Value) and register.plain else None
        return _Way(frame, offset, managers, 1 << master.nsaid, register, word)

    def stop(self) -> None:
        """Reset is asserted: every process ends, every access in flight is lost."""
        self.hardware.stop()
        self.filter.regions.opened.fire()


class FastMachine:
    """A phone whose every transfer is one event.

    Parameters
    ----------
    pages
        Capacity of the page-state table.
    dram_bytes, flash_bytes
        Sizes of memory and flash. Memory and the NPU's scratchpads power up with random
        contents of ``seed``, flash with zeros.
    caps
        Sizes of the NPU.
    dram, flash
        Timing of the memories.
    """

    def __init__(
        self,
        *,
        pages: int = 2048,
        dram_bytes: int = 16 << 20,
        flash_bytes: int = 64 << 20,
        caps: Caps | None = None,
        dram: DramTiming | None = None,
        flash: FlashTiming | None = None,
        seed: int = 1,
    ) -> None:
        if pages < 2 * WINDOW_GRANULE or pages & (pages - 1):
            raise ValueError(
                f"Table capacity must be a power of two of at least {2 * WINDOW_GRANULE} pages, not {pages!r}"
            )
        if dram_bytes % 4096 or dram_bytes < pages * 4096:
            raise ValueError(f"Memory must be whole pages and hold the table's window, not {dram_bytes!r} bytes")
        self.kernel = Kernel()
        self._lines = {line: Line(self.kernel) for line in Interrupt}
        self._dram = Dram(size=dram_bytes, timing=dram or DramTiming(), seed=seed)
        self._flash = Memory(0, np.zeros(flash_bytes, dtype=np.uint8))
        self._flash_timing = flash or FlashTiming()
        self._pages, self._npu = pages, Memories(_unknown(NpuState(caps or Caps()), seed))
        self.soc = self._power_on()

    def _power_on(self) -> _Soc:
        return _Soc(
            self.kernel,
            self._lines,
            dram=self._dram,
            flash=self._flash,
            flash_timing=self._flash_timing,
            pages=self._pages,
            npu=self._npu,
        )

    @property
    def clock_hz(self) -> int:
        """Frequency that turns platform costs in seconds into cycles."""
        return CLOCK_HZ

    @property
    def now(self) -> int:
        """Cycles since the machine was made; does not restart at reset."""
        return self.kernel.now

    @property
    def dram(self) -> Memory:
        """Memory behind the filter, for checks only."""
        return self._dram.memory

    @property
    def flash(self) -> Memory:
        """Storage behind the storage DMA device, base 0."""
        return self._flash

    async def reset(self) -> None:
        """Pulse reset; memory keeps its contents. Transfers in flight end with SLVERR."""
        self.soc.stop()
        for line in self._lines.values():
            line.drive(False)
        await self.kernel.delay(RESET_CYCLES)
        self.soc = self._power_on()

    async def read_register(self, address: int, *, by: Initiator, world: World | None = None) -> int:
        """Read a 32-bit register. Raises :class:`BusFault`."""
        kernel = self.kernel
        if not kernel.skip(REQUEST_CYCLES):
            await kernel.delay(REQUEST_CYCLES)
        response, value = self.soc.find(address, by, world).read()
        if not kernel.skip(ANSWER_CYCLES):
            await kernel.delay(ANSWER_CYCLES)
        if response is not Response.OKAY:
            raise BusFault(address, response, value.to_bytes(4, "little"))
        return value

    async def write_register(
        self, address: int, value: int, *, by: Initiator, world: World | None = None, strobe: int = 0xF
    ) -> None:
        """Write a 32-bit register. Raises :class:`BusFault`."""
        await self._write(((address, value),), by, world, strobe)

    async def write_registers(
        self, values: Iterable[tuple[int, int]], *, by: Initiator, world: World | None = None
    ) -> None:
        """Write registers one after the other. Raises :class:`BusFault`."""
        await self._write(values, by, world, 0xF)

    async def _write(self, values: Iterable[tuple[int, int]], by: Initiator, world: World | None, strobe: int) -> None:
        kernel = self.kernel
        for address, value in values:
            if not 0 <= value <= FULL or not 0 <= strobe <= 0xF:
                raise ValueError(f"A register write must be 32 bits with 4 strobe bits, not {(value, strobe)!r}")
            # Nobody sees when a word changes if nothing else happens meanwhile.
            way = self.soc.ways.get((by, world, address))
            if way is not None and strobe == 0xF and (word := way.keeps()) is not None and kernel.skip(_WHOLE_CYCLES):
                word.keep(value)
                continue
            if not kernel.skip(REQUEST_CYCLES):
                await kernel.delay(REQUEST_CYCLES)
            response = self.soc.find(address, by, world).write(value, strobe)
            if not kernel.skip(ANSWER_CYCLES):
                await kernel.delay(ANSWER_CYCLES)
            if response is not Response.OKAY:
                raise BusFault(address, response)

    async def load(self, address: int, length: int, *, by: Initiator, world: World | None = None) -> bytes:
        """Read ``length`` bytes through the filter. Raises :class:`BusFault` with what came back."""
        if length == 0:
            return b""
        filter_, (master, side) = self.soc.filter, _SIDES[by, world]
        data = filter_.load_now(master, side, address, length)
        if data is not None:
            return data
        steps = filter_.transfer(master, side, address, length=length)
        return (await self.kernel.follow(steps)).check()

    async def store(self, address: int, payload: bytes, *, by: Initiator, world: World | None = None) -> None:
        """Write through the filter. Raises :class:`BusFault`."""
        filter_, (master, side) = self.soc.filter, _SIDES[by, world]
        if payload and not filter_.store_now(master, side, address, payload):
            steps = filter_.transfer(master, side, address, payload=payload)
            (await self.kernel.follow(steps)).check()

    def delay(self, cycles: int) -> Coroutine[Any, Any, None]:
        """Let simulated time pass."""
        return self.kernel.delay(cycles)

    def wait_interrupt(self, line: Interrupt) -> Coroutine[Any, Any, None]:
        """Return when the line is high; at once if it is."""
        return self._lines[line].wait()

    def announce(self, line: Interrupt, event: Event) -> None:
        """Set an event when the line is high next; at once if it is."""
        self._lines[line].announce(event)

    def pending(self, line: Interrupt) -> bool:
        """Whether the line is high now."""
        return self._lines[line].high

    def spawn(self, coroutine: Coroutine[Any, Any, T], *, name: str) -> SimTask[T]:
        """Start a coroutine beside the caller."""
        return self.kernel.spawn(coroutine, name=name)

    def event(self) -> Latch:
        """Make a fresh, unset event."""
        return Latch(self.kernel)


def _unknown(state: NpuState, seed: int) -> NpuState:
    """The NPU's memories as they power up."""
    random = np.random.default_rng([seed, 1])
    for memory in (state.a, state.w, state.c):
        memory[:] = np.frombuffer(random.bytes(memory.nbytes), memory.dtype).reshape(memory.shape)
    return state

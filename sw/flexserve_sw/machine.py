"""The seam between software and a machine: what monitor, OS, serving framework and attacker may ask of the phone.

Two machines implement it: the RTL under co-simulation and the transaction-level model in :mod:`flexserve_sw.fast`.
Software is written as coroutines; only the awaits below let simulated time pass.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

PAGE_BYTES = 4096
"""Bytes of a page, the granule of protection."""

WINDOW_GRANULE = 64
"""Pages in a word of the page-state table: the flexible window begins and ends at a multiple of it."""

BEAT_BYTES = 16
"""Bytes of a data beat; bulk transfers are multiples of it."""


class _Name(Enum):
    """Names that many look-ups go by. A member is itself alone, so its identity is hash enough, and the quickest."""

    __hash__ = object.__hash__


class World(_Name):
    """Security state of an access: what the master puts on AxPROT[1]."""

    NORMAL = "normal"
    SECURE = "secure"


class Initiator(_Name):
    """Port of the SoC through which an access enters. Hardware, not software, ties ports to worlds.

    The normal CPU and the hostile device are non-secure whatever they ask for; the secure CPU chooses per access.
    """

    NORMAL_CPU = "cpu_n"
    SECURE_CPU = "cpu_s"
    HOSTILE_DEVICE = "hostile"


class Response(IntEnum):
    """AXI response."""

    OKAY = 0
    EXOKAY = 1
    SLVERR = 2
    DECERR = 3


class Interrupt(_Name):
    """Interrupt lines of the SoC, level-sensitive."""

    FLEX_NORMAL = "irq_flex_n"
    FLEX_SECURE = "irq_flex_s"
    NPU_NORMAL = "irq_npu_n"
    NPU_SECURE = "irq_npu_s"
    GATE_NORMAL = "irq_gate_n"
    GATE_SECURE = "irq_gate_s"
    STORAGE = "irq_storage"
    TZC = "irq_tzc"


class BusFault(Exception):
    """An access was answered SLVERR or DECERR. Carries what came back, so that an attacker can look at it."""

    def __init__(self, address: int, response: Response, data: bytes = b"") -> None:
        super().__init__(f"Access to {address:#x} answered {response.name}")
        self.address = address
        self.response = response
        self.data = data


class MachineDied(Exception):
    """The simulator ended before the software did."""


@dataclass(frozen=True)
class Memory:
    """A memory's contents as numpy sees them: ``base`` in bytes, ``bytes`` a uint8 view.

    DRAM is looked at only to check a result, and may refuse to be written to; flash is written only before boot.
    """

    base: int
    bytes: npt.NDArray[np.uint8]

    @property
    def size(self) -> int:
        """Bytes."""
        return int(self.bytes.size)


class Event(Protocol):
    """One-way latch between tasks."""

    def set(self) -> None:
        """Let every waiter go on, now and from now on until :meth:`clear`."""

    def clear(self) -> None:
        """Make later waiters wait again."""

    def is_set(self) -> bool:
        """Whether waiters pass."""

    async def wait(self) -> None:
        """Wait until set."""


class Task(Protocol[T_co]):
    """A coroutine running beside the others."""

    async def join(self) -> T_co:
        """Wait for the end and return the result, or raise what the coroutine raised."""

    def cancel(self) -> None:
        """Stop it at its next await."""

    def done(self) -> bool:
        """Whether it has ended."""


class Machine(Protocol):
    """A phone. All times are cycles of the one SoC clock."""

    @property
    def clock_hz(self) -> int:
        """Frequency that turns platform costs in seconds into cycles."""

    @property
    def now(self) -> int:
        """Cycles since the machine was made; does not restart at reset."""

    @property
    def dram(self) -> Memory:
        """Memory behind the filter, for checks only."""

    @property
    def flash(self) -> Memory:
        """Storage behind the storage DMA device, base 0."""

    async def reset(self) -> None:
        """Pulse reset; memory keeps its contents."""

    async def read_register(self, address: int, *, by: Initiator, world: World | None = None) -> int:
        """Read a 32-bit register over AXI4-Lite; ``world`` is by default the initiator's. Raises :class:`BusFault`."""

    async def write_register(
        self, address: int, value: int, *, by: Initiator, world: World | None = None, strobe: int = 0xF
    ) -> None:
        """Write a 32-bit register over AXI4-Lite. Raises :class:`BusFault`."""

    async def write_registers(
        self, values: Iterable[tuple[int, int]], *, by: Initiator, world: World | None = None
    ) -> None:
        """Write 32-bit registers one after the other, ``(address, value)`` each. Raises :class:`BusFault`."""

    async def load(self, address: int, length: int, *, by: Initiator, world: World | None = None) -> bytes:
        """Read ``length`` bytes through the filter in bursts of up to 256 beats that never cross a page.

        ``address`` and ``length`` are multiples of :data:`BEAT_BYTES`. Raises :class:`BusFault` with all data that came
        back once every burst has ended, if any beat was not OKAY.
        """

    async def store(self, address: int, payload: bytes, *, by: Initiator, world: World | None = None) -> None:
        """Write through the filter, like :meth:`load`."""

    async def delay(self, cycles: int) -> None:
        """Let simulated time pass."""

    async def wait_interrupt(self, line: Interrupt) -> None:
        """Return when the line is high; at once if it is."""

    def announce(self, line: Interrupt, event: Event) -> None:
        """Set ``event`` when the line is high next; at once if it is."""

    def pending(self, line: Interrupt) -> bool:
        """Whether the line is high now."""

    def spawn(self, coroutine: Coroutine[Any, Any, T], *, name: str) -> Task[T]:
        """Start a coroutine beside the caller."""

    def event(self) -> Event:
        """Make a fresh, unset event."""


def normal_world(by: Initiator, world: World | None) -> bool:
    """Whether an access is non-secure on the bus, given its port and what its software asked for."""
    return by is not Initiator.SECURE_CPU or world is World.NORMAL

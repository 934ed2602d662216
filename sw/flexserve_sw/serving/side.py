"""The CPU side on which the serving framework runs: which port, which world, and what its work costs."""

from __future__ import annotations

from collections.abc import Awaitable

from ..llm.model import Work
from ..machine import Initiator, Machine, World
from ..platforms import Platform

__all__ = ["CpuClock", "Side"]


class Side:
    """Access to the framework's own memory and to memory that the OS can see.

    In the secure world own memory is reached by secure accesses and everything else by accesses marked non-secure; in
    the normal world there is no difference.
    """

    def __init__(self, machine: Machine, platform: Platform, *, secure: bool) -> None:
        self.machine, self.platform, self.secure = machine, platform, secure
        self.by = Initiator.SECURE_CPU if secure else Initiator.NORMAL_CPU
        self._own = World.SECURE if secure else World.NORMAL

    def load(self, address: int, length: int) -> Awaitable[bytes]:
        """Read own memory."""
        return self.machine.load(address, length, by=self.by, world=self._own)

    def store(self, address: int, payload: bytes) -> Awaitable[None]:
        """Write own memory."""
        return self.machine.store(address, payload, by=self.by, world=self._own)

    def load_foreign(self, address: int, length: int) -> Awaitable[bytes]:
        """Read memory of the OS. What comes back may be anything."""
        return self.machine.load(address, length, by=self.by, world=World.NORMAL)

    def store_foreign(self, address: int, payload: bytes) -> Awaitable[None]:
        """Write memory of the OS: never anything secret in the clear."""
        return self.machine.store(address, payload, by=self.by, world=World.NORMAL)


class CpuClock:
    """Turns counted CPU work into time.

    Work is summed up and spent by :meth:`settle`, which everything that touches the machine calls first, so that small
    operations cost their fractions of a cycle and nothing is rounded away.
    """

    def __init__(self, side: Side) -> None:
        cpu, clock_hz = side.platform.cpu, side.machine.clock_hz
        self._machine = side.machine
        self._debt = 0.0
        flop = clock_hz / cpu.float_rate.value
        self._cycles = {
            Work.FLOP: flop,
            Work.EXP: flop * cpu.exp_flops.value,
            Work.INT8_MAC: clock_hz * side.platform.scale.npu_mac_ratio.value / cpu.int8_rate.value,
        }

    def charge(self, work: Work, count: int) -> None:
        """Note work to be paid for at the next :meth:`settle`."""
        self._debt += count * self._cycles[work]

    def cost(self, work: Work, count: int) -> float:
        """Cycles that work takes."""
        return count * self._cycles[work]

    @property
    def due(self) -> bool:
        """Whether :meth:`settle` would let time pass."""
        return self._debt >= 1

    async def settle(self) -> None:
        """Let the time of the work noted so far pass."""
        cycles = int(self._debt)
        self._debt -= cycles
        if cycles:
            await self._machine.delay(cycles)

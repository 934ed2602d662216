"""Storage driver of the OS: moves bytes between flash and memory. It is not trusted with what they mean."""

from __future__ import annotations

from ..machine import BEAT_BYTES, Initiator, Interrupt, Machine
from ..regs import STORAGE, Storage
from ..sync import Mutex
from ..timeline import Timeline

__all__ = ["StorageDriver", "StorageError"]

_BY = Initiator.NORMAL_CPU


class StorageError(Exception):
    """The device reported an error."""


class StorageDriver:
    """One transfer after the other through the storage DMA device."""

    def __init__(self, machine: Machine, timeline: Timeline) -> None:
        self._machine, self._timeline = machine, timeline
        self._turn = Mutex(machine)

    async def start(self) -> None:
        """Enable the completion interrupt."""
        await self._machine.write_register(STORAGE.IRQ_ENABLE, Storage.IRQ_ENABLE__DONE.put(1), by=_BY)

    async def read(self, offset: int, address: int, length: int) -> None:
        """Flash to memory. Raises :class:`StorageError`."""
        await self._transfer(offset, address, length, to_flash=False)

    async def write(self, offset: int, address: int, length: int) -> None:
        """Memory to flash. Raises :class:`StorageError`."""
        await self._transfer(offset, address, length, to_flash=True)

    async def _transfer(self, offset: int, address: int, length: int, *, to_flash: bool) -> None:
        if length < 1 or any(value % BEAT_BYTES for value in (offset, address, length)):
            raise StorageError(f"A transfer must be whole beats, not {(offset, address, length)!r}")
        machine = self._machine
        name = "write flash" if to_flash else "read flash"
        async with self._turn:
            with self._timeline.span("storage", name, offset=offset, bytes=length):
                await machine.write_register(STORAGE.FLASH_OFFSET, offset, by=_BY)
                await machine.write_register(STORAGE.MEM_ADDR_LO, address & 0xFFFF_FFFF, by=_BY)
                await machine.write_register(STORAGE.MEM_ADDR_HI, address >> 32, by=_BY)
                await machine.write_register(STORAGE.LENGTH, length, by=_BY)
                await machine.write_register(STORAGE.COMMAND, Storage.COMMAND__TO_FLASH.put(to_flash), by=_BY)
                await machine.wait_interrupt(Interrupt.STORAGE)
                status = await machine.read_register(STORAGE.STATUS, by=_BY)
                await machine.write_register(STORAGE.IRQ_STATUS, Storage.IRQ_STATUS__DONE.put(1), by=_BY)
        if Storage.STATUS__ERROR.get(status):
            raise StorageError(f"The device failed to {name} at {offset:#x}, memory {address:#x}, {length} bytes")

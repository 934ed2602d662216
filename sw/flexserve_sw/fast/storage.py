"""Storage DMA device: a normal-world master that moves bytes between flash and memory."""

from __future__ import annotations

from ..machine import BEAT_BYTES, PAGE_BYTES, Memory, Response, World
from ..regs import STORAGE, Storage
from .filter import Filter
from .kernel import Hardware, Line, Routine, Signal
from .master import Master
from .memory import FlashTiming
from .registers import Frame, Interrupts, Register, Trigger, Value, View

__all__ = ["StorageDma"]


class StorageDma:
    """STORAGE frame and the engine behind it."""

    def __init__(self, hardware: Hardware, line: Line, *, filter_: Filter, flash: Memory, timing: FlashTiming) -> None:
        self._hardware, self._filter, self._flash, self._timing = hardware, filter_, flash, timing
        self._irq = Interrupts(line, width=1)
        self._busy = self._error = self._failed = False
        self._moving = 0  # pages on their way to memory
        self._put_down = Signal()
        self._offset, self._low, self._high, self._length = Value(), Value(), Value(), Value()
        registers: dict[int, Register] = {
            STORAGE.ID: View(lambda: 0x464C5344),
            STORAGE.STATUS: View(self._status),
            STORAGE.FLASH_OFFSET: self._offset,
            STORAGE.MEM_ADDR_LO: self._low,
            STORAGE.MEM_ADDR_HI: self._high,
            STORAGE.LENGTH: self._length,
            STORAGE.COMMAND: Trigger(self._start, mask=1, rejected=lambda: self._busy),
            STORAGE.IRQ_STATUS: self._irq.status,
            STORAGE.IRQ_ENABLE: self._irq.enable,
        }
        self.frame = Frame({address - STORAGE.base: register for address, register in registers.items()})

    def _status(self) -> int:
        return Storage.STATUS__BUSY.put(int(self._busy)) | Storage.STATUS__ERROR.put(int(self._error))

    def _start(self, to_flash: int) -> None:
        self._busy, self._error = True, False
        offset, length = self._offset.value, self._length.value
        address = self._high.value << 32 | self._low.value
        self._hardware.start(self._transfer(offset, address, length, to_flash=bool(to_flash)))

    def _transfer(self, offset: int, address: int, length: int, *, to_flash: bool) -> Routine:
        illegal = length == 0 or any(v % BEAT_BYTES for v in (offset, address, length))
        if illegal or offset + length > self._flash.size:
            yield 1
            self._finish(error=True)
        elif to_flash:
            yield from self._write_flash(offset, address, length)
        else:
            yield from self._read_flash(offset, address, length)

    def _write_flash(self, offset: int, address: int, length: int) -> Routine:
        """Flash takes beats as they come, and is done a latency after the last."""
        timing, start = self._timing, self._hardware.now
        answer = yield from self._filter.transfer(Master.STORAGE, World.NORMAL, address, length=length)
        done = max(self._hardware.now, start + round(length / timing.bytes_per_cycle)) + timing.latency
        yield max(0, done - self._hardware.now)
        self._flash.bytes[offset : offset + length] = memoryview(answer.data)
        self._finish(error=answer.response is not Response.OKAY)

    def _read_flash(self, offset: int, address: int, length: int) -> Routine:
        """Pages go to memory as they arrive."""
        start, at = self._hardware.now, 0
        self._failed, self._moving = False, 0
        while at < length:
            size = min(length - at, PAGE_BYTES - (address + at) % PAGE_BYTES)
            due = start + self._timing.latency + round((at + size) / self._timing.bytes_per_cycle)
            yield max(0, due - self._hardware.now)
            payload = self._flash.bytes[offset + at : offset + at + size].tobytes()
            self._moving += 1
            self._filter.post(Master.STORAGE, World.NORMAL, address + at, payload, self._put)
            at += size
        while self._moving:
            yield self._put_down
        self._finish(error=self._failed)

    def _put(self, response: Response) -> None:
        """A page has arrived in memory, or was refused."""
        self._failed = self._failed or response is not Response.OKAY
        self._moving -= 1
        self._put_down.fire()

    def _finish(self, *, error: bool) -> None:
        self._busy, self._error = False, error
        self._irq.post(0)

"""Register frames of the transaction-level machine: what a bus access to one word does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..machine import Response
from .kernel import Line

__all__ = ["FULL", "Frame", "Interrupts", "Register", "Trigger", "Value", "View"]

FULL = 0xFFFF_FFFF
"""All 32 bits."""


_BYTES = tuple(sum(0xFF << 8 * i for i in range(4) if strobe >> i & 1) for strobe in range(16))
"""Bit mask of the bytes that a write strobe enables."""


class Register(Protocol):
    """One word on the register bus."""

    def read(self) -> int:
        """Take a read."""

    def write(self, value: int, strobe: int) -> Response:
        """Take a write. Only bytes with their strobe bit set count."""


class Value:
    """A word that software writes and reads back.

    ``mask`` are the bits that exist; writes are ignored while ``frozen()`` and answered SLVERR while ``rejected()``;
    ``adjust`` clamps what is stored; ``shown`` turns the stored word into what is read.
    """

    def __init__(
        self,
        *,
        reset: int = 0,
        mask: int = FULL,
        frozen: Callable[[], bool] | None = None,
        rejected: Callable[[], bool] | None = None,
        adjust: Callable[[int], int] | None = None,
        changed: Callable[[], None] | None = None,
        shown: Callable[[int], int] | None = None,
    ) -> None:
        self.value = reset
        self._mask, self._frozen, self._rejected = mask, frozen, rejected
        self._adjust, self._changed, self._shown = adjust, changed, shown

    @property
    def plain(self) -> bool:
        """Whether nothing happens but that the word is kept."""
        return not (self._frozen or self._rejected or self._adjust or self._changed)

    def keep(self, value: int) -> None:
        """Store a whole word, if the register is :attr:`plain`."""
        self.value = value & self._mask

    def read(self) -> int:
        """The stored word, as software sees it."""
        return self._shown(self.value) if self._shown else self.value

    def write(self, value: int, strobe: int) -> Response:
        """Store the strobed bytes."""
        if self._rejected and self._rejected():
            return Response.SLVERR
        if not (self._frozen and self._frozen()):
            bits = _BYTES[strobe] & self._mask
            stored = self.value & ~bits | value & bits
            self.value = self._adjust(stored) if self._adjust else stored
            if self._changed:
                self._changed()
        return Response.OKAY


class View:
    """A word that hardware drives; writes are ignored. ``get`` may have a side effect of the read."""

    def __init__(self, get: Callable[[], int]) -> None:
        self._get = get

    def read(self) -> int:
        """What hardware drives."""
        return self._get() & FULL

    def write(self, value: int, strobe: int) -> Response:
        """Change nothing."""
        return Response.OKAY


class Trigger:
    """A word whose write does something, if every byte of ``mask`` is strobed; it reads as ``get()``."""

    def __init__(
        self,
        action: Callable[[int], None],
        *,
        mask: int = FULL,
        rejected: Callable[[], bool] | None = None,
        get: Callable[[], int] = lambda: 0,
    ) -> None:
        self._action, self._mask, self._rejected, self._get = action, mask, rejected, get

    def read(self) -> int:
        """The readable side."""
        return self._get() & FULL

    def write(self, value: int, strobe: int) -> Response:
        """Act, unless rejected or only partly strobed."""
        if self._rejected and self._rejected():
            return Response.SLVERR
        if not self._mask & ~_BYTES[strobe]:
            self._action(value & self._mask)
        return Response.OKAY


class Interrupts:
    """An IRQ_STATUS / IRQ_ENABLE pair of ``width`` bits that drives one line while ``shown()``."""

    def __init__(self, line: Line, *, width: int, shown: Callable[[], bool] = lambda: True) -> None:
        self._line, self._shown = line, shown
        self._mask = (1 << width) - 1
        self._status = 0
        self.enable = Value(mask=self._mask, changed=self.drive)
        self.status = _Clear(self)

    def drive(self) -> None:
        """Put the line where status, enable and ``shown`` want it."""
        self._line.drive(bool(self._status & self.enable.value) and self._shown())

    @property
    def value(self) -> int:
        """Bits that are set."""
        return self._status

    def post(self, bit: int) -> None:
        """Set status bit number ``bit``."""
        self._status |= 1 << bit
        self.drive()

    def clear(self, bits: int) -> None:
        """Clear the status bits that are ones in ``bits``."""
        self._status &= ~bits
        self.drive()


class _Clear:
    """IRQ_STATUS: write 1 to clear."""

    def __init__(self, interrupts: Interrupts) -> None:
        self._interrupts = interrupts

    def read(self) -> int:
        """Bits that are set."""
        return self._interrupts.value

    def write(self, value: int, strobe: int) -> Response:
        """Clear the ones of the strobed bytes."""
        self._interrupts.clear(value & _BYTES[strobe])
        return Response.OKAY


class Frame:
    """4 KiB of registers, by offset.

    Parameters
    ----------
    registers
        Registers by byte offset in the frame.
    lenient
        Offsets without a register read as zero and ignore writes with OKAY, instead of answering SLVERR.
    always
        Offsets that are there even when the frame is not live.

    ``live`` is its owner's to set: while false, the frame reads as zero and ignores writes.
    """

    def __init__(
        self,
        registers: dict[int, Register],
        *,
        lenient: bool = False,
        always: frozenset[int] = frozenset(),
    ) -> None:
        self._registers, self._lenient, self._always = registers, lenient, always
        self.live = True

    def register(self, offset: int) -> Register | None:
        """The register at ``offset``, if there is one."""
        return self._registers.get(offset)

    def _missing(self) -> Response:
        return Response.OKAY if self._lenient else Response.SLVERR

    def read(self, offset: int) -> tuple[Response, int]:
        """Answer a read of the word at ``offset``."""
        register = self._registers.get(offset)
        if register is None:
            return self._missing(), 0
        return Response.OKAY, register.read() if self.live or offset in self._always else 0

    def write(self, offset: int, value: int, strobe: int) -> Response:
        """Answer a write of the word at ``offset``."""
        register = self._registers.get(offset)
        if register is None:
            return self._missing()
        return register.write(value, strobe) if self.live or offset in self._always else Response.OKAY

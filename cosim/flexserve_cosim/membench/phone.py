"""What the bench's scenarios are made of: a booted filter, commands of both worlds, traffic."""

from __future__ import annotations

import random
from collections.abc import Sequence

from flexserve_hw.params import DRAM_BASE, FlexMemParams
from flexserve_hw.tzasc.line import memory_pages
from flexserve_sw.regs import (
    FLEX_NORMAL,
    FLEX_SECURE,
    TZC,
    FlexmemNormal,
    FlexmemSecure,
    RecallCommand,
    RecallCommandPort,
    RecallResult,
    RecallState,
)

from .driver import Burst, Driver, Outcome, Snapshot, Step

__all__ = ["BASE_PFN", "PAGE", "Phone", "mixed", "page_address", "table_base", "write"]

PAGE = 4096
BASE_PFN = DRAM_BASE // PAGE
"""First page of the window, which is all of the table; memory outside of it begins where it ends."""

_POP_EVERY = 64
_LIMIT, _PER_PAGE = 2_000_000, 2_000
_NORMAL, _SECURE = 1, 0
_SECURE_COMMANDS = (RecallCommand.ACCEPT, RecallCommand.RELEASE, RecallCommand.SEAL)


def table_base(flex: FlexMemParams) -> int:
    """First page of a page-state table in memory: behind the largest window and a page, at a multiple of its size."""
    size = memory_pages(flex)
    return -(-(BASE_PFN + flex.pages + 1) // size) * size


def page_address(page: int) -> int:
    """Byte address of a page of the window, by its index."""
    return (BASE_PFN + page) * PAGE


def mixed(
    rng: random.Random,
    count: int,
    *,
    pages: Sequence[int],
    beats: Sequence[int] = (1, 2, 4, 8, 16),
    ids: int = 64,
    every: int = 0,
    nonsecure: int = 1,
) -> list[Burst]:
    """Bursts of mixed lengths and IDs within ``pages``, one every ``every`` cycles (0: as fast as they are taken)."""
    found = []
    for n in range(count):
        length = rng.choice(beats)
        offset = 16 * rng.randrange(PAGE // 16 - length + 1)
        address = page_address(rng.choice(pages)) + offset
        found.append(Burst(start=n * every, address=address, beats=length, id=rng.randrange(ids), nonsecure=nonsecure))
    return found


class Phone:
    """A driver whose filter is booted: everything allowed outside the window, all pages NORMAL, the gate open.

    The window has ``pages`` pages from ``base`` on, all of the table without.

    Scripts are built from the steps that the methods return; both worlds' management needs no time of its own here, so
    what is measured is the hardware's.
    """

    def __init__(
        self,
        driver: Driver,
        *,
        base: int = BASE_PFN,
        pages: int | None = None,
        grace: int = 1_000,
        decerr: bool = True,
    ) -> None:
        self.driver = driver
        self.base, self.pages = base, driver.flex.pages if pages is None else pages
        self.grace = max(grace, driver.flex.grace_min)
        enable, ready = FlexmemSecure.CONTROL__ENABLE.put(1), FlexmemSecure.CONTROL__READY.put(1)
        both = FlexmemSecure.IRQ_ENABLE__COMMAND.put(1)
        self.play(
            write(TZC.ACTION, 1 if decerr else 0),
            write(TZC.REGION[0].ATTRIBUTES, 0xC000000F),
            write(TZC.REGION[0].ID_ACCESS, 0xFFFFFFFF),
            write(FLEX_SECURE.WINDOW_BASE, base),
            write(FLEX_SECURE.WINDOW_PAGES, self.pages),
            write(FLEX_SECURE.TABLE_BASE, table_base(driver.flex)),
            write(FLEX_SECURE.GRACE, self.grace),
            write(FLEX_SECURE.IRQ_ENABLE, both),
            write(FLEX_NORMAL.IRQ_ENABLE, FlexmemNormal.IRQ_ENABLE__COMMAND.put(1), nonsecure=_NORMAL),
            write(FLEX_SECURE.CONTROL, enable),
            Step("E", RecallState.NORMAL, self.pages),
            Step("P", FLEX_SECURE.CONTROL, ready, ready),
            write(TZC.GATE_KEEPER, 1),
            Step("A", FLEX_NORMAL.FREED_POP, _POP_EVERY),
        )

    def play(self, *steps: Step) -> tuple[list[Outcome], list[Snapshot]]:
        """As :meth:`.driver.Driver.play`; no access may be refused."""
        outcomes, snapshots = self.driver.play(*steps, limit=_LIMIT + _PER_PAGE * self.pages)
        for step, outcome in zip(steps, outcomes, strict=True):
            if step.kind in "WRP" and outcome.response:
                raise RuntimeError(f"Access to register {step.a:#x} was refused")
        return outcomes, snapshots

    def prepare(self, code: RecallCommand, first: int, count: int) -> list[Step]:
        """Set a command up, all but its doorbell; forget the interrupt of the last one."""
        frame, world = _frame(code)
        return [
            write(frame.CMD.FIRST, self.base + first, nonsecure=world),
            write(frame.CMD.COUNT, count, nonsecure=world),
            write(frame.IRQ_STATUS, FlexmemNormal.IRQ_STATUS__COMMAND.put(1), nonsecure=world),
        ]

    def ring(self, code: RecallCommand) -> list[Step]:
        """The doorbell, and the wait for the interrupt that reports the command."""
        frame, world = _frame(code)
        return [write(frame.CMD.COMMAND, code, nonsecure=world), Step("I", int(world == _SECURE))]

    def check(self, code: RecallCommand) -> list[Step]:
        """Poll the command's status until it says OK and not busy."""
        frame, world = _frame(code)
        mask = RecallCommandPort.STATUS__BUSY.put(1) | RecallCommandPort.STATUS__RESULT.put(0xF)
        return [Step("P", frame.CMD.STATUS, mask, RecallCommandPort.STATUS__RESULT.put(RecallResult.OK), world)]

    def command(self, code: RecallCommand, first: int, count: int) -> list[Step]:
        """A whole command."""
        return [*self.prepare(code, first, count), *self.ring(code), *self.check(code)]

    def lend(self, first: int, count: int) -> list[Step]:
        """DELEGATE and ACCEPT."""
        return [
            *self.command(RecallCommand.DELEGATE, first, count),
            *self.command(RecallCommand.ACCEPT, first, count),
        ]


def write(address: int, value: int, *, nonsecure: int = _SECURE) -> Step:
    """A register write."""
    return Step("W", address, value, 0, nonsecure)


def _frame(code: RecallCommand) -> tuple[FlexmemNormal | FlexmemSecure, int]:
    """The frame of a command, and the world that uses it."""
    return (FLEX_SECURE, _SECURE) if code in _SECURE_COMMANDS else (FLEX_NORMAL, _NORMAL)

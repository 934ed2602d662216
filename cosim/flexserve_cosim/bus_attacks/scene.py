"""The scene of an attack on the bus: a filter that was booted, a service with a secret behind it, and an attacker."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from flexserve_sw.machine import PAGE_BYTES, World
from flexserve_sw.regs import (
    FLEX_NORMAL,
    FLEX_SECURE,
    TZC,
    FlexmemNormal,
    FlexmemSecure,
    RecallCommand,
    RecallResult,
    RecallState,
)

from .bus import DRAM_BASE, FilterBus
from .memory import Access
from .traffic import ALL, BUS, Burst

__all__ = ["FIRST", "OUTSIDE", "PAGES", "BusScene", "Trials"]

DRAM_PFN = DRAM_BASE // PAGE_BYTES
FIRST = DRAM_PFN + 8
"""First page of the flexible window."""
PAGES = 4
"""Pages of it."""
OUTSIDE = DRAM_PFN + 20
"""First page of ordinary memory that is like the window's pages, for a service that does not use the protection."""
GRACE = 60
OKAY, DECERR = 0, 3
NORMAL, SECURE = World.NORMAL, World.SECURE
S, C, R = RecallState, RecallCommand, RecallResult
_BY_SECURE = (C.ACCEPT, C.RELEASE, C.SEAL)
PATIENCE = 160
"""Cycles that a script waits for what may never come: far more than a command and its drain take without traffic."""


@dataclass
class Trials:
    """What a sweep of single attempts came to; those that got through are named, the first few of them."""

    trials: int = 0
    leaked_beats: int = 0
    changed_beats: int = 0
    breaches: int = 0
    named: list[str] = field(default_factory=list)
    results: Counter[str] = field(default_factory=Counter)

    def breach(self, condition: bool, what: str) -> None:
        """Note an attempt that got through if ``condition`` holds."""
        if condition:
            self.breaches += 1
            if len(self.named) < 6:
                self.named.append(what)

    def seen(self, **more: object) -> dict[str, object]:
        """As evidence."""
        return {
            "trials": self.trials,
            "breaches": self.breaches,
            "leaked_beats": self.leaked_beats,
            "changed_beats": self.changed_beats,
            "results": dict(self.results),
            **({"first_breaches": self.named} if self.named else {}),
            **more,
        }


class BusScene:
    """A filter with a service behind it.

    Members
    -------
    protected
        Whether the service keeps its secret in lent pages; if not, in ordinary memory outside the window, with the very
        same accesses in the normal world's name.
    control
        Whether this is the scene of a control; if it is protected all the same, the attack itself makes it unsafe.
    steady
        Set before the boot: no entry of a table's cache is given up by chance, because times are compared.
    service
        World of the service.
    first
        First of the pages that the attack is about: of the window, or outside of it without protection.
    """

    def __init__(self, bus: FilterBus, *, protected: bool, control: bool, seed: int) -> None:
        self.bus, self.protected, self.control = bus, protected, control
        self.random = np.random.default_rng([seed, int.from_bytes(b"bus", "big")])
        self.steady = False
        self.service = SECURE if protected else NORMAL
        self.first = FIRST if protected else OUTSIDE
        self.secrets: set[int] = set()

    # Boot ------------------------------------------------------------------------------------------------------

    async def boot(
        self,
        *,
        base: int = FIRST,
        pages: int = PAGES,
        grace: int = GRACE,
        managers: int = 1,
        lock: bool = True,
        gate: bool = True,
    ) -> None:
        """Reset, then what the monitor does at boot: regions wide open, the window, the lock, the gate."""
        await self.bus.reset()
        await self.configure(base=base, pages=pages, grace=grace, managers=managers)
        await self.ready()
        if lock:
            await self.secure(FLEX_SECURE.CONTROL, FlexmemSecure.CONTROL__LOCK.put(1))
        if gate:
            await self.secure(TZC.GATE_KEEPER, 1)

    async def configure(self, *, base: int = FIRST, pages: int = PAGES, grace: int = GRACE, managers: int = 1) -> None:
        """Program regions and window, and start the table's initialisation."""
        await self.secure(TZC.ACTION, 3)
        await self.secure(TZC.REGION[0].ATTRIBUTES, 3 << 30)
        await self.secure(TZC.REGION[0].ID_ACCESS, 0xFFFF_FFFF)
        await self.secure(FLEX_SECURE.WINDOW_BASE, base)
        await self.secure(FLEX_SECURE.WINDOW_PAGES, pages)
        if self.bus.lines is not None:
            self.bus.lines.forgets = not self.steady
            await self.secure(FLEX_SECURE.TABLE_BASE, self.bus.lines.base)
        await self.secure(FLEX_SECURE.GRACE, grace)
        await self.secure(FLEX_SECURE.MANAGERS, managers)
        await self.secure(FLEX_SECURE.CONTROL, FlexmemSecure.CONTROL__ENABLE.put(1))

    async def ready(self, cycles: int = 40_000) -> None:
        """Wait until the window is zeroed."""
        end = self.bus.now + cycles
        while not FlexmemSecure.CONTROL__READY.get(await self.word(FLEX_SECURE.CONTROL)):
            if self.bus.now > end:
                raise RuntimeError("The window did not become ready")
            await self.bus.tick(30)

    # Registers -------------------------------------------------------------------------------------------------

    async def secure(self, address: int, value: int) -> int:
        """The monitor writes a register; the response."""
        return (await self.bus.register(address, value, prot=0)).response

    async def word(self, address: int) -> int:
        """The monitor reads a register."""
        return (await self.bus.register(address, None, prot=0)).value

    async def os_word(self, address: int) -> int:
        """The OS reads a register."""
        return (await self.bus.register(address, None, prot=2)).value

    async def start(self, code: RecallCommand, first: int, count: int = 1) -> None:
        """Give a command and return at once."""
        frame, prot = (FLEX_SECURE, 0) if code in _BY_SECURE else (FLEX_NORMAL, 2)
        for register, value in ((frame.CMD.FIRST, first), (frame.CMD.COUNT, count), (frame.CMD.COMMAND, code)):
            if (await self.bus.register(register, value, prot=prot)).response:
                raise RuntimeError(f"{code.name} was given while the frame was busy")

    async def report(self, code: RecallCommand, cycles: int = 6_000) -> RecallResult | None:
        """Wait until the command of that world is reported; None if it is not in time."""
        frame, prot = (FLEX_SECURE, 0) if code in _BY_SECURE else (FLEX_NORMAL, 2)
        end = self.bus.now + cycles
        while (status := (await self.bus.register(frame.CMD.STATUS, None, prot=prot)).value) & 1:
            if self.bus.now >= end:
                return None
        return R(frame.CMD.STATUS__RESULT.get(status))

    async def command(self, code: RecallCommand, first: int, count: int = 1) -> RecallResult:
        """Give a command and wait for its report."""
        await self.start(code, first, count)
        result = await self.report(code)
        if result is None:
            raise RuntimeError(f"{code.name} was not reported")
        return result

    async def state(self, page: int) -> RecallState | None:
        """State of a page as the monitor can query it; None outside the window."""
        await self.secure(FLEX_SECURE.QUERY_PAGE, page)
        # A table in memory may need some time, and answers as soon as it can.
        for _ in range(1 if self.bus.lines is None else 20):
            await self.bus.tick(6)
            word = await self.word(FLEX_SECURE.QUERY_STATE)
            if FlexmemSecure.QUERY_STATE__VALID.get(word):
                return S(FlexmemSecure.QUERY_STATE__STATE.get(word))
        return None

    async def reaches(self, page: int, state: RecallState, cycles: int = 6_000) -> bool:
        """Wait for a page to reach a state; whether it did."""
        end = self.bus.now + cycles
        while await self.state(page) is not state:
            if self.bus.now >= end:
                return False
        return True

    # Lending ---------------------------------------------------------------------------------------------------

    async def lend(self, page: int, count: int = 1) -> None:
        """The OS lends pages in good faith and the service accepts; nothing is to be done without protection."""
        if self.protected:
            for code in (C.DELEGATE, C.ACCEPT):
                if (result := await self.command(code, page, count)) is not R.OK:
                    raise RuntimeError(f"{code.name} of {page:#x} must succeed, not end with {result.name}")

    async def take_back(self, page: int, count: int = 1) -> None:
        """Make pages NORMAL again, whichever lent state they are in, with the memory behaving."""
        for number in range(page, page + count):
            while (state := await self.state(number)) not in (S.NORMAL, None):
                if state is S.DELEGATED:
                    await self.command(C.CANCEL, number)
                elif state in (S.FLEX, S.RECALLING):
                    await self.command(C.RELEASE, number)
                elif state is not S.SCRUBBING:
                    raise RuntimeError(f"A page in {state.name} does not come back" if state else "No such page")
        await self.collect()

    async def collect(self) -> list[int]:
        """The OS takes note of the pages that came back."""
        freed = []
        while FlexmemNormal.FREED_POP__VALID.get(word := await self.os_word(FLEX_NORMAL.FREED_POP)):
            freed.append(FlexmemNormal.FREED_POP__PFN.get(word))
        return freed

    # Data ------------------------------------------------------------------------------------------------------

    def fresh(self, beats: int) -> list[int]:
        """Beats that have never been used before, none of them zero."""
        blob = self.random.bytes(beats * BUS)
        return [int.from_bytes(blob[at : at + BUS], "little") | 1 for at in range(0, len(blob), BUS)]

    def secret(self, beats: int) -> list[int]:
        """Fresh beats that count as a leak wherever the attacker sees them."""
        beats_ = self.fresh(beats)
        self.secrets.update(beats_)
        return beats_

    def leaked(self, data: list[int]) -> int:
        """How many beats of ``data`` are secret."""
        return sum(beat in self.secrets for beat in data)

    def contents(self, address: int, beats: int) -> list[int]:
        """What is in memory, looked up behind the filter to judge by."""
        start = address - DRAM_BASE
        blob = self.bus.memory.bytes[start : start + beats * BUS]
        return [int.from_bytes(blob[at : at + BUS], "little") for at in range(0, len(blob), BUS)]

    async def store(self, address: int, data: list[int], world: World, **options: int) -> Burst:
        """Write and wait for the answer."""
        burst = self.bus.write(address, data, world, **options)
        await self.bus.done(burst)
        return burst

    async def fetch(self, address: int, beats: int, world: World, **options: int) -> Burst:
        """Read and wait for the end."""
        burst = self.bus.read(address, beats, world, **options)
        await self.bus.done(burst)
        return burst

    def hold_reads(self, beats: int, *, identity: int) -> None:
        """Let memory give at most ``beats`` of each read of one ID from now on."""
        self.bus.memory.read_allowance = lambda access: beats if access.id == identity else ALL

    def hold_answers(self, identity: int) -> None:
        """Let memory neither do nor answer writes of one ID from now on."""
        self.bus.memory.answers = lambda access: access.scrub or access.id != identity

    def release_memory(self) -> None:
        """Let memory go on with everything."""
        self.bus.memory.read_allowance = lambda access: ALL
        self.bus.memory.answers = lambda access: True


def in_page(access: Access, page: int) -> bool:
    """Whether any beat of an access lies in a page."""
    return any(address // PAGE_BYTES == page for address in access.addresses)

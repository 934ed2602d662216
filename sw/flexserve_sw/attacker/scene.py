"""The scene of an attack: a booted phone, a secure service that holds a secret, and an OS that has turned against it.

With ``protected`` off the very same service runs on the very same hardware the way it does on a phone without
FlexServe: in the normal world, its data in ordinary memory, the NPU never leaving the OS's hands.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from ..drivers.command import CommandPort
from ..machine import BEAT_BYTES, PAGE_BYTES, BusFault, Initiator, Machine
from ..monitor.boot import CPU_ONLY, boot
from ..monitor.layout import Extent, Layout, extents_of
from ..monitor.regions import Regions
from ..recall import Outcome
from ..regs import (
    FLEX_NORMAL,
    FLEX_SECURE,
    GATE_NORMAL,
    GATE_SECURE,
    FlexmemNormal,
    FlexmemSecure,
    GateSecure,
    RecallCommand,
    RecallResult,
)
from ..regs import RecallState as State

__all__ = ["GRACE", "SECRET_PAGES", "Scene", "Sweep"]

GRACE = 2_000
"""Grace period of the scenes, in cycles."""
WINDOW_PAGES = 64
CMA_PAGES = 16
SECRET_PAGES = 4
"""Pages that the service's secret fills."""

OS = Initiator.NORMAL_CPU
SECURE = Initiator.SECURE_CPU


@dataclass
class Sweep:
    """What a sequence of attempted accesses came to. ``stray_bytes`` came with a denial and were not zero."""

    attempts: int = 0
    leaked_bytes: int = 0
    changed_bytes: int = 0
    stray_bytes: int = 0
    responses: Counter[str] = field(default_factory=Counter)

    @property
    def learnt(self) -> bool:
        """Whether a read brought anything of the secret, or a denial anything but zeros."""
        return self.leaked_bytes > 0 or self.stray_bytes > 0

    def seen(self) -> dict[str, object]:
        """As evidence."""
        return {
            "attempts": self.attempts,
            "leaked_bytes": self.leaked_bytes,
            "changed_bytes": self.changed_bytes,
            "stray_bytes": self.stray_bytes,
            "responses": dict(self.responses),
        }


class Scene:
    """A phone with a victim on it. Make it with :meth:`open`.

    Members
    -------
    protected
        Whether the service is in the secure world.
    control
        Whether this is the scene of a control; if it is protected all the same, the attack itself makes it unsafe.
    service
        Port from which the service works: the secure CPU, or without protection the normal one.
    pages
        Page frame numbers that hold ``secret``.
    """

    def __init__(self, machine: Machine, *, protected: bool, control: bool, seed: int) -> None:
        self.machine, self.protected, self.control = machine, protected, control
        # A stream of its own: what memory powers up with may come from the same seed.
        self.random = np.random.default_rng([seed, int.from_bytes(b"secret", "big")])
        self.layout = Layout(
            dram_base=machine.dram.base,
            dram_bytes=machine.dram.size,
            window_pages=WINDOW_PAGES,
            cma_pages=CMA_PAGES,
        )
        self.service = SECURE if protected else OS
        self.os_port = CommandPort(machine, FLEX_NORMAL.CMD, by=OS)
        self.secure_port = CommandPort(machine, FLEX_SECURE.CMD, by=SECURE)
        self.os_gate = CommandPort(machine, GATE_NORMAL.CMD, by=OS)
        self.secure_gate = CommandPort(machine, GATE_SECURE.CMD, by=SECURE)
        self.regions = Regions(machine)
        place = self.layout.lendable if protected else self.layout.free
        self.pages = list(Extent(place.first, SECRET_PAGES).pages())
        self.secret = self.random.bytes(SECRET_PAGES * PAGE_BYTES)
        self._beats = {self.secret[at : at + BEAT_BYTES] for at in range(0, len(self.secret), BEAT_BYTES)}

    @classmethod
    async def open(cls, machine: Machine, *, protected: bool, control: bool, seed: int) -> Scene:
        """Reset, boot, and let the service store its secret."""
        scene = cls(machine, protected=protected, control=control, seed=seed)
        await machine.reset()
        await scene.boot()
        if protected:
            await scene.lend(scene.pages)
        await machine.store(scene.address, scene.secret, by=scene.service)
        return scene

    async def boot(self, *, grace: int = GRACE) -> None:
        """Let the monitor configure the hardware, as on every power-on."""
        await boot(self.machine, self.layout, self.regions, self.secure_port, grace=grace, npu_grace=GRACE)

    async def boot_careless(self, *, managers: int = CPU_ONLY, window: Extent | None = None) -> None:
        """Reset and boot with a monitor that neither seals its pages nor locks the configuration.

        It lets ``managers`` manage, and makes ``window`` flexible, by default what the layout says.
        """
        machine, window = self.machine, window or self.layout.window
        await machine.reset()
        await self.regions.boot(self.layout)
        await machine.write_register(FLEX_SECURE.WINDOW_BASE, window.first, by=SECURE)
        await machine.write_register(FLEX_SECURE.WINDOW_PAGES, window.count, by=SECURE)
        await machine.write_register(FLEX_SECURE.GRACE, GRACE, by=SECURE)
        await machine.write_register(FLEX_SECURE.MANAGERS, FlexmemSecure.MANAGERS__NSAIDS.put(managers), by=SECURE)
        await machine.write_register(GATE_SECURE.MANAGERS, GateSecure.MANAGERS__NSAIDS.put(managers), by=SECURE)
        await machine.write_register(FLEX_SECURE.CONTROL, FlexmemSecure.CONTROL__ENABLE.put(1), by=SECURE)
        while not FlexmemSecure.CONTROL__READY.get(await machine.read_register(FLEX_SECURE.CONTROL, by=SECURE)):
            await machine.delay(256)
        await self.regions.open_gate()

    @property
    def address(self) -> int:
        """First byte of the secret."""
        return self.pages[0] * PAGE_BYTES

    def os_pages(self, count: int, *, at: int = 0) -> Extent:
        """Pages of the OS's own, ``at`` pages past the ones it keeps for a service in the normal world."""
        return Extent(self.layout.free.first + SECRET_PAGES + at, count)

    async def lend(self, pages: list[int]) -> None:
        """The OS lends pages in good faith and the service accepts them."""
        for extent in extents_of(pages):
            await self.os_port.command(RecallCommand.DELEGATE, extent.first, extent.count)
            await self.secure_port.command(RecallCommand.ACCEPT, extent.first, extent.count)

    async def delegate(self, first: int, count: int = 1) -> Outcome:
        """The OS lends pages, whatever they are."""
        return await self.os_port.try_command(RecallCommand.DELEGATE, first, count)

    async def accept(self, first: int, count: int = 1) -> bool:
        """Whether the hardware lets the service have pages that the OS says are lent."""
        outcome = await self.secure_port.try_command(RecallCommand.ACCEPT, first, count)
        return outcome.result is RecallResult.OK

    def lies_at(self, address: int, length: int) -> bytes:
        """What is in memory, looked up behind the filter to judge by."""
        start = address - self.machine.dram.base
        return self.machine.dram.bytes[start : start + length].tobytes()

    async def state(self, page: int) -> State | None:
        """State of a page as the OS can query it; None outside the window."""
        await self.machine.write_register(FLEX_NORMAL.QUERY_PAGE, page, by=OS)
        word = await self.machine.read_register(FLEX_NORMAL.QUERY_STATE, by=OS)
        return State(FlexmemNormal.QUERY_STATE__STATE.get(word)) if FlexmemNormal.QUERY_STATE__VALID.get(word) else None

    async def until(self, page: int, state: State, *, cycles: int) -> bool:
        """Wait for a page to reach a state, ``cycles`` at most; whether it did."""
        end = self.machine.now + cycles
        while await self.state(page) is not state:
            if self.machine.now >= end:
                return False
            await self.machine.delay(32)
        return True

    def leak(self, data: bytes) -> int:
        """Bytes of the secret in ``data``, found by whole beats."""
        beats = (data[at : at + BEAT_BYTES] for at in range(0, len(data), BEAT_BYTES))
        return BEAT_BYTES * sum(beat in self._beats for beat in beats)

    async def read(self, sweep: Sweep, address: int, length: int, *, by: Initiator) -> bytes:
        """The attacker reads; faults bring data too."""
        sweep.attempts += 1
        try:
            data = await self.machine.load(address, length, by=by)
            sweep.responses["OKAY"] += 1
        except BusFault as fault:
            data = fault.data
            sweep.stray_bytes += len(data) - data.count(0)
            sweep.responses[fault.response.name] += 1
        sweep.leaked_bytes += self.leak(data)
        return data

    async def write(self, sweep: Sweep, address: int, payload: bytes, *, by: Initiator) -> None:
        """The attacker writes."""
        sweep.attempts += 1
        try:
            await self.machine.store(address, payload, by=by)
            sweep.responses["OKAY"] += 1
        except BusFault as fault:
            sweep.responses[fault.response.name] += 1

    async def fetch(self, address: int, length: int) -> bytes | None:
        """The service reads its own memory; None if hardware tells it that the memory is not its own any more."""
        try:
            return await self.machine.load(address, length, by=self.service)
        except BusFault:
            return None

    async def damage(self) -> int:
        """Bytes of the service's secret that are not what it stored."""
        found = await self.fetch(self.address, len(self.secret))
        if found is None:
            return len(self.secret)
        return int(np.count_nonzero(np.frombuffer(found, np.uint8) != np.frombuffer(self.secret, np.uint8)))

    def forged(self, length: int) -> bytes:
        """Data of the attacker's making, never equal to the secret's."""
        return bytes(byte ^ 0xFF for byte in (self.secret * (1 + length // len(self.secret)))[:length])

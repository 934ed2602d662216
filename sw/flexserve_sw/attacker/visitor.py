"""The attacker of a running model: called in between its tokens, and at work beside them while memory is taken back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np

from ..designs.phone import Phone
from ..drivers.npu import NpuJobFailed
from ..machine import BEAT_BYTES, PAGE_BYTES, BusFault, Initiator, Machine, Task
from ..normal.storage import StorageError
from ..regs import RecallState as State
from .accelerator import SIDE, Workbench, identity
from .scene import Sweep

__all__ = ["ON_THEIR_WAY", "PRESSURE", "Visitor"]

OS, DEVICE = Initiator.NORMAL_CPU, Initiator.HOSTILE_DEVICE
PRESSURE = 8
"""Pages that the OS takes back while the device snoops."""
SAMPLE = 4
"""Pages of the model that storage device and NPU go for: they take thousands of cycles for each."""
PAGE_ROWS = PAGE_BYTES // SIDE
ON_THEIR_WAY = (State.RECALLING, State.SCRUBBING)
"""States between a recall and the page's return."""


class Visitor:
    """Attacks at the points at which the job calls :meth:`visit`.

    Members
    -------
    sweeps
        What each attack came to.
    pages
        Pages of the model in memory at the first token.
    taken
        Pages that the OS had taken back when the snoop ended.
    states
        States on the way back in which a page was read, both before and after the read.
    """

    def __init__(self, machine: Machine, *, protected: bool) -> None:
        self.machine, self.protected = machine, protected
        self.sweeps: dict[str, Sweep] = {}
        self.pages = self.taken = 0
        self.states: Counter[str] = Counter()
        self._truth: set[bytes] = set()
        self._snooping = False
        self._tasks: list[Task[Any]] = []

    async def visit(self, point: str, phone: Phone) -> None:
        """Hook of the job. Memory is taken back from after token 1 until token 3 at the latest."""
        if point == "token:1":
            frames = self._frames(phone)
            self.pages = len(frames)
            self._truth = self._beats(frames)
            for name, by in (("model-cpu-read", OS), ("model-device-read", DEVICE)):
                self.sweeps[name] = await self._read(frames, by)
            self.sweeps["model-storage-read"] = await self._loot(phone, self._some(frames))
            self.sweeps["model-npu-read"] = await self._compute(phone, self._some(frames), over=False)
            self._begin_snoop(phone, frames)
        if point == "token:3":
            await self._end_snoop(phone)
            frames = self._frames(phone)
            some = self._some(frames)
            for name, by, filler in (("model-cpu-write", OS, 0x5A), ("model-device-write", DEVICE, 0xA5)):
                self.sweeps[name] = await self._write(frames, by, bytes([filler]) * PAGE_BYTES)
            self.sweeps["model-storage-write"] = await self._plant(phone, some)
            self.sweeps["model-npu-write"] = await self._compute(phone, some, over=True)

    @staticmethod
    def _frames(phone: Phone) -> list[int]:
        """Every page frame of the model that is in memory now."""
        resident = phone.serving.pager.resident()
        frames = (phone.serving.pager.space.frame(segment.first + page) for segment, page in resident)
        return [frame for frame in frames if frame is not None]

    def _some(self, frames: list[int]) -> list[int]:
        """Some of the frames that tell something, from all over the model."""
        telling = [frame for frame in frames if self._beats([frame])]
        return telling[:: -(-len(telling) // SAMPLE)]

    def _contents(self, frames: list[int]) -> bytes:
        """What is in them, looked up behind the filter to judge by."""
        dram = self.machine.dram
        starts = [frame * PAGE_BYTES - dram.base for frame in frames]
        return b"".join(dram.bytes[start : start + PAGE_BYTES].tobytes() for start in starts)

    def _beats(self, frames: list[int]) -> set[bytes]:
        """Beats that tell something: those with many different bytes in them."""
        contents = self._contents(frames)
        beats = {contents[at : at + BEAT_BYTES] for at in range(0, len(contents), BEAT_BYTES)}
        return {beat for beat in beats if len(set(beat)) > BEAT_BYTES // 2}

    def _leak(self, data: bytes) -> int:
        """Bytes of the model in ``data``."""
        return BEAT_BYTES * sum(data[at : at + BEAT_BYTES] in self._truth for at in range(0, len(data), BEAT_BYTES))

    def _changed(self, frames: list[int], before: bytes) -> int:
        """Bytes that are not what they were."""
        after = np.frombuffer(self._contents(frames), np.uint8)
        return int(np.count_nonzero(np.frombuffer(before, np.uint8) != after))

    async def _one(self, sweep: Sweep, frame: int, by: Initiator, length: int = PAGE_BYTES) -> None:
        sweep.attempts += 1
        try:
            data = await self.machine.load(frame * PAGE_BYTES, length, by=by)
            sweep.responses["OKAY"] += 1
        except BusFault as fault:
            data = fault.data
            sweep.responses[fault.response.name] += 1
            sweep.stray_bytes += len(data) - data.count(0)
        sweep.leaked_bytes += self._leak(data)

    async def _read(self, frames: list[int], by: Initiator) -> Sweep:
        sweep = Sweep()
        for frame in frames:
            await self._one(sweep, frame, by)
        return sweep

    async def _write(self, frames: list[int], by: Initiator, forgery: bytes) -> Sweep:
        sweep, before = Sweep(), self._contents(frames)
        for frame in frames:
            sweep.attempts += 1
            try:
                await self.machine.store(frame * PAGE_BYTES, forgery, by=by)
                sweep.responses["OKAY"] += 1
            except BusFault as fault:
                sweep.responses[fault.response.name] += 1
        sweep.changed_bytes = self._changed(frames, before)
        return sweep

    def _begin_snoop(self, phone: Phone, frames: list[int]) -> None:
        """Start to read every page over and over. Without protection the OS reclaims memory itself meanwhile."""
        sweep = self.sweeps["model-recall-snoop"] = Sweep()
        self._snooping = True
        work: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {"snoop": lambda: self._watch(sweep, frames)}
        if self.protected:
            work["chase"] = lambda: self._chase(sweep, phone, frames)
        else:
            work["reclaim"] = lambda: self._reclaim(phone, frames[:PRESSURE])
        self._tasks = [self.machine.spawn(begin(), name=name) for name, begin in work.items()]

    async def _end_snoop(self, phone: Phone) -> None:
        if self.protected:
            self.taken = sum(recall["pages"] for recall in phone.pressure.as_json())
        else:
            await self._tasks[-1].join()
        self._snooping = False
        for task in self._tasks:
            await task.join()

    async def _watch(self, sweep: Sweep, frames: list[int]) -> None:
        """Read every page over and over while the OS takes some of them back."""
        while self._snooping:
            for frame in frames:
                if self._snooping:
                    await self._one(sweep, frame, DEVICE)

    async def _chase(self, sweep: Sweep, phone: Phone, frames: list[int]) -> None:
        """Read a page that is found on its way back with the CPU, which is not busy, until it has arrived and then."""
        while self._snooping:
            for frame in frames:
                before = await phone.os.flexmem.state(frame)
                if not self._snooping or before not in ON_THEIR_WAY:
                    continue
                while before in ON_THEIR_WAY:
                    await self._one(sweep, frame, OS, BEAT_BYTES)
                    after = await phone.os.flexmem.state(frame)
                    if before is after:
                        self.states[after.name] += 1
                    before = after
                await self._one(sweep, frame, OS)

    async def _reclaim(self, phone: Phone, frames: list[int]) -> None:
        """Write pages out to flash, as an ordinary OS does when memory is short."""
        for frame in frames:
            await phone.os.storage.write(self._spot(phone), frame * PAGE_BYTES, PAGE_BYTES)
            self.taken += 1

    def _spot(self, phone: Phone) -> int:
        """Offset of a page of flash that nobody uses: the last."""
        spot = self.machine.flash.size - PAGE_BYTES
        if spot < phone.image.size + phone.vault.slots * PAGE_BYTES:
            raise ValueError(f"Flash must have room for the attacker's page, not {self.machine.flash.size!r} bytes")
        return spot

    async def _loot(self, phone: Phone, frames: list[int]) -> Sweep:
        """Copy pages to flash with the storage device, and read them from there."""
        sweep, storage, spot = Sweep(), phone.os.storage, self._spot(phone)
        room = phone.os.ordinary.take_block(0)
        for frame in frames:
            sweep.attempts += 1
            try:
                await storage.write(spot, frame * PAGE_BYTES, PAGE_BYTES)
                sweep.responses["done"] += 1
            except StorageError:
                sweep.responses["error"] += 1
            await storage.read(spot, room.address, PAGE_BYTES)
            sweep.leaked_bytes += self._leak(await self.machine.load(room.address, PAGE_BYTES, by=OS))
        phone.os.ordinary.give(room)
        return sweep

    async def _plant(self, phone: Phone, frames: list[int]) -> Sweep:
        """Copy a forged page from flash over pages with the storage device."""
        sweep, storage, spot, before = Sweep(), phone.os.storage, self._spot(phone), self._contents(frames)
        room = phone.os.ordinary.take_block(0)
        await self.machine.store(room.address, b"\xc3" * PAGE_BYTES, by=OS)
        await storage.write(spot, room.address, PAGE_BYTES)
        for frame in frames:
            sweep.attempts += 1
            try:
                await storage.read(spot, frame * PAGE_BYTES, PAGE_BYTES)
                sweep.responses["done"] += 1
            except StorageError:
                sweep.responses["error"] += 1
        phone.os.ordinary.give(room)
        sweep.changed_bytes = self._changed(frames, before)
        return sweep

    async def _compute(self, phone: Phone, frames: list[int], *, over: bool) -> Sweep:
        """Take the NPU back if it is lent, and have it bring pages into the OS's memory or write ``over`` them."""
        if self.protected and await phone.os.npu.state() is State.FLEX:
            await phone.os.npu.recall()
        state = await phone.os.npu.state()
        if state is not State.NORMAL:
            raise RuntimeError(f"The OS must have the NPU to attack with it, not find it in {state.name}")
        sweep, before = Sweep(), self._contents(frames)
        room = phone.os.ordinary.take_block(4)
        bench = Workbench(self.machine, room, by=OS)
        caps = await bench.ready()
        await bench.set_weights(identity(), caps)
        await bench.put(bench.activations, b"\x69" * PAGE_BYTES)
        for frame in frames:
            spot = frame * PAGE_BYTES
            rows = PAGE_ROWS // 4 if over else PAGE_ROWS
            await bench.put(bench.results, bytes(4 * PAGE_BYTES))
            program = bench.product(caps, rows, c=spot) if over else bench.product(caps, rows, a=spot)
            sweep.attempts += 1
            try:
                await bench.run(program)
                sweep.responses["done"] += 1
            except NpuJobFailed as failure:
                sweep.responses[failure.fault.name] += 1
            sweep.leaked_bytes += self._leak((await bench.get(PAGE_ROWS)).astype(np.int8).tobytes())
        phone.os.ordinary.give(room)
        sweep.changed_bytes = self._changed(frames, before) if over else 0
        return sweep

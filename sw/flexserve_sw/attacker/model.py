"""Attacks on a language model while it answers."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..designs.job import serve
from ..designs.phone import Phone
from ..machine import BEAT_BYTES, PAGE_BYTES, BusFault, Initiator, Machine
from ..npu import Caps
from ..regs import FLEX_NORMAL, NPU_NORMAL
from ..serving.crypto import TamperedPage
from .case import Evidence, enter
from .scene import Sweep

__all__ = ["running_model", "tampered_model"]

OS, DEVICE = Initiator.NORMAL_CPU, Initiator.HOSTILE_DEVICE
TOKENS = 4
PRESSURE = 8
"""Pages that the OS takes back while the device snoops."""
TAMPERED_PAGES = 16

NW_BASE = "The design nw-base: the same model, served from ordinary memory in the normal world, unencrypted in flash."


async def _argument(machine: Machine, *, protected: bool, seed: int) -> dict[str, Any]:
    """Of the job that is attacked, for the machine at hand."""
    caps = Caps.from_register(await machine.read_register(NPU_NORMAL.CAPS, by=OS))
    return {
        "design": "flexserve" if protected else "nw-base",
        "tokens": TOKENS,
        "pressure": PRESSURE if protected else 0,
        "pressure_at": 1,
        "pressure_hold": 1,
        "seed": seed,
        "array": caps.n,
        "capacity": await machine.read_register(FLEX_NORMAL.CAPACITY, by=OS),
        "dram_bytes": machine.dram.size,
        "flash_bytes": machine.flash.size,
        "timeline": False,
    }


def _silent(message: dict[str, Any]) -> None:
    """Nobody listens to the job's own messages."""


class _Visitor:
    """The attacker, called in while the model waits between two tokens."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.sweeps: dict[str, Sweep] = {}
        self.pages = 0
        self._truth: set[bytes] = set()
        self._snooping = False
        self._snoop: Any = None

    async def visit(self, point: str, phone: Phone) -> None:
        """Hook of the job."""
        if point == "token:1":
            frames = self._frames(phone)
            self.pages = len(frames)
            self._truth = self._beats(frames)
            for name, by in (("model-cpu-read", OS), ("model-device-read", DEVICE)):
                self.sweeps[name] = await self._read(frames, by)
            self._snooping = True
            self._snoop = self.machine.spawn(self._watch(frames), name="snoop")
        if point == "token:2":
            self._snooping = False
            self.sweeps["model-recall-snoop"] = await self._snoop.join()
        if point == "token:3":
            frames = self._frames(phone)
            for name, by, filler in (("model-cpu-write", OS, 0x5A), ("model-device-write", DEVICE, 0xA5)):
                self.sweeps[name] = await self._write(frames, by, bytes([filler]) * PAGE_BYTES)

    @staticmethod
    def _frames(phone: Phone) -> list[int]:
        """Every page frame of the model that is in memory now."""
        resident = phone.serving.pager.resident()
        frames = (phone.serving.pager.space.frame(segment.first + page) for segment, page in resident)
        return [frame for frame in frames if frame is not None]

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

    async def _one(self, sweep: Sweep, frame: int, by: Initiator) -> None:
        sweep.attempts += 1
        try:
            data = await self.machine.load(frame * PAGE_BYTES, PAGE_BYTES, by=by)
            sweep.responses["OKAY"] += 1
        except BusFault as fault:
            data = fault.data
            sweep.responses[fault.response.name] += 1
            sweep.stray_bytes += len(data) - data.count(0)
        found = sum(data[at : at + BEAT_BYTES] in self._truth for at in range(0, len(data), BEAT_BYTES))
        sweep.leaked_bytes += BEAT_BYTES * found

    async def _read(self, frames: list[int], by: Initiator) -> Sweep:
        sweep = Sweep()
        for frame in frames:
            await self._one(sweep, frame, by)
        return sweep

    async def _watch(self, frames: list[int]) -> Sweep:
        """Read every page over and over while the OS takes some of them back."""
        sweep = Sweep()
        while self._snooping:
            for frame in frames:
                if self._snooping:
                    await self._one(sweep, frame, DEVICE)
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
        after = self._contents(frames)
        sweep.changed_bytes = int(np.count_nonzero(np.frombuffer(before, np.uint8) != np.frombuffer(after, np.uint8)))
        return sweep


async def running_model(machine: Machine, protected: bool, seed: int) -> dict[str, Evidence]:
    """Let a model answer and attack it between its tokens, and beside them while memory is taken back."""
    visitor = _Visitor(machine)
    await machine.reset()
    argument = await _argument(machine, protected=protected, seed=seed)
    answer, recalled = "right", 0
    try:
        result = await serve(machine, argument, _silent, hook=visitor.visit)
    except Exception as error:
        if "model-device-write" not in visitor.sweeps:
            raise
        answer = f"none: {type(error).__name__}"
    else:
        recalled = result["recall"]["pages"]
        if not (result["bit_exact"] and result["reference_equal"]):
            answer = "wrong"
    common = {"model_pages": visitor.pages, "pages_recalled": recalled}
    evidence = {}
    for name, sweep in visitor.sweeps.items():
        seen = {**sweep.seen(), **common}
        if name.endswith("-write"):
            evidence[name] = Evidence(sweep.changed_bytes > 0 or answer != "right", {**seen, "answer": answer})
        else:
            evidence[name] = Evidence(sweep.learnt, seen)
    return evidence


async def tampered_model(machine: Machine, protected: bool, seed: int) -> dict[str, Evidence]:
    """Change the model in flash before it is loaded, and see whether it is used."""
    tampered = 0

    async def visit(point: str, phone: Phone) -> None:
        nonlocal tampered
        if point != "booted":
            return
        spot = phone.plan.layout.bounce(0)
        first = phone.image.size // PAGE_BYTES // 2
        await machine.store(spot.address, b"\x3c" * PAGE_BYTES, by=OS)
        for page in range(first, first + TAMPERED_PAGES):
            await phone.os.storage.write(page * PAGE_BYTES, spot.address, PAGE_BYTES)
            tampered += 1

    await machine.reset()
    argument = {**await _argument(machine, protected=protected, seed=seed), "tokens": 1, "pressure": 0}
    try:
        result = await serve(machine, argument, _silent, hook=visit)
    except TamperedPage as refusal:
        return {"tampered-weights": Evidence(False, {"attempts": tampered, "answer": f"refused: {refusal}"})}
    used = not result["bit_exact"] or not result["reference_equal"]
    seen = {"attempts": tampered, "answer": "with forged weights" if used else "right"}
    return {"tampered-weights": Evidence(used, seen)}


_STORIES = {
    "model-cpu-read": ("SEC-01", "While the model answers, a compromised kernel reads every page of it with the CPU."),
    "model-device-read": ("SEC-01", "While the model answers, a hostile DMA device reads every page of it."),
    "model-recall-snoop": (
        "SEC-01",
        "While the OS takes pages of the answering model back, a device reads all its pages again and again, in every "
        "state that they go through.",
    ),
    "model-cpu-write": (
        "SEC-02",
        "While the model answers, a compromised kernel overwrites every page of it; then its answer is checked.",
    ),
    "model-device-write": (
        "SEC-02",
        "While the model answers, a hostile DMA device overwrites every page of it; then its answer is checked.",
    ),
}

for _name, (_aim, _story) in _STORIES.items():
    enter(_name, _aim, story=_story, control=NW_BASE, campaign=running_model)

enter(
    "tampered-weights",
    "SEC-02",
    story="Before the model is loaded, the OS forges pages of its image in flash, for it to compute with.",
    control=NW_BASE,
    campaign=tampered_model,
)

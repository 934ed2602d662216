"""Attacks on a language model while it answers."""

from __future__ import annotations

from typing import Any

from ..designs.job import serve
from ..designs.phone import Phone
from ..machine import PAGE_BYTES, Initiator, Machine
from ..npu import Caps
from ..regs import FLEX_NORMAL, NPU_NORMAL
from ..serving.crypto import TamperedPage
from .case import Evidence, enter
from .visitor import ON_THEIR_WAY, PRESSURE, Visitor
from .weakness import Weakness

__all__ = ["check_recall", "running_model", "tampered_model"]

OS = Initiator.NORMAL_CPU
TOKENS = 4
TAMPERED_PAGES = 16

NW_BASE = "The design nw-base: the same model, served from ordinary memory in the normal world, unencrypted in flash."
SWAPPING = f"{NW_BASE} To get memory, the OS writes pages of it out to flash while the device reads."


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


async def running_model(machine: Machine, protected: bool, seed: int) -> dict[str, Evidence]:
    """Let a model answer and attack it between its tokens, and beside them while memory is taken back."""
    visitor = Visitor(machine, protected=protected)
    await machine.reset()
    argument = await _argument(machine, protected=protected, seed=seed)
    answer = "right"
    try:
        result = await serve(machine, argument, _silent, hook=visitor.visit)
    except Exception as error:
        if "model-npu-write" not in visitor.sweeps:
            raise
        answer = f"none: {type(error).__name__}"
    else:
        if not (result["bit_exact"] and result["reference_equal"]):
            answer = "wrong"
    check_recall(visitor)
    evidence = {}
    for name, sweep in visitor.sweeps.items():
        seen = {**sweep.seen(), "model_pages": visitor.pages}
        if name.endswith("-write"):
            evidence[name] = Evidence(sweep.changed_bytes > 0 or answer != "right", {**seen, "answer": answer})
        elif name == "model-recall-snoop":
            on_the_way = {"pages_taken": visitor.taken, "reads_by_state": dict(visitor.states)}
            evidence[name] = Evidence(sweep.learnt, {**seen, **on_the_way})
        else:
            evidence[name] = Evidence(sweep.learnt, seen)
    return evidence


def check_recall(visitor: Visitor) -> None:
    """Refuse a verdict on a snoop during which nothing was taken, or not seen on its way."""
    if visitor.taken != PRESSURE:
        raise RuntimeError(f"The OS must have taken {PRESSURE} pages while the device snooped, not {visitor.taken!r}")
    missed = [state.name for state in ON_THEIR_WAY if visitor.protected and not visitor.states[state.name]]
    if missed:
        raise RuntimeError(f"The OS must have read pages in every state on their way back, not missed {missed!r}")


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
        "While the OS takes pages of the answering model back, a device reads all its pages again and again, and the "
        "kernel those on their way, in every state that they go through.",
    ),
    "model-storage-read": (
        "SEC-01",
        "While the model answers, the OS has the storage device copy pages from all over it to flash, and reads them "
        "there.",
    ),
    "model-npu-read": (
        "SEC-01",
        "While the model answers, the OS takes the NPU back and has it bring pages from all over the model to where it "
        "can read them.",
    ),
    "model-cpu-write": (
        "SEC-02",
        "While the model answers, a compromised kernel overwrites every page of it; then its answer is checked.",
    ),
    "model-device-write": (
        "SEC-02",
        "While the model answers, a hostile DMA device overwrites every page of it; then its answer is checked.",
    ),
    "model-storage-write": (
        "SEC-02",
        "While the model answers, the OS has the storage device copy forged data over pages from all over it; then its "
        "answer is checked.",
    ),
    "model-npu-write": (
        "SEC-02",
        "While the model answers, the OS takes the NPU back and has it store results over pages from all over it; then "
        "its answer is checked.",
    ),
}

_CONTROLS = {"model-recall-snoop": SWAPPING}

_WEAKNESSES = {
    "model-recall-snoop": Weakness.STALE_CHECK,
    "model-npu-read": Weakness.SHARED_RESOURCE,
    "model-npu-write": Weakness.SHARED_RESOURCE,
}

for _name, (_aim, _story) in _STORIES.items():
    enter(
        _name,
        _aim,
        weakness=_WEAKNESSES.get(_name, Weakness.GRANULARITY),
        story=_story,
        control=_CONTROLS.get(_name, NW_BASE),
        campaign=running_model,
    )

enter(
    "tampered-weights",
    "SEC-02",
    weakness=Weakness.AUTHENTICITY,
    story="Before the model is loaded, the OS forges pages of its image in flash, for it to compute with.",
    control=NW_BASE,
    campaign=tampered_model,
)

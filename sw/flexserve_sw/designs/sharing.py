"""The secure world's model and a program of the normal world share the NPU under the OS's scheduler."""

from __future__ import annotations

from typing import Any

from ..machine import Machine, Task
from ..normal.vision import VisionStream
from .job import Emit, serve
from .phone import Phone
from .plan import check

__all__ = ["share", "watch"]


async def share(machine: Machine, argument: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Answer a prompt while frames come every ``period`` cycles; the secure world keeps the NPU for ``slice`` at least.

    The rest of ``argument`` is that of :func:`.job.serve`, and so is the result, with ``sharing`` added. Frames come
    from when the phone is booted until the answer is there.
    """
    period, slice_ = argument["period"], argument["slice"]
    rest = {name: value for name, value in argument.items() if name not in ("period", "slice")}
    streams: list[tuple[VisionStream, Task[None], int]] = []
    sharing: dict[str, Any] = {}

    async def visit(point: str, phone: Phone) -> None:
        if point == "booted":
            phone.os.npu.slice = slice_
            stream = VisionStream(machine, phone.os, phone.serving.caps, period, seed=phone.plan.seed)
            await stream.open()
            streams.append((stream, machine.spawn(stream.serve(), name="os: vision"), machine.now))
        if point == "answered":
            stream, task, begin = streams[0]
            stream.stopped = True
            await task.join()
            sharing.update(_account(phone, stream, machine.now - begin))

    result = await serve(machine, rest, emit, hook=visit)
    return result | {"sharing": sharing}


async def watch(machine: Machine, argument: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """``frames`` every ``period`` cycles on a phone whose secure world asks for nothing."""
    period, frames = argument["period"], argument["frames"]
    rest = {name: value for name, value in argument.items() if name not in ("period", "slice", "frames")}
    phone = Phone.assemble(machine, check(rest))
    await phone.boot()
    stream = VisionStream(machine, phone.os, phone.serving.caps, period, seed=phone.plan.seed)
    await stream.open()
    begin = machine.now
    await stream.serve(frames)
    return {"sharing": _account(phone, stream, machine.now - begin)}


def _account(phone: Phone, stream: VisionStream, cycles: int) -> dict[str, Any]:
    """Frames, and what handing the NPU over cost. A recall ends when the OS sees the NPU back, a lending when the
    secure world may accept it."""
    npu = phone.os.npu
    recalls = [turn.recalled for turn in stream.turns if turn.recalled]
    spent = sum(recalls) + npu.lend_cycles
    return stream.as_json() | {
        "cycles": cycles,
        "lendings": npu.lent,
        "recalls": len(recalls),
        "recall_cycles_max": max(recalls, default=None),
        "recall_cycles": sum(recalls),
        "lend_cycles": npu.lend_cycles,
        "switch_share": spent / cycles,
    }

"""A serving job whose NPU the OS takes back again and again, wherever the answer happens to be."""

from __future__ import annotations

from typing import Any

from flexserve_sw.designs.job import Emit, serve
from flexserve_sw.designs.phone import Phone
from flexserve_sw.machine import Initiator, Machine
from flexserve_sw.regs import GATE_SECURE, GateSecure, RecallState

__all__ = ["serve_with_recalls"]


async def serve_with_recalls(machine: Machine, argument: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """``serve`` with a recall ``gap`` cycles after every lending, ``most`` times.

    ``deaf``: the secure world does not hear them, so that each lasts for the whole grace period. The result has the
    ``latencies`` of the recalls.
    """
    gap, most, deaf = argument["gap"], argument["most"], argument.get("deaf", False)
    rest = {name: value for name, value in argument.items() if name not in ("gap", "most", "deaf")}
    latencies: list[int] = []

    async def disturb(phone: Phone) -> None:
        npu = phone.os.npu
        while len(latencies) < most:
            if await npu.state() is RecallState.FLEX:
                await machine.delay(gap)
                latencies.append(await npu.recall())
            await machine.delay(50)

    async def visit(point: str, phone: Phone) -> None:
        if point == "booted":
            if deaf:
                only = GateSecure.IRQ_ENABLE__EXPIRED.put(1)
                await machine.write_register(GATE_SECURE.IRQ_ENABLE, only, by=Initiator.SECURE_CPU)
            machine.spawn(disturb(phone), name="os: recalls")

    result = await serve(machine, rest, emit, hook=visit)
    return result | {"latencies": latencies}

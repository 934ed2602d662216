"""The cocotb side: mounts attacks on the filter, inside the simulator's process.

A cocotb module: the simulator imports it. What it does, and what it says, goes by :mod:`flexserve_cosim.messages`.
"""

from __future__ import annotations

import time
from typing import Any, cast

import cocotb
from cocotb.clock import Clock
from cocotb.handle import HierarchyObject, LogicObject
from cocotb.triggers import FallingEdge, RisingEdge

from flexserve_sw.attacker.case import Level, reports, select

from ..messages import Channel, open_channel, read_order
from .bus import FilterBus
from .session import VARIANTS
from .suite import PIN_ATTACKS

LIMIT = 400_000
"""Cycles that one attack may take."""


async def _mount(bus: FilterBus, order: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Mount the attacks one after the other, each on a filter that it resets."""
    control, done = bool(order["control"]), []
    for case in select(PIN_ATTACKS[Level(order["level"])], order["attack"]):
        begin = bus.now
        evidence = await case.campaign(bus, not control, int(order["seed"]))
        for report in reports([case], evidence, control=control, cycles=bus.now - begin):
            channel.send("message", bus.now, {"kind": "attack", **report})
            done.append(report)
    return {"attacks": done, "control": control}


async def _run(dut: HierarchyObject, bus: FilterBus, order: dict[str, Any], channel: Channel) -> dict[str, Any]:
    task = bus.kernel.spawn(_mount(bus, order, channel), name="attacks")
    edge, middle = RisingEdge(cast(LogicObject, dut.clk)), FallingEdge(cast(LogicObject, dut.clk))
    limit = LIMIT * len(select(PIN_ATTACKS[Level(order["level"])], order["attack"]))
    while True:
        bus.kernel.run()
        lost = None if task.done() else bus.kernel.lost()
        if lost is not None:
            raise lost
        if task.done():
            result: dict[str, Any] = task.result
            return result
        if bus.now > limit:
            raise RuntimeError(f"The attacks did not end within {limit} cycles; waiting: {bus.kernel.waiting()}")
        bus.drive()
        if bus.upsets:
            await middle
            while bus.upsets:
                bus.upsets.pop(0)()
        await edge
        bus.sample()


@cocotb.test()
async def session(dut: HierarchyObject) -> None:
    """Mount the attacks of this process and report the end, whatever it is."""
    order = read_order()
    started = time.monotonic()
    Clock(cast(LogicObject, dut.clk), 2, unit="ns").start()
    with open_channel() as channel:
        bus = FilterBus(dut, VARIANTS[Level(order["argument"]["level"])].flex)
        try:
            result = await _run(dut, bus, order["argument"], channel)
        except Exception as error:
            channel.fail(bus.now, error)
            return
        wall = time.monotonic() - started
        simulation = {"machine": "filter rtl", "cycles": bus.now, "seconds": wall, "khz": bus.now / wall / 1e3}
        channel.send("result", bus.now, {"result": result, "simulation": simulation})

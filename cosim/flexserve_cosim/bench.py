"""The cocotb side of a session: runs one job on the simulated phone, inside the simulator's process.

A cocotb module: the simulator imports it. What it does, and what it says, goes by :mod:`flexserve_cosim.messages`.
"""

from __future__ import annotations

import gc
import importlib
import resource
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

import cocotb
from cocotb.handle import HierarchyObject, LogicObject

from flexserve_sw.fast.memory import DramTiming, FlashTiming
from flexserve_sw.machine import MachineDied
from flexserve_sw.tasks import Kernel

from .machine import RtlMachine
from .messages import Channel, open_channel, read_order

Message = dict[str, Any]
Job = Callable[[RtlMachine, Message, Callable[[Message], None]], Awaitable[Message]]


def find_job(name: str) -> Job:
    """The coroutine function that ``package.module:function`` names."""
    module, _, function = name.partition(":")
    return cast(Job, getattr(importlib.import_module(module), function))


async def run(
    wake: LogicObject,
    machine: RtlMachine,
    kernel: Kernel,
    job: Job,
    session: Message,
    channel: Channel,
    leave: Callable[[], None],
) -> Message:
    """Let the job run to its end, entering Python only when the simulator asks for it."""

    async def main() -> Message:
        await machine.reset()
        return await job(machine, session["argument"], lambda body: channel.send("message", machine.now, body))

    limit = session["cycle_limit"]
    machine.limit = limit
    task = kernel.spawn(main(), name="job")
    while True:
        kernel.run()
        if task.done():
            break
        if limit is not None and machine.now >= limit:
            why = f"The job did not end within {limit} cycles"
            raise kernel.lost() or MachineDied(f"{why}; waiting: {kernel.waiting()}; for {machine.under_way()}")
        if machine.idle():
            raise kernel.lost() or MachineDied(f"The job cannot end: nothing is under way; waiting: {kernel.waiting()}")
        leave()
        await wake.value_change
        machine.dispatch()
    result = task.result
    if not isinstance(result, dict):
        raise TypeError(f"A job must return a dict, not {result!r}")
    lost = kernel.lost()
    if lost is not None:
        raise lost
    return result


async def conduct(
    dut: HierarchyObject, *, library: Any = None, order: Message | None = None, leave: Callable[[], None] = lambda: None
) -> None:
    """Run the job of this process and report its end, whatever it is.

    ``library`` are the simulator's functions, if not those of the process; ``leave`` is called whenever all tasks wait
    and the simulator goes on.
    """
    order = order or read_order()
    started = time.monotonic()
    with open_channel() as channel:
        kernel = Kernel()
        machine = RtlMachine(
            kernel=kernel,
            clock_hz=order["clock_hz"],
            dram_bytes=order["dram_bytes"],
            flash_bytes=order["flash_bytes"],
            dram=DramTiming(**order["dram"]),
            flash=FlashTiming(**order["flash"]),
            seed=order["seed"],
            library=library,
        )
        gc.collect()
        gc.freeze()  # what is imported lives as long as the process: later collections need not look at it
        try:
            result = await run(
                cast(LogicObject, dut.wake), machine, kernel, find_job(order["function"]), order, channel, leave
            )
        except Exception as error:
            channel.fail(machine.now, error)
            return
        wall = time.monotonic() - started
        simulation = {
            "machine": "rtl",
            "cycles": machine.now,
            "seconds": wall,
            "khz": machine.now / wall / 1e3,
            "wakes": machine.wakes,
            "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        channel.send("result", machine.now, {"result": result, "simulation": simulation})


@cocotb.test()
async def session(dut: HierarchyObject) -> None:
    """Run the job of this process."""
    await conduct(dut)

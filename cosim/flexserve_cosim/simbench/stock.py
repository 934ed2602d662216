"""The cocotb side of a stock session: :mod:`flexserve_cosim.bench` where Python drives the pins.

A cocotb module: the simulator imports it.
"""

from __future__ import annotations

from typing import cast

import cocotb
from cocotb.clock import Clock
from cocotb.handle import HierarchyObject, LogicArrayObject, LogicObject

from ..bench import conduct
from ..simlib import load_library


@cocotb.test()
async def session(dut: HierarchyObject) -> None:
    """Run the job of this process with cocotb's own clock."""
    library = load_library()
    reset, active = cast(LogicObject, dut.rst), cast(LogicArrayObject, dut.active)
    clock = Clock(cast(LogicObject, dut.clk), 1, unit="ns", impl="gpi")
    written: tuple[int, int] | None = None

    def leave() -> None:
        nonlocal written
        levels = (int(library.phone_resetting()), int(library.phone_active()))
        if levels != written:
            reset.value, active.value = levels
        if written is None:
            clock.start()
        written = levels

    await conduct(dut, leave=leave)

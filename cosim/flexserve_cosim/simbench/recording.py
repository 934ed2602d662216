"""The cocotb side of a recorded session: :mod:`flexserve_cosim.bench` with its calls written down.

A cocotb module: the simulator imports it. The order's entry ``recording`` names the folder.
"""

from __future__ import annotations

from pathlib import Path

import cocotb
from cocotb.handle import HierarchyObject

from ..bench import conduct
from ..messages import read_order
from ..simlib import load_library
from .stimulus import Recorder


@cocotb.test()
async def session(dut: HierarchyObject) -> None:
    """Run the job of this process and record it."""
    recorder = Recorder(load_library(), Path(read_order()["recording"]))
    await conduct(dut, library=recorder)
    recorder.end()

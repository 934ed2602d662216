"""The filter between master and memory of cocotbext-axi, under two simulators; in short, or as long as one asks."""

import json
import os

import pytest

from flexserve_cosim.build import build
from flexserve_cosim.compiler import build_root
from flexserve_cosim.icarus import MINIMUM_ICARUS, build_icarus, icarus_version
from flexserve_cosim.regression import run_regression

from .support import SEED, SMALL, rerun

pytestmark = pytest.mark.rtl

BURSTS = os.environ.get("FLEXSERVE_BURSTS", "300")
"""``make axi-soak`` asks for a hundred thousand."""

needs_icarus = pytest.mark.skipif(icarus_version() is None, reason=f"no Icarus Verilog >= {MINIMUM_ICARUS}")


@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    ("simulator", "make"), [("verilator", build), pytest.param("icarus", build_icarus, marks=needs_icarus)]
)
def test_standard_master_and_memory_agree_through_the_filter(simulator, make):
    figures = build_root() / "axi-soak" / f"{simulator}.json"
    figures.parent.mkdir(parents=True, exist_ok=True)
    figures.unlink(missing_ok=True)
    settings = {"FLEXSERVE_BURSTS": BURSTS, "FLEXSERVE_FIGURES": str(figures), "COCOTB_LOG_LEVEL": "WARNING"}
    passed = run_regression(
        make("filter", SMALL),
        "tests.cosim.tb_axi_soak",
        seed=SEED,
        rerun=f"FLEXSERVE_BURSTS={BURSTS} {rerun()}",
        parameters=settings,
        timeout=120 + int(BURSTS) * 0.1,
    )
    assert passed == 1
    assert json.loads(figures.read_text())["bursts"] >= int(BURSTS)

"""What the tests of the co-simulation share: builds, seeds, and the command that repeats a failure."""

import os
from pathlib import Path

from flexserve_cosim.build import build
from flexserve_cosim.bus_attacks.session import bus_build
from flexserve_cosim.regression import run_regression
from flexserve_cosim.session import simulate
from flexserve_hw.params import FlexMemParams, NpuParams, SocParams

SEED = int(os.environ.get("FLEXSERVE_SEED", "1"))
"""Fixed in CI, varied on request."""

SMALL = SocParams(
    flex=FlexMemParams(pages=128), npu=NpuParams(n=4, a_words=256, w_words=256, c_rows=256), dram_bytes=1 << 20
)
"""Parameters of the IPs alone: small, so that they build fast and their corners are near."""


def rerun() -> str:
    """Command that repeats the running test with the same seed."""
    test = os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0]
    return f"FLEXSERVE_SEED={SEED} python -m pytest '{test}'"


def run(function: str, argument=None, **options):
    """Run a job of :mod:`tests.cosim.jobs` on the default SoC; a failure says how to repeat it."""
    options.setdefault("seed", SEED)
    options.setdefault("timeout", 120)
    try:
        return simulate(build("soc"), f"tests.cosim.jobs:{function}", argument or {}, **options)
    except Exception as error:
        error.add_note(f"run again with\n  {rerun()}")
        raise


def regress(ip: str, module: str) -> int:
    """Run a cocotb bench of this folder on one small IP; the filter is the one that attacks are mounted on."""
    simulator = bus_build() if ip == "filter" else build(ip, SMALL)
    return run_regression(simulator, f"tests.cosim.{module}", seed=SEED, rerun=rerun())


def children() -> set[int]:
    """Process ids of the living children of this process."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and fields[0] != "Z":
            found.add(int(status.parent.name))
    return found

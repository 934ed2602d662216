"""The same software on the RTL and on the transaction-level machine."""

from __future__ import annotations

from typing import Any

import pytest

from flexserve_cosim.build import build
from flexserve_cosim.session import simulate as simulate_rtl
from flexserve_sw.fast import simulate as simulate_fast
from flexserve_sw.fast.memory import DramTiming, FlashTiming
from tests.sw.phone_bench import SMALL, argument

pytestmark = pytest.mark.rtl

JOB = "flexserve_sw.designs.job:serve"
TIMING = {
    "dram": DramTiming(latency=60, bytes_per_cycle=16.0),
    "flash": FlashTiming(latency=2_000, bytes_per_cycle=4.0),
}
TOLERANCE = 0.05
"""Difference of times that is accepted, as a share."""


def options(**more: Any) -> dict[str, Any]:
    """The tiny model on machines of the default size."""
    return {name: value for name, value in argument(tokens=6, **more).items() if name not in SMALL}


def pages(result: dict[str, Any]) -> list[dict[str, int]]:
    """Page-state counts without their times, each change once."""
    counts = [{state: n for state, n in entry.items() if state != "cycle"} for entry in result["page_states"]]
    return [after for before, after in zip([{}, *counts], counts, strict=False) if before != after]


@pytest.mark.parametrize(
    ("design", "more"),
    [
        ("flexserve", {"pressure": 9, "pressure_at": 2, "npu_recall_at": 4}),
        ("nw-base", {}),
        ("strawman", {}),
        ("strawman-opt", {}),
        ("flexserve", {"kv": "int8", "pressure": 9, "pressure_at": 2, "npu_recall_at": 4}),
        ("nw-base", {"kv": "int8"}),
        ("strawman", {"kv": "int8"}),
        ("strawman-opt", {"kv": "int8"}),
    ],
)
def test_rtl_and_transaction_level_machine_agree(design: str, more: dict[str, Any]) -> None:
    wanted = options(design=design, **more)
    rtl = simulate_rtl(build("soc"), JOB, wanted, cycle_limit=5_000_000, **TIMING)
    fast = simulate_fast(JOB, wanted, cycles=5_000_000, **TIMING)
    for name in ("tokens", "text", "bit_exact", "reference_equal", "compared_values", "violations", "window_pages"):
        assert rtl[name] == fast[name], name
    assert (rtl["bit_exact"], rtl["reference_equal"], rtl["violations"]) == (True, True, 0)
    assert rtl["recall"]["pages"] == fast["recall"]["pages"] == more.get("pressure", 0)
    for name in ("ttft_cycles", "decode_cycles_per_token"):
        assert rtl[name] == pytest.approx(fast[name], rel=TOLERANCE), name
    assert rtl["page_sequences"] == fast["page_sequences"]
    assert rtl["pages_moved"] == fast["pages_moved"]
    assert pages(rtl)[-1] == pages(fast)[-1]
    if "pressure" not in more:
        # Under pressure two worlds change states at the same time.
        assert pages(rtl) == pages(fast)

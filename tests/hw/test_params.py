"""Parameters that cannot be built are refused where they are made, with a sentence."""

import pytest

from flexserve_hw.npu.top import FlexNpu
from flexserve_hw.params import DRAM_BASE, BusParams, FlexMemParams, NpuParams, SocParams
from flexserve_sw.machine import WINDOW_GRANULE


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: FlexMemParams(group=3), r"not 3$"),
        (lambda: FlexMemParams(pages=100), r"not 100$"),
        (lambda: FlexMemParams(pages=8), r"not 8$"),
        (lambda: FlexMemParams(timers=5), r"not 5$"),
        (lambda: FlexMemParams(grace_min=0), r"not \(0, 10000000\)$"),
        (lambda: FlexMemParams(grace_min=9, grace_max=8), r"not \(9, 8\)$"),
        (lambda: FlexMemParams(grace_max=1 << 32), r"not \(1000, 4294967296\)$"),
        (lambda: FlexMemParams(outstanding=0), r"not 0$"),
        (lambda: FlexMemParams(freed_depth=1), r"not 1$"),
        (lambda: FlexMemParams(freed_depth=1 << 16), r"not 65536$"),
        (lambda: FlexMemParams(scrub_share=0), r"not 0$"),
        (lambda: NpuParams(n=12), r"not 12$"),
        (lambda: NpuParams(a_words=100), r"not 100$"),
        (lambda: NpuParams(c_rows=16), r"not 16$"),
        (lambda: NpuParams(q_words=100), r"not 100$"),
        (lambda: NpuParams(q_words=4), r"not 4$"),
        (lambda: FlexNpu(params=NpuParams(bus=BusParams(data_width=256))), r"\(32, 64, 128\) data bits, not 256$"),
        (lambda: FlexNpu(params=NpuParams(bus=BusParams(data_width=16))), r"not 16$"),
        (lambda: NpuParams(queue_depth=16), r"not 16$"),
        (lambda: BusParams(data_width=100).axi4, r"not 100$"),
        (lambda: BusParams(id_width=0).axi4, r"not 0$"),
        (lambda: SocParams(flex=FlexMemParams(bus=BusParams(id_width=5))), r"id_width=5\)$"),
        (lambda: SocParams(dram_bytes=4096), r"not 4096 bytes$"),
        (lambda: SocParams(dram_bytes=DRAM_BASE + 4096), r"not 2147487744 bytes$"),
    ],
)
def test_impossible_parameters_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_default_parameters_agree_with_each_other():
    params = SocParams()
    assert params.flex.bus.id_width == params.npu.bus.id_width + 3
    assert params.flex.pages * 4096 <= params.dram_bytes


def test_software_knows_the_granule_of_the_window():
    assert FlexMemParams().group == WINDOW_GRANULE

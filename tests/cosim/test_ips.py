"""Each IP alone under cocotb: starts the benches ``tb_*.py`` of this folder."""

import pytest

from flexserve_hw.emit import IPS

from .support import regress

pytestmark = pytest.mark.rtl

BENCHES = {"filter": ("tb_filter", 3), "npu": ("tb_npu", 3), "gate": ("tb_gate", 6), "storage": ("tb_storage", 3)}
"""Bench of each IP and how many tests it has."""


@pytest.mark.parametrize("ip", BENCHES)
def test_ip_alone(ip):
    bench, tests = BENCHES[ip]
    assert regress(ip, bench) == tests


def test_every_ip_has_a_bench_of_its_own():
    assert set(BENCHES) == set(IPS) - {"soc"}

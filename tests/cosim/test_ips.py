"""Each IP alone under cocotb: starts the benches ``tb_*.py`` of this folder."""

import pytest

from .support import regress

pytestmark = pytest.mark.rtl


@pytest.mark.parametrize(
    ("ip", "bench", "tests"), [("filter", "tb_filter", 3), ("npu", "tb_npu", 3), ("storage", "tb_storage", 3)]
)
def test_ip_alone(ip, bench, tests):
    assert regress(ip, bench) == tests

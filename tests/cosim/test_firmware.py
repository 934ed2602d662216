"""Firmware with a TZC-400 driver boots the phone, on RTL and transaction-level machine alike."""

import pytest

from flexserve_cosim.build import build
from flexserve_cosim.session import simulate
from flexserve_sw import fast

from .support import SEED

JOB = "tests.cosim.firmware:firmware"
WRITE, READ = "write", "read"


def allowed(outcomes: dict[str, str]) -> set[str]:
    return {name for name, response in outcomes.items() if response == "OKAY"}


def check(log) -> None:
    """What the rules that the driver wrote mean for every access."""
    window = {f"window {master} {kind}" for master in ("cpu_n", "hostile") for kind in (READ, WRITE)}
    secure = {f"secure cpu_s {kind}" for kind in (READ, WRITE)}
    shared = {"cpu_n read", "cpu_n write", "hostile read", "cpu_s read"}
    assert allowed(log["before"]) == window | secure | {f"shared {name}" for name in shared}
    background = {f"{name} hostile read" for name in ("background", "shared")}
    assert allowed(log["after"]) == window | secure | background
    assert set(log["before"].values()) == set(log["after"].values()) == {"OKAY", "DECERR"}
    assert (log["held"], log["pending"]) == (True, False)
    assert log["dump"]["rules0"] == 1


def test_both_flavours_boot_the_transaction_level_machine() -> None:
    for debug in (False, True):
        check(fast.simulate(JOB, {"debug": debug}))


@pytest.mark.rtl
def test_both_flavours_boot_the_rtl_phone_and_see_what_the_fast_machine_shows() -> None:
    for debug in (False, True):
        log = simulate(build("soc"), JOB, {"debug": debug}, seed=SEED, timeout=120)
        check(log)
        quick = fast.simulate(JOB, {"debug": debug})
        log.pop("simulation")
        quick.pop("simulation")
        assert log == quick
        if debug:
            page = 4096
            first, second, third = log["reports"]
            assert first == [0, False, True, first[3], True, False]
            assert second == [4 * page + 0x40, True, True, second[3], False, False]
            assert second[3] >> 24 == 3
            assert third == [4 * page, False, False, third[3], False, True]

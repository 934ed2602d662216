"""The simulated phone as a machine: accesses, timing, waiting, reset, storage."""

import pytest

from flexserve_sw.fast.memory import DramTiming, FlashTiming

from .support import SEED, run

pytestmark = pytest.mark.rtl


def test_every_port_reads_what_it_wrote_with_many_accesses_in_flight():
    assert run("random_traffic", {"seed": SEED, "accesses": 40})["bytes"] > 100_000


def test_latency_of_memory_adds_to_a_load_cycle_by_cycle():
    near = run("timing", dram=DramTiming(latency=20))
    far = run("timing", dram=DramTiming(latency=120))
    assert far["short"] - near["short"] == 100


def test_bandwidth_and_refresh_bound_long_transfers():
    beats = 65536 // 16
    full = run("timing", dram=DramTiming(latency=20))
    assert beats < full["long"] < 1.03 * beats
    assert beats < full["store"] < 1.03 * beats
    half = run("timing", dram=DramTiming(latency=20, bytes_per_cycle=8.0))
    assert 2 * beats < half["long"] < 2.03 * beats
    assert 2 * beats < half["store"] < 2.03 * beats
    refreshed = run("timing", dram=DramTiming(latency=20, refresh_interval=1000, refresh_cycles=200))
    assert 1.2 * beats < refreshed["long"] < 1.3 * beats
    assert 1.2 * beats < refreshed["store"] < 1.3 * beats


def test_refused_accesses_raise_with_what_came_back():
    assert run("faults")["seen"] == [["DECERR", False]] * 4


def test_delays_interrupts_and_cancelled_tasks_keep_their_cycles():
    run("waiting")


def test_reset_cuts_off_accesses_keeps_memory_and_closes_the_filter():
    run("reset_under_way")


def test_storage_moves_data_at_the_bandwidth_of_flash():
    result = run("storage", flash=FlashTiming(latency=3000, bytes_per_cycle=2.0))
    least = 3000 + (result["length"] - 16) / 2.0  # the first beat needs no time on the medium
    assert least <= result["read"] < least + 500
    assert least <= result["written"] < least + 500


def test_contents_at_power_up_are_unknown_and_come_from_the_seed():
    one, again, other = run("unknown", seed=1), run("unknown", seed=1), run("unknown", seed=2)
    assert one["first"] == again["first"] != other["first"]
    assert one["region"] == other["region"] == 0, "reset must make registers certain"

"""Sessions: messages, errors, limits, and that no process is left behind."""

import threading
import time
from itertools import pairwise

import pytest

from flexserve_cosim.build import build
from flexserve_cosim.session import JobFailed, SimulatorDied, Stopped, simulate
from flexserve_sw.errors import UserError

from .support import children, run

pytestmark = pytest.mark.rtl


def test_messages_come_in_order_with_cycle_and_time():
    seen = []
    result = run("talk", {"messages": 5}, on_message=seen.append)
    assert [message["number"] for message in seen] == list(range(5))
    assert [b["cycle"] - a["cycle"] for a, b in pairwise(seen)] == [10] * 4
    assert all(abs(message["time"] - time.time()) < 60 for message in seen)
    assert result["argument"] == {"messages": 5}
    assert result["simulation"]["cycles"] >= seen[-1]["cycle"] + 10
    assert 0 < result["simulation"]["peak_rss_bytes"] < 2 << 30


def test_simulator_that_dies_is_one_sentence():
    with pytest.raises(SimulatorDied, match=r"^The simulator died \(signal SIGABRT\)"):
        run("crash")
    assert not children()


def test_error_of_a_job_carries_its_traceback():
    with pytest.raises(JobFailed, match="the job went wrong") as caught:
        run("fail")
    assert "jobs.py" in caught.value.traceback


def test_error_of_a_task_that_nobody_joined_is_not_lost():
    with pytest.raises(JobFailed, match="nobody looks at this"):
        run("lose")


def test_what_the_user_can_mend_stays_a_user_error():
    with pytest.raises(UserError, match=r"^The prompt is empty; give one with --prompt\."):
        run("complain")


def test_job_without_a_result_is_an_error():
    with pytest.raises(JobFailed, match="must return a dict, not None"):
        run("returns_nothing")


def test_job_that_waits_for_nothing_is_told_apart_from_a_long_one():
    with pytest.raises(JobFailed, match="nothing is under way; waiting: job"):
        run("wait_for_ever")
    with pytest.raises(JobFailed, match="did not end within 50000 cycles; waiting: job"):
        run("run_for_ever", cycle_limit=50_000)


def test_timeout_and_stop_end_the_child():
    with pytest.raises(SimulatorDied, match="did not end within 5 s"):
        run("run_for_ever", timeout=5)
    stop = threading.Event()
    with pytest.raises(Stopped):
        run("run_for_ever", stop=stop, on_message=lambda message: stop.set())
    assert not children()


def test_error_in_the_caller_ends_the_child():
    def interrupt(message):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("run_for_ever", on_message=interrupt)
    assert not children()


def test_waves_need_a_build_that_records(tmp_path):
    with pytest.raises(ValueError, match="not 'soc'"):
        simulate(build("soc"), "tests.cosim.jobs:talk", {"messages": 0}, waves=tmp_path / "x.fst")


@pytest.mark.parametrize("seed", [0, 1 << 31])
def test_seed_must_fit_the_simulator(seed):
    with pytest.raises(ValueError, match=f"not {seed}"):
        run("talk", {"messages": 0}, seed=seed)

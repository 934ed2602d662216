"""The trace is one that Chrome's trace viewers accept: known phases, named processes, slices that nest."""

from hypothesis import given, settings
from hypothesis import strategies as st

from flexserve_cosim.trace import ROLES, chrome_trace, lanes, role


def span(track: str, begin: int, end: int) -> dict[str, object]:
    return {"type": "span", "track": track, "name": track, "begin": begin, "end": end, "detail": {}}


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), max_size=25))
def test_slices_of_a_lane_follow_or_enclose_each_other(intervals: list[tuple[int, int]]) -> None:
    spans = [span("x", begin, begin + length) for begin, length in intervals]
    chosen = lanes(spans)
    for i, (a, b) in enumerate(intervals):
        for (c, d), lane in zip(intervals[:i], chosen[:i], strict=True):
            if lane == chosen[i]:
                apart = a + b <= c or c + d <= a
                nested = (a <= c and c + d <= a + b) or (c <= a and a + b <= c + d)
                assert apart or nested


def test_spans_that_do_not_overlap_share_a_lane() -> None:
    assert lanes([span("x", 0, 5), span("x", 5, 9), span("x", 1, 2)]) == [0, 0, 0]


def test_trace_has_a_named_process_per_role_and_times_in_microseconds() -> None:
    timeline = [
        span("npu", 1_000, 3_000),
        {"type": "instant", "track": "pages", "name": "recall", "at": 2_000, "detail": {"pages": 4}},
    ]
    timelines = {"flexserve": timeline, "nw-base": timeline[:1]}
    trace = chrome_trace(timelines, {"flexserve": [(0, {"FLEX": 3})]}, clock_hz=10**9)
    events = trace["traceEvents"]
    names = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert sorted(names.values()) == ["flexserve: NPU", "flexserve: pages", "nw-base: NPU"]
    slices = [e for e in events if e["ph"] == "X"]
    assert [(e["ts"], e["dur"]) for e in slices] == [(1.0, 2.0)] * 2
    assert [names[e["pid"]] for e in slices] == ["flexserve: NPU", "nw-base: NPU"]
    (instant,) = (e for e in events if e["ph"] == "i")
    assert (instant["ts"], instant["args"]) == (2.0, {"cycle": 2_000, "pages": 4})
    (counter,) = (e for e in events if e["ph"] == "C")
    assert (counter["args"], names[counter["pid"]]) == ({"FLEX": 3}, "flexserve: pages")
    named = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    assert {(e["pid"], e["tid"]) for e in events if e["ph"] in "Xi"} <= named


def test_framework_is_shown_in_the_world_it_runs_in() -> None:
    assert role("decrypt", "flexserve") == "secure world"
    assert role("load", "nw-base") == "normal world"
    assert {role(track, "flexserve") for track in ("recall", "npu", "pages", "storage", "switch")} == set(ROLES)

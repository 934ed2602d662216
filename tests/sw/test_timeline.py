"""Where time went."""

from hypothesis import given
from hypothesis import strategies as st

from flexserve_sw.timeline import Span, Timeline, attribute

ORDER = ("compute", "load", "allocate")
spans = st.lists(
    st.builds(
        lambda track, begin, length: Span(track, "x", begin, begin + length),
        st.sampled_from([*ORDER, "unlisted"]),
        st.integers(0, 60),
        st.integers(0, 30),
    ),
    max_size=12,
)


@given(spans, st.integers(0, 40), st.integers(0, 40))
def test_every_cycle_of_an_interval_is_attributed_once_and_to_the_first_track_that_runs(
    spans: list[Span], begin: int, length: int
) -> None:
    end = begin + length
    expected = dict.fromkeys([*ORDER, "other"], 0)
    for cycle in range(begin, end):
        running = {span.track for span in spans if span.begin <= cycle < span.end}
        expected[next((track for track in ORDER if track in running), "other")] += 1
    assert attribute(spans, ORDER, begin, end) == expected


def test_a_span_is_recorded_with_its_detail_also_when_it_is_left_by_an_error() -> None:
    now = 5
    heard: list[dict[str, object]] = []
    timeline = Timeline(lambda: now, heard.append)
    try:
        with timeline.span("load", "layer", pages=3) as detail:
            now = 9
            detail["given"] = 2
            raise KeyError
    except KeyError:
        pass
    timeline.instant("pages", "gone", page=1)
    assert timeline.spans == [Span("load", "layer", 5, 9, {"pages": 3, "given": 2})]
    assert heard == [timeline.spans[0].as_json(), timeline.instants[0].as_json()]
    assert timeline.busy("load", 0, 7) == 2

"""Timelines as a trace that the Perfetto viewer (https://ui.perfetto.dev) and Chrome's own open.

Each design is a group of processes, one per role (normal world, secure world, NPU, pages, storage); a process has a
thread per track. Page-state counts are counter tracks. Times are the simulated ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

__all__ = ["ROLES", "chrome_trace", "lanes"]

ROLES = ("normal world", "secure world", "NPU", "pages", "storage")
"""Processes of a design, from top to bottom."""

_ROLE_OF = {
    "cma": "normal world",
    "recall": "normal world",
    "npu": "NPU",
    "pages": "pages",
    "storage": "storage",
}

_UNPROTECTED = "nw-base"


def role(track: str, design: str) -> str:
    """Process that shows ``track``; what is not listed is the serving framework's and runs in the world it runs in."""
    return _ROLE_OF.get(track, "normal world" if design == _UNPROTECTED else "secure world")


def lanes(spans: Sequence[Mapping[str, Any]]) -> list[int]:
    """Lane per span so that spans of one lane either follow or enclose each other, as viewers want it."""
    order = sorted(range(len(spans)), key=lambda i: (spans[i]["begin"], -spans[i]["end"]))
    open_ends: list[list[int]] = []
    result = [0] * len(spans)
    for index in order:
        begin, end = spans[index]["begin"], spans[index]["end"]
        for stack in open_ends:
            while stack and stack[-1] <= begin:
                stack.pop()
        lane = next((i for i, stack in enumerate(open_ends) if not stack or end <= stack[-1]), len(open_ends))
        if lane == len(open_ends):
            open_ends.append([])
        open_ends[lane].append(end)
        result[index] = lane
    return result


def chrome_trace(
    timelines: Mapping[str, Sequence[Mapping[str, Any]]],
    counts: Mapping[str, Sequence[tuple[int, Mapping[str, int]]]],
    *,
    clock_hz: int,
) -> dict[str, Any]:
    """Trace of several designs.

    Parameters
    ----------
    timelines
        Per design, its spans (``track name begin end detail``) and instants (``track name at detail``), in cycles.
    counts
        Per design, ``(cycle, {state: pages})`` at each change.
    clock_hz
        What turns cycles into the trace's microseconds.
    """
    scale = 1e6 / clock_hz
    events: list[dict[str, Any]] = []
    for number, (design, timeline) in enumerate(timelines.items()):
        events += _design_events(design, number * len(ROLES) + 1, timeline, counts.get(design, ()), scale)
    return {"traceEvents": events, "displayTimeUnit": "ns", "otherData": {"clock_hz": clock_hz}}


def _design_events(
    design: str,
    first_pid: int,
    timeline: Sequence[Mapping[str, Any]],
    counts: Sequence[tuple[int, Mapping[str, int]]],
    scale: float,
) -> Iterator[dict[str, Any]]:
    pids = {name: first_pid + i for i, name in enumerate(ROLES)}
    used = {role(entry["track"], design) for entry in timeline} | ({"pages"} if counts else set())
    for name in ROLES:
        if name in used:
            yield _meta("process_name", pids[name], 0, name=f"{design}: {name}")
            yield _meta("process_sort_index", pids[name], 0, sort_index=pids[name])
    tid = 0
    for track in dict.fromkeys(entry["track"] for entry in timeline):
        pid = pids[role(track, design)]
        spans = [entry for entry in timeline if entry["track"] == track and "end" in entry]
        chosen = lanes(spans)
        tids = {lane: tid + 1 + lane for lane in range(max(chosen, default=0) + 1)}
        tid += len(tids)
        for lane, number in tids.items():
            yield _meta("thread_name", pid, number, name=track if lane == 0 else f"{track} ({lane + 1})")
            yield _meta("thread_sort_index", pid, number, sort_index=number)
        for span, lane in zip(spans, chosen, strict=True):
            yield {
                "ph": "X", "name": span["name"], "cat": track, "pid": pid, "tid": tids[lane],
                "ts": span["begin"] * scale, "dur": (span["end"] - span["begin"]) * scale,
                "args": {"cycles": span["end"] - span["begin"], "begin": span["begin"], **span.get("detail", {})},
            }  # fmt: skip
        yield from _instants((e for e in timeline if e["track"] == track and "at" in e), pid, tids[0], scale)
    for cycle, states in counts:
        yield {"ph": "C", "name": "pages by state", "pid": pids["pages"], "ts": cycle * scale, "args": dict(states)}


def _instants(entries: Iterable[Mapping[str, Any]], pid: int, tid: int, scale: float) -> Iterator[dict[str, Any]]:
    for entry in entries:
        yield {
            "ph": "i", "s": "t", "name": entry["name"], "cat": entry["track"], "pid": pid, "tid": tid,
            "ts": entry["at"] * scale, "args": {"cycle": entry["at"], **entry.get("detail", {})},
        }  # fmt: skip


def _meta(kind: str, pid: int, tid: int, **arguments: Any) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": arguments}

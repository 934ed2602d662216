"""Places in memory as runs of what lies one behind the other, so that a run is moved as a whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Places", "Reach", "Reached"]

Places = npt.NDArray[np.int64]
"""Offsets in memory, or places of a shape."""

_FEW_RUNS, _LONG_RUN = 4, 8
"""Runs that are moved one by one, and how many things a run has on average for any number of them to be; if there are
more, things are picked by their places.
"""


class Reach:
    """Things of ``size`` bytes by their places, in order.

    ``starts`` is where each run of them begins, ``edges`` how many things come before each run, and before the end;
    ``lengths`` are the bytes of each run.
    """

    def __init__(self, starts: Places, edges: list[int], size: int) -> None:
        self.starts, self.edges, self.size = starts, edges, size
        every = np.array(edges, np.int64)
        self.lengths: Places = (every[1:] - every[:-1]) * size

    @classmethod
    def of_things(cls, places: Places, size: int) -> Reach:
        """Things that are given one by one."""
        breaks = np.flatnonzero(places[1:] - places[:-1] != size) + 1
        edges = [0, *breaks.tolist(), len(places)]
        return cls(places[edges[:-1]], edges, size)

    @classmethod
    def of_runs(cls, starts: Places, counts: Places, size: int) -> Reach:
        """Things that are given as runs, so many of them from each start on."""
        breaks = np.flatnonzero(starts[1:] - starts[:-1] != counts[:-1] * size) + 1
        edges = [0, *np.cumsum(counts)[breaks - 1].tolist(), int(counts.sum())]
        return cls(starts[[0, *breaks.tolist()]], edges, size)

    def __len__(self) -> int:
        return len(self.starts)


class Reached:
    """Things of a :class:`Reach` where they are in memory, whose items have ``item`` bytes."""

    def __init__(self, reach: Reach, starts: Places, item: int) -> None:
        step, edges = reach.size // item, reach.edges
        self._index: Places | None = None
        self._edges = [edge * step for edge in edges]
        self._slices: list[slice] = []
        if len(reach) > max(_FEW_RUNS, edges[-1] // _LONG_RUN):
            behind = np.arange(edges[-1]) - np.repeat(edges[:-1], np.diff(edges))
            self._index = np.repeat(starts // item, np.diff(edges)) + behind * step
            return
        for first, begin, end in zip((starts // item).tolist(), self._edges, self._edges[1:], strict=False):
            self._slices.append(slice(first, first + end - begin))

    def take(self, memory: npt.NDArray[Any], every: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """The things, end to end; ``every`` gives the things that begin at each item of memory."""
        if self._index is not None:
            return every()[self._index]
        if len(self._slices) == 1:
            return memory[self._slices[0]]
        return np.concatenate([memory[part] for part in self._slices])

    def put(self, memory: npt.NDArray[Any], things: npt.NDArray[Any]) -> None:
        """Put things of one item each there."""
        if self._index is not None:
            memory[self._index] = things
            return
        for part, begin, end in zip(self._slices, self._edges, self._edges[1:], strict=False):
            memory[part] = things[begin:end]

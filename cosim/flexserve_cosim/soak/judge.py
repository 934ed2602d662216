"""Judges a finished simulation: splits its records into episodes and holds each to the golden model."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flexserve_hw.params import FlexMemParams
from flexserve_sw.regs import RecallResult

from .records import Flag, Kind, load
from .replay import Replay
from .verdicts import check

__all__ = ["judge"]


def judge(folder: Path, params: FlexMemParams) -> Counter[str]:
    """Check the records in ``folder``; return what was seen. Raises :class:`~.records.Mismatch`."""
    transactions, events = load(folder)
    seen: Counter[str] = Counter()
    resets = np.flatnonzero(events["kind"] == Kind.RESET)
    bounds = [*resets.tolist(), len(events)]
    for first, end in pairwise(bounds):
        begin = int(events["cycle"][first])
        limit = int(events["cycle"][end]) if end < len(events) else None
        part = _between(transactions["accepted"], begin, limit)
        replay = Replay(params)
        replay.run(events[first:end])
        seen += check(replay, transactions[part])
        seen["cold reset" if events["a"][first] else "warm reset"] += 1
    seen["transactions"] = len(transactions)
    seen["transactions answered"] = int((transactions["flags"] & Flag.ABORTED == 0).sum())
    seen["cycles"] = int(events["cycle"][-1])
    results = tuple(f" {result.name}" for result in RecallResult)
    seen["commands"] = sum(
        count for name, count in seen.items() if name.startswith("command ") and name.endswith(results)
    )
    return seen


def _between(cycles: npt.NDArray[Any], begin: int, end: int | None) -> slice:
    last = len(cycles) if end is None else int(np.searchsorted(cycles, end, side="left"))
    return slice(int(np.searchsorted(cycles, begin, side="left")), last)

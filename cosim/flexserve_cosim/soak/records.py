"""The records that a simulation leaves, as numpy arrays; their layout is that of ``records.h``."""

from __future__ import annotations

from enum import IntEnum, IntFlag
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Events", "Flag", "Kind", "Mismatch", "Transactions", "load"]

Transactions = npt.NDArray[np.void]
Events = npt.NDArray[np.void]

TRANSACTION = np.dtype(
    [
        *((name, "<u8") for name in ("accepted", "forwarded", "landed", "answered")),
        *((name, "<u4") for name in ("address", "number")),
        *((name, "<u2") for name in ("id", "flags")),
        *((name, "u1") for name in ("write", "length", "size", "burst", "prot", "nsaid", "master", "response")),
        ("waited", "<u4"),
    ]
)
EVENT = np.dtype([("cycle", "<u8"), ("b", "<u8"), ("kind", "<u4"), ("a", "<u4"), ("c", "<u4"), ("d", "<u4")])


class Flag(IntFlag):
    """What else happened to a transaction."""

    ABORTED = 1
    MEMORY_ERROR = 2
    LYING_LAST = 4
    INTERLEAVED = 8
    DATA_FIRST = 16
    MISSED = 32


class Kind(IntEnum):
    """Kinds of events; see ``records.h``."""

    RESET = 1
    ACCESS = 2
    PAGE = 3
    EXPIRED = 4
    DECISION = 5
    INTERRUPT = 6
    SCRUB = 7
    SCRUB_ERROR = 8
    QUIET = 9
    END = 10


class Mismatch(Exception):
    """The filter did something else than the golden model; says what and in which cycle."""


def load(folder: Path) -> tuple[Transactions, Events]:
    """Both files of a run, whole records only, transactions in the order of acceptance."""
    transactions: Any = _whole(folder / "transactions.bin", TRANSACTION)
    return transactions[np.argsort(transactions["accepted"], kind="stable")], _whole(folder / "events.bin", EVENT)


def _whole(path: Path, dtype: np.dtype[np.void]) -> npt.NDArray[np.void]:
    data = path.read_bytes()
    return np.frombuffer(data[: len(data) // dtype.itemsize * dtype.itemsize], dtype)

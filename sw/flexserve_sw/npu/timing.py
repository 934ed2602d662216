"""Estimate of how long a job takes, for the transaction-level machine."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence

from ..machine import BEAT_BYTES
from .descriptors import Caps, Descriptor, Fence, Load, Matmul, Store

__all__ = ["job_cycles"]

_DISPATCH = 6
"""Cycles from descriptor to descriptor in the dispatcher."""

_FILL = 4
"""Array cycles beyond N from the last row to its sum being in the accumulators."""


def job_cycles(descriptors: Sequence[Descriptor], caps: Caps, *, latency: int = 60) -> int:
    """Cycles from doorbell to interrupt with memory ``latency`` cycles and no other traffic.

    The three units are played as three timelines coupled by tokens: a load takes a cycle per beat (per word where the
    array is narrower than the bus), a matmul max(M, N) cycles per tile, a store a cycle per beat; memory latency is
    paid when a unit starts on a free bus and at the end of a store.
    """
    load_free = execute_free = store_free = 0
    dispatch = latency + 2 * _DISPATCH
    tokens: dict[str, deque[int]] = defaultdict(deque)
    answered = 0

    def take(flag: bool, link: str, at: int) -> int:
        return max(at, tokens[link].popleft()) if flag and tokens[link] else at

    for descriptor in descriptors:
        dispatch += _DISPATCH
        match descriptor:
            case Fence():
                dispatch = max(dispatch, load_free, execute_free, answered)
            case Load(rows=rows, row_bytes=row_bytes):
                start = take(descriptor.wait_next, "el", max(dispatch, load_free - latency))
                beats = rows * -(-row_bytes // BEAT_BYTES)
                words = rows * caps.tiles(row_bytes)
                load_free = max(start + latency, load_free) + max(beats, words)
                if descriptor.signal_next:
                    tokens["le"].append(load_free)
            case Matmul(m=m, k=k, n=n):
                start = take(descriptor.wait_prev, "le", max(dispatch, execute_free))
                start = take(descriptor.wait_next, "se", start)
                execute_free = start + caps.tiles(k) * caps.tiles(n) * max(m, caps.n) + 2
                if descriptor.signal_prev:
                    tokens["el"].append(execute_free)
                if descriptor.signal_next:
                    tokens["es"].append(execute_free + caps.n + _FILL)
            case Store(rows=rows, n=n):
                start = take(descriptor.wait_prev, "es", max(dispatch, store_free))
                store_free = start + rows * -(-4 * n // BEAT_BYTES)
                answered = store_free + latency
                if descriptor.signal_prev:
                    tokens["se"].append(store_free)
    return max(dispatch, load_free, execute_free + caps.n + _FILL, answered)

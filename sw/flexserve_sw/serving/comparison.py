"""Every product held beside the reference, value by value."""

from __future__ import annotations

import numpy as np

from ..integers import exact_product
from ..llm.arithmetic import Int8, Int32
from ..llm.image import ImageTensors

__all__ = ["Comparison"]

_MOST = 16
"""Products with one matrix that are compared at once, as the reference is quicker with many rows."""


class Comparison:
    """Compares products with those of the reference, some rows of a matrix at a time, and all when it is asked."""

    def __init__(self, reference: ImageTensors) -> None:
        self._reference = reference
        self._waiting: dict[str, tuple[list[Int8], list[Int32]]] = {}
        self._compared = self._wrong = 0

    def add(self, name: str, x: Int8, sums: Int32) -> None:
        """Note that ``x`` times the matrix ``name`` was found to be ``sums``; neither is to be changed any more."""
        waiting = self._waiting.setdefault(name, ([], []))
        waiting[0].append(x)
        waiting[1].append(sums)
        if len(waiting[0]) == _MOST or len(x) >= _MOST:
            self._compare(name)

    def _compare(self, name: str) -> None:
        left, found = self._waiting.pop(name)
        # Not as the reference multiplies row by row: what it would keep of a matrix for that is large and used seldom.
        self.check(np.concatenate(found), exact_product(np.concatenate(left), self._reference.matrix(name)))

    def check(self, sums: Int32, right: Int32) -> None:
        """Compare sums of another product with what they should be."""
        self._compared += sums.size
        self._wrong += int(np.count_nonzero(sums != right))

    def finish(self) -> None:
        """Compare what was not compared yet."""
        for name in [*self._waiting]:
            self._compare(name)

    @property
    def compared(self) -> int:
        """Values compared."""
        self.finish()
        return self._compared

    @property
    def wrong(self) -> int:
        """Values that differ."""
        self.finish()
        return self._wrong

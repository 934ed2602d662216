"""Exact products of int8 matrices, quickly: integers in a float type that holds every partial sum."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["FLOAT32_TERMS", "as_exact_float", "exact_product"]

FLOAT32_TERMS = 1 << 10
"""Terms of a sum of int8 products that float32 holds exactly: 128 * 128 * 1024 = 2**24."""

_ALONE = 1 << 18
"""Multiplications up to which a BLAS takes no threads."""

_LARGE = 1 << 27
"""Multiplications from which on its threads are worth what they take: milliseconds of spinning on a busy machine."""


def _exact(terms: int) -> type[np.float32] | type[np.float64]:
    """The float type that holds sums of so many products of int8 exactly."""
    return np.float32 if terms <= FLOAT32_TERMS else np.float64


def as_exact_float(matrix: npt.NDArray[np.int8]) -> npt.NDArray[Any]:
    """The right side ``[K, N]`` of many products as :func:`exact_product` takes it at its quickest.

    A large matrix stays what it is: reading it as floats from memory would take longer than converting it in the cache.
    """
    return matrix.astype(_exact(len(matrix))) if matrix.size <= _ALONE else matrix


def exact_product(left: npt.NDArray[np.int8], right: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """``left[T, K]`` times int8 ``right[K, N]``, or what :func:`as_exact_float` made of it.

    The result is exact, so it does not depend on the order of the sums.
    """
    kind = _exact(len(right))
    wide = left.astype(kind)
    if right.dtype == kind and not _ALONE < len(left) * right.size < _LARGE:
        result: npt.NDArray[np.int32] = (wide @ right).astype(np.int32)
        return result
    sums = np.empty((len(left), right.shape[1]), kind)
    columns = max(1, min(right.shape[1], _ALONE // len(right)))
    rows = max(1, _ALONE // (len(right) * columns))
    for n in range(0, right.shape[1], columns):
        block = right[:, n : n + columns].astype(kind, copy=False)
        for t in range(0, len(left), rows):
            np.matmul(wide[t : t + rows], block, out=sums[t : t + rows, n : n + columns])
    return sums.astype(np.int32)

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


def as_exact_float(matrix: npt.NDArray[np.int8]) -> npt.NDArray[Any]:
    """The right side ``[K, N]`` of a product, in the float type that holds sums over K exactly."""
    return matrix.astype(np.float32 if len(matrix) <= FLOAT32_TERMS else np.float64)


def exact_product(left: npt.NDArray[np.int8], right: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """``left[T, K]`` times what :func:`as_exact_float` made: the same whatever the order of the sums."""
    wide = left.astype(right.dtype)
    if not _ALONE < len(left) * right.size < _LARGE:
        sums = wide @ right
    else:
        sums = np.empty((len(left), right.shape[1]), right.dtype)
        columns = max(1, min(right.shape[1], _ALONE // len(right)))
        rows = max(1, _ALONE // (len(right) * columns))
        for n in range(0, right.shape[1], columns):
            for t in range(0, len(left), rows):
                np.matmul(
                    wide[t : t + rows], right[:, n : n + columns], out=sums[t : t + rows, n : n + columns]
                )
    result: npt.NDArray[np.int32] = sums.astype(np.int32)
    return result

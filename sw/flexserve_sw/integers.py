"""Exact products of int8 matrices, quickly: integers in a float type that holds every partial sum."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["FLOAT32_TERMS", "as_exact_float", "exact_product"]

FLOAT32_TERMS = 1 << 10
"""Terms of a sum of int8 products that float32 holds exactly: 128 * 128 * 1024 = 2**24."""

_LARGE = 1 << 21
"""Multiplications from which on a BLAS is worth its threads; for less it is far slower on a busy machine."""


def as_exact_float(matrix: npt.NDArray[np.int8]) -> npt.NDArray[Any]:
    """The right side ``[K, N]`` of a product, in the float type that holds sums over K exactly."""
    return matrix.astype(np.float32 if len(matrix) <= FLOAT32_TERMS else np.float64)


def exact_product(left: npt.NDArray[np.int8], right: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """``left[T, K]`` times what :func:`as_exact_float` made: the same whatever the order of the sums."""
    wide = left.astype(right.dtype)
    sums = wide @ right if len(left) * right.size >= _LARGE else np.einsum("tk,kn->tn", wide, right)
    result: npt.NDArray[np.int32] = sums.astype(np.int32)
    return result

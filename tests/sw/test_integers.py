"""Products of int8 matrices are exact, however they are cut into calls of a BLAS."""

import numpy as np
import pytest

from flexserve_sw.integers import FLOAT32_TERMS, as_exact_float, exact_product


@pytest.mark.parametrize("rows", [1, 5, 40])
@pytest.mark.parametrize(("k", "n"), [(1, 1), (96, 360), (512, 700), (1024, 300), (1025, 300), (2, 200_000)])
def test_product_is_exact_from_bytes_and_from_floats(rows: int, k: int, n: int) -> None:
    random = np.random.default_rng(k + rows)
    left, right = (random.integers(-128, 128, shape, dtype=np.int8) for shape in ((rows, k), (k, n)))
    exact = left.astype(np.int64) @ right.astype(np.int64)
    for matrix in (right, as_exact_float(right), right.astype(np.float32 if k <= 1024 else np.float64)):
        sums = exact_product(left, matrix)
        assert sums.dtype == np.int32
        assert np.array_equal(sums, exact)


@pytest.mark.parametrize(("k", "kind"), [(FLOAT32_TERMS, np.float32), (FLOAT32_TERMS + 1, np.float64)])
def test_largest_sums_are_exact_in_the_type_that_is_chosen(k: int, kind: type) -> None:
    least = np.full((3, k), -128, np.int8)
    right = np.full((k, 4), -128, np.int8)
    right[0] = 127
    assert as_exact_float(right).dtype == kind
    assert (exact_product(least, right) == 128 * 128 * (k - 1) - 128 * 127).all()

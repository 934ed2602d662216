"""Every value of every product is compared, whenever it is asked how many were wrong."""

import numpy as np
import pytest

from flexserve_sw.llm import quantise
from flexserve_sw.llm.image import ImageTensors
from flexserve_sw.serving.comparison import Comparison
from tests.sw.llm import tiny


@pytest.mark.parametrize("products", [1, 15, 16, 17, 40])
@pytest.mark.parametrize("rows", [1, 3, 20])
def test_each_wrong_value_counts_in_whatever_product_it_is(products: int, rows: int) -> None:
    random = np.random.default_rng(products)
    model = quantise(tiny.checkpoint(), array=16)
    names = [name for name in model.weights if name.endswith(("o", "down"))]
    comparison = Comparison(ImageTensors(model))
    compared = wrong = 0
    for number in range(products):
        weights = model.weights[names[number % len(names)]]
        x = random.integers(-127, 128, (rows, len(weights)), dtype=np.int8)
        sums = (x.astype(np.int64) @ weights.astype(np.int64)).astype(np.int32)
        changed = number % 3
        sums.reshape(-1)[random.permutation(sums.size)[:changed]] += 1
        comparison.add(names[number % len(names)], x, sums)
        compared, wrong = compared + sums.size, wrong + changed
        if number == 7:
            assert (comparison.compared, comparison.wrong) == (compared, wrong)
    assert (comparison.compared, comparison.wrong) == (compared, wrong)

"""Float32 arithmetic has the same bits in every batch, and is right."""

from __future__ import annotations

import numpy as np
import pytest

from flexserve_sw.errors import UserError
from flexserve_sw.llm import arithmetic as a
from tests.sw.llm import tiny

SEED = 11


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(SEED)


def test_exp_is_correctly_rounded_almost_everywhere() -> None:
    x = np.linspace(-87, 88, 100_001).astype(np.float32)
    right = np.exp(x.astype(np.float64)).astype(np.float32)
    assert (a.exp(x) != right).mean() < 1e-4
    with np.errstate(over="ignore"):
        assert np.array_equal(a.exp(np.float32([-np.inf, 0.0, 1000.0])), np.float32([0.0, 1.0, np.inf]))


def test_ordered_sum_goes_left_to_right_and_zeros_at_the_end_change_nothing(random: np.random.Generator) -> None:
    x = random.standard_normal((3, 77)).astype(np.float32)
    slow = np.zeros(3, np.float32)
    for column in x.T:
        slow = slow + column
    assert np.array_equal(a.ordered_sum(x), slow)
    assert np.array_equal(a.ordered_sum(np.pad(x, ((0, 0), (0, 40)))), slow)


@pytest.mark.parametrize("rows", [1, 2, 7, 64])
def test_a_row_of_a_product_does_not_depend_on_its_batch(random: np.random.Generator, rows: int) -> None:
    x, w = (random.standard_normal(shape).astype(np.float32) for shape in ((64, 50), (50, 33)))
    alone = np.concatenate([a.product(x[i : i + 1], w) for i in range(rows)])
    assert np.array_equal(a.product(x[:rows], w), alone)
    np.testing.assert_allclose(alone, x[:rows].astype(np.float64) @ w, atol=1e-4)


@pytest.mark.parametrize("start", [0, 5])
def test_a_row_of_attention_does_not_depend_on_its_batch(random: np.random.Generator, start: int) -> None:
    q, k, v = (random.standard_normal((20, heads, 8)).astype(np.float32) for heads in (6, 3, 3))
    batch = a.attention(q[start:], k, v, start)
    alone = [a.attention(q[i : i + 1], k[: i + 1], v[: i + 1], i) for i in range(start, 20)]
    assert np.array_equal(batch, np.concatenate(alone))


@pytest.mark.parametrize(("heads", "groups", "size"), [(6, 3, 8), (1, 1, 2), (1, 1, 40), (4, 4, 16)])
@pytest.mark.parametrize(("rows", "start"), [(1, 0), (1, 1), (1, 130), (2, 0), (9, 3)])
def test_sums_of_attention_go_strictly_in_order(
    random: np.random.Generator, heads: int, groups: int, size: int, rows: int, start: int
) -> None:
    q, k, v = (
        random.standard_normal(shape).astype(np.float32)
        for shape in ((rows, heads, size), (start + rows, groups, size), (start + rows, groups, size))
    )
    got = a.attention(q, k, v, start).reshape(rows, heads, size)
    for row in range(rows):
        for head in range(heads):
            group, seen = head // (heads // groups), start + row + 1
            scores = np.zeros(seen, np.float32)
            for d in range(size):
                scores += q[row, head, d] * k[:seen, group, d]
            scores /= np.sqrt(np.float32(size))
            weights = a.exp(scores - scores.max())
            weights /= a.ordered_sum(weights)
            mixed = np.zeros(size, np.float32)
            for position in range(seen):
                mixed += weights[position] * v[position, group]
            assert got[row, head].tobytes() == mixed.tobytes()


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_rows_of_a_large_attention_are_those_of_a_small_one(
    random: np.random.Generator, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    q, k, v = (random.standard_normal((30, heads, 8)).astype(np.float32) for heads in (6, 3, 3))
    whole = a.attention(q, k, v, 0)
    monkeypatch.setattr(a, "_TERMS", 6 * 8 * 30 * rows)
    assert np.array_equal(a.attention(q, k, v, 0), whole)


def test_attention_is_softmax_of_scaled_products(random: np.random.Generator) -> None:
    q, k, v = (random.standard_normal((9, heads, 8)).astype(np.float32) for heads in (4, 2, 2))
    got = a.attention(q, k, v, 0).reshape(9, 4, 8)
    for row in range(9):
        for head in range(4):
            scores = k[: row + 1, head // 2].astype(np.float64) @ q[row, head] / np.sqrt(8)
            weights = np.exp(scores - scores.max())
            np.testing.assert_allclose(got[row, head], weights / weights.sum() @ v[: row + 1, head // 2], atol=1e-5)


def test_rope_turns_each_pair_by_its_angle_across_block_borders(random: np.random.Generator) -> None:
    config = tiny.CONFIG
    start = a.ROPE_BLOCK - 3
    x = random.standard_normal((7, 2, config.head_dim)).astype(np.float32)
    turned = a.rope(x, start, config)
    pair = x.view(np.complex64)
    frequency = config.rope_theta ** (-2.0 * np.arange(config.head_dim // 2) / config.head_dim)
    expected = pair * np.exp(1j * np.outer(np.arange(start, start + 7), frequency))[:, None, :]
    np.testing.assert_allclose(turned.view(np.complex64), expected, atol=1e-5)
    alone = [a.rope(x[i : i + 1], start + i, config) for i in range(7)]
    assert np.array_equal(turned, np.concatenate(alone))


def test_quantised_rows_are_within_half_a_step(random: np.random.Generator) -> None:
    x = random.standard_normal((5, 40)).astype(np.float32) * np.float32([[1e-20], [1], [1e20], [0], [1e-44]])
    q, scale = a.quantise_rows(x)
    assert np.all(np.abs(q.astype(np.float64) * scale[:, None] - x) <= 0.5001 * scale[:, None])
    assert np.array_equal(np.abs(q).max(axis=1), [127, 127, 127, 0, 0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(UserError, match="overflow float32"):
        a.quantise_rows(np.float32([[1.0, bad]]))


def test_dequantise_rounds_after_each_factor() -> None:
    sums = np.int32([[123456789, -7]])
    rows, columns = np.float32([0.1]), np.float32([0.3, 3.0])
    expected = [[np.float32(np.float32(s) * rows[0]) * c for s, c in zip(sums[0], columns, strict=True)]]
    assert np.array_equal(a.dequantise(sums, rows, columns), np.float32(expected))


def test_silu_of_large_values_neither_overflows_nor_warns() -> None:
    x = np.float32([-1000.0, -1.0, 0.0, 1.0, 1000.0])
    got = a.silu_product(x, np.ones_like(x))
    np.testing.assert_allclose(got, [0.0, -0.26894143, 0.0, 0.7310586, 1000.0], rtol=1e-6)

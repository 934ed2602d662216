"""Attention over int8 keys and values: the stated arithmetic, causal, by group, close to float32 in a long context."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from flexserve_sw.llm import Int8KvCache, ModelConfig, default_checkpoint, held_out_text, perplexity, read_checkpoint
from flexserve_sw.llm.arithmetic import Float, Int8, Int32, ordered_sum
from flexserve_sw.llm.attention import attend_float, attend_int8, causal_pairs, score_products, value_products
from flexserve_sw.llm.model import Cache, FreeCpu, Work, drive, generate
from flexserve_sw.llm.reference import KvCache, complete, reference_weights

LONG = ModelConfig(dim=96, hidden=96, layers=1, heads=6, kv_heads=2, vocab=64, seq_len=1024)
"""Three query heads to a head of keys."""


def heads(
    random: np.random.Generator, rows: int, config: ModelConfig = LONG, spread: float = 1.0
) -> tuple[Float, Float, Float]:
    """Queries, keys and values of ``rows`` positions, of sizes whose logarithms differ by ``spread``."""

    def draw(count: int) -> Float:
        size = np.exp(spread * random.standard_normal((rows, count, 1)))
        return (random.standard_normal((rows, count, config.head_dim)) * size).astype(np.float32)

    return draw(config.heads), draw(config.kv_heads), draw(config.kv_heads)


def int8(q: Float, k: Float, v: Float, cuts: list[int], config: ModelConfig = LONG) -> Float:
    """Attention when positions come in batches that end at ``cuts``."""
    cache, parts, start = Int8KvCache(config), [], 0
    for end in cuts:
        part = (x[start:end] for x in (q, k, v))
        parts.append(drive(cache.attend(0, *part, start, cpu=FreeCpu())))
        start = end
    return np.concatenate(parts)


def plainly(q: Float, k: Float, v: Float) -> Float:
    """The last query's attention, head by head, number by number, in the arithmetic that the module states."""

    def quantised(row: Float) -> tuple[np.ndarray, np.float32]:
        scale = np.float32(np.abs(row).max() / np.float32(127))
        return np.rint(row / scale).astype(np.int64), scale

    out = []
    per_group = q.shape[1] // k.shape[1]
    for head in range(q.shape[1]):
        group = head // per_group
        query, q_scale = quantised(q[-1, head])
        keys, values = ([quantised(row) for row in x[:, group]] for x in (k, v))
        scores = np.array([np.float32(key @ query) * q_scale * scale for key, scale in keys], np.float32)
        scores /= np.sqrt(np.float32(q.shape[2]))
        exact = np.exp((scores - scores.max()).astype(np.float64)).astype(np.float32)
        weights, w_scale = quantised(exact * np.array([scale for _, scale in values]))
        assert weights.min() >= 0
        assert weights.max() == 127
        sums = sum(int(w) * value for w, (value, _) in zip(weights, values, strict=True))
        out.append(np.asarray(sums, np.float32) * (w_scale / ordered_sum(exact)))
    return np.concatenate(out)


@pytest.mark.parametrize("seed", range(5))
def test_int8_attention_is_the_stated_arithmetic(seed: int) -> None:
    q, k, v = heads(np.random.default_rng(seed), 40)
    np.testing.assert_allclose(int8(q, k, v, [40])[-1], plainly(q, k, v), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cuts", [list(range(1, 31)), [29, 30], [3, 17, 30]], ids=str)
def test_batches_do_not_change_a_bit(cuts: list[int]) -> None:
    q, k, v = heads(np.random.default_rng(3), 30)
    assert np.array_equal(int8(q, k, v, cuts), int8(q, k, v, [30]))


def test_a_query_sees_nothing_of_later_positions() -> None:
    q, k, v = heads(np.random.default_rng(4), 24)
    before = int8(q, k, v, [24])
    k[12:], v[12:] = 1e6, -1e6
    after = int8(q, k, v, [24])
    assert np.array_equal(before[:12], after[:12])
    assert (before[12:] != after[12:]).any(axis=1).all()


def test_each_query_head_attends_to_the_keys_of_its_own_group() -> None:
    q, k, v = heads(np.random.default_rng(5), 24)
    before = int8(q, k, v, [24]).reshape(24, LONG.heads, -1)
    for changed in (k, v):
        kept = changed[:, 1].copy()
        changed[:, 1] += np.float32(1)
        after = int8(q, k, v, [24]).reshape(before.shape)
        changed[:, 1] = kept
        assert np.array_equal(before[:, :3], after[:, :3])
        assert not np.array_equal(before[:, 3:], after[:, 3:])


def test_a_thousand_positions_that_share_the_probability_are_not_rounded_away() -> None:
    """In steps of 1/127 of probability itself they would be."""
    q, k, v = heads(np.random.default_rng(6), 1000, spread=0.0)
    q *= np.float32(0.5)
    v += np.float32(2)
    whole = drive(attend_float(KvCache(LONG), 0, q, k, v, 0, cpu=FreeCpu()))
    error = np.abs(int8(q, k, v, [1000]) - whole).max(axis=1) / np.abs(whole).max(axis=1)
    assert error[900:].max() < 0.02
    keys = np.repeat(k, 3, axis=1)
    scores = np.einsum("hd,nhd->hn", q[-1], keys) / np.sqrt(np.float32(LONG.head_dim))
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    assert np.rint(probabilities * 127).sum() < 127 * LONG.heads * 0.5


def test_exact_sums_are_those_of_int64() -> None:
    random = np.random.default_rng(7)
    queries, weights = random.integers(-127, 128, (5, 6, 16), np.int8), random.integers(0, 128, (5, 6, 2000), np.int8)
    keys, values = random.integers(-127, 128, (2, 2000, 2, 16), np.int8)
    spread = np.repeat(keys, 3, axis=1).astype(np.int64)
    right = np.einsum("thd,nhd->thn", queries.astype(np.int64), spread)
    assert np.array_equal(score_products(queries, keys, 1999), right)
    seen = np.arange(2000) <= 1500 + np.arange(5)[:, None, None]
    assert np.array_equal(score_products(queries, keys, 1500), np.where(seen, right, 0))
    spread = np.repeat(values, 3, axis=1).astype(np.int64)
    assert np.array_equal(value_products(weights, values), np.einsum("thn,nhd->thd", weights.astype(np.int64), spread))


def test_positions_without_any_value_give_none() -> None:
    q, k, v = heads(np.random.default_rng(8), 6)
    assert not int8(q, k, np.zeros_like(v), [6]).any()
    assert np.isfinite(int8(np.zeros_like(q), np.zeros_like(k), v, [6])).all()


class Elsewhere(Int8KvCache):
    """Notes what is multiplied."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.seen: list[tuple[str, tuple[int, ...]]] = []

    async def scores(self, layer: int, queries: Int8, position: int) -> Int32:
        assert queries.dtype == np.int8
        self.seen.append(("scores", queries.shape))
        return await super().scores(layer, queries, position)

    async def mix(self, layer: int, weights: Int8, position: int) -> Int32:
        assert weights.dtype == np.int8
        assert weights.min() >= 0
        self.seen.append(("mix", weights.shape))
        return await super().mix(layer, weights, position)


@pytest.mark.interpreted
def test_whoever_multiplies_is_asked_for_one_product_of_scores_and_one_of_values_and_charged_for_neither() -> None:
    q, k, v = heads(np.random.default_rng(9), 8)
    counts: Counter[Work] = Counter()

    class CountingCpu:
        def charge(self, work: Work, count: int) -> None:
            counts[work] += count

    cache = Elsewhere(LONG)
    drive(attend_int8(cache, 0, q, k, v, 0, cpu=CountingCpu()))
    assert cache.seen == [("scores", (8, 6, 16)), ("mix", (8, 6, 8))]
    pairs = causal_pairs(LONG.heads, 8, 0)
    assert pairs == 6 * 36
    assert counts == {Work.FLOP: 4 * 8 * 16 * (6 + 2 + 2) + 12 * pairs + 2 * 8 * 96, Work.EXP: pairs}


def test_the_embedded_model_predicts_as_well_with_int8_keys_and_values() -> None:
    texts = held_out_text()[:6]
    whole, quantised = (perplexity(default_checkpoint(), texts, kv=kv) for kv in ("float", "int8"))
    assert quantised == pytest.approx(whole, rel=0.005)
    assert quantised != whole


def test_a_foreign_model_predicts_as_well_with_int8_keys_and_values(shared_data: Path) -> None:
    model = read_checkpoint(shared_data / "stories260K.bin", shared_data / "tok512.bin")
    whole, quantised = (perplexity(model, held_out_text()[:3], kv=kv) for kv in ("float", "int8"))
    assert quantised == pytest.approx(whole, rel=0.01)


def test_an_answer_tells_which_arithmetic_it_came_from() -> None:
    embedded, prompt = default_checkpoint(), "Once upon a time"

    def answer(cache: Cache) -> tuple[int, ...]:
        tokens = embedded.tokenizer.encode(prompt)
        weights, cpu = reference_weights(embedded), FreeCpu()
        stops = embedded.tokenizer.stops
        return tuple(drive(generate(embedded.config, tokens, 24, weights=weights, cache=cache, cpu=cpu, stops=stops)))

    whole, quantised = answer(KvCache(embedded.config)), answer(Int8KvCache(embedded.config))
    assert whole != quantised
    assert complete(embedded, prompt, 24, kv="float").tokens == whole
    assert complete(embedded, prompt, 24, kv="int8").tokens == quantised

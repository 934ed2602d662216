"""The forward pass: right, the same bits in prefill and decode, and every operation charged."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from flexserve_sw.errors import UserError
from flexserve_sw.llm import arithmetic
from flexserve_sw.llm.checkpoint import Checkpoint
from flexserve_sw.llm.config import ModelConfig
from flexserve_sw.llm.image import ImageTensors, quantise
from flexserve_sw.llm.model import (
    FreeCpu,
    QuantWeights,
    Sampler,
    Work,
    check_length,
    drive,
    forward,
    generate,
)
from flexserve_sw.llm.reference import Arithmetic, KvCache, complete, perplexity, reference_weights
from tests.sw.llm import tiny

TOKENS = [1, 270, 261, 33, 279, 260, 265, 40, 271, 262]
BOTH: list[Arithmetic] = ["float32", "int8"]


class CountingCpu:
    """Adds up what it is charged."""

    def __init__(self) -> None:
        self.counts: Counter[Work] = Counter()

    def charge(self, work: Work, count: int) -> None:
        assert count > 0
        self.counts[work] += count


def _logits(model: Checkpoint, arithmetic_: Arithmetic, cuts: Sequence[int]) -> np.ndarray:
    """Logits of every row when the tokens come in batches that end at ``cuts``."""
    cache, rows, start = KvCache(model.config), [], 0
    weights = reference_weights(model, arithmetic_)
    for end in cuts:
        rows.append(
            drive(
                forward(
                    model.config, TOKENS[start:end], start, weights=weights, cache=cache, cpu=FreeCpu(), every_row=True
                )
            )
        )
        start = end
    return np.concatenate(rows)


def _plainly(model: Checkpoint) -> np.ndarray:
    """The architecture in float64, one token at a time, with complex rotations and BLAS."""
    c, t = model.config, {name: tensor.astype(np.float64) for name, tensor in model.tensors.items()}

    def norm(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x * x).mean() + c.norm_eps) * weight

    def turn(x: np.ndarray, position: int) -> np.ndarray:
        angle = position * c.rope_theta ** (-2.0 * np.arange(c.head_dim // 2) / c.head_dim)
        return (x.reshape(-1, c.head_dim // 2, 2).view(np.complex128)[..., 0] * np.exp(1j * angle)).view(np.float64)

    cache: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in range(c.layers)]
    out = []
    for position, token in enumerate(TOKENS):
        x = t["embedding"][token]
        for i in range(c.layers):
            p = f"layers.{i}."
            n = norm(x, t[p + "attention_norm"])
            q, k = turn(t[p + "q"] @ n, position), turn(t[p + "k"] @ n, position)
            cache[i].append((k, (t[p + "v"] @ n).reshape(c.kv_heads, -1)))
            heads = []
            for head in range(c.heads):
                group = head // (c.heads // c.kv_heads)
                keys, values = (np.stack([row[part][group] for row in cache[i]]) for part in (0, 1))
                scores = np.exp(keys @ q[head] / np.sqrt(c.head_dim))
                heads.append(scores / scores.sum() @ values)
            x = x + t[p + "o"] @ np.concatenate(heads)
            n = norm(x, t[p + "ffn_norm"])
            gate = t[p + "gate"] @ n
            x = x + t[p + "down"] @ (gate / (1 + np.exp(-gate)) * (t[p + "up"] @ n))
        out.append(t["embedding" if c.tied else "classifier"] @ norm(x, t["norm"]))
    return np.stack(out)


@pytest.mark.parametrize("config", [tiny.CONFIG, tiny.UNTIED], ids=["tied", "untied"])
def test_float32_agrees_with_a_plain_float64_model(config: ModelConfig) -> None:
    model = tiny.checkpoint(config)
    np.testing.assert_allclose(_logits(model, "float32", [10]), _plainly(model), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("config", [tiny.CONFIG, tiny.UNTIED], ids=["tied", "untied"])
def test_int8_stays_close_to_float32(config: ModelConfig) -> None:
    model = tiny.checkpoint(config)
    whole, quantised = _logits(model, "float32", [10]), _logits(model, "int8", [10])
    assert np.corrcoef(whole.ravel(), quantised.ravel())[0, 1] > 0.995
    assert not np.array_equal(whole, quantised)


@pytest.mark.parametrize("arithmetic_", BOTH)
@pytest.mark.parametrize("cuts", [list(range(1, 11)), [3, 10], [7, 8, 10]], ids=str)
def test_prefill_and_decode_have_the_same_bits(arithmetic_: Arithmetic, cuts: list[int]) -> None:
    model = tiny.checkpoint()
    assert np.array_equal(_logits(model, arithmetic_, cuts), _logits(model, arithmetic_, [10]))


@pytest.mark.interpreted
def test_whoever_multiplies_gets_int8_rows_and_the_reference_gets_its_bits_from_their_int32() -> None:
    model = tiny.checkpoint()
    quantised = quantise(model)
    seen = []

    class Elsewhere(ImageTensors):
        async def product(self, name: str, x: arithmetic.Int8) -> arithmetic.Int32:
            seen.append(name)
            assert x.dtype == np.int8
            await asyncio.sleep(0)
            return (x.astype(np.int64) @ quantised.weights[name].astype(np.int64)).astype(np.int32)

    weights = QuantWeights(tensors=Elsewhere(quantised), cpu=FreeCpu())
    cache = KvCache(model.config)
    logits = asyncio.run(forward(model.config, TOKENS, 0, weights=weights, cache=cache, cpu=FreeCpu(), every_row=True))
    assert np.array_equal(logits, _logits(model, "int8", [10]))
    assert seen == list(model.config.linears)


def test_last_row_alone_is_the_last_of_all_rows() -> None:
    model = tiny.checkpoint()
    weights = reference_weights(model, "int8")
    alone = drive(forward(model.config, TOKENS, 0, weights=weights, cache=KvCache(model.config), cpu=FreeCpu()))
    assert np.array_equal(alone, _logits(model, "int8", [10])[-1:])


def test_decoding_costs_what_prefill_costs_but_for_the_classifier() -> None:
    model = tiny.checkpoint()

    def cost(cuts: Sequence[int]) -> Counter[Work]:
        cpu, cache, start = CountingCpu(), KvCache(model.config), 0
        weights = QuantWeights(tensors=ImageTensors(quantise(model)), cpu=cpu)
        for end in cuts:
            drive(
                forward(model.config, TOKENS[start:end], start, weights=weights, cache=cache, cpu=cpu, every_row=True)
            )
            start = end
        return cpu.counts

    assert cost([10]) == cost(range(1, 11))
    assert cost([10])[Work.EXP] == tiny.CONFIG.layers * (tiny.CONFIG.heads * 55 + 10 * tiny.CONFIG.hidden)


def test_answer_is_the_same_token_by_token_and_stops_before_a_stop_token() -> None:
    model = tiny.checkpoint()
    heard: list[int] = []

    async def listen(token: int) -> None:
        heard.append(token)

    def answer(stops: frozenset[int]) -> list[int]:
        heard.clear()
        return drive(
            generate(
                model.config, TOKENS, 12, weights=reference_weights(model), cache=KvCache(model.config), cpu=FreeCpu(),
                stops=stops, on_token=listen,
            )
        )  # fmt: skip

    free = answer(frozenset())
    assert len(free) == 12
    assert heard == free
    stop = free[5]
    assert answer(frozenset({stop})) == free[: free.index(stop)] == heard


def test_sampling_repeats_by_seed_and_cools_down_to_greedy() -> None:
    model = tiny.checkpoint()

    def text(temperature: float, seed: int) -> str:
        return complete(model, "abc", 20, choose=Sampler(temperature=temperature, seed=seed)).text

    assert text(2.0, 1) == text(2.0, 1)
    assert len({text(2.0, seed) for seed in range(5)}) > 1
    assert text(1e-3, 3) == complete(model, "abc", 20).text
    with pytest.raises(ValueError, match=r"temperature must be above 0 .*, not 0.0"):
        Sampler(temperature=0.0, seed=1)


def test_sampling_follows_the_probabilities() -> None:
    sampler = Sampler(temperature=1.0, seed=5)
    logits = np.log(np.float32([0.5, 0.25, 0.125, 0.125]))
    shares = np.bincount([sampler(logits) for _ in range(4000)], minlength=4) / 4000
    np.testing.assert_allclose(shares, [0.5, 0.25, 0.125, 0.125], atol=0.03)


@pytest.mark.parametrize(
    ("prompt", "count", "message"),
    [(0, 5, "empty"), (48, 1, "shorten the prompt"), (40, 9, "ask for 1 to 8"), (40, 0, "ask for 1 to 8")],
)
def test_what_does_not_fit_the_context_is_refused(prompt: int, count: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_length(tiny.CONFIG, [5] * prompt, count)


def test_the_whole_context_can_be_used() -> None:
    check_length(tiny.CONFIG, [5] * 40, 8)
    model = tiny.checkpoint()
    assert len(complete(model, "a" * 20, 48 - len(model.tokenizer.encode("a" * 20))).tokens) > 0


def test_rows_outside_the_context_are_refused() -> None:
    model = tiny.checkpoint()
    with pytest.raises(ValueError, match=r"within the context of 48, not 10 at 39"):
        drive(
            forward(
                model.config, TOKENS, 39, weights=reference_weights(model), cache=KvCache(model.config), cpu=FreeCpu()
            )
        )


@pytest.mark.parametrize("arithmetic_", BOTH)
def test_weights_that_make_values_overflow_are_refused(arithmetic_: Arithmetic) -> None:
    model = tiny.checkpoint()
    huge = {name: tensor * np.float32(1e30) for name, tensor in model.tensors.items()}
    model = Checkpoint(name="huge", config=model.config, tensors=huge, tokenizer=model.tokenizer)
    with pytest.raises(UserError, match="overflow float32"):
        complete(model, "abc", 4, arithmetic=arithmetic_)


def test_driving_a_coroutine_that_waits_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="only a machine can run it"):
        drive(asyncio.sleep(0))


def test_perplexity_of_a_model_that_knows_nothing_is_its_vocabulary() -> None:
    model = tiny.checkpoint()
    blank = {name: np.zeros_like(tensor) for name, tensor in model.tensors.items()}
    model = Checkpoint(name="blank", config=model.config, tensors=blank, tokenizer=model.tokenizer)
    assert perplexity(model, ["abc he", "cab."], arithmetic="float32") == pytest.approx(model.config.vocab)
    with pytest.raises(ValueError, match="at least one text"):
        perplexity(model, [])

"""The flash image holds what the reference computes with, laid out as NPU and bus want it."""

from __future__ import annotations

import numpy as np
import pytest

from flexserve_sw.errors import UserError
from flexserve_sw.llm.arithmetic import quantise_rows
from flexserve_sw.llm.config import ModelConfig
from flexserve_sw.llm.image import INT32_SAFE_K, ImageTensors, TensorKind, quantise
from flexserve_sw.llm.model import drive
from flexserve_sw.machine import BEAT_BYTES
from tests.sw.llm import tiny

SEED = 3


@pytest.mark.parametrize("array", [4, 8, 16, 32])
def test_packed_tiles_hold_every_weight_in_the_place_that_the_npu_reads(array: int) -> None:
    model = quantise(tiny.checkpoint(), array=array)
    for name, weights in model.weights.items():
        segment, tensor = model.find(name)
        assert tensor.kind is TensorKind.TILES
        packed = np.frombuffer(segment.raw(tensor), np.int8)
        depth, width = weights.shape
        k, n = np.meshgrid(np.arange(depth), np.arange(width), indexing="ij")
        word = ((n // array) * -(-depth // array) + k // array) * array + k % array
        assert np.array_equal(packed[word * array + n % array], weights), name
        assert packed.size == -(-depth // array) * -(-width // array) * array * array


def test_every_tensor_begins_on_a_beat_and_none_overlap() -> None:
    model = quantise(tiny.checkpoint())
    for segment in model.segments:
        end = 0
        for tensor in segment.tensors:
            assert tensor.offset % BEAT_BYTES == 0
            assert tensor.offset >= end
            end = tensor.offset + tensor.size
        assert end <= len(segment.payload) < end + BEAT_BYTES
        assert len(segment.payload) % BEAT_BYTES == 0


def test_segments_come_in_the_order_of_use_and_hold_every_linear_layer() -> None:
    model = quantise(tiny.checkpoint())
    assert [segment.name for segment in model.segments] == ["embedding", "layers.0", "layers.1", "classifier"]
    assert list(model.weights) == list(model.config.linears)
    assert {name: weights.shape for name, weights in model.weights.items()} == model.config.linears
    assert model.size == sum(len(segment.payload) for segment in model.segments)
    with pytest.raises(KeyError):
        model.find("layers.2.qkv")


def test_scales_and_norms_come_back_exactly() -> None:
    checkpoint = tiny.checkpoint()
    model = quantise(checkpoint)
    tensors = ImageTensors(model)
    for name in model.config.linears:
        columns, scale = quantise_rows(checkpoint.linear(name).T)
        assert np.array_equal(drive(tensors.vector(f"{name}.scale")), scale)
        assert np.array_equal(model.weights[name], columns.T)
    assert np.array_equal(drive(tensors.vector("layers.1.ffn_norm")), checkpoint.tensors["layers.1.ffn_norm"])
    assert np.array_equal(drive(tensors.vector("norm")), checkpoint.tensors["norm"])


def test_rows_of_the_embedding_come_back_from_their_bytes_alone() -> None:
    config = ModelConfig(dim=20, hidden=24, layers=1, heads=2, kv_heads=1, vocab=280, seq_len=8)
    checkpoint = tiny.checkpoint(config)
    model = quantise(checkpoint)
    segment, tensor = model.find("embedding")
    assert tensor.row_bytes == 32
    expected, _ = quantise_rows(checkpoint.tensors["embedding"])
    for token in (0, 17, 279):
        raw = segment.raw(tensor)[token * tensor.row_bytes : (token + 1) * tensor.row_bytes]
        assert np.array_equal(tensor.row(raw), expected[token])
    assert np.array_equal(drive(ImageTensors(model).rows("embedding", [279, 0])), expected[[279, 0]])


@pytest.mark.parametrize("depth", [32, 1024, 1025, 4096])
def test_reference_products_are_exact_at_the_extremes(depth: int) -> None:
    config = ModelConfig(dim=32, hidden=depth, layers=1, heads=4, kv_heads=2, vocab=280, seq_len=8)
    model = quantise(tiny.checkpoint(config))
    weights = model.weights["layers.0.down"]
    weights[:, 0], weights[:, 1] = 127, -127
    random = np.random.default_rng(SEED)
    x = random.integers(-127, 128, (5, depth)).astype(np.int8)
    x[0], x[1] = 127, -127
    got = drive(ImageTensors(model).product("layers.0.down", x))
    assert got.dtype == np.int32
    assert np.array_equal(got, x.astype(np.int64) @ weights.astype(np.int64))


def test_a_layer_too_wide_for_exact_sums_is_refused() -> None:
    config = ModelConfig(dim=2, hidden=INT32_SAFE_K + 1, layers=1, heads=1, kv_heads=1, vocab=280, seq_len=8)
    with pytest.raises(UserError, match="int32 sums could overflow"):
        quantise(tiny.checkpoint(config))


@pytest.mark.parametrize("array", [4, 16, 32])
def test_no_word_of_the_scratchpad_lies_across_two_pages(array: int) -> None:
    odd = ModelConfig(dim=28, hidden=44, layers=1, heads=2, kv_heads=1, vocab=280, seq_len=8)
    for segment in quantise(tiny.checkpoint(odd), array=array).segments:
        assert all(tensor.offset % array == 0 for tensor in segment.tensors)

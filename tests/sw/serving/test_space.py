"""Scattered pages: what the CPU and the NPU see must be what contiguous memory would give."""

import numpy as np
import pytest

from flexserve_sw.fast import FastMachine
from flexserve_sw.machine import PAGE_BYTES, BusFault, Response
from flexserve_sw.npu import (
    Caps,
    Load,
    Requantise,
    Store,
    execute,
    gemm_program,
    pack_parameters,
    pack_weights,
    requantise,
)
from flexserve_sw.platforms import load_platform
from flexserve_sw.serving.products import strides
from flexserve_sw.serving.side import Side
from flexserve_sw.serving.space import NotResident, Space

SEED = 11


def scattered(pages: int, order: np.random.Generator | None, first: int = 0x8_0000) -> Space:
    """A space whose pages lie in shuffled runs, or in a row."""
    space = Space(Side(FastMachine(pages=128, dram_bytes=1 << 19), load_platform(), secure=True))
    frames = np.arange(first, first + 2 * pages)
    if order is not None:
        frames = np.concatenate(order.permutation(frames.reshape(-1, 2)))
    for page in range(pages):
        space.map(page, int(frames[page]))
    return space


@pytest.mark.parametrize("n", [4, 8, 16, 32])
@pytest.mark.parametrize(("m", "k", "columns"), [(1, 172, 344), (5, 96, 96), (37, 172, 64), (64, 33, 130)])
@pytest.mark.parametrize("int8", [False, True])
def test_a_gemm_over_scattered_pages_gives_the_same_sums(n: int, m: int, k: int, columns: int, int8: bool) -> None:
    random = np.random.default_rng(SEED)
    caps = Caps(n=n, a_words=1024, w_words=1024, c_rows=512)
    a_stride, c_stride = strides(k, columns, caps)
    x = random.integers(-128, 128, (m, k), dtype=np.int8)
    w = random.integers(-128, 128, (k, columns), dtype=np.int8)
    packed = pack_weights(w, n)
    w_at = -(-m * a_stride // 64) * 64
    c_at = -(-(w_at + len(packed)) // 128) * 128
    q_at = -(-(c_at + m * c_stride) // 64) * 64
    quantisation = (
        random.integers(-500, 500, columns).astype(np.int32),
        random.integers(0, 1 << 16, columns).astype(np.uint16),
        random.integers(18, 26, columns).astype(np.uint8),
    )
    parameters = pack_parameters(*quantisation, n)
    pages = -(-(q_at + len(parameters)) // PAGE_BYTES)
    space = scattered(pages, random)
    memory: dict[int, bytearray] = {f: bytearray(PAGE_BYTES) for p in range(pages) if (f := space.frame(p)) is not None}

    def read(address: int, length: int) -> bytes:
        page, offset = divmod(address, PAGE_BYTES)
        if page not in memory:
            raise BusFault(address, Response.DECERR)
        return bytes(memory[page][offset : offset + length])

    def write(address: int, payload: bytes) -> None:
        page, offset = divmod(address, PAGE_BYTES)
        if page not in memory:
            raise BusFault(address, Response.DECERR)
        memory[page][offset : offset + len(payload)] = payload

    def put(address: int, payload: bytes) -> None:
        start = 0
        for at, length in space.pieces(address, len(payload)):
            for cut in range(at, at + length, 16):
                write(cut, payload[start + cut - at : start + min(cut - at + 16, length)])
            start += length

    padded = np.zeros((m, a_stride), np.int8)
    padded[:, :k] = x
    put(0, padded.tobytes())
    put(w_at, packed)
    put(q_at, parameters)
    program = gemm_program(
        m=m, k=k, n=columns, a_addr=0, a_stride=a_stride, w_addr=w_at, c_addr=c_at, c_stride=c_stride, caps=caps,
        requantise=Requantise(address=q_at) if int8 else None,
    )  # fmt: skip
    execute(space.scatter(program, caps), read, write, caps)
    raw = b"".join(
        read(cut, min(16, at + length - cut))
        for at, length in space.pieces(c_at, m * c_stride)
        for cut in range(at, at + length, 16)
    )
    sums = x.astype(np.int32) @ w.astype(np.int32)
    if int8:
        values = np.frombuffer(raw, "i1").reshape(m, -1)[:, :columns]
        assert (values == requantise(sums, *(part.astype(np.int64) for part in quantisation))).all()
    else:
        assert (np.frombuffer(raw, "<i4").reshape(m, -1)[:, :columns] == sums).all()


def test_a_program_over_neighbouring_pages_stays_as_it_is_but_for_addresses() -> None:
    caps = Caps()
    space = scattered(16, None)
    program = gemm_program(m=8, k=96, n=96, a_addr=0, a_stride=96, w_addr=4096, c_addr=32768, c_stride=384, caps=caps)
    for before, after in zip(program, space.scatter(program, caps), strict=True):
        if isinstance(before, Load | Store) and isinstance(after, Load | Store):
            assert after.address == 0x8_0000 * PAGE_BYTES + before.address


def test_pieces_cover_a_range_once_and_in_order() -> None:
    space = scattered(12, np.random.default_rng(SEED))
    pieces = list(space.pieces(100 * 16, 9 * PAGE_BYTES))
    assert sum(length for _, length in pieces) == 9 * PAGE_BYTES
    flat = [at + i for at, length in pieces for i in range(0, length, 16)]
    assert flat == [space.physical(100 * 16 + i) for i in range(0, 9 * PAGE_BYTES, 16)]


def test_a_page_that_is_not_in_memory_is_an_error_and_every_mapping_begins_an_epoch() -> None:
    space = scattered(4, None)
    epoch = space.epoch
    frame = space.unmap(2)
    assert (space.frame(2), space.epoch) == (None, epoch + 1)
    with pytest.raises(NotResident, match="Page 2"):
        list(space.pieces(0, 4 * PAGE_BYTES))
    space.map(2, frame)
    assert space.epoch == epoch + 2
    assert list(space.pieces(0, 4 * PAGE_BYTES)) == [(0x8_0000 * PAGE_BYTES, 4 * PAGE_BYTES)]

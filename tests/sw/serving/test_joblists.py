"""Job lists that are made from a pattern are those that would be made anew."""

import numpy as np
import pytest

from flexserve_sw.fast import FastMachine
from flexserve_sw.machine import PAGE_BYTES
from flexserve_sw.npu import Caps, encode_program, gemm_program
from flexserve_sw.platforms import load_platform
from flexserve_sw.serving.joblists import JobLists
from flexserve_sw.serving.products import strides
from flexserve_sw.serving.side import Side
from flexserve_sw.serving.space import NotResident, Space

SIZES = [(1, 96, 192), (5, 180, 96), (1, 96, 192), (20, 64, 40)]


def laid_out(random: np.random.Generator, pages: int) -> Space:
    """A space whose pages lie in runs of one to three, in any order, some beyond 4 GiB."""
    space = Space(Side(FastMachine(pages=128, dram_bytes=1 << 19), load_platform(), secure=True))
    frame, page = 0x8_0000, 0
    while page < pages:
        for _ in range(random.integers(1, 4)):
            if page < pages:
                space.map(page, frame)
                page, frame = page + 1, frame + 1
        frame += int(random.integers(1, 4)) + (int(random.integers(10)) == 0) * 0x10_0000
    return space


@pytest.mark.parametrize("seed", range(20))
def test_list_by_pattern_is_the_list_made_anew_wherever_the_pages_are(seed: int) -> None:
    random = np.random.default_rng(seed)
    caps, space = Caps(), laid_out(random, 400)
    lists = JobLists(space, caps)
    for m, k, n in SIZES * 4:
        a_stride, c_stride = strides(k, n, caps)
        a, w, c = (int(page) * PAGE_BYTES for page in (0, random.integers(40, 300), 20))
        w += int(random.choice([0, 48, 16]))
        size = caps.tiles(k) * caps.tiles(n) * caps.n * caps.n
        program = gemm_program(
            m=m, k=k, n=n, a_addr=a, a_stride=a_stride, w_addr=w, c_addr=c, c_stride=c_stride, caps=caps
        )
        anew = encode_program(space.scatter(program, caps))
        assert lists.gemm(m, k, n, a=(a, a_stride), w=(w, size), c=(c, c_stride)) == anew


def test_list_over_a_page_that_is_not_in_memory_is_not_made() -> None:
    space = laid_out(np.random.default_rng(1), 60)
    space.unmap(41)
    with pytest.raises(NotResident, match="Page 41 "):
        JobLists(space, Caps()).gemm(1, 96, 192, a=(0, 96), w=(40 * PAGE_BYTES, 6 * 12 * 256), c=(PAGE_BYTES, 768))


def test_columns_of_a_result_need_no_page_behind_it() -> None:
    """The last 16 of 64 columns: what is behind the last row's end need not be in memory."""
    caps, space = Caps(), laid_out(np.random.default_rng(2), 60)
    space.unmap(11)
    encoded = JobLists(space, caps).gemm(
        32, 64, 16, a=(0, 64), w=(5 * PAGE_BYTES, 4 * 256), c=(9 * PAGE_BYTES + 48 * 4, 64 * 4)
    )
    program = gemm_program(
        m=32, k=64, n=16, a_addr=0, a_stride=64, w_addr=5 * PAGE_BYTES, c_addr=9 * PAGE_BYTES + 48 * 4, c_stride=64 * 4,
        caps=caps,
    )  # fmt: skip
    assert encoded == encode_program(space.scatter(program, caps))

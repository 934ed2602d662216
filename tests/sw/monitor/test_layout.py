"""Memory map."""

import itertools

import pytest

from flexserve_sw.monitor.layout import Extent, Layout, extents_of, pages_of
from flexserve_sw.monitor.smc import Call, function_id

BASE = 0x8000_0000


def layout(**options: int) -> Layout:
    return Layout(**{"dram_base": BASE, "dram_bytes": 4 << 20, "window_pages": 256, "cma_pages": 64, **options})


def test_parts_tile_memory_without_overlap() -> None:
    made = layout()
    parts = [made.shared, made.bounce(0), made.bounce(1), made.free, made.cma, made.sealed, made.lendable]
    for left, right in itertools.pairwise(parts):
        assert left.end == right.first
    assert parts[0].address == BASE
    assert parts[-1].address + parts[-1].length == BASE + (4 << 20)
    assert made.window.first % 16 == 0
    assert made.ordinary == Extent(made.shared.first, made.cma.first - made.shared.first)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window_pages": 250}, "multiple of 64 pages"),
        ({"window_pages": 960}, "must fit 1024 pages"),
        ({"dram_bytes": 4096 * 1000}, "whole groups of 64 pages"),
        ({"sealed_pages": 256}, "room past the seals"),
    ],
)
def test_a_map_that_does_not_fit_is_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layout(**options)


def test_runs_of_pages_and_back() -> None:
    pages = [5, 6, 7, 9, 3, 4]
    assert extents_of(pages) == [Extent(5, 3), Extent(9, 1), Extent(3, 2)]
    assert list(pages_of(extents_of(pages))) == pages
    with pytest.raises(ValueError, match="at least one page, not"):
        Extent(3, 0)


def test_function_identifiers_follow_the_calling_convention() -> None:
    assert function_id(fast=True, owner=0, number=0) == 0x8000_0000
    assert Call.SMCCC_VERSION == 0x8000_0000
    assert Call.SIP_UID == 0x8200_FF01
    assert Call.GENERATE == 0x3200_0001
    assert len({int(call) for call in Call}) == len(Call)
    with pytest.raises(ValueError, match="Owner must be below 64"):
        function_id(fast=True, owner=64, number=0)

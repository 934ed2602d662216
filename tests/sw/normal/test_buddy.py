"""Buddy allocator against a set of free pages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexserve_sw.monitor.layout import Extent, extents_of
from flexserve_sw.normal import BuddyAllocator, OutOfMemory

AREA = Extent(1000, 100)
"""Neither begin nor size is a power of two."""

steps = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(1, 60)),
        st.tuples(st.just("block"), st.integers(0, 5)),
        st.tuples(st.just("carve"), st.integers(AREA.first, AREA.end - 1)),
        st.tuples(st.just("give"), st.integers(0, 99)),
    ),
    max_size=30,
)


@given(steps)
def test_pages_are_handed_out_once_and_come_back_whole(steps: list[tuple[str, int]]) -> None:
    allocator = BuddyAllocator(AREA, max_order=5)
    free, out = set(AREA.pages()), []
    for what, value in steps:
        try:
            if what == "take":
                taken = allocator.take(value)
                assert sum(extent.count for extent in taken) == value
            elif what == "block":
                taken = [allocator.take_block(value)]
                assert taken[0].count == 1 << value
                assert taken[0].first % taken[0].count == 0
            elif what == "carve":
                allocator.carve(Extent(value, 1))
                taken = [Extent(value, 1)]
            elif out:
                back = out.pop(value % len(out))
                allocator.give(back)
                free.update(back.pages())
                taken = []
            else:
                continue
        except OutOfMemory:
            if what == "take":
                assert value > len(free)
            elif what == "carve":
                assert value not in free
            else:
                # A block of that size would have to lie in one run of free pages.
                aligned = [p for p in free if p % (1 << value) == 0]
                assert not any(set(range(p, p + (1 << value))) <= free for p in aligned)
            continue
        for extent in taken:
            assert set(extent.pages()) <= free
            free -= set(extent.pages())
            out.append(extent)
        assert allocator.free_pages == len(free)
        assert all(allocator.is_free(page) == (page in free) for page in AREA.pages())
    for extent in out:
        allocator.give(extent)
    assert allocator.free_pages == AREA.count


def test_free_neighbours_join_so_that_large_blocks_come_back() -> None:
    allocator = BuddyAllocator(Extent(64, 64))
    pages = [allocator.take_block(0) for _ in range(64)]
    for extent in pages[::2] + pages[1::2]:
        allocator.give(extent)
    assert allocator.take_block(6) == Extent(64, 64)


def test_scattered_memory_is_given_in_the_largest_pieces_there_are() -> None:
    allocator = BuddyAllocator(Extent(0, 64))
    for first in range(0, 64, 16):
        allocator.carve(Extent(first, 4))
    taken = allocator.take(40)
    assert max(extent.count for extent in taken) == 8
    assert len(extents_of(p for e in sorted(taken) for p in e.pages())) <= 4


def test_what_is_not_out_cannot_be_given_back() -> None:
    allocator = BuddyAllocator(AREA)
    extent = allocator.take_block(2)
    for wrong in (Extent(extent.first, 5), Extent(AREA.end, 1), Extent(AREA.first - 1, 1)):
        with pytest.raises(ValueError, match="this allocator's and taken"):
            allocator.give(wrong)
    allocator.give(extent)
    with pytest.raises(ValueError, match="this allocator's and taken"):
        allocator.give(extent)
    with pytest.raises(ValueError, match="must be at least 1"):
        allocator.take(0)

"""Memory of the transaction-level machine: who keeps what it made of some bytes is told before they change."""

import pytest

from flexserve_sw.fast.memory import DRAM_BASE, Channel, Dram, DramTiming
from flexserve_sw.machine import PAGE_BYTES

FIRST = DRAM_BASE // PAGE_BYTES


def memory() -> Dram:
    return Dram(size=8 * PAGE_BYTES, timing=DramTiming(), seed=1)


@pytest.mark.parametrize("how", ["write", "clear", "change"])
def test_watcher_is_told_before_a_page_changes_and_of_no_other(how: str) -> None:
    dram, seen = memory(), []
    dram.write(DRAM_BASE + 3 * PAGE_BYTES, b"before")
    dram.watch([FIRST + 3, FIRST + 5], lambda: seen.append(dram.read(DRAM_BASE + 3 * PAGE_BYTES, 6)))

    def touch(page: int, length: int) -> None:
        at = DRAM_BASE + page * PAGE_BYTES
        if how == "change":
            dram.change(range(FIRST + page, FIRST + page + -(-length // PAGE_BYTES)))
        elif how == "clear":
            dram.clear(at, length)
        else:
            dram.write(at, bytes(length))

    touch(4, PAGE_BYTES)
    touch(1, 2 * PAGE_BYTES)
    assert seen == []
    touch(2, 2 * PAGE_BYTES)
    assert seen == [b"before"]


def test_watcher_is_told_once_until_it_watches_again() -> None:
    dram, seen = memory(), []

    def tell() -> None:
        seen.append(1)

    for times in (1, 2):
        dram.watch([FIRST], tell)
        for _ in range(3):
            dram.write(DRAM_BASE, b"anything")
        assert len(seen) == times


def test_contents_are_shown_and_not_to_be_written_to_past_the_filter() -> None:
    dram = memory()
    dram.write(DRAM_BASE + 7, b"\x01\xff")
    assert dram.memory.bytes[7:9].tolist() == [1, 255]
    assert dram.bytes[7:9].tolist() == [1, -1]
    with pytest.raises(ValueError, match="read-only"):
        dram.memory.bytes[0] = 1


@pytest.mark.parametrize("wanted", [0.0, 0.3, 0.9])
def test_bytes_take_as_long_as_their_share_of_the_direction_says(wanted: float) -> None:
    channel = Channel(latency=60, bytes_per_cycle=8.0)
    channel.wanted = wanted
    for length in (1, 16, 4096):
        assert channel.cycles(length) == max(1, round(length / 8 / (1 - min(wanted, 0.5))))
        assert channel.clear(1000, length) == 1000 + channel.cycles(length)
    assert [channel.clear(5, 4096, after=at) - channel.cycles(4096) for at in (0, 90)] == [5, 90]

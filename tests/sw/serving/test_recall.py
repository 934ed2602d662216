"""Keys and values in flash, tampering, and giving memory back in the order of the cache policy."""

from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from flexserve_sw.designs.phone import Phone
from flexserve_sw.machine import PAGE_BYTES
from flexserve_sw.monitor.layout import Extent
from flexserve_sw.serving.crypto import TamperedPage
from flexserve_sw.serving.image import BadImage
from flexserve_sw.serving.segments import Kind
from tests.sw.phone_bench import serve_fast


class Enough(Exception):
    """A test has seen what it came for."""


def at(point: str, action: Callable[[Phone], Awaitable[None]]) -> Callable[[str, Phone], Awaitable[None]]:
    """A visitor that does something once."""

    async def hook(now: str, phone: Phone) -> None:
        if now == point:
            await action(phone)

    return hook


def kv_flash(phone: Phone) -> np.ndarray:
    """The swap area of flash."""
    assert phone.serving.pager.swap is not None
    return phone.machine.flash.bytes[phone.serving.pager.swap.offset :]


async def out(phone: Phone) -> None:
    """Send every page of keys and values to flash."""
    pager = phone.serving.pager
    kv = [place for place in pager.resident() if place[0].kind is Kind.KV]
    async with pager.lock:
        await pager.source.release(await pager.evict(kv))


def test_what_is_swapped_out_is_ciphertext_and_comes_back_as_it_was() -> None:
    async def look(phone: Phone) -> None:
        pager = phone.serving.pager
        kv = [s for s in pager.segments if s.kind is Kind.KV]
        before = [await phone.serving.space.load(s.address, PAGE_BYTES) for s in kv]
        await out(phone)
        stored = kv_flash(phone).tobytes()
        assert all(len(s.slots) == 1 for s in kv)
        assert all(page[:16] not in stored for page in before)
        for segment, page in zip(kv, before, strict=True):
            async with pager.lock:
                await pager.ensure(segment, range(1))
            assert await phone.serving.space.load(segment.address, PAGE_BYTES) == page
            assert not segment.slots

    result = serve_fast(hook=at("token:3", look))
    assert (result["bit_exact"], result["reference_equal"]) == (True, True)


def test_a_stale_swap_file_is_refused() -> None:
    """The OS keeps an old version of the swap area and puts it back later."""

    async def replay(phone: Phone) -> None:
        pager = phone.serving.pager
        kv = [s for s in pager.segments if s.kind is Kind.KV]
        await out(phone)
        old = kv_flash(phone)[: 16 * PAGE_BYTES].copy()
        for segment in kv:
            async with pager.lock:
                await pager.ensure(segment, range(1))
            await phone.serving.space.store(segment.address, b"newer values 123" * 4)
        await out(phone)
        new = kv_flash(phone)[: 16 * PAGE_BYTES].copy()
        assert (old != new).any()
        kv_flash(phone)[: 16 * PAGE_BYTES] = old
        for segment in kv:
            with pytest.raises(TamperedPage):
                async with pager.lock:
                    await pager.ensure(segment, range(1))
            assert phone.serving.space.frame(segment.first) is None
        refused.append(len(kv))
        raise Enough

    refused: list[int] = []
    with pytest.raises(Enough):
        serve_fast(hook=at("token:3", replay))
    assert refused == [2]


@pytest.mark.parametrize("how", ["flip", "swap"])
def test_changed_or_exchanged_pages_in_the_swap_area_end_the_answer(how: str) -> None:
    async def tamper(phone: Phone) -> None:
        await out(phone)
        area = kv_flash(phone)
        if how == "flip":
            area[100] ^= 1
        else:
            area[: 2 * PAGE_BYTES] = np.concatenate([area[PAGE_BYTES : 2 * PAGE_BYTES], area[:PAGE_BYTES]])

    with pytest.raises(TamperedPage):
        serve_fast(hook=at("token:3", tamper))


@pytest.mark.parametrize(("offset", "error"), [(0, BadImage), (4096 + 5, BadImage), (-4000, TamperedPage)])
def test_a_changed_model_in_flash_is_refused(offset: int, error: type[Exception]) -> None:
    async def tamper(phone: Phone) -> None:
        phone.machine.flash.bytes[offset % phone.image.size] ^= 1

    for design in ("flexserve", "strawman", "strawman-opt"):
        with pytest.raises(error):
            serve_fast(design=design, hook=at("booted", tamper))


def test_weights_changed_in_flash_while_they_were_given_up_are_refused() -> None:
    async def tamper(phone: Phone) -> None:
        async with phone.serving.pager.lock:
            await phone.serving.pager.surrender(8)
        phone.machine.flash.bytes[: phone.image.size] ^= 1

    with pytest.raises(TamperedPage):
        serve_fast(hook=at("token:3", tamper))


def test_keys_and_values_go_first_then_weights_both_from_the_last_layer_on() -> None:
    async def look(phone: Phone) -> None:
        pager = phone.serving.pager
        everything = list(pager.resident())
        async with pager.lock:
            for count in (1, 1, 3, 5):
                before = list(pager.resident())
                assert await pager.surrender(count) == count
                after = set(pager.resident())
                gone.append([place for place in before if place not in after])
            left = sum(segment.kind is not Kind.WORK for segment, _ in pager.resident())
            assert await pager.surrender(10_000) == left
            assert {segment.kind for segment, _ in pager.resident()} == {Kind.WORK}
            assert await pager.surrender(1) == 0
        kinds = [segment.kind for segment, _ in everything]
        assert kinds.count(Kind.KV) == 2

    gone: list[list[tuple[object, int]]] = []
    result = serve_fast(hook=at("token:4", look))
    assert (result["bit_exact"], result["reference_equal"]) == (True, True)
    first = [[segment.name for segment, _ in places] for places in gone]
    assert first[:2] == [["kv.1"], ["kv.0"]]
    assert set(first[2]) == {"classifier"}
    weights = [segment.name for segment, page in (*reversed(gone[2]), *reversed(gone[3]))]
    assert weights == sorted(weights, key=["classifier", "layers.1", "layers.0", "embedding"].index)


def test_a_secure_world_with_almost_no_memory_left_still_answers() -> None:
    """Every segment is brought in for its use and given up for the next."""

    async def starve(phone: Phone) -> None:
        pager = phone.serving.pager
        async with pager.lock:
            least = sum(s.kind is Kind.WORK for s, _ in pager.resident()) + max(s.pages for s in pager.segments) + 1
            await pager.surrender(len(list(pager.resident())) - least)
        phone.os.lend_limit = 0

    result = serve_fast(hook=at("token:2", starve), tokens=5)
    assert (result["bit_exact"], result["reference_equal"]) == (True, True)
    assert result["pages_moved"]["reloaded"] > 20
    assert result["pages_moved"]["swapped_in"] == result["pages_moved"]["swapped_out"] > 1


def test_frames_that_leave_are_zeroed_before_the_os_gets_them() -> None:
    async def look(phone: Phone) -> None:
        pager, dram = phone.serving.pager, phone.machine.dram
        frames = [phone.serving.space.frame(s.first + p) for s, p in pager.resident() if s.kind is not Kind.WORK]
        secrets = [dram.bytes[f * PAGE_BYTES - dram.base :][:PAGE_BYTES].any() for f in frames if f is not None]
        assert sum(secrets) > len(frames) // 2
        async with pager.lock:
            await pager.surrender(len(frames))
        while len(phone.os.flexmem.lent) > len(list(pager.resident())):
            await phone.machine.delay(500)
        for frame in frames:
            assert frame is not None
            assert not dram.bytes[frame * PAGE_BYTES - dram.base :][:PAGE_BYTES].any()

    assert serve_fast(hook=at("token:2", look))["bit_exact"]


def test_working_memory_that_the_os_insists_on_moves_elsewhere() -> None:
    async def insist(phone: Phone) -> None:
        pager = phone.serving.pager
        work = [place for place in pager.resident() if place[0].kind is Kind.WORK]
        for segment, page in (work[0], work[-1]):
            before = phone.serving.space.frame(segment.first + page)
            assert before is not None
            recall = await phone.os.flexmem.recall_range(Extent(before, 1))
            assert recall.pages == [before]
            assert phone.serving.space.frame(segment.first + page) not in (None, before)
        assert pager.statistics.moved == 2

    result = serve_fast(hook=at("token:2", insist))
    assert (result["bit_exact"], result["reference_equal"], result["violations"]) == (True, True, 0)
    assert result["expired_grace_periods"] == 0

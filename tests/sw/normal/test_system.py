"""The OS on a booted phone: what it lends, what it takes back, what it moves."""

import pytest

from flexserve_sw.designs.phone import Phone
from flexserve_sw.drivers.command import CommandRefused
from flexserve_sw.machine import PAGE_BYTES, Initiator
from flexserve_sw.monitor.layout import Extent
from flexserve_sw.monitor.smc import Request, Status
from flexserve_sw.normal import PressureSource, RecallBy, StorageError
from flexserve_sw.regs import RecallCommand, RecallState
from flexserve_sw.serving.pages import FlexPages, NoPages
from tests.sw.phone_bench import on_phone

N, S = Initiator.NORMAL_CPU, Initiator.SECURE_CPU


def pages_source(phone: Phone) -> FlexPages:
    return FlexPages(phone.monitor, phone.timeline, phone.census)


async def settle(phone: Phone) -> None:
    """Let every scrub end and every report be read."""
    while any((await phone.os.flexmem.census()).values()) or phone.os.flexmem.lent:
        await phone.machine.delay(1_000)


@pytest.mark.parametrize(("pages", "at_once"), [(1, 64), (30, 64), (30, 8)])
def test_pages_are_lent_used_and_come_back_zeroed(pages: int, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flexserve_sw.serving.pages._AT_ONCE", at_once)

    async def program(phone: Phone) -> None:
        free = phone.os.window.free_pages
        source = pages_source(phone)
        frames = await source.acquire(pages)
        assert len(set(frames)) == pages
        assert phone.os.flexmem.lent == set(frames)
        for frame in frames:
            await phone.machine.store(frame * PAGE_BYTES, b"\xa5" * PAGE_BYTES, by=S)
        assert (await phone.os.flexmem.census())["lent"] == pages
        await source.release(frames)
        await settle(phone)
        assert phone.os.window.free_pages == free
        for frame in frames:
            assert not any(await phone.machine.load(frame * PAGE_BYTES, PAGE_BYTES, by=N))
        assert phone.census.history[-1]["FLEX"] == phone.census.history[-1]["SCRUBBING"] == 0
        assert max(entry["FLEX"] for entry in phone.census.history) == pages

    on_phone(program)


def test_more_than_the_os_has_or_is_willing_to_lend_is_refused_and_nothing_is_lent() -> None:
    async def program(phone: Phone) -> None:
        source = pages_source(phone)
        for wanted in (phone.os.window.free_pages + 1, 5):
            phone.os.lend_limit = 4 if wanted == 5 else phone.os.lend_limit
            with pytest.raises(NoPages):
                await source.acquire(wanted)
            await settle(phone)
            assert not phone.os.flexmem.lent
        assert len(await source.acquire(4)) == 4

    on_phone(program)


def test_requests_that_make_no_sense_are_answered_with_an_error() -> None:
    async def program(phone: Phone) -> None:
        bounce = phone.plan.layout.bounce(0).address
        expected = {
            (Request.ALLOCATE, (0,)): Status.INVALID_PARAMETER,
            (Request.ALLOCATE, (1, 2)): Status.NOT_SUPPORTED,
            (Request.GROW_REGION, (0,)): Status.INVALID_PARAMETER,
            (Request.GROW_REGION, (1 << 20,)): Status.NO_MEMORY,
            (Request.SHRINK_REGION, (0, 1)): Status.INVALID_PARAMETER,
            (Request.FLASH_READ, (0, bounce, 8)): Status.DEVICE_ERROR,
            (Request.FLASH_READ, (1 << 30, bounce, 16)): Status.DEVICE_ERROR,
            (Request.FLASH_READ, (0, phone.plan.layout.sealed.address, 4096)): Status.DEVICE_ERROR,
        }
        for (request, arguments), status in expected.items():
            assert (await phone.os.serve(request, arguments, 0))[0] == status, request

    on_phone(program)


def test_storage_moves_what_flash_has_and_back() -> None:
    async def program(phone: Phone) -> None:
        address = phone.plan.layout.bounce(1).address
        await phone.os.storage.read(0, address, 8192)
        got = await phone.machine.load(address, 8192, by=N)
        assert got == phone.machine.flash.bytes[:8192].tobytes()
        end = phone.machine.flash.size - 8192
        await phone.os.storage.write(end, address, 8192)
        assert phone.machine.flash.bytes[end:].tobytes() == got
        with pytest.raises(StorageError, match="whole beats"):
            await phone.os.storage.read(8, address, 16)

    on_phone(program)


def test_clearing_the_contiguous_area_moves_every_page_of_it_and_takes_the_platforms_time() -> None:
    async def program(phone: Phone) -> None:
        cma, machine = phone.os.cma, phone.machine
        contents = {}
        for page in list(cma.occupied):
            contents[page] = page.to_bytes(4, "little") * 1024
            await machine.store(page * PAGE_BYTES, contents[page], by=N)
        begin, free = machine.now, phone.os.ordinary.free_pages
        extent = await cma.grow(20)
        moved = [page for page in contents if page in extent.pages()]
        assert cma.migrated == len(moved) == free - phone.os.ordinary.free_pages > 0
        assert not cma.occupied & set(extent.pages())
        slowest = len(moved) * PAGE_BYTES / phone.plan.platform.system.migration_rate.value * machine.clock_hz
        assert machine.now - begin >= slowest
        found = {machine.dram.bytes[i : i + PAGE_BYTES].tobytes() for i in range(0, machine.dram.size, PAGE_BYTES)}
        assert all(contents[page] in found for page in moved)
        with pytest.raises(ValueError, match="must be 1 to"):
            await cma.grow(cma.left + 1)
        with pytest.raises(ValueError, match="must be the last"):
            cma.shrink(Extent(extent.first, 3))

    on_phone(program)


@pytest.mark.parametrize("cooperative", [True, False])
def test_a_range_comes_back_within_the_grace_period_whatever_the_secure_world_does(cooperative: bool) -> None:
    grace = 40_000

    async def program(phone: Phone) -> int:
        assert phone.handler is not None
        frames = await pages_source(phone).acquire(12)
        await phone.machine.store(frames[0] * PAGE_BYTES, b"secret" * 16, by=S)
        if cooperative:

            async def answer() -> None:
                await phone.machine.delay(2_000)
                await pages_source(phone).release(frames)

            phone.machine.spawn(answer(), name="answer")
        pressure = PressureSource(phone.os, RecallBy.RANGE)
        await pressure.squeeze(12)
        assert sorted(pressure.held) == sorted(frames)
        assert not any(await phone.machine.load(frames[0] * PAGE_BYTES, PAGE_BYTES, by=N))
        for frame in frames:
            assert await phone.os.flexmem.state(frame) is RecallState.NORMAL
        assert phone.handler.expired == (0 if cooperative else phone.handler.expired)
        return max(recall.latency for recall in pressure.recalls)

    latency = on_phone(program, grace=grace)
    scrub = 12 * 256 * 2
    assert latency < (grace if cooperative else grace + scrub + 2_000)
    assert cooperative == (latency < grace)


def test_pressure_gives_pages_up_again_and_the_os_lends_as_before() -> None:
    async def program(phone: Phone) -> None:
        free, limit = phone.os.window.free_pages, phone.os.lend_limit
        frames = await pages_source(phone).acquire(8)
        pressure = PressureSource(phone.os, RecallBy.BOTH)
        task = phone.machine.spawn(pressure.squeeze(8), name="squeeze")
        await phone.machine.delay(100)
        await pages_source(phone).release(frames)
        await task.join()
        assert phone.os.lend_limit == 0
        with pytest.raises(ValueError, match="must be 1 to 0"):
            await pressure.squeeze(1)
        pressure.ease()
        assert (phone.os.window.free_pages, phone.os.lend_limit) == (free, limit)

    on_phone(program)


def test_hardware_refuses_what_an_os_may_not_lend() -> None:
    async def program(phone: Phone) -> None:
        layout = phone.plan.layout
        for extent in (
            layout.sealed,
            Extent(layout.window.end - 1, 2),
            Extent(0x10, 1),
            Extent(layout.window.first - 1, 1),
        ):
            with pytest.raises(CommandRefused, match="DELEGATE was refused"):
                await phone.os.flexmem.delegate(extent)
        outcome = await phone.os.flexmem.port.try_command(RecallCommand.ACCEPT, layout.lendable.first, 1)
        assert outcome.result.name == "NOT_PERMITTED"

    on_phone(program)

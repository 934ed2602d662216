"""The monitor on a booted phone."""

import pytest

from flexserve_sw.designs.phone import Phone
from flexserve_sw.machine import PAGE_BYTES, BusFault, Initiator, World
from flexserve_sw.monitor.layout import Extent
from flexserve_sw.monitor.monitor import EXTENT, SLOT_EXTENTS, Refused
from flexserve_sw.monitor.regions import CMA_NORMAL, CMA_SECURE
from flexserve_sw.monitor.smc import Call, Request, Status
from flexserve_sw.regs import FLEX_NORMAL, FLEX_SECURE, TZC, FlexmemSecure, RecallState
from tests.sw.phone_bench import on_phone

N, S, H = Initiator.NORMAL_CPU, Initiator.SECURE_CPU, Initiator.HOSTILE_DEVICE


async def denied(access: object) -> bool:
    try:
        await access
    except BusFault as fault:
        return not any(fault.data)
    return False


def test_after_boot_configuration_is_locked_and_the_secure_worlds_pages_are_sealed() -> None:
    async def program(phone: Phone) -> None:
        control = await phone.machine.read_register(FLEX_SECURE.CONTROL, by=S)
        assert FlexmemSecure.CONTROL__LOCK.get(control)
        assert FlexmemSecure.CONTROL__READY.get(control)
        for page in phone.plan.layout.sealed.pages():
            assert await phone.os.flexmem.state(page) is RecallState.SEALED
            assert await denied(phone.machine.load(page * PAGE_BYTES, 4096, by=N))
            assert await denied(phone.machine.load(page * PAGE_BYTES, 4096, by=H))
        await phone.machine.write_register(FLEX_SECURE.WINDOW_PAGES, 16, by=S)
        assert await phone.machine.read_register(FLEX_NORMAL.WINDOW_PAGES, by=N) == phone.plan.layout.window_pages

    on_phone(program)


def test_everyone_reaches_ordinary_memory_but_secure_accesses() -> None:
    async def program(phone: Phone) -> None:
        address = phone.plan.layout.free.address
        for by in (N, H, S):
            await phone.machine.store(address, bytes([1]) * 16, by=by, world=World.NORMAL)
        assert await denied(phone.machine.load(address, 16, by=S, world=World.SECURE))

    on_phone(program)


def test_calls_identify_the_service_and_unknown_ones_are_not_supported() -> None:
    async def program(phone: Phone) -> None:
        call = phone.monitor.call
        assert await call(Call.SMCCC_VERSION) == (0x10004,)
        assert len(await call(Call.SIP_UID)) == 4
        assert await call(Call.SECURE_REGION) == (Status.OK, phone.plan.layout.cma.first, 0)
        for function in (0, 0xFFFF_FFFF, Call.RESUME, Call.GENERATE, Request.ALLOCATE):
            assert await call(function, 1, 2, 3) == (Status.NOT_SUPPORTED,)
        assert phone.monitor.switches == 2 * 8

    on_phone(program)


def test_a_generate_call_with_bad_arguments_never_reaches_the_secure_world() -> None:
    async def program(phone: Phone) -> list[tuple[int, ...]]:
        reached: list[tuple[int, ...]] = []

        async def secure(call: Call, arguments: tuple[int, ...]) -> tuple[int, ...]:
            reached.append(arguments)
            return (Status.OK, 0)

        phone.monitor.secure = secure
        for arguments in ((), (0,), (1 << 16,), (-1,), (1, 2)):
            assert await phone.monitor.call(Call.GENERATE, *arguments) == (Status.INVALID_PARAMETER,)
        assert await phone.monitor.call(Call.GENERATE, 3) == (Status.OK, 0)
        return reached

    assert on_phone(program) == [(3,)]


@pytest.mark.parametrize(
    ("words", "count", "message"),
    [
        ([(0, 4)], 1, "Pages must lie in"),
        ([("lend", 0)], 1, "must have pages and not wrap"),
        ([(0xFFFF_FFFF, 0xFFFF_FFFF)], 1, "must have pages and not wrap"),
        ([("lend", 3), ("lend", 1)], 2, "must be named once"),
        ([("lend", 5)], 1, "must name 4 pages, not 5"),
        ([("sealed", 4)], 1, "Pages must lie in"),
        ([("last", 4)], 1, "Pages must lie in"),
        ([("lend", 4)], SLOT_EXTENTS + 1, "at most"),
        ([("lend", 4)], -1, "at most"),
    ],
)
def test_a_lying_os_is_refused(words: list[tuple[object, int]], count: int, message: str) -> None:
    async def program(phone: Phone) -> None:
        layout = phone.plan.layout
        places = {"lend": layout.lendable.first, "sealed": layout.sealed.first, "last": layout.window.end - 1}

        async def liar(service: Request, arguments: tuple[int, ...], slot: int) -> tuple[int, ...]:
            raw = b"".join(EXTENT.pack(places.get(first, first), pages) for first, pages in words)
            address = layout.shared.address + slot * PAGE_BYTES // 4
            await phone.machine.store(address, raw + bytes(-len(raw) % 16), by=N)
            return (Status.OK, count)

        phone.monitor.os = liar
        with pytest.raises(Refused, match=message):
            phone.monitor.check_extents(
                await phone.monitor.request(Request.ALLOCATE, 4), inside=layout.lendable, pages=4
            )

    on_phone(program)


def test_the_list_of_pages_is_read_once_and_not_trusted_to_stay() -> None:
    async def program(phone: Phone) -> list[Extent]:
        honest = phone.os.serve

        async def changes_its_mind(service: Request, arguments: tuple[int, ...], slot: int) -> tuple[int, ...]:
            answer = await honest(service, arguments, slot)

            async def overwrite() -> None:
                await phone.machine.delay(1_000)
                await phone.machine.store(phone.plan.layout.shared.address, bytes(PAGE_BYTES), by=N)

            phone.machine.spawn(overwrite(), name="overwrite")
            return answer

        phone.monitor.os = changes_its_mind
        extents = await phone.monitor.request(Request.ALLOCATE, 4)
        await phone.machine.delay(5_000)
        return phone.monitor.check_extents(extents, inside=phone.plan.layout.lendable, pages=4)

    assert sum(extent.count for extent in on_phone(program)) == 4


def test_the_secure_region_grows_and_shrinks_and_is_zeroed_before_the_os_has_it_back() -> None:
    async def program(phone: Phone) -> None:
        machine, area = phone.machine, phone.plan.layout.cma
        with pytest.raises(Refused, match="must follow page"):
            await phone.monitor.grow_region(Extent(area.first + 1, 2))
        for pages in (2, 3):
            before = phone.monitor.regions.secure_cma_pages
            await phone.monitor.grow_region(Extent(area.first + before, pages))
        secret = b"secret of tests." * 256
        await machine.store(area.address + 4 * PAGE_BYTES, secret, by=S)
        assert await machine.load(area.address + 4 * PAGE_BYTES, PAGE_BYTES, by=S) == secret
        for by in (N, H):
            assert await denied(machine.load(area.address + 4 * PAGE_BYTES, PAGE_BYTES, by=by))
            await machine.store(area.address + 5 * PAGE_BYTES, secret[:16], by=by)
        assert await phone.monitor.call(Call.SECURE_REGION) == (Status.OK, area.first, 5)
        assert await phone.monitor.shrink_region(3) == Extent(area.first + 2, 3)
        assert not any(await machine.load(area.address + 2 * PAGE_BYTES, 3 * PAGE_BYTES, by=N))
        assert await denied(machine.load(area.address, PAGE_BYTES, by=N))
        await phone.monitor.shrink_region(2)
        await machine.load(area.address, area.length, by=N)
        await phone.monitor.grow_region(area)
        assert await denied(machine.load(area.address + area.length - 16, 16, by=N))

    on_phone(program)


@pytest.mark.interpreted
def test_no_page_is_in_the_normal_and_the_secure_part_at_once() -> None:
    """Both are looked at after every register write of a moving border."""

    async def program(phone: Phone) -> None:
        machine, area = phone.machine, phone.plan.layout.cma
        write = machine.write_register
        looks = 0

        async def bounds(index: int) -> set[int]:
            region = TZC.REGION[index]
            if not await machine.read_register(region.ATTRIBUTES, by=S) & 1:
                return set()
            base = await machine.read_register(region.BASE_LOW, by=S)
            top = await machine.read_register(region.TOP_LOW, by=S)
            return set(range(base >> 12, (top >> 12) + 1))

        async def write_and_look(address: int, value: int, *, by: Initiator) -> None:
            nonlocal looks
            await write(address, value, by=by)
            assert not await bounds(CMA_NORMAL) & await bounds(CMA_SECURE)
            looks += 1

        machine.write_register = write_and_look
        for pages in (1, 5, area.count, area.count - 1, 2, 0):
            await phone.monitor.regions.split_cma(phone.plan.layout, pages)
            assert len(await bounds(CMA_SECURE)) == pages
            assert len(await bounds(CMA_NORMAL)) == area.count - pages
        assert looks > 10

    on_phone(program)

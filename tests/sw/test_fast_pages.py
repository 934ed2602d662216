"""Pages on the transaction-level machine: what the filter lets through, and when."""

import pytest

from flexserve_sw.fast import FastMachine
from flexserve_sw.machine import PAGE_BYTES, Interrupt, Response, World
from flexserve_sw.regs import FLEX_NORMAL, FLEX_SECURE, TZC, RecallCommand, RecallResult, RecallState
from tests.sw.fast_bench import GRACE, OUTSIDE, PAGES, WINDOW, H, N, S, answer, boot, command, free, lend, run

C, R = RecallCommand, RecallResult
AT = WINDOW * PAGE_BYTES
SECRET = bytes(range(1, 255)) * 32


async def state(machine: FastMachine, page: int) -> RecallState:
    """State by query."""
    await machine.write_register(FLEX_NORMAL.QUERY_PAGE, page, by=N)
    return RecallState(await machine.read_register(FLEX_NORMAL.QUERY_STATE, by=N) & 7)


def test_memory_of_before_power_on_is_unknown_and_the_window_is_zeroed_before_it_is_ready() -> None:
    machines = [FastMachine(pages=128, dram_bytes=1 << 19, seed=seed) for seed in (1, 2, 1)]
    first, second, again = (machine.dram.bytes.tobytes() for machine in machines)
    assert first == again != second

    async def look(machine: FastMachine) -> bytes:
        assert len(await free(machine)) == 0
        return await machine.load(AT, PAGES * PAGE_BYTES, by=N)

    assert not any(run(look))


def test_gate_stays_closed_and_commands_are_out_of_window_until_the_window_is_ready() -> None:
    async def early(machine: FastMachine) -> None:
        await machine.write_register(TZC.REGION[0].ATTRIBUTES, 3 << 30, by=S)
        await machine.write_register(TZC.REGION[0].ID_ACCESS, 0xFFFF_FFFF, by=S)
        await machine.write_register(TZC.ACTION, 1, by=S)
        await machine.write_register(FLEX_SECURE.WINDOW_BASE, WINDOW, by=S)
        await machine.write_register(FLEX_SECURE.WINDOW_PAGES, PAGES, by=S)
        await machine.write_register(TZC.GATE_KEEPER, 1, by=S)
        await machine.write_register(FLEX_SECURE.CONTROL, 2, by=S)
        loads = [machine.spawn(machine.load(OUTSIDE, 64, by=by), name=f"load of {by.value}") for by in (N, S, H)]
        assert await command(machine, C.DELEGATE, WINDOW, by=N) is R.OUT_OF_WINDOW
        assert await machine.read_register(FLEX_NORMAL.WINDOW_PAGES, by=N) == 0
        assert await machine.read_register(TZC.GATE_KEEPER, by=S) == 1
        assert not any(load.done() for load in loads)
        while not await machine.read_register(FLEX_SECURE.CONTROL, by=S) & 4:
            assert not any(load.done() for load in loads)
            await machine.delay(64)
        for load in loads:
            await load.join()
        assert await machine.read_register(TZC.GATE_KEEPER, by=S) == 1 << 16 | 1

    run(early, booted=False)


def test_scrub_of_the_whole_window_shows_how_far_it_has_come() -> None:
    async def early(machine: FastMachine) -> None:
        await machine.write_register(FLEX_SECURE.WINDOW_BASE, WINDOW, by=S)
        await machine.write_register(FLEX_SECURE.WINDOW_PAGES, PAGES, by=S)
        await machine.write_register(FLEX_SECURE.CONTROL, 2, by=S)
        begin, each, latency = machine.now - 2, PAGE_BYTES // 16, 60
        first = machine.dram.base // PAGE_BYTES
        for _ in range(40):
            await machine.delay(300)
            backlog = await machine.read_register(FLEX_NORMAL.SCRUB_BACKLOG, by=N)
            done = (machine.now - 2 - begin - latency) // each
            assert backlog == PAGES - done
            states = [await state(machine, page) for page in (WINDOW + done - 1, WINDOW + done + 1)]
            assert states == [RecallState.NORMAL, RecallState.SCRUBBING]
            assert not machine.dram.bytes[(WINDOW - first) * PAGE_BYTES :][: done * PAGE_BYTES].any()

    run(early, booted=False)


def test_window_that_is_not_all_memory_never_gets_ready() -> None:
    async def early(machine: FastMachine) -> None:
        await machine.write_register(FLEX_SECURE.WINDOW_BASE, WINDOW + 3 * PAGES, by=S)
        await machine.write_register(FLEX_SECURE.WINDOW_PAGES, 2 * PAGES, by=S)
        await machine.write_register(FLEX_SECURE.CONTROL, 2, by=S)
        await machine.delay(1_000_000)
        assert not await machine.read_register(FLEX_SECURE.CONTROL, by=S) & 4
        assert await machine.read_register(FLEX_NORMAL.WINDOW_PAGES, by=N) == 0

    run(early, booted=False)


def test_closed_gate_holds_accesses_until_it_opens() -> None:
    async def program(machine: FastMachine) -> tuple[int, int]:
        await boot(machine, gate=False)
        load = machine.spawn(machine.load(OUTSIDE, 16, by=N), name="early load")
        await machine.delay(5_000)
        assert not load.done()
        opened = machine.now
        await machine.write_register(TZC.GATE_KEEPER, 1, by=S)
        await load.join()
        return opened, machine.now

    opened, done = run(program, booted=False)
    assert 60 < done - opened < 100


def test_gate_status_falls_only_when_accepted_accesses_are_answered() -> None:
    async def program(machine: FastMachine) -> None:
        store = machine.spawn(machine.store(OUTSIDE, bytes(8 * PAGE_BYTES), by=N), name="store")
        await machine.delay(40)
        await machine.write_register(TZC.GATE_KEEPER, 0, by=S)
        assert await machine.read_register(TZC.GATE_KEEPER, by=S) == 1 << 16
        while await machine.read_register(TZC.GATE_KEEPER, by=S):
            pass
        assert store.done()

    run(program)


@pytest.mark.parametrize("action", range(4))
def test_denied_access_gets_zeros_and_changes_nothing_and_answers_by_action(action: int) -> None:
    async def program(machine: FastMachine) -> None:
        await machine.write_register(TZC.ACTION, action, by=S)
        await lend(machine, WINDOW, 2)
        await machine.store(AT, SECRET[: 2 * PAGE_BYTES - 192], by=S)
        response = Response.DECERR if action & 1 else Response.OKAY
        for by in (N, H):
            assert await answer(machine.load(AT, 2 * PAGE_BYTES, by=by)) == (response, bytes(2 * PAGE_BYTES))
            assert (await answer(machine.store(AT, bytes(64), by=by)))[0] is response
        assert (await machine.load(AT, 64, by=S)) == SECRET[:64]
        assert machine.pending(Interrupt.TZC) == bool(action & 2)

    run(program)


def test_secure_access_to_a_normal_page_is_denied_and_one_marked_non_secure_is_not() -> None:
    async def program(machine: FastMachine) -> None:
        assert (await answer(machine.load(AT, 16, by=S)))[0] is Response.DECERR
        assert (await answer(machine.load(AT, 16, by=S, world=World.NORMAL)))[0] is Response.OKAY

    run(program)


def test_access_needs_the_region_side_too() -> None:
    async def program(machine: FastMachine) -> None:
        await lend(machine, WINDOW)
        await machine.write_register(TZC.REGION[0].ATTRIBUTES, 1 << 30, by=S)
        assert (await answer(machine.load(AT, 16, by=S)))[0] is Response.OKAY
        assert (await answer(machine.store(AT, bytes(16), by=S)))[0] is Response.DECERR
        await machine.write_register(TZC.REGION[0].ID_ACCESS, 0xFFFF_FFF7, by=S)
        assert (await answer(machine.load(OUTSIDE, 16, by=H)))[0] is Response.DECERR
        assert (await answer(machine.store(OUTSIDE, bytes(16), by=H)))[0] is Response.OKAY

    run(program)


def test_overlapping_regions_deny_and_are_reported() -> None:
    async def program(machine: FastMachine) -> None:
        for region in TZC.REGION[1:3]:
            await machine.write_register(region.BASE_LOW, OUTSIDE, by=S)
            await machine.write_register(region.TOP_LOW, OUTSIDE, by=S)
            await machine.write_register(region.ID_ACCESS, 0xFFFF_FFFF, by=S)
            await machine.write_register(region.ATTRIBUTES, 3 << 30 | 1, by=S)
        assert (await answer(machine.load(OUTSIDE, 16, by=N)))[0] is Response.DECERR
        assert (await answer(machine.load(OUTSIDE + PAGE_BYTES, 16, by=N)))[0] is Response.OKAY
        assert await machine.read_register(TZC.INT_STATUS, by=S) == 1 << 16 | 1

    run(program)


def test_first_violation_is_kept_until_cleared_and_all_are_counted() -> None:
    async def program(machine: FastMachine) -> None:
        await lend(machine, WINDOW, 2)
        await answer(machine.store(AT + 0x120, bytes(16), by=H))
        await answer(machine.load(AT + PAGE_BYTES, 16, by=N))
        read = machine.read_register
        assert await read(TZC.FAIL_ADDRESS_LOW, by=S) == AT + 0x120
        assert await read(TZC.FAIL_CONTROL, by=S) == 1 << 24 | 1 << 21
        assert await read(TZC.FAIL_ID, by=S) == 3 << 24 | 4 << 3
        assert await read(TZC.INT_STATUS, by=S) == 1 << 8 | 1
        assert await read(FLEX_SECURE.VIOLATIONS, by=S) == 2
        await machine.write_register(TZC.INT_CLEAR, 1, by=S)
        assert await read(TZC.INT_STATUS, by=S) == 0
        await answer(machine.load(AT + PAGE_BYTES, 16, by=N))
        assert await read(TZC.FAIL_ADDRESS_LOW, by=S) == AT + PAGE_BYTES

    run(program)


def test_command_is_reported_only_after_accesses_under_the_old_state_are_answered() -> None:
    async def program(machine: FastMachine) -> None:
        store = machine.spawn(machine.store(AT, SECRET[:PAGE_BYTES], by=N), name="long store")
        await machine.delay(2)
        assert await command(machine, C.DELEGATE, WINDOW + 8, by=N) is R.OK
        assert store.done()

    run(program, dram=None)


def test_recalled_page_comes_back_zeroed_within_grace_and_scrub_and_is_in_the_freed_queue_once() -> None:
    async def program(machine: FastMachine) -> int:
        await machine.write_register(FLEX_NORMAL.IRQ_ENABLE, 2, by=N)
        await lend(machine, WINDOW, 3)
        await machine.store(AT, SECRET[:PAGE_BYTES], by=S)
        assert await machine.read_register(FLEX_NORMAL.LENT, by=N) == 3
        begin = machine.now
        assert await command(machine, C.RECALL, WINDOW, by=N) is R.OK
        assert (await machine.load(AT, 64, by=S)) == SECRET[:64]
        left = await machine.read_register(FLEX_SECURE.TIMER[0].LEFT, by=S)
        assert GRACE - 600 < left < GRACE
        await machine.wait_interrupt(Interrupt.FLEX_NORMAL)
        assert (await answer(machine.load(AT, 64, by=S)))[0] is Response.DECERR
        assert await machine.load(AT, PAGE_BYTES, by=N) == bytes(PAGE_BYTES)
        assert await free(machine) == [WINDOW]
        assert await machine.read_register(FLEX_SECURE.TIMER[0].COUNT, by=S) == 0
        return machine.now - begin

    assert GRACE < run(program) < GRACE + 1_000


def test_recall_by_size_is_paid_by_released_pages_and_says_so() -> None:
    async def program(machine: FastMachine) -> None:
        await machine.write_register(FLEX_SECURE.IRQ_ENABLE, 2, by=S)
        await machine.write_register(FLEX_NORMAL.IRQ_ENABLE, 4, by=N)
        await lend(machine, WINDOW, 4)
        await machine.write_register(FLEX_NORMAL.SIZE_REQUEST, 1, by=N)
        await machine.write_register(FLEX_NORMAL.SIZE_REQUEST, 1, by=N)
        await machine.wait_interrupt(Interrupt.FLEX_SECURE)
        assert await machine.read_register(FLEX_SECURE.SIZE_OWED, by=S) == 2
        assert await command(machine, C.RELEASE, WINDOW + 2, 2, by=S) is R.OK
        await machine.wait_interrupt(Interrupt.FLEX_NORMAL)
        assert await machine.read_register(FLEX_NORMAL.SIZE_REQUEST, by=N) == 0
        assert sorted(await free(machine)) == [WINDOW + 2, WINDOW + 3]

    run(program)


def test_full_freed_queue_holds_the_scrubber_back_and_loses_no_report() -> None:
    async def program(machine: FastMachine) -> None:
        found: list[int] = []
        pages = 32
        for _ in range(3):
            await lend(machine, WINDOW, pages)
            await command(machine, C.RELEASE, WINDOW, pages, by=S)
            await machine.delay(pages * 300)
        assert await machine.read_register(FLEX_NORMAL.FREED_COUNT, by=N) == 64
        assert await machine.read_register(FLEX_NORMAL.SCRUB_BACKLOG, by=N) == pages
        while len(found) < 3 * pages:
            found += await free(machine)
            await machine.delay(600)
        assert sorted(found) == sorted(3 * list(range(WINDOW, WINDOW + pages)))

    run(program)


def test_corrupt_state_denies_everyone_and_raises_an_alarm() -> None:
    async def program(machine: FastMachine) -> None:
        await machine.write_register(FLEX_SECURE.IRQ_ENABLE, 16, by=S)
        machine.soc.filter.pages.table.states[5] = RecallState.CORRUPT
        for by in (N, S):
            assert (await answer(machine.load(AT + 5 * PAGE_BYTES, 16, by=by)))[0] is Response.DECERR
        assert machine.pending(Interrupt.FLEX_SECURE)
        assert await machine.read_register(FLEX_SECURE.ALARM, by=S) == 1
        assert await machine.read_register(FLEX_SECURE.ALARM_PAGE, by=S) == WINDOW + 5
        assert await command(machine, C.DELEGATE, WINDOW + 4, 3, by=N) is R.CORRUPT_STATE

    run(program)


def test_reset_closes_the_gate_and_forgets_the_table() -> None:
    async def program(machine: FastMachine) -> None:
        await lend(machine, WINDOW)
        await machine.store(AT, SECRET[:PAGE_BYTES], by=S)
        await machine.reset()
        load = machine.spawn(machine.load(AT, PAGE_BYTES, by=N), name="after reset")
        await boot(machine)
        assert await load.join() == bytes(PAGE_BYTES)
        assert await state(machine, WINDOW) is RecallState.NORMAL

    run(program)


def test_transfer_under_way_at_reset_ends_with_an_error() -> None:
    async def program(machine: FastMachine) -> None:
        store = machine.spawn(answer(machine.store(OUTSIDE, bytes(16 * PAGE_BYTES), by=N)), name="cut off")
        await machine.delay(100)
        await machine.reset()
        assert (await store.join())[0] is Response.SLVERR

    run(program)


@pytest.mark.parametrize(
    ("base", "pages"),
    [
        (WINDOW, 0),
        (WINDOW, 65),
        (WINDOW + 1, 64),
        (WINDOW, 192),
        (0xF_FFC0, 128),
    ],
    ids=["empty", "part of a table word", "unaligned", "larger than the table", "past the last address"],
)
def test_unsound_window_is_never_taken_over(base: int, pages: int) -> None:
    async def program(machine: FastMachine) -> None:
        for register, value in ((FLEX_SECURE.WINDOW_BASE, base), (FLEX_SECURE.WINDOW_PAGES, pages)):
            await machine.write_register(register, value, by=S)
        await machine.write_register(FLEX_SECURE.CONTROL, 2, by=S)
        await machine.write_register(TZC.GATE_KEEPER, 1, by=S)
        await machine.delay(100_000)
        assert await machine.read_register(FLEX_SECURE.CONTROL, by=S) == 2
        assert await machine.read_register(FLEX_NORMAL.WINDOW_PAGES, by=N) == 0
        assert await machine.read_register(TZC.GATE_KEEPER, by=S) == 1
        assert await command(machine, C.DELEGATE, WINDOW, by=N) is R.OUT_OF_WINDOW
        # What was set when the window was enabled counts, not what is made sound afterwards.
        for register, value in ((FLEX_SECURE.WINDOW_BASE, WINDOW), (FLEX_SECURE.WINDOW_PAGES, 64)):
            await machine.write_register(register, value, by=S)
        await machine.delay(100_000)
        assert await machine.read_register(FLEX_SECURE.CONTROL, by=S) == 2

    run(program, booted=False)


@pytest.mark.parametrize("pages", [1, 2, 8, 9, 20])
@pytest.mark.parametrize("offset", [0, 4080, 1600])
@pytest.mark.parametrize("write", [False, True])
def test_transfer_at_once_takes_as_long_and_moves_the_same_as_one_beside_which_something_happens(
    pages: int, offset: int, write: bool
) -> None:
    length = pages * PAGE_BYTES - 32
    payload = bytes(range(256)) * (length // 256 + 1)

    async def program(machine: FastMachine) -> tuple[list[int], bytes]:
        took = []
        for other in (1, 1 << 20):
            ticking = machine.spawn(machine.delay(other), name="something else")
            await machine.delay(0)
            if other == 1:
                await ticking.join()
            begin = machine.now
            for _ in range(2):
                if write:
                    await machine.store(OUTSIDE + offset, payload[:length], by=N)
                else:
                    await machine.load(OUTSIDE + offset, length, by=N)
            took.append(machine.now - begin)
            assert ticking.done() is (other == 1)
            ticking.cancel()
            interrupted = machine.spawn(machine.load(OUTSIDE + offset, length, by=N), name="in steps")
            begin = machine.now
            await machine.delay(3)
            data = await interrupted.join()
            took.append(machine.now - begin)
        return took, data

    (quiet, stepped, busy, again), data = run(program)
    assert quiet == busy
    assert stepped == again
    if not write:
        assert quiet == 2 * stepped
    else:
        assert data == payload[:length]

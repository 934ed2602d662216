"""Register bus, tasks and sessions of the transaction-level machine."""

from asyncio import CancelledError
from collections.abc import Callable
from typing import Any

import pytest

from flexserve_sw.errors import UserError
from flexserve_sw.fast import DramTiming, FastMachine, FlashTiming, simulate
from flexserve_sw.machine import Initiator, Response, World
from flexserve_sw.regs import (
    FLEX_NORMAL,
    FLEX_SECURE,
    GATE_NORMAL,
    GATE_SECURE,
    NPU_NORMAL,
    NPU_SECURE,
    STORAGE,
    TZC,
    RecallCommand,
)
from tests.sw.fast_bench import WINDOW, H, N, S, answer, boot, command, run

SECURE_FRAMES = (TZC.PID0, FLEX_SECURE.ID, NPU_SECURE.ID, GATE_SECURE.ID)
MANAGED_FRAMES = (FLEX_NORMAL.ID, GATE_NORMAL.ID)
OPEN_FRAMES = (NPU_NORMAL.ID, STORAGE.ID)


async def probe(machine: FastMachine, address: int, by: Initiator, world: World | None = None) -> Response:
    """Response to a register read."""

    async def read() -> bytes:
        return (await machine.read_register(address, by=by, world=world)).to_bytes(4, "little")

    return (await answer(read()))[0]


@pytest.mark.parametrize("address", SECURE_FRAMES + MANAGED_FRAMES + OPEN_FRAMES, ids=hex)
def test_frames_answer_only_their_audience(address: int) -> None:
    audience = {
        (N, None): address not in SECURE_FRAMES,
        (H, None): address in OPEN_FRAMES,
        (H, World.SECURE): address in OPEN_FRAMES,
        (S, None): address in SECURE_FRAMES,
        (S, World.NORMAL): address not in SECURE_FRAMES,
        (N, World.SECURE): address not in SECURE_FRAMES,
    }

    async def program(machine: FastMachine) -> None:
        for (by, world), allowed in audience.items():
            expected = Response.OKAY if allowed else Response.DECERR
            assert await probe(machine, address, by, world) is expected, (by, world)
        assert await probe(machine, address + 0x100_0000, N) is Response.DECERR

    run(program, booted=False)


def test_management_is_for_named_masters() -> None:
    async def program(machine: FastMachine) -> None:
        await boot(machine, managers=0b1000)
        assert await probe(machine, FLEX_NORMAL.ID, H) is Response.OKAY
        assert await probe(machine, FLEX_NORMAL.ID, N) is Response.DECERR

    run(program, booted=False)


def test_unassigned_offsets_answer_an_error_but_the_region_frame_reads_zero() -> None:
    async def program(machine: FastMachine) -> None:
        assert await probe(machine, FLEX_SECURE.base + 0xF00, S) is Response.SLVERR
        assert await machine.read_register(TZC.base + 0x800, by=S) == 0

    run(program)


def test_configuration_is_frozen_once_locked() -> None:
    async def program(machine: FastMachine) -> None:
        for address in (FLEX_SECURE.WINDOW_BASE, FLEX_SECURE.WINDOW_PAGES, FLEX_SECURE.GRACE, FLEX_SECURE.MANAGERS):
            before = await machine.read_register(address, by=S)
            await machine.write_register(address, 0x5_0000, by=S)
            assert await machine.read_register(address, by=S) == before
        await machine.write_register(FLEX_SECURE.CONTROL, 0, by=S)
        assert await machine.read_register(FLEX_SECURE.CONTROL, by=S) == 0b111
        assert await command(machine, RecallCommand.SEAL, WINDOW, by=S) == 3

    run(program)


def test_grace_is_clamped_to_the_hardware_limits() -> None:
    async def program(machine: FastMachine) -> None:
        for asked, kept in ((0, 1_000), (1_000_000_000, 10_000_000), (5_000, 5_000)):
            await machine.write_register(FLEX_SECURE.GRACE, asked, by=S)
            assert await machine.read_register(FLEX_NORMAL.GRACE, by=N) == kept

    run(program, booted=False)


def test_only_strobed_bytes_are_written_and_a_partly_strobed_command_starts_nothing() -> None:
    async def program(machine: FastMachine) -> None:
        port = FLEX_NORMAL.CMD
        await machine.write_register(port.FIRST, 0x1122_3344, by=N)
        await machine.write_register(port.FIRST, 0xAABB_CCDD, by=N, strobe=0b0101)
        assert await machine.read_register(port.FIRST, by=N) == 0x11BB_33DD
        await machine.write_register(port.COMMAND, 15, by=N, strobe=0b1110)
        assert await machine.read_register(port.STATUS, by=N) == 0
        await machine.write_register(port.COMMAND, 15, by=N, strobe=0b0001)
        await machine.delay(100)
        assert await machine.read_register(port.STATUS, by=N) == 6 << 4

    run(program)


def test_busy_port_refuses_writes_and_the_other_worlds_port_does_not() -> None:
    async def program(machine: FastMachine) -> None:
        store = machine.spawn(machine.store(0x8008_0000, bytes(1 << 16), by=N), name="traffic")
        await machine.delay(300)
        await machine.write_register(FLEX_NORMAL.CMD.FIRST, WINDOW, by=N)
        await machine.write_register(FLEX_NORMAL.CMD.COUNT, 1, by=N)
        await machine.write_register(FLEX_NORMAL.CMD.COMMAND, RecallCommand.DELEGATE, by=N)
        for register in (FLEX_NORMAL.CMD.FIRST, FLEX_NORMAL.CMD.COUNT, FLEX_NORMAL.CMD.TICKET, FLEX_NORMAL.CMD.COMMAND):
            assert (await answer(machine.write_register(register, 1, by=N)))[0] is Response.SLVERR
        await machine.write_register(FLEX_SECURE.CMD.FIRST, WINDOW, by=S)
        assert await machine.read_register(FLEX_NORMAL.CMD.STATUS, by=N) == 1
        await store.join()
        assert await machine.read_register(FLEX_NORMAL.CMD.FIRST, by=N) == WINDOW

    run(program)


def test_task_errors_are_raised_where_the_task_is_joined() -> None:
    async def failing() -> None:
        raise KeyError("lost")

    async def program(machine: FastMachine) -> None:
        task = machine.spawn(failing(), name="failing")
        await machine.delay(10)
        assert task.done()
        with pytest.raises(KeyError, match="lost"):
            await task.join()

    run(program)


def test_error_of_a_task_that_nobody_joined_is_not_lost() -> None:
    async def failing() -> None:
        raise KeyError("lost")

    async def program(machine: FastMachine) -> None:
        machine.spawn(failing(), name="failing")
        await machine.event().wait()

    with pytest.raises(KeyError, match="lost"):
        run(program)


def test_cancelled_task_stops_at_its_await_and_says_so_at_join() -> None:
    async def program(machine: FastMachine) -> None:
        reached = []

        async def endless() -> None:
            try:
                await machine.event().wait()
            finally:
                reached.append("cleaned up")

        task = machine.spawn(endless(), name="endless")
        await machine.delay(1)
        task.cancel()
        with pytest.raises(CancelledError):
            await task.join()
        assert reached == ["cleaned up"]
        task.cancel()

    run(program)


def test_events_let_waiters_through_now_and_until_cleared() -> None:
    async def program(machine: FastMachine) -> None:
        event, order = machine.event(), []

        async def waiter(name: str) -> None:
            await event.wait()
            order.append(name)

        tasks = [machine.spawn(waiter(name), name=name) for name in "ab"]
        await machine.delay(5)
        event.set()
        event.set()
        for task in tasks:
            await task.join()
        await event.wait()
        assert order == ["a", "b"]
        event.clear()
        assert not event.is_set()
        task = machine.spawn(waiter("c"), name="c")
        await machine.delay(5)
        assert not task.done()
        event.set()
        await task.join()

    run(program)


def test_deadlock_and_runaway_are_told_by_name() -> None:
    async def stuck(machine: FastMachine) -> None:
        await machine.event().wait()

    with pytest.raises(RuntimeError, match="program can't end: nothing is left"):
        run(stuck)

    async def forever(machine: FastMachine) -> None:
        while True:
            await machine.delay(1_000)

    with pytest.raises(RuntimeError, match="program can't end: 20000000 cycles have passed"):
        run(forever)


Message = dict[str, Any]


async def echo(machine: FastMachine, argument: Message, emit: Callable[[Message], None]) -> Message:
    """Job for the session test."""
    await machine.delay(argument["cycles"])
    emit({"kind": "echo", "text": argument["text"]})
    return {"said": argument["text"]}


def test_session_stamps_messages_and_tells_cycles() -> None:
    messages: list[dict[str, Any]] = []
    argument = {"cycles": 123, "text": "hello"}
    result = simulate(f"{__name__}:echo", argument, on_message=messages.append, pages=128, dram_bytes=1 << 20)
    assert (result["said"], result["simulation"]["cycles"]) == ("hello", 123)
    assert [(m["kind"], m["text"], m["cycle"]) for m in messages] == [("echo", "hello", 123)]
    assert messages[0]["time"] > 1_000_000_000


@pytest.mark.parametrize("job", ["flexserve_sw.nothing:here", "flexserve_sw.recall:nothing", "flexserve_sw.recall"])
def test_unknown_job_is_a_user_error(job: str) -> None:
    with pytest.raises(UserError, match=r"name it as package\.module:function"):
        simulate(job, {}, pages=128, dram_bytes=1 << 20)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: FastMachine(pages=96), "power of two of at least 128 pages, not 96"),
        (lambda: FastMachine(dram_bytes=1 << 20), "hold the table's window, not 1048576 bytes"),
        (lambda: DramTiming(latency=0), "at least 1 cycle, not 0"),
        (lambda: DramTiming(bytes_per_cycle=17.0), "at most 16 bytes per cycle, not 17.0"),
        (lambda: FlashTiming(latency=0), "at least 1 cycle, not 0"),
        (lambda: FlashTiming(bytes_per_cycle=0.0), "at most 16 bytes per cycle, not 0.0"),
    ],
)
def test_impossible_parameters_are_refused(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make()

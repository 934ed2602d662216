"""Lock and channel between tasks."""

from asyncio import CancelledError

import pytest

from flexserve_sw.fast import FastMachine
from flexserve_sw.machine import Machine
from flexserve_sw.sync import Channel, Mutex, undo
from tests.sw.fast_bench import run


def test_a_mutex_lets_one_in_at_a_time_in_order_of_arrival() -> None:
    async def program(machine: Machine) -> list[tuple[int, str, int]]:
        mutex, log = Mutex(machine), []

        async def worker(number: int) -> None:
            await machine.delay(number)
            async with mutex:
                log.append((number, "in", machine.now))
                await machine.delay(100)
                log.append((number, "out", machine.now))

        for task in [machine.spawn(worker(n), name=str(n)) for n in range(4)]:
            await task.join()
        assert not mutex.held
        return log

    log = run(program, booted=False)
    assert [(n, what) for n, what, _ in log] == [(n, what) for n in range(4) for what in ("in", "out")]


def test_a_cancelled_waiter_leaves_the_queue_and_never_strands_the_lock() -> None:
    async def program(machine: Machine) -> list[int]:
        mutex, entered = Mutex(machine), []

        async def worker(number: int) -> None:
            async with mutex:
                entered.append(number)
                await machine.delay(50)

        tasks = [machine.spawn(worker(n), name=str(n)) for n in range(3)]
        await machine.delay(10)
        tasks[1].cancel()
        for task in (tasks[0], tasks[2]):
            await task.join()
        with pytest.raises(CancelledError):
            await tasks[1].join()
        async with mutex:
            return entered

    assert run(program, booted=False) == [0, 2]


def test_a_channel_keeps_order_and_holds_the_producer_back() -> None:
    async def program(machine: FastMachine) -> tuple[list[int], int]:
        channel: Channel[int] = Channel(machine, depth=2)
        most = 0
        made = 0

        async def produce() -> None:
            nonlocal made
            for item in range(10):
                await channel.put(item)
                made = item + 1

        task = machine.spawn(produce(), name="produce")
        got = []
        for _ in range(10):
            await machine.delay(20)
            most = max(most, made - len(got))
            got.append(await channel.get())
        await task.join()
        return got, most

    got, most = run(program, booted=False)
    assert got == list(range(10))
    assert most <= 3


def test_a_channel_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="Channel depth must be at least 1, not 0"):
        Channel(FastMachine(pages=128, dram_bytes=1 << 19), depth=0)


def test_what_came_from_a_channel_has_room_there_and_nothing_else() -> None:
    async def program(machine: Machine) -> list[int]:
        channel: Channel[int] = Channel(machine, depth=2)
        for item in range(2):
            await channel.put(item)
        with pytest.raises(ValueError, match="must have room for what is given back, not 2 items"):
            channel.give_back(7)
        channel.give_back(await channel.get())
        return [await channel.get() for _ in range(2)]

    assert run(program, booted=False) == [1, 0]


@pytest.mark.parametrize("failing", [False, True])
def test_a_failure_is_raised_after_what_it_calls_for_and_never_forgotten(failing: bool) -> None:
    async def program(machine: Machine) -> int:
        async def work() -> None:
            await machine.delay(50)
            if failing:
                raise ValueError("later")

        begin, failure = machine.now, KeyError("first")
        with pytest.raises(ValueError if failing else KeyError) as caught:
            await undo(failure, work())
        assert (caught.value.__cause__ if failing else caught.value) is failure
        return machine.now - begin

    assert run(program, booted=False) == 50

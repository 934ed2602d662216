"""Jobs that the tests run inside the simulator."""

import asyncio
import contextlib
import os
import random

import numpy as np

from flexserve_cosim.machine import AccessAborted
from flexserve_sw.errors import UserError
from flexserve_sw.machine import BusFault, Initiator, Interrupt, World
from flexserve_sw.regs import FLEX_SECURE, STORAGE, TZC, FlexmemSecure, Storage, Tzc400Region

NORMAL, SECURE, HOSTILE = Initiator.NORMAL_CPU, Initiator.SECURE_CPU, Initiator.HOSTILE_DEVICE
PAGES = 64
OPEN = 0xC000000F  # filter enabled, secure reads and writes
ALL_NSAIDS = 0xFFFFFFFF


async def open_memory(machine):
    """The least that lets traffic through: everything is allowed outside a window of PAGES pages."""
    await machine.write_register(TZC.ACTION, 3, by=SECURE)
    await machine.write_register(TZC.REGION[0].ATTRIBUTES, OPEN, by=SECURE)
    await machine.write_register(TZC.REGION[0].ID_ACCESS, ALL_NSAIDS, by=SECURE)
    await machine.write_register(FLEX_SECURE.WINDOW_BASE, machine.dram.base >> 12, by=SECURE)
    await machine.write_register(FLEX_SECURE.WINDOW_PAGES, PAGES, by=SECURE)
    await machine.write_register(FLEX_SECURE.GRACE, 5000, by=SECURE)
    await machine.write_register(FLEX_SECURE.MANAGERS, 1, by=SECURE)
    await machine.write_register(FLEX_SECURE.CONTROL, FlexmemSecure.CONTROL__ENABLE.put(1), by=SECURE)
    while not FlexmemSecure.CONTROL__READY.get(await machine.read_register(FLEX_SECURE.CONTROL, by=SECURE)):
        await machine.delay(256)
    await machine.write_register(TZC.GATE_KEEPER, 1, by=SECURE)
    return machine.dram.base + PAGES * 4096


async def random_traffic(machine, argument, emit):
    """Three ports at once, each with its own area, several accesses in flight, checked access by access."""
    start = await open_memory(machine)
    moved = 0

    async def worker(number, by):
        nonlocal moved
        rng = random.Random(argument["seed"] * 100 + number)
        base, size = start + number * 65536, 65536
        model = bytearray(machine.dram.bytes[base - machine.dram.base :][:size])
        for _ in range(argument["accesses"]):
            length = 16 * rng.choice([1, 2, 3, 17, 256, 300])
            offset = 16 * rng.randrange((size - length) // 16 + 1)
            if rng.random() < 0.5:
                data = rng.randbytes(length)
                await machine.store(base + offset, data, by=by, world=World.NORMAL)
                model[offset : offset + length] = data
            else:
                got = await machine.load(base + offset, length, by=by, world=World.NORMAL)
                assert got == bytes(model[offset : offset + length]), hex(base + offset)
            moved += length
        assert bytes(machine.dram.bytes[base - machine.dram.base :][:size]) == bytes(model)

    tasks = [machine.spawn(worker(n, by), name=f"{by.value} {n}") for n, by in enumerate([NORMAL, SECURE, HOSTILE] * 2)]
    for task in tasks:
        await task.join()
    return {"bytes": moved}


async def timing(machine, argument, emit):
    """Cycles of a 64-byte load, of a long load, and of a long store."""
    start = await open_memory(machine)
    result = {}
    for name, length in (("short", 64), ("long", 65536)):
        begin = machine.now
        await machine.load(start, length, by=NORMAL)
        result[name] = machine.now - begin
    begin = machine.now
    await machine.store(start, bytes(65536), by=NORMAL)
    result["store"] = machine.now - begin
    return result


async def faults(machine, argument, emit):
    """What a denied access brings back, and that a register access can fail."""
    start = await open_memory(machine)
    secret = bytes(range(64))
    await machine.store(machine.dram.base, secret, by=NORMAL)
    seen = []
    for access in (
        machine.load(machine.dram.base, 64, by=SECURE),  # a NORMAL page is no place for a secure access
        machine.load(0x1000, 64, by=NORMAL),  # no memory there
        machine.read_register(FLEX_SECURE.GRACE, by=NORMAL),
        machine.write_register(FLEX_SECURE.GRACE, 1000, by=HOSTILE),
    ):
        try:
            await access
        except BusFault as fault:
            seen.append([fault.response.name, any(fault.data)])
    assert await machine.load(start, 16, by=SECURE, world=World.NORMAL)
    return {"seen": seen}


async def waiting(machine, argument, emit):
    """Delays end in their cycle, interrupts wake, and a cancelled task may still await."""
    begin = machine.now
    ends = []

    async def sleep(cycles):
        await machine.delay(cycles)
        ends.append(machine.now - begin)

    tasks = [machine.spawn(sleep(n), name=f"sleep {n}") for n in (70, 10, 40, 10, 0)]
    for task in tasks:
        await task.join()
    assert ends == [0, 10, 10, 40, 70], ends

    async def careful():
        try:
            await machine.wait_interrupt(Interrupt.TZC)
        except asyncio.CancelledError:
            await machine.delay(25)
            return machine.now

    task = machine.spawn(careful(), name="careful")
    await machine.delay(5)
    task.cancel()
    cancelled = machine.now
    assert await task.join() == cancelled + 25

    assert not machine.pending(Interrupt.TZC)
    await open_memory(machine)
    waiter = machine.spawn(machine.wait_interrupt(Interrupt.TZC), name="waiter")
    with contextlib.suppress(BusFault):
        await machine.load(machine.dram.base, 16, by=SECURE)
    await waiter.join()
    assert machine.pending(Interrupt.TZC)
    await machine.write_register(TZC.INT_CLEAR, 1, by=SECURE)
    assert not machine.pending(Interrupt.TZC)
    return {}


async def reset_under_way(machine, argument, emit):
    """Reset cuts off what is under way, keeps memory, and closes the filter again."""
    start = await open_memory(machine)
    kept = os.urandom(4096)
    await machine.store(start, kept, by=NORMAL)
    cut = []

    async def access():
        try:
            await machine.load(start, 65536, by=NORMAL)
        except AccessAborted:
            cut.append(machine.now)

    tasks = [machine.spawn(access(), name=f"access {n}") for n in range(4)]
    await machine.delay(200)
    await machine.reset()
    for task in tasks:
        await task.join()
    assert len(cut) == 4
    held = machine.spawn(machine.load(start, 16, by=NORMAL), name="held")
    await machine.delay(500)
    assert not held.done(), "the gate must be closed after reset"
    start = await open_memory(machine)
    assert await held.join() == kept[:16]
    assert await machine.load(start, 4096, by=NORMAL) == kept
    return {}


async def storage(machine, argument, emit):
    """Flash to memory and back, at the bandwidth of flash."""
    start = await open_memory(machine)
    length = 16384
    machine.flash.bytes[4096 : 4096 + length] = contents = np.frombuffer(os.urandom(length), np.uint8)

    async def transfer(offset, to_flash):
        await machine.write_register(STORAGE.FLASH_OFFSET, offset, by=NORMAL)
        await machine.write_register(STORAGE.MEM_ADDR_LO, start, by=NORMAL)
        await machine.write_register(STORAGE.MEM_ADDR_HI, 0, by=NORMAL)
        await machine.write_register(STORAGE.LENGTH, length, by=NORMAL)
        await machine.write_register(STORAGE.IRQ_ENABLE, 1, by=NORMAL)
        begin = machine.now
        await machine.write_register(STORAGE.COMMAND, to_flash, by=NORMAL)
        await machine.wait_interrupt(Interrupt.STORAGE)
        cycles = machine.now - begin
        assert not Storage.STATUS__ERROR.get(await machine.read_register(STORAGE.STATUS, by=NORMAL))
        await machine.write_register(STORAGE.IRQ_STATUS, 1, by=NORMAL)
        return cycles

    read = await transfer(4096, 0)
    assert await machine.load(start, length, by=NORMAL) == contents.tobytes()
    written = await transfer(0x20000, 1)
    assert machine.flash.bytes[0x20000 : 0x20000 + length].tobytes() == contents.tobytes()
    return {"read": read, "written": written, "length": length}


async def unknown(machine, argument, emit):
    """What is in memory at power-up."""
    return {"first": machine.dram.bytes[:8].tolist(), "region": await region_word(machine)}


async def region_word(machine):
    return Tzc400Region.ATTRIBUTES__FILTER_EN.get(await machine.read_register(TZC.REGION[1].ATTRIBUTES, by=SECURE))


async def talk(machine, argument, emit):
    """Messages in order, with time between them."""
    for number in range(argument["messages"]):
        emit({"number": number})
        await machine.delay(10)
    return {"argument": argument}


async def crash(machine, argument, emit):
    """Take the whole process down."""
    os.abort()


async def fail(machine, argument, emit):
    """Raise."""
    raise RuntimeError("the job went wrong")


async def lose(machine, argument, emit):
    """Leave the error of another task uncollected."""

    async def other():
        raise RuntimeError("nobody looks at this")

    machine.spawn(other(), name="other")
    await machine.delay(10)
    return {}


async def complain(machine, argument, emit):
    """Raise what the user can mend."""
    raise UserError("The prompt is empty; give one with --prompt.")


async def wait_for_ever(machine, argument, emit):
    """Wait for what cannot come."""
    await machine.event().wait()


async def run_for_ever(machine, argument, emit):
    """Let time pass without end."""
    emit({"pid": os.getpid()})
    while True:
        await machine.delay(10_000)


async def returns_nothing(machine, argument, emit):
    """Forget to return a result."""

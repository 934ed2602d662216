"""Short programs on the transaction-level machine."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from flexserve_sw.fast import FastMachine
from flexserve_sw.machine import PAGE_BYTES, BusFault, Initiator, Response
from flexserve_sw.regs import FLEX_NORMAL, FLEX_SECURE, TZC, RecallCommand, RecallCommandPort, RecallResult

N, S, H = Initiator.NORMAL_CPU, Initiator.SECURE_CPU, Initiator.HOSTILE_DEVICE
WINDOW = 0x8_0000
"""First page frame number of the window: the bottom of memory."""
PAGES = 64
OUTSIDE = (WINDOW + PAGES) * PAGE_BYTES
"""First byte past the window."""
GRACE = 2_000

T = TypeVar("T")


def run(program: Callable[[FastMachine], Awaitable[T]], *, booted: bool = True, **options: Any) -> T:
    """Run ``program`` on a small machine, by default after :func:`boot`."""
    machine = FastMachine(**{"pages": 128, "dram_bytes": 1 << 20, "flash_bytes": 1 << 16, **options})

    async def main() -> T:
        if booted:
            await boot(machine)
        return await program(machine)

    return machine.kernel.complete(machine.spawn(main(), name="program"), limit=20_000_000)


async def boot(machine: FastMachine, *, lock: bool = True, gate: bool = True, managers: int = 1) -> None:
    """Everything allowed by the region side, a window of ``PAGES`` pages, all NORMAL."""
    write = machine.write_register
    await write(TZC.ACTION, 1, by=S)
    await write(TZC.REGION[0].ATTRIBUTES, 3 << 30, by=S)
    await write(TZC.REGION[0].ID_ACCESS, 0xFFFF_FFFF, by=S)
    await write(FLEX_SECURE.WINDOW_BASE, WINDOW, by=S)
    await write(FLEX_SECURE.WINDOW_PAGES, PAGES, by=S)
    await write(FLEX_SECURE.GRACE, GRACE, by=S)
    await write(FLEX_SECURE.MANAGERS, managers, by=S)
    await write(FLEX_SECURE.CONTROL, 2, by=S)
    while not await machine.read_register(FLEX_SECURE.CONTROL, by=S) & 4:
        await machine.delay(256)
    if lock:
        await write(FLEX_SECURE.CONTROL, 1, by=S)
    if gate:
        await write(TZC.GATE_KEEPER, 1, by=S)


async def command(
    machine: FastMachine, code: RecallCommand, first: int, count: int = 1, *, by: Initiator, ticket: int = 0,
    port: RecallCommandPort | None = None,
) -> RecallResult:  # fmt: skip
    """Give a command through the initiator's frame and wait for its end."""
    port = port or (FLEX_SECURE if by is S else FLEX_NORMAL).CMD
    await machine.write_register(port.FIRST, first, by=by)
    await machine.write_register(port.COUNT, count, by=by)
    await machine.write_register(port.TICKET, ticket, by=by)
    await machine.write_register(port.COMMAND, code, by=by)
    while (status := await machine.read_register(port.STATUS, by=by)) & 1:
        pass
    return RecallResult(port.STATUS__RESULT.get(status))


async def lend(machine: FastMachine, first: int, count: int = 1) -> None:
    """Delegate and accept."""
    assert await command(machine, RecallCommand.DELEGATE, first, count, by=N) is RecallResult.OK
    assert await command(machine, RecallCommand.ACCEPT, first, count, by=S) is RecallResult.OK


async def answer(access: Awaitable[Any]) -> tuple[Response, bytes]:
    """Response and data of an access that may fault."""
    try:
        return Response.OKAY, await access or b""
    except BusFault as fault:
        return fault.response, fault.data


async def free(machine: FastMachine) -> list[int]:
    """Take every page off the freed queue."""
    pages = []
    while (word := await machine.read_register(FLEX_NORMAL.FREED_POP, by=N)) >> 31:
        pages.append(word & 0x7FFF_FFFF)
    return pages

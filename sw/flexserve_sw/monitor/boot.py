"""What the monitor does between reset and the first instruction of the OS."""

from __future__ import annotations

from ..drivers.command import CommandPort
from ..machine import Initiator, Machine
from ..regs import FLEX_SECURE, GATE_SECURE, TZC, FlexmemSecure, GateSecure, RecallCommand, Tzc400
from .layout import Layout
from .regions import Regions

__all__ = ["CPU_ONLY", "BootFailed", "boot"]

CPU_ONLY = 0b0001
"""NSAIDs that may manage pages and the NPU: the CPU's alone."""

_BY = Initiator.SECURE_CPU


class BootFailed(Exception):
    """The hardware is not what the monitor was built for; the gate stays closed."""


async def boot(
    machine: Machine, layout: Layout, regions: Regions, port: CommandPort, *, grace: int, npu_grace: int
) -> None:
    """Configure filter and NPU gate, seal the secure world's own pages, lock, and let traffic through.

    The gate of the filter opens last: before that every access to memory is held, and hardware zeroes the whole window,
    so that nothing from before a reset can be read. Raises :class:`BootFailed`.
    """
    await _identify(machine, layout)
    await regions.boot(layout)
    window = layout.window
    await machine.write_register(FLEX_SECURE.WINDOW_BASE, window.first, by=_BY)
    await machine.write_register(FLEX_SECURE.WINDOW_PAGES, window.count, by=_BY)
    await machine.write_register(FLEX_SECURE.GRACE, grace, by=_BY)
    await machine.write_register(FLEX_SECURE.MANAGERS, FlexmemSecure.MANAGERS__NSAIDS.put(CPU_ONLY), by=_BY)
    await machine.write_register(GATE_SECURE.GRACE, npu_grace, by=_BY)
    await machine.write_register(GATE_SECURE.MANAGERS, GateSecure.MANAGERS__NSAIDS.put(CPU_ONLY), by=_BY)
    await machine.write_register(FLEX_SECURE.CONTROL, FlexmemSecure.CONTROL__ENABLE.put(1), by=_BY)
    await _until_ready(machine, window.count)
    await port.command(RecallCommand.SEAL, layout.sealed.first, layout.sealed.count)
    await machine.write_register(GATE_SECURE.CONTROL, GateSecure.CONTROL__LOCK.put(1), by=_BY)
    lock = FlexmemSecure.CONTROL__ENABLE.put(1) | FlexmemSecure.CONTROL__LOCK.put(1)
    await machine.write_register(FLEX_SECURE.CONTROL, lock, by=_BY)
    await _verify(machine, layout)
    await _enable_interrupts(machine)
    await regions.open_gate()


async def _identify(machine: Machine, layout: Layout) -> None:
    expected = {FLEX_SECURE.ID: 0x464C5853, GATE_SECURE.ID: 0x464C4753, TZC.PID0: 0x60}
    for address, identity in expected.items():
        found = await machine.read_register(address, by=_BY)
        if found != identity:
            raise BootFailed(f"Register {address:#x} must identify its block as {identity:#x}, not {found:#x}")
    build = await machine.read_register(TZC.BUILD_CONFIG, by=_BY)
    if Tzc400.BUILD_CONFIG__REGIONS.get(build) < 5 - 1:
        raise BootFailed(f"The filter must have at least 5 regions, not a build word of {build:#x}")
    capacity = await machine.read_register(FLEX_SECURE.CAPACITY, by=_BY)
    if capacity < layout.window_pages:
        raise BootFailed(f"The window must fit the filter's table of {capacity} pages, not {layout.window_pages} pages")


async def _until_ready(machine: Machine, pages: int) -> None:
    """Wait for the window to be zeroed: a page is 256 beats, one beat per cycle at best."""
    await machine.delay(pages * 256)
    while not FlexmemSecure.CONTROL__READY.get(await machine.read_register(FLEX_SECURE.CONTROL, by=_BY)):
        await machine.delay(1024)


async def _verify(machine: Machine, layout: Layout) -> None:
    """Read back what the OS's isolation stands on, once it can't change any more."""
    base = await machine.read_register(FLEX_SECURE.WINDOW_BASE, by=_BY)
    pages = await machine.read_register(FLEX_SECURE.WINDOW_PAGES, by=_BY)
    control = await machine.read_register(FLEX_SECURE.CONTROL, by=_BY)
    gate = await machine.read_register(GATE_SECURE.CONTROL, by=_BY)
    if (base, pages) != (layout.window.first, layout.window.count):
        raise BootFailed(f"The window must read back as programmed, not {(base, pages)!r}")
    if not FlexmemSecure.CONTROL__LOCK.get(control) or not GateSecure.CONTROL__LOCK.get(gate):
        raise BootFailed(f"Filter and NPU gate must be locked, not {(control, gate)!r}")


async def _enable_interrupts(machine: Machine) -> None:
    pages = (
        FlexmemSecure.IRQ_ENABLE__SIZE_REQUEST.put(1)
        | FlexmemSecure.IRQ_ENABLE__RECALL.put(1)
        | FlexmemSecure.IRQ_ENABLE__EXPIRED.put(1)
        | FlexmemSecure.IRQ_ENABLE__CORRUPT.put(1)
    )
    npu = (
        GateSecure.IRQ_ENABLE__RECALL.put(1)
        | GateSecure.IRQ_ENABLE__EXPIRED.put(1)
        | GateSecure.IRQ_ENABLE__CORRUPT.put(1)
    )
    await machine.write_register(FLEX_SECURE.IRQ_ENABLE, pages, by=_BY)
    await machine.write_register(GATE_SECURE.IRQ_ENABLE, npu, by=_BY)

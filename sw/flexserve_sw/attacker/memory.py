"""Attacks on memory: reading and writing lent pages from every master that the OS can command."""

from __future__ import annotations

from ..machine import PAGE_BYTES, Initiator
from .case import Evidence, attack
from .scene import Scene, Sweep
from .weakness import Weakness

OS, DEVICE = Initiator.NORMAL_CPU, Initiator.HOSTILE_DEVICE

ORDINARY = "The service runs in the normal world and keeps its secret in ordinary memory."


async def _read_all(scene: Scene, by: Initiator) -> Evidence:
    sweep = Sweep()
    for page in scene.pages:
        await scene.read(sweep, page * PAGE_BYTES, PAGE_BYTES, by=by)
    return Evidence(sweep.learnt, sweep.seen())


async def _write_all(scene: Scene, by: Initiator) -> Evidence:
    sweep = Sweep()
    for page in scene.pages:
        await scene.write(sweep, page * PAGE_BYTES, scene.forged(PAGE_BYTES), by=by)
    sweep.changed_bytes = await scene.damage()
    return Evidence(sweep.changed_bytes > 0, sweep.seen())


@attack("cpu-read", "SEC-01", weakness=Weakness.GRANULARITY, control=ORDINARY)
async def cpu_read(scene: Scene) -> Evidence:
    """A compromised kernel reads every page of the secret with the CPU."""
    return await _read_all(scene, OS)


@attack("cpu-write", "SEC-02", weakness=Weakness.GRANULARITY, control=ORDINARY)
async def cpu_write(scene: Scene) -> Evidence:
    """A compromised kernel overwrites every page of the secret with the CPU; then the service checks its data."""
    return await _write_all(scene, OS)


@attack("device-read", "SEC-01", weakness=Weakness.GRANULARITY, control=ORDINARY)
async def device_read(scene: Scene) -> Evidence:
    """A hostile DMA device reads every page of the secret."""
    return await _read_all(scene, DEVICE)


@attack("device-write", "SEC-02", weakness=Weakness.GRANULARITY, control=ORDINARY)
async def device_write(scene: Scene) -> Evidence:
    """A hostile DMA device overwrites every page of the secret; then the service checks its data."""
    return await _write_all(scene, DEVICE)


@attack("late-write", "SEC-06", weakness=Weakness.DESYNCHRONISED, control=ORDINARY)
async def late_write(scene: Scene) -> Evidence:
    """A device has a long stream of writes to a page under way when the OS lends that page.

    The OS hopes that what was accepted before the change of state lands after the service has stored its secret there.
    """
    machine, sweep = scene.machine, Sweep()
    place = scene.layout.lendable if scene.protected else scene.layout.free
    page = place.first + 16
    address = page * PAGE_BYTES

    async def flood() -> None:
        for _ in range(8):
            await scene.write(sweep, address, scene.forged(PAGE_BYTES), by=DEVICE)

    task = machine.spawn(flood(), name="late writes")
    await machine.delay(100)
    if scene.protected:
        await scene.lend([page])
    await machine.store(address, scene.secret[:PAGE_BYTES], by=scene.service)
    await task.join()
    found = await scene.fetch(address, PAGE_BYTES)
    sweep.changed_bytes = PAGE_BYTES if found is None else sum(
        a != b for a, b in zip(found, scene.secret[:PAGE_BYTES], strict=True)
    )  # fmt: skip
    return Evidence(sweep.changed_bytes > 0, sweep.seen())


@attack("late-read", "SEC-06", weakness=Weakness.DESYNCHRONISED, control=ORDINARY)
async def late_read(scene: Scene) -> Evidence:
    """A device streams reads of a page while the OS lends it and the service stores its secret there.

    The OS hopes that a read that was accepted before the change of state is answered after the service has written.
    """
    machine, sweep = scene.machine, Sweep()
    place = scene.layout.lendable if scene.protected else scene.layout.free
    address = (place.first + 16) * PAGE_BYTES

    async def stream() -> None:
        for _ in range(12):
            await scene.read(sweep, address, PAGE_BYTES, by=DEVICE)

    readers = [machine.spawn(stream(), name=f"late reads {i}") for i in range(2)]
    await machine.delay(100)
    if scene.protected:
        await scene.lend([address // PAGE_BYTES])
    await machine.store(address, scene.secret[:PAGE_BYTES], by=scene.service)
    for reader in readers:
        await reader.join()
    return Evidence(sweep.learnt, sweep.seen())

"""Attacks through the storage device, which the OS commands."""

from __future__ import annotations

from ..machine import PAGE_BYTES, Initiator
from ..normal.storage import StorageDriver, StorageError
from ..timeline import Timeline
from .case import Evidence, attack
from .memory import ORDINARY
from .scene import Scene, Sweep
from .weakness import Weakness

OS = Initiator.NORMAL_CPU
FLASH_SPOT = 0x8000
"""Flash offset that the OS uses for its loot."""


async def _driver(scene: Scene) -> StorageDriver:
    driver = StorageDriver(scene.machine, Timeline(lambda: scene.machine.now))
    await driver.start()
    return driver


async def _moved(sweep: Sweep, driver: StorageDriver, offset: int, address: int, *, out: bool) -> None:
    sweep.attempts += 1
    move = driver.write if out else driver.read
    try:
        await move(offset, address, PAGE_BYTES)
        sweep.responses["done"] += 1
    except StorageError:
        sweep.responses["error"] += 1


@attack("storage-read", "SEC-01", weakness=Weakness.GRANULARITY, control=ORDINARY)
async def storage_read(scene: Scene) -> Evidence:
    """The OS has the storage device copy the secret to flash, and reads it back from there."""
    driver, sweep = await _driver(scene), Sweep()
    loot = scene.os_pages(len(scene.pages))
    for i, page in enumerate(scene.pages):
        await _moved(sweep, driver, FLASH_SPOT + i * PAGE_BYTES, page * PAGE_BYTES, out=True)
        await driver.read(FLASH_SPOT + i * PAGE_BYTES, loot.address + i * PAGE_BYTES, PAGE_BYTES)
    sweep.leaked_bytes = scene.leak(await scene.machine.load(loot.address, loot.length, by=OS))
    return Evidence(sweep.leaked_bytes > 0, sweep.seen())


@attack("storage-write", "SEC-02", weakness=Weakness.GRANULARITY, control=ORDINARY)
async def storage_write(scene: Scene) -> Evidence:
    """The OS has the storage device copy forged data from flash over the secret."""
    driver, sweep = await _driver(scene), Sweep()
    forgery = scene.os_pages(1)
    await scene.machine.store(forgery.address, scene.forged(PAGE_BYTES), by=OS)
    await driver.write(FLASH_SPOT, forgery.address, PAGE_BYTES)
    for page in scene.pages:
        await _moved(sweep, driver, FLASH_SPOT, page * PAGE_BYTES, out=False)
    sweep.changed_bytes = await scene.damage()
    return Evidence(sweep.changed_bytes > 0, sweep.seen())

"""Secure firmware with a TZC-400 driver as a job: on the RTL phone and on the transaction-level machine alike."""

from flexserve_sw.machine import BusFault, Initiator, Interrupt, World
from flexserve_sw.regs import FLEX_SECURE, TZC, FlexmemSecure
from tests.hw.tzasc.tzc400_driver import Action, Secure, Tzc400Driver, nsaids

SECURE = Initiator.SECURE_CPU
MASTERS = {Initiator.NORMAL_CPU: 0, Initiator.HOSTILE_DEVICE: 3}
"""Non-secure masters and their NSAIDs."""

PAGE = 4096
PAGES = 64


async def open_window(machine):
    """What the driver's surroundings see to: the flexible window is ready before the gate is asked to open."""
    await machine.write_register(FLEX_SECURE.WINDOW_BASE, machine.dram.base // PAGE, by=SECURE)
    await machine.write_register(FLEX_SECURE.WINDOW_PAGES, PAGES, by=SECURE)
    await machine.write_register(FLEX_SECURE.CONTROL, FlexmemSecure.CONTROL__ENABLE.put(1), by=SECURE)
    while not FlexmemSecure.CONTROL__READY.get(await machine.read_register(FLEX_SECURE.CONTROL, by=SECURE)):
        await machine.delay(256)


async def firmware(machine, argument, emit):
    """Boot, use, violate and change the rules; returns what every access and every report came to."""

    async def read(offset):
        return await machine.read_register(TZC.base + offset, by=SECURE)

    async def write(offset, value):
        await machine.write_register(TZC.base + offset, value, by=SECURE)

    async def outcome(step):
        try:
            await step
        except BusFault as fault:
            return fault.response.name
        return "OKAY"

    async def try_all():
        """Reads and writes of a page of each region, by every master and world."""
        found = {}
        for name, at in places.items():
            for by, world in (*((by, World.NORMAL) for by in MASTERS), (SECURE, World.SECURE)):
                found[f"{name} {by.value} read"] = await outcome(machine.load(at, 64, by=by, world=world))
                found[f"{name} {by.value} write"] = await outcome(machine.store(at, bytes(64), by=by, world=world))
        return found

    async def report():
        failure = await driver.handle_interrupt()
        # The low three bits of an ID number a master's bursts in flight.
        return [
            failure.address - base, failure.write, failure.nonsecure, failure.id & 0xFFFF_FFF8, failure.overrun,
            failure.overlap,
        ]  # fmt: skip

    await open_window(machine)
    base = machine.dram.base + PAGES * PAGE
    places = {"background": base, "shared": base + PAGE, "secure": base + 4 * PAGE, "window": machine.dram.base}
    driver = Tzc400Driver(read, write, debug=argument["debug"])
    await driver.init()
    await driver.disable_filters()
    await driver.configure_region0(secure=Secure.NONE, access=0)
    await driver.configure_region(
        1, places["shared"], places["shared"] + 2 * PAGE - 1, secure=Secure.READ, access=nsaids(read=(0, 3), write=(0,))
    )
    await driver.configure_region(2, places["secure"], places["secure"] + PAGE - 1, secure=Secure.BOTH, access=0)
    await driver.configure_region(
        3, machine.dram.base, base - 1, secure=Secure.BOTH, access=nsaids(read=(0, 3), write=(0, 3))
    )
    await driver.set_action(Action.ERROR_AND_INTERRUPT)
    await driver.enable_filters()

    log = {"before": await try_all()}
    await machine.wait_interrupt(Interrupt.TZC)
    if argument["debug"]:
        log["reports"] = [await report()]
        at = places["secure"] + 0x40
        await outcome(machine.store(at, bytes(16), by=Initiator.HOSTILE_DEVICE, world=World.NORMAL))
        log["reports"].append(await report())
        await driver.configure_region(4, places["secure"], places["secure"] + PAGE - 1, secure=Secure.BOTH, access=0)
        await outcome(machine.load(places["secure"], 16, by=SECURE, world=World.SECURE))
        log["reports"].append(await report())
        await driver.update_filters(4, 0)
    else:
        assert await driver.handle_interrupt() is None
    log["pending"] = machine.pending(Interrupt.TZC)
    await driver.disable_filters()
    await driver.update_filters(1, 0)
    await driver.configure_region0(secure=Secure.NONE, access=nsaids(read=(3,)))
    await driver.set_action(Action.NONE)
    held = machine.spawn(machine.load(base, 64, by=Initiator.HOSTILE_DEVICE, world=World.NORMAL), name="held")
    await machine.delay(300)
    log["held"] = not held.done()
    await driver.enable_filters()
    await held.join()
    await driver.set_action(Action.ERROR)
    log["after"] = await try_all()
    dump = await driver.dump()
    log["dump"] = {name: value for name, value in dump.items() if name != "status"}
    return log

"""Attacks on configuration, management and evidence through the register bus."""

from __future__ import annotations

from collections import Counter

from ..machine import PAGE_BYTES, BusFault, Initiator, Response
from ..regs import (
    FLEX_NORMAL,
    FLEX_SECURE,
    GATE_NORMAL,
    GATE_SECURE,
    NPU_SECURE,
    TZC,
    FlexmemSecure,
    RecallCommand,
    RecallCommandPort,
    Tzc400,
)
from ..regs import RecallState as State
from .case import ControlKind, Evidence, attack
from .scene import Scene, Sweep
from .weakness import Weakness

OS, DEVICE, SECURE = Initiator.NORMAL_CPU, Initiator.HOSTILE_DEVICE, Initiator.SECURE_CPU

ENTITLED = "The secure world makes the same accesses, which shows that the attacker is refused for who it is."
"""Fabric and frames tell the worlds apart by wires, which no configuration takes away."""

_CONFIGURATION = {
    "region 0 attributes": (TZC.REGION[0].ATTRIBUTES, 3 << 30),
    "region 0 access by NSAID": (TZC.REGION[0].ID_ACCESS, 0xFFFF_FFFF),
    "window region top": (TZC.REGION[2].TOP_LOW, 0x8000_0000),
    "action": (TZC.ACTION, 0),
    "filter interrupts": (FLEX_SECURE.IRQ_ENABLE, 0),
    "gate interrupts": (GATE_SECURE.IRQ_ENABLE, 0),
    "NPU interrupts": (NPU_SECURE.IRQ_ENABLE, 3),
}
"""Secure configuration that software can change at any time, and what an attacker would like there."""

_LOCKED = {
    "window base": (FLEX_SECURE.WINDOW_BASE, 0x8_0000),
    "window size": (FLEX_SECURE.WINDOW_PAGES, 16),
    "grace period": (FLEX_SECURE.GRACE, 1_234_560),
    "page managers": (FLEX_SECURE.MANAGERS, 0xFFFF),
    "NPU grace period": (GATE_SECURE.GRACE, 1_234_560),
    "NPU managers": (GATE_SECURE.MANAGERS, 0xFFFF),
}
"""Secure configuration that the monitor locks until reset."""


async def _word(scene: Scene, address: int) -> int:
    return await scene.machine.read_register(address, by=SECURE)


async def _try_write(scene: Scene, answers: Counter[str], address: int, value: int, *, by: Initiator) -> None:
    try:
        await scene.machine.write_register(address, value, by=by)
        answers[Response.OKAY.name] += 1
    except BusFault as fault:
        answers[fault.response.name] += 1


async def _reconfigure(scene: Scene, targets: dict[str, tuple[int, int]], attackers: tuple[Initiator, ...]) -> Evidence:
    answers: Counter[str] = Counter()
    before = {name: await _word(scene, address) for name, (address, _) in targets.items()}
    for by in attackers:
        for address, value in targets.values():
            await _try_write(scene, answers, address, value, by=by)
    after = {name: await _word(scene, address) for name, (address, _) in targets.items()}
    changed = sorted(name for name in targets if before[name] != after[name])
    seen = {"attempts": len(targets) * len(attackers), "responses": dict(answers), "changed": changed}
    return Evidence(bool(changed), seen)


@attack("secure-register-write", "SEC-08", weakness=Weakness.REGISTERS, control=ENTITLED, kind=ControlKind.ENTITLED)
async def secure_register_write(scene: Scene) -> Evidence:
    """Kernel and hostile device rewrite regions, action and interrupts in the secure frames."""
    return await _reconfigure(scene, _CONFIGURATION, (SECURE,) if scene.control else (OS, DEVICE))


@attack("secure-register-read", "SEC-08", weakness=Weakness.REGISTERS, control=ENTITLED, kind=ControlKind.ENTITLED)
async def secure_register_read(scene: Scene) -> Evidence:
    """Kernel and hostile device read the secure frames: recall timers, violations, tickets, fail records."""
    answers: Counter[str] = Counter()
    told = 0
    addresses = [TZC.BUILD_CONFIG, TZC.ACTION, TZC.REGION[2].ATTRIBUTES, FLEX_SECURE.ID, FLEX_SECURE.VIOLATIONS]
    addresses += [FLEX_SECURE.CONTROL, FLEX_SECURE.MANAGERS, GATE_SECURE.ID, GATE_SECURE.GRACE, NPU_SECURE.ID]
    for by in (SECURE,) if scene.control else (OS, DEVICE):
        for address in addresses:
            try:
                told += await scene.machine.read_register(address, by=by) != 0
                answers[Response.OKAY.name] += 1
            except BusFault as fault:
                told += any(fault.data)
                answers[fault.response.name] += 1
    return Evidence(told > 0, {"attempts": answers.total(), "responses": dict(answers), "words_told": told})


@attack(
    "lock-bypass",
    "SEC-08",
    weakness=Weakness.LOCK,
    control="The monitor does not lock the configuration after boot.",
    kind=ControlKind.MISCONFIGURED,
)
async def lock_bypass(scene: Scene) -> Evidence:
    """A bug in the secure world lets an attacker write window, grace period and managers after boot."""
    if scene.control:
        await scene.boot_careless()
    return await _reconfigure(scene, _LOCKED, (SECURE,))


async def _order(
    scene: Scene, answers: Counter[str], port: RecallCommandPort, code: RecallCommand, first: int, *, by: Initiator
) -> None:
    """Give a command without waiting for leave, and let it end."""
    await _try_write(scene, answers, port.FIRST, first, by=by)
    await _try_write(scene, answers, port.COUNT, 1, by=by)
    await _try_write(scene, answers, port.COMMAND, port.COMMAND__CODE.put(code), by=by)
    await scene.machine.delay(2_000)


@attack("usurped-command", "SEC-08", weakness=Weakness.AUTHORITY, control=ENTITLED, kind=ControlKind.ENTITLED)
async def usurped_command(scene: Scene) -> Evidence:
    """The OS gives the secure world's commands: it releases the secret's pages and accepts or seals pages in its stead.

    It tries its own frame and the secure world's.
    """
    answers: Counter[str] = Counter()
    spare = scene.layout.lendable.first + 16
    lent = scene.layout.lendable.first
    await scene.os_port.command(RecallCommand.DELEGATE, spare, 1)
    attempts = ((RecallCommand.RELEASE, lent), (RecallCommand.ACCEPT, spare), (RecallCommand.SEAL, spare + 1))
    before = [await scene.state(page) for _, page in attempts]
    for code, page in attempts:
        await _order(scene, answers, FLEX_NORMAL.CMD, code, page, by=OS)
        await _order(scene, answers, FLEX_SECURE.CMD, code, page, by=SECURE if scene.control else OS)
    after = [await scene.state(page) for _, page in attempts]
    changed = [code.name for (code, _), old, new in zip(attempts, before, after, strict=True) if old is not new]
    return Evidence(bool(changed), {"attempts": 2 * len(attempts), "responses": dict(answers), "applied": changed})


@attack(
    "device-manager",
    "SEC-08",
    weakness=Weakness.IDENTITY,
    control="The monitor lets the device's NSAID manage pages and the NPU.",
    kind=ControlKind.MISCONFIGURED,
)
async def device_manager(scene: Scene) -> Evidence:
    """A hostile device lends and recalls pages and the NPU through the normal world's management frames."""
    if scene.control:
        await scene.boot_careless(managers=0b1001)
    answers: Counter[str] = Counter()
    page = scene.layout.lendable.first + 16
    await _order(scene, answers, FLEX_NORMAL.CMD, RecallCommand.DELEGATE, page, by=DEVICE)
    await _order(scene, answers, GATE_NORMAL.CMD, RecallCommand.DELEGATE, 0, by=DEVICE)
    moved = []
    if await scene.state(page) is not State.NORMAL:
        moved.append("page")
    if await scene.machine.read_register(GATE_NORMAL.STATE, by=OS) != State.NORMAL:
        moved.append("NPU")
    return Evidence(bool(moved), {"attempts": 2, "responses": dict(answers), "moved": moved})


@attack(
    "log-flood",
    "SEC-13",
    weakness=Weakness.OMITTED_EVIDENCE,
    control="The monitor's interrupt handler clears the record without reading it first.",
    kind=ControlKind.CARELESS,
)
async def log_flood(scene: Scene) -> Evidence:
    """After one telling violation the attacker floods the filter with others, so that the first record is overwritten.

    The auditor looks at the record afterwards.
    """
    sweep = Sweep()
    target = scene.layout.sealed.address + 0x40
    await scene.read(sweep, target, 16, by=OS)
    if scene.control:
        await scene.machine.write_register(TZC.INT_CLEAR, Tzc400.INT_CLEAR__CLEAR.put(1), by=SECURE)
    for page in list(scene.layout.sealed.pages()) * 8:
        await scene.write(sweep, page * PAGE_BYTES, bytes(16), by=DEVICE)
    kept = await _word(scene, TZC.FAIL_ADDRESS_LOW)
    control, who = await _word(scene, TZC.FAIL_CONTROL), await _word(scene, TZC.FAIL_ID)
    status = await _word(scene, TZC.INT_STATUS)
    counted = FlexmemSecure.VIOLATIONS__COUNT.get(await _word(scene, FLEX_SECURE.VIOLATIONS))
    right = (kept, Tzc400.FAIL_CONTROL__WRITE.get(control), Tzc400.FAIL_CONTROL__NON_SECURE.get(control)) == (
        target,
        0,
        1,
    )
    right = right and Tzc400.FAIL_ID__VNET.get(who) == 0 and bool(Tzc400.INT_STATUS__STATUS.get(status))
    seen = {**sweep.seen(), "record_of_first": right, "violations_counted": counted}
    return Evidence(not right or counted < sweep.attempts, seen)

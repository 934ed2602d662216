"""A random program that two machines must answer alike: commands, accesses, jobs and transfers of all masters.

Steps are played one after the other, and grace periods and scrubs are waited for, so that no answer depends on a race.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import Any

from .machine import PAGE_BYTES, BusFault, Initiator, Interrupt, Machine, World
from .monitor.layout import Extent, Layout
from .monitor.regions import Regions
from .npu import Caps, encode_program, gemm_program
from .regs import (
    FLEX_NORMAL,
    FLEX_SECURE,
    GATE_NORMAL,
    GATE_SECURE,
    NPU_NORMAL,
    NPU_SECURE,
    STORAGE,
    TZC,
    FlexmemSecure,
    NpuFrame,
    RecallCommand,
    RecallCommandPort,
    Storage,
)

__all__ = ["play"]

OS, SECURE, DEVICE = Initiator.NORMAL_CPU, Initiator.SECURE_CPU, Initiator.HOSTILE_DEVICE

WINDOW_PAGES = 64
GRACE = 1_000
SIDE = 16
"""Sizes of the NPU's random jobs."""

# Not among them: the count of violations. How many bursts of a faulting NPU job are out already is the NPU's affair.

_RANDOM_READS = (
    TZC.ACTION, TZC.INT_STATUS, TZC.FAIL_ADDRESS_LOW, TZC.FAIL_CONTROL, TZC.REGION[2].TOP_LOW, TZC.PID0,
    FLEX_NORMAL.WINDOW_PAGES, FLEX_NORMAL.GRACE, FLEX_NORMAL.LENT, FLEX_NORMAL.SCRUB_BACKLOG, FLEX_NORMAL.SIZE_REQUEST,
    FLEX_NORMAL.IRQ_STATUS, FLEX_SECURE.CONTROL, FLEX_SECURE.SIZE_OWED, FLEX_SECURE.IRQ_STATUS,
    FLEX_SECURE.MANAGERS, FLEX_SECURE.base + 0x0F0, GATE_NORMAL.STATE, GATE_NORMAL.TICKET, GATE_SECURE.IRQ_STATUS,
    NPU_NORMAL.CAPS, NPU_NORMAL.STATUS, NPU_NORMAL.DONE_COUNT, NPU_NORMAL.FAULT, NPU_SECURE.STATUS,
    NPU_SECURE.DONE_COUNT, NPU_SECURE.FAULT, STORAGE.STATUS, STORAGE.LENGTH, 0x0009_0000,
)  # fmt: skip


class _Player:
    """Plays steps and writes down what came back."""

    def __init__(self, machine: Machine, seed: int) -> None:
        self.machine, self.dice = machine, random.Random(seed)
        self.layout = Layout(
            dram_base=machine.dram.base, dram_bytes=machine.dram.size, window_pages=WINDOW_PAGES, cma_pages=16
        )
        self.log: list[Any] = []
        self.caps = Caps()

    def _page(self) -> int:
        """A page in or near the window."""
        return self.layout.window.first + self.dice.randrange(-1, WINDOW_PAGES + 1)

    async def _answer(self, step: Any) -> Any:
        """What a step returns, or how it faults; bulk data by its hash."""
        try:
            result = await step
        except BusFault as fault:
            result = [fault.response.name, fault.address, fault.data]
        return _brief(result)

    async def boot(self) -> None:
        """Reset and configure; every page that software can reach gets known contents."""
        machine, window = self.machine, self.layout.window
        await machine.reset()
        await Regions(machine).boot(self.layout)
        for register, value in (
            (FLEX_SECURE.WINDOW_BASE, window.first),
            (FLEX_SECURE.WINDOW_PAGES, window.count),
            (FLEX_SECURE.GRACE, GRACE),
            (GATE_SECURE.GRACE, GRACE),
            (FLEX_SECURE.CONTROL, FlexmemSecure.CONTROL__ENABLE.put(1)),
        ):
            await machine.write_register(register, value, by=SECURE)
        while not FlexmemSecure.CONTROL__READY.get(await machine.read_register(FLEX_SECURE.CONTROL, by=SECURE)):
            await machine.delay(256)
        await Regions(machine).open_gate()
        for address, by in ((NPU_NORMAL.IRQ_ENABLE, OS), (STORAGE.IRQ_ENABLE, OS)):
            await machine.write_register(address, 1 if address == STORAGE.IRQ_ENABLE else 3, by=by)
        self.caps = Caps.from_register(await machine.read_register(NPU_NORMAL.CAPS, by=OS))
        ordinary = Extent(self.layout.free.first, 64)
        await machine.store(ordinary.address, self.dice.randbytes(ordinary.length), by=OS)
        machine.flash.bytes[: 16 * PAGE_BYTES] = memoryview(self.dice.randbytes(16 * PAGE_BYTES))

    async def _settle(self) -> None:
        """Wait until grace periods, scrubs and the NPU's hand-over are over."""
        machine = self.machine
        await machine.delay(100)
        for timer in FLEX_SECURE.TIMER:
            while await machine.read_register(timer.COUNT, by=SECURE):
                await machine.delay(200)
        while await machine.read_register(FLEX_NORMAL.SCRUB_BACKLOG, by=OS):
            await machine.delay(200)
        while await machine.read_register(GATE_NORMAL.STATE, by=OS) in (3, 4):
            await machine.delay(200)

    async def _command(self, port: RecallCommandPort, by: Initiator, first: int, count: int, ticket: int) -> list[int]:
        machine, code = self.machine, self.dice.choice([*RecallCommand, 7, 15])
        if code in (RecallCommand.DELEGATE, RecallCommand.RECALL, RecallCommand.CANCEL) and self.dice.random() < 0.8:
            by = OS
        await machine.write_register(port.FIRST, first, by=by)
        await machine.write_register(port.COUNT, count, by=by)
        await machine.write_register(port.TICKET, ticket, by=by)
        await machine.write_register(port.COMMAND, int(code), by=by)
        while (status := await machine.read_register(port.STATUS, by=by)) & 1:
            pass
        return [int(code), status, await machine.read_register(port.OFFENDER, by=by) if status else 0]

    async def command_pages(self) -> list[int]:
        """A recall command over a range."""
        by = self.dice.choice([OS, SECURE])
        port = (FLEX_NORMAL if by is OS else FLEX_SECURE).CMD
        count = self.dice.choice([0, 1, 1, 1, 2, 3, 5, 17, 0xFFFF_FFFF])
        return await self._command(port, by, self._page(), count, 0)

    async def command_npu(self) -> list[int]:
        """A recall command for the NPU, with this ticket or another."""
        by = self.dice.choice([OS, SECURE])
        port = (GATE_NORMAL if by is OS else GATE_SECURE).CMD
        ticket = await self.machine.read_register(GATE_NORMAL.TICKET, by=OS) - self.dice.choice([0, 0, 0, 1])
        return await self._command(
            port, by, self.dice.choice([0, 0, 0, 1]), self.dice.choice([1, 1, 1, 2]), max(0, ticket)
        )

    async def useful(self) -> list[Any]:
        """A lending that works, so that secure accesses are not always denied."""
        page, log = self._page(), []
        for code, by in ((RecallCommand.DELEGATE, OS), (RecallCommand.ACCEPT, SECURE)):
            port = (FLEX_NORMAL if by is OS else FLEX_SECURE).CMD
            await self.machine.write_register(port.FIRST, page, by=by)
            await self.machine.write_register(port.COUNT, 2, by=by)
            await self.machine.write_register(port.COMMAND, int(code), by=by)
            while (status := await self.machine.read_register(port.STATUS, by=by)) & 1:
                pass
            log.append(status)
        return log

    def _span(self) -> tuple[int, int]:
        """Address and length of an access that may run over several pages."""
        page = self._page() if self.dice.random() < 0.8 else self.layout.free.first + self.dice.randrange(60)
        length = 16 * self.dice.choice([1, 2, 7, 64, 256, 400])
        return page * PAGE_BYTES + 16 * self.dice.randrange(256), length

    def _who(self) -> tuple[Initiator, World]:
        return self.dice.choice([OS, SECURE, SECURE, DEVICE]), self.dice.choice(list(World))

    async def load(self) -> bytes:
        """A read by anyone."""
        (address, length), (by, world) = self._span(), self._who()
        return await self.machine.load(address, length, by=by, world=world)

    async def store(self) -> None:
        """A write by anyone."""
        (address, length), (by, world) = self._span(), self._who()
        await self.machine.store(address, self.dice.randbytes(length), by=by, world=world)

    async def read(self) -> int:
        """A register read by anyone."""
        by, world = self._who()
        return await self.machine.read_register(self.dice.choice(_RANDOM_READS), by=by, world=world)

    async def ask(self) -> None:
        """A recall by size; or an acknowledgement of interrupts and of the first violation."""
        register, by = self.dice.choice(
            [(FLEX_NORMAL.SIZE_REQUEST, OS), (FLEX_NORMAL.IRQ_STATUS, OS), (FLEX_SECURE.IRQ_STATUS, SECURE),
             (GATE_SECURE.IRQ_STATUS, SECURE), (TZC.INT_CLEAR, SECURE)]
        )  # fmt: skip
        await self.machine.write_register(register, self.dice.choice([0, 1, 3, 7]), by=by)

    async def freed(self) -> list[int]:
        """Take every freed page; their order is the scrubber's affair."""
        pages = []
        while (word := await self.machine.read_register(FLEX_NORMAL.FREED_POP, by=OS)) >> 31:
            pages.append(word)
        return sorted(pages)

    async def transfer(self) -> list[int]:
        """A transfer of the storage device."""
        machine, page = self.machine, self._page()
        to_flash = self.dice.random() < 0.5
        length = 16 * self.dice.choice([1, 64, 256, 300])
        for register, value in (
            (STORAGE.FLASH_OFFSET, PAGE_BYTES * self.dice.randrange(8)),
            (STORAGE.MEM_ADDR_LO, page * PAGE_BYTES),
            (STORAGE.LENGTH, length),
            (STORAGE.COMMAND, Storage.COMMAND__TO_FLASH.put(to_flash)),
        ):
            await machine.write_register(register, value, by=OS)
        await machine.wait_interrupt(Interrupt.STORAGE)
        await machine.write_register(STORAGE.IRQ_STATUS, 1, by=OS)
        contents = machine.flash.bytes[: 16 * PAGE_BYTES].tobytes()
        return [
            await machine.read_register(STORAGE.STATUS, by=OS),
            *hashlib.sha256(contents).digest()[:4],
        ]

    async def job(self) -> list[int]:
        """A job in the normal frame, if the OS has the NPU."""
        machine = self.machine
        if not NpuFrame.STATUS__LIVE.get(await machine.read_register(NPU_NORMAL.STATUS, by=OS)):
            return []
        base = self.layout.free.address
        pages = [base + 20 * PAGE_BYTES if self.dice.random() < 0.7 else self._page() * PAGE_BYTES for _ in range(2)]
        program = gemm_program(
            m=SIDE, k=SIDE, n=SIDE, a_addr=pages[0], a_stride=SIDE, w_addr=base, c_addr=pages[1], c_stride=4 * SIDE,
            caps=self.caps,
        )  # fmt: skip
        jobs = base + 40 * PAGE_BYTES
        await machine.store(jobs, encode_program(program), by=OS)
        for register, value in (
            (NPU_NORMAL.IRQ_STATUS, 3),
            (NPU_NORMAL.JOB_ADDR_LO, jobs),
            (NPU_NORMAL.JOB_COUNT, len(program)),
            (NPU_NORMAL.DOORBELL, self.dice.randrange(1 << 16)),
        ):
            await machine.write_register(register, value, by=OS)
        await machine.wait_interrupt(Interrupt.NPU_NORMAL)
        words = [NPU_NORMAL.IRQ_STATUS, NPU_NORMAL.FAULT, NPU_NORMAL.DONE_COUNT, NPU_NORMAL.DONE_TAG]
        return [await machine.read_register(word, by=OS) for word in words]

    async def states(self) -> list[int]:
        """State of every page."""
        answers = []
        for page in self.layout.window.pages():
            await self.machine.write_register(FLEX_NORMAL.QUERY_PAGE, page, by=OS)
            answers.append(await self.machine.read_register(FLEX_NORMAL.QUERY_STATE, by=OS))
        return answers

    async def step(self) -> None:
        """One random step, and what it came to."""
        kinds: dict[Callable[[], Any], int] = {
            self.command_pages: 8, self.useful: 4, self.command_npu: 4, self.load: 8, self.store: 6, self.read: 6,
            self.ask: 2, self.freed: 2, self.transfer: 1, self.job: 2,
        }  # fmt: skip
        kind = self.dice.choices(list(kinds), list(kinds.values()))[0]
        self.log.append([kind.__name__, await self._answer(kind())])
        await self._settle()


def _brief(result: Any) -> Any:
    """JSON-able; bytes by length, count of zeros and hash."""
    if isinstance(result, bytes):
        return [len(result), result.count(0), hashlib.sha256(result).hexdigest()[:16]]
    if isinstance(result, list):
        return [_brief(item) for item in result]
    return result


async def play(machine: Machine, argument: dict[str, Any], emit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Job: ``argument`` has ``steps`` and ``seed``. Result: ``log`` of answers, last page ``states``, ``cycles``."""
    player = _Player(machine, int(argument.get("seed", 1)))
    await player.boot()
    for number in range(int(argument["steps"])):
        await player.step()
        emit({"kind": "step", "number": number, "log": player.log[-1]})
    return {"log": player.log, "states": await player.states(), "cycles": machine.now}

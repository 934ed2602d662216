"""The filter between scripts above and a memory below, one step per clock cycle."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from itertools import count
from typing import Any, cast

from cocotb.handle import HierarchyObject

from flexserve_hw.params import FlexMemParams
from flexserve_sw.machine import World
from flexserve_sw.tasks import Kernel, Latch, SimTask

from .lines import Lines
from .memory import Memory
from .traffic import BUS, Burst
from .wires import Channel, find

__all__ = ["DRAM_BASE", "DRAM_PAGES", "TABLE_PFN", "FilterBus", "RegisterAnswer"]

DRAM_BASE = 0x8000_0000
DRAM_PAGES = 32
TABLE_PFN = DRAM_BASE // 4096 + 28
"""Where the page-state table lies, if in memory: in the same as everything else."""
NONSECURE = 2
"""AxPROT[1]."""
_SCRUB_BIT = 6
_RESET_CYCLES = 3
_WRITE, _READ = True, False


@dataclass
class RegisterAnswer:
    """Response to a register access, and what was read."""

    response: int
    value: int = 0


@dataclass(eq=False)
class _Order:
    """A register access under way."""

    payload: dict[str, int]
    data: dict[str, int] | None
    done: Latch
    answer: RegisterAnswer | None = None
    addressed: bool = False
    supplied: bool = False


class FilterBus:
    """Every pin of the filter, driven per cycle for scripts that run beside each other.

    Addresses go out in the order in which :meth:`read` and :meth:`write` were called, one per cycle. Write beats
    follow the order of their addresses. A burst whose ``allowance`` is used up holds its channel, as it does on a wire.

    Parameters
    ----------
    dut
        The filter, built with the signals shown that scripts upset.
    params
        Its parameters.

    Members
    -------
    now : cycles since the simulation started
    memory : what is below
    lines : the memory port of the page-state table; None if that is on chip
    takes_answers : whether the master takes write responses
    upsets : what is to be changed inside the filter in the middle of the next cycle
    """

    def __init__(self, dut: HierarchyObject, params: FlexMemParams) -> None:
        self._pins = cast(Any, dut)
        self._dut = dut
        self.kernel = Kernel()
        self.now = 0
        self.memory = Memory(dut, base=DRAM_BASE, length=DRAM_PAGES * 4096, scrub_bit=_SCRUB_BIT)
        address = ("id", "addr", "len", "size", "burst", "prot", "user")
        self._ar = Channel(dut, "s_axi_ar", address, drives=True)
        self._aw = Channel(dut, "s_axi_aw", address, drives=True)
        self._w = Channel(dut, "s_axi_w", ("data", "strb", "last"), drives=True)
        self._r = Channel(dut, "s_axi_r", ("id", "data", "resp", "last"), drives=False)
        self._b = Channel(dut, "s_axi_b", ("id", "resp"), drives=False)
        self._regs = {
            _WRITE: Channel(dut, "s_axil_aw", ("addr", "prot", "user"), drives=True),
            _READ: Channel(dut, "s_axil_ar", ("addr", "prot", "user"), drives=True),
        }
        self._reg_data = Channel(dut, "s_axil_w", ("data", "strb"), drives=True)
        self._reg_answers = {
            _WRITE: Channel(dut, "s_axil_b", ("resp",), drives=False),
            _READ: Channel(dut, "s_axil_r", ("resp", "data"), drives=False),
        }
        self._wakes: list[tuple[int, int, Latch]] = []
        self._order = count()
        self._signals: dict[str, Any] = {}
        self._reset, self._rst = 0, False
        self._pins.rst.value = 0
        self.lines: Lines | None = None
        if params.cache_lines is not None:
            self.lines = Lines(dut, self.memory, params, self._bank, base=TABLE_PFN)
        self._forget()

    def _bank(self, name: str) -> Any:
        return self.signal(f"table.{name}")

    def _forget(self) -> None:
        self._addresses: dict[bool, deque[Burst]] = {_WRITE: deque(), _READ: deque()}
        self._beats: deque[Burst] = deque()
        self._open: dict[bool, list[Burst]] = {_WRITE: [], _READ: []}
        self._orders: dict[bool, deque[_Order]] = {_WRITE: deque(), _READ: deque()}
        self._busy = True, True
        self.stuck: dict[str, int] = {}
        self.upsets: list[Callable[[], None]] = []
        self.takes_answers = True

    # Time ------------------------------------------------------------------------------------------------------

    def spawn(self, script: Coroutine[Any, Any, Any], name: str) -> SimTask[Any]:
        """Start a script beside the caller."""
        return self.kernel.spawn(script, name=name)

    async def tick(self, cycles: int = 1) -> None:
        """Let cycles pass."""
        if cycles > 0:
            latch = Latch(self.kernel)
            heapq.heappush(self._wakes, (self.now + cycles, next(self._order), latch))
            await latch.wait()

    async def until(self, condition: Callable[[], bool], cycles: int) -> bool:
        """Wait for ``condition``, ``cycles`` at most; whether it came."""
        end = self.now + cycles
        while not condition():
            if self.now >= end:
                return False
            await self.tick()
        return True

    async def reset(self) -> None:
        """Pulse reset: of filter, masters and memory alike, as AXI has it. Memory keeps its contents."""
        for queue in self._orders.values():
            for order in queue:
                order.answer = RegisterAnswer(-1)
                order.done.set()
        self._forget()
        self.memory.restore()
        if self.lines is not None:
            self.lines.restore()
        self._reset = _RESET_CYCLES
        await self.tick(_RESET_CYCLES + 1)

    # Traffic ---------------------------------------------------------------------------------------------------

    def read(self, address: int, beats: int, world: World, **options: Any) -> Burst:
        """Queue a read."""
        return self._enqueue(Burst(False, address, beats, world, **options))

    def write(self, address: int, data: list[int], world: World, **options: Any) -> Burst:
        """Queue a write of ``data``, a word of the bus per beat."""
        return self._enqueue(Burst(True, address, len(data), world, data=data, **options))

    def _enqueue(self, burst: Burst) -> Burst:
        self._addresses[burst.write].append(burst)
        self._open[burst.write].append(burst)
        if burst.write:
            self._beats.append(burst)
        return burst

    async def underway(self, burst: Burst, beats: int = 0) -> None:
        """Wait until the address of ``burst`` is accepted and so many of its beats have moved."""
        if not await self.until(lambda: burst.accepted >= 0 and burst.moved >= beats, 200):
            raise RuntimeError(f"The burst must get under way, not {burst.moved} of {beats} beats of {burst}")

    async def done(self, *bursts: Burst, cycles: int = 4000) -> bool:
        """Wait until ``bursts`` are answered; whether they were in time."""
        return await self.until(lambda: all(burst.answered >= 0 for burst in bursts), cycles)

    def busy(self) -> bool:
        """Whether a burst is queued or in flight."""
        return any(self._open.values())

    async def idle(self, cycles: int = 4000) -> bool:
        """Wait until no burst is queued or in flight; whether that came."""
        return await self.until(lambda: not self.busy(), cycles)

    # Registers -------------------------------------------------------------------------------------------------

    def post(self, address: int, value: int | None, *, prot: int, nsaid: int, strobe: int = 0xF) -> _Order:
        """Start a register access, a read if ``value`` is None; accesses of one direction go one after the other."""
        payload = {"addr": address, "prot": prot, "user": nsaid}
        data = None if value is None else {"data": value, "strb": strobe}
        order = _Order(payload, data, Latch(self.kernel))
        self._orders[value is not None].append(order)
        return order

    async def register(
        self, address: int, value: int | None, *, prot: int, nsaid: int = 0, strobe: int = 0xF
    ) -> RegisterAnswer:
        """Read or write a register and wait for the answer."""
        order = self.post(address, value, prot=prot, nsaid=nsaid, strobe=strobe)
        await order.done.wait()
        assert order.answer is not None
        return order.answer

    # Signals ---------------------------------------------------------------------------------------------------

    def port(self, name: str) -> int:
        """A plain port of the filter, at the end of the cycle."""
        return int(getattr(self._pins, name).value)

    def signal(self, path: str) -> Any:
        """A signal inside the filter that the build shows."""
        if path not in self._signals:
            self._signals[path] = find(self._dut, path)
        return self._signals[path]

    def stick(self, path: str, value: int) -> None:
        """From the next cycle on, a register inside the filter is stuck at ``value``: hardware that is broken."""
        self.signal(path)
        self.stuck[path] = value

    def upset(self, action: Callable[[], None]) -> None:
        """Run ``action`` in the middle of the next cycle: what it changes inside the filter counts from then on."""
        self.upsets.append(action)

    # The clockwork ---------------------------------------------------------------------------------------------

    def sample(self) -> None:
        """Take what the cycle that ends has transferred, then let scripts run. Called at every rising edge."""
        self.now += 1
        if self._reset:
            self._reset -= 1
        else:
            if any(self._open.values()):
                self._sample_bursts()
            if any(self._orders.values()):
                self._sample_registers()
            self.memory.sample(self.now)
            if self.lines is not None:
                self.lines.sample(self.now)
        while self._wakes and self._wakes[0][0] <= self.now:
            heapq.heappop(self._wakes)[2].set()

    def drive(self) -> None:
        """Set every input for the next cycle. Called after the scripts."""
        if self._rst != (self._reset > 0):
            self._rst = not self._rst
            self._pins.rst.value = int(self._rst)
        if self._reset:
            for channel in (self._ar, self._aw, self._w, self._r, self._b, self._reg_data, *self._regs.values()):
                channel.drive(False)
            for channel in (*self._reg_answers.values(), self.memory.r, self.memory.b):
                channel.drive(False)
            if self.lines is not None:
                self.lines.silence()
            return
        for path, value in self.stuck.items():
            self._signals[path].value = value
        # Nothing to do is the most frequent case by far, and every cycle counts.
        bursts, orders = any(self._open.values()), any(self._orders.values())
        if bursts or self._busy[0]:
            self._drive_bursts()
        if orders or self._busy[1]:
            self._drive_registers()
        self._busy = bursts, orders
        self.memory.drive(self.now)
        if self.lines is not None:
            self.lines.drive(self.now)
            if self.lines.may_forget():
                self.upset(self.lines.forget)

    def _sample_bursts(self) -> None:
        for write, channel in ((_READ, self._ar), (_WRITE, self._aw)):
            if channel.passed:
                self._addresses[write].popleft().accepted = self.now
        if self._w.passed:
            burst = self._beats[0]
            burst.sent += 1
            if burst.sent == burst.beats:
                self._beats.popleft()
        if self._r.passed:
            identity = self._r.get("id")
            burst = self._oldest(_READ, identity)
            burst.got.append(self._r.get("data"))
            burst.responses.append(self._r.get("resp"))
            if self._r.get("last"):
                burst.answered = self.now
                self._open[_READ].remove(burst)
        if self._b.passed:
            burst = self._oldest(_WRITE, self._b.get("id"))
            burst.responses.append(self._b.get("resp"))
            burst.answered = self.now
            self._open[_WRITE].remove(burst)

    def _oldest(self, write: bool, identity: int) -> Burst:
        for burst in self._open[write]:
            if burst.id == identity and burst.accepted >= 0:
                return burst
        raise RuntimeError(f"An answer with ID {identity} came in cycle {self.now} that nobody had asked for")

    def _drive_bursts(self) -> None:
        for write, channel in ((_READ, self._ar), (_WRITE, self._aw)):
            queue = self._addresses[write]
            if queue:
                burst = queue[0]
                if burst.offered < 0:
                    burst.offered = self.now
                channel.put(
                    id=burst.id,
                    addr=burst.address,
                    len=burst.beats - 1,
                    size=burst.size,
                    burst=burst.kind,
                    prot=0 if burst.world is World.SECURE else NONSECURE,
                    user=burst.nsaid,
                )
            else:
                channel.drive(False)
        burst_ = self._beats[0] if self._beats else None
        if burst_ is not None and burst_.offered >= 0 and burst_.sent < burst_.allowance:
            n = burst_.sent
            last = burst_.lasts[n] if burst_.lasts else n == burst_.beats - 1
            strobes = burst_.strobes[n] if burst_.strobes else (1 << BUS) - 1
            self._w.put(data=burst_.data[n], strb=strobes, last=int(last))
        else:
            self._w.drive(False)
        reads = self._open[_READ]
        self._r.drive(bool(reads) and all(len(burst.got) < burst.allowance for burst in reads))
        self._b.drive(self.takes_answers and bool(self._open[_WRITE]))

    def _sample_registers(self) -> None:
        for write, queue in self._orders.items():
            if not queue:
                continue
            order = queue[0]
            if self._regs[write].passed:
                order.addressed = True
            if order.data is not None and self._reg_data.passed:
                order.supplied = True
            channel = self._reg_answers[write]
            if order.addressed and channel.passed:
                order.answer = RegisterAnswer(channel.get("resp"), 0 if write else channel.get("data"))
                queue.popleft()
                order.done.set()

    def _drive_registers(self) -> None:
        for write, queue in self._orders.items():
            order = queue[0] if queue else None
            self._reg_answers[write].drive(order is not None)
            if order is not None and not order.addressed:
                self._regs[write].put(**order.payload)
            else:
                self._regs[write].drive(False)
            if write:
                if order is not None and order.data is not None and not order.supplied:
                    self._reg_data.put(**order.data)
                else:
                    self._reg_data.drive(False)

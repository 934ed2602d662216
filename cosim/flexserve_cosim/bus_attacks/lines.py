"""The memory that a table behind a cache lies in: the same as everything else's, by a port of the filter's own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from cocotb.handle import HierarchyObject

from flexserve_hw.params import FlexMemParams
from flexserve_hw.tzasc.cache import BANKS
from flexserve_hw.tzasc.cache_port import entry_layout, mark_layout
from flexserve_hw.tzasc.line import line_beats, line_bytes, table_line

from .memory import Memory
from .traffic import BUS
from .wires import Channel

__all__ = ["LineAccess", "Lines"]

OKAY = 0
_FORGETS = 8
"""Cycles after which the cache forgets everything, on average."""


@dataclass(eq=False)
class LineAccess:
    """A line that is fetched or written: its address, when it was asked for, and its beats."""

    address: int
    begun: int
    beats: list[int] = field(default_factory=list)
    given: int = 0


class Lines:
    """Answers the table's port from memory, as late and as wrong as a script wants it.

    A line that is fetched is as it was when it was asked for; one that is written is there when it is answered. Both
    are as adverse to the filter as AXI lets a memory be.

    Parameters
    ----------
    dut
        Top of the simulated design.
    memory
        Where the lines lie.
    params
        Of the filter.
    bank
        The words of a bank of the cache, by its name.

    Members
    -------
    base : page frame number of the table
    forgets : whether entries of the cache are given up at random, which costs time and nothing else
    fetches, stores : may go on by now
    respond_fetch, respond_store : the response to a beat of a line, to a line that was written
    drops : whether a line is answered without having been written
    latency : cycles from a line's address to its first beat, from its last beat to its answer
    seen : every access so far, the addresses of stores as well
    """

    def __init__(
        self, dut: HierarchyObject, memory: Memory, params: FlexMemParams, bank: Callable[[str], Any], *, base: int
    ) -> None:
        self._ar = Channel(dut, "m_axi_table_ar", ("addr", "len"), drives=False)
        self._aw = Channel(dut, "m_axi_table_aw", ("addr", "len"), drives=False)
        self._w = Channel(dut, "m_axi_table_w", ("data", "last"), drives=False)
        self._r = Channel(dut, "m_axi_table_r", ("data", "resp", "last"), drives=True)
        self._b = Channel(dut, "m_axi_table_b", ("resp",), drives=True)
        if params.cache_lines is None:
            raise ValueError(f"Filter must have its table in memory, not {params!r}")
        self.params, self.base = params, base
        self._memory, self._bank, self._lines = memory, bank, params.cache_lines
        self._layout, self._mark = entry_layout(params), mark_layout(params).size
        self._random = np.random.default_rng(1)
        self.seen: list[tuple[bool, int]] = []
        self.restore()

    def restore(self) -> None:
        """Behave, and forget what was under way, as at a reset; contents stay."""
        self._reads: deque[LineAccess] = deque()
        self._writes: deque[LineAccess] = deque()
        self._done: deque[LineAccess] = deque()
        self._beats: deque[int] = deque()
        self._stalled = False
        self.forgets = True
        self.fetches: Callable[[], bool] = lambda: True
        self.stores: Callable[[], bool] = lambda: True
        self.respond_fetch: Callable[[int], int] = lambda beat: OKAY
        self.respond_store: Callable[[], int] = lambda: OKAY
        self.drops: Callable[[], bool] = lambda: False
        self.takes_addresses = self.takes_lines = True
        self.latency = 3

    # The clockwork ---------------------------------------------------------------------------------------------

    def silence(self) -> None:
        """Offer and take nothing, as in reset."""
        for channel in (self._ar, self._aw, self._w, self._r, self._b):
            channel.drive(False)

    def sample(self, now: int) -> None:
        """Take what was transferred in the cycle that ends."""
        taken = self._r.passed
        self._stalled = bool(self._r.driven) and not taken
        if taken:
            access = self._reads[0]
            access.given += 1
            if access.given == len(access.beats):
                self._reads.popleft()
        if self._b.passed:
            self._done.popleft()
        if self._ar.passed:
            access = LineAccess(self._ar.get("addr"), now)
            access.beats = [self._beat(access.address + n * BUS) for n in range(self._ar.get("len") + 1)]
            self._reads.append(access)
            self.seen.append((False, access.address))
        if self._aw.passed:
            self._writes.append(LineAccess(self._aw.get("addr"), now))
            self.seen.append((True, self._writes[-1].address))
        if self._w.passed:
            self._beats.append(self._w.get("data"))
        if self._writes and len(self._beats) >= line_beats(self.params):
            access = self._writes.popleft()
            access.beats = [self._beats.popleft() for _ in range(line_beats(self.params))]
            access.begun = now
            self._done.append(access)

    def drive(self, now: int) -> None:
        """Offer beats and answers for the next cycle."""
        self._ar.drive(self.takes_addresses)
        self._aw.drive(self.takes_lines)
        self._w.drive(self.takes_lines)
        self._give(now)
        # The filter takes every answer at once.
        if self._done and now >= self._done[0].begun + self.latency and self.stores():
            if not self.drops():
                self._commit(self._done[0])
            self._b.put(resp=self.respond_store())
        else:
            self._b.drive(False)

    def _give(self, now: int) -> None:
        if self._stalled:
            return  # a beat that was offered stays as it is until it is taken
        access = self._reads[0] if self._reads else None
        if access is None or now < access.begun + self.latency or not self.fetches():
            self._r.drive(False)
            return
        last = access.given == len(access.beats) - 1
        self._r.put(data=access.beats[access.given], resp=self.respond_fetch(access.given), last=int(last))

    def _beat(self, address: int) -> int:
        memory = self._memory
        if not memory.holds(address):
            return 0
        return int.from_bytes(memory.bytes[address - memory.base : address - memory.base + BUS], "little")

    def _commit(self, access: LineAccess) -> None:
        for n, beat in enumerate(access.beats):
            self._put(access.address + n * BUS, beat)

    def _put(self, address: int, beat: int) -> None:
        memory = self._memory
        if memory.holds(address):
            memory.bytes[address - memory.base : address - memory.base + BUS] = beat.to_bytes(BUS, "little")

    # What scripts look at and change ---------------------------------------------------------------------------

    def address(self, word: int) -> int:
        """Byte address of a line."""
        return self.base * 4096 + word * int(line_bytes(self.params))

    def line(self, word: int) -> int:
        """A line as it is in memory."""
        address = self.address(word)
        return sum(self._beat(address + n * BUS) << 8 * BUS * n for n in range(line_beats(self.params)))

    def write(self, word: int, line: int) -> None:
        """Replace a line in memory."""
        for n in range(line_beats(self.params)):
            self._put(self.address(word) + n * BUS, line >> 8 * BUS * n & (1 << 8 * BUS) - 1)

    def forged(self, word: int, states: int) -> int:
        """A line with a check that fits."""
        return table_line(self.params, word, states)

    @property
    def _states(self) -> int:
        return (1 << int(self._layout["states"].width)) - 1

    def _entries(self, word: int) -> list[tuple[Any, int]]:
        """Entries that hold a word, as handle and value."""
        found = []
        mark = 1 | word // self._lines << 1
        for name in BANKS:
            handle = self._bank(name)[word % self._lines]
            value = int(handle.value)
            if value & (1 << self._mark) - 1 == mark:
                found.append((handle, value))
        return found

    def stored(self, word: int) -> int:
        """States of a word, wherever the newest are."""
        entries = self._entries(word)
        if entries:
            return entries[0][1] >> int(self._layout["states"].offset)
        for access in reversed(self._done):
            if access.address == self.address(word):
                return sum(beat << 8 * BUS * n for n, beat in enumerate(access.beats)) & self._states
        return self.line(word) & self._states

    def flip(self, word: int, mask: int) -> None:
        """Flip bits of a word's states wherever it is stored, with a check that fits. In the middle of a cycle."""
        states = self.stored(word) ^ mask
        for handle, value in self._entries(word):
            handle.value = value ^ mask << self._layout["states"].offset
        self.write(word, self.forged(word, states))

    def forget(self) -> None:
        """Give up every entry of the cache. In the middle of a cycle; not while a line is being handed out."""
        if self._aw.other or self._w.other:
            return
        empty = (1 << self._mark) - 1 << self._layout["complement"].offset
        for name in BANKS:
            bank = self._bank(name)
            for row in range(self._lines):
                bank[row].value = empty

    def may_forget(self) -> bool:
        """Whether to do so in this cycle."""
        return self.forgets and bool(self._random.integers(_FORGETS) == 0)

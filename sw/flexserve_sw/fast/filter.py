"""The filter: every burst of every master passes the region rules and the page states before it reaches memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

from ..machine import BEAT_BYTES, PAGE_BYTES, BusFault, Response, World
from .kernel import Hardware, Line, Steps
from .master import Master
from .memory import Channel, Dram
from .pages import PageSide
from .regions import Access, Regions

__all__ = ["Answer", "Filter"]

FILTER_LATENCY = 2
"""Cycles that the filter adds to an allowed access."""
DENIAL_LATENCY = 4
"""Cycles to the first beat of a denied access, whatever the reason."""
OUTSTANDING = 8
"""Bursts that a transfer keeps in flight."""


@dataclass
class Answer:
    """What the transfer at ``address`` came back with."""

    address: int
    response: Response
    data: bytes

    def check(self) -> bytes:
        """The data, or :class:`BusFault`."""
        if self.response is not Response.OKAY:
            raise BusFault(self.address, self.response, self.data)
        return self.data


class _Burst(NamedTuple):
    """A burst in flight on the allowed or the denied path: its data moves at cycle ``done``, if ``moves``."""

    done: int
    allowed: bool
    moves: bool
    at: int
    size: int


class Filter:
    """Region side, page side and the path between masters and memory.

    ``touching``, if there is one, is called with a page before a transfer's data in it moves, ``changing`` before
    anything changes that says who may access what: so whoever has accesses under way that it has not carried out yet
    can do so before. ``epoch`` counts such changes. ``listener``, of all filters, is told page, direction and world of
    every burst.
    """

    listener: ClassVar[Callable[[int, bool, World], None] | None] = None

    def __init__(self, hardware: Hardware, *, tzc: Line, normal: Line, secure: Line, dram: Dram, capacity: int) -> None:
        self._hardware, self._dram = hardware, dram
        self._last_answer = 0
        self.epoch = 0
        self.changing: Callable[[], None] = _nothing
        self.touching: Callable[[int], None] | None = None
        self._passed: dict[tuple[Master, World, bool], set[int]] = {}  # pages let through in this epoch
        self.regions = Regions(
            hardware,
            tzc,
            drained=self.drained,
            ready=lambda: self.pages.ready,
            changing=self._change,
            address_width=32,
        )
        self.pages = PageSide(
            hardware, normal, secure, dram=dram, capacity=capacity, drained=self.drained, changing=self._change,
            on_ready=self.regions.move_gate,
        )  # fmt: skip

    def _change(self) -> None:
        self.changing()
        self.epoch += 1
        self._passed.clear()

    def drained(self) -> int:
        """Cycle in which the last access accepted so far is answered."""
        return max(self._last_answer, self._hardware.now)

    def _denial(self) -> Response:
        return Response.DECERR if self.regions.answers_error else Response.OKAY

    def judge(self, master: Master, world: World, address: int, *, write: bool) -> bool:
        """Whether a burst that enters now is allowed; a denied one is recorded and counted."""
        if self._passes(master, world, address // PAGE_BYTES, write):
            return True
        self.regions.record(Access(address, write, world, master.nsaid, master.index))
        self.pages.denied()
        return False

    def lets(self, master: Master, world: World, pages: Set[int], *, write: bool) -> bool:
        """Whether bursts in all of these pages would be allowed now; nothing is recorded."""
        return self.regions.allows_all(pages, world, master.nsaid, write) and self.pages.allows_all(pages, world)

    def _passes(self, master: Master, world: World, page: int, write: bool) -> bool:
        """Whether region rules and page state both let an access through; both are asked, for both may have to tell.

        What is let through is so until the epoch ends; it is remembered of pages that exist.
        """
        passed = self._passed.get((master, world, write))
        if passed is None:
            passed = self._passed[master, world, write] = set()
        if page in passed:
            return True
        by_region = self.regions.allows(page * PAGE_BYTES, world, master.nsaid, write)
        if not self.pages.allows(page * PAGE_BYTES, world) or not by_region:
            return False
        if self._dram.holds(page * PAGE_BYTES, PAGE_BYTES):
            passed.add(page)
        return True

    def refusal(self, master: Master, world: World, address: int, length: int, *, write: bool) -> BusFault | None:
        """Judge a burst for a master that moves its data itself: None, or the answer (OKAY too) with zeros as data."""
        if not self.judge(master, world, address, write=write):
            return BusFault(address, self._denial(), bytes(length))
        return None if self._dram.holds(address, length) else BusFault(address, Response.DECERR, bytes(length))

    def heard(self, address: int, world: World, *, write: bool) -> None:
        """Tell the listener, if there is one, of a burst."""
        listener = type(self).listener
        if listener is not None:
            listener(address // PAGE_BYTES, write, world)

    def occupy(self, cycle: int) -> None:
        """Note that an accepted access is answered at ``cycle`` at the latest."""
        if cycle > self._last_answer:
            self._last_answer = cycle

    def load_now(self, master: Master, world: World, address: int, length: int) -> bytes | None:
        """Read at once, the clock put forward, if all bursts are allowed and nothing else happens; else None."""
        if not self._at_once(master, world, address, length, self._dram.reads, write=False):
            return None
        return self._dram.read(address, length)

    def store_now(self, master: Master, world: World, address: int, payload: bytes) -> bool:
        """Write, like :meth:`load_now`; whether it was done."""
        if not self._at_once(master, world, address, len(payload), self._dram.writes, write=True):
            return False
        self._dram.write(address, payload)
        return True

    def _at_once(
        self, master: Master, world: World, address: int, length: int, channel: Channel, *, write: bool
    ) -> bool:
        """Let the time of allowed bursts pass, if nothing else happens meanwhile."""
        if (address | length) % BEAT_BYTES or not self.regions.open:
            return False
        first, last = address // PAGE_BYTES, (address + length - 1) // PAGE_BYTES
        kernel = self._hardware.kernel
        if first == last:
            pages: Sequence[int] = (first,)
            clear = channel.clear(kernel.now + FILTER_LATENCY, length)
        else:
            pages = range(first, last + 1)
            clear = self._last_clear(address, length, channel)
        passed = self._passed.get((master, world, write))
        if passed is None or not passed.issuperset(pages):
            for page in pages:
                if not self._passes(master, world, page, write):
                    return False
            if not self._dram.holds(address, length):
                return False
        if not kernel.skip(clear + channel.latency - kernel.now):
            return False
        self.occupy(channel.take_until(clear, length))
        if Filter.listener is not None:
            for page in pages:
                self.heard(page * PAGE_BYTES, world, write=write)
        if self.touching is not None:
            for page in pages:
                self.touching(page)
        return True

    def _last_clear(self, address: int, length: int, channel: Channel) -> int:
        """When the last byte of several bursts moves, as :meth:`transfer` asks for them."""
        clear, now = channel.free, self._hardware.kernel.now
        page = channel.cycles(PAGE_BYTES)
        if (OUTSTANDING - 1) * page >= FILTER_LATENCY + channel.latency:
            # A burst comes every cycle and takes one at least, and answers come before their room is needed.
            first = PAGE_BYTES - address % PAGE_BYTES
            pages, last = divmod(length - first, PAGE_BYTES)
            clear = channel.clear(now + FILTER_LATENCY, first) + pages * page
            return clear + (channel.cycles(last) if last else 0)
        flight: deque[int] = deque()
        at = 0
        while at < length:
            if len(flight) == OUTSTANDING:
                now = max(now, flight.popleft())
            size = min(length - at, PAGE_BYTES - (address + at) % PAGE_BYTES)
            clear = channel.clear(now + FILTER_LATENCY, size, after=clear)
            flight.append(clear + channel.latency)
            at += size
            now += 1
        return clear

    def post(
        self, master: Master, world: World, address: int, payload: bytes, answered: Callable[[Response], None]
    ) -> None:
        """Write one burst, which lies in one page, for a master that goes on meanwhile and is told of the answer."""
        if not self.regions.open:
            self.regions.opened.add(partial(self.post, master, world, address, payload, answered))
            return
        allowed = self._passes(master, world, address // PAGE_BYTES, True)
        burst, response = self._enter(master, world, address, 0, len(payload), allowed=allowed, after=0, write=True)
        self._hardware.at(burst.done, partial(self._answer, burst, address, payload, response, answered))

    def _enter(
        self, master: Master, world: World, address: int, at: int, size: int, *, allowed: bool, after: int, write: bool
    ) -> tuple[_Burst, Response]:
        """A burst of a transfer at ``address`` enters now, to be done ``after`` those before it; and its answer."""
        place, now = address + at, self._hardware.kernel.now
        moves = allowed and self._dram.holds(place, size)
        if moves:
            channel = self._dram.writes if write else self._dram.reads
            done, response = max(channel.take(now + FILTER_LATENCY, size), after), Response.OKAY
        else:
            response = Response.DECERR if allowed else self._denial()
            done = max(now + DENIAL_LATENCY, after) + size // BEAT_BYTES
            if not allowed:
                self.judge(master, world, place, write=write)
        self.occupy(done)
        if Filter.listener is not None:
            self.heard(place, world, write=write)
        return _Burst(done, allowed, moves, at, size), response

    def _answer(
        self, burst: _Burst, address: int, payload: bytes, response: Response, answered: Callable[[Response], None]
    ) -> None:
        self._move(address, burst, bytearray(), payload)
        answered(response)

    def transfer(
        self, master: Master, world: World, address: int, *, length: int = 0, payload: bytes | None = None
    ) -> Steps[Answer]:
        """Read ``length`` bytes, or write ``payload``, in bursts that never cross a page.

        A closed gate makes it wait. A reset in between ends it with SLVERR.
        """
        write = payload is not None
        length = len(payload) if payload is not None else length
        if address % BEAT_BYTES or length % BEAT_BYTES or length <= 0:
            raise ValueError(f"A transfer must be whole beats of {BEAT_BYTES} bytes, not {length!r} at {address!r}")
        hardware, kernel = self._hardware, self._hardware.kernel
        data = bytearray(0 if write else length)
        worst = Response.OKAY
        flight: deque[_Burst] = deque()
        at = 0
        while at < length or flight:
            if not hardware.running:
                return Answer(address, Response.SLVERR, bytes(data))
            if at == length or len(flight) == OUTSTANDING:
                yield max(0, flight[0].done - kernel.now)
                if hardware.running:
                    self._move(address, flight.popleft(), data, payload)
                continue
            if not self.regions.open:
                yield self.regions.opened
                continue
            place, size = address + at, min(length - at, PAGE_BYTES - (address + at) % PAGE_BYTES)
            allowed = self._passes(master, world, place // PAGE_BYTES, write)
            if flight and flight[-1].allowed is not allowed:
                # Answers of one ID keep their order, so a burst waits for those on the other path.
                yield max(0, flight[0].done - kernel.now)
                if hardware.running:
                    self._move(address, flight.popleft(), data, payload)
                continue
            last = flight[-1].done if flight else 0
            burst, response = self._enter(master, world, address, at, size, allowed=allowed, after=last, write=write)
            worst = max(worst, response)
            flight.append(burst)
            at += size
            if at < length:
                yield 1
        return Answer(address, worst, bytes(data))

    def _move(self, address: int, burst: _Burst, data: bytearray, payload: bytes | None) -> None:
        """Move the data of a burst that ends now."""
        if not burst.moves:
            return
        place, at, size = address + burst.at, burst.at, burst.size
        if self.touching is not None:
            self.touching(place // PAGE_BYTES)
        if payload is None:
            data[at : at + size] = self._dram.read(place, size)
        else:
            self._dram.write(place, memoryview(payload)[at : at + size])


def _nothing() -> None:
    """Nobody has anything under way."""

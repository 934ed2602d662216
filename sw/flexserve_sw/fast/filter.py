"""The filter: every burst of every master passes the region rules and the page states before it reaches memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from ..machine import BEAT_BYTES, PAGE_BYTES, BusFault, Response, World
from .kernel import Hardware, Line, Steps
from .memory import Dram
from .pages import PageSide
from .regions import Access, Regions

__all__ = ["Answer", "Filter", "Master"]

FILTER_LATENCY = 2
"""Cycles that the filter adds to an allowed access."""
DENIAL_LATENCY = 4
"""Cycles to the first beat of a denied access, whatever the reason."""
OUTSTANDING = 8
"""Bursts that a transfer keeps in flight."""


class Master(Enum):
    """Masters on the interconnect: index on the filter's ID, and NSAID."""

    NORMAL_CPU = (0, 0)
    SECURE_CPU = (1, 0)
    NPU = (2, 1)
    STORAGE = (3, 2)
    HOSTILE = (4, 3)

    @property
    def index(self) -> int:
        """Top three bits of the ID."""
        return self.value[0]

    @property
    def nsaid(self) -> int:
        """Non-secure access identity."""
        return self.value[1]


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class _Burst:
    """A burst in flight on the allowed or the denied path: ``finish`` moves its data at cycle ``done``."""

    done: int
    allowed: bool
    finish: Callable[[], None]


class Filter:
    """Region side, page side and the path between masters and memory."""

    def __init__(self, hardware: Hardware, *, tzc: Line, normal: Line, secure: Line, dram: Dram, capacity: int) -> None:
        self._hardware, self._dram = hardware, dram
        self._last_answer = 0
        self.regions = Regions(hardware, tzc, drained=self.drained, ready=lambda: self.pages.ready, address_width=32)
        self.pages = PageSide(
            hardware, normal, secure, dram=dram, capacity=capacity, drained=self.drained,
            on_ready=self.regions.move_gate,
        )  # fmt: skip

    def drained(self) -> int:
        """Cycle in which the last access accepted so far is answered."""
        return max(self._last_answer, self._hardware.now)

    def _denial(self) -> Response:
        return Response.DECERR if self.regions.answers_error else Response.OKAY

    def judge(self, master: Master, world: World, address: int, *, write: bool) -> bool:
        """Whether a burst that enters now is allowed; a denied one is recorded and counted."""
        access = Access(address, write, world, master.nsaid, master.index)
        if self._lets(access):
            return True
        self.regions.record(access)
        self.pages.denied()
        return False

    def _lets(self, access: Access) -> bool:
        """Whether region rules and page state both let an access through."""
        by_region = self.regions.allows(access)
        return self.pages.allows(access.address, access.world) and by_region

    def refusal(self, master: Master, world: World, address: int, length: int, *, write: bool) -> BusFault | None:
        """Judge a burst for a master that moves its data itself: None, or the answer (OKAY too) with zeros as data."""
        if not self.judge(master, world, address, write=write):
            return BusFault(address, self._denial(), bytes(length))
        return None if self._dram.holds(address, length) else BusFault(address, Response.DECERR, bytes(length))

    def occupy(self, cycle: int) -> None:
        """Note that an accepted access is answered at ``cycle`` at the latest."""
        self._last_answer = max(self._last_answer, cycle)

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
        env, hardware = self._hardware.env, self._hardware
        data = bytearray(0 if write else length)
        worst = Response.OKAY
        flight: deque[_Burst] = deque()
        at = 0

        def land() -> Steps[None]:
            burst = flight.popleft()
            yield env.timeout(max(0, burst.done - hardware.now))
            if hardware.running:
                burst.finish()

        while at < length and hardware.running:
            if not self.regions.gate.is_set():
                yield self.regions.gate.event
                continue
            if len(flight) == OUTSTANDING:
                yield from land()
                continue
            place, size = address + at, min(length - at, PAGE_BYTES - (address + at) % PAGE_BYTES)
            if flight and flight[-1].allowed is not self._lets(Access(place, write, world, master.nsaid, master.index)):
                # Answers of one ID keep their order, so a burst waits for those on the other path.
                yield from land()
                continue
            last = flight[-1].done if flight else 0
            done, response = max(hardware.now + DENIAL_LATENCY, last) + size // BEAT_BYTES, Response.OKAY
            finish: Callable[[], None] = _nothing
            allowed = self.judge(master, world, place, write=write)
            if not allowed:
                response = self._denial()
            elif not self._dram.holds(place, size):
                response = Response.DECERR
            else:
                channel = self._dram.writes if write else self._dram.reads
                done = channel.take(hardware.now + FILTER_LATENCY, size).done
                if payload is not None:
                    finish = self._writer(place, payload[at : at + size])
                else:
                    finish = self._reader(place, data, at, size)
            worst = max(worst, response)
            done = max(done, last)
            self.occupy(done)
            flight.append(_Burst(done, allowed, finish))
            at += size
            yield env.timeout(1)
        while flight:
            yield from land()
        if not hardware.running:
            worst = Response.SLVERR
        return Answer(address, worst, bytes(data))

    def _reader(self, place: int, data: bytearray, at: int, size: int) -> Callable[[], None]:
        def finish() -> None:
            data[at : at + size] = self._dram.view(place, size).tobytes()

        return finish

    def _writer(self, place: int, piece: bytes) -> Callable[[], None]:
        def finish() -> None:
            self._dram.view(place, len(piece))[:] = memoryview(piece)

        return finish


def _nothing() -> None:
    """A denied burst moves nothing."""

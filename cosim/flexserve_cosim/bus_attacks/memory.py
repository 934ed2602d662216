"""The memory below the filter, as adverse as AXI lets a memory be."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from cocotb.handle import HierarchyObject

from .traffic import ALL, BUS, beat_addresses
from .wires import Channel

__all__ = ["Access", "Memory"]

_ADDRESS = ("id", "addr", "len", "size", "burst", "prot", "user")
OKAY = 0


@dataclass(eq=False)
class Access:
    """A burst that has come through the filter."""

    write: bool
    id: int
    addresses: list[int]
    secure: bool
    scrub: bool
    size: int
    begun: int
    got: list[tuple[int, int, int]] = field(default_factory=list)
    given: int = 0

    @property
    def page(self) -> int:
        """Page frame number of its first beat."""
        return self.addresses[0] >> 12


class Memory:
    """Contents, and when they are read and written.

    Reads give what is there in the cycle in which the beat is offered; writes take effect with their answer. Both are
    as late as a memory may be, so that whatever the filter lets overlap, overlaps. Answers of different IDs overtake
    each other when a script holds some back.

    Parameters
    ----------
    dut
        Top of the simulated design.
    base, length
        Bytes that exist; accesses elsewhere are kept in :attr:`stray` and answered with zeros.
    scrub_bit
        ID bit that marks the filter's own writes.

    Members
    -------
    read_allowance : how many beats of a read may be given by now
    answers : whether a write may be answered, and take effect, by now
    respond : the response to an access
    drops : whether a write is answered without having been done
    latency : cycles from address to first beat or, for writes, last beat to answer
    takes_addresses, takes_data : back-pressure
    """

    def __init__(self, dut: HierarchyObject, *, base: int, length: int, scrub_bit: int) -> None:
        self.ar = Channel(dut, "m_axi_ar", _ADDRESS, drives=False)
        self.aw = Channel(dut, "m_axi_aw", _ADDRESS, drives=False)
        self.w = Channel(dut, "m_axi_w", ("data", "strb", "last"), drives=False)
        self.r = Channel(dut, "m_axi_r", ("id", "data", "resp", "last"), drives=True)
        self.b = Channel(dut, "m_axi_b", ("id", "resp"), drives=True)
        self.base, self.bytes = base, bytearray(length)
        self._scrub_bit = scrub_bit
        self.stray: list[Access] = []
        self.seen: list[Access] = []
        self.restore()

    def restore(self) -> None:
        """Behave, and forget what was under way, as at a reset; contents stay."""
        self.reads: deque[Access] = deque()
        self.writes: deque[Access] = deque()
        self.done: list[tuple[int, Access]] = []
        self._giving: Access | None = None
        self._answering: Access | None = None
        self._stalled = False
        self.read_allowance: Callable[[Access], int] = lambda access: ALL
        self.answers: Callable[[Access], bool] = lambda access: True
        self.respond: Callable[[Access], int] = lambda access: OKAY
        self.drops: Callable[[Access], bool] = lambda access: False
        self.latency: Callable[[Access], int] = lambda access: 2
        self.takes_addresses = self.takes_data = True

    def holds(self, address: int, length: int = BUS) -> bool:
        """Whether the bytes exist."""
        return self.base <= address and address + length <= self.base + len(self.bytes)

    def sample(self, now: int) -> None:
        """Take what was transferred in the cycle that ends."""
        taken = self.r.passed
        self._stalled = bool(self.r.driven) and not taken
        if taken and self._giving is not None:
            self._giving.given += 1
            if self._giving.given == len(self._giving.addresses):
                self.reads.remove(self._giving)
                self._giving = None
        if self.b.passed:
            self._answering = None
        for channel, queue in ((self.ar, self.reads), (self.aw, self.writes)):
            if channel.passed:
                queue.append(self._access(channel, write=queue is self.writes, now=now))
        if self.w.passed:
            access = self.writes[0]
            where = access.addresses[len(access.got)]
            access.got.append((where, self.w.get("data"), self.w.get("strb")))
            if len(access.got) == len(access.addresses):
                self.done.append((now, self.writes.popleft()))

    def drive(self, now: int) -> None:
        """Offer beats and answers for the next cycle."""
        self.ar.drive(self.takes_addresses)
        self.aw.drive(self.takes_addresses and len(self.writes) < 32)
        self.w.drive(self.takes_data and bool(self.writes))
        self._give(now)
        self._answer(now)

    def _access(self, channel: Channel, *, write: bool, now: int) -> Access:
        identity, size = channel.get("id"), channel.get("size")
        addresses = beat_addresses(channel.get("addr"), channel.get("len") + 1, size, channel.get("burst"))
        secure = not channel.get("prot") & 2
        scrub = write and bool(identity >> self._scrub_bit & 1)
        access = Access(write, identity, addresses, secure, scrub, size, now)
        self.seen.append(access)
        if not all(self.holds(address // BUS * BUS) for address in addresses):
            self.stray.append(access)
        return access

    def _give(self, now: int) -> None:
        if self._stalled:
            return  # a beat that was offered stays as it is until it is taken
        if self._giving is None:
            held: set[int] = set()
            for access in self.reads:
                if access.id not in held and now >= access.begun + self.latency(access) and self._may(access):
                    self._giving = access
                    break
                held.add(access.id)
        giving = self._giving
        if giving is None or not self._may(giving):
            self.r.drive(False)
            return
        word = giving.addresses[giving.given] // BUS * BUS
        data = self.bytes[word - self.base : word - self.base + BUS] if self.holds(word) else bytes(BUS)
        last = giving.given == len(giving.addresses) - 1
        self.r.put(id=giving.id, data=int.from_bytes(data, "little"), resp=self.respond(giving), last=int(last))

    def _may(self, access: Access) -> bool:
        return access.given < self.read_allowance(access)

    def _answer(self, now: int) -> None:
        if self._answering is None:
            held: set[int] = set()
            for when, access in self.done:
                if access.id not in held and now >= when + self.latency(access) and self.answers(access):
                    self.done.remove((when, access))
                    self._answering = access
                    self._commit(access)
                    self.b.put(id=access.id, resp=self.respond(access))
                    return
                held.add(access.id)
            self.b.drive(False)

    def _commit(self, access: Access) -> None:
        if self.drops(access):
            return
        for where, data, strobes in access.got:
            word = where // BUS * BUS - self.base
            if self.holds(word + self.base):
                for lane, byte in enumerate(data.to_bytes(BUS, "little")):
                    if strobes >> lane & 1:
                        self.bytes[word + lane] = byte

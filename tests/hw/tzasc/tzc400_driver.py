"""A TZC-400 driver as secure firmware has one. It knows the programmer's view of that part and nothing of this project.

Firmware comes in two flavours. The release one trusts its callers and the part. The debug one makes sure that the part
is a TZC-400, checks its arguments, reads back what it wrote, and reports a violation in full before it clears it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum

__all__ = ["Action", "Failure", "Secure", "Tzc400Driver", "Tzc400Error", "nsaids"]

BUILD_CONFIG, ACTION, GATE_KEEPER, SPECULATION_CTRL = 0x000, 0x004, 0x008, 0x00C
INT_STATUS, INT_CLEAR = 0x010, 0x014
FAIL_ADDRESS_LOW, FAIL_ADDRESS_HIGH, FAIL_CONTROL, FAIL_ID = 0x020, 0x024, 0x028, 0x02C
FAIL_STEP = 0x10
BASE_LOW, BASE_HIGH, TOP_LOW, TOP_HIGH, ATTRIBUTES, ID_ACCESS = 0x100, 0x104, 0x108, 0x10C, 0x110, 0x114
REGION_STEP = 0x20
PERIPHERAL_ID = (0xFE0, 0xFE4)
COMPONENT_ID = (0xFF0, 0xFF4, 0xFF8, 0xFFC)
GRANULE = 0x1000


class Tzc400Error(Exception):
    """The part is not what it should be, or was asked for what it cannot do."""


class Action(IntEnum):
    """What a violation leads to, besides its record."""

    NONE = 0
    ERROR = 1
    INTERRUPT = 2
    ERROR_AND_INTERRUPT = 3


class Secure(IntEnum):
    """Secure accesses that a region takes."""

    NONE = 0
    READ = 1
    WRITE = 2
    BOTH = 3


@dataclass(frozen=True)
class Failure:
    """The first violation since the last one was handled, and what else came."""

    address: int
    write: bool
    nonsecure: bool
    privileged: bool
    id: int
    overrun: bool
    overlap: bool


def nsaids(*, read: tuple[int, ...] = (), write: tuple[int, ...] = ()) -> int:
    """Word that lets the named non-secure masters read and write."""
    return sum(1 << n for n in read) | sum(1 << 16 + n for n in write)


class Tzc400Driver:
    """One TZC-400.

    ``read(offset)`` and ``write(offset, value)`` access a 32-bit register. ``debug`` chooses the flavour.
    """

    def __init__(
        self,
        read: Callable[[int], Awaitable[int]],
        write: Callable[[int, int], Awaitable[None]],
        *,
        debug: bool = False,
    ) -> None:
        self._read, self._write, self._debug = read, write, debug
        self.filters = self.regions = self.address_width = 0

    async def init(self) -> None:
        """Learn the part's configuration; must come first."""
        if self._debug:
            await self._identify()
        build = await self._read(BUILD_CONFIG)
        self.filters = (build >> 24 & 3) + 1
        self.address_width = (build >> 8 & 0x3F) + 1
        self.regions = (build & 0x1F) + 1

    async def configure_region0(self, *, secure: Secure, access: int) -> None:
        """Rules for every address that no other region has."""
        await self._store(ATTRIBUTES, secure << 30, expect=secure << 30 | self._all_filters)
        await self._store(ID_ACCESS, access)

    async def configure_region(
        self, region: int, base: int, top: int, *, secure: Secure, access: int, filters: int | None = None
    ) -> None:
        """Place a region and enable it in ``filters``, a mask; all of them if none is given. ``top`` is inclusive."""
        filters = self._all_filters if filters is None else filters
        if self._debug:
            self._check_region(region, filters)
            if not base < top < 1 << self.address_width or (base | top + 1) % GRANULE:
                raise Tzc400Error(f"Region {region} cannot lie from {base:#x} to {top:#x}")
        at = region * REGION_STEP
        await self._store(at + BASE_LOW, base & 0xFFFF_FFFF)
        await self._store(at + BASE_HIGH, base >> 32)
        await self._store(at + TOP_LOW, top & 0xFFFF_FFFF)
        await self._store(at + TOP_HIGH, top >> 32)
        await self._store(at + ATTRIBUTES, secure << 30 | filters)
        await self._store(at + ID_ACCESS, access)

    async def update_filters(self, region: int, filters: int) -> None:
        """Enable a region in just these filters and leave its rules as they are."""
        if self._debug:
            self._check_region(region, filters)
        at = region * REGION_STEP + ATTRIBUTES
        await self._store(at, await self._read(at) & ~0xF | filters)

    async def set_action(self, action: Action) -> None:
        """Choose what a violation leads to."""
        await self._store(ACTION, action)

    async def set_speculation(self, *, read: bool, write: bool) -> None:
        """Let accesses go ahead of their check, or not."""
        await self._store(SPECULATION_CTRL, (not read) | (not write) << 1)

    async def enable_filters(self) -> None:
        """Open the gate of every filter, one after the other."""
        for number in range(self.filters):
            if await self._open_gates() >> number & 1:
                raise Tzc400Error(f"Filter {number} is open already")
            await self._move_gate(number, is_open=True)

    async def disable_filters(self) -> None:
        """Close the gate of every filter and wait until what it let in is done."""
        for number in range(self.filters):
            await self._move_gate(number, is_open=False)

    async def handle_interrupt(self) -> Failure | None:
        """Clear the violation of the first filter that has one. The debug flavour says what it was."""
        status = await self._read(INT_STATUS)
        number = next((n for n in range(self.filters) if status >> n & 1), None)
        if number is None:
            raise Tzc400Error("No filter has recorded a violation")
        failure = await self.failure(number, status) if self._debug else None
        await self._write(INT_CLEAR, 1 << number)
        return failure

    async def failure(self, number: int, status: int) -> Failure:
        """The violation that filter ``number`` holds, for the ``status`` read with it."""
        at = number * FAIL_STEP
        address = await self._read(at + FAIL_ADDRESS_LOW) | await self._read(at + FAIL_ADDRESS_HIGH) << 32
        control = await self._read(at + FAIL_CONTROL)
        return Failure(
            address=address,
            write=bool(control >> 24 & 1),
            nonsecure=bool(control >> 21 & 1),
            privileged=bool(control >> 20 & 1),
            id=await self._read(at + FAIL_ID),
            overrun=bool(status >> 8 + number & 1),
            overlap=bool(status >> 16 + number & 1),
        )

    async def dump(self) -> dict[str, int]:
        """State that a crash report shows."""
        names = {"build": BUILD_CONFIG, "action": ACTION, "gates": GATE_KEEPER, "status": INT_STATUS}
        for region in range(self.regions):
            for name, offset in (("base", BASE_LOW), ("top", TOP_LOW), ("rules", ATTRIBUTES), ("access", ID_ACCESS)):
                names[f"{name}{region}"] = offset + region * REGION_STEP
        return {name: await self._read(offset) for name, offset in names.items()}

    @property
    def _all_filters(self) -> int:
        return (1 << self.filters) - 1

    async def _identify(self) -> None:
        part = await self._read(PERIPHERAL_ID[0]) | (await self._read(PERIPHERAL_ID[1]) & 0xF) << 8
        component = 0
        for n, offset in enumerate(COMPONENT_ID):
            component |= (await self._read(offset) & 0xFF) << 8 * n
        if (part, component) != (0x460, 0xB105F00D):
            raise Tzc400Error(f"The part is {part:#x} of component class {component:#x}, no TZC-400")

    def _check_region(self, region: int, filters: int) -> None:
        if region >= self.regions or filters >> self.filters:
            raise Tzc400Error(f"There is no region {region} or no filter of the mask {filters:#x}")

    async def _store(self, offset: int, value: int, *, expect: int | None = None) -> None:
        await self._write(offset, value)
        if self._debug:
            stored = await self._read(offset)
            if stored != (value if expect is None else expect):
                raise Tzc400Error(f"Register {offset:#x} holds {stored:#x} after {value:#x} was written")

    async def _open_gates(self) -> int:
        return await self._read(GATE_KEEPER) >> 16 & 0xF

    async def _move_gate(self, number: int, *, is_open: bool) -> None:
        target = await self._open_gates() & ~(1 << number) | is_open << number
        await self._write(GATE_KEEPER, target)
        while await self._open_gates() != target:
            pass

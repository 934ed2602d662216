"""Region side of the filter: address ranges, worlds and NSAIDs, and the record of what was denied."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass

from ..machine import PAGE_BYTES, World
from ..regs import TZC, Tzc400, Tzc400Region
from .kernel import Hardware, Line, Signal
from .registers import FULL, Frame, Register, Trigger, Value, View

__all__ = ["Access", "Regions"]

_NO_PAGES: frozenset[int] = frozenset()

REGIONS = 9

_IDENTITY = {
    "PID4": 0x04, "PID0": 0x60, "PID1": 0xB4, "PID2": 0x1B, "PID3": 0x00,
    "CID0": 0x0D, "CID1": 0xF0, "CID2": 0x05, "CID3": 0xB1,
}  # fmt: skip


@dataclass(slots=True)
class Access:
    """Who asks for what: one burst as the filter sees its address."""

    address: int
    write: bool
    world: World
    nsaid: int
    master: int


@dataclass
class Region:
    """Rules of one address range; bounds in bytes, ``top`` inclusive."""

    base: Value
    base_high: Value
    top: Value
    top_high: Value
    attributes: Value
    id_access: Value

    @property
    def bounds(self) -> range:
        """The addresses that the region has; none if it is not enabled."""
        if not Tzc400Region.ATTRIBUTES__FILTER_EN.get(self.attributes.value):
            return range(0)
        base = self.base_high.value << 32 | self.base.value
        top = self.top_high.value << 32 | self.top.value | 0xFFF
        return range(base, top + 1)

    def allows(self, world: World, nsaid: int, write: bool) -> bool:
        """Whether the region's rules let an access through."""
        if world is World.SECURE:
            field = Tzc400Region.ATTRIBUTES__S_WR_EN if write else Tzc400Region.ATTRIBUTES__S_RD_EN
            return bool(field.get(self.attributes.value))
        named = Tzc400Region.ID_ACCESS__NSAID_WR_EN if write else Tzc400Region.ID_ACCESS__NSAID_RD_EN
        return bool(named.get(self.id_access.value) >> nsaid & 1)


class Regions:
    """TZC-400 view of the filter.

    ``open`` tells whether the gate is, and ``opened`` is given when it opens. ``drained`` gives the cycle in which the
    last access accepted so far is answered: the gate's status falls then. ``changing`` is called before a rule changes.
    ``ready`` tells whether the window is: until then the gate stays closed, whatever is asked. Whoever makes it ready
    calls :meth:`move_gate`.
    """

    def __init__(
        self,
        hardware: Hardware,
        line: Line,
        *,
        drained: Callable[[], int],
        ready: Callable[[], bool],
        changing: Callable[[], None],
        address_width: int,
    ) -> None:
        self._hardware, self._line, self._drained, self._ready = hardware, line, drained, ready
        self.open = False
        self.opened = Signal()
        self._changing = changing
        self._bounds: list[tuple[range, Region]] | None = None  # of the regions that are enabled, until a rule changes
        self._allowed: dict[tuple[World, int, bool], set[int]] = {}
        self._gate_busy_until = 0
        self._recorded: Access | None = None
        self._held = self._overrun = self._overlap = False
        self._action = Value(mask=3, changed=self._drive)
        self._request = Value(mask=1, changed=self.move_gate, shown=self._gate_word)
        self.regions = [self._background(address_width), *(self._region() for _ in range(1, REGIONS))]
        width = Tzc400.BUILD_CONFIG__ADDRESS_WIDTH.put(address_width - 1)
        build = Tzc400.BUILD_CONFIG__REGIONS.put(REGIONS - 1) | width
        self.frame = Frame(self._registers(build), lenient=True)

    def _rule(self, *, reset: int = 0, mask: int = FULL, shown: Callable[[int], int] | None = None) -> Value:
        """A word on which it hangs what is let through."""
        return Value(reset=reset, mask=mask, shown=shown, adjust=self._change)

    def _change(self, word: int) -> int:
        self._changing()
        self._allowed.clear()
        self._bounds = None
        return word

    def _region(self) -> Region:
        page = 0xFFFF_F000
        top = self._rule(mask=page, shown=_inclusive)
        return Region(
            self._rule(mask=page), self._rule(), top, self._rule(), self._rule(mask=0xC000_0001), self._rule()
        )

    def _background(self, address_width: int) -> Region:
        """Region 0: bounds and enable are read-only."""
        end = (1 << address_width) - 1
        top = Value(reset=end & 0xFFFF_F000, mask=0, shown=_inclusive), Value(reset=end >> 32, mask=0)
        return Region(Value(mask=0), Value(mask=0), *top, self._rule(reset=1, mask=0xC000_0000), self._rule())

    def _registers(self, build: int) -> dict[int, Register]:
        registers: dict[int, Register] = {
            TZC.BUILD_CONFIG: View(lambda: build),
            TZC.ACTION: self._action,
            TZC.GATE_KEEPER: self._request,
            TZC.SPECULATION_CTRL: Value(mask=3),
            TZC.INT_STATUS: View(self._int_status),
            TZC.INT_CLEAR: Trigger(self._clear, mask=1),
            TZC.FAIL_ADDRESS_LOW: View(lambda: self._recorded.address if self._recorded else 0),
            TZC.FAIL_ADDRESS_HIGH: View(lambda: self._recorded.address >> 32 if self._recorded else 0),
            TZC.FAIL_CONTROL: View(self._fail_control),
            TZC.FAIL_ID: View(self._fail_id),
        }
        for block, region in zip(TZC.REGION, self.regions, strict=True):
            registers |= {
                block.BASE_LOW: region.base,
                block.BASE_HIGH: region.base_high,
                block.TOP_LOW: region.top,
                block.TOP_HIGH: region.top_high,
                block.ATTRIBUTES: region.attributes,
                block.ID_ACCESS: region.id_access,
            }
        registers |= {getattr(TZC, name): _constant(value) for name, value in _IDENTITY.items()}
        return {address - TZC.base: register for address, register in registers.items()}

    @property
    def answers_error(self) -> bool:
        """Whether a denied access is answered DECERR instead of OKAY."""
        return bool(self._action.value & 1)

    def allows(self, address: int, world: World, nsaid: int, write: bool) -> bool:
        """Whether the rules of the one region that has the address let the access through.

        Region 0 has what no other region has. Two regions over one address are an error of configuration: denied.
        Bounds are those of pages, so what was found out for a page holds until a rule changes.
        """
        allowed = self._allowed.get((world, nsaid, write))
        if allowed is None:
            allowed = self._allowed[world, nsaid, write] = set()
        page = address // PAGE_BYTES
        if page in allowed:
            return True
        if self._judge(address, world, nsaid, write):
            allowed.add(page)
            return True
        return False

    def allows_all(self, pages: Set[int], world: World, nsaid: int, write: bool) -> bool:
        """Whether :meth:`allows` would let accesses in all of these pages through; no overlap is recorded for it."""
        allowed, overlap = self._allowed.get((world, nsaid, write), _NO_PAGES), self._overlap
        through = all(self.allows(page * PAGE_BYTES, world, nsaid, write) for page in pages - allowed)
        self._overlap = overlap
        return through

    def _judge(self, address: int, world: World, nsaid: int, write: bool) -> bool:
        if self._bounds is None:
            self._bounds = [(region.bounds, region) for region in self.regions[1:] if region.bounds]
        hits = [region for bounds, region in self._bounds if address in bounds]
        if len(hits) > 1:
            self._overlap = True
            return False
        return (hits or self.regions[:1])[0].allows(world, nsaid, write)

    def record(self, access: Access) -> None:
        """Note a denied access: the first is held until INT_CLEAR, later ones only set the overrun flag."""
        if self._held:
            self._overrun = True
        else:
            self._recorded, self._held = access, True
        self._drive()

    def _drive(self) -> None:
        self._line.drive(self._held and bool(self._action.value & 2))

    def _clear(self, word: int) -> None:
        if word:
            self._held = self._overrun = self._overlap = False
            self._drive()

    def move_gate(self) -> None:
        """Put the gate where the request and the window want it."""
        if self._request.value and self._ready():
            self.open = True
            self.opened.fire()
        elif self.open:
            self.open = False
            self._gate_busy_until = self._drained()

    def _gate_word(self, request: int) -> int:
        busy = self.open or self._hardware.now < self._gate_busy_until
        return Tzc400.GATE_KEEPER__REQUEST.put(request) | Tzc400.GATE_KEEPER__STATUS.put(int(busy))

    def _int_status(self) -> int:
        return (
            Tzc400.INT_STATUS__STATUS.put(int(self._held))
            | Tzc400.INT_STATUS__OVERRUN.put(int(self._overrun))
            | Tzc400.INT_STATUS__OVERLAP.put(int(self._overlap))
        )

    def _fail_control(self) -> int:
        if self._recorded is None:
            return 0
        non_secure = self._recorded.world is World.NORMAL
        return Tzc400.FAIL_CONTROL__NON_SECURE.put(int(non_secure)) | Tzc400.FAIL_CONTROL__WRITE.put(
            int(self._recorded.write)
        )

    def _fail_id(self) -> int:
        if self._recorded is None:
            return 0
        return Tzc400.FAIL_ID__ID.put(self._recorded.master << 3) | Tzc400.FAIL_ID__VNET.put(self._recorded.nsaid)


def _constant(value: int) -> View:
    return View(lambda: value)


def _inclusive(top: int) -> int:
    return top | 0xFFF

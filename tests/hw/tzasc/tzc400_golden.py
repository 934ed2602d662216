"""Golden model of a TZC-400's programmer's view with one filter unit and nine regions, in bytes and 32-bit words."""

from dataclasses import dataclass, field

__all__ = ["REGIONS", "Tzc400View"]

REGIONS = 9

_CONSTANTS = {
    0xFD0: 0x04, 0xFE0: 0x60, 0xFE4: 0xB4, 0xFE8: 0x1B, 0xFF0: 0x0D, 0xFF4: 0xF0, 0xFF8: 0x05, 0xFFC: 0xB1,
}  # fmt: skip

_PAGE_BITS = 0xFFFF_F000
_REGION_MASKS = (_PAGE_BITS, 0xFFFF_FFFF, _PAGE_BITS, 0xFFFF_FFFF, 0xC000_0001, 0xFFFF_FFFF)


@dataclass
class Tzc400View:
    """What software wrote, and what follows from it.

    ``words`` are the stored words by offset; :meth:`read` gives what a register reads as, if nothing was denied and the
    gate is closed.
    """

    address_width: int
    words: dict[int, int] = field(default_factory=dict)

    def masks(self) -> dict[int, int]:
        """Bits that software can change, by offset, of every register that has some."""
        found = {0x004: 3, 0x008: 1, 0x00C: 3}
        for region in range(REGIONS):
            for n, mask in enumerate(_REGION_MASKS):
                found[0x100 + 0x20 * region + 4 * n] = mask
        return found | {0x100: 0, 0x104: 0, 0x108: 0, 0x10C: 0, 0x110: 0xC000_0000}

    def write(self, offset: int, value: int) -> None:
        """Take a write; to what cannot be changed it does nothing."""
        self.words[offset] = value & self.masks().get(offset, 0)

    def read(self, offset: int) -> int:
        """What the register at ``offset`` shows."""
        end = (1 << self.address_width) - 1
        fixed = _CONSTANTS | {
            0x000: self.address_width - 1 << 8 | REGIONS - 1,
            0x108: end & 0xFFFF_FFFF,
            0x10C: end >> 32,
            0x110: 1,
            **{0x108 + 0x20 * region: 0xFFF for region in range(1, REGIONS)},
        }
        return self.words.get(offset, 0) | fixed.get(offset, 0)

    def bounds(self, region: int) -> tuple[int, int]:
        """First and last byte address."""
        low, high, top_low, top_high = (self.read(0x100 + 0x20 * region + 4 * n) for n in range(4))
        return high << 32 | low, top_high << 32 | top_low

    def hits(self, address: int) -> list[int]:
        """Enabled regions other than the background that have ``address``."""
        found = []
        for region in range(1, REGIONS):
            base, top = self.bounds(region)
            if self.read(0x110 + 0x20 * region) & 1 and base <= address <= top:
                found.append(region)
        return found

    def overlaps(self, address: int) -> bool:
        """Whether more than one region has ``address``."""
        return len(self.hits(address)) > 1

    def allows(self, address: int, *, write: bool, nonsecure: bool, nsaid: int = 0) -> bool:
        """Whether the one region that has ``address`` permits the access."""
        hits = self.hits(address)
        if len(hits) > 1:
            return False
        at = 0x100 + 0x20 * (hits[0] if hits else 0)
        if nonsecure:
            return bool(self.read(at + 0x14) >> 16 * write + nsaid & 1)
        return bool(self.read(at + 0x10) >> 30 + write & 1)

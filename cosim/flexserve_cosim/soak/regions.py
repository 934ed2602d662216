"""The region side, as TZC-400 defines it: the golden verdict over many accesses at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flexserve_sw.regs import TZC, Tzc400Region

from .records import Transactions

__all__ = ["Opening", "RegionRegisters"]

Mask = npt.NDArray[np.bool_]

_REGIONS = 9
_PAGE = (1 << 12) - 1
_SECURE_READ, _SECURE_WRITE = 30, 31


@dataclass
class Opening:
    """The gate is open, with the rules of that time: accesses are accepted after ``start``, none after ``closed``."""

    start: int
    action: int
    regions: tuple[tuple[int, int, int, int], ...]
    closed: int | None = None

    def verdict(self, accesses: Transactions) -> tuple[Mask, Mask]:
        """Which accesses the regions allow, and which are denied because regions overlap."""
        address = accesses["address"].astype(np.int64)
        write, nonsecure = accesses["write"] == 1, (accesses["prot"] >> 1 & 1) == 1
        nsaid = accesses["nsaid"].astype(np.int64)
        hits = np.zeros(len(accesses), np.int64)
        allow = np.zeros(len(accesses), np.bool_)
        for number, (base, top, attributes, ids) in enumerate(self.regions):
            if number and not attributes & 1:
                continue
            hit = (base <= address) & (address <= top) if number else np.ones(len(accesses), np.bool_)
            secure = np.where(write, attributes >> _SECURE_WRITE & 1, attributes >> _SECURE_READ & 1)
            named = ids >> (nsaid + np.where(write, 16, 0)) & 1
            permits = np.where(nonsecure, named, secure) == 1
            allow = np.where(hit, permits, allow)
            hits += hit if number else 0
        return allow & (hits <= 1), hits > 1


class RegionRegisters:
    """What software wrote to the region side."""

    def __init__(self) -> None:
        self._values: dict[int, int] = {}

    def write(self, address: int, data: int) -> bool:
        """Take a write; returns whether the register belongs to the region side."""
        if address >> 12 != TZC.base >> 12:
            return False
        self._values[address] = data
        return True

    def opening(self, start: int) -> Opening:
        """The rules as they stand."""
        return Opening(
            start=start,
            action=self._values.get(TZC.ACTION, 0) & 3,
            regions=tuple(self._region(TZC.REGION[number]) for number in range(_REGIONS)),
        )

    def _region(self, region: Tzc400Region) -> tuple[int, int, int, int]:
        def value(address: int) -> int:
            return self._values.get(address, 0)

        base = value(region.BASE_HIGH) << 32 | value(region.BASE_LOW) & ~_PAGE
        top = value(region.TOP_HIGH) << 32 | value(region.TOP_LOW) | _PAGE
        return base, top, value(region.ATTRIBUTES), value(region.ID_ACCESS)

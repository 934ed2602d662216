"""Region side of the filter as the monitor programs it."""

from __future__ import annotations

from ..machine import Initiator, Machine
from ..regs import TZC, Tzc400, Tzc400Region
from .layout import Extent, Layout

__all__ = ["ALL_MASTERS", "BACKGROUND", "CMA_NORMAL", "CMA_SECURE", "ORDINARY", "REACTION", "WINDOW", "Regions"]

ALL_MASTERS = 0b1111
"""NSAIDs of the SoC's masters: CPU, NPU, storage, and the device nobody trusts."""

BACKGROUND, ORDINARY, WINDOW, CMA_NORMAL, CMA_SECURE = range(5)
"""Use of the region numbers."""

REACTION = 3
"""Denied accesses answer DECERR and raise the interrupt."""

_BY = Initiator.SECURE_CPU


class Regions:
    """Rules by address range. Every rule is programmed disabled and enabled last, so that none is ever half written."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.secure_cma_pages = 0
        """Pages at the bottom of the CMA area that are secure now."""

    async def program(self, index: int, extent: Extent, *, nsaids: int, secure: bool) -> None:
        """Give the pages of ``extent`` to the NSAIDs in ``nsaids`` and, if ``secure``, to secure accesses."""
        machine, region = self._machine, TZC.REGION[index]
        await self.disable(index)
        top = extent.address + extent.length - 1
        await machine.write_register(region.BASE_LOW, extent.address & 0xFFFF_F000, by=_BY)
        await machine.write_register(region.BASE_HIGH, extent.address >> 32, by=_BY)
        await machine.write_register(region.TOP_LOW, top & 0xFFFF_F000, by=_BY)
        await machine.write_register(region.TOP_HIGH, top >> 32, by=_BY)
        access = Tzc400Region.ID_ACCESS__NSAID_RD_EN.put(nsaids) | Tzc400Region.ID_ACCESS__NSAID_WR_EN.put(nsaids)
        await machine.write_register(region.ID_ACCESS, access, by=_BY)
        rules = (
            Tzc400Region.ATTRIBUTES__FILTER_EN.put(1)
            | Tzc400Region.ATTRIBUTES__S_RD_EN.put(secure)
            | Tzc400Region.ATTRIBUTES__S_WR_EN.put(secure)
        )
        await machine.write_register(region.ATTRIBUTES, rules, by=_BY)

    async def disable(self, index: int) -> None:
        """Let a region match nothing."""
        await self._machine.write_register(TZC.REGION[index].ATTRIBUTES, 0, by=_BY)

    async def boot(self, layout: Layout) -> None:
        """Program every region; what no region names stays closed to everyone."""
        machine = self._machine
        await machine.write_register(TZC.ACTION, Tzc400.ACTION__REACTION.put(REACTION), by=_BY)
        await machine.write_register(TZC.REGION[BACKGROUND].ATTRIBUTES, 0, by=_BY)
        await machine.write_register(TZC.REGION[BACKGROUND].ID_ACCESS, 0, by=_BY)
        await self.program(ORDINARY, layout.ordinary, nsaids=ALL_MASTERS, secure=False)
        await self.program(WINDOW, layout.window, nsaids=ALL_MASTERS, secure=True)
        await self._place_secure(layout.cma, None, 0)
        await self._place_normal(layout.cma, None, 0)

    async def split_cma(self, layout: Layout, secure_pages: int) -> None:
        """Make the first ``secure_pages`` pages of the CMA area secure and leave the rest to the OS.

        The normal part shrinks before the secure part grows, and the secure part shrinks before the normal part grows,
        so that no page is ever in both. A bound that moves is one register, so that accesses to pages that stay secure
        go on.
        """
        area, before = layout.cma, self.secure_cma_pages
        if not 0 <= secure_pages <= area.count:
            raise ValueError(f"The secure part of the CMA area must be 0 to {area.count} pages, not {secure_pages!r}")
        if secure_pages >= before:
            await self._place_normal(area, before, secure_pages)
            await self._place_secure(area, before, secure_pages)
        else:
            await self._place_secure(area, before, secure_pages)
            await self._place_normal(area, before, secure_pages)
        self.secure_cma_pages = secure_pages

    async def _place_normal(self, area: Extent, before: int | None, pages: int) -> None:
        if pages == area.count:
            await self.disable(CMA_NORMAL)
        elif before is None or before == area.count:
            await self.program(
                CMA_NORMAL, Extent(area.first + pages, area.count - pages), nsaids=ALL_MASTERS, secure=False
            )
        else:
            base = Extent(area.first + pages, 1).address & 0xFFFF_F000
            await self._machine.write_register(TZC.REGION[CMA_NORMAL].BASE_LOW, base, by=_BY)

    async def _place_secure(self, area: Extent, before: int | None, pages: int) -> None:
        if pages == 0:
            await self.disable(CMA_SECURE)
        elif not before:
            await self.program(CMA_SECURE, Extent(area.first, pages), nsaids=0, secure=True)
        else:
            top = Extent(area.first + pages - 1, 1).address & 0xFFFF_F000
            await self._machine.write_register(TZC.REGION[CMA_SECURE].TOP_LOW, top, by=_BY)

    async def open_gate(self) -> None:
        """Let traffic through the filter from now on."""
        await self._machine.write_register(TZC.GATE_KEEPER, Tzc400.GATE_KEEPER__REQUEST.put(1), by=_BY)
        while not Tzc400.GATE_KEEPER__STATUS.get(await self._machine.read_register(TZC.GATE_KEEPER, by=_BY)):
            pass

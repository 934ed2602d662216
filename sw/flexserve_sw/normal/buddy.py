"""Buddy allocator of the OS: pages in blocks of powers of two."""

from __future__ import annotations

from ..monitor.layout import Extent

__all__ = ["BuddyAllocator", "OutOfMemory"]


class OutOfMemory(Exception):
    """Not enough free pages."""


class BuddyAllocator:
    """Free pages of an extent, kept as aligned blocks of 2**order pages, ``order`` at most ``max_order``.

    Blocks are aligned to their size in page frame numbers. Of several blocks that fit, the lowest is taken.
    """

    def __init__(self, extent: Extent, *, max_order: int = 10) -> None:
        if max_order < 0:
            raise ValueError(f"Largest order must be 0 or more, not {max_order!r}")
        self.extent = extent
        self._max_order = max_order
        self._free: list[set[int]] = [set() for _ in range(max_order + 1)]
        self.free_pages = 0
        self.give(extent)

    def take(self, pages: int) -> list[Extent]:
        """Take ``pages`` pages in as few blocks as are free.

        The largest first, none larger than what is still needed.
        """
        if pages < 1:
            raise ValueError(f"Pages to take must be at least 1, not {pages!r}")
        if pages > self.free_pages:
            raise OutOfMemory(f"{pages} pages were asked for and {self.free_pages} are free")
        taken: list[Extent] = []
        left = pages
        while left:
            order = min(left.bit_length() - 1, self._max_order)
            while order >= 0 and self._smallest_from(order) is None:
                order -= 1
            taken.append(self.take_block(order if order >= 0 else 0))
            left -= taken[-1].count
        return taken

    def _smallest_from(self, order: int) -> int | None:
        return next((o for o in range(order, self._max_order + 1) if self._free[o]), None)

    def take_block(self, order: int) -> Extent:
        """Take one contiguous block of 2**order pages."""
        if not 0 <= order <= self._max_order:
            raise ValueError(f"Order must be 0 to {self._max_order}, not {order!r}")
        found = self._smallest_from(order)
        if found is None:
            raise OutOfMemory(f"No free block of {1 << order} pages is left")
        first = min(self._free[found])
        self._free[found].remove(first)
        while found > order:
            found -= 1
            self._free[found].add(first + (1 << found))
        self.free_pages -= 1 << order
        return Extent(first, 1 << order)

    def carve(self, extent: Extent) -> None:
        """Take exactly these pages. Raises :class:`OutOfMemory`, and takes none, if one of them is not free."""
        if not all(self.is_free(page) for page in extent.pages()):
            raise OutOfMemory(f"Not every page of {extent!r} is free")
        for page in extent.pages():
            order, first = self._block_of(page)
            self._free[order].remove(first)
            while order:
                order -= 1
                half = first + (1 << order)
                self._free[order].add(first if page >= half else half)
                first = half if page >= half else first
            self.free_pages -= 1

    def is_free(self, page: int) -> bool:
        """Whether nobody has the page."""
        return self._order_of(page) is not None

    def _block_of(self, page: int) -> tuple[int, int]:
        order = self._order_of(page)
        if order is None:
            raise OutOfMemory(f"Page {page:#x} is not free")
        return order, page >> order << order

    def _order_of(self, page: int) -> int | None:
        for order, blocks in enumerate(self._free):
            if page >> order << order in blocks:
                return order
        return None

    def give(self, extent: Extent) -> None:
        """Take pages back and join free neighbours. Raises ``ValueError``, and takes none, if one is not out."""
        for page in extent.pages():
            if not self.extent.first <= page < self.extent.end or self.is_free(page):
                raise ValueError(f"Pages given back must be this allocator's and taken, not {page:#x}")
        for page in extent.pages():
            self._join(page)
        self.free_pages += extent.count

    def _join(self, first: int) -> None:
        order = 0
        while order < self._max_order and first ^ (1 << order) in self._free[order]:
            self._free[order].remove(first ^ (1 << order))
            first &= ~(1 << order)
            order += 1
        self._free[order].add(first)

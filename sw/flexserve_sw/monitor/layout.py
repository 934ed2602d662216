"""Where everything lies in memory, fixed at boot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..machine import PAGE_BYTES, WINDOW_GRANULE

__all__ = ["Extent", "Layout", "extents_of", "pages_of"]


@dataclass(frozen=True, order=True)
class Extent:
    """``count`` pages from page frame number ``first``."""

    first: int
    count: int

    def __post_init__(self) -> None:
        if self.first < 0 or self.count < 1:
            raise ValueError(
                f"An extent must have a page number and at least one page, not {(self.first, self.count)!r}"
            )

    @property
    def end(self) -> int:
        """Page frame number after the last."""
        return self.first + self.count

    @property
    def address(self) -> int:
        """Byte address of the first page."""
        return self.first * PAGE_BYTES

    @property
    def length(self) -> int:
        """Bytes."""
        return self.count * PAGE_BYTES

    def pages(self) -> range:
        """Page frame numbers."""
        return range(self.first, self.end)

    def overlaps(self, other: Extent) -> bool:
        """Whether the two share a page."""
        return self.first < other.end and other.first < self.end

    def contains(self, other: Extent) -> bool:
        """Whether every page of the other is in this one."""
        return self.first <= other.first and other.end <= self.end


def extents_of(pages: Iterable[int]) -> list[Extent]:
    """Runs of neighbours, in the order given."""
    runs: list[Extent] = []
    for page in pages:
        if runs and runs[-1].end == page:
            runs[-1] = Extent(runs[-1].first, runs[-1].count + 1)
        else:
            runs.append(Extent(page, 1))
    return runs


def pages_of(extents: Iterable[Extent]) -> Iterator[int]:
    """Every page of every extent, in order."""
    for extent in extents:
        yield from extent.pages()


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Memory map of the phone.

    From the bottom: ordinary memory of the OS (``shared`` and ``bounce`` are pages of it that both worlds use), the
    area that CMA keeps for contiguous allocations, and the flexible window up to the top of memory. The first pages of
    the window are sealed for the secure world.

    Parameters
    ----------
    dram_base, dram_bytes
        Memory, in bytes.
    window_pages
        Size of the flexible window: a multiple of the granule of 64 pages.
    cma_pages
        Size of the CMA area.
    sealed_pages
        Pages of the window that are sealed at boot.
    bounce_pages
        Pages of each bounce buffer, through which ciphertext passes between storage and the secure world.
    """

    dram_base: int
    dram_bytes: int
    window_pages: int
    cma_pages: int
    sealed_pages: int = 4
    bounce_pages: int = 32
    bounces: int = 2

    def __post_init__(self) -> None:
        pages = self.dram_bytes // PAGE_BYTES
        granule = WINDOW_GRANULE * PAGE_BYTES
        if self.dram_base % granule or self.dram_bytes % granule:
            raise ValueError(
                f"Memory must be whole groups of {WINDOW_GRANULE} pages, not {(self.dram_base, self.dram_bytes)!r}"
            )
        if self.window_pages % WINDOW_GRANULE or not self.sealed_pages < self.window_pages:
            raise ValueError(
                f"The window must be a multiple of {WINDOW_GRANULE} pages with room past the seals,"
                f" not {self.window_pages!r}"
            )
        if self.window_pages + self.cma_pages + 1 + self.bounces * self.bounce_pages + 16 > pages:
            raise ValueError(
                f"Window, CMA area and the OS must fit {pages} pages, not {(self.window_pages, self.cma_pages)!r}"
            )

    @property
    def _base(self) -> int:
        return self.dram_base // PAGE_BYTES

    @property
    def window(self) -> Extent:
        """The flexible window."""
        return Extent(self._base + self.dram_bytes // PAGE_BYTES - self.window_pages, self.window_pages)

    @property
    def sealed(self) -> Extent:
        """Pages of the window that belong to the secure world for good."""
        return Extent(self.window.first, self.sealed_pages)

    @property
    def lendable(self) -> Extent:
        """The window without the seals."""
        return Extent(self.sealed.end, self.window_pages - self.sealed_pages)

    @property
    def cma(self) -> Extent:
        """The contiguous area."""
        return Extent(self.window.first - self.cma_pages, self.cma_pages)

    @property
    def ordinary(self) -> Extent:
        """The OS's own memory below the CMA area, shared and bounce pages included."""
        return Extent(self._base, self.cma.first - self._base)

    @property
    def shared(self) -> Extent:
        """The page through which lists of pages pass from the OS to the secure world."""
        return Extent(self._base, 1)

    def bounce(self, index: int) -> Extent:
        """Bounce buffer number ``index``."""
        if not 0 <= index < self.bounces:
            raise ValueError(f"Bounce buffer must be 0 to {self.bounces - 1}, not {index!r}")
        return Extent(self._base + 1 + index * self.bounce_pages, self.bounce_pages)

    @property
    def free(self) -> Extent:
        """What the OS can allocate from, below the CMA area."""
        first = self._base + 1 + self.bounces * self.bounce_pages
        return Extent(first, self.cma.first - first)

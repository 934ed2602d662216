"""What the framework keeps in pages: weights, keys and values, working memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from ..machine import PAGE_BYTES, Event
from .image import StoredSegment

__all__ = ["Kind", "PagedSegment", "whole_pages"]


def whole_pages(length: int) -> int:
    """Bytes, rounded up to whole pages."""
    return -(-length // PAGE_BYTES) * PAGE_BYTES


class Kind(Enum):
    """How a page's contents survive losing the page."""

    WORK = "work"
    """They need not: working memory is written anew for every job. In use, a page moves to another frame."""
    KV = "kv"
    """Encrypted in the swap area."""
    WEIGHTS = "weights"
    """They are in flash already."""


@dataclass(eq=False, kw_only=True)
class PagedSegment:
    """A run of pages of the model's address space.

    ``loaded`` is set when the first loading is over. ``slots`` are the swap slots of pages that are swapped out,
    ``failure`` what the first loading ended with if it failed. ``lost``: the OS
    took a page whose contents were nowhere else. Pages are counted from 0 within the segment.
    """

    name: str
    kind: Kind
    first: int
    pages: int
    loaded: Event
    stored: StoredSegment | None = None
    slots: dict[int, int] = field(default_factory=dict)
    failure: BaseException | None = None
    lost: bool = False

    @property
    def address(self) -> int:
        """Byte address in the model's address space."""
        return self.first * PAGE_BYTES

    @property
    def length(self) -> int:
        """Bytes."""
        return self.pages * PAGE_BYTES

"""Jobs whose lists of descriptors are too long for the pages there are, done as several smaller ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from ..errors import UserError

__all__ = ["ListTooLong", "in_parts"]

P = TypeVar("P")


class ListTooLong(MemoryError):
    """No run of neighbouring pages, were it empty, has room for a list of descriptors; a smaller job may have."""


async def in_parts(
    name: str, part: P, job: Callable[[P], Awaitable[None]], halve: Callable[[P], tuple[P, P] | None]
) -> None:
    """Do ``part`` as one job if its list has room, else its halves, one after the other.

    ``halve`` gives None for what can't be cut any more.
    """
    try:
        await job(part)
        return
    except ListTooLong as error:
        halves = halve(part)
        if halves is None:
            raise UserError(
                f"The NPU's list for the smallest part of {name} is too long for a page; choose a narrower model."
            ) from error
    for half in halves:
        await in_parts(name, half, job, halve)

"""Secure monitor calls: function identifiers after Arm's SMC calling convention, and what they answer."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Call", "Request", "Status", "function_id"]

_FAST = 1 << 31
_OWNER_ARM, _OWNER_SIP, _OWNER_TRUSTED_OS = 0, 2, 50


def function_id(*, fast: bool, owner: int, number: int) -> int:
    """SMC32 identifier: bit 31 fast, bits 29:24 owning entity, bits 15:0 function number."""
    if not 0 <= owner < 64 or not 0 <= number < 1 << 16:
        raise ValueError(f"Owner must be below 64 and function number below 65536, not {(owner, number)!r}")
    return (_FAST if fast else 0) | owner << 24 | number


class Call(IntEnum):
    """Calls from the normal world. Fast calls finish in the monitor; yielding calls run the secure world."""

    SMCCC_VERSION = function_id(fast=True, owner=_OWNER_ARM, number=0)
    """Version of the calling convention: major << 16 | minor."""
    SIP_UID = function_id(fast=True, owner=_OWNER_SIP, number=0xFF01)
    """Identifies the service: four words of a UUID."""
    SIP_REVISION = function_id(fast=True, owner=_OWNER_SIP, number=0xFF03)
    """Major and minor revision of the service."""
    SECURE_REGION = function_id(fast=True, owner=_OWNER_SIP, number=1)
    """First page and number of pages of the CMA area that are secure now."""
    GENERATE = function_id(fast=False, owner=_OWNER_TRUSTED_OS, number=1)
    """Let the serving framework answer; argument: tokens wanted. Returns the tokens made."""
    RESUME = function_id(fast=False, owner=_OWNER_TRUSTED_OS, number=2)
    """Go back to the secure world after a request of it: arguments slot, status, count."""


class Status(IntEnum):
    """First result of a call, or of a request."""

    OK = 0
    NOT_SUPPORTED = -1
    INVALID_PARAMETER = -3
    NO_MEMORY = -4
    DEVICE_ERROR = -5
    BUSY = -6


class Request(IntEnum):
    """What the secure world asks the OS for; the OS may refuse, or lie."""

    ALLOCATE = 1
    """Lend pages of the flexible window; argument: pages. The list of extents comes in the shared slot."""
    GROW_REGION = 2
    """Clear pages of the CMA area above the secure ones; argument: pages. One extent comes in the shared slot."""
    SHRINK_REGION = 3
    """Pages of the CMA area are normal memory again; arguments: first page, pages."""
    FLASH_READ = 4
    """Arguments: flash offset, bounce address, bytes."""
    FLASH_WRITE = 5
    """Arguments: flash offset, bounce address, bytes."""
    LEND_NPU = 6
    """Delegate the NPU."""

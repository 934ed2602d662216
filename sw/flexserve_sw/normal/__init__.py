"""The normal world: an operating system that owns every resource and is trusted with no secret."""

from .buddy import BuddyAllocator, OutOfMemory
from .cma import CmaArea
from .flexmem import FlexMemManager
from .pressure import PressureSource, RecallBy
from .storage import StorageDriver, StorageError
from .system import NormalOs

__all__ = [
    "BuddyAllocator",
    "CmaArea",
    "FlexMemManager",
    "NormalOs",
    "OutOfMemory",
    "PressureSource",
    "RecallBy",
    "StorageDriver",
    "StorageError",
]

"""What the phone simulator exports to the Python that runs inside it: C functions, through ctypes."""

from __future__ import annotations

import ctypes
from typing import Any

__all__ = ["Completion", "load_library"]


class Completion(ctypes.Structure):
    """An access, or reset, that has ended: the token it was posted under and what came back."""

    _fields_ = [("token", ctypes.c_uint32), ("response", ctypes.c_uint32), ("data", ctypes.c_uint32)]

    token: int
    response: int
    data: int


_U32, _U64, _F64, _PTR = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_double, ctypes.c_void_p

_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "phone_cycle": (_U64, []),
    "phone_interrupts": (_U32, []),
    "phone_watch": (None, [_U32]),
    "phone_alarm": (None, [_U64]),
    "phone_load": (_U32, [_U32, _U32, _U32, _U32, _PTR]),
    "phone_store": (_U32, [_U32, _U32, _U32, _U32, _PTR]),
    "phone_register": (_U32, [_U32, _U32, _U32, _U32, _U32, _U32]),
    "phone_reset": (_U32, [_U32]),
    "phone_completion": (_U32, [ctypes.POINTER(Completion)]),
    "phone_dram": (None, [_PTR, _U64, _U64]),
    "phone_dram_timing": (None, [_U64, _U64, _F64, _U64, _U64]),
    "phone_flash": (None, [_PTR, _U64]),
    "phone_flash_timing": (None, [_U64, _F64]),
}


def load_library() -> ctypes.CDLL:
    """The functions of the running simulator, typed. Only works inside its process."""
    library = ctypes.CDLL(None)
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library

"""The filter's ports as the simulator shows them, by channel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cocotb.handle import ArrayObject, HierarchyObject

__all__ = ["Channel", "find"]


class Channel:
    """One AXI channel: its handshake and its payload fields.

    Parameters
    ----------
    dut
        Top of the simulated design.
    name
        Prefix of its ports, ``s_axi_ar`` for example.
    fields
        Names of the payload.
    drives
        Whether this side drives the payload; else it drives ``ready`` only.

    A driven value is written only when it changes, since a write costs more than everything else in a cycle.
    """

    def __init__(self, dut: HierarchyObject, name: str, fields: tuple[str, ...], *, drives: bool) -> None:
        handles: Any = dut
        self._valid, self._ready = getattr(handles, f"{name}valid"), getattr(handles, f"{name}ready")
        self._payload = {field: getattr(handles, f"{name}{field}") for field in fields}
        self._last: dict[str, int] = {}
        self._drives = drives
        # Past cocotb's value types, which cost more than the simulation itself.
        self._look = (self._ready if drives else self._valid)._handle.get_signal_val_binstr
        self._reads = {field: handle._handle.get_signal_val_binstr for field, handle in self._payload.items()}
        self.driven = 0
        (self._valid if drives else self._ready).value = 0
        if drives:
            for handle in self._payload.values():
                handle.value = 0

    @property
    def other(self) -> bool:
        """The handshake wire of the other side, as it was at the end of the cycle."""
        return bool(self._look() == "1")

    @property
    def passed(self) -> bool:
        """Whether a transfer took place in the cycle that ends."""
        return self.driven == 1 and self._look() == "1"

    def drive(self, value: bool) -> None:
        """Set this side's handshake wire for the next cycle."""
        if self.driven != value:
            self.driven = int(value)
            (self._valid if self._drives else self._ready).value = self.driven

    def put(self, **payload: int) -> None:
        """Offer a transfer in the next cycle."""
        for field, value in payload.items():
            if self._last.get(field) != value:
                self._last[field] = value
                self._payload[field].value = value
        self.drive(True)

    def get(self, field: str) -> int:
        """A payload field of the other side, as it was at the end of the cycle."""
        return int(self._reads[field](), 2)


def find(dut: HierarchyObject, path: str) -> Any:
    """A signal or memory word inside the design that its build shows, by the end of its path: ``window.stored``.

    Generated names may carry a ``$`` and a number behind.
    """
    *scopes, name = path.split(".")
    found = [signal for scope in _scopes(dut, scopes) if (signal := _child(scope, name)) is not None]
    if len(found) != 1:
        raise LookupError(f"The build must show exactly one signal {path}, not {len(found)}")
    return found[0]


def _plain(name: str) -> str:
    return name.strip("\\ ").partition("$")[0]


def _child(scope: HierarchyObject, name: str) -> Any:
    return next((child for child in scope if _plain(child._name) == name), None)


def _scopes(dut: HierarchyObject, path: list[str]) -> Iterator[HierarchyObject]:
    """Every scope below ``dut`` whose path ends in ``path``."""

    def walk(scope: HierarchyObject, trail: list[str]) -> Iterator[HierarchyObject]:
        if trail[-len(path) :] == path:
            yield scope
        for child in scope:
            if isinstance(child, HierarchyObject) and not isinstance(child, ArrayObject):
                yield from walk(child, [*trail, _plain(child._name)])

    yield from walk(dut, [])

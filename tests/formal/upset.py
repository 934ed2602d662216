"""Registers whose stored bits can flip: in any cycle, the fault that SEC-11 is about, or as they come up.

So a proof looks at a number that only a long run could reach, from its first cycle on.
"""

from amaranth.hdl import Mux, Signal
from amaranth.hdl._ast import Assign
from amaranth.hdl._xfrm import StatementTransformer, ValueTransformer

from .harness import Harness

__all__ = ["any_start", "single_upset"]


class _Target(ValueTransformer):
    """What is assigned to, with one signal put in another's place."""

    def __init__(self, old: Signal, new: Signal):
        self._old, self._new = old, new

    def on_Signal(self, value):
        return self._new if value is self._old else value


class _Assignments(StatementTransformer):
    """The same statements, assigning to another signal; what they read stays."""

    def __init__(self, target: _Target):
        self._target = target

    def on_Assign(self, stmt):
        return Assign(self._target.on_value(stmt.lhs), stmt.rhs)


def _flip(h: Harness, path: str, flips, name: str) -> None:
    """Whatever reads the register ``path`` sees it, from this cycle on, with the bits ``flips`` inverted."""
    register = h.inner(path, name)
    stored = Signal.like(register, name=f"{register.name}_stored")
    fragment = h.fragment(path.rpartition(".")[0], name)
    clocked = fragment.statements["sync"]
    target = _Target(register, stored)
    fragment.statements["sync"] = _Assignments(target).on_statements(clocked)
    # What is not written anew keeps the flipped bit.
    fragment.statements["sync"].insert(0, stored.eq(register))
    fragment.add_statements("comb", register.eq(stored ^ flips))


def single_upset(h: Harness, *paths: str, name: str = "dut") -> Signal:
    """Let one bit of the registers ``paths`` flip, once at most, in any cycle. Returns: a bit flips in this cycle.

    A register reads with its new value from the cycle of the flip on, and keeps it until it is written. Call this after
    :meth:`Harness.dut`.
    """
    widths = {path: len(h.inner(path, name)) for path in paths}
    flips = h.free("flips", sum(widths.values()))
    now = Signal(name="bit_flips")
    flipped = Signal(name="bit_flipped")
    h.m.d.comb += now.eq(flips.any())
    h.m.d.sync += flipped.eq(flipped | now)
    h.assume("one_bit_flips_at_most", ~(flips & (flips - 1)[: len(flips)]).any() & ~(now & flipped))
    offset = 0
    for path, width in widths.items():
        _flip(h, path, flips[offset : offset + width], name)
        offset += width
    return now


def any_start(h: Harness, path: str, *, name: str = "dut") -> Signal:
    """Let the register ``path`` come up with any value. Returns the bits that differ from its reset value, then zero.

    Call this after :meth:`Harness.dut`.
    """
    register = h.inner(path, name)
    start = Signal.like(register, name=f"{register.name}_start", init=0)
    h.m.d.comb += start.eq(Mux(h.started, 0, h.free(f"{register.name}_start", len(register))))
    _flip(h, path, start, name)
    return start

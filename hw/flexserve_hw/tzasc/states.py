"""Code words in which the page-state table holds a page's state.

One bit of six is set. Any two code words differ in two bits, so a single upset never turns one state into another: what
is not a code word reads as CORRUPT, which allows nobody anything.
"""

from amaranth.hdl import C, Cat, Mux, Value

from flexserve_hw.regs.enums import RecallState

__all__ = ["STATES", "CODE_WIDTH", "code", "codes", "is_legal", "decode", "pages_in"]

STATES = (
    RecallState.NORMAL,
    RecallState.DELEGATED,
    RecallState.FLEX,
    RecallState.RECALLING,
    RecallState.SCRUBBING,
    RecallState.SEALED,
)
"""States that can be stored."""

CODE_WIDTH = len(STATES)
"""Bits per page."""


def code(state: RecallState) -> int:
    """Code word of ``state``."""
    return 1 << STATES.index(state)


def codes(*states: RecallState) -> int:
    """The set of ``states`` as the union of their code words."""
    return sum(code(state) for state in states)


def is_legal(word: Value) -> Value:
    """Whether ``word`` is a code word: exactly one bit set."""
    return (word != 0) & ((word & (word - 1))[:CODE_WIDTH] == 0)


def decode(word: Value) -> Value:
    """Three-bit state of a stored word, CORRUPT if it is not a code word."""
    state = C(RecallState.CORRUPT.value, 3)
    for candidate in STATES:
        state = Mux(word == code(candidate), C(candidate.value, 3), state)
    return state


def pages_in(word: Value, allowed: Value | int) -> Value:
    """One bit per page of a table word: it is legal and in one of the states of the set ``allowed``."""
    pages = [word[i : i + CODE_WIDTH] for i in range(0, len(word), CODE_WIDTH)]
    return Cat(is_legal(page) & (page & allowed).any() for page in pages)

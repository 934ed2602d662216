"""Code words in which the page-state table holds a page's state.

One bit of six is set. Any two code words differ in two bits, so a single upset never turns one state into another: what
is not a code word reads as CORRUPT, which allows nobody anything.
"""

from amaranth.hdl import C, Cat, Module, Mux, Signal, Value

from flexserve_hw.regs.enums import RecallState

__all__ = [
    "STATES",
    "CODE_WIDTH",
    "code",
    "codes",
    "StateWord",
    "page_of",
    "is_legal",
    "decode",
    "popcount",
    "first_set",
]

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


class StateWord:
    """A table word: the states of ``group`` pages, held as one plane of ``group`` bits per state.

    Bit n of plane s is bit s of page n's code word. Planes make a question about a whole word a handful of operations
    on short vectors.

    Parameters
    ----------
    m : Module
        Where the intermediate results are computed.
    word : Value
        ``group * CODE_WIDTH`` bits, planes in the order of :data:`STATES`.
    group : int
        Pages of the word.
    name : str
        Prefix of the names of intermediate results.

    Members
    -------
    legal : Value
        One bit per page: exactly one of its bits is set.
    """

    def __init__(self, m: Module, word: Value, *, group: int, name: str):
        self._group = group
        self.planes = [word[n * group : (n + 1) * group] for n in range(CODE_WIDTH)]
        # Named signals, so that the emitted design computes each of them once.
        self.legal = Signal(group, name=f"{name}_legal")
        seen, again = C(0, group), C(0, group)
        for n, plane in enumerate(self.planes):
            once, twice = Signal(group, name=f"{name}_once{n}"), Signal(group, name=f"{name}_twice{n}")
            m.d.comb += [once.eq(seen | plane), twice.eq(again | (seen & plane))]
            seen, again = once, twice
        m.d.comb += self.legal.eq(seen & ~again)

    def within(self, states: Value | int) -> Value:
        """One bit per page: it is legal and in one of the states of the set ``states``."""
        chosen = C(0, self._group)
        for n, plane in enumerate(self.planes):
            if not isinstance(states, int):
                chosen = chosen | (plane & states[n].replicate(self._group))
            elif states >> n & 1:
                chosen = chosen | plane
        return chosen & self.legal

    def replaced(self, pages: Value, target: Value) -> Value:
        """The word with code word ``target`` in the pages of mask ``pages``."""
        return Cat((plane & ~pages) | Mux(target[n], pages, 0) for n, plane in enumerate(self.planes))


def page_of(word: Value, number: Value, *, group: int) -> Value:
    """Code word of page ``number`` of a table word, as it is stored."""
    return Cat(word[n * group : (n + 1) * group].bit_select(number, 1) for n in range(CODE_WIDTH))


def is_legal(word: Value) -> Value:
    """Whether the six bits of ``word`` are a code word: exactly one is set."""
    return (word != 0) & ((word & (word - 1))[:CODE_WIDTH] == 0)


def decode(word: Value) -> Value:
    """Three-bit state of a stored code word, CORRUPT if it is none."""
    state = C(RecallState.CORRUPT.value, 3)
    for candidate in STATES:
        state = Mux(word == code(candidate), C(candidate.value, 3), state)
    return state


def popcount(m: Module, bits: Value, *, name: str) -> Value:
    """Number of bits set, added up in pairs, pairs of pairs and so on. The width is a power of two."""
    width, step = len(bits), 1
    while step < width:
        field = sum(((1 << step) - 1) << at for at in range(0, width, 2 * step))
        pairs = Signal(width, name=f"{name}_by{2 * step}")
        m.d.comb += pairs.eq((bits & field) + ((bits >> step) & field))
        bits, step = pairs, 2 * step
    return bits


def first_set(m: Module, bits: Value, *, name: str) -> Value:
    """Index of the lowest bit set, 0 if none is. The width is a power of two."""
    lowest = Signal(len(bits), name=f"{name}_lowest")
    m.d.comb += lowest.eq(bits & (~bits + 1))
    masks = [sum(1 << n for n in range(len(bits)) if n >> bit & 1) for bit in range((len(bits) - 1).bit_length())]
    return Cat((lowest & mask).any() for mask in masks)

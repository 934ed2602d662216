"""How a table word lies in memory: a line of whole beats with check bits that bind it to its place."""

from functools import cache

from amaranth.hdl import Cat, Const, Value
from amaranth.lib import wiring
from amaranth.lib.crc import Parameters
from amaranth.lib.crc.catalog import CRC32_ISCSI
from amaranth.lib.wiring import Out
from amaranth.utils import ceil_log2

from flexserve_hw.bus.axi4 import PAGE_BYTES, AXI4Signature
from flexserve_hw.params import FlexMemParams

from .layouts import table_words, word_width
from .states import CODE_WIDTH

__all__ = [
    "CHECK_WIDTH",
    "PORTS",
    "PutSignature",
    "check_of",
    "line_beats",
    "line_bytes",
    "line_of",
    "memory_pages",
    "memory_signature",
    "table_line",
]

CHECK_WIDTH = 32
"""Check bits of a line."""

PORTS = ("ar", "aw", "walk", "scan", "query")
"""Read ports of the table."""


def check_parameters(params: FlexMemParams) -> Parameters:
    """CRC-32C over a word's states and its number.

    It tells any five upset bits of a line (its Hamming distance is 6 up to 5243 bits), and any line that lies where
    another belongs: the two differ in their numbers alone, a burst of less than 32 bits.
    """
    return CRC32_ISCSI(params.group * CODE_WIDTH + word_width(params))


@cache
def _columns(width: int) -> tuple[int, ...]:
    """What each bit of ``width`` changes in the check."""
    code = CRC32_ISCSI(width)
    return tuple(code.compute([1 << bit]) ^ code.compute([0]) for bit in range(width))


def check_of(states: Value, word: Value) -> Value:
    """Check bits of word number ``word`` with ``states``, combinationally: one parity per bit."""
    covered = Cat(states, word)
    columns, constant = _columns(len(covered)), CRC32_ISCSI(len(covered)).compute([0])
    masks = [sum(1 << at for at, column in enumerate(columns) if column >> bit & 1) for bit in range(CHECK_WIDTH)]
    return Cat((covered & mask).xor() for mask in masks) ^ constant


def line_beats(params: FlexMemParams) -> int:
    """Beats of a line: a power of two, so that no line crosses a page."""
    bits = params.group * CODE_WIDTH + CHECK_WIDTH
    return 1 << ceil_log2(-(-bits // params.bus.data_width))


def line_bytes(params: FlexMemParams) -> int:
    """Bytes of a line."""
    return line_beats(params) * params.bus.data_width // 8


def memory_pages(params: FlexMemParams) -> int:
    """Pages of memory that the whole table takes: a power of two, to a multiple of which its base is aligned."""
    return max(1, table_words(params) * line_bytes(params) // PAGE_BYTES)


def memory_signature(params: FlexMemParams) -> AXI4Signature:
    """Port to the memory that holds the table, as the filter sees it. One ID serves."""
    return AXI4Signature(addr_width=params.bus.addr_width, data_width=params.bus.data_width, id_width=1)


def line_of(states: Value, check: Value, *, params: FlexMemParams) -> Value:
    """A line as it lies in memory: states, check bits, zeros."""
    return Cat(states, check, Const(0, line_bytes(params) * 8 - len(states) - len(check)))


def table_line(params: FlexMemParams, word: int, states: int) -> int:
    """The same for tests and tools: line number ``word`` with ``states``."""
    width = params.group * CODE_WIDTH
    return states | check_parameters(params).compute([states | word << width]) << width


class PutSignature(wiring.Signature):
    """A table word that is known from this cycle on: written by the engine, or fetched from memory.

    valid : Out(1), word : Out
        Which.
    bad : Out(1)
        It could not be had.
    """

    def __init__(self, *, params: FlexMemParams):
        self._width = word_width(params)
        super().__init__({"valid": Out(1), "word": Out(self._width), "bad": Out(1)})

    def __eq__(self, other):
        return isinstance(other, PutSignature) and self._width == other._width

"""Shapes that the parts of the filter pass to each other."""

from amaranth.hdl import unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from flexserve_hw.bus.axi4 import NSAID_WIDTH, PAGE_BYTES
from flexserve_hw.params import FlexMemParams
from flexserve_hw.regs.enums import RecallCommand, RecallResult, RecallState

from .states import CODE_WIDTH

__all__ = [
    "PAGE_SHIFT",
    "REGIONS",
    "page_index_width",
    "pfn_width",
    "table_words",
    "word_width",
    "group_shift",
    "region_layout",
    "window_layout",
    "violation_layout",
    "page_event_layout",
    "decision_layout",
    "TableReadSignature",
    "path_members",
]

PAGE_SHIFT = exact_log2(PAGE_BYTES)
"""Address bits within a page."""

REGIONS = 9
"""Regions of the region side: 0 is everything, 1 to 8 override it."""


def pfn_width(params: FlexMemParams) -> int:
    """Bits of a page frame number."""
    return params.bus.addr_width - PAGE_SHIFT


def page_index_width(params: FlexMemParams) -> int:
    """Bits of a page's index in the window."""
    return exact_log2(params.pages)


def group_shift(params: FlexMemParams) -> int:
    """Index bits within a table word."""
    return exact_log2(params.group)


def table_words(params: FlexMemParams) -> int:
    """Words of the page-state table."""
    return params.pages // params.group


def word_width(params: FlexMemParams) -> int:
    """Bits that address a table word, at least one."""
    return max(1, ceil_log2(table_words(params)))


def region_layout(params: FlexMemParams) -> data.StructLayout:
    """One region: first and last page frame, and who may do what. ``read`` and ``write`` have one bit per NSAID."""
    return data.StructLayout(
        {
            "base": pfn_width(params),
            "top": pfn_width(params),
            "enable": 1,
            "secure_read": 1,
            "secure_write": 1,
            "read": 1 << NSAID_WIDTH,
            "write": 1 << NSAID_WIDTH,
        }
    )


def window_layout(params: FlexMemParams) -> data.StructLayout:
    """The flexible window: first page frame, pages, and whether the table holds a state for each of them.

    ``table``: first page frame of the table, if it lies in memory. ``corrupt``: what is stored of it failed its check;
    nothing else of it can be believed.
    """
    table = {} if params.cache_lines is None else {"table": pfn_width(params)}
    return data.StructLayout(
        {"base": pfn_width(params), "pages": page_index_width(params) + 1, **table, "initialised": 1, "corrupt": 1}
    )


def violation_layout(params: FlexMemParams) -> data.StructLayout:
    """A denied transaction, as the fail registers record it."""
    return data.StructLayout(
        {
            "address": params.bus.addr_width,
            "id": params.bus.id_width,
            "nsaid": NSAID_WIDTH,
            "privileged": 1,
            "nonsecure": 1,
            "overlap": 1,
        }
    )


def page_event_layout(params: FlexMemParams) -> data.StructLayout:
    """Pages that change state in this cycle: bit n of ``mask`` is page ``pfn + n``."""
    return data.StructLayout({"valid": 1, "pfn": pfn_width(params), "mask": params.group, "state": RecallState})


def decision_layout() -> data.StructLayout:
    """What became of a command, in the cycle in which the table shows it in full."""
    return data.StructLayout({"valid": 1, "frame": 1, "code": RecallCommand, "result": RecallResult})


class TableReadSignature(wiring.Signature):
    """Read port of the page-state table as its user sees it.

    en : Out(1), word : Out, nonsecure : Out(1)
        Ask for a word, for an access of this world. Not while an answer is awaited. The answer is the same for both;
        how soon it comes may depend on what the same world asked before and on how busy the table's memory is, never on
        what the other world asked for.
    valid : In(1), data : In
        From the cycle after ``en``: the answer is there, and what it is. Both hold until ``en`` comes again. The answer
        is what the table holds in some cycle from that of ``en`` on, writes of that cycle included. Without a question
        ``valid`` says nothing.
    """

    def __init__(self, *, params: FlexMemParams):
        self._width = word_width(params), params.group * CODE_WIDTH
        word, states = self._width
        super().__init__({"en": Out(1), "word": Out(word), "nonsecure": Out(1), "valid": In(1), "data": In(states)})

    def __eq__(self, other):
        return isinstance(other, TableReadSignature) and self._width == other._width


def path_members(params: FlexMemParams) -> dict:
    """Members that the read and the write path have in common.

    open : In(1)
        New addresses are accepted. Sampled every cycle; low, addresses wait without an answer.
    regions, window : In
        Configuration, sampled when an address is accepted.
    decerr : In(1)
        Denied transactions answer DECERR rather than OKAY; sampled when the verdict is acted upon.
    epoch : In(1)
        Epoch that an address accepted in this cycle belongs to; also tells which epoch is the old one.
    table : Out(TableReadSignature)
        Lookup port.
    accept : Out(1), done : Out(1), done_epoch : Out(1)
        A transaction was accepted; one of epoch ``done_epoch`` was answered in full.
    allow : Out(1), deny : Out(1), violation : Out
        A verdict is acted upon in this cycle; ``violation`` describes it if denied.
    corrupt : Out(1)
        With ``deny``: the stored state of the page at ``violation.address`` failed its check.
    """
    return {
        "open": In(1),
        "regions": In(region_layout(params)).array(REGIONS),
        "window": In(window_layout(params)),
        "decerr": In(1),
        "epoch": In(1),
        "table": Out(TableReadSignature(params=params)),
        "accept": Out(1),
        "done": Out(1),
        "done_epoch": Out(unsigned(1)),
        "allow": Out(1),
        "deny": Out(1),
        "violation": Out(violation_layout(params)),
        "corrupt": Out(1),
    }

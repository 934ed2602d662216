"""The stage in which an address gets its verdict."""

from amaranth.hdl import C, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from flexserve_hw.bus.axi4 import AXI4Shape
from flexserve_hw.params import FlexMemParams
from flexserve_hw.regs.enums import RecallState

from .bursts import stays_in_page
from .layouts import (
    PAGE_SHIFT,
    REGIONS,
    TableReadSignature,
    group_shift,
    page_index_width,
    pfn_width,
    region_layout,
    window_layout,
)
from .line import memory_pages
from .regions import RegionCheck
from .states import CODE_WIDTH, codes, is_legal, page_of

__all__ = ["Lookup", "verdict_layout"]

_NONSECURE = codes(RecallState.NORMAL)
_SECURE = codes(RecallState.FLEX, RecallState.RECALLING, RecallState.SEALED)


def verdict_layout(shape: AXI4Shape) -> data.StructLayout:
    """An address with its verdict: ``epoch`` in which it was accepted, and why it is denied."""
    return data.StructLayout({"request": shape.address, "allow": 1, "epoch": 1, "overlap": 1, "corrupt": 1})


class Lookup(wiring.Component):
    """Accept addresses and judge each by region and by page, once.

    An access is allowed if it is a legal burst within its page, its region permits it, and its page, if it lies in the
    window, is in a state that gives its world access. In a window without initialised table nothing is allowed, with a
    corrupt window nothing anywhere, and where a table in memory lies nothing ever.

    Parameters
    ----------
    params : FlexMemParams
    write : bool
        Judge writes rather than reads.

    Members
    -------
    upstream : In(stream)
        Addresses.
    verdict : Out(stream)
        The same with verdicts, in order.
    open : In(1)
        Addresses are accepted.
    regions, window, epoch : In
        Sampled when an address is accepted.
    table : Out(TableReadSignature)
    accept : Out(1)
        An address is accepted in this cycle.

    Latency and ordering
    --------------------
    One cycle, one address per cycle; longer only by what the table takes for its answer. ``upstream.ready`` depends
    combinationally on ``verdict.ready``; a verdict, once offered, does not change, whatever happens to the table.
    """

    def __init__(self, *, params: FlexMemParams, write: bool):
        self._params = params
        self._write = write
        shape = params.bus.axi4.shape
        super().__init__(
            {
                "upstream": In(stream.Signature(shape.address)),
                "verdict": Out(stream.Signature(verdict_layout(shape))),
                "open": In(1),
                "regions": In(region_layout(params)).array(REGIONS),
                "window": In(window_layout(params)),
                "epoch": In(1),
                "table": Out(TableReadSignature(params=params)),
                "accept": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        request, verdict = self.upstream.payload, self.verdict.payload
        m.submodules.regions = regions = RegionCheck(params=self._params, write=self._write)

        pfn = Signal(pfn_width(self._params))
        index = Signal.like(pfn)
        within = Signal()
        m.d.comb += [
            pfn.eq(request.addr[PAGE_SHIFT:]),
            index.eq(pfn - self.window.base),
            within.eq((pfn >= self.window.base) & (index < self.window.pages)),
            regions.pfn.eq(pfn),
            regions.nonsecure.eq(request.prot.nonsecure),
            regions.nsaid.eq(request.user),
            *(theirs.eq(ours) for theirs, ours in zip(regions.regions, self.regions, strict=True)),
        ]

        # Everything that decides is held with the address: the table's read port holds its data until the next read.
        own = C(0)
        if self._params.cache_lines is not None:
            # The table itself: nobody's, whatever regions and pages say.
            shift = exact_log2(memory_pages(self._params))
            own = (pfn >> shift) == (self.window.table >> shift)

        taken, permitted, paged, known, overlap = (
            Signal(name=name) for name in ("taken", "permitted", "paged", "known", "overlap")
        )
        broken, asked, answered = Signal(), Signal(), Signal()
        held, epoch = Signal.like(request), Signal()
        shift = group_shift(self._params)
        page = Signal(max(1, shift))
        m.d.comb += [
            self.upstream.ready.eq(self.open & (~taken | (answered & self.verdict.ready))),
            self.accept.eq(self.upstream.valid & self.upstream.ready),
            # Only for pages of the window is there anything to look up.
            self.table.en.eq(self.accept & within & self.window.initialised & ~self.window.corrupt),
            self.table.word.eq(index[shift : page_index_width(self._params)]),
            self.table.nonsecure.eq(request.prot.nonsecure),
            answered.eq(~asked | self.table.valid),
            self.verdict.valid.eq(taken & answered),
        ]
        with m.If(self.verdict.valid & self.verdict.ready):
            m.d.sync += taken.eq(0)
        with m.If(self.accept):
            m.d.sync += [
                taken.eq(1),
                asked.eq(self.table.en),
                held.eq(request),
                epoch.eq(self.epoch),
                overlap.eq(regions.overlap),
                permitted.eq(regions.allow & ~own & stays_in_page(request, data_width=self._params.bus.data_width)),
                # Of a corrupt window nobody knows what lies in it: everything does, in no known state.
                broken.eq(self.window.corrupt),
                paged.eq(within | self.window.corrupt),
                known.eq(self.window.initialised & ~self.window.corrupt),
                page.eq(index[:shift]),
            ]

        stored, legal = Signal(CODE_WIDTH), Signal()
        accessible = Mux(held.prot.nonsecure, stored & _NONSECURE, stored & _SECURE).any()
        m.d.comb += [
            verdict.request.eq(held),
            verdict.epoch.eq(epoch),
            verdict.overlap.eq(overlap),
            stored.eq(page_of(self.table.data, page, group=self._params.group)),
            legal.eq(is_legal(stored)),
            verdict.corrupt.eq(taken & (broken | (paged & known & ~legal))),
            verdict.allow.eq(permitted & (~paged | (known & legal & accessible))),
        ]
        return m

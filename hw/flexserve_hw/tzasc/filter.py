"""Flex-Mem: the filter in front of memory."""

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from flexserve_hw.bus.axi4 import AXI4Signature
from flexserve_hw.params import FlexMemParams
from flexserve_hw.regs.regbus import RegisterBusSignature

from .cache import cache_members
from .core import FlexCore
from .frames import ManagementFrames
from .layouts import decision_layout, page_event_layout
from .region_frame import RegionFrame
from .write_path import downstream_shape

__all__ = ["FlexFilter"]


class FlexFilter(wiring.Component):
    """Let through what region and page permit, and let the normal world lend pages and take them back.

    Parameters
    ----------
    params : FlexMemParams

    Attributes
    ----------
    core : FlexCore
        What decides; the rest are register frames.

    Members
    -------
    upstream : In(AXI4Signature)
        From the masters. AxPROT[1] and AxUSER must be driven by the interconnect, not by the masters.
    downstream : Out(AXI4Signature)
        To memory, with one more ID bit on top: set in the scrubber's transactions.
    tzc, flex_normal, flex_secure : In(RegisterBusSignature)
        Register frames. Whoever decodes the bus keeps non-secure accesses from ``tzc`` and ``flex_secure``, and
        all but ``managers`` from ``flex_normal``.
    managers : Out(16)
        Bit n: NSAID n may use ``flex_normal``.
    irq_tzc, irq_flex_n, irq_flex_s : Out(1)
        Level interrupts.
    probe_ar_allow, probe_ar_deny, probe_aw_allow, probe_aw_deny : Out(1)
        A verdict takes effect in this cycle.
    probe_page : Out
        Pages that change state: ``valid``, ``pfn``, ``mask`` (bit n: page ``pfn + n``), ``state``.
    probe_scrub : Out(1)
        The scrubber is at work.
    probe_decision : Out
        A command is applied in full or refused: ``valid``, ``frame`` (1: secure), ``code``, ``result``.
    probe_expired : Out(1)
        A grace period ended and its pages are taken.

    table_bus, probe_hit, probe_miss
        Only with a table in memory; see :func:`.cache.cache_members`.

    Latency and ordering
    --------------------
    AR and AW take one cycle, one address per cycle, and longer if a page's state must be fetched from memory; W follows
    its address by a cycle at least; R and B pass combinationally. Transactions of one ID and direction are answered in
    order, denied ones included. What is accepted is answered in full under the verdict it got, also when its page
    changes state meanwhile; the command that changed it is busy until then.
    """

    def __init__(self, *, params: FlexMemParams):
        self._params = params
        self.core = FlexCore(params=params)
        bus, below = params.bus, downstream_shape(params)
        down = AXI4Signature(addr_width=below.addr_width, data_width=below.data_width, id_width=below.id_width)
        frame = In(RegisterBusSignature())
        super().__init__(
            {
                "upstream": In(bus.axi4),
                "downstream": Out(down),
                "tzc": frame,
                "flex_normal": frame,
                "flex_secure": frame,
                "managers": Out(16),
                "irq_tzc": Out(1),
                "irq_flex_n": Out(1),
                "irq_flex_s": Out(1),
                "probe_ar_allow": Out(1),
                "probe_ar_deny": Out(1),
                "probe_aw_allow": Out(1),
                "probe_aw_deny": Out(1),
                "probe_page": Out(page_event_layout(params)),
                "probe_scrub": Out(1),
                "probe_decision": Out(decision_layout()),
                "probe_expired": Out(1),
                **cache_members(params),
            }
        )

    def elaborate(self, platform):
        m = Module()
        params = self._params
        m.submodules.core = core = self.core
        m.submodules.region_frame = regions = RegionFrame(params=params)
        m.submodules.frames = frames = ManagementFrames(params=params)
        connect(m, flipped(self.upstream), core.upstream)
        connect(m, core.downstream, flipped(self.downstream))
        connect(m, flipped(self.tzc), regions.bus)
        connect(m, flipped(self.flex_normal), frames.normal)
        connect(m, flipped(self.flex_secure), frames.secure)
        connect(m, frames.table, core.query)
        for user, port in zip(frames.commands, core.commands, strict=True):
            connect(m, user, port)

        def feed(sink, source, *names):
            for name in names:
                theirs, ours = getattr(sink, name), getattr(source, name)
                pairs = zip(theirs, ours, strict=True) if isinstance(theirs, list) else [(theirs, ours)]
                m.d.comb += [a.eq(b) for a, b in pairs]

        feed(core, regions, "regions", "decerr", "gate", "clear")
        feed(regions, core, "open", "in_flight", "status", "overrun", "overlap", "first", "write")
        feed(
            core, frames, "enable", "base", "pages", "table_base", "locked", "grace", "pop", "request", "request_pages"
        )
        feed(frames, core, "ready", "owed", "freed_count", "freed_valid", "freed_pfn", "lent", "backlog")
        feed(frames, core, "arrived", "paid", "recalled", "expired", "corrupt", "corrupt_pfn")
        feed(frames, core, "running", "ranges", "left")
        feed(self, core, "probe_ar_allow", "probe_ar_deny", "probe_aw_allow", "probe_aw_deny")
        feed(self, core, "probe_page", "probe_scrub", "probe_decision")
        if params.cache_lines is not None:
            connect(m, core.table_bus, flipped(self.table_bus))
            feed(self, core, "probe_hit", "probe_miss")
        m.d.comb += [
            frames.window.eq(core.live),
            frames.violations.eq(core.count),
            self.managers.eq(frames.managers),
            self.irq_tzc.eq(regions.interrupt),
            self.irq_flex_n.eq(frames.irq_normal),
            self.irq_flex_s.eq(frames.irq_secure),
            self.probe_expired.eq(core.expired),
        ]
        return m

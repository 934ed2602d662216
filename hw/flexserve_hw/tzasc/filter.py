"""Flex-Mem: the filter in front of memory."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from flexserve_hw.bus.axi4 import AXI4Signature
from flexserve_hw.params import FlexMemParams
from flexserve_hw.regs.regbus import RegisterBusSignature

from .commands import CommandEngine
from .drain import Drain
from .fail import FailRecord
from .frames import ManagementFrames
from .freed import FreedQueue
from .layouts import PAGE_SHIFT, decision_layout, page_event_layout, pfn_width
from .pages import PageTable
from .read_path import ReadPath
from .region_frame import RegionFrame
from .scrubber import Scrubber
from .window import Window
from .write_path import WritePath, downstream_shape

__all__ = ["FlexFilter"]


class FlexFilter(wiring.Component):
    """Let through what region and page permit, and let the normal world lend pages and take them back.

    Parameters
    ----------
    params : FlexMemParams

    Attributes
    ----------
    table : PageTable
        The page-state table, for tests that upset its bits.
    window : Window
        The window, for tests that upset its bits.

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

    Latency and ordering
    --------------------
    AR and AW take one cycle, one address per cycle; W follows its address by a cycle at least; R and B pass
    combinationally. Transactions of one ID and direction are answered in order, denied ones included. What is
    accepted is answered in full under the verdict it got, also when its page changes state meanwhile; the command
    that changed it is busy until then.
    """

    def __init__(self, *, params: FlexMemParams):
        self._params = params
        self.table = PageTable(params=params)
        self.window = Window(params=params)
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
            }
        )

    def elaborate(self, platform):
        m = Module()
        params = self._params
        m.submodules.region_frame = regions = RegionFrame(params=params)
        m.submodules.frames = frames = ManagementFrames(params=params)
        m.submodules.window = window = self.window
        m.submodules.table = table = self.table
        m.submodules.engine = engine = CommandEngine(params=params)
        m.submodules.scrubber = scrubber = Scrubber(params=params)
        m.submodules.freed = freed = FreedQueue(params=params)
        m.submodules.fail = fail = FailRecord(params=params)
        m.submodules.read_path = read = ReadPath(params=params)
        m.submodules.write_path = write = WritePath(params=params)
        # Each direction has at most this many accepted transactions: all IDs full, and one more being judged.
        accepted = params.outstanding << params.bus.id_width
        m.submodules.drain = drain = Drain(width=(accepted + 1).bit_length())

        connect(m, flipped(self.tzc), regions.bus)
        connect(m, flipped(self.flex_normal), frames.normal)
        connect(m, flipped(self.flex_secure), frames.secure)
        for port, user in (
            (table.ar, read.table),
            (table.aw, write.table),
            (table.walk, engine.table),
            (table.scan, scrubber.table),
            (table.query, frames.table),
        ):
            connect(m, user, port)
        self._bus(m, read, write)
        self._paths(m, (read, write), regions, window, drain, fail)
        self._management(m, frames, window, table, engine, drain, scrubber, freed)
        self._scrubs(m, scrubber, write, window)
        connect(m, scrubber.finish, engine.finish)
        m.d.comb += scrubber.b.eq(write.scrub_b)

        # Alarms from window, lookups and engine; of several in one cycle one page is named, for the window page 0.
        corrupt_pfn = Signal(pfn_width(params))
        m.d.comb += [
            corrupt_pfn.eq(
                Mux(
                    engine.corrupt,
                    engine.corrupt_pfn,
                    Mux(read.corrupt, read.violation.address, write.violation.address) >> PAGE_SHIFT,
                )
            ),
            frames.corrupt.eq(window.upset | engine.corrupt | read.corrupt | write.corrupt),
            frames.corrupt_pfn.eq(Mux(window.upset, 0, corrupt_pfn)),
            frames.violations.eq(fail.count),
            self.managers.eq(frames.managers),
            self.irq_tzc.eq(regions.interrupt),
            self.irq_flex_n.eq(frames.irq_normal),
            self.irq_flex_s.eq(frames.irq_secure),
            self.probe_ar_allow.eq(read.allow),
            self.probe_ar_deny.eq(read.deny),
            self.probe_aw_allow.eq(write.allow),
            self.probe_aw_deny.eq(write.deny),
            self.probe_page.eq(engine.event),
            self.probe_scrub.eq(scrubber.active),
            self.probe_decision.eq(engine.decision),
            self.probe_expired.eq(engine.expired),
        ]
        return m

    def _bus(self, m, read, write):
        up, down = flipped(self.upstream), flipped(self.downstream)
        connect(m, up.ar, read.up_ar)
        connect(m, read.up_r, up.r)
        connect(m, up.aw, write.up_aw)
        connect(m, up.w, write.up_w)
        connect(m, write.up_b, up.b)
        connect(m, write.down_aw, down.aw)
        connect(m, write.down_w, down.w)
        connect(m, down.b, write.down_b)
        # Reads keep their ID; the scrubber's bit on top is zero.
        m.d.comb += [
            self.downstream.ar.valid.eq(read.down_ar.valid),
            read.down_ar.ready.eq(self.downstream.ar.ready),
            *(
                self.downstream.ar.payload[name].eq(read.down_ar.payload[name])
                for name in self.upstream.ar.payload.shape().members
            ),
            read.down_r.valid.eq(self.downstream.r.valid),
            self.downstream.r.ready.eq(read.down_r.ready),
            *(
                read.down_r.payload[name].eq(self.downstream.r.payload[name])
                for name in self.upstream.r.payload.shape().members
            ),
        ]

    def _scrubs(self, m, scrubber, write, window):
        """Pass scrub bursts on, but none whose address comes from a corrupt window."""
        sound = ~window.window.corrupt
        m.d.comb += [
            write.scrub_aw.valid.eq(scrubber.aw.valid & sound),
            write.scrub_aw.payload.eq(scrubber.aw.payload),
            scrubber.aw.ready.eq(write.scrub_aw.ready & sound),
        ]

    def _paths(self, m, paths, regions, window, drain, fail):
        for n, path in enumerate(paths):
            m.d.comb += [
                path.open.eq(regions.gate),
                path.window.eq(window.window),
                path.decerr.eq(regions.decerr),
                path.epoch.eq(drain.epoch),
                *(theirs.eq(ours) for theirs, ours in zip(path.regions, regions.regions, strict=True)),
                drain.accept[n].eq(path.accept),
                drain.done[n].eq(path.done),
                drain.done_epoch[n].eq(path.done_epoch),
                fail.deny[n].eq(path.deny),
                fail.violation[n].eq(path.violation),
            ]
        m.d.comb += [
            regions.ready.eq(window.ready),
            fail.clear.eq(regions.clear),
            regions.in_flight.eq(drain.in_flight),
            *(
                getattr(regions, name).eq(getattr(fail, name))
                for name in ("status", "overrun", "overlap", "first", "write")
            ),
        ]

    def _management(self, m, frames, window, table, engine, drain, scrubber, freed):
        for port, user in zip(engine.frames, frames.commands, strict=True):
            connect(m, user, port)

        def drive(sink, **sources):
            m.d.comb += [getattr(sink, name).eq(value) for name, value in sources.items()]

        drive(
            window,
            enable=frames.enable,
            base=frames.base,
            pages=frames.pages,
            written=engine.written,
            scrubbed=engine.backlog == 0,
        )
        drive(
            engine,
            window=window.window,
            # No command finds a page in a window that can't be believed.
            ready=window.ready & ~window.window.corrupt,
            initialise=window.initialise,
            locked=frames.locked,
            grace=frames.grace,
            quiet=drain.quiet,
            flip=drain.flip,
            drained=drain.drained,
        )
        drive(table, write_en=engine.write_en, write_word=engine.write_word, write_data=engine.write_data)
        drive(drain, changed=engine.changed, hold=engine.hold)
        drive(
            scrubber,
            window=window.window,
            backlog=engine.backlog,
            # At boot nothing is reported.
            room=~window.ready | (freed.count + scrubber.working < self._params.freed_depth),
            wanted=drain.wanted,
            draining=drain.draining,
            flip=drain.flip,
            drained=drain.drained,
        )
        drive(
            freed,
            push=engine.freed,
            push_pfn=engine.freed_pfn,
            pop=frames.pop,
            request=frames.request,
            request_pages=frames.request_pages,
        )
        drive(
            frames,
            window=window.window,
            ready=window.ready,
            owed=freed.owed,
            freed_count=freed.count,
            freed_valid=freed.valid,
            freed_pfn=freed.pfn,
            arrived=freed.arrived,
            paid=freed.paid,
            recalled=engine.recalled,
            expired=engine.expired,
            lent=engine.lent,
            backlog=engine.backlog,
        )
        for name in ("running", "ranges", "left"):
            m.d.comb += [
                theirs.eq(ours) for theirs, ours in zip(getattr(frames, name), getattr(engine, name), strict=True)
            ]

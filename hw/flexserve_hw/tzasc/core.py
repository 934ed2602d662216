"""Flex-Mem without its register frames."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from flexserve_hw.bus.axi4 import AXI4Signature
from flexserve_hw.params import FlexMemParams
from flexserve_hw.regs.enums import RecallState

from .cache import CachedTable, cache_members
from .commands import CommandEngine
from .drain import Drain
from .fail import FailRecord
from .freed import FreedQueue
from .layouts import (
    PAGE_SHIFT,
    REGIONS,
    TableReadSignature,
    decision_layout,
    group_shift,
    page_event_layout,
    page_index_width,
    pfn_width,
    region_layout,
    violation_layout,
    window_layout,
)
from .pages import PageTable
from .read_path import ReadPath
from .rules import command_port
from .scrubber import Scrubber
from .timers import range_layout
from .window import Window
from .write_path import WritePath, downstream_shape

__all__ = ["FlexCore"]


class FlexCore(wiring.Component):
    """Everything of the filter that decides: paths, page-state table, command engine, scrubber, drain, evidence.

    What the register frames hold comes in as ports, so that the rules can be proved for whatever the frames say.

    Parameters
    ----------
    params : FlexMemParams

    Attributes
    ----------
    table : PageTable or CachedTable
        The page-state table, for tests that upset its bits.
    window : Window
        The window, for tests that upset its bits.

    Members
    -------
    upstream : In(AXI4Signature)
        From the masters. AxPROT[1] and AxUSER must be driven by the interconnect, not by the masters.
    downstream : Out(AXI4Signature)
        To memory, with one more ID bit on top: set in the scrubber's transactions.
    regions : In, decerr : In(1)
        Region rules; denied transactions answer DECERR. May change at any time; see :func:`.layouts.path_members`.
    gate : In(1), open : Out(1)
        The gate is asked to be open; it is. It stays closed until ``ready``, whatever is asked.
    in_flight : Out(1)
        Accepted transactions are not answered.
    status, overrun, overlap, first, write, count : Out; clear : In(1)
        See :class:`.fail.FailRecord`.
    enable : In(1), base : In(32), pages : In(32), table_base : In(32); live, ready : Out
        Window as configured, and as it is; see :class:`.window.Window`.
    locked : In(1), grace : In
        See :class:`.commands.CommandEngine`.
    commands : In(command_port).array(2)
        Commands of the normal and of the secure world's frame.
    query : In(TableReadSignature)
        Lookup port for state queries.
    owed, freed_count, freed_valid, freed_pfn : Out; pop, request : In(1), request_pages : In(32)
        See :class:`.freed.FreedQueue`.
    arrived, paid, recalled, expired, corrupt : Out(1)
        Events.
    corrupt_pfn, lent, backlog : Out
        Page of the alarm; pages in FLEX or RECALLING; pages in SCRUBBING.
    running, ranges, left : Out, one per timer
        See :class:`.timers.RecallTimers`.
    table_bus, probe_hit, probe_miss
        Only with a table in memory; see :func:`.cache.cache_members`.
    probe_ar_allow, probe_ar_deny, probe_aw_allow, probe_aw_deny, probe_page, probe_scrub, probe_decision : Out
        See :class:`.filter.FlexFilter`.

    Latency and ordering
    --------------------
    As :class:`.filter.FlexFilter`.
    """

    def __init__(self, *, params: FlexMemParams):
        self._params = params
        self.table = PageTable(params=params) if params.cache_lines is None else CachedTable(params=params)
        self.window = Window(params=params)
        below = downstream_shape(params)
        down = AXI4Signature(addr_width=below.addr_width, data_width=below.data_width, id_width=below.id_width)
        index = page_index_width(params)
        super().__init__(
            {
                "upstream": In(params.bus.axi4),
                "downstream": Out(down),
                "regions": In(region_layout(params)).array(REGIONS),
                "decerr": In(1),
                "gate": In(1),
                "open": Out(1),
                "in_flight": Out(1),
                "status": Out(1),
                "overrun": Out(1),
                "overlap": Out(1),
                "first": Out(violation_layout(params)),
                "write": Out(1),
                "count": Out(32),
                "clear": In(1),
                "enable": In(1),
                "base": In(32),
                "pages": In(32),
                "table_base": In(32),
                "live": Out(window_layout(params)),
                "ready": Out(1),
                "locked": In(1),
                "grace": In(params.grace_width),
                "commands": In(command_port()).array(2),
                "query": In(TableReadSignature(params=params)),
                "owed": Out(32),
                "freed_count": Out(range(params.freed_depth + 1)),
                "freed_valid": Out(1),
                "freed_pfn": Out(pfn_width(params)),
                "pop": In(1),
                "request": In(1),
                "request_pages": In(32),
                "arrived": Out(1),
                "paid": Out(1),
                "recalled": Out(1),
                "expired": Out(1),
                "corrupt": Out(1),
                "corrupt_pfn": Out(pfn_width(params)),
                "lent": Out(index + 1),
                "backlog": Out(index + 1),
                "running": Out(1).array(params.timers),
                "ranges": Out(range_layout(params)).array(params.timers),
                "left": Out(params.grace_width).array(params.timers),
                "probe_ar_allow": Out(1),
                "probe_ar_deny": Out(1),
                "probe_aw_allow": Out(1),
                "probe_aw_deny": Out(1),
                "probe_page": Out(page_event_layout(params)),
                "probe_scrub": Out(1),
                "probe_decision": Out(decision_layout()),
                **cache_members(params),
            }
        )

    def elaborate(self, platform):
        m = Module()
        params = self._params
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

        for port, user in (
            (table.ar, read.table),
            (table.aw, write.table),
            (table.walk, engine.table),
            (table.scan, scrubber.table),
            (table.query, flipped(self.query)),
        ):
            connect(m, user, port)
        self._bus(m, read, write)
        self._paths(m, (read, write), window, drain, fail)
        self._management(m, window, table, engine, drain, scrubber, freed)
        self._scrubs(m, scrubber, write, window)
        connect(m, scrubber.finish, engine.finish)
        m.d.comb += scrubber.b.eq(write.scrub_b)
        self._alarms(m, read, write, window, engine)
        if self._params.cache_lines is not None:
            self._cache(m, table, window)
        m.d.comb += [
            self.probe_ar_allow.eq(read.allow),
            self.probe_ar_deny.eq(read.deny),
            self.probe_aw_allow.eq(write.allow),
            self.probe_aw_deny.eq(write.deny),
            self.probe_page.eq(engine.event),
            self.probe_scrub.eq(scrubber.active),
            self.probe_decision.eq(engine.decision),
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

    def _alarms(self, m, read, write, window, engine):
        """Join the alarms; of several in a cycle one page is named, for the window page 0."""
        corrupt_pfn = Signal(pfn_width(self._params))
        m.d.comb += [
            corrupt_pfn.eq(
                Mux(
                    engine.corrupt,
                    engine.corrupt_pfn,
                    Mux(read.corrupt, read.violation.address, write.violation.address) >> PAGE_SHIFT,
                )
            ),
            self.corrupt.eq(window.upset | engine.corrupt | read.corrupt | write.corrupt),
            self.corrupt_pfn.eq(Mux(window.upset, 0, corrupt_pfn)),
        ]

    def _cache(self, m, table, window):
        """Tell the table where it lies, and raise the alarm if it can't be written."""
        connect(m, table.bus, flipped(self.table_bus))
        m.d.comb += [
            table.base.eq(window.window.table),
            table.corrupt.eq(window.window.corrupt),
            table.blank.eq(window.initialise),
            self.probe_hit.eq(table.hit),
            self.probe_miss.eq(table.miss),
        ]
        with m.If(table.failed):
            m.d.comb += [
                self.corrupt.eq(1),
                self.corrupt_pfn.eq(window.window.base + (table.failed_word << group_shift(self._params))),
            ]

    def _scrubs(self, m, scrubber, write, window):
        """Pass scrub bursts on, but none whose address comes from a corrupt window."""
        sound = ~window.window.corrupt
        m.d.comb += [
            write.scrub_aw.valid.eq(scrubber.aw.valid & sound),
            write.scrub_aw.payload.eq(scrubber.aw.payload),
            scrubber.aw.ready.eq(write.scrub_aw.ready & sound),
        ]

    def _paths(self, m, paths, window, drain, fail):
        for n, path in enumerate(paths):
            m.d.comb += [
                path.open.eq(self.open),
                path.window.eq(window.window),
                path.decerr.eq(self.decerr),
                path.epoch.eq(drain.epoch),
                *(theirs.eq(ours) for theirs, ours in zip(path.regions, self.regions, strict=True)),
                drain.accept[n].eq(path.accept),
                drain.done[n].eq(path.done),
                drain.done_epoch[n].eq(path.done_epoch),
                fail.deny[n].eq(path.deny),
                fail.violation[n].eq(path.violation),
            ]
        m.d.comb += [
            self.open.eq(self.gate & window.ready),
            self.in_flight.eq(drain.in_flight),
            fail.clear.eq(self.clear),
            *(
                getattr(self, name).eq(getattr(fail, name))
                for name in ("status", "overrun", "overlap", "first", "write", "count")
            ),
        ]

    def _management(self, m, window, table, engine, drain, scrubber, freed):
        for port, user in zip(engine.frames, self.commands, strict=True):
            connect(m, flipped(user), port)

        def drive(sink, **sources):
            m.d.comb += [getattr(sink, name).eq(value) for name, value in sources.items()]

        drive(
            window,
            enable=self.enable,
            base=self.base,
            pages=self.pages,
            table=self.table_base,
            written=engine.written,
            scrubbed=engine.backlog == 0,
        )
        drive(
            engine,
            window=window.window,
            # No command finds a page in a window that can't be believed.
            ready=window.ready & ~window.window.corrupt,
            initialise=window.initialise,
            locked=self.locked,
            grace=self.grace,
            quiet=drain.quiet,
            flip=drain.flip,
            drained=drain.drained,
        )
        drive(table, write_en=engine.write_en, write_word=engine.write_word, write_data=engine.write_data)
        drive(engine, write_ready=table.write_ready)
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
            entered=engine.event.valid & (engine.event.state == RecallState.SCRUBBING),
            entered_word=engine.write_word,
        )
        drive(
            freed,
            push=engine.freed,
            push_pfn=engine.freed_pfn,
            pop=self.pop,
            request=self.request,
            request_pages=self.request_pages,
        )
        drive(
            self,
            live=window.window,
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
                theirs.eq(ours) for theirs, ours in zip(getattr(self, name), getattr(engine, name), strict=True)
            ]

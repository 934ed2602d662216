"""Register frames of the filter: region control and the two management frames."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from flexserve_hw.params import FlexMemParams
from flexserve_hw.regs.block import RegisterBlock
from flexserve_hw.regs.regbus import RegisterBusSignature

from .layouts import (
    PAGE_SHIFT,
    REGIONS,
    TableReadSignature,
    group_shift,
    page_index_width,
    pfn_width,
    region_layout,
    violation_layout,
    window_layout,
)
from .rules import command_port
from .states import CODE_WIDTH, decode, page_of
from .timers import range_layout

__all__ = ["RegionFrame", "ManagementFrames"]

_ADDRESS_BITS_PER_REGISTER = 32


class RegionFrame(wiring.Component):
    """The TZC-400 programmer's view.

    Region addresses above the bus are honoured: a base that cannot be reached disables its region, a top beyond the
    end is the end.

    Parameters
    ----------
    params : FlexMemParams

    Members
    -------
    bus : In(RegisterBusSignature)
    regions : Out
        Region 0 is always enabled.
    decerr : Out(1), interrupt : Out(1)
        ACTION: answer DECERR; raise the interrupt.
    gate : Out(1)
        The gate is asked to be open.
    in_flight : In(1)
        Accepted accesses are not done.
    status, overrun, overlap : In(1); first, write : In
        See :class:`.fail.FailRecord`.
    clear : Out(1)

    Latency and ordering
    --------------------
    Writes take effect in the cycle after the request.
    """

    def __init__(self, *, params: FlexMemParams):
        self._params = params
        super().__init__(
            {
                "bus": In(RegisterBusSignature()),
                "regions": Out(region_layout(params)).array(REGIONS),
                "decerr": Out(1),
                "interrupt": Out(1),
                "gate": Out(1),
                "in_flight": In(1),
                "status": In(1),
                "overrun": In(1),
                "overlap": In(1),
                "first": In(violation_layout(params)),
                "write": In(1),
                "clear": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.regs = regs = RegisterBlock("tzc400")
        connect(m, flipped(self.bus), regs.bus)
        width = pfn_width(self._params)
        low = _ADDRESS_BITS_PER_REGISTER - PAGE_SHIFT
        for n, (region, ports) in enumerate(zip(self.regions, regs.REGION, strict=True)):
            base, top = Signal(low + 32, name=f"base{n}"), Signal(low + 32, name=f"top{n}")
            m.d.comb += [
                base.eq(Cat(ports.BASE_LOW.address.value, ports.BASE_HIGH.address.value)),
                top.eq(Cat(ports.TOP_LOW.address.value, ports.TOP_HIGH.address.value)),
                region.base.eq(base),
                region.top.eq(Mux(top[width:].any(), (1 << width) - 1, top)),
                region.enable.eq(ports.ATTRIBUTES.filter_en.value & ~base[width:].any() if n else 1),
                region.secure_read.eq(ports.ATTRIBUTES.s_rd_en.value),
                region.secure_write.eq(ports.ATTRIBUTES.s_wr_en.value),
                region.read.eq(ports.ID_ACCESS.nsaid_rd_en.value),
                region.write.eq(ports.ID_ACCESS.nsaid_wr_en.value),
            ]
        m.d.comb += [
            regs.BUILD_CONFIG.address_width.value.eq(self._params.bus.addr_width - 1),
            self.decerr.eq(regs.ACTION.reaction.value[0]),
            self.interrupt.eq(regs.ACTION.reaction.value[1] & self.status),
            self.gate.eq(regs.GATE_KEEPER.request.value),
            regs.GATE_KEEPER.status.value.eq(self.gate | self.in_flight),
            regs.INT_STATUS.status.value.eq(self.status),
            regs.INT_STATUS.overrun.value.eq(self.overrun),
            regs.INT_STATUS.overlap.value.eq(self.overlap),
            self.clear.eq(regs.INT_CLEAR.clear.swmod & regs.INT_CLEAR.clear.written),
            Cat(regs.FAIL_ADDRESS_LOW.address.value, regs.FAIL_ADDRESS_HIGH.address.value).eq(self.first.address),
            regs.FAIL_CONTROL.privileged.value.eq(self.first.privileged),
            regs.FAIL_CONTROL.non_secure.value.eq(self.first.nonsecure),
            regs.FAIL_CONTROL.write.value.eq(self.write),
            regs.FAIL_ID.id.value.eq(self.first.id),
            regs.FAIL_ID.vnet.value.eq(self.first.nsaid),
        ]
        return m


class ManagementFrames(wiring.Component):
    """Flex-Mem's frame of each world.

    The frames do not look at who asks: whoever decodes the bus admits secure accesses to ``secure`` and the NSAIDs in
    ``managers`` to ``normal``.

    Parameters
    ----------
    params : FlexMemParams

    Members
    -------
    normal, secure : In(RegisterBusSignature)
    irq_normal, irq_secure : Out(1)
        Level interrupts.
    managers : Out(16)
        NSAIDs that may use the normal frame.
    enable : Out(1), base : Out(32), pages : Out(32)
        Window as configured; it does not change once ``enable`` is high.
    locked : Out(1), grace : Out(32)
        Configuration is frozen; grace period within its limits.
    commands : Out(command_port).array(2)
    window, ready, table
        The live window; whether it is ready; lookup port for state queries.
    owed, freed_count, freed_valid, freed_pfn : In; pop : Out(1); request : Out(1), request_pages : Out(32)
        See :class:`.freed.FreedQueue`.
    arrived, paid, recalled, expired, corrupt : In(1)
        Events, for the interrupts.
    corrupt_pfn, lent, backlog, violations : In
        Values, for software to read.
    running, ranges, left : In, one per timer

    Latency and ordering
    --------------------
    A state query is answered within four cycles, with the state of that time; until then it is not valid.
    """

    def __init__(self, *, params: FlexMemParams):
        self._params = params
        index = page_index_width(params)
        super().__init__(
            {
                "normal": In(RegisterBusSignature()),
                "secure": In(RegisterBusSignature()),
                "irq_normal": Out(1),
                "irq_secure": Out(1),
                "managers": Out(16),
                "enable": Out(1),
                "base": Out(32),
                "pages": Out(32),
                "locked": Out(1),
                "grace": Out(32),
                "commands": Out(command_port()).array(2),
                "window": In(window_layout(params)),
                "ready": In(1),
                "table": Out(TableReadSignature(params=params)),
                "owed": In(32),
                "freed_count": In(range(params.freed_depth + 1)),
                "freed_valid": In(1),
                "freed_pfn": In(pfn_width(params)),
                "pop": Out(1),
                "request": Out(1),
                "request_pages": Out(32),
                "arrived": In(1),
                "paid": In(1),
                "recalled": In(1),
                "expired": In(1),
                "corrupt": In(1),
                "corrupt_pfn": In(pfn_width(params)),
                "lent": In(index + 1),
                "backlog": In(index + 1),
                "violations": In(32),
                "running": In(1).array(params.timers),
                "ranges": In(range_layout(params)).array(params.timers),
                "left": In(32).array(params.timers),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.normal = normal = RegisterBlock("flexmem_normal")
        m.submodules.secure = secure = RegisterBlock("flexmem_secure")
        connect(m, flipped(self.normal), normal.bus)
        connect(m, flipped(self.secure), secure.bus)
        for port, regs in zip(self.commands, (normal, secure), strict=True):
            self._command(m, port, regs)
        self._query(m, (normal, secure))
        self._normal(m, normal)
        self._secure(m, secure)
        return m

    def _command(self, m, port, regs):
        code = regs.CMD.COMMAND.code
        m.d.comb += [
            port.start.eq(code.swmod),
            port.code.eq(code.written),
            port.first.eq(regs.CMD.FIRST.value.value),
            port.count.eq(regs.CMD.COUNT.value.value),
            *(getattr(regs.CMD, name).reject.eq(port.busy) for name in ("FIRST", "COUNT", "TICKET", "COMMAND")),
            regs.CMD.STATUS.busy.value.eq(port.busy),
            regs.CMD.STATUS.result.value.eq(port.result),
            regs.CMD.OFFENDER.value.value.eq(port.offender),
            regs.IRQ_STATUS.command.hwset.eq(port.finished),
            regs.CAPACITY.pages.value.eq(self._params.pages),
        ]

    def _query(self, m, frames):
        """Look up the two frames' pages in turn."""
        turn, asked, within = Signal(), Signal(2), Signal()
        shift = group_shift(self._params)
        pfn, index, page = Signal(32), Signal(32), Signal(max(1, shift))
        stored, state = Signal(CODE_WIDTH), Signal(3)
        m.d.comb += [
            pfn.eq(Mux(turn, frames[1].QUERY_PAGE.pfn.value, frames[0].QUERY_PAGE.pfn.value)),
            index.eq(pfn - self.window.base),
            self.table.en.eq(1),
            self.table.word.eq(index[shift:]),
            stored.eq(page_of(self.table.data, page, group=self._params.group)),
            state.eq(decode(stored)),
        ]
        m.d.sync += [
            turn.eq(~turn),
            page.eq(index[:shift]),
            within.eq(self.window.initialised & (pfn >= self.window.base) & (index < self.window.pages)),
        ]
        for n, regs in enumerate(frames):
            known, valid = Signal(3, name=f"known{n}"), Signal(name=f"valid{n}")
            changes = regs.QUERY_PAGE.pfn.swmod
            m.d.sync += asked[n].eq((turn == n) & ~changes)
            with m.If(asked[n]):
                m.d.sync += [known.eq(Mux(within, state, 0)), valid.eq(within)]
            with m.If(changes):
                m.d.sync += [known.eq(0), valid.eq(0)]
            m.d.comb += [regs.QUERY_STATE.state.value.eq(known), regs.QUERY_STATE.valid.value.eq(valid)]

    def _normal(self, m, regs):
        m.d.comb += [
            regs.WINDOW_BASE.pfn.value.eq(self.window.base),
            regs.WINDOW_PAGES.pages.value.eq(Mux(self.ready, self.window.pages, 0)),
            regs.GRACE.cycles.value.eq(self.grace),
            regs.SIZE_REQUEST.pages.value.eq(self.owed),
            self.request.eq(regs.SIZE_REQUEST.pages.swmod),
            self.request_pages.eq(regs.SIZE_REQUEST.pages.written),
            regs.FREED_COUNT.count.value.eq(self.freed_count),
            regs.FREED_POP.pfn.value.eq(self.freed_pfn),
            regs.FREED_POP.valid.value.eq(self.freed_valid),
            self.pop.eq(regs.FREED_POP.pfn.swacc),
            regs.LENT.lent.value.eq(self.lent),
            regs.SCRUB_BACKLOG.pages.value.eq(self.backlog),
            regs.IRQ_STATUS.freed.hwset.eq(self.arrived),
            regs.IRQ_STATUS.size_paid.hwset.eq(self.paid),
            self.irq_normal.eq(regs.irq),
        ]

    def _secure(self, m, regs):
        params = self._params
        lock, enable = regs.CONTROL.lock.value, regs.CONTROL.enable.value
        grace = regs.GRACE.cycles.value
        clamped = Mux(grace < params.grace_min, params.grace_min, Mux(grace > params.grace_max, params.grace_max, grace))
        m.d.comb += [
            # The window must not move under a live table.
            regs.WINDOW_BASE.pfn.swwel.eq(lock | enable),
            regs.WINDOW_PAGES.pages.swwel.eq(lock | enable),
            regs.GRACE.cycles.swwel.eq(lock),
            regs.MANAGERS.nsaids.swwel.eq(lock),
            self.enable.eq(enable),
            self.base.eq(regs.WINDOW_BASE.pfn.value),
            self.pages.eq(regs.WINDOW_PAGES.pages.value),
            self.locked.eq(lock),
            self.grace.eq(clamped),
            self.managers.eq(regs.MANAGERS.nsaids.value),
            regs.CONTROL.ready.value.eq(self.ready),
            regs.SIZE_OWED.pages.value.eq(self.owed),
            regs.ALARM.corrupt.hwset.eq(self.corrupt),
            regs.VIOLATIONS.count.value.eq(self.violations),
            regs.IRQ_STATUS.size_request.hwset.eq(self.request & (self.request_pages != 0)),
            regs.IRQ_STATUS.recall.hwset.eq(self.recalled),
            regs.IRQ_STATUS.expired.hwset.eq(self.expired),
            regs.IRQ_STATUS.corrupt.hwset.eq(self.corrupt),
            self.irq_secure.eq(regs.irq),
        ]
        alarm_pfn = Signal(pfn_width(params))
        with m.If(self.corrupt & ~regs.ALARM.corrupt.value):
            m.d.sync += alarm_pfn.eq(self.corrupt_pfn)
        m.d.comb += regs.ALARM_PAGE.pfn.value.eq(alarm_pfn)
        for n in range(params.timers):
            timer, pages = regs.TIMER[n], self.ranges[n]
            with m.If(self.running[n]):
                m.d.comb += [
                    timer.FIRST.pfn.value.eq(self.window.base + pages.first),
                    timer.COUNT.pages.value.eq(pages.last - pages.first + 1),
                    timer.LEFT.cycles.value.eq(self.left[n]),
                ]



"""Register frames of the page side: one per world."""

from amaranth.hdl import C, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from flexserve_hw.params import FlexMemParams
from flexserve_hw.regs.block import RegisterBlock
from flexserve_hw.regs.regbus import RegisterBusSignature

from .layouts import (
    TableReadSignature,
    group_shift,
    page_index_width,
    pfn_width,
    window_layout,
)
from .line import memory_pages
from .rules import command_port
from .states import CODE_WIDTH, decode, page_of
from .timers import range_layout

__all__ = ["ManagementFrames"]


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
    enable : Out(1), base : Out(32), pages : Out(32), table_base : Out(32)
        Window as configured; it does not change once ``enable`` is high.
    locked : Out(1), grace : Out
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
    A state query is answered within four cycles, with the state of that time, and kept up to date; until then it is not
    valid. If the table lies in memory, the answer may take the fetch of a word, and is not kept up to date.
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
                "table_base": Out(32),
                "locked": Out(1),
                "grace": Out(params.grace_width),
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
                "left": In(params.grace_width).array(params.timers),
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
        turn, asked, mine, within = Signal(), Signal(), Signal(2), Signal()
        # A table in memory is asked once per question, so that nobody's old question displaces a word of the cache.
        fresh = Signal(2)
        ask = C(1) if self._params.cache_lines is None else fresh.bit_select(turn, 1)
        shift = group_shift(self._params)
        pfn, index, page = Signal(32), Signal(32), Signal(max(1, shift))
        stored, state = Signal(CODE_WIDTH), Signal(3)
        answered = Signal()
        m.d.comb += [
            pfn.eq(Mux(turn, frames[1].QUERY_PAGE.pfn.value, frames[0].QUERY_PAGE.pfn.value)),
            index.eq(pfn - self.window.base),
            answered.eq(~asked | self.table.valid),
            within.eq(
                self.window.initialised & ~self.window.corrupt & (pfn >= self.window.base) & (index < self.window.pages)
            ),
            self.table.en.eq(answered & ask & within),
            self.table.word.eq(index[shift:]),
            stored.eq(page_of(self.table.data, page, group=self._params.group)),
            state.eq(decode(stored)),
        ]
        with m.If(answered):
            m.d.sync += [turn.eq(~turn), page.eq(index[:shift]), asked.eq(ask & within)]
        for n, regs in enumerate(frames):
            known, valid = Signal(3, name=f"known{n}"), Signal(name=f"valid{n}")
            changes = regs.QUERY_PAGE.pfn.swmod
            with m.If(answered):
                m.d.sync += [mine[n].eq(ask & (turn == n)), fresh[n].eq(fresh[n] & (turn != n))]
                with m.If(mine[n]):
                    m.d.sync += [known.eq(Mux(asked, state, 0)), valid.eq(asked)]
            with m.If(changes):
                m.d.sync += [known.eq(0), valid.eq(0), mine[n].eq(0), fresh[n].eq(1)]
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
        clamped = Mux(
            grace < params.grace_min, params.grace_min, Mux(grace > params.grace_max, params.grace_max, grace)
        )
        m.d.comb += [
            # The window must not move under a live table.
            regs.WINDOW_BASE.pfn.swwel.eq(lock | enable),
            regs.WINDOW_PAGES.pages.swwel.eq(lock | enable),
            regs.TABLE_BASE.pfn.swwel.eq(lock | enable),
            regs.GRACE.cycles.swwel.eq(lock),
            regs.MANAGERS.nsaids.swwel.eq(lock),
            self.enable.eq(enable),
            self.base.eq(regs.WINDOW_BASE.pfn.value),
            self.pages.eq(regs.WINDOW_PAGES.pages.value),
            self.table_base.eq(regs.TABLE_BASE.pfn.value),
            regs.TABLE_PAGES.pages.value.eq(0 if params.cache_lines is None else memory_pages(params)),
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
        # An event in the cycle of the clear starts a new alarm.
        alarm = regs.ALARM.corrupt
        with m.If(self.corrupt & (~alarm.value | (alarm.swmod & alarm.written))):
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

"""The command engine: the one writer of the page-state table."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import enum, stream, wiring
from amaranth.lib.wiring import In, Out

from flexserve_hw.params import FlexMemParams
from flexserve_hw.regs.enums import RecallResult, RecallState

from .census import Census
from .drain import Wait, follow
from .layouts import (
    TableReadSignature,
    decision_layout,
    group_shift,
    page_event_layout,
    page_index_width,
    pfn_width,
    window_layout,
    word_width,
)
from .rules import CommandCheck, command_port
from .states import CODE_WIDTH, STATES, StateWord, code, codes, first_set
from .timers import RecallTimers, range_layout, range_mask

__all__ = ["CommandEngine"]


class Work(enum.Enum, shape=2):
    """What the engine walks the table for."""

    BOOT = 0
    """Every page of the window becomes SCRUBBING, whatever the table held."""
    FINISH = 1
    """One page is all zeros: SCRUBBING to NORMAL."""
    EXPIRE = 2
    """A grace period is over: RECALLING to SCRUBBING, other pages of the range stay."""
    COMMAND = 3
    """A command of a frame."""


class CommandEngine(wiring.Component):
    """Check commands, apply them, end grace periods and scrubs, count pages.

    One thing at a time, walking the table at ``params.group`` pages per cycle. A command walks twice: to check the
    whole range, then to apply; so it changes everything or nothing. It begins only when every change before it is
    drained: a page never enters FLEX while a normal-world write from before its lending is on the way. Finished
    scrubs and ended grace periods go first and wait for no drain.

    SEAL of a NORMAL page is the one change with normal-world transactions on the way into a page that the secure
    world may already use: it must put nothing there before the report.

    A page is written only while it still is in a state that the work starts from. A stored state that is no code word
    is never overwritten, but at boot.

    Parameters
    ----------
    params : FlexMemParams

    Members
    -------
    window : In, ready : In(1), initialise : In(1), written : Out(1)
        See :class:`.window.Window`.
    locked : In(1)
        SEAL is refused.
    grace : In
        Cycles between RECALL and forced scrubbing.
    frames : In(command_port).array(2)
        Normal world, secure world.
    table : Out(TableReadSignature); write_en, write_word, write_data : Out; write_ready : In(1)
        See :class:`.pages.PageTable`.
    finish : In(stream)
        Pages that are all zeros.
    freed : Out(1), freed_pfn : Out
        A page went back to NORMAL after the window was ready.
    changed, hold : Out(1); quiet, flip, drained : In(1)
        See :class:`.drain.Drain`.
    lent, backlog : Out
        Pages in FLEX or RECALLING; pages in SCRUBBING.
    recalled, expired : Out(1)
        A RECALL is applied; a grace period ended with pages taken.
    corrupt : Out(1), corrupt_pfn : Out
        A state on the way was no code word.
    event : Out
        Pages that change state.
    decision : Out
        A command is applied or refused.
    running, ranges, left : Out, one per timer
        See :class:`.timers.RecallTimers`.

    Latency and ordering
    --------------------
    A command over w table words takes 2 w + 5 cycles and the drain, and longer by what is ahead of it: at most one
    command of the other frame, one finished page per page time, one expiry per timer.
    """

    def __init__(self, *, params: FlexMemParams):
        self._params = params
        index = page_index_width(params)
        super().__init__(
            {
                "window": In(window_layout(params)),
                "ready": In(1),
                "initialise": In(1),
                "written": Out(1),
                "locked": In(1),
                "grace": In(params.grace_width),
                "frames": In(command_port()).array(2),
                "table": Out(TableReadSignature(params=params)),
                "write_en": Out(1),
                "write_ready": In(1),
                "write_word": Out(word_width(params)),
                "write_data": Out(params.group * CODE_WIDTH),
                "finish": In(stream.Signature(index)),
                "freed": Out(1),
                "freed_pfn": Out(pfn_width(params)),
                "changed": Out(1),
                "hold": Out(1),
                "quiet": In(1),
                "flip": In(1),
                "drained": In(1),
                "lent": Out(index + 1),
                "backlog": Out(index + 1),
                "recalled": Out(1),
                "expired": Out(1),
                "corrupt": Out(1),
                "corrupt_pfn": Out(pfn_width(params)),
                "event": Out(page_event_layout(params)),
                "decision": Out(decision_layout()),
                "running": Out(1).array(params.timers),
                "ranges": Out(range_layout(params)).array(params.timers),
                "left": Out(params.grace_width).array(params.timers),
            }
        )

    def elaborate(self, platform):
        m = Module()
        params = self._params
        m.submodules.check = check = CommandCheck(params=params)
        m.submodules.census = census = Census(params=params)
        m.submodules.timers = timers = RecallTimers(params=params)

        work = Signal(Work)
        pages = Signal(range_layout(params))
        sources = Signal(CODE_WIDTH)
        target = Signal(RecallState)
        frame = Signal()
        turn = Signal()
        pending = Signal(2)
        waits = [Signal(Wait, name=f"wait{n}") for n in range(2)]
        codes_given = [Signal(4, name=f"code{n}") for n in range(2)]
        outcome = Signal(RecallResult)
        outcome_offender = Signal(32)
        refused = Signal()

        # Table walk: a word is asked for in one cycle and, once it is there, looked at in the next.
        cursor = Signal(word_width(params))
        more = Signal()
        asked = Signal()
        at = Signal(word_width(params))
        shift = group_shift(params)
        seen = Signal()
        end = Signal()
        stale = Signal()
        m.d.comb += [
            # A word that is to be written is looked at when the table takes it.
            seen.eq(asked & ~stale & self.table.valid & (self.write_ready | ~self.write_en)),
            end.eq(seen & (at == pages.last >> shift)),
            self.table.en.eq(more & (seen | ~asked)),
            self.table.word.eq(cursor),
        ]
        with m.If(asked & self.table.valid & (seen | stale)):
            m.d.sync += [asked.eq(0), stale.eq(0)]
        with m.If(self.table.en):
            m.d.sync += [asked.eq(1), at.eq(cursor), cursor.eq(cursor + 1)]
            with m.If(cursor == pages.last >> shift):
                m.d.sync += more.eq(0)

        def walk(first):
            return [cursor.eq(first >> shift), more.eq(1)]

        word = StateWord(m, self.table.data, group=params.group, name="walk")
        mask = Signal(params.group)
        fits = Signal(params.group)
        recalling = Signal(params.group)
        illegal = Signal(params.group)
        wrong = Signal(params.group)
        chosen = Signal(params.group)
        m.d.comb += [
            mask.eq(range_mask(params, pages, at)),
            fits.eq(word.within(sources)),
            recalling.eq(word.within(code(RecallState.RECALLING))),
            illegal.eq(Mux(work == Work.BOOT, 0, mask & ~word.legal)),
            wrong.eq(mask & ~fits),
            chosen.eq(Mux(work == Work.BOOT, mask, mask & fits)),
        ]
        offset = Signal(shift)
        ill_offset = Signal(shift)
        m.d.comb += [offset.eq(first_set(m, wrong, name="wrong")), ill_offset.eq(first_set(m, illegal, name="illegal"))]
        offender = self.window.base + Cat(offset, at)

        m.d.comb += [
            check.window.eq(self.window),
            check.ready.eq(self.ready),
            check.locked.eq(self.locked),
            check.frame.eq(frame),
            check.code.eq(Mux(frame, codes_given[1], codes_given[0])),
            check.first.eq(Mux(frame, self.frames[1].first, self.frames[0].first)),
            check.count.eq(Mux(frame, self.frames[1].count, self.frames[0].count)),
            timers.grace.eq(self.grace),
            timers.range.eq(pages),
            self.corrupt_pfn.eq(self.window.base + Cat(ill_offset, at)),
            *(mine.eq(theirs) for mine, theirs in zip(self.running, timers.running, strict=True)),
            *(mine.eq(theirs) for mine, theirs in zip(self.ranges, timers.ranges, strict=True)),
            *(mine.eq(theirs) for mine, theirs in zip(self.left, timers.left, strict=True)),
        ]
        is_recall = target == RecallState.RECALLING
        taken = Signal()

        with m.FSM(name="engine"):
            with m.State("IDLE"):
                with m.If(self.initialise):
                    m.d.sync += [
                        work.eq(Work.BOOT),
                        pages.first.eq(0),
                        pages.last.eq(self.window.pages - 1),
                        target.eq(RecallState.SCRUBBING),
                        *walk(0),
                    ]
                    m.next = "APPLY"
                with m.Elif(self.finish.valid):
                    m.d.sync += [
                        work.eq(Work.FINISH),
                        pages.first.eq(self.finish.payload),
                        pages.last.eq(self.finish.payload),
                        sources.eq(code(RecallState.SCRUBBING)),
                        target.eq(RecallState.NORMAL),
                        *walk(self.finish.payload),
                    ]
                    m.next = "APPLY"
                with m.Elif(timers.due):
                    m.d.sync += [
                        work.eq(Work.EXPIRE),
                        pages.eq(timers.due_range),
                        sources.eq(code(RecallState.RECALLING)),
                        target.eq(RecallState.SCRUBBING),
                        taken.eq(0),
                        *walk(timers.due_range.first),
                    ]
                    m.next = "APPLY"
                with m.Elif(pending.any() & self.quiet):
                    m.d.sync += frame.eq(Mux(pending == 0b11, turn, pending[1]))
                    m.next = "DECODE"
            with m.State("DECODE"):
                m.d.sync += [
                    work.eq(Work.COMMAND),
                    turn.eq(~frame),
                    pages.eq(check.range),
                    sources.eq(check.sources),
                    target.eq(check.target),
                    outcome.eq(check.result),
                    outcome_offender.eq(check.offender),
                ]
                with m.If(check.result == RecallResult.OK):
                    m.d.sync += walk(check.range.first)
                    m.next = "CHECK"
                with m.Else():
                    m.next = "REFUSE"
            with m.State("CHECK"):
                with m.If(seen & wrong.any()):
                    m.d.sync += [
                        more.eq(0),
                        # The next word is asked for already; nobody looks at it.
                        stale.eq(self.table.en),
                        outcome.eq(
                            Mux(
                                (wrong & illegal).bit_select(offset, 1),
                                RecallResult.CORRUPT_STATE,
                                RecallResult.BAD_STATE,
                            )
                        ),
                        outcome_offender.eq(offender),
                    ]
                    m.next = "REFUSE"
                with m.Elif(end):
                    m.next = "CLAIM"
            with m.State("CLAIM"):
                with m.If(is_recall & ~timers.free):
                    m.d.sync += [
                        outcome.eq(RecallResult.NO_SLOT),
                        outcome_offender.eq(self.window.base + pages.first),
                    ]
                    m.next = "REFUSE"
                with m.Else():
                    m.d.comb += timers.start.eq(is_recall)
                    m.d.sync += walk(pages.first)
                    m.next = "APPLY"
            with m.State("REFUSE"):
                m.d.comb += refused.eq(1)
                m.next = "IDLE"
            with m.State("APPLY"):
                m.d.comb += [
                    self.hold.eq(work != Work.FINISH),
                    self.write_en.eq(asked & ~stale & self.table.valid & chosen.any()),
                ]
                with m.If(seen):
                    m.d.comb += [
                        self.changed.eq(work != Work.FINISH),
                        self.event.valid.eq(chosen.any()),
                        timers.left_pages.eq(Mux(is_recall | (work == Work.BOOT), 0, chosen & recalling)),
                    ]
                    m.d.sync += taken.eq(taken | chosen.any())
                    with m.If((work == Work.COMMAND) & wrong.any() & (outcome == RecallResult.OK)):
                        m.d.sync += [outcome.eq(RecallResult.CORRUPT_STATE), outcome_offender.eq(offender)]
                with m.If(end):
                    with m.Switch(work):
                        with m.Case(Work.BOOT):
                            m.d.comb += self.written.eq(1)
                        with m.Case(Work.FINISH):
                            m.d.comb += [
                                self.finish.ready.eq(1),
                                self.freed.eq(chosen.any() & self.ready),
                            ]
                        with m.Case(Work.EXPIRE):
                            m.d.comb += [
                                timers.ended.eq(1),
                                self.expired.eq(taken | chosen.any()),
                            ]
                        with m.Case(Work.COMMAND):
                            m.d.comb += self.recalled.eq(is_recall)
                    m.next = "IDLE"
        m.d.comb += [
            self.corrupt.eq(seen & illegal.any()),
            self.freed_pfn.eq(self.window.base + pages.first),
            self.write_word.eq(at),
            self.event.pfn.eq(self.window.base + (at << shift)),
            self.event.mask.eq(chosen),
            self.event.state.eq(target),
            timers.left_word.eq(at),
            timers.expiring.eq((work == Work.EXPIRE) & self.hold),
        ]
        target_code = Signal(CODE_WIDTH)
        m.d.comb += self.write_data.eq(word.replaced(chosen, target_code))
        with m.Switch(target):
            for state in STATES:
                with m.Case(state):
                    m.d.comb += target_code.eq(code(state))

        applied = self.hold & (work == Work.COMMAND) & end
        for n, port in enumerate(self.frames):
            mine = frame == n
            finished = (refused & mine) | ((waits[n] == Wait.DRAINED) & self.drained)
            m.d.comb += [port.busy.eq(pending[n] | (waits[n] != Wait.NOTHING)), port.finished.eq(finished)]
            m.d.sync += follow(waits[n], flip=self.flip, drained=self.drained)
            with m.If(port.start & ~port.busy):
                m.d.sync += [pending[n].eq(1), codes_given[n].eq(port.code)]
            with m.If(mine & (applied | refused)):
                m.d.sync += pending[n].eq(0)
            with m.If(mine & applied):
                m.d.sync += waits[n].eq(Wait.FLIP)
            with m.If(finished):
                m.d.sync += [
                    port.result.eq(outcome),
                    port.offender.eq(Mux(outcome == RecallResult.OK, 0, outcome_offender)),
                ]
        m.d.comb += [
            self.decision.valid.eq(refused | applied),
            self.decision.frame.eq(frame),
            self.decision.code.eq(check.code),
            self.decision.result.eq(outcome),
        ]
        m.d.comb += [
            census.written.eq(Mux(self.event.valid, chosen, 0)),
            census.lent_before.eq(
                Mux(work == Work.BOOT, 0, chosen & word.within(codes(RecallState.FLEX, RecallState.RECALLING)))
            ),
            census.scrubbed.eq(work == Work.FINISH),
            census.target.eq(target),
            self.lent.eq(census.lent),
            self.backlog.eq(census.backlog),
        ]
        return m

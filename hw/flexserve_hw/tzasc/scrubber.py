"""The scrubber: zeroes pages in SCRUBBING, and says so only when memory has answered."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from flexserve_hw.bus.axi4 import PAGE_BYTES
from flexserve_hw.params import FlexMemParams
from flexserve_hw.regs.enums import RecallState

from .drain import Wait, follow
from .layouts import PAGE_SHIFT, TableReadSignature, group_shift, page_index_width, window_layout, word_width
from .states import StateWord, code, first_set
from .walk import HintedWalk, RoundWalk

__all__ = ["Scrubber"]


class Scrubber(wiring.Component):
    """Find pages in SCRUBBING and write zeros over them.

    A page is picked from the table, then waits until a drain that covers its change of state is over; only then may
    its first zero go out, so that no transaction accepted before can leave anything behind. When every burst is
    answered OKAY, the page is finished: the command engine turns it to NORMAL. After any other answer it stays in
    SCRUBBING, is not finished, and is picked again.

    Parameters
    ----------
    params : FlexMemParams

    Members
    -------
    window, backlog : In
        The window, and the pages of it in SCRUBBING.
    room : In(1)
        One more page may be started besides ``working``; low when its report might find the freed queue full.
    table : Out(TableReadSignature)
        Scan port.
    entered : In(1), entered_word : In
        Pages of a table word enter SCRUBBING in this cycle.
    wanted, draining, flip, drained : In(1)
        See :class:`.drain.Drain`.
    aw : Out(stream), b : In
        See :class:`.write_path.WritePath`.
    finish : Out(stream)
        Index of a page that is all zeros; taken when the table says so.
    working : Out
        Pages started and not finished.
    active : Out(1)
        Some page is picked or in work.

    Latency and ordering
    --------------------
    The next page is sought, a table word every two cycles or as the table answers, and drained while the present one is
    written, so pages follow each other without a gap. See :mod:`.walk` for the order.
    """

    def __init__(self, *, params: FlexMemParams):
        beats = PAGE_BYTES * 8 // params.bus.data_width
        self._params = params
        self._bursts = beats // params.scrub_beats
        self._slots = params.scrub_slots
        index = page_index_width(params)
        bus = params.bus
        super().__init__(
            {
                "window": In(window_layout(params)),
                "backlog": In(index + 1),
                "room": In(1),
                "table": Out(TableReadSignature(params=params)),
                "entered": In(1),
                "entered_word": In(word_width(params)),
                "wanted": In(1),
                "draining": In(1),
                "flip": In(1),
                "drained": In(1),
                "aw": Out(stream.Signature(data.StructLayout({"addr": bus.addr_width, "id": bus.id_width}))),
                "b": In(data.StructLayout({"valid": 1, "id": bus.id_width, "okay": 1})),
                "finish": Out(stream.Signature(index)),
                "working": Out(range(self._slots + 1)),
                "active": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        index = page_index_width(self._params)
        slots = [
            {
                "busy": Signal(name=f"slot{n}_busy"),
                "page": Signal(index, name=f"slot{n}_page"),
                "unsent": Signal(name=f"slot{n}_unsent"),
                "answers": Signal(range(self._bursts + 1), name=f"slot{n}_answers"),
                "failed": Signal(name=f"slot{n}_failed"),
            }
            for n in range(self._slots)
        ]
        picked = Signal()
        page = Signal(index)
        wait = Signal(Wait)
        m.d.comb += [
            self.working.eq(sum(slot["busy"] for slot in slots)),
            self.active.eq(picked | (self.working != 0)),
        ]
        self._scan(m, slots, picked, page, wait)
        self._write(m, slots, picked, page, wait)
        self._collect(m, slots)
        return m

    def _scan(self, m, slots, picked, page, wait):
        """Walk the table round and round for a page that nobody works on yet."""
        params = self._params
        shift = group_shift(params)
        m.submodules.walk = walk = RoundWalk(params=params) if params.cache_lines is None else HintedWalk(params=params)
        seek = Signal()
        asked = Signal()
        look = Signal()
        busy_pages = 0
        for slot in slots:
            same = slot["busy"] & ((slot["page"] >> shift) == walk.word)
            busy_pages = busy_pages | (same << slot["page"][:shift] if shift else same)
        scrubbing = Signal(params.group)
        hits = Signal(params.group)
        offset = Signal(max(1, shift))
        states = StateWord(m, self.table.data, group=params.group, name="scan")
        m.d.comb += [
            # More pages wait than are in work, and none is picked.
            seek.eq(self.window.initialised & ~picked & (self.backlog > self.working)),
            walk.seek.eq(seek),
            walk.last.eq((self.window.pages >> shift) - 1),
            walk.entered.eq(self.entered),
            walk.entered_word.eq(self.entered_word),
            self.table.en.eq(seek & walk.valid & ~asked),
            self.table.word.eq(walk.word),
            look.eq(asked & self.table.valid),
            scrubbing.eq(states.within(code(RecallState.SCRUBBING))),
            hits.eq(scrubbing & ~busy_pages),
            offset.eq(first_set(m, hits, name="hits")),
            walk.next.eq(look & ~hits.any()),
            walk.clean.eq(~scrubbing.any() & states.legal.all()),
        ]
        m.d.sync += follow(wait, flip=self.flip, drained=self.drained)
        with m.If(self.table.en):
            m.d.sync += asked.eq(1)
        with m.If(look):
            m.d.sync += asked.eq(0)
        with m.If(look & seek & hits.any()):
            # The drain that covers this page: one to come, the one going on, or one that is over.
            m.d.sync += [
                picked.eq(1),
                page.eq(Cat(offset[:shift], walk.word)),
                wait.eq(
                    Mux(
                        self.wanted,
                        Mux(self.flip, Wait.DRAINED, Wait.FLIP),
                        Mux(self.draining & ~self.drained, Wait.DRAINED, Wait.NOTHING),
                    )
                ),
            ]

    def _write(self, m, slots, picked, page, wait):
        """Start the picked page in a free slot and send its bursts."""
        sending = Signal()
        slot = Signal(range(self._slots))
        base = Signal(page.shape())
        burst = Signal(range(self._bursts))
        free = Signal()
        choice = Signal(range(self._slots))
        last = self.aw.valid & self.aw.ready & (burst == self._bursts - 1)
        for n in reversed(range(self._slots)):
            with m.If(~slots[n]["busy"]):
                m.d.comb += [free.eq(1), choice.eq(n)]
        m.d.comb += [
            self.aw.valid.eq(sending),
            self.aw.payload.id.eq(slot),
            self.aw.payload.addr.eq(
                ((self.window.base + base) << PAGE_SHIFT) | (burst << exact_log2(PAGE_BYTES // self._bursts))
            ),
        ]
        with m.If(self.aw.valid & self.aw.ready):
            m.d.sync += burst.eq(burst + 1)
        with m.If(last):
            m.d.sync += [sending.eq(0), burst.eq(0)]
            self._in_slot(m, slots, slot, lambda s: s["unsent"].eq(0))
        with m.If((~sending | last) & picked & (wait == Wait.NOTHING) & free & self.room):
            m.d.sync += [sending.eq(1), slot.eq(choice), base.eq(page), picked.eq(0)]
            self._in_slot(
                m,
                slots,
                choice,
                lambda s: [
                    s["busy"].eq(1),
                    s["page"].eq(page),
                    s["unsent"].eq(1),
                    s["answers"].eq(0),
                    s["failed"].eq(0),
                ],
            )

    def _collect(self, m, slots):
        """Count answers; hand over the pages that are done and drop those that failed."""
        turn = Signal(range(self._slots))
        chosen = Signal(range(self._slots))
        held = Signal()
        complete = []
        for n, slot in enumerate(slots):
            with m.If(self.b.valid & (self.b.id == n)):
                m.d.sync += slot["answers"].eq(slot["answers"] + 1)
                with m.If(~self.b.okay):
                    m.d.sync += slot["failed"].eq(1)
            ended = slot["busy"] & ~slot["unsent"] & (slot["answers"] == self._bursts)
            complete.append(ended & ~slot["failed"])
            with m.If(ended & slot["failed"]):
                m.d.sync += slot["busy"].eq(0)
        complete = Cat(complete)
        for n in reversed(range(self._slots)):
            with m.If(complete[n]):
                m.d.comb += chosen.eq(n)
        with m.If(held):
            m.d.comb += chosen.eq(turn)
        m.d.comb += self.finish.valid.eq(complete.any())
        m.d.sync += [held.eq(self.finish.valid & ~self.finish.ready), turn.eq(chosen)]
        with m.Switch(chosen):
            for n, slot in enumerate(slots):
                with m.Case(n):
                    m.d.comb += self.finish.payload.eq(slot["page"])
                    with m.If(self.finish.valid & self.finish.ready):
                        m.d.sync += slot["busy"].eq(0)

    def _in_slot(self, m, slots, which, statements):
        with m.Switch(which):
            for n, slot in enumerate(slots):
                with m.Case(n):
                    m.d.sync += statements(slot)

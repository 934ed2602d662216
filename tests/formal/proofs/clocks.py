"""Timers of recalled ranges against models that keep every page of every range, or the number of them in full width."""

from dataclasses import replace

from amaranth.hdl import Cat, Mux, Signal, Value

from flexserve_hw.params import FlexMemParams
from flexserve_hw.tzasc.layouts import group_shift, page_index_width
from flexserve_hw.tzasc.timers import RecallTimers
from tests.formal.harness import Harness, proof
from tests.formal.proofs.shown import PARAMS


class _Pages:
    """What timer ``n`` still waits for, page by page."""

    def __init__(self, h: Harness, dut: RecallTimers, params: FlexMemParams, n: int):
        self._h, self._n, self._every = h, n, range(params.pages)
        self.stored, leaving = Signal(params.pages, name=f"recalled{n}"), Signal(params.pages, name=f"leaving{n}")
        h.m.d.comb += leaving.eq(dut.left_pages << (dut.left_word * params.group))
        self._leaving = leaving

    def start(self, pages) -> Value:
        """All pages of a range."""
        return Cat((pages.first <= page) & (page <= pages.last) for page in self._every)

    def go(self, running, pages) -> Value:
        """Claim how many they are, while the timer runs over ``pages``. Returns what is left after this cycle."""
        h, n, inside = self._h, self._n, self.start(pages)
        h.assume(f"pages_leave_timer{n}_once", ~running | ((self._leaving & inside & ~self.stored) == 0))
        count = sum(self.stored[page] for page in self._every)
        h.prove(f"timer{n}_counts_its_pages", ~running | (h.inner(f"recalling{n}") == count), lemma=True)
        h.prove(f"timer{n}_has_pages_of_its_range", ~running | ((self.stored & ~inside) == 0), lemma=True)
        return self.stored & ~self._leaving


class _Number:
    """How many pages timer ``n`` still waits for."""

    def __init__(self, h: Harness, dut: RecallTimers, params: FlexMemParams, n: int):
        self._h, self._n, self._dut, self._params = h, n, dut, params
        self.stored = Signal(page_index_width(params) + 1, name=f"recalled{n}")

    def start(self, pages) -> Value:
        """The size of a range."""
        return pages.last - pages.first + 1

    def go(self, running, pages) -> Value:
        """Claim that it is so, while the timer runs over ``pages``. Returns how many are left after this cycle."""
        h, n, dut = self._h, self._n, self._dut
        places = [(dut.left_word << group_shift(self._params)) | place for place in range(self._params.group)]
        inside = Cat((pages.first <= place) & (place <= pages.last) for place in places)
        leaving = dut.left_pages & inside
        left = sum(leaving[place] for place in range(self._params.group))
        h.assume(f"pages_leave_timer{n}_once", ~running | (left <= self.stored))
        h.prove(f"timer{n}_counts_its_pages", ~running | (h.inner(f"recalling{n}") == self.stored), lemma=True)
        return (self.stored - left)[: len(self.stored)]


@proof(
    reductions={
        "16 pages, 4 to a table word": "a page is told from others by word and by place in the word; four of each",
        "64 pages where they are only counted": "numbers are added and compared; each has the page's bits and one more",
        "2 timers": "one that a range claims and one that may overlap or be late; more add choices alone",
    },
    depth=2,
    cover_depth=10,
    induction=True,
    variants={"pages": {"pages": 16, "model": _Pages}, "numbers": {"pages": PARAMS.pages, "model": _Number}},
)
def timers(h: Harness, pages: int, model: type[_Pages] | type[_Number]) -> None:
    """A timer runs from its start until its last page has left or its expiry is done, and counts every cycle."""
    params = replace(PARAMS, pages=pages)
    dut = h.dut(RecallTimers(params=params))
    h.drive(dut, "in")
    m, ours = h.m, range(params.timers)
    running, left = (
        [Signal(shape, name=f"{name}{n}") for n in ours]
        for name, shape in {"runs": 1, "rest": params.grace_width}.items()
    )
    ranges = [Signal.like(dut.range, name=f"kept{n}") for n in ours]
    waits = [model(h, dut, params, n) for n in ours]
    late = [running[n] & (left[n] == 0) for n in ours]
    which = Signal(name="which")
    with m.If(~dut.expiring):
        m.d.sync += which.eq(~late[0] & late[1])

    # What the engine does, as its own proofs say it.
    h.assume("start_when_free", ~dut.start | (dut.free & (dut.range.first <= dut.range.last)))
    h.assume("start_between_walks", ~(dut.start & (dut.expiring | dut.left_pages.any())))
    h.assume("expiry_when_due", ~dut.expiring | h.past(dut.expiring | dut.due))
    h.assume("expiry_ends_once", ~dut.ended | (dut.expiring & ~h.past(dut.ended)))

    h.prove("lemma_which", h.inner("chosen") == which, lemma=True)
    slot = Signal(name="slot_to_take")
    m.d.comb += slot.eq(running[0])
    for n in ours:
        rest = waits[n].go(running[n], ranges[n])
        with m.If(running[n]):
            m.d.sync += [waits[n].stored.eq(rest), left[n].eq(Mux(left[n] == 0, 0, left[n] - 1))]
            with m.If((rest == 0) | (dut.ended & (which == n))):
                m.d.sync += [running[n].eq(0), left[n].eq(0)]
        with m.If(dut.start & (slot == n)):
            m.d.sync += [
                running[n].eq(1),
                left[n].eq(dut.grace),
                ranges[n].eq(dut.range),
                waits[n].stored.eq(waits[n].start(dut.range)),
            ]
        h.prove(f"timer{n}_runs_until_its_last_page", dut.running[n] == running[n], sec="SEC-07", lemma=True)
        h.prove(f"timer{n}_counts_every_cycle", dut.left[n] == left[n], sec="SEC-07", lemma=True)
        mine = dut.ranges[n].as_value() == ranges[n].as_value()
        h.prove(f"timer{n}_keeps_its_range", ~running[n] | mine, sec="SEC-07", lemma=True)
    overlaps = [running[n] & (dut.range.first <= ranges[n].last) & (ranges[n].first <= dut.range.last) for n in ours]
    vacant = ~(running[0] & running[1])
    h.prove("free_when_one_is_and_none_overlaps", dut.free == (vacant & ~(overlaps[0] | overlaps[1])), sec="SEC-07")
    h.prove("due_when_one_is_late", dut.due == (late[0] | late[1]), sec="SEC-07")
    now = Mux(dut.expiring, which, ~late[0])
    named = Mux(now, ranges[1].as_value(), ranges[0].as_value())
    asked = Mux(dut.expiring, Mux(which, running[1], running[0]), dut.due)
    h.prove("range_of_the_late_one", ~asked | (dut.due_range.as_value() == named), sec="SEC-07")
    h.cover("both_late", late[0] & late[1])
    h.cover("range_is_left_early", h.past(running[1] & (left[1] != 0)) & ~running[1])
    half = ranges[1].last - ranges[1].first == pages // 2 - 1
    h.cover("second_timer_runs_over_half_the_window", running[0] & running[1] & half)

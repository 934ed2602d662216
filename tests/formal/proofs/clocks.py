"""Timers of recalled ranges against a model that keeps every page of every range."""

from dataclasses import replace

from amaranth.hdl import Cat, Mux, Signal

from flexserve_hw.tzasc.timers import RecallTimers
from tests.formal.harness import Harness, proof
from tests.formal.proofs.shown import PARAMS

PAGES = 16


@proof(
    reductions={
        "16 pages, 4 to a table word": "a page is told from others by word and by place in the word; four of each",
        "2 timers": "one that a range claims and one that may overlap or be late; more add choices alone",
    },
    depth=2,
    cover_depth=10,
    induction=True,
)
def timers(h: Harness) -> None:
    """A timer runs from its start until its last page has left or its expiry is done, and counts every cycle."""
    dut = h.dut(RecallTimers(params=replace(PARAMS, pages=PAGES)))
    h.drive(dut, "in")
    m, group, ours = h.m, PARAMS.group, range(PARAMS.timers)
    running, left, first, last, pages = (
        [Signal(shape, name=f"{name}{n}") for n in ours]
        for name, shape in {"runs": 1, "rest": 12, "from": 4, "to": 4, "recalled": PAGES}.items()
    )
    late = [running[n] & (left[n] == 0) for n in ours]
    which, leaving = Signal(name="which"), Signal(PAGES, name="pages_leaving")
    m.d.comb += leaving.eq(dut.left_pages << (dut.left_word * group))
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
        inside = Cat((first[n] <= page) & (page <= last[n]) for page in range(PAGES))
        h.assume(f"pages_leave_timer{n}_once", ~running[n] | ((leaving & inside & ~pages[n]) == 0))
        rest = pages[n] & ~leaving
        with m.If(running[n]):
            m.d.sync += [pages[n].eq(rest), left[n].eq(Mux(left[n] == 0, 0, left[n] - 1))]
            with m.If((rest == 0) | (dut.ended & (which == n))):
                m.d.sync += [running[n].eq(0), left[n].eq(0)]
        with m.If(dut.start & (slot == n)):
            m.d.sync += [
                running[n].eq(1),
                left[n].eq(dut.grace),
                first[n].eq(dut.range.first),
                last[n].eq(dut.range.last),
                *(pages[n][page].eq((dut.range.first <= page) & (page <= dut.range.last)) for page in range(PAGES)),
            ]
        count = sum(pages[n][page] for page in range(PAGES))
        h.prove(f"timer{n}_counts_its_pages", ~running[n] | (h.inner(f"recalling{n}") == count), lemma=True)
        h.prove(f"timer{n}_has_pages_of_its_range", ~running[n] | ((pages[n] & ~inside) == 0), lemma=True)
        h.prove(f"timer{n}_runs_until_its_last_page", dut.running[n] == running[n], sec="SEC-07", lemma=True)
        h.prove(f"timer{n}_counts_every_cycle", dut.left[n] == left[n], sec="SEC-07", lemma=True)
        mine = (dut.ranges[n].first == first[n]) & (dut.ranges[n].last == last[n])
        h.prove(f"timer{n}_keeps_its_range", ~running[n] | mine, sec="SEC-07", lemma=True)
    overlaps = [running[n] & (dut.range.first <= last[n]) & (first[n] <= dut.range.last) for n in ours]
    vacant = ~(running[0] & running[1])
    h.prove("free_when_one_is_and_none_overlaps", dut.free == (vacant & ~(overlaps[0] | overlaps[1])), sec="SEC-07")
    h.prove("due_when_one_is_late", dut.due == (late[0] | late[1]), sec="SEC-07")
    now = Mux(dut.expiring, which, ~late[0])
    named = Mux(now, Cat(first[1], last[1]), Cat(first[0], last[0]))
    asked = Mux(dut.expiring, Mux(which, running[1], running[0]), dut.due)
    h.prove("range_of_the_late_one", ~asked | (dut.due_range.as_value() == named), sec="SEC-07")
    h.cover("both_late", late[0] & late[1])
    h.cover("range_is_left_early", h.past(running[1] & (left[1] != 0)) & ~running[1])

"""The scrubber: a page returns only after memory has answered every zero of it."""

from amaranth.hdl import Mux, Signal

from flexserve_hw.bus.axi4 import PAGE_BYTES
from flexserve_hw.tzasc.layouts import PAGE_SHIFT
from flexserve_sw.regs import RecallState
from tests.formal.harness import Harness, proof
from tests.formal.invariants import Slots, Walk
from tests.formal.management import REDUCTIONS, VARIANTS, Management, reduced, scanned

S = RecallState


@proof(reductions=REDUCTIONS, variants=VARIANTS, limit=400)
def answers(h: Harness, **params: int) -> None:
    """A page leaves SCRUBBING for NORMAL alone, and only when each of its bursts was sent since and answered OKAY."""
    g = Management(h, reduced(**params))
    burst = h.constant("burst", range(g.bursts))
    g.build()
    walk, slots = Walk(g), Slots(g)
    walk.lemmas(h, g)
    m, inner, scrub = h.m, h.inner, g.write.scrub_aw.payload
    scrubbing = g.is_in(g.state, S.SCRUBBING)
    after = Signal.like(g.state, name="state_after")
    m.d.comb += after.eq(g.changed_to())

    # The symbolic burst: on its way with ``before`` answers of its ID to come first; answered OKAY.
    waiting, okay, before, tag = Signal(), Signal(), Signal.like(g.unanswered[0]), Signal.like(scrub.id)
    answer = g.write.scrub_b
    sent = g.scrub_sent & (scrub.addr == (g.pfn << PAGE_SHIFT) + burst * (PAGE_BYTES // g.bursts))
    owed = Mux(scrub.id, g.unanswered[1], g.unanswered[0])
    with m.If(waiting & answer.valid & (answer.id == tag)):
        with m.If(before == 0):
            m.d.sync += [waiting.eq(0), okay.eq(answer.okay)]
        with m.Else():
            m.d.sync += before.eq(before - 1)
    with m.If(sent):
        m.d.sync += [
            waiting.eq(1),
            okay.eq(0),
            tag.eq(scrub.id),
            before.eq(owed - (answer.valid & (answer.id == scrub.id))),
        ]
    with m.If(g.is_in(after, S.SCRUBBING) & (~scrubbing | walk.boot)):
        m.d.sync += [waiting.eq(0), okay.eq(0)]

    picked = inner("scrubber.picked") & (inner("scrubber.page") == g.page)
    for n, slot in enumerate(slots.mine):
        h.prove(f"slot{n}_holds_a_scrubbed_page", ~slot | scrubbing, lemma=True)
        h.prove(f"slot{n}_is_not_picked", ~(slot & picked), lemma=True)
        at_work = slots.sending & (slots.slot == n)
        gone = slot & (~at_work | (slots.burst > burst))
        count, failed = slots.answers[n], slots.failed[n]
        place = (tag == n) & (before + count == burst)
        h.prove(f"slot{n}_burst_in_its_place", ~(gone & (count <= burst)) | (waiting & place), lemma=True)
        h.prove(f"slot{n}_burst_answered", ~(gone & (count > burst) & ~failed) | (okay & ~waiting), lemma=True)
        h.prove(f"slot{n}_burst_once", ~(slot & (~gone | (count > burst)) & waiting), lemma=True)
    h.prove("only_a_slot_waits", ~waiting | slots.mine[0] | slots.mine[1], lemma=True)
    h.prove("picked_is_to_be_scrubbed", ~picked | scrubbing, lemma=True)
    looked = scanned(h, g.page >> g.shift)
    seen = g.code_in(g.core.table.scan.data, g.page)
    h.prove("scan_sees_what_is_stored", ~looked | (seen == g.state), lemma=True)
    finishing = slots.held & (slots.held_page == walk.pages.first)
    h.prove("finished_page_is_in_a_slot", ~walk.finish | finishing, lemma=True)
    h.prove("finished_page_is_one", ~walk.finish | (walk.pages.first == walk.pages.last), lemma=True)

    offered, done = inner("scrubber.finish__valid"), inner("scrubber.finish__payload")
    kept = h.past(offered & ~inner("engine.finish__ready"))
    h.prove("finished_page_is_offered_until_it_is_taken", ~kept | (offered & (done == h.past(done))), sec="SEC-07")

    leaves = g.initialised & scrubbing & (after != g.state)
    h.prove("every_burst_is_answered_before_the_page_returns", ~leaves | (okay & ~waiting), sec="SEC-01 SEC-02")
    h.prove("scrubbing_leads_to_normal_alone", ~leaves | g.is_in(after, S.NORMAL), sec="SEC-04")
    h.prove(
        "zeros_go_to_pages_of_the_window",
        ~g.write.scrub_aw.valid | ((g.scrub_pfn - g.core.live.base) < g.core.live.pages),
        sec="SEC-02",
    )
    h.prove("a_failed_burst_keeps_the_page", ~(leaves & ~okay), sec="SEC-01")
    full = g.core.freed_count == g.params.freed_depth
    h.prove(
        "working_pages_have_room",
        ~g.core.ready | (g.core.freed_count + slots.busy[0] + slots.busy[1] <= g.params.freed_depth),
        lemma=True,
    )
    push = inner("engine.freed")
    h.prove("no_report_is_lost", ~(push & full), sec="SEC-07")
    reported = push & (inner("engine.freed_pfn") == g.pfn)
    returns = leaves & g.core.ready
    h.prove("every_return_is_reported_once", reported == returns, sec="SEC-07")
    h.cover("page_returns", leaves)
    h.cover("page_is_scrubbed_again_after_a_failure", scrubbing & sent & h.past(okay))
    h.cover("both_slots_at_work", slots.busy[0] & slots.busy[1])

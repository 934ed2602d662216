"""Accesses and page states: no access in flight outlives the report that its page has changed hands."""

from amaranth.hdl import Signal

from flexserve_hw.tzasc.drain import Wait
from flexserve_sw.regs import RecallResult, RecallState
from tests.formal.harness import Harness, proof
from tests.formal.invariants import Slots, Walk, drained
from tests.formal.management import REDUCTIONS, VARIANTS, Management, Watch, reduced, scanned

S, R = RecallState, RecallResult


@proof(reductions=REDUCTIONS, variants=VARIANTS, limit=400)
def isolation(h: Harness, **params: int) -> None:
    """No transaction is in flight to a lent or scrubbed page that an earlier state allowed, and none at the report."""
    g = Management(h, reduced(**params))
    g.build()
    w, walk = Watch(g), Walk(g)
    walk.lemmas(h, g)
    misfit = drained(h, g, w)
    inner = h.inner
    wanted, draining = inner("drain.wanted"), inner("drain.draining")
    deciding = g.engine_in("CHECK", "CLAIM")
    h.prove("command_starts_drained", ~deciding | ~(wanted | draining), lemma=True)
    h.prove("command_meets_no_misfit", ~(walk.ahead & walk.command) | ~misfit, lemma=True)
    picked, wait = inner("scrubber.picked") & (inner("scrubber.page") == g.page), inner("scrubber.wait")
    scrubbing = g.is_in(g.state, S.SCRUBBING)
    slots = Slots(g)
    for n, slot in enumerate(slots.mine):
        h.prove(f"slot{n}_holds_a_scrubbed_page", ~slot | scrubbing, lemma=True)
        h.prove(f"slot{n}_has_its_page_alone", ~slot | ~misfit, lemma=True)
        h.prove(f"slot{n}_is_not_picked", ~(slot & picked), lemma=True)
    looked = scanned(h, g.page >> g.shift)
    seen = g.code_in(g.core.table.scan.data, g.page)
    h.prove("scan_sees_what_is_stored", ~looked | (seen == g.state), lemma=True)
    h.prove("picked_is_to_be_scrubbed", ~picked | scrubbing, lemma=True)
    h.prove("picked_and_drained", ~(picked & (wait == Wait.NOTHING)) | ~misfit, lemma=True)
    h.prove(
        "picked_and_draining",
        ~(picked & (wait == Wait.DRAINED) & misfit) | (draining & (w.epoch != g.epoch)),
        lemma=True,
    )
    h.prove("waits_for_a_flip", (wait != Wait.FLIP) | wanted, lemma=True)
    h.prove("waits_for_a_drain", (wait != Wait.DRAINED) | draining, lemma=True)
    finishing = slots.held & (slots.held_page == walk.pages.first)
    h.prove("finished_page_is_in_a_slot", ~walk.finish | finishing, lemma=True)
    h.prove("finished_page_is_one", ~walk.finish | (walk.pages.first == walk.pages.last), lemma=True)

    lent = g.is_in(g.state, S.FLEX, S.RECALLING)
    h.prove("no_normal_access_in_flight_to_a_lent_page", ~(w.normal & lent), sec="SEC-01 SEC-02 SEC-06")
    h.prove("no_normal_access_in_flight_to_a_scrubbed_page", ~(w.normal & scrubbing), sec="SEC-01 SEC-02")
    opened = g.is_in(g.state, S.NORMAL, S.DELEGATED)
    h.prove("no_secure_access_in_flight_to_a_returned_page", ~(w.secure & opened), sec="SEC-01 SEC-03")
    zeroed = g.write.scrub_aw.valid & (g.scrub_pfn == g.pfn)
    h.prove(
        "scrub_begins_when_all_accesses_are_answered", ~(zeroed & (w.normal | w.secure)), sec="SEC-01 SEC-02 SEC-06"
    )
    h.prove("only_pages_in_scrubbing_are_zeroed", ~zeroed | scrubbing, sec="SEC-02")
    decision = g.core.probe_decision
    for n, port in enumerate(g.core.commands):
        earlier = Signal(name=f"accepted_before_decision{n}")
        applied = decision.valid & (decision.frame == n) & (decision.result.as_value() == R.OK)
        with h.m.If(applied):
            h.m.d.sync += earlier.eq(w.active & ~w.ends)
        with h.m.Elif(w.ends | port.finished):
            h.m.d.sync += earlier.eq(0)
        waiting = inner(f"engine.wait{n}")
        h.prove(
            f"frame{n}_waits_for_earlier_accesses",
            ~earlier
            | ((waiting == Wait.FLIP) & wanted & (w.epoch == g.epoch))
            | ((waiting == Wait.FLIP) & draining)
            | ((waiting == Wait.DRAINED) & draining & (w.epoch != g.epoch)),
            lemma=True,
        )
        h.prove(f"frame{n}_reports_when_earlier_accesses_are_answered", ~(port.finished & earlier), sec="SEC-06")
        h.prove(f"frame{n}_is_busy_until_then", ~earlier | port.busy, sec="SEC-06")
    h.cover("access_outlives_its_state", misfit)
    h.cover("secure_access_to_a_recalled_page", w.secure & g.is_in(g.state, S.RECALLING))
    h.cover("secure_access_when_grace_ends", w.secure & scrubbing)

"""Fail closed: a stored bit of a page's state or of the window flips, in any cycle, and nobody gains by it."""

from amaranth.hdl import Const, Signal

from flexserve_sw.recall import TRANSITIONS
from flexserve_sw.regs import RecallState
from tests.formal.harness import Harness, proof
from tests.formal.invariants import Walk
from tests.formal.management import CODES, REDUCTIONS, VARIANTS, Management, Watch, legal_codes, reduced
from tests.formal.upset import single_upset

S = RecallState

STEPS = {(start, target) for _, starts, target in TRANSITIONS.values() for start in starts} | {
    (S.RECALLING, S.SCRUBBING),
    (S.SCRUBBING, S.NORMAL),
}
"""What may follow what: by command, at the end of a grace period, after a scrub."""


@proof(reductions=REDUCTIONS, variants=VARIANTS, limit=300)
def state(h: Harness, **params: int) -> None:
    """One bit of a page's state flips: the page is nobody's until reset, and who walks over it raises the alarm."""
    g = Management(h, reduced(**params))
    m, core, group = h.m, g.core, g.params.group
    bit, flip = h.constant("bit", range(len(CODES))), h.free("flip", 1)
    flipped = Signal(name="flipped")
    # The upset goes in by a port of its own, a cycle before or after any write to the word.
    look, port = core.table.states.read_port(domain="comb"), core.table.states.write_port()
    place = g.page[: g.shift] if g.shift else Const(0, 0)
    m.d.comb += [
        look.addr.eq(g.page >> g.shift),
        port.addr.eq(look.addr),
        port.data.eq(look.data ^ (Const(1, group * len(CODES)) << (bit * group + place))[: group * len(CODES)]),
        port.en.eq(flip),
    ]
    m.d.sync += flipped.eq(flipped | flip)
    g.build()
    h.assume("one_upset", ~(flip & flipped))
    h.assume("upset_of_a_state", ~flip | g.initialised)
    h.assume("upset_beside_a_write", ~(flip & core.table.write_en & (core.table.write_word == look.addr)))
    w, walk = Watch(g), Walk(g)

    # What the state would be: what was last written to the page that is a state.
    truth, after = Signal(len(CODES), name="truth"), Signal(len(CODES), name="state_after")
    m.d.comb += after.eq(g.changed_to())
    written = core.table.write_en & (core.table.write_word == g.page >> g.shift)
    with m.If(written & legal_codes(after)):
        m.d.sync += truth.eq(after)
    step = Signal(name="lawful_step")
    for start, target in STEPS:
        with m.If(g.is_in(truth, start) & g.is_in(after, target)):
            m.d.comb += step.eq(1)

    upset = Signal(name="page_is_upset")
    m.d.comb += upset.eq(g.initialised & ~legal_codes(g.state))
    here = walk.reads & (walk.at == g.page >> g.shift)
    seen = g.code_in(core.table.walk.data, g.page)
    # Only a word that was read before the upset still shows the state.
    stale = h.past(flip)
    h.prove("truth_is_a_state", ~g.initialised | legal_codes(truth), lemma=True)
    h.prove("stored_is_true_or_no_state", ~g.initialised | (g.state == truth) | (flipped & upset), sec="SEC-11")
    h.prove("no_upset_no_corruption", flipped | ~upset, lemma=True)
    h.prove("walk_sees_what_is_stored", ~here | walk.boot | (seen == g.state) | (stale & (seen == truth)), lemma=True)
    h.prove(
        "states_change_lawfully",
        ~(g.initialised & written & legal_codes(after)) | (after == truth) | step,
        sec="SEC-04 SEC-11",
    )
    h.prove("upset_page_stays_as_it_is", ~upset | (after == g.state) | stale, sec="SEC-11")
    h.prove("upset_page_is_nobodys", ~(w.active & h.past(w.judging & upset)) | ~(w.normal | w.secure), sec="SEC-11")
    walked = h.inner("engine.seen") & here & (walk.apply | walk.check) & ~walk.boot
    named = (walk.pages.first <= g.page) & (g.page <= walk.pages.last)
    met = walked & named & ~legal_codes(seen)
    h.prove("walk_over_it_raises_the_alarm", ~met | (core.corrupt & (core.corrupt_pfn == g.pfn)), sec="SEC-11")
    h.prove("alarm_names_no_sound_page", ~(core.corrupt & (core.corrupt_pfn == g.pfn)) | flipped, sec="SEC-11")
    h.cover("alarm_by_a_command", met & walk.check)
    h.cover("upset_in_mid_walk", upset & stale & here & (seen == truth))


@proof(reductions=REDUCTIONS, limit=300)
def window(h: Harness) -> None:
    """One bit of either copy of the window flips: seen at once, told once, and no page is found in it any more."""
    g = Management(h, reduced())
    g.build()
    flips = single_upset(h, "window.stored", "window.complement")
    m, core, live = h.m, g.core, g.core.live
    flipped, base, pages, latched = Signal(name="flipped"), Signal.like(live.base), Signal.like(live.pages), Signal()
    m.d.sync += flipped.eq(flipped | flips)
    # The window that was taken over, as long as the copies agree.
    with m.If(~live.corrupt & (live.pages != 0) & ~latched):
        m.d.sync += [latched.eq(1), base.eq(live.base), pages.eq(live.pages)]
    same = (live.base == base) & (live.pages == pages)
    h.prove("an_upset_is_seen_at_once", ~flips | live.corrupt, sec="SEC-11")
    h.prove("alarm_in_the_cycle_of_the_upset", ~flips | core.corrupt, sec="SEC-11")
    h.prove("what_is_believed_is_true", live.corrupt | ~latched | same, sec="SEC-11")
    h.prove(
        "an_upset_of_a_ready_window_is_for_ever",
        ~(core.ready & h.past(live.corrupt & core.ready)) | live.corrupt,
        sec="SEC-11",
    )
    h.prove("no_scrub_by_a_corrupt_window", ~live.corrupt | ~g.write.scrub_aw.valid, sec="SEC-02 SEC-11")
    found = core.probe_decision.valid & (core.probe_decision.result.as_value() == 0) & h.past(g.engine_in("DECODE"))
    h.prove("no_command_finds_a_corrupt_window", ~(h.past(live.corrupt) & found), sec="SEC-05 SEC-11")
    h.prove(
        "a_corrupt_window_never_becomes_ready",
        ~(live.corrupt & h.past(live.corrupt) & core.ready) | h.past(core.ready),
        sec="SEC-11",
    )
    h.prove("ready_only_when_initialised", ~core.ready | flipped | flips | live.initialised, sec="SEC-03")
    h.prove("closed_until_ready", ~core.open | core.ready, sec="SEC-03")
    h.cover("upset_while_ready", flips & core.ready)

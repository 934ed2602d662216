"""The scrubber's share of the write slots: a burst that it asks for is sent in time, whatever else is answered when."""

from amaranth.hdl import Mux, Signal
from amaranth.lib import data

from flexserve_hw.tzasc.lookup import verdict_layout
from tests.formal.harness import Harness, proof
from tests.formal.proofs.write_path import Writes
from tests.formal.reduced import PATH, PATH_REDUCTIONS, TABLES

LONGEST = 4
"""Beats of a burst, by the assumption about masters; memory knows none but those that are announced."""

DUE = (PATH.scrub_share - 1) * PATH.scrub_beats
"""Upstream beats after which a scrub burst is owed."""

MOST_BEFORE = DUE - 1 + LONGEST
"""Upstream beats that may be let in between a scrub burst's request and its address."""

ADDRESSED = PATH.bursts_ahead * LONGEST + PATH.bursts_ahead * PATH.scrub_beats
"""Beats whose addresses are ahead of a scrub burst, at most."""

BEFORE_DATA = PATH.bursts_ahead * LONGEST + PATH.scrub_beats
"""Beats, its own among them, until a scrub burst is sent whose address is on its way."""


@proof(induction=True, depth=2, cover_depth=14, reductions=PATH_REDUCTIONS, variants=TABLES)
def share(h: Harness, at_once: bool) -> None:
    """A scrub burst waits for no answer: in so many cycles in which a beat is offered and memory takes it, it is sent.

    Time counts in the cycles in which memory takes what it is offered and a master offers the beat that is next, or the
    scrubber's own is. Nothing is assumed of answers: neither that memory gives them, nor that masters take them.
    """
    writes = Writes(h, at_once)
    m, path, scrub = h.m, writes.path, writes.scrub
    route, source = writes.made.queues["route"], writes.made.queues["source"]
    beat, scrub_beat, owed = h.inner("beat"), h.inner("scrub_beat"), h.inner("owed")
    judged = data.View(verdict_layout(PATH.bus.axi4.shape), h.inner("lookup.verdict__payload")).request
    length = [route[n][1:9] for n in range(PATH.bursts_ahead)]
    there = [route.level > n for n in range(PATH.bursts_ahead)]
    h.prove("judged_bursts_are_short", ~h.inner("lookup.taken") | (judged.len < LONGEST), lemma=True)
    for n in range(PATH.bursts_ahead):
        h.prove(f"routed_burst_is_short{n}", ~there[n] | (length[n] < LONGEST), lemma=True)
    h.prove("beat_is_one_of_the_burst", ~there[0] | (beat <= length[0]), lemma=True)

    # Beats to come, in the order in which they go.
    upstream = [Mux(there[n], length[n] + 1 - (beat if n == 0 else 0), 0) for n in range(PATH.bursts_ahead)]
    scrubs = [(source.level > n) & source[n][0] for n in range(PATH.bursts_ahead)]
    h.prove("scrub_bursts_are_counted", h.inner("ahead") == sum(scrubs), lemma=True)
    own = [Mux(s, PATH.scrub_beats - (scrub_beat if n == 0 else 0), 0) for n, s in enumerate(scrubs)]
    offered = path.down_w.ready & (path.up_w.valid | scrubs[0])

    # From its address on: what its beats come after, in the source and, if that is an upstream burst, in the route.
    first_allowed = Mux(route[0][0], upstream[0], upstream[0] + upstream[1])
    rest = Mux(scrub.ahead == 0, own[0], PATH.scrub_beats + Mux(scrubs[0], own[0], first_allowed))
    age = Signal(range(64), name="cycles_since_its_address")
    m.d.sync += age.eq(Mux(scrub.due & ~scrub.begins, age + offered, 0))
    h.prove("each_beat_offered_brings_it_nearer", ~scrub.due | (age + rest <= BEFORE_DATA), lemma=True)
    h.prove("scrub_burst_is_sent_in_time", ~scrub.due | (age < BEFORE_DATA), sec="SEC-07")

    # Before: from the request to the address.
    waits = path.scrub_aw.valid & ~path.scrub_aw.ready
    let_in = Signal(range(64), name="beats_let_in")
    grants = Mux(path.allow | path.deny, judged.len + 1, 0)
    m.d.sync += let_in.eq(Mux(waits, let_in + grants, 0))
    h.prove("owed_is_limited", owed <= MOST_BEFORE, lemma=True)
    h.prove("what_is_let_in_is_owed", let_in <= owed, lemma=True)
    h.prove("upstream_beats_let_in_before_a_scrub_burst_are_limited", let_in <= MOST_BEFORE, sec="SEC-07")
    took = ~h.past(path.down_aw.valid & ~path.down_aw.ready)
    h.prove("address_waits_in_the_buffer", h.inner("aw_buffer.full") == ~took, lemma=True)
    # What comes to an empty path has its first beat a cycle later: a burst let in may take one more than its beats.
    left = sum(upstream) + sum(own) + 2 * (MOST_BEFORE - owed)
    asked = Signal(range(64), name="cycles_since_its_request")
    m.d.sync += asked.eq(Mux(waits, asked + (offered & took), 0))
    most = ADDRESSED + 2 * MOST_BEFORE
    h.prove("each_beat_offered_brings_its_turn_nearer", ~path.scrub_aw.valid | (asked + left <= most), lemma=True)
    h.prove("scrub_burst_gets_its_turn_in_time", ~waits | (asked < most), sec="SEC-07")

    denied = writes.made.queues["denied"]
    stuck = (denied.level == PATH.denied_writes) & ~path.up_b.valid
    ends = scrub.turn & scrub.last & path.down_w.ready
    h.cover("scrub_burst_is_sent_while_denied_writes_wait_for_memory", ends & stuck)
    untaken = path.up_b.valid & ~path.up_b.ready
    h.cover("scrub_burst_is_sent_while_a_master_takes_no_answer", ends & untaken & h.past(untaken))
    h.cover("scrub_burst_is_overdue", waits & (owed >= DUE))


"""Bounded recall: grace periods end on time, and pages are scrubbed in time, whatever the secure world does."""

from amaranth.hdl import Cat, Mux, Signal

from flexserve_hw.tzasc.commands import Work
from flexserve_hw.tzasc.drain import Wait
from flexserve_sw.regs import RecallState
from tests.formal.harness import Harness, proof
from tests.formal.invariants import Slots, Walk
from tests.formal.management import REDUCTIONS, Management, reduced, scanned

S = RecallState


class Clocks:
    """Timers of the recalled pages, with the invariants that tie them to the table."""

    def __init__(self, g: Management, walk: Walk, states: list):
        h, core, inner = g.h, g.core, g.h.inner
        recalls = walk.apply & walk.command & (core.probe_page.state.as_value() == S.RECALLING)
        position = Mux(walk.reads, walk.at, walk.cursor)
        self.recalled = []
        for page, state in enumerate(states):
            named = (walk.pages.first <= page) & (page <= walk.pages.last)
            # A timer runs from before the first page of its range is written.
            coming = recalls & named & ((page >> g.shift) >= position)
            known = g.initialised & (page < core.live.pages)
            self.recalled.append((known & g.is_in(state, S.RECALLING)) | coming)
        covers = []
        for n in range(g.params.timers):
            running, pages = core.running[n], core.ranges[n]
            inside = Cat(running & (pages.first <= page) & (page <= pages.last) for page in range(len(states)))
            covers.append(inside)
            there = sum((inside[page] & recalled) for page, recalled in enumerate(self.recalled))
            h.prove(
                f"timer{n}_counts_its_pages", ~running | (inner(f"engine.timers.recalling{n}") == there), lemma=True
            )
            h.prove(f"timer{n}_has_pages", ~running | (there != 0), lemma=True)
            h.prove(f"timer{n}_is_in_order", ~running | (pages.first <= pages.last), lemma=True)
        h.prove("timers_do_not_overlap", ~(covers[0] & covers[1]).any(), lemma=True)
        covered = covers[0] | covers[1]
        for page, recalled in enumerate(self.recalled):
            h.prove(f"page{page}_has_a_timer", ~recalled | covered[page], lemma=True)
        self.covers = covers


def census(g: Management, states: list):
    """Pages of the window in FLEX or RECALLING, and in SCRUBBING."""
    lent = sum((page < g.core.live.pages) & g.is_in(state, S.FLEX, S.RECALLING) for page, state in enumerate(states))
    backlog = sum((page < g.core.live.pages) & g.is_in(state, S.SCRUBBING) for page, state in enumerate(states))
    return lent, backlog


@proof(reductions=REDUCTIONS, limit=400)
def counts(h: Harness) -> None:
    """The counts that software reads are those of the table; every page in RECALLING has one timer that runs."""
    g = Management(h, reduced())
    states = [g.view(page, f"state{page}") for page in range(g.params.pages)]
    g.build()
    walk = Walk(g)
    walk.lemmas(h, g)
    for page, state in enumerate(states):
        here = walk.reads & (walk.at == page >> g.shift)
        h.prove(f"walk_sees_page{page}", ~here | (g.code_in(g.core.table.walk.data, page) == state), lemma=True)
        h.prove(
            f"page{page}_is_legal", ~g.initialised | (page >= g.core.live.pages) | g.is_in(state, *_ALL), lemma=True
        )
    Clocks(g, walk, states)
    lent, backlog = census(g, states)
    h.prove("lent_pages_are_counted", ~g.initialised | (g.core.lent == lent), sec="SEC-07")
    h.prove("pages_to_scrub_are_counted", ~g.initialised | (g.core.backlog == backlog), sec="SEC-07")
    timed = [
        g.core.running[n] & (g.core.ranges[n].first <= g.page) & (g.page <= g.core.ranges[n].last) for n in range(2)
    ]
    recalled = g.initialised & g.is_in(g.state, S.RECALLING)
    h.prove("recalled_page_has_one_timer", ~recalled | (timed[0] ^ timed[1]), sec="SEC-07")
    # The grace period: started with what was granted, counted down by one in every cycle.
    left = Mux(timed[0], g.core.left[0], g.core.left[1])
    h.prove(
        "grace_counts_down",
        ~(recalled & h.past(recalled)) | (left == h.past(left) - 1) | ((left == 0) & (h.past(left) == 0)),
        sec="SEC-07",
    )
    granted = h.past(g.core.grace)
    h.prove(
        "no_more_grace_than_granted",
        ~(g.core.running[0] & ~h.past(g.core.running[0])) | (g.core.left[0] == granted),
        sec="SEC-07",
    )
    h.cover("two_timers_run", g.core.running[0] & g.core.running[1])
    h.cover("both_late", g.core.running[0] & g.core.running[1] & (g.core.left[0] == 0) & (g.core.left[1] == 0))


_ALL = tuple(s for s in S if s is not S.CORRUPT)
ACCESS, ANSWERED, TAKEN = 4, 2, 1
"""Cycles within which the environment answers an access, answers a scrub burst, and takes a scrub burst's address.

Only with four for an access can a page enter SCRUBBING, and be picked, before the drain of an earlier change is over.
"""


@proof(reductions=REDUCTIONS, limit=900)
def bound(h: Harness) -> None:
    """Grace periods end on time; each step of the way back that a page takes then ends in time."""
    g = Management(h, reduced())
    states = [g.view(page, f"state{page}") for page in range(g.params.pages)]
    g.build()
    walk, slots = Walk(g), Slots(g)
    walk.lemmas(h, g)
    m, core, p = h.m, g.core, g.params
    for page, state in enumerate(states):
        here = walk.reads & (walk.at == page >> g.shift)
        h.prove(f"walk_sees_page{page}", ~here | (g.code_in(core.table.walk.data, page) == state), lemma=True)
        h.prove(f"page{page}_is_legal", ~g.initialised | (page >= core.live.pages) | g.is_in(state, *_ALL), lemma=True)
    clocks = Clocks(g, walk, states)
    lent, backlog = census(g, states)
    h.prove("census", ~g.initialised | ((core.lent == lent) & (core.backlog == backlog)), lemma=True)
    draining = h.inner("drain.draining")
    old = Mux(g.epoch, g.counts[0][0] | g.counts[1][0], g.counts[0][1] | g.counts[1][1])

    def within(name: str, waits, limit: int) -> None:
        """The environment lets nothing wait for longer."""
        age = Signal(range(limit + 2), name=f"{name}_age")
        m.d.sync += age.eq(Mux(waits, age + 1, 0))
        h.assume(f"{name}_in_time", ~(waits & (age == limit)))

    within("access", draining & (old != 0), ACCESS)
    within("scrub_address", g.write.scrub_aw.valid & ~g.write.scrub_aw.ready, TAKEN)
    for n, owed in enumerate(g.unanswered):
        within(f"scrub_answer{n}", (owed != 0) & ~(g.write.scrub_b.valid & (g.write.scrub_b.id == n)), ANSWERED)
    h.assume("memory_takes_zeros", ~g.write.scrub_b.valid | g.write.scrub_b.okay)
    h.assume("reports_are_read", core.pop)
    h.assume("grace_within_limits", core.grace <= p.grace_max)

    # One page more waits than the symbolic one: what the engine may still have to do for it comes first.
    other = Mux(g.page[0], states[0], states[1])
    for page, state in enumerate(states):
        known = g.initialised & g.is_in(state, S.SCRUBBING)
        mine = [busy & (owned == page) for busy, owned in zip(slots.busy, slots.pages, strict=True)]
        picked = h.inner("scrubber.picked") & (h.inner("scrubber.page") == page)
        looked = scanned(h, page >> g.shift)
        h.prove(f"page{page}_is_in_one_place", ~((mine[0] & mine[1]) | (picked & (mine[0] | mine[1]))), lemma=True)
        h.prove(f"page{page}_at_work_is_to_be_scrubbed", ~(mine[0] | mine[1] | picked) | known, lemma=True)
        seen = g.code_in(core.table.scan.data, page)
        h.prove(f"scan_sees_page{page}", ~looked | (seen == state), lemma=True)
    finishing = slots.held & (slots.held_page == walk.pages.first) & (walk.pages.first == walk.pages.last)
    h.prove("finished_page_is_in_a_slot", ~walk.finish | finishing, lemma=True)
    expiring = walk.apply & (walk.work == Work.EXPIRE)
    words = p.pages // p.group
    command, expiry, finish = 2 * words + 5, words + 2, 3
    most = command + finish * (p.pages - 1) + expiry * p.timers
    recalled = g.initialised & g.is_in(g.state, S.RECALLING)
    own = [core.running[n] & (core.ranges[n].first <= g.page) & (g.page <= core.ranges[n].last) for n in range(2)]
    over = recalled & Cat(own[n] & (core.left[n] == 0) for n in range(2)).any()
    late = Signal(8, name="cycles_late")
    m.d.sync += late.eq(Mux(over, late + (late != 255), 0))
    # Cycles that the engine still needs, state by state, until it has written the page.
    length = walk.last - walk.first + 2
    rest = Mux(walk.reads, walk.last - walk.at + 1, length)
    named = (walk.pages.first <= g.page) & (g.page <= walk.pages.last)
    before = Mux(walk.reads, (g.page >> g.shift) - walk.at + 1, (g.page >> g.shift) - walk.first + 2)
    # A range may hold pages that left RECALLING before, and its timer end before the walk; but never before the page.
    h.prove("expiry_takes_what_it_passes", ~(expiring & named & recalled) | walk.ahead, lemma=True)
    scrubbed, grace = g.is_in(other, S.SCRUBBING), g.is_in(other, S.RECALLING)
    owed = expiry + Mux(grace, expiry + finish, Mux(scrubbed, finish, 0))
    any_owed = expiry + expiry + finish
    needs = Signal(8, name="cycles_needed")
    with m.If(g.engine_in("IDLE")):
        m.d.comb += needs.eq(owed)
    with m.Elif(g.engine_in("DECODE")):
        m.d.comb += needs.eq(2 * words + 4 + any_owed)
    with m.Elif(g.engine_in("CHECK")):
        m.d.comb += needs.eq(rest + 1 + length + any_owed)
    with m.Elif(g.engine_in("CLAIM")):
        m.d.comb += needs.eq(1 + length + any_owed)
    with m.Elif(g.engine_in("REFUSE")):
        m.d.comb += needs.eq(1 + owed)
    with m.Elif(walk.finish):
        m.d.comb += needs.eq(rest + expiry)
    with m.Elif(expiring & named):
        m.d.comb += needs.eq(before)
    with m.Elif(expiring):
        m.d.comb += needs.eq(rest + finish + expiry)
    with m.Else():
        m.d.comb += needs.eq(rest + any_owed)
    h.prove("engine_keeps_up", ~over | (late + needs <= most), lemma=True)
    h.prove("grace_ends_in_time", late <= command + expiry, sec="SEC-07")

    plain = _plain(h, g)

    def lasts(name: str, condition, limit: int, seen: int) -> Signal:
        """What is claimed to be over after so many cycles; that it may take ``seen`` of them is covered."""
        age = Signal(8, name=f"{name}_lasts")
        m.d.sync += age.eq(Mux(condition, age + (age != 255), 0))
        h.prove(name, age <= limit, sec="SEC-07")
        h.cover(f"{name}_after_{seen}", plain & (age == seen))
        return age

    wait = h.inner("scrubber.wait")
    drained_for = lasts("an_old_epoch_drains_in_time", draining, ACCESS + 1, ACCESS + 1)
    for n in range(p.scrub_slots):
        sending = slots.busy[n] & slots.sending & (slots.slot == n)
        lasts(f"slot{n}_sends_in_time", sending, g.bursts * (TAKEN + 1), g.bursts * (TAKEN + 1))
        waits = slots.busy[n] & ~sending & (slots.answers[n] != g.bursts)
        lasts(f"slot{n}_is_answered_in_time", waits, g.bursts * (ANSWERED + 1) - 1, g.bursts * (ANSWERED + 1) - 1)
        lasts(f"slot{n}_is_finished_in_time", slots.complete[n], command, command)
    picked = h.inner("scrubber.picked") & (wait != Wait.NOTHING)
    age = lasts("a_picked_page_is_drained_in_time", picked, 2 * ACCESS + words + 1, 7)
    # A change comes two cycles after a flip at the earliest, so the older drain is far by the time of the pick.
    wanted, walks = h.inner("drain.wanted"), h.inner("engine.hold") & walk.reads
    flips, drains = picked & (wait == Wait.FLIP), picked & (wait == Wait.DRAINED)
    h.prove("no_change_at_the_flip", ~(draining & walks) | (drained_for >= 1), lemma=True)
    h.prove("next_change_is_late", ~(draining & wanted) | (drained_for >= 2), lemma=True)
    h.prove("waits_for_a_drain", (wait != Wait.DRAINED) | draining, lemma=True)
    h.prove("waits_for_a_flip", (wait != Wait.FLIP) | wanted, lemma=True)
    h.prove("nothing_picked_waits_for_nothing", h.inner("scrubber.picked") | (age == 0), lemma=True)
    h.prove("older_drain_is_far", ~(flips & draining) | (drained_for >= age + 3), lemma=True)
    # Then only a walk holds the flip, and the flip comes between two walks.
    holds, held = flips & ~draining & h.inner("engine.hold"), Signal(8, name="flip_is_held_for")
    m.d.sync += held.eq(Mux(holds, held + (held != 255), 0))
    h.prove("walk_ends_in_time", ~holds | (held + rest <= words + 1), lemma=True)
    h.prove("hold_ends_in_time", held <= words + 1, lemma=True)
    h.prove("flip_is_near", ~(flips & ~draining) | (age <= ACCESS - 2 + held), lemma=True)
    h.prove("drain_is_near", ~drains | (age <= ACCESS + words + drained_for), lemma=True)
    placed = h.inner("scrubber.picked") & (h.inner("scrubber.page") == g.page)
    at_work = slots.mine[0] | slots.mine[1]
    begins = placed & (wait == Wait.NOTHING) & core.ready
    lasts("a_drained_page_begins_in_time", begins, g.bursts * (TAKEN + 1) - 2, 1)
    lost = g.is_in(g.state, S.SCRUBBING) & core.ready & ~placed & ~at_work
    ahead = 2 * (ACCESS + 2) + words + 1 + g.bursts * (TAKEN + 1) + 2
    lasts("a_page_to_scrub_is_found_in_time", lost, ahead + 4 * words + 2, 4)
    h.cover("late_by_a_command", plain & (late == command))
    h.cover("picked_page_waits_for_two_drains", plain & picked & (wait == Wait.FLIP) & draining)
    _ = clocks


def _plain(h: Harness, g: Management):
    """Whether the environment was kind so far in what covers need not try: engines reach deep covers sooner for it."""
    core = g.core
    quiet = ~Cat(*g.accept, *(port.start for port in core.commands)).any() & g.write.scrub_aw.ready
    now, before = Signal(name="plain"), Signal(init=1, name="plain_so_far")
    kind = [core.enable, core.gate, core.base == 0, core.pages == g.params.pages, ~core.locked, core.ready | quiet]
    kind += [(port.first < g.params.pages) & (port.count <= g.params.pages) for port in core.commands]
    h.m.d.comb += now.eq(before & Cat(kind).all())
    h.m.d.sync += before.eq(now)
    return now

"""Commands: states change as the golden table says, ranges as a whole, and the first page that offends is named."""

from amaranth.hdl import Cat, Mux, Signal

from flexserve_hw.tzasc.commands import Work
from flexserve_hw.tzasc.rules import CommandCheck
from flexserve_sw.machine import World
from flexserve_sw.recall import TRANSITIONS
from flexserve_sw.regs import RecallCommand, RecallResult, RecallState
from tests.formal.harness import Harness, proof
from tests.formal.invariants import Given, Walk
from tests.formal.management import CODES, REDUCTIONS, VARIANTS, Management, reduced

S, C, R = RecallState, RecallCommand, RecallResult


@proof(reductions=REDUCTIONS, variants=VARIANTS, limit=400)
def commands(h: Harness, **params: int) -> None:
    """States change by the golden table; a command changes each page of its range once, or none and tells why."""
    g = Management(h, reduced(**params))
    g.build()
    walk, given = Walk(g), [Given(g, n) for n in range(2)]
    walk.lemmas(h, g)
    core, inner, m = g.core, h.inner, h.m
    locked = h.past(core.locked)
    h.assume("lock_holds_until_reset", ~locked | core.locked)
    after = Signal(len(CODES), name="state_after")
    m.d.comb += after.eq(g.changed_to())
    changes = g.initialised & (after != g.state)

    # What the engine works at is what the frame gave.
    frame, pending = core.probe_decision.frame, inner("engine.pending")
    sources, target = inner("engine.sources"), core.probe_page.state.as_value()
    window = core.live
    deciding = g.engine_in("CHECK", "CLAIM") | (walk.apply & walk.command)
    for n, command in enumerate(given):
        mine = deciding & (frame == n)
        h.prove(
            f"frame{n}_is_busy_at_work",
            ~(g.engine_in("DECODE", "REFUSE") | deciding) | (frame != n) | pending[n],
            lemma=True,
        )
        right = (walk.pages.first + window.base == command.first) & (
            walk.pages.last + window.base + 1 == command.beyond
        )
        h.prove(f"range_of_frame{n}", ~mine | (right & (walk.pages.last < window.pages)), lemma=True)
        known = [
            (command.code == code) & (sources == sum(CODES[s] for s in starts)) & (target == leads)
            for code, (world, starts, leads) in TRANSITIONS.items()
            if world is command.world
        ]
        permitted = known[0]
        for one in known[1:]:
            permitted = permitted | one
        h.prove(f"rule_of_frame{n}", ~mine | permitted, lemma=True)

    expiring = walk.apply & (walk.work == Work.EXPIRE)
    by_command = Signal(name="changed_by_command")
    legal = [command.port.busy & command.holds_page & command.allows(g, g.state, after) for command in given]
    m.d.comb += by_command.eq(changes & ~walk.finish & ~expiring)
    late = [
        core.running[n] & (core.left[n] == 0) & (core.ranges[n].first <= g.page) & (g.page <= core.ranges[n].last)
        for n in range(g.params.timers)
    ]
    overdue = late[0]
    for one in late[1:]:
        overdue = overdue | one
    h.prove("commands_change_by_the_golden_table", ~by_command | legal[0] | legal[1], sec="SEC-04 SEC-05")
    ended = g.is_in(g.state, S.RECALLING) & g.is_in(after, S.SCRUBBING) & overdue
    h.prove("grace_ends_when_it_is_over", ~(changes & expiring) | ended, sec="SEC-04 SEC-07")
    freed = g.is_in(g.state, S.SCRUBBING) & g.is_in(after, S.NORMAL)
    h.prove("scrubbed_pages_return", ~(changes & walk.finish) | freed, sec="SEC-04")
    h.prove(
        "lent_only_by_acceptance",
        ~(changes & g.is_in(after, S.FLEX))
        | (g.is_in(g.state, S.DELEGATED) & given[1].port.busy & (given[1].code == C.ACCEPT) & given[1].holds_page),
        sec="SEC-04",
    )
    h.prove(
        "sealed_only_before_the_lock",
        ~(changes & g.is_in(after, S.SEALED)) | ~locked | given[1].port.busy,
        sec="SEC-08",
    )
    h.prove("sealed_for_ever", ~(g.initialised & g.is_in(g.state, S.SEALED)) | ~changes, sec="SEC-04")

    decision = core.probe_decision
    hit = Signal(name="page_was_changed")
    with m.If(decision.valid):
        m.d.sync += hit.eq(0)
    with m.Elif(by_command):
        m.d.sync += hit.eq(1)
    h.prove("changed_once_at_most", ~(hit & by_command), sec="SEC-05")
    h.prove("changed_while_at_work", ~hit | (walk.apply & walk.command), lemma=True)
    changed = hit | by_command
    okay = decision.result.as_value() == R.OK
    h.prove(
        "written_pages_are_those_behind",
        ~(walk.apply & walk.command)
        | (hit == (~walk.ahead & (walk.pages.first <= g.page) & (g.page <= walk.pages.last))),
        lemma=True,
    )
    for n, command in enumerate(given):
        mine = decision.valid & (decision.frame == n)
        h.prove(f"frame{n}_accepted_changes_its_range", ~(mine & okay) | (changed == command.holds_page), sec="SEC-05")
        h.prove(f"frame{n}_refused_changes_nothing", ~(mine & ~okay) | ~changed, sec="SEC-05")
        bad = h.past(mine & (decision.result.as_value() == R.BAD_STATE))
        offender = command.port.offender
        before, held = h.past(command.starts_from(g, g.state)), h.past(command.holds_page)
        blamed = ~(offender == command.pfn) | (held & ~before)
        innocent = ~(held & (command.pfn < offender)) | before
        h.prove(f"frame{n}_blames_the_first_offender", ~bad | (blamed & innocent), sec="SEC-05")
        in_range = (core.live.base <= command.first) & (command.beyond <= core.live.base + core.live.pages)
        known = mine & ~h.past(0)
        h.prove(
            f"frame{n}_accepts_only_its_window",
            ~(known & okay) | (core.ready & in_range & (command.first < command.beyond)),
            sec="SEC-05",
        )
        h.cover(f"frame{n}_refused_for_a_state", bad & (offender != h.past(command.first)))
    for state in (S.DELEGATED, S.FLEX, S.RECALLING, S.SCRUBBING, S.SEALED, S.NORMAL):
        h.cover(f"becomes_{state.name.lower()}", changes & g.is_in(after, state))
    h.cover("two_frames_at_once", given[0].taken & given[1].taken & core.ready)
    release = given[1].port.busy & (given[1].code == C.RELEASE) & given[1].holds_page
    h.cover("grace_ends_while_release_waits", changes & expiring & release)
    h.cover("release_in_the_cycle_of_expiry", by_command & g.is_in(g.state, S.RECALLING) & overdue)


@proof(reductions={}, limit=120)
def range_check(h: Harness) -> None:
    """With ranges of full width: a command begins only if it is known, its frame's, and wholly in the window."""
    p = reduced()
    dut = CommandCheck(params=p)
    h.dut(dut)
    h.drive(dut, "in")
    h.assume("window_is_sound", (dut.window.pages <= p.pages) & (dut.window.base + dut.window.pages <= 8))
    rules = [
        (dut.code == code) & (dut.frame == (world is World.SECURE)) & ~(dut.locked & (code is C.SEAL))
        for code, (world, _, _) in TRANSITIONS.items()
    ]
    okay = dut.result.as_value() == R.OK
    first, beyond, end = Signal(40), Signal(40), Signal(40)
    h.m.d.comb += [first.eq(dut.first), beyond.eq(dut.first + dut.count), end.eq(dut.window.base + dut.window.pages)]
    inside = (dut.window.base <= first) & (beyond <= end) & (dut.count != 0) & dut.ready
    h.prove("begins_exactly_if_permitted_and_inside", okay == (Cat(rules).any() & inside), sec="SEC-04 SEC-05 SEC-08")
    right = (dut.range.first + dut.window.base == first) & (dut.range.last + dut.window.base + 1 == beyond)
    h.prove("range_is_that_of_the_frame", ~okay | right, sec="SEC-05")
    outside = dut.result.as_value() == R.OUT_OF_WINDOW
    first_outside = Mux(dut.ready & (dut.window.base <= first) & (first < end) & (dut.count != 0), end, first)
    h.prove("first_page_outside_is_named", ~outside | (dut.offender == first_outside[:32]), sec="SEC-05")
    for code, (_, sources, target) in TRANSITIONS.items():
        states = (dut.sources == sum(CODES[s] for s in sources)) & (dut.target.as_value() == target)
        h.prove(f"golden_rule_of_{code.name.lower()}", ~(okay & (dut.code == code)) | states, sec="SEC-04")
    h.cover("range_to_the_end", okay & (beyond == end) & (dut.count == 2))
    h.cover("range_that_wraps", outside & (dut.first + dut.count > 0xFFFFFFFF))

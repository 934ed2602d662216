"""NPU gate: it follows the golden table in every cycle, hands over in order and in time, and fails closed."""

from amaranth.hdl import Cat, Mux, Signal

from flexserve_hw.gate import GateState, NpuGate
from flexserve_sw.machine import World
from flexserve_sw.recall import TRANSITIONS
from flexserve_sw.regs import RecallCommand, RecallResult, RecallState
from tests.formal.gate_model import GoldenGate
from tests.formal.harness import Harness, proof
from tests.formal.upset import any_start, single_upset

GRACE = {"grace_min": 2, "grace_max": 5}
STORED = {
    RecallState.NORMAL: GateState.NORMAL,
    RecallState.DELEGATED: GateState.DELEGATED,
    RecallState.FLEX: GateState.FLEX,
    RecallState.RECALLING: GateState.RECALLING,
    RecallState.SEALED: GateState.SEALED,
}
LEADS_TO = {
    RecallState.NORMAL: GateState.RETURNING,
    RecallState.DELEGATED: GateState.LENDING,
    RecallState.SEALED: GateState.SEALING,
}
RETURNS = (RecallState.RECALLING, RecallState.SCRUBBING, RecallState.NORMAL)
REDUCTIONS = {
    "grace period of 2 to 5 cycles": "the limits are constants in one clamp; both ends and what lies between are there",
}


def _gate(h: Harness) -> NpuGate:
    """A gate with every input free: two frames that take any request in any cycle, an NPU that answers as it likes."""
    gate = h.dut(NpuGate(**GRACE))
    h.drive(gate, "gate")
    return gate


def _golden(h: Harness, gate: NpuGate, start=0) -> GoldenGate:
    finished = [h.inner(f"finished_{i}") for i in range(2)]
    signals = {"decided": h.inner("decided"), "turn": h.inner("turn"), "finished": finished}
    return GoldenGate(h.m, gate, **signals, **GRACE, start=start)


def _lemmas(h: Harness, golden: GoldenGate) -> None:
    """How what the gate stores hangs together with the model: what makes the claims inductive."""
    expected = Signal(len(GateState))
    with h.m.Switch(golden.state):
        for reported, stored in STORED.items():
            with h.m.Case(reported):
                h.m.d.comb += expected.eq(stored.value)
        with h.m.Case(RecallState.SCRUBBING):
            with h.m.Switch(golden.goal):
                for goal, stored in LEADS_TO.items():
                    with h.m.Case(goal):
                        h.m.d.comb += expected.eq(stored.value)
            with h.m.If(golden.boot):
                h.m.d.comb += expected.eq(GateState.BOOT.value)
    recalling = golden.state == RecallState.RECALLING
    engine = h.inner("engine_state")
    for name, condition in {
        "stored_state": h.inner("_state") == expected,
        "sound": ~h.inner("_corrupt"),
        "grace_left": ~recalling | (h.inner("_left") + golden.age == golden.period),
        "verdict": ~golden.decided | (h.inner("verdict") == golden.verdict),
        "judged": golden.judged == (engine >= 2),
        "turn": (engine == 0) | golden.pending,
        "result": ~golden.judged | (h.inner("outcome") == golden.pending_result),
        "waits": (golden.awaits[0] | golden.awaits[1]) == ((engine == 3) & (golden.state == RecallState.SCRUBBING)),
        "scrubs": ~h.inner("scrubbing") | golden.seen_drained,
    }.items():
        h.prove(f"lemma_{name}", condition, lemma=True)


@proof(reductions=REDUCTIONS)
def gate_is_golden(h: Harness) -> None:
    """State, verdicts, tickets, interrupts and every register are those of the golden table, in every cycle."""
    gate = _gate(h)
    golden = _golden(h, gate)
    h.prove("state_is_golden", gate.state.as_value() == golden.state, sec="SEC-05", lemma=True)
    _lemmas(h, golden)
    h.prove("ticket_is_golden", gate.ticket == golden.issued, sec="SEC-10")
    h.prove("normal_is_live_as_the_table_says", gate.live_normal == golden.access(World.NORMAL), sec="SEC-10")
    h.prove("secure_is_live_as_the_table_says", gate.live_secure == golden.access(World.SECURE), sec="SEC-03")
    h.prove("managers_are_golden", gate.managers == golden.managers, sec="SEC-08")
    h.prove("judged_command_is_pending", ~golden.decided | (golden.pending & ~golden.judged))
    h.prove("expiry_goes_first", ~(golden.decided & golden.expired), sec="SEC-07")
    for i, bus in enumerate((gate.frame_n, gate.frame_s)):
        done = golden.judged & (golden.turn == i) & ~golden.awaits.any()
        h.prove(f"command_of_{i}_is_reported_when_done", ~golden.finished[i] | done, sec="SEC-06")
        frame = golden.frames[i]
        word, error = Signal(32, name=f"word_{i}"), Signal(name=f"error_{i}")
        asked = h.past(bus.valid)
        h.m.d.sync += [word.eq(0), error.eq(1)]
        for address, value in golden.words(i).items():
            with h.m.If(frame.at(address)):
                h.m.d.sync += [word.eq(Mux(bus.write | frame.refused, 0, value)), error.eq(frame.refused)]
        h.prove(f"answers_of_{i}_are_golden", ~asked | ((bus.rdata == word) & (bus.error == error)), sec="SEC-08")
    for name, irq, frame in (("normal", gate.irq_n, golden.normal), ("secure", gate.irq_s, golden.secure)):
        h.prove(f"{name}_interrupt_is_golden", irq == (frame.status & frame.enabled).any())
    _covers(h, golden)


def _covers(h: Harness, golden: GoldenGate) -> None:
    """Every transition of the table and every refusal is reachable."""
    for code in TRANSITIONS:
        h.cover(f"applied_{code.name}", golden.applied & (golden.code == code))
    for result in RecallResult:
        if result not in (RecallResult.NO_SLOT, RecallResult.CORRUPT_STATE):
            h.cover(f"answer_{result.name}", golden.decided & (golden.verdict == result))
    for goal in LEADS_TO:
        h.cover(f"scrubbed_to_{goal.name}", golden.clean & (golden.goal == goal) & ~golden.boot)
    seals = golden.applied & (golden.code == RecallCommand.SEAL)
    h.cover("sealed_from_flex", seals & (golden.state == RecallState.FLEX))
    h.cover("expired", golden.expired)
    h.cover("second_ticket_accepted", (golden.issued == 2) & (golden.state == RecallState.FLEX))
    old = (golden.code == RecallCommand.ACCEPT) & (golden.verdict == RecallResult.BAD_TICKET)
    h.cover("old_ticket_refused", golden.decided & old & (golden.issued == 2) & (golden.secure.ticket == 1))


@proof(reductions=REDUCTIONS)
def gate_hands_over(h: Harness) -> None:
    """The secure bit flips only after drain and scrub, in that order; said of the ports alone, without the model."""
    gate = _gate(h)
    live = gate.live_normal | gate.live_secure
    secure, lived = h.past(gate.secure), h.past(live)
    drained, scrubbed = Signal(), Signal()
    # In the hand-over that is underway the NPU was drained; nobody had access since the last scrub.
    h.m.d.sync += drained.eq(gate.drain & (drained | gate.drained) & ~(gate.scrub & gate.scrubbed))
    with h.m.If(gate.scrub & gate.scrubbed):
        h.m.d.sync += scrubbed.eq(1)
    with h.m.Elif(live):
        h.m.d.sync += scrubbed.eq(0)
    h.prove("one_frame_is_live_at_most", ~(gate.live_normal & gate.live_secure), sec="SEC-09 SEC-10")
    h.prove("secure_frame_lives_under_the_secure_bit", ~gate.live_secure | gate.secure, sec="SEC-09 SEC-10")
    h.prove("normal_frame_lives_without_the_secure_bit", ~(gate.live_normal & gate.secure), sec="SEC-09 SEC-10")
    h.prove("no_frame_lives_in_a_hand_over", ~(gate.drain & live), sec="SEC-09 SEC-10")
    h.prove("scrub_follows_the_drain", ~gate.scrub | (gate.drain & drained), sec="SEC-09")
    flips = gate.secure != secure
    h.prove("secure_bit_flips_over_a_clean_npu", ~flips | scrubbed, sec="SEC-09")
    h.prove("secure_bit_stands_while_a_frame_lives", ~(flips & lived), sec="SEC-09 SEC-10")
    owner = Signal()
    with h.m.If(live):
        h.m.d.sync += owner.eq(gate.live_secure)
    lived_once = Signal()
    h.m.d.sync += lived_once.eq(lived_once | live)
    changes = live & lived_once & (gate.live_secure != owner)
    h.prove("owner_changes_over_a_clean_npu", ~changes | scrubbed, sec="SEC-09")
    h.cover("npu_becomes_secure", changes & gate.secure)
    h.cover("npu_becomes_normal", changes & ~gate.secure)


@proof(reductions=REDUCTIONS)
def gate_keeps_schedules(h: Harness) -> None:
    """Tickets rise by one per lending, from any of 2**32 on; nothing but the right ticket gives or ends access."""
    gate = _gate(h)
    # A run from reset would have to lend thousands of times before upper bits of tickets differ.
    golden = _golden(h, gate, any_start(h, "_ticket"))
    h.prove("state_is_golden", gate.state.as_value() == golden.state, lemma=True)
    _lemmas(h, golden)
    ticket, state = h.past(gate.ticket), h.past(gate.state.as_value(), init=RecallState.SCRUBBING)
    now = gate.state.as_value()
    lends = h.past(golden.applied & (golden.code == RecallCommand.DELEGATE))
    h.prove("ticket_rises_by_one_per_lending", ~h.started | (gate.ticket == (ticket + lends)[:32]), sec="SEC-10")
    accepted = (now == RecallState.FLEX) & (state != RecallState.FLEX)
    quoted, at_hand = h.past(golden.secure.ticket), h.past(gate.ticket)
    h.prove("access_needs_the_present_ticket", ~accepted | (quoted == at_hand), sec="SEC-04 SEC-10")
    lost = h.past(gate.live_secure) & ~gate.live_secure
    recalled = h.past(golden.expired)
    h.prove("access_ends_by_release_with_the_ticket_or_expiry", ~lost | recalled | (quoted == at_hand), sec="SEC-10")
    by_normal = golden.decided & ~golden.turn
    lent = golden.access(World.SECURE)
    only = (golden.code == RecallCommand.RECALL) & (golden.state == RecallState.FLEX)
    h.prove("normal_world_can_only_recall_what_is_lent", ~(by_normal & lent & golden.applied) | only, sec="SEC-10")
    h.prove("normal_frame_is_dead_while_lent", ~lent | ~gate.live_normal, sec="SEC-10")
    h.cover("lent_again", (gate.ticket == 2) & gate.live_secure)
    h.cover("tickets_begin_anew", (gate.ticket == 0) & gate.live_secure)


@proof(reductions=REDUCTIONS)
def gate_answers_in_time(h: Harness) -> None:
    """Every command is answered and every recall ends within a bound, whatever the other world does."""
    gate = _gate(h)
    drain_bound, scrub_bound = 2, 2
    # The NPU: drained at most `drain_bound` cycles after it is asked, and stays so; likewise scrubbed.
    for name, asked, answer, bound in (
        ("drains", gate.drain, gate.drained, drain_bound),
        ("scrubs", gate.scrub, gate.scrubbed, scrub_bound),
    ):
        waited = Signal(range(bound + 1), name=f"npu_{name}")
        with h.m.If(~asked):
            h.m.d.sync += waited.eq(0)
        with h.m.Elif(waited != bound):
            h.m.d.sync += waited.eq(waited + 1)
        h.assume(f"npu_{name}_in_time", answer | (waited != bound))
    hand_over = drain_bound + scrub_bound + 3
    grace = GRACE["grace_max"]
    state = gate.state.as_value()

    def waits(name, condition, bound):
        cycles = Signal(range(bound + 2), name=name)
        with h.m.If(~condition):
            h.m.d.sync += cycles.eq(0)
        with h.m.Elif(cycles <= bound):
            h.m.d.sync += cycles.eq(cycles + 1)
        return cycles

    scrubbing = waits("scrub_cycles", state == RecallState.SCRUBBING, hand_over)
    recalled = waits("recall_cycles", state == RecallState.RECALLING, grace)
    returning = Signal()
    with h.m.If(state == RecallState.RECALLING):
        h.m.d.sync += returning.eq(1)
    with h.m.Elif(state == RecallState.NORMAL):
        h.m.d.sync += returning.eq(0)
    away = (state == RecallState.RECALLING) | (returning & (state != RecallState.NORMAL))
    out = waits("return_cycles", away, grace + hand_over)
    h.prove("hand_over_ends", scrubbing <= hand_over, sec="SEC-07", lemma=True)
    h.prove("grace_ends", recalled <= grace, sec="SEC-07", lemma=True)
    h.prove("recalled_npu_comes_back", out <= grace + hand_over, sec="SEC-07")
    h.prove("recalled_npu_goes_nowhere_else", ~returning | Cat(state == s for s in RETURNS).any(), sec="SEC-07 SEC-10")
    # One command of the other frame may be before it, and an expiry between: each waits for a hand-over at most.
    answer = 2 * (hand_over + 4) + 1
    for i in range(2):
        busy = waits(f"busy_cycles_{i}", h.inner(f"busy_{i}"), answer)
        h.prove(f"command_of_{i}_is_answered", busy <= answer, sec="SEC-07")
    h.cover("recalled", returning & (state == RecallState.SCRUBBING))


@proof(reductions=REDUCTIONS)
def gate_fails_closed(h: Harness) -> None:
    """A flipped bit of what is stored about permission blocks both worlds from that cycle on, and raises the alarm."""
    gate = _gate(h)
    flips = single_upset(h, "_state", "copies", "alarm")
    upset = Signal()
    h.m.d.comb += upset.eq(flips | h.past(upset))
    secure = h.past(gate.secure)
    h.prove("upset_closes_both_frames", ~upset | ~(gate.live_normal | gate.live_secure), sec="SEC-11")
    h.prove("upset_is_reported", ~upset | (gate.state.as_value() == RecallState.CORRUPT), sec="SEC-11")
    h.prove("upset_stops_the_npu", ~upset | (gate.drain & ~gate.scrub), sec="SEC-11")
    before = Mux(flips, h.inner("copies_stored")[0], secure)
    h.prove("upset_keeps_the_world_of_what_is_out", ~upset | (gate.secure == before), sec="SEC-11")
    alarm, status = h.inner("regs_secure.ALARM__corrupt__value"), h.inner("regs_secure.IRQ_STATUS__corrupt__value")
    h.prove("upset_raises_alarm_and_interrupt", ~h.past(flips) | (alarm & status), sec="SEC-11")
    refused = h.inner("decided") & (h.inner("verdict") == RecallResult.OK)
    h.prove("nothing_is_permitted_after_an_upset", ~(upset & refused), sec="SEC-11")
    h.prove("without_an_upset_nothing_is_corrupt", upset | ~h.inner("_corrupt"), sec="SEC-11")
    for state in (RecallState.NORMAL, RecallState.FLEX, RecallState.SEALED):
        h.cover(f"upset_in_{state.name}", flips & (h.past(gate.state.as_value()) == state))

"""Progress: while a transaction waits, somebody outside can move it on, and nobody is passed over for long.

From these claims follows that every accepted transaction is answered, if masters and memory go on: an address moves on
or waits for an answer that is owed; an answer is owed by memory, or offered; a master that takes what is offered is
offered the answers of memory and of the path in turn; and no more than a limit is ever owed. How many cycles that takes
is what masters and memory make of it.
"""

from amaranth.hdl import Mux, Signal

from tests.formal.axi import fire
from tests.formal.harness import Harness, proof
from tests.formal.reduced import PATH, PATH_REDUCTIONS, TABLES

from .read_path import bench
from .write_path import Writes


def _addresses(h: Harness, made, memory_takes) -> None:
    """An address with a verdict goes on, or memory does not take it, or an answer is owed that it has to wait for."""
    path, watched = made.path, made.watched
    judged = watched.pending & h.inner("lookup.verdict__valid")
    stuck = judged & ~(path.allow | path.deny)
    owed = (made.owed[0] != 0) | (made.owed[1] != 0)
    h.prove("address_goes_on_or_waits_for_an_answer", ~stuck | owed | ~memory_takes, sec="SEC-07")
    unanswered = watched.pending & ~judged
    h.prove("address_is_judged_when_the_table_answers", ~unanswered | ~path.table.valid, sec="SEC-07")
    h.cover("address_waits_for_an_answer", stuck & memory_takes)


def _turns(h: Harness, name: str, channel: str, second: int, waits, other_ends) -> None:
    """Claim that no two bursts of the other source end while one is offered and ``waits``.

    ``second``: whether it is the second of the two sources that are joined in ``channel``.
    """
    held, owner, last = (h.inner(f"{channel}_{part}") for part in ("held", "owner", "last_owner"))
    passed = Signal(2, name=f"{name}_passed_over")
    h.m.d.sync += passed.eq(Mux(waits, passed + other_ends, 0))
    next_one = (last != second) & (~held | (owner == second))
    h.prove(f"{name}_is_next", (passed == 0) | next_one, lemma=True)
    h.prove(f"{name}_is_passed_over_once_at_most", passed <= 1, sec="SEC-07")
    h.cover(f"{name}_is_passed_over", passed == 1)


@proof(fast=("on_chip",), induction=True, depth=2, cover_depth=10, reductions=PATH_REDUCTIONS, variants=TABLES)
def reads(h: Harness, at_once: bool) -> None:
    """A read that waits is waited for by the table, by memory or by its master, and by nothing inside the path."""
    made = bench(h, at_once)
    path, denied = made.path, made.queues["denied"]
    _addresses(h, made, path.down_ar.ready)
    owed, below = (made.owed[0] + made.owed[1]) != 0, (made.below[0] + made.below[1]) != 0
    h.prove("burst_of_memory_is_owed_to_its_end", ~h.inner("r_held") | h.inner("r_owner") | below, lemma=True)
    h.prove("owed_answer_is_offered_or_memory_s", ~owed | path.up_r.valid | below, sec="SEC-07")
    h.prove("offered_by_memory_is_offered_to_the_master", ~path.down_r.valid | path.up_r.valid, sec="SEC-07")
    ends, from_below = fire(path.up_r) & path.up_r.payload.last, fire(path.down_r)
    _turns(h, "answer_of_memory", "r", 0, path.down_r.valid & ~from_below, ends & ~from_below)
    zeros = h.inner("zeros__valid")
    h.prove("denied_read_is_offered_to_its_end", ~(h.inner("r_held") & h.inner("r_owner")) | zeros, lemma=True)
    _turns(h, "denied_read", "r", 1, zeros & ~(fire(path.up_r) & ~from_below), ends & from_below)
    forwarded = Mux(denied[0][0], made.below[1], made.below[0])
    h.prove("denied_read_waits_for_memory_alone", (denied.level == 0) | zeros | (forwarded != 0), sec="SEC-07")


@proof(fast=("on_chip",), induction=True, depth=2, cover_depth=10, reductions=PATH_REDUCTIONS, variants=TABLES)
def writes(h: Harness, at_once: bool) -> None:
    """A write that waits is waited for by the table, by memory, by its master or by a scrub burst that is owed."""
    writes = Writes(h, at_once)
    path, made, given = writes.path, writes.made, writes.given
    source = made.queues["source"]
    # What is said of the watched write in its own proof, memory keeps to for all: no answer before the last beat.
    route = made.queues["route"]
    for n, below in enumerate(made.below):
        unsent = sum((route.level > k) & route[k][0] & (route[k][9] == n) for k in range(PATH.bursts_ahead))
        answer = path.down_b.valid & (path.down_b.payload.id == n)
        h.assume(f"memory_answers_what_was_sent{n}", ~answer | (below > unsent))
        h.prove(f"unsent_ones_are_unanswered{n}", unsent <= below, lemma=True)
    scrubs = h.inner("overdue") | fire(path.scrub_aw)
    _addresses(h, made, ~path.down_aw.valid & ~scrubs & (source.level != source.port.depth))
    owed, below = (made.owed[0] + made.owed[1]) != 0, (made.below[0] + made.below[1]) != 0
    h.prove("answer_of_memory_is_owed", ~h.inner("b_held") | h.inner("b_owner") | below, lemma=True)
    goes_on = path.up_b.valid | below | path.up_w.ready
    h.prove("owed_answer_is_offered_or_memory_s_or_waits_for_beats", ~owed | goes_on, sec="SEC-07")
    refused = given.turn & path.up_w.valid & ~path.up_w.ready
    elsewhere = path.down_w.valid & (~path.down_w.ready | source.port.r_data)
    h.prove("beats_are_taken_when_memory_takes_them", ~refused | elsewhere, sec="SEC-07")
    zeros_next = source.port.r_rdy & source.port.r_data
    h.prove("scrub_beats_never_wait_for_a_master", ~zeros_next | path.down_w.valid, sec="SEC-07")
    scrub = path.down_b.payload.id[PATH.bus.id_width]
    from_below = fire(path.down_b) & ~scrub
    waits = path.down_b.valid & ~path.down_b.ready
    _turns(h, "answer_of_memory", "b", 0, waits, fire(path.up_b) & ~from_below)
    here = h.inner("here__valid")
    h.prove("denied_write_is_offered_to_its_end", ~(h.inner("b_held") & h.inner("b_owner")) | here, lemma=True)
    _turns(h, "denied_write", "b", 1, here & ~(fire(path.up_b) & ~from_below), from_below)

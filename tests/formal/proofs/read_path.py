"""Reads: AXI4 of both ports, and what the page side may rely on."""

from amaranth.hdl import Cat, Mux, Signal

from flexserve_hw.tzasc.read_path import ReadPath
from tests.formal.axi import fire, legal_burst, stable
from tests.formal.harness import Harness, proof
from tests.formal.path_bench import PathBench, resp_of
from tests.formal.reduced import PATH, PATH_REDUCTIONS, TABLES


def bench(h: Harness, at_once: bool) -> PathBench:
    """A read path with masters, and a memory that keeps to AXI4."""
    path = ReadPath(params=PATH)
    beat = path.down_r.payload
    made = PathBench(
        h,
        path,
        address=path.up_ar,
        answer=path.up_r,
        last=path.up_r.payload.last,
        ends_below=fire(path.down_r) & beat.last,
        id_below=beat.id,
        queues=("denied",),
        at_once=at_once,
    )
    watched, denied = made.watched, made.queues["denied"]
    h.assume("memory_holds_data", stable(h, path.down_r))
    made.memory_answers_what_was_asked(path.down_r.valid, beat.id)
    beats = Signal(8, name="beats_from_memory")
    served = watched.forwarded & (made.before == 0) & (beat.id == watched.request.id)
    with h.m.If(watched.pending):
        h.m.d.sync += beats.eq(0)
    with h.m.Elif(served & fire(path.down_r)):
        h.m.d.sync += beats.eq(beats + 1)
    right = beat.last == (beats == watched.request.len)
    h.assume("memory_sends_as_many_beats_as_asked", ~(served & path.down_r.valid) | right)

    # Where the watched read is while it waits for its answer.
    for n, owed in enumerate(made.owed):
        waits = (denied.level != 0) & (denied[0][0] == n)
        h.prove(f"denied_ones_wait{n}", owed == made.below[n] + waits, lemma=True)
    entry = Cat(watched.request.id, watched.request.len, resp_of(watched))
    some = denied.level != 0
    waits = some & (denied[0] == entry) & (watched.ahead == made.below_of_watched)
    h.prove("denied_one_waits_for_forwarded_ones", ~watched.denied | waits, lemma=True)
    beat = h.inner("beat")
    h.prove("beats_are_counted", Mux(watched.denied, beat == watched.beat, some | (beat == 0)), lemma=True)
    h.prove("beats_from_memory_are_counted", ~watched.forwarded | (beats == watched.beat), lemma=True)
    return made


@proof(fast=("on_chip",), induction=True, depth=2, cover_depth=12, reductions=PATH_REDUCTIONS, variants=TABLES)
def protocol(h: Harness, at_once: bool) -> None:
    """Both ports keep to AXI4; every read is answered in full, in order and once, by memory or with zeros."""
    made = bench(h, at_once)
    path, watched = made.path, made.watched
    up, down, request = path.up_r.payload, path.down_ar.payload, watched.request

    h.prove("addresses_are_held", stable(h, path.down_ar))
    h.prove("answers_are_held", stable(h, path.up_r))
    h.prove("burst_is_forwarded_as_it_came", ~(watched.pending & path.down_ar.valid) | (down == request))
    h.prove("only_legal_bursts_are_forwarded", ~path.down_ar.valid | legal_burst(down, data_width=PATH.bus.data_width))
    h.prove("as_many_beats_as_asked", ~watched.answering | (up.last == (watched.beat == request.len)))
    zeros = (up.data == 0) & (up.resp.as_value() == resp_of(watched))
    h.prove("denied_read_returns_zeros", ~(watched.denied & watched.answering) | zeros, sec="SEC-01")
    from_below = path.down_r.valid & (up.as_value() == path.down_r.payload.as_value())
    h.prove("allowed_read_returns_what_memory_says", ~(watched.forwarded & watched.answering) | from_below)
    passed_on = fire(path.up_r) & (up.as_value() == path.down_r.payload.as_value())
    h.prove("what_memory_says_is_passed_on", ~fire(path.down_r) | passed_on)
    made.contract()

    h.cover("allowed_read_of_several_beats", watched.forwarded & watched.answering & path.done & (watched.beat == 3))
    h.cover("denied_read_behind_a_forwarded_one_of_its_id", watched.denied & (watched.ahead == 1) & path.down_r.valid)
    h.cover("epoch_turns_with_traffic_in_flight", watched.forwarded & (path.epoch != watched.epoch) & ~path.up_r.valid)
    waits = watched.pending & ~h.past(watched.picked) & path.down_ar.ready & ~path.down_ar.valid
    h.cover("allowed_read_waits_for_a_denied_one", waits & h.past(waits))

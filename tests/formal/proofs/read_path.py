"""Reads: AXI4 of both ports, and what the page side may rely on."""

from amaranth.hdl import C, Cat, Mux, Signal, Value

from flexserve_hw.bus.axi4 import Resp
from flexserve_hw.tzasc.read_path import ReadPath
from tests.formal.axi import (
    Watched,
    any_region,
    epochs_are_counted,
    fire,
    legal_burst,
    owing,
    patient_table,
    stable,
    steady_epoch,
)
from tests.formal.harness import Harness, proof
from tests.formal.ideal import IdealTally, replace
from tests.formal.reduced import PATH, PATH_LIMIT, PATH_REDUCTIONS


class Bench:
    """A read path among masters and a memory that keep to AXI4, and under the contracts of table, drain and tally.

    Attributes
    ----------
    watched : Watched
    owed, below : list
        Per ID, reads that got their verdict and are not answered; those that memory has to answer.
    accepted : list
        Per epoch, reads accepted and not answered.
    """

    def __init__(self, h: Harness):
        self.h = h
        self.path = path = ReadPath(params=PATH)

        def ideal(port):
            self.tally = IdealTally(port, id_width=PATH.bus.id_width, limit=PATH.outstanding)
            return self.tally

        module = replace(path, tally=ideal)
        self.denied = module.submodules.denied
        h.dut(path)
        h.drive(path, "in", but=("regions",))
        any_region(h, path.regions)
        patient_table(h, path.table)
        h.assume("master_holds_addresses", stable(h, path.up_ar))
        h.assume("master_sends_short_bursts", path.up_ar.payload.len < 4)
        h.assume("memory_holds_data", stable(h, path.down_r))
        self.accepted = steady_epoch(h, path, most=PATH_LIMIT)
        self._owed()
        self.watched = Watched(h, path, path.up_ar, path.up_r, last=path.up_r.payload.last, owed=self.owed)
        self._memory()
        epochs_are_counted(h, path, self.watched, self.accepted, self.tally)
        self._lemmas()

    def _owed(self) -> None:
        h, path = self.h, self.path
        self.below, self.owed = [], []
        beat, answer = path.down_r.payload, path.up_r.payload
        for n in range(1 << PATH.bus.id_width):
            asked, ends = fire(path.down_ar) & (path.down_ar.payload.id == n), fire(path.down_r) & beat.last
            self.below.append(owing(h, f"below{n}", up=asked, down=ends & (beat.id == n), most=PATH_LIMIT))
            issued = (path.allow & (path.down_ar.payload.id == n)) | (path.deny & (path.violation.id == n))
            ends = fire(path.up_r) & answer.last & (answer.id == n)
            self.owed.append(owing(h, f"owed{n}", up=issued, down=ends, most=PATH_LIMIT))
            unasked = path.down_r.valid & (beat.id == n) & (self.below[n] == 0)
            h.assume(f"memory_answers_what_was_asked{n}", ~unasked)
            h.prove(f"tally_counts_what_is_owed{n}", self.owed[n] == self.tally.owed(n), lemma=True)
            h.prove(f"tally_counts_what_is_below{n}", self.below[n] == self.tally.forwards[n], lemma=True)
            h.prove(f"limit_is_kept{n}", self.owed[n] <= PATH.outstanding, lemma=True)

    def _memory(self) -> None:
        """Memory sends as many beats to the watched read as it asked for."""
        h, path, watched = self.h, self.path, self.watched
        mine, self.before = path.down_r.payload.id == watched.request.id, Signal.like(self.below[0], name="before_it")
        ends, begins = fire(path.down_r) & path.down_r.payload.last & mine, watched.pending & path.allow
        with h.m.If(begins):
            h.m.d.sync += self.before.eq(Mux(watched.request.id, self.below[1], self.below[0]) - ends)
        with h.m.Elif(watched.forwarded & ends & (self.before != 0)):
            h.m.d.sync += self.before.eq(self.before - 1)
        self.beats = beats = Signal(8, name="beats_from_memory")
        served = watched.forwarded & (self.before == 0) & mine
        with h.m.If(begins):
            h.m.d.sync += beats.eq(0)
        with h.m.Elif(served & fire(path.down_r)):
            h.m.d.sync += beats.eq(beats + 1)
        right = path.down_r.payload.last == (beats == watched.request.len)
        h.assume("memory_sends_as_many_beats_as_asked", ~(served & path.down_r.valid) | right)

    def _lemmas(self) -> None:
        """Where the watched read is while it waits for its answer."""
        h, watched, denied = self.h, self.watched, self.denied
        total, passed = sum(self.owed), sum(self.below)
        below = Mux(watched.request.id, self.below[1], self.below[0])
        h.prove("denied_ones_wait", total == passed + denied.level, lemma=True)
        entry = Cat(watched.request.id, watched.request.len, resp_of(watched))
        h.prove("denied_one_waits", ~watched.denied | ((denied.r_data == entry) & denied.r_rdy), lemma=True)
        h.prove("denied_one_waits_for_forwarded_ones", ~watched.denied | (watched.ahead == below), lemma=True)
        beat = h.inner("beat")
        h.prove("beats_are_counted", Mux(watched.denied, beat == watched.beat, denied.r_rdy | (beat == 0)), lemma=True)
        in_memory = (self.before == watched.ahead) & (self.before < below) & (self.beats == watched.beat)
        h.prove("forwarded_one_is_in_memory", ~watched.forwarded | in_memory, lemma=True)


def resp_of(watched: Watched) -> Value:
    """What a denied transaction answers."""
    return Mux(watched.decerr, C(Resp.DECERR.value, 2), C(Resp.OKAY.value, 2))


@proof(reductions=PATH_REDUCTIONS, limit=400)
def protocol(h: Harness) -> None:
    """Both ports keep to AXI4; every read is answered in full, in order and once, by memory or with zeros."""
    bench = Bench(h)
    path, watched = bench.path, bench.watched
    up, down, request = path.up_r.payload, path.down_ar.payload, watched.request
    owed = Mux(up.id, bench.owed[1], bench.owed[0])

    h.prove("addresses_are_held", stable(h, path.down_ar))
    h.prove("answers_are_held", stable(h, path.up_r))
    h.prove("no_answer_without_request", ~path.up_r.valid | (owed != 0), lemma=True)
    h.prove("burst_is_forwarded_as_it_came", ~(watched.pending & path.down_ar.valid) | (down == request))
    h.prove("only_legal_bursts_are_forwarded", ~path.down_ar.valid | legal_burst(down, data_width=PATH.bus.data_width))
    h.prove("as_many_beats_as_asked", ~watched.answering | (up.last == (watched.beat == request.len)))
    zeros = (up.data == 0) & (up.resp.as_value() == resp_of(watched))
    h.prove("denied_read_returns_zeros", ~(watched.denied & watched.answering) | zeros, sec="SEC-01")
    from_below = path.down_r.valid & (up.as_value() == path.down_r.payload.as_value())
    h.prove("allowed_read_returns_what_memory_says", ~(watched.forwarded & watched.answering) | from_below)
    passed_on = path.up_r.valid & path.up_r.ready & (up.as_value() == path.down_r.payload.as_value())
    h.prove("what_memory_says_is_passed_on", ~fire(path.down_r) | passed_on)

    # What management.py takes for granted.
    h.prove("accepts_while_open_alone", ~path.accept | path.open, sec="SEC-06")
    h.prove("no_more_than_the_limit_in_flight", bench.accepted[0] + bench.accepted[1] <= PATH_LIMIT, sec="SEC-06")
    owed_in_epoch = Mux(path.done_epoch, bench.accepted[1], bench.accepted[0]) != 0
    h.prove("answer_is_owed_in_its_epoch", ~path.done | owed_in_epoch, sec="SEC-06")
    right = path.done_epoch == watched.epoch
    h.prove("answer_names_its_epoch", ~(watched.answering & path.done) | right, sec="SEC-06")

    h.cover("allowed_read_of_several_beats", watched.forwarded & watched.answering & path.done & (watched.beat == 3))
    h.cover("denied_read_behind_a_forwarded_one_of_its_id", watched.denied & (watched.ahead == 1) & path.down_r.valid)
    h.cover("epoch_turns_with_traffic_in_flight", watched.forwarded & (path.epoch != watched.epoch) & ~path.up_r.valid)
    waits = watched.pending & ~h.past(watched.picked) & path.down_ar.ready & ~path.down_ar.valid
    h.cover("allowed_read_waits_for_a_denied_one", waits & h.past(waits))

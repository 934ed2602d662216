"""Writes: AXI4 of both ports, beats go where their address went, and what the page side may rely on."""

from amaranth.hdl import C, Cat, Mux, Signal

from flexserve_hw.bus.axi4 import Burst, Resp
from flexserve_hw.tzasc.write_path import WritePath
from tests.formal.axi import fire, legal_burst, stable
from tests.formal.harness import Harness, proof
from tests.formal.path_bench import PathBench, resp_of
from tests.formal.reduced import PATH, PATH_REDUCTIONS, TABLES


class Beats:
    """Where the beats of one burst are, which ``begins`` now and then.

    ``due``: some are left, ``ahead`` bursts go before it, ``beat`` were sent.
    """

    def __init__(self, h: Harness, name: str, *, begins, queue, ends, beats, length):
        self.begins = begins
        self.due, self.ahead = Signal(name=f"{name}_due"), Signal(3, name=f"{name}_ahead")
        self.beat = Signal(8, name=f"{name}_beat")
        self.turn = self.due & (self.ahead == 0)
        self.last = self.beat == length
        with h.m.If(begins):
            h.m.d.sync += [self.due.eq(1), self.ahead.eq(queue - ends), self.beat.eq(0)]
        with h.m.Elif(self.due & (self.ahead != 0)):
            h.m.d.sync += self.ahead.eq(self.ahead - ends)
        with h.m.Elif(self.turn & beats):
            h.m.d.sync += [self.beat.eq(self.beat + 1), self.due.eq(~self.last)]


class Writes:
    """A write path with masters, a scrubber that asks for what it likes, and a memory that keeps to AXI4.

    Attributes
    ----------
    given, sent : Beats
        Upstream and downstream beats of the watched write.
    scrub : Beats
        Downstream beats of any one scrub burst.
    """

    def __init__(self, h: Harness, at_once: bool):
        self.path = path = WritePath(params=PATH)
        response = path.down_b.payload
        scrub = response.id[PATH.bus.id_width]
        self.made = made = PathBench(
            h,
            path,
            address=path.up_aw,
            answer=path.up_b,
            last=C(1),
            ends_below=fire(path.down_b) & ~scrub,
            id_below=response.id[: PATH.bus.id_width],
            queues=("route", "source", "denied"),
            at_once=at_once,
        )
        watched, route, source = made.watched, made.queues["route"].port, made.queues["source"].port
        h.assume("master_holds_beats", stable(h, path.up_w))
        h.assume("memory_holds_answers", stable(h, path.down_b))
        made.memory_answers_what_was_asked(path.down_b.valid & ~scrub, response.id[: PATH.bus.id_width])
        begins, length = watched.pending & (path.allow | path.deny), watched.request.len
        self.given = Beats(
            h, "given", begins=begins, queue=route.level, ends=route.r_en, beats=fire(path.up_w), length=length
        )
        sends = {"queue": source.level, "ends": source.r_en, "beats": fire(path.down_w)}
        self.sent = Beats(h, "sent", begins=watched.pending & path.allow, length=length, **sends)
        granted = fire(path.scrub_aw) & h.free("watch_scrub", 1)
        self.scrub = Beats(h, "scrub", begins=granted, length=PATH.scrub_beats - 1, **sends)
        mine = watched.forwarded & (made.before == 0) & (response.id == Cat(watched.request.id, C(0, 1)))
        h.assume("memory_answers_after_the_last_beat", ~(path.down_b.valid & mine) | ~self.sent.due)
        self._lemmas(h, watched, **made.queues)

    def _lemmas(self, h, watched, route, source, denied) -> None:
        """Where the watched write is, and where the beats are."""
        given, sent, scrub, made = self.given, self.sent, self.scrub, self.made
        answer = Cat(watched.request.id, resp_of(watched))
        entry = Cat(watched.forwarded, watched.request.len, answer)
        beat, scrub_beat = h.inner("beat"), h.inner("scrub_beat")
        # Denied answers that go before the one of the watched write, once it is among them.
        place, waits = Signal(range(PATH.denied_writes), name="place"), denied.port
        with h.m.If(given.turn & given.last & fire(self.path.up_w)):
            h.m.d.sync += place.eq(denied.level - waits.r_en)
        with h.m.Elif(waits.r_en):
            h.m.d.sync += place.eq(place - 1)
        allows = [(route.level > n) & route[n][0] for n in range(PATH.bursts_ahead)]
        passes = [(source.level > n) & ~source[n][0] for n in range(PATH.bursts_ahead)]
        h.prove("source_and_route_agree", sum(allows) == sum(passes), lemma=True)
        h.prove("beats_are_given_to_a_judged_one", ~given.due | watched.judged, lemma=True)
        h.prove("beats_are_sent_as_they_are_given", ~watched.forwarded | (sent.due == given.due), lemma=True)
        h.prove("beats_are_not_sent_of_denied_ones", ~sent.due | watched.forwarded, lemma=True)
        here = (given.ahead < route.level) & (route[given.ahead[:1]] == entry)
        h.prove("given_one_is_in_the_route", ~given.due | here, lemma=True)
        here = (sent.ahead < source.level) & ~source[sent.ahead[:1]][0]
        h.prove("sent_one_is_in_the_source", ~sent.due | here, lemma=True)
        here = (scrub.ahead < source.level) & source[scrub.ahead[:1]][0]
        h.prove("scrub_is_in_the_source", ~scrub.due | here, lemma=True)
        before = Mux(given.ahead == 0, 0, allows[0]) == Mux(sent.ahead == 0, 0, passes[0])
        h.prove("it_has_the_same_place_in_both", ~sent.due | before, lemma=True)
        h.prove("beats_are_counted", Mux(given.turn, beat == given.beat, (route.level != 0) | (beat == 0)), lemma=True)
        h.prove("waiting_one_has_no_beats", ~(given.due & (given.ahead != 0)) | (given.beat == 0), lemma=True)
        h.prove("sent_beats_are_counted", ~sent.due | (sent.beat == given.beat), lemma=True)
        idle = ~((source.level != 0) & source[0][0])
        counted = Mux(scrub.turn, scrub_beat == scrub.beat, ~idle | (scrub_beat == 0))
        h.prove("scrub_beats_are_counted", counted, lemma=True)
        h.prove("waiting_scrub_has_no_beats", ~(scrub.due & (scrub.ahead != 0)) | (scrub.beat == 0), lemma=True)
        swallowed = [(route.level > k) & ~route[k][0] for k in range(PATH.bursts_ahead)]
        h.prove("denied_ones_have_room", h.inner("promised") == denied.level + sum(swallowed), lemma=True)
        h.prove("no_more_denied_than_room", h.inner("promised") <= PATH.denied_writes, lemma=True)
        for n, owed in enumerate(made.owed):
            waiting = [(denied.level > k) & (denied[k][0] == n) for k in range(PATH.denied_writes)]
            routed = [(route.level > k) & ~route[k][0] & (route[k][9] == n) for k in range(PATH.bursts_ahead)]
            h.prove(f"denied_ones_wait{n}", owed == made.below[n] + sum(waiting) + sum(routed), lemma=True)
            mine = watched.denied & (watched.request.id == n)
            routed_before = Mux(given.ahead == 0, 0, routed[0])
            before = made.below[n] + Mux(given.due, sum(waiting) + routed_before, Mux(place == 0, 0, waiting[0]))
            h.prove(f"denied_one_knows_its_place{n}", ~mine | (watched.ahead == before), lemma=True)
        here = (denied.level > place) & (denied[place] == answer)
        h.prove("denied_one_waits", ~(watched.denied & ~given.due) | here, lemma=True)


@proof(fast=("on_chip",), induction=True, depth=2, cover_depth=12, reductions=PATH_REDUCTIONS, variants=TABLES)
def protocol(h: Harness, at_once: bool) -> None:
    """Both ports keep to AXI4; every write is answered once and in order, and its beats reach memory or nothing."""
    writes = Writes(h, at_once)
    path, made, given, sent, scrub = writes.path, writes.made, writes.given, writes.sent, writes.scrub
    watched, request, up, down = made.watched, made.watched.request, path.up_b.payload, path.down_aw.payload

    h.prove("addresses_are_held", stable(h, path.down_aw))
    h.prove("beats_are_held", stable(h, path.down_w))
    h.prove("answers_are_held", stable(h, path.up_b))
    waiting = h.past(path.down_aw.valid & ~path.down_aw.ready)
    fresh = path.down_aw.valid & ~waiting
    h.prove("nothing_is_forwarded_unasked", fresh == (~waiting & (path.allow | fire(path.scrub_aw))))
    h.prove("one_address_at_a_time", ~(waiting & (path.allow | fire(path.scrub_aw))))
    as_it_came = Cat(down[name] == request[name] for name, _ in request.shape() if name != "id").all()
    as_it_came &= down.id == Cat(request.id, C(0, 1))
    h.prove("burst_is_forwarded_as_it_came", ~(watched.pending & path.allow) | as_it_came)
    legal = legal_burst(down, data_width=PATH.bus.data_width)
    h.prove("only_legal_bursts_are_forwarded", ~(path.allow & fresh) | legal)
    size, beats = PATH.bus.data_width // 8, PATH.scrub_beats
    zeroing = Cat(
        down.id == Cat(path.scrub_aw.payload.id, C(1, 1)),
        down.addr == path.scrub_aw.payload.addr,
        (down.len == beats - 1) & ((1 << down.size) == size),
        down.burst.as_value() == Burst.INCR.value,
        ~down.prot.nonsecure,
    ).all()
    h.prove("scrub_goes_out_as_asked", ~fire(path.scrub_aw) | zeroing, sec="SEC-01")

    # Downstream bursts are sent in the order of their addresses, each with the beats that its address announced.
    h.prove("no_beats_without_an_address", ~path.down_w.valid | made.queues["source"].port.r_rdy)
    w = path.down_w.payload
    given_now = path.up_w.payload
    own = (fire(path.up_w) == path.down_w.ready) & (w.data == given_now.data) & (w.strb == given_now.strb) & given.turn
    h.prove("beats_of_an_allowed_write_are_its_own", ~(sent.turn & path.down_w.valid) | own, sec="SEC-02")
    h.prove("last_beat_is_marked", ~(sent.turn & path.down_w.valid) | (w.last == sent.last))
    goes_out = sent.turn & fire(path.down_w)
    h.prove("beats_given_are_sent", ~(watched.forwarded & given.turn & fire(path.up_w)) | goes_out)
    zeros = path.down_w.valid & (w.data == 0) & w.strb.all() & (w.last == scrub.last)
    h.prove("beats_of_a_scrub_are_zeros", ~scrub.turn | zeros, sec="SEC-01")
    swallowed = watched.denied & given.turn & fire(path.up_w)
    beside = ~path.down_w.valid | made.queues["source"].port.r_data
    h.prove("beats_of_a_denied_write_reach_nothing", ~swallowed | beside, sec="SEC-02")
    offered = watched.denied & given.turn & path.up_w.valid
    h.prove("beats_of_a_denied_write_wait_for_nothing", ~offered | path.up_w.ready, sec="SEC-07")

    h.prove("answered_after_the_last_beat", ~watched.answering | ~given.due)
    denied_right = up.resp.as_value() == resp_of(watched)
    h.prove("denied_write_is_answered_as_set", ~(watched.denied & watched.answering) | denied_right)
    from_below = path.down_b.valid & (up.resp.as_value() == path.down_b.payload.resp.as_value())
    h.prove("allowed_write_is_answered_by_memory", ~(watched.forwarded & watched.answering) | from_below)
    top = path.down_b.payload.id[PATH.bus.id_width]
    passed = Mux(top, path.scrub_b.valid, fire(path.up_b))
    h.prove("every_answer_is_passed_on", ~fire(path.down_b) | passed)
    scrub_answer = path.down_b.valid & top & path.down_b.ready & (path.scrub_b.id == path.down_b.payload.id[:1])
    okay = path.scrub_b.okay == (path.down_b.payload.resp.as_value() == Resp.OKAY.value)
    h.prove("scrubber_hears_its_answers_alone", ~path.scrub_b.valid | (scrub_answer & okay), sec="SEC-01")
    made.contract()

    h.cover("allowed_write_of_several_beats", watched.forwarded & watched.answering & path.done & (request.len == 3))
    h.cover("denied_write", watched.denied & watched.answering & path.done)
    two = (made.queues["denied"].level == 2) & (made.below_of_watched != 0)
    h.cover("denied_writes_wait_for_memory", watched.denied & ~given.due & two)
    full = h.inner("promised") == PATH.denied_writes
    h.cover("denied_write_waits_for_room", watched.pending & full & h.past(watched.pending & full))
    h.cover("scrub_between_two_writes", scrub.turn & sent.due & h.past(fire(path.down_w)) & (sent.ahead == 1))
    h.cover("beats_of_a_denied_write_beside_a_scrub", swallowed & scrub.turn & path.down_w.valid)
    h.cover("epoch_turns_with_traffic_in_flight", sent.due & (path.epoch != watched.epoch))

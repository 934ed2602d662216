"""What the proofs of the two paths have in common."""

from amaranth.hdl import C, Mux, Signal, Value
from amaranth.lib import data

from flexserve_hw.bus.axi4 import Resp
from flexserve_hw.tzasc.lookup import verdict_layout

from .axi import (
    Watched,
    any_region,
    epochs_are_counted,
    legal_burst,
    owing,
    patient_table,
    stable,
    steady_epoch,
)
from .harness import Harness
from .ideal import IdealQueue, IdealTally, replace
from .reduced import PATH, PATH_LIMIT

__all__ = ["PathBench", "resp_of"]


def resp_of(watched: Watched) -> Value:
    """What a denied transaction answers."""
    return Mux(watched.decerr, C(Resp.DECERR.value, 2), C(Resp.OKAY.value, 2))


class PathBench:
    """A path under masters that keep to AXI4 and under the contracts of table, drain and tally.

    Parameters
    ----------
    path : ReadPath or WritePath
    address, answer : stream
        Its upstream address and response channel.
    ends, ends_below
        A transaction is answered in full on ``answer``; memory has answered one in full, its ID being ``id_below``.

    queues : tuple of str
        Submodules that are queues.
    at_once : bool
        See :func:`.axi.patient_table`.

    Attributes
    ----------
    queues : dict
        The plain queues that stand in their place.
    watched : Watched
    owed, below : list
        Per ID, transactions that got their verdict and are not answered; those that memory has to answer.
    accepted : list
        Per epoch, transactions accepted and not answered.
    """

    def __init__(self, h: Harness, path, *, address, answer, last, ends_below, id_below, queues, at_once):
        self.h, self.path = h, path

        def ideal(port):
            self.tally = IdealTally(port, id_width=PATH.bus.id_width, limit=PATH.outstanding)
            return self.tally

        self.queues: dict[str, IdealQueue] = {}

        def plain(name):
            return lambda port: self.queues.setdefault(name, IdealQueue(port))

        replace(path, tally=ideal, **{name: plain(name) for name in queues})
        h.dut(path)
        for name, queue in self.queues.items():
            h.prove(f"{name}_is_no_fuller_than_full", queue.level <= queue.port.depth, lemma=True)
        h.drive(path, "in", but=("regions",))
        any_region(h, path.regions)
        patient_table(h, path.table, at_once=at_once)
        h.assume("master_holds_addresses", stable(h, address))
        h.assume("master_sends_short_bursts", address.payload.len < 4)
        self.accepted = steady_epoch(h, path, most=PATH_LIMIT)
        self.below, self.owed = [], []
        for n in range(1 << PATH.bus.id_width):
            judged = path.violation.id == n
            ends = answer.valid & answer.ready & last & (answer.payload.id == n)
            down = ends_below & (id_below == n)
            self.below.append(owing(h, f"below{n}", up=path.allow & judged, down=down, most=PATH_LIMIT))
            self.owed.append(owing(h, f"owed{n}", up=(path.allow | path.deny) & judged, down=ends, most=PATH_LIMIT))
            h.prove(f"tally_counts_what_is_owed{n}", self.owed[n] == self.tally.owed(n), lemma=True)
            h.prove(f"tally_counts_what_is_below{n}", self.below[n] == self.tally.forwards[n], lemma=True)
            h.prove(f"limit_is_kept{n}", self.owed[n] <= PATH.outstanding, lemma=True)
        self.watched = Watched(h, path, address, answer, last=last, owed=self.owed)
        request = self.watched.request
        self.below_of_watched = Mux(request.id, self.below[1], self.below[0])
        self.before = Signal.like(self.below[0], name="before_it")
        mine, begins = ends_below & (id_below == request.id), self.watched.pending & path.allow
        with h.m.If(begins):
            h.m.d.sync += self.before.eq(self.below_of_watched - mine)
        with h.m.Elif(self.watched.forwarded & mine & (self.before != 0)):
            h.m.d.sync += self.before.eq(self.before - 1)
        in_memory = (self.before == self.watched.ahead) & (self.before < self.below_of_watched)
        h.prove("forwarded_one_is_in_memory", ~self.watched.forwarded | in_memory, lemma=True)
        owed = Mux(answer.payload.id, self.owed[1], self.owed[0])
        h.prove("no_answer_without_request", ~answer.valid | (owed != 0), lemma=True)
        judged = data.View(verdict_layout(PATH.bus.axi4.shape), h.inner("lookup.verdict__payload"))
        legal = legal_burst(judged.request, data_width=PATH.bus.data_width)
        permitted = h.inner("lookup.taken") & h.inner("lookup.permitted")
        h.prove("only_legal_bursts_are_permitted", ~permitted | legal, lemma=True)
        known = h.inner("lookup.taken") & h.inner("lookup.paged") & h.inner("lookup.known")
        early = known & ~getattr(path.table, "valid", C(1)) & h.inner("lookup.verdict__valid")
        h.prove("verdict_waits_for_the_table", ~early, lemma=True)
        watched = self.watched
        one = watched.pending + watched.forwarded + watched.denied <= 1
        h.prove("watched_is_in_one_place", one, lemma=True)
        kept = h.inner("lookup.taken") & (judged.request == watched.request)
        h.prove("lookup_keeps_the_address", ~watched.pending | kept, lemma=True)
        epochs_are_counted(h, path, self.watched, self.accepted, self.tally)

    def memory_answers_what_was_asked(self, offered, identity) -> None:
        """Assume it: a response ``offered`` by memory for ``identity`` is one that it owes."""
        self.h.assume("memory_answers_what_was_asked", ~offered | (Mux(identity, self.below[1], self.below[0]) != 0))

    def contract(self) -> None:
        """What the proofs of the page side take for granted of a path."""
        h, path, watched = self.h, self.path, self.watched
        h.prove("accepts_while_open_alone", ~path.accept | path.open, sec="SEC-06")
        total = self.accepted[0] + self.accepted[1]
        h.prove("no_more_than_the_limit_in_flight", total <= PATH_LIMIT, sec="SEC-06")
        owed = Mux(path.done_epoch, self.accepted[1], self.accepted[0]) != 0
        h.prove("answer_is_owed_in_its_epoch", ~path.done | owed, sec="SEC-06")
        right = path.done_epoch == watched.epoch
        h.prove("answer_names_its_epoch", ~(watched.answering & path.done) | right, sec="SEC-06")

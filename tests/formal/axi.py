"""AXI4 as assumptions and claims: handshakes, and transactions followed from address to answer.

Claims about "every transaction" are made about a *watched* one: any one, picked at its acceptance by a free input. What
is said of it holds for all, since every transaction may be the one that was picked.
"""

from amaranth.hdl import C, Cat, Mux, Signal, Value

from flexserve_hw.bus.axi4 import PAGE_BYTES, Burst

from .harness import Harness

__all__ = [
    "Watched",
    "any_region",
    "epochs_are_counted",
    "fire",
    "legal_burst",
    "owing",
    "patient_table",
    "stable",
    "steady_epoch",
]


def fire(stream) -> Value:
    """A transfer takes place."""
    return stream.valid & stream.ready


def stable(h: Harness, stream) -> Value:
    """What was offered and not taken is offered still, unchanged."""
    payload = Value.cast(stream.payload)
    waiting = h.past(stream.valid & ~stream.ready)
    return ~waiting | (stream.valid & (payload == h.past(payload)))


def legal_burst(request, *, data_width: int) -> Value:
    """Whether a burst is one that AXI4 knows and lies in one page, reckoned by its last byte."""
    size = Mux(request.size > 7, 7, request.size)
    start = (request.addr[:12] >> size) << size
    end = start + ((request.len + 1) << size)
    wraps = Cat(request.len == n for n in (1, 3, 7, 15)).any()
    fits = (1 << size) <= data_width // 8
    incr = (request.burst == Burst.INCR) & (end <= PAGE_BYTES)
    fixed = (request.burst == Burst.FIXED) & (request.len < 16)
    return fits & (incr | fixed | ((request.burst == Burst.WRAP) & wraps))


def owing(h: Harness, name: str, *, up, down, most: int) -> Signal:
    """How much is owed: rises with ``up``, falls with ``down``. There is room for one more than ``most``."""
    value = Signal(range(most + 2), name=name)
    h.m.d.sync += value.eq(value + up - down)
    return value


def steady_epoch(h: Harness, path, *, most: int) -> list[Signal]:
    """Assume of the epoch what the drain promises: it turns only when the old one is empty. Returns both counts."""
    counts = []
    for epoch in range(2):
        up, down = path.accept & (path.epoch == epoch), path.done & (path.done_epoch == epoch)
        counts.append(owing(h, f"in_epoch{epoch}", up=up, down=down, most=most))
    turned = h.started & (path.epoch != h.past(path.epoch))
    # The one that is present now is to have been the old and empty one.
    h.assume("epoch_turns_when_the_old_one_is_empty", ~turned | (Mux(path.epoch, counts[1], counts[0]) == 0))
    return counts


def patient_table(h: Harness, port, *, at_once: bool) -> None:
    """Assume of a port of the page-state table that its answer, once there, stays until the next question.

    ``at_once``: it is there in the next cycle, and whatever was answered stays; a cache may take longer.
    """
    valid = getattr(port, "valid", C(1))
    if at_once:
        h.assume("table_answers_at_once", valid)
    answered = h.past(valid & ~port.en)
    h.assume("table_holds_its_answer", ~answered | (valid & (port.data == h.past(port.data))))


def epochs_are_counted(h: Harness, path, watched, accepted: list, tally) -> None:
    """Lemmas: where accepted transactions are, and that those of the old epoch come before those of the present one."""
    judged = path.allow | path.deny
    waiting, epoch = Signal(2, name="in_lookup"), Signal(name="epoch_in_lookup")
    h.m.d.sync += waiting.eq(waiting + path.accept - judged)
    with h.m.If(path.accept):
        h.m.d.sync += epoch.eq(path.epoch)
    h.prove("lookup_holds_one", waiting == h.inner("lookup.taken"), lemma=True)
    h.prove("lookup_keeps_the_epoch", (waiting == 0) | (tally.port.issue_epoch == epoch), lemma=True)
    for e in range(2):
        counted = sum(epochs[e] for epochs in tally.epochs) + ((waiting == 1) & (epoch == e))
        h.prove(f"accepted_are_counted{e}", accepted[e] == counted, lemma=True)
        late = Cat(epochs[e] for epochs in tally.epochs).any() & (path.epoch == e)
        h.prove(f"lookup_comes_last{e}", ~((waiting == 1) & (epoch != e) & late), lemma=True)
    h.prove("watched_is_in_the_lookup", ~watched.pending | ((waiting == 1) & (epoch == watched.epoch)), lemma=True)
    of_id = [Mux(watched.request.id, tally.epochs[1][e], tally.epochs[0][e]) for e in range(2)]
    same, other = Mux(watched.epoch, of_id[1], of_id[0]), Mux(watched.epoch, of_id[0], of_id[1])
    old = watched.epoch != path.epoch
    h.prove("old_ones_come_first", ~watched.judged | Mux(old, watched.ahead < same, other <= watched.ahead), lemma=True)
    h.prove("watched_is_counted", ~watched.judged | (watched.ahead < same + other), lemma=True)


def any_region(h: Harness, regions) -> None:
    """Let the region side decide as it likes in every cycle: region 0 is free, the others are off."""
    h.m.d.comb += regions[0].as_value().eq(h.free("region", len(regions[0].as_value())))


class Watched:
    """Any one transaction of a path, from its acceptance to the last beat of its answer.

    Parameters
    ----------
    path : ReadPath or WritePath
    address, answer : stream
        Upstream address and response channel.
    last
        The beat on ``answer`` is the last of its transaction.
    owed : list of Signal
        Per ID, transactions that got a verdict and are not answered.

    Attributes
    ----------
    pending : Signal
        Accepted, without a verdict yet.
    forwarded, denied : Signal
        The verdict was acted upon so.
    ahead : Signal
        Transactions of its ID to be answered before it, once it has its verdict.
    request : View
        Its address payload.
    answering : Value
        The beat offered on ``answer`` is its own.
    """

    def __init__(self, h: Harness, path, address, answer, *, last, owed: list):
        m, pick = h.m, h.free("watch", 1)
        self.pending, self.forwarded = Signal(name="watched_pending"), Signal(name="watched_forwarded")
        self.denied, self.epoch = Signal(name="watched_denied"), Signal(name="watched_epoch")
        self.request = Signal(address.payload.shape(), name="watched_request")
        self.decerr = Signal(name="watched_decerr")
        self.ahead = Signal.like(owed[0], name="watched_ahead")
        self.beat = Signal(8, name="watched_beat")
        self.judged = self.forwarded | self.denied
        self.active = self.pending | self.judged
        self.picked = path.accept & pick & ~self.active
        same = answer.payload.id == self.request.id
        self.answering = self.judged & (self.ahead == 0) & answer.valid & same
        ends = fire(answer) & same & last
        with m.If(self.picked):
            m.d.sync += [self.pending.eq(1), self.request.eq(address.payload), self.epoch.eq(path.epoch)]
        judged = self.pending & (path.allow | path.deny)
        with m.If(judged):
            m.d.sync += [
                self.pending.eq(0),
                self.forwarded.eq(path.allow),
                self.denied.eq(path.deny),
                self.decerr.eq(path.decerr),
                self.ahead.eq(Mux(self.request.id, owed[1], owed[0]) - ends),
                self.beat.eq(0),
            ]
        with m.If(self.judged & ends):
            with m.If(self.ahead != 0):
                m.d.sync += self.ahead.eq(self.ahead - 1)
            with m.Else():
                m.d.sync += [self.forwarded.eq(0), self.denied.eq(0)]
        with m.If(self.answering & answer.ready):
            m.d.sync += self.beat.eq(self.beat + 1)

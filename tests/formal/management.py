"""The page side of the filter, with its two AXI paths replaced by whatever their contract allows.

The real :class:`FlexCore` is under proof, with its real wiring; only what is in ``read_path`` and ``write_path`` is
cut out. In their place stand free values that keep to what is proved of the paths in ``read_path.py`` and
``write_path.py``:

* an address is accepted only while the core is open, and at most :func:`accepted_limit` per direction are not answered;
* an answer belongs to an accepted transaction of the epoch that is named with it;
* a scrub burst is answered once, after it was taken.

Everything that configures the core is free in every cycle: gate, window, grace period, lock, commands of both frames,
reads of the freed queue. A frame holds the range of a command while it is busy; that is all that is asked of it.
"""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.utils import exact_log2

from flexserve_hw.bus.axi4 import PAGE_BYTES
from flexserve_hw.params import BusParams, FlexMemParams
from flexserve_hw.tzasc.core import FlexCore
from flexserve_hw.tzasc.layouts import PAGE_SHIFT
from flexserve_sw.regs import RecallState

from .harness import Harness

__all__ = [
    "CODES",
    "REDUCTIONS",
    "VARIANTS",
    "Management",
    "Watch",
    "accepted_limit",
    "code_in",
    "legal_codes",
    "reduced",
    "scanned",
    "walked",
]

CODES = {state: 1 << n for n, state in enumerate(s for s in RecallState if s is not RecallState.CORRUPT)}
"""Code words as the documentation gives them: one bit of six, in the order of the states."""

REDUCTIONS = {
    "2 pages, or 4 with 2 to a table word": "a page is told from others by word, and by place in the word; two of each",
    "8 page frames": "the window starts at 0, ends with memory, or neither; frame numbers are only added and compared",
    "ranges of up to 31 pages from frame 0 to 31": "beyond either end of memory; full width is for range_check",
    "2 timers": "one that a range claims and one that may overlap or be late; more only add choices of the same kind",
    "grace period of up to 15 cycles": "compared with zero alone; long enough for a second recall meanwhile",
    "2 scrub slots, 2 bursts of 16 beats to a page": "one goes out, one waits; a first and a last burst",
    "freed queue of 2": "full and empty are told apart, and one in between",
    "2 IDs, 1 outstanding each": "several transactions per epoch and direction; IDs are the paths' business",
}


VARIANTS = {"words": {"pages": 2, "group": 1}, "groups": {"pages": 4, "group": 2}}
"""Two table words of one page, and two of two."""

_CONTROLS = ("gate", "enable", "base", "pages", "table_base", "locked", "grace", "pop", "request", "request_pages")


def reduced(**changes) -> FlexMemParams:
    """Parameters of the proofs; see :data:`REDUCTIONS`."""
    settings = {
        "bus": BusParams(addr_width=15, data_width=1024, id_width=1),
        "pages": 2,
        "group": 1,
        "timers": 2,
        "freed_depth": 2,
        "outstanding": 1,
        "grace_min": 1,
        "grace_max": 15,
        "scrub_share": 2,
        "scrub_beats": 16,
        "scrub_slots": 2,
        "bursts_ahead": 2,
        "denied_depth": 1,
        "denied_writes": 1,
    }
    return FlexMemParams(**{**settings, **changes})


def accepted_limit(params: FlexMemParams) -> int:
    """Transactions of one direction that may be accepted and not answered: all IDs full, and one being judged."""
    return (params.outstanding << params.bus.id_width) + 1


def code_in(word: Value, page, *, group: int) -> Value:
    """Code word of ``page`` in a table word: one bit of each of its planes."""
    planes = [word[n * group : (n + 1) * group] for n in range(len(CODES))]
    if isinstance(page, int):
        return Cat(plane[page % group] for plane in planes)
    shift = exact_log2(group)
    return Cat(plane.bit_select(page[:shift], 1) if shift else plane[0] for plane in planes)


def legal_codes(code: Value) -> Value:
    """Whether it is the code word of a state."""
    return Cat(code == legal for legal in CODES.values()).any()


def walked(h: Harness) -> Value:
    """The command engine looks at a word, or waits for it, of a table that lets it wait."""
    try:
        return h.inner("engine.asked") & ~h.inner("engine.stale")
    except LookupError:
        return h.inner("engine.seen")


def scanned(h: Harness, word) -> Value:
    """The scrubber looks at table word ``word``, or waits for it."""
    try:
        return h.inner("scrubber.asked") & (h.inner("scrubber.walk.word") == word)
    except LookupError:
        return h.inner("scrubber.looking") & (h.inner("scrubber.looked") == word)


class Management:
    """The core without its paths, in harness ``h``, and a symbolic page ``page`` of its window.

    Attributes
    ----------
    state : Signal
        What is stored of the page.
    accept, done, done_epoch : list
        What the paths tell the drain, per direction.
    counts : list
        Transactions accepted and not answered, per direction and epoch.
    """

    def __init__(self, h: Harness, params: FlexMemParams):
        self.h, self.params = h, params
        self.core = core = FlexCore(params=params)
        module = core.elaborate(None)
        self.read, self.write = module.submodules.read_path, module.submodules.write_path
        for path in (self.read, self.write):
            path.elaborate = lambda platform: Module()
        self.bursts = PAGE_BYTES * 8 // params.bus.data_width // params.scrub_beats
        self.shift = exact_log2(params.group)
        core.elaborate = lambda platform: module
        self.page = h.constant("page", exact_log2(params.pages))
        self._views: dict[str, Signal] = {}
        self.state = self.view(self.page, "state")

    def build(self) -> None:
        """Add the core; views must have been asked for before."""
        h, core = self.h, self.core
        h.dut(core)
        self.states = h.fragment("engine").find_generated("engine").encoding
        self.epoch = h.inner("drain.epoch")
        for name in filter(core.signature.members.__contains__, _CONTROLS):
            value = getattr(core, name)
            h.m.d.comb += value.eq(h.free(name, value.shape()))
        self._commands()
        self._transactions()
        self._scrubs()
        self.pfn = Signal(core.live.base.shape().width, name="pfn")
        h.m.d.comb += self.pfn.eq(core.live.base + self.page)
        # Before the window is taken over its size is zero, and no page has a state yet. Then it never changes.
        h.assume("page_of_the_window", (core.live.pages == 0) | (self.page < core.live.pages))

    def view(self, page, name: str) -> Signal:
        """What is stored of ``page``, by a read port of its own."""
        port = self.core.table.states.read_port(domain="comb")
        stored = Signal(len(CODES), name=name)
        self.h.m.d.comb += [port.addr.eq(page >> self.shift), stored.eq(self.code_in(port.data, page))]
        return stored

    def code_in(self, word: Value, page) -> Value:
        """Code word of ``page`` in a table word."""
        return code_in(word, page, group=self.params.group)

    def _commands(self) -> None:
        h = self.h
        for n, port in enumerate(self.core.commands):
            for name in ("start", "code"):
                value = getattr(port, name)
                h.m.d.comb += value.eq(h.free(f"{name}{n}", value.shape()))
            for name in ("first", "count"):
                given, kept = (
                    h.free(f"{name}{n}", self.core.live.base.shape().width + 2),
                    Signal(32, name=f"kept_{name}{n}"),
                )
                value = getattr(port, name)
                h.m.d.comb += value.eq(Mux(port.busy, kept, given))
                h.m.d.sync += kept.eq(value)

    def _transactions(self) -> None:
        h, m, params = self.h, self.h.m, self.params
        limit = accepted_limit(params)
        self.accept, self.done, self.done_epoch, self.counts = [], [], [], []
        for n, path in enumerate((self.read, self.write)):
            accept, done, epoch = h.free(f"accept{n}", 1), h.free(f"done{n}", 1), h.free(f"done_epoch{n}", 1)
            m.d.comb += [path.accept.eq(accept), path.done.eq(done), path.done_epoch.eq(epoch)]
            counts = [Signal(range(limit + 1), name=f"count{n}{e}") for e in range(2)]
            for e, count in enumerate(counts):
                down = done & (epoch == e)
                m.d.sync += count.eq(count + (accept & (self.epoch == e)) - down)
                h.assume(f"answers{n}{e}_are_owed", ~down | (count != 0))
            h.assume(f"accepts{n}_while_open", ~accept | (self.core.open & (counts[0] + counts[1] < limit)))
            self.accept.append(accept)
            self.done.append(done)
            self.done_epoch.append(epoch)
            self.counts.append(counts)

    def _scrubs(self) -> None:
        h, m, write, ids = self.h, self.h.m, self.write, 1 << self.params.bus.id_width
        bursts = self.bursts
        m.d.comb += write.scrub_aw.ready.eq(h.free("scrub_ready", 1))
        for name, field in (("valid", 1), ("id", self.params.bus.id_width), ("okay", 1)):
            m.d.comb += write.scrub_b[name].eq(h.free(f"scrub_b_{name}", field))
        self.scrub_sent = write.scrub_aw.valid & write.scrub_aw.ready
        self.scrub_pfn = write.scrub_aw.payload.addr >> PAGE_SHIFT
        self.unanswered = []
        for n in range(ids):
            # Wide enough for any number that the claims could be wrong about: more than a page's bursts saturate it.
            count = Signal(range(2 * bursts + 1), name=f"unanswered{n}")
            up = self.scrub_sent & (write.scrub_aw.payload.id == n)
            down = write.scrub_b.valid & (write.scrub_b.id == n)
            m.d.sync += count.eq(Mux(up & ~down & (count == 2 * bursts), count, count + up - down))
            h.assume(f"scrub_answer{n}_is_owed", ~down | (count != 0))
            self.unanswered.append(count)

    def engine_in(self, *names: str) -> Value:
        """Whether the command engine is in one of the states ``names``."""
        state = self.h.inner("engine.engine_state")
        return Cat(state == self.states[name] for name in names).any()

    def is_in(self, code: Value, *states: RecallState) -> Value:
        """Whether ``code`` is the code word of one of ``states``."""
        result = code == CODES[states[0]]
        for state in states[1:]:
            result = result | (code == CODES[state])
        return result

    @property
    def initialised(self) -> Value:
        """Every page of the window has a state."""
        return self.core.live.initialised

    def changed_to(self) -> Value:
        """What the page will be in the next cycle, by what is written in this one."""
        write = self.core.table
        here = write.write_en & (write.write_word == self.page >> self.shift)
        return Mux(here, self.code_in(write.write_data, self.page), self.state)


class Watch:
    """Any one transaction to the symbolic page: picked at its acceptance, followed to its answer.

    It is judged by what is stored in the cycle after its acceptance, as the lookup does it, and dropped if denied.

    Attributes
    ----------
    normal, secure : Signal
        It was allowed as an access of that world, and is not answered.
    """

    def __init__(self, of: Management):
        h, m = of.h, of.h.m
        direction, pick, last = h.constant("watch_direction", 1), h.free("watch_pick", 1), h.free("watch_answer", 1)
        S = RecallState
        self.active, self.judging, self.epoch = (
            Signal(name="watched"),
            Signal(name="judging"),
            Signal(name="watch_epoch"),
        )
        self.normal, self.secure = Signal(name="watch_normal"), Signal(name="watch_secure")
        self.begins = Signal(name="watch_begins")
        done = Mux(
            direction, of.done[1] & (of.done_epoch[1] == self.epoch), of.done[0] & (of.done_epoch[0] == self.epoch)
        )
        self.count = count = Mux(
            direction,
            Mux(self.epoch, of.counts[1][1], of.counts[1][0]),
            Mux(self.epoch, of.counts[0][1], of.counts[0][0]),
        )
        self.ends = Signal(name="watch_ends")
        m.d.comb += [
            self.begins.eq(~self.active & Mux(direction, of.accept[1], of.accept[0]) & pick),
            # The last answer of its direction and epoch is its own, if none before was.
            self.ends.eq(self.active & done & (last | (count == 1))),
        ]
        m.d.sync += self.judging.eq(self.begins)
        with m.If(self.begins):
            m.d.sync += [self.active.eq(1), self.epoch.eq(of.epoch)]
        with m.If(self.judging):
            normal, secure = of.is_in(of.state, S.NORMAL), of.is_in(of.state, S.FLEX, S.RECALLING, S.SEALED)
            m.d.sync += [self.normal.eq(normal), self.secure.eq(secure)]
        with m.If(self.ends):
            m.d.sync += [self.active.eq(0), self.normal.eq(0), self.secure.eq(0)]
        # A verdict takes a cycle, and an answer at least one more.
        h.assume("verdict_before_answer", ~(self.judging & self.ends))

"""A page-state table in memory: what its cache answers, where its lines go, and that nobody else reaches them."""

from unittest.mock import patch

from amaranth.hdl import Cat, Const, Mux, Signal

from flexserve_hw.bus.axi4 import Resp
from flexserve_hw.params import BusParams, FlexMemParams
from flexserve_hw.tzasc.cache import CachedTable
from flexserve_hw.tzasc.fetch import line_address
from flexserve_hw.tzasc.layouts import PAGE_SHIFT
from flexserve_hw.tzasc.line import CHECK_WIDTH, line_of, memory_pages
from flexserve_hw.tzasc.lookup import Lookup
from flexserve_hw.tzasc.states import CODE_WIDTH
from flexserve_hw.tzasc.walk import HintedWalk
from flexserve_hw.tzasc.window import Window
from tests.formal.axi import any_region
from tests.formal.harness import Harness, proof
from tests.formal.management import reduced

REDUCTIONS = {
    "4 table words of 1 page, 2 cached": "two words share an entry and two do not; a page's bits are copied together",
    "a line of one beat": "beats are shifted in and counted; random tests and the soak campaign run lines of two",
    "two of the three ports of management never ask": "they are like the third, and take turns with it",
    "the check of a line is any, and any line may pass it": "a line that fails it is not used; no more rests on it",
    "one word is followed, any of them": "lines of the others hold anything in every cycle, so nothing rests on them",
}
_AHEAD = 4


def small() -> FlexMemParams:
    """Parameters of the table."""
    bus = BusParams(addr_width=15, data_width=64, id_width=1)
    return FlexMemParams(bus=bus, pages=4, group=1, cache_lines=2, scrub_slots=1)


@proof(
    reductions={"64 pages of 1 to a word, lines of 1,024 bits": "a table of two pages, so that its place has an end"},
    variants={"reads": {"write": False}, "writes": {"write": True}},
    limit=200,
)
def place(h: Harness, *, write: bool) -> None:
    """No access to the memory of the table is ever allowed, whatever regions, window and states say."""
    p = reduced(pages=64, cache_lines=1)
    dut = h.dut(Lookup(params=p, write=write))
    h.drive(dut, "in", but=("regions",))
    any_region(h, dut.regions)
    window, pfn, size = dut.window, dut.upstream.payload.addr >> PAGE_SHIFT, memory_pages(p)
    own, past = Signal(name="to_the_table"), Signal(name="behind_the_table")
    with h.m.If(dut.upstream.valid & dut.upstream.ready):
        h.m.d.sync += [
            own.eq((window.table <= pfn) & (pfn < window.table + size)),
            past.eq(pfn == window.table + size),
        ]
    h.assume("table_is_aligned", window.table & (size - 1) == 0)
    allowed = dut.verdict.valid & dut.verdict.payload.allow
    h.prove("table_in_memory_is_nobodys", ~(allowed & own), sec="SEC-01 SEC-02 SEC-11")
    h.cover("page_behind_the_table", allowed & past)
    h.cover("table_is_gone_for", dut.verdict.valid & own)


@proof(
    reductions={"64 pages of 1 to a word, lines of 1,024 bits": "a table of two pages, so that its place has an end"},
    limit=200,
)
def window(h: Harness) -> None:
    """A window is taken over only if the table lies apart from it, aligned, and within memory; so scrubs miss it."""
    p = reduced(pages=64, cache_lines=1)
    dut = h.dut(Window(params=p))
    h.drive(dut, "in")
    size, end = memory_pages(p), 1 << (p.bus.addr_width - PAGE_SHIFT)
    base, pages, table = (Signal(34, name=name) for name in ("base", "pages", "table"))
    h.m.d.comb += [base.eq(dut.window.base), pages.eq(dut.window.pages), table.eq(dut.window.table)]
    live = dut.initialise | dut.window.initialised | dut.ready
    apart = (table + size <= base) | (base + pages <= table)
    h.prove("table_lies_apart_from_the_window", ~live | apart, sec="SEC-02 SEC-11")
    h.prove("table_lies_within_memory", ~live | ((table + size <= end) & (table & (size - 1) == 0)), sec="SEC-11")
    h.cover("table_before_the_window", live & (table < base))
    h.cover("table_behind_the_window", live & (table > base))


class _Memory:
    """The memory of the table, as it looks from one word: it may show a line from when it has it, or from the answer.

    ``fetched`` are the states that a fetch of the word brings, any that the memory may show when it is asked.
    """

    def __init__(self, h: Harness, dut: CachedTable, word, base, p: FlexMemParams):
        m, bus = h.m, dut.bus
        for name in ("ar", "aw", "w"):
            m.d.comb += getattr(bus, name).ready.eq(h.free(f"{name}_ready", 1))
        mine = line_address(base, word, params=p)
        first, shown = h.constant("memory", CODE_WIDTH), Signal(CODE_WIDTH, name="shown")
        present = Signal(CODE_WIDTH, name="present")
        m.d.comb += present.eq(Mux(h.started, shown, first))
        m.d.sync += shown.eq(present)

        # Lines that are written and not answered, the oldest first.
        slots = [(Signal(name=f"mine{n}"), Signal(CODE_WIDTH, name=f"line{n}")) for n in range(_AHEAD)]
        level = Signal(range(_AHEAD + 1), name="unanswered")
        address, beat = bus.aw.valid & bus.aw.ready, bus.w.valid & bus.w.ready
        had_address, had_beat = Signal(name="had_address"), Signal(name="had_beat")
        its_mine, its_line = Signal(name="its_mine"), Signal(CODE_WIDTH, name="its_line")
        here, line = Signal(name="here"), Signal(CODE_WIDTH, name="here_line")
        whole, answer = (address | had_address) & (beat | had_beat), bus.b.valid & bus.b.ready
        m.d.comb += [
            here.eq(Mux(address, bus.aw.payload.addr == mine, its_mine)),
            line.eq(Mux(beat, bus.w.payload.data[:CODE_WIDTH], its_line)),
        ]
        m.d.sync += [
            had_address.eq((address | had_address) & ~whole),
            had_beat.eq((beat | had_beat) & ~whole),
            its_mine.eq(here),
            its_line.eq(line),
            level.eq(level + whole - answer),
        ]
        for n, (flag, states) in enumerate(slots):
            after = slots[n + 1] if n + 1 < _AHEAD else (Const(0), Const(0))
            with m.If(answer):
                m.d.sync += [flag.eq(after[0]), states.eq(after[1])]
            with m.If(whole & (level - answer == n)):
                m.d.sync += [flag.eq(here), states.eq(line)]
        h.assume("answers_what_was_written", ~bus.b.valid | (level != 0))
        kept = h.free("kept", 1)
        with m.If(answer & slots[0][0] & ((bus.b.payload.resp == Resp.OKAY) | kept)):
            m.d.sync += shown.eq(slots[0][1])
        m.d.comb += [bus.b.valid.eq(h.free("b_valid", 1)), bus.b.payload.resp.eq(h.free("b_resp", 2))]

        # A fetch brings what memory shows, or any line on the way.
        asked, reading, ours = bus.ar.valid & bus.ar.ready, Signal(name="reading"), Signal(name="reads_word")
        self.fetched, pick = Signal(CODE_WIDTH, name="fetched"), h.free("pick", range(_AHEAD + 1))
        with m.If(asked):
            m.d.sync += [reading.eq(1), ours.eq(bus.ar.payload.addr == mine), self.fetched.eq(present)]
            for n, (flag, states) in enumerate(slots):
                with m.If((pick == n + 1) & (level > n) & flag):
                    m.d.sync += self.fetched.eq(states)
        with m.Elif(bus.r.valid & bus.r.ready):
            m.d.sync += reading.eq(0)
        good = line_of(self.fetched, h.free("line_check", CHECK_WIDTH), params=p)
        m.d.comb += [
            bus.r.valid.eq(h.free("r_valid", 1) & reading),
            bus.r.payload.resp.eq(h.free("r_resp", 2)),
            bus.r.payload.data.eq(Mux(ours, good, h.free("r_data", len(good)))),
        ]
        self.asked, self.slots, self.level, self.present = asked, slots, level, present
        self.reading, self.ours = reading, ours
        self.half = (had_address, had_beat, its_mine, its_line)


def _lemmas(h: Harness, dut, memory: _Memory, looks, *, word, base, now, known, params: FlexMemParams) -> None:
    """Where the newest states of the word are: in every entry that holds it, and at the end of its way to memory."""
    m, gone = h.m, h.inner("gone")
    for name, look in looks.items():
        m.d.comb += look.addr.eq(word[:1])
        mark = look.data.mark
        holds = (mark.as_value() == ~look.data.complement) & mark.valid & (mark.tag == word[1])
        h.prove(f"{name}_bank_is_up_to_date", ~(known & holds) | gone | (look.data.states == now), lemma=True)

    waiting = [h.inner(f"writer.waiting{n}") for n in range(_AHEAD)]
    words = [h.inner(f"writer.word{n}") for n in range(_AHEAD)]
    head, tail = h.inner("writer.head"), h.inner("writer.tail")
    bus, (had_address, had_beat, its_mine, its_line) = dut.bus, memory.half
    sending, count = bus.aw.valid | bus.w.valid, sum(waiting)
    h.prove("lines_are_counted", count == memory.level + sending, lemma=True)
    h.prove("tail_is_behind_them", tail == (head + count)[:2], lemma=True)
    h.prove(
        "halves_are_of_one_line",
        (had_address == (sending & ~bus.aw.valid)) & (had_beat == (sending & ~bus.w.valid)),
        lemma=True,
    )
    for n in range(_AHEAD):
        h.prove(f"ring_has_no_hole{n}", waiting[n] == ((Const(n, 2) - head)[:2] < count), lemma=True)

    def at(index):
        found = words[0]
        for n in range(1, _AHEAD):
            found = Mux(index[:2] == n, words[n], found)
        return found

    last = Signal(2, name="last_word")
    m.d.comb += last.eq(at(tail - 1))
    address, states = h.inner("writer.address"), h.inner("writer.states")
    h.prove("line_goes_to_its_place", ~sending | (address == line_address(base, last, params=params)), lemma=True)
    h.prove("half_is_known", ~had_address | (its_mine == (last == word)), lemma=True)
    h.prove("half_is_kept", ~had_beat | (its_line == states), lemma=True)
    newest = memory.present
    for n, (mine, line) in enumerate(memory.slots):
        there = memory.level > n
        h.prove(f"slot_is_of_its_word{n}", ~there | (mine == (at(head + n) == word)), lemma=True)
        newest = Mux(there & mine, line, newest)
    newest = Mux(sending & (last == word), states, newest)
    h.prove("newest_is_on_its_way_or_there", ~known | gone | (newest == now), lemma=True)

    state, fetched, stale = h.inner("fetch.fetch_state"), h.inner("fetch.fetched"), h.inner("fetch.stale")
    asks, reads, checks = state == 1, state == 2, state >= 3
    under_way = Cat(w & (n == word) for w, n in zip(waiting, words, strict=True)).any()
    mine = (fetched == word) & ~stale
    h.prove("state_of_the_fetch_is_one", state <= 4, lemma=True)
    h.prove("memory_reads_what_is_fetched", memory.reading == reads, lemma=True)
    h.prove(
        "fetch_goes_to_its_place",
        ~(asks | reads) | (h.inner("fetch.address") == line_address(base, fetched, params=params)),
        lemma=True,
    )
    h.prove("fetch_is_of_its_word", ~reads | (memory.ours == (fetched == word)), lemma=True)
    h.prove("fetch_overtakes_no_write", ~((asks | reads | checks) & mine & under_way), lemma=True)
    h.prove("line_on_its_way_is_the_present", ~(reads & mine & known) | gone | (memory.fetched == now), lemma=True)
    line, failed = h.inner("fetch.line"), h.inner("fetch.failed")
    h.prove(
        "line_that_came_is_the_present",
        ~(checks & mine & known) | gone | failed | (line[:CODE_WIDTH] == now),
        lemma=True,
    )


@proof(reductions=REDUCTIONS, limit=600, cover_depth=24)
def table(h: Harness) -> None:
    """An answer is what the word held at some time since the question, or nothing; lines go to the table alone.

    The word is written at any time, displaced at any time, and on its way to memory and back for any time; memory may
    answer with errors.
    """
    p = small()
    made = CachedTable(params=p)
    looks = {name: bank.read_port(domain="comb") for name, bank in made.banks.items()}
    # Any line may pass its check, or fail it.
    with patch("flexserve_hw.tzasc.fetch.check_of", lambda states, word: h.free("check", CHECK_WIDTH)):
        dut = h.dut(made)
    m = h.m
    word, base = h.constant("word", 2), h.constant("base", p.bus.addr_width - PAGE_SHIFT)
    guess = h.constant("guess", CODE_WIDTH)
    m.d.comb += dut.base.eq(base)
    h.drive(dut, "in", but=("base", "bus", "scan", "query"))
    memory = _Memory(h, dut, word, base, p)

    age = Signal(range(4), name="age")
    m.d.sync += age.eq(Mux(age == 3, 3, age + 1))
    asks = [getattr(dut, name).en for name in ("ar", "aw", "walk")]
    h.assume("nobody_asks_before_the_cache_is_clear", (age == 3) | ~Cat(asks).any())
    taken = dut.write_en & dut.write_ready & ~h.inner("gone") & ~dut.corrupt
    written = taken & (dut.write_word == word)
    now, known = Signal(CODE_WIDTH, name="now"), Signal(name="known")
    holds, sure = Signal(CODE_WIDTH, name="holds"), Signal(name="sure")
    m.d.comb += [holds.eq(Mux(written, dut.write_data, now)), sure.eq(known | written)]
    m.d.sync += [now.eq(holds), known.eq(sure)]

    _lemmas(h, dut, memory, looks, word=word, base=base, now=now, known=known, params=p)
    for name in ("ar", "walk"):
        port = getattr(dut, name)
        waits, held, fetched = (Signal(name=f"{name}_{what}") for what in ("asked", "held", "fetched"))
        h.assume(f"{name}_asks_once", ~port.en | ~h.past(waits) | port.valid)
        with m.If(port.en):
            m.d.sync += [waits.eq((port.word == word) & sure), held.eq(holds == guess), fetched.eq(0)]
        with m.Else():
            m.d.sync += [
                held.eq(held | (written & (dut.write_data == guess))),
                fetched.eq(fetched | (memory.asked & waits & ~port.valid)),
            ]
        h.prove(f"{name}_has_seen_the_present", ~waits | (now != guess) | held, lemma=True)
        answer = waits & port.valid & (port.data == guess) & (guess != 0)
        h.prove(f"{name}_answers_what_was_held_since", ~answer | held, sec="SEC-01 SEC-02 SEC-03 SEC-11")
        answered = h.past(port.valid & ~port.en)
        h.prove(
            f"{name}_answer_stays",
            ~answered | ~h.past(waits) | port.en | (port.valid & (port.data == h.past(port.data))),
            sec="SEC-06",
        )
        h.cover(f"{name}_answers_from_the_cache", answer & ~fetched & (age == 3))
        h.cover(f"{name}_answers_from_memory", answer & fetched)
    inside = [
        ~valid | (address >> PAGE_SHIFT == base)
        for valid, address in (
            (dut.bus.ar.valid, dut.bus.ar.payload.addr),
            (dut.bus.aw.valid, dut.bus.aw.payload.addr),
        )
    ]
    h.prove("lines_lie_in_the_table", inside[0] & inside[1], sec="SEC-02 SEC-11")
    broken = h.past(dut.corrupt)
    h.prove(
        "nothing_new_is_believed_of_a_corrupt_window",
        ~broken | ~h.past(dut.ar.en) | (dut.ar.valid & (dut.ar.data == 0)),
        sec="SEC-11",
    )


@proof(
    reductions={"8 table words, one row of hints": "a row is read as a whole; rows follow each other by number"},
    limit=200,
)
def hints(h: Harness) -> None:
    """The word that the scrubber looks at stays until it has; a hint stays until its word was found clean."""
    p = reduced(pages=8, cache_lines=1)
    dut = HintedWalk(params=p)
    look = dut.hints.read_port(domain="comb")
    h.dut(dut)
    word, last = h.constant("word", 3), h.constant("last", 3)
    h.drive(dut, "in", but=("last", "next"))
    h.m.d.comb += [dut.last.eq(last), dut.next.eq(h.free("next", 1) & dut.valid), look.addr.eq(0)]
    waits, before = h.past(dut.valid & ~dut.next), h.past(dut.word)
    h.prove("word_stays_until_it_is_looked_at", ~waits | (dut.valid & (dut.word == before)), sec="SEC-02")
    h.prove("words_lie_in_the_window", ~dut.valid | (dut.word <= last), sec="SEC-02")
    hinted = Signal(name="hinted")
    entered = dut.entered & (dut.entered_word == word)
    with h.m.If(entered):
        h.m.d.sync += hinted.eq(1)
    with h.m.Elif(dut.valid & dut.next & dut.clean & ~dut.entered & (dut.word == word)):
        h.m.d.sync += hinted.eq(0)
    h.prove("hint_stays_until_its_word_is_clean", ~hinted | look.data.bit_select(word, 1), sec="SEC-07")
    h.cover("looks_at_a_hint", hinted & dut.valid & dut.next & (dut.word == word) & (word == 5))
    h.cover("hint_comes_while_another_is_looked_at", waits & entered & (dut.word != word) & (dut.word != 0))

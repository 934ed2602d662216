"""Numbers in full width: the window that is taken over, what the engine passes on, what a recall by size still owes."""

from amaranth.hdl import Cat, Mux, Signal, Value

from flexserve_hw.tzasc.commands import CommandEngine
from flexserve_hw.tzasc.freed import FreedQueue
from flexserve_hw.tzasc.layouts import group_shift, pfn_width
from flexserve_hw.tzasc.window import Window
from flexserve_sw.regs import RecallResult
from tests.formal.harness import Harness, proof
from tests.formal.ideal import Nothing, replace
from tests.formal.management import CODES, code_in, legal_codes
from tests.formal.proofs.shown import PARAMS, REDUCTIONS


@proof(reductions={"64 pages, 4 to a table word": "limits in one comparison each; sizes and addresses have full width"})
def window(h: Harness) -> None:
    """A sound window is taken over as it is configured, once; any other never; it is ready when it was scrubbed."""
    dut = h.dut(Window(params=PARAMS))
    h.drive(dut, "in")
    m, live = h.m, dut.window
    end = Signal(33, name="end")
    m.d.comb += end.eq(dut.base + dut.pages)
    whole = (dut.base % PARAMS.group == 0) & (dut.pages % PARAMS.group == 0)
    sound = (dut.pages != 0) & (dut.pages <= PARAMS.pages) & whole & (end <= 1 << pfn_width(PARAMS))
    seen, base, pages = Signal(name="enabled"), Signal(32, name="taken_base"), Signal(32, name="taken_pages")
    writing, written, ready = (Signal(name=name) for name in ("writing", "all_written", "all_scrubbed"))
    m.d.sync += [seen.eq(seen | dut.enable), writing.eq(writing & ~dut.written)]
    with m.If(dut.enable & ~seen & sound):
        m.d.sync += [base.eq(dut.base), pages.eq(dut.pages), writing.eq(1)]
    with m.If(writing & dut.written):
        m.d.sync += written.eq(1)
    with m.If(written & dut.scrubbed):
        m.d.sync += ready.eq(1)
    h.prove("base_is_the_one_given", live.base == base, sec="SEC-03")
    h.prove("size_is_the_one_given", live.pages == pages, sec="SEC-03")
    h.prove("table_is_written_once", (dut.initialise == writing) & (live.initialised == written), sec="SEC-03")
    h.prove("ready_when_scrubbed", dut.ready == ready, sec="SEC-01")
    h.prove("no_alarm_without_an_upset", ~(live.corrupt | dut.upset), sec="SEC-11")
    h.cover("ready_at_the_end_of_memory", dut.ready & (live.base + live.pages == 1 << pfn_width(PARAMS)))


@proof(reductions=REDUCTIONS)
def engine(h: Harness) -> None:
    """A command is checked with all its bits, a refusal comes back with all of its own, and alarms name their page."""
    dut = CommandEngine(params=PARAMS)
    check = replace(dut, check=Nothing).submodules.check
    h.dut(dut)
    h.drive(dut, "in")
    m, frame = h.m, dut.decision.frame
    for name in ("result", "offender", "sources", "target"):
        value = Value.cast(getattr(check, name))
        m.d.comb += value.eq(h.free(f"check_{name}", len(value)))
    m.d.comb += check.range.eq(h.free("check_range", len(check.range.as_value())))
    given = [Signal(4, name=f"given{n}") for n in range(2)]
    for code, port in zip(given, dut.frames, strict=True):
        with m.If(port.start & ~port.busy):
            m.d.sync += code.eq(port.code)
    for name, (normal, secure) in {
        "code": given,
        "first": [port.first for port in dut.frames],
        "count": [port.count for port in dut.frames],
    }.items():
        h.prove(f"{name}_is_checked_as_given", getattr(check, name) == Mux(frame, secure, normal), sec="SEC-05")
    h.prove("window_is_checked_as_it_is", check.window.as_value() == dut.window.as_value(), sec="SEC-05")
    h.prove("lock_is_checked_as_it_is", (check.locked == dut.locked) & (check.ready == dut.ready), sec="SEC-08")
    decoding = h.inner("engine_state") == h.fragment("").find_generated("engine").encoding["DECODE"]
    for n, port in enumerate(dut.frames):
        refused = decoding & (frame == n) & (check.result.as_value() != RecallResult.OK)
        before = h.past(h.past(refused))
        said = (port.result.as_value() == h.past(h.past(check.result))) & (
            port.offender == h.past(h.past(check.offender))
        )
        h.prove(f"frame{n}_is_told_why_and_where", ~before | said, sec="SEC-05")
        h.cover(f"frame{n}_is_refused", before)

    shift, group = group_shift(PARAMS), PARAMS.group
    at, named = Signal(len(dut.corrupt_pfn), name="alarm_at"), Signal(len(CODES), name="alarm_about")
    m.d.comb += [at.eq(dut.corrupt_pfn - dut.window.base), named.eq(code_in(dut.table.data, at, group=group))]
    h.prove("alarm_names_a_page_of_the_word", ~dut.corrupt | (at >> shift == dut.write_word), sec="SEC-11")
    h.prove("alarm_names_a_corrupt_page", ~dut.corrupt | ~legal_codes(named), sec="SEC-11")
    earlier = Cat(
        (n < at[:shift]) & ~legal_codes(code_in(dut.table.data, n, group=group)) & inside
        for n, inside in enumerate(_in_range(h, dut))
    )
    h.prove("alarm_names_the_first_of_the_word", ~dut.corrupt | ~earlier.any(), sec="SEC-11")
    h.cover("alarm", dut.corrupt & (at == 6))


def _in_range(h: Harness, dut) -> list:
    """Per page of the word that the engine looks at: it lies in the range of its work."""
    pages = h.inner("pages")
    width = len(pages) // 2
    first, last = pages[:width], pages[width:]
    shift = group_shift(PARAMS)
    places = [(dut.write_word << shift) | n for n in range(PARAMS.group)]
    return [(first <= place) & (place <= last) for place in places]


@proof(reductions={"queue of 4": "full and empty are told apart, and some in between"})
def freed(h: Harness) -> None:
    """What is owed is counted in full and paid page by page; pages in the queue are counted, the first is told of."""
    dut = h.dut(FreedQueue(params=PARAMS))
    h.drive(dut, "in")
    m, depth = h.m, PARAMS.freed_depth
    h.assume("room_for_what_comes", ~(dut.push & (dut.count == depth)))
    most = (1 << 32) - 1
    owed, total = Signal(32, name="still_owed"), Signal(34, name="asked_for")
    m.d.comb += total.eq(owed + Mux(dut.request, dut.request_pages, 0))
    rest = Mux(dut.push & (total != 0), total - 1, total)
    m.d.sync += owed.eq(Mux(rest > most, most, rest))
    h.prove("owed_is_what_was_asked_and_is_not_paid", dut.owed == owed, sec="SEC-07")
    h.prove("paid_with_the_last_page", dut.paid == (dut.push & (total == 1)), sec="SEC-07")
    count = Signal(range(depth + 1), name="waiting")
    m.d.sync += count.eq(count + dut.push - (dut.pop & (count != 0)))
    h.prove("waiting_pages_are_counted", dut.count == count, sec="SEC-07")
    h.prove("head_is_there_while_some_wait", dut.valid == (count != 0), sec="SEC-07")
    h.prove("no_page_without_one", dut.valid | (dut.pfn == 0), sec="SEC-07")
    h.prove("told_when_the_first_comes", dut.arrived == (dut.push & (count == 0)), sec="SEC-07")
    h.cover("more_owed_than_can_be_counted", h.past(total > most) & (owed == most))
    h.cover("full", count == depth)

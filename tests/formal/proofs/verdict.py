"""The verdict: an access passes only if its page gives its world access in the cycle in which it is accepted."""

from amaranth.hdl import Mux, Signal
from amaranth.utils import exact_log2

from flexserve_hw.tzasc.layouts import PAGE_SHIFT
from flexserve_hw.tzasc.lookup import Lookup
from flexserve_hw.tzasc.pages import PageTable
from flexserve_sw.machine import World
from flexserve_sw.recall import ACCESS
from tests.formal.axi import any_region
from tests.formal.harness import Harness, proof
from tests.formal.management import CODES, REDUCTIONS, code_in, legal_codes, reduced

VARIANTS = {
    f"{name} {kind}": {"pages": pages, "group": group, "write": kind == "writes"}
    for name, (pages, group) in {"words": (2, 1), "groups": (4, 2)}.items()
    for kind in ("reads", "writes")
}


@proof(reductions=REDUCTIONS, variants=VARIANTS, limit=200)
def lookup(h: Harness, *, write: bool, **params: int) -> None:
    """The state in the cycle of acceptance decides, writes of it included; what is no state denies and alarms."""
    p = reduced(**params)
    m, shift = h.m, exact_log2(p.group)
    table, dut = PageTable(params=p), Lookup(params=p, write=write)
    port = table.states.read_port(domain="comb")
    page = h.constant("page", exact_log2(p.pages))
    m.submodules.table = table
    h.dut(dut)
    for name in ("write_en", "write_word", "write_data"):
        value = getattr(table, name)
        m.d.comb += value.eq(h.free(name, value.shape()))
    m.d.comb += [
        table.ar.en.eq(dut.table.en),
        table.ar.word.eq(dut.table.word),
        dut.table.data.eq(table.ar.data),
        dut.open.eq(h.free("open", 1)),
        dut.epoch.eq(h.free("epoch", 1)),
        dut.window.eq(h.free("window", dut.window.shape().size)),
        dut.upstream.valid.eq(h.free("valid", 1)),
        dut.upstream.payload.eq(h.free("request", dut.upstream.payload.shape().size)),
        dut.verdict.ready.eq(h.free("ready", 1)),
        port.addr.eq(page >> shift),
    ]
    if "valid" in dut.table.signature.members:
        m.d.comb += dut.table.valid.eq(table.ar.valid)
    any_region(h, dut.regions)
    stored = Signal(len(CODES), name="state")
    m.d.comb += stored.eq(code_in(port.data, page, group=p.group))

    request, window, verdict = dut.upstream.payload, dut.window, dut.verdict.payload
    accepted, fresh = dut.upstream.valid & dut.upstream.ready, Signal(name="just_accepted")
    mine, inside, ready, broken = (
        Signal(name="to_page"),
        Signal(name="in_window"),
        Signal(),
        Signal(name="broken_window"),
    )
    kept, known, turn = Signal.like(request, name="kept"), Signal(len(CODES), name="decides"), Signal(name="kept_epoch")
    pfn = request.addr >> PAGE_SHIFT
    # Bounds as a person reads them: no sum wraps.
    bottom, top = Signal(34, name="bottom"), Signal(34, name="top")
    m.d.comb += [bottom.eq(window.base), top.eq(window.base + window.pages)]
    m.d.sync += fresh.eq(accepted)
    with m.If(accepted):
        m.d.sync += [
            kept.eq(request),
            turn.eq(dut.epoch),
            inside.eq((bottom <= pfn) & (pfn < top)),
            mine.eq((bottom <= pfn) & (pfn < top) & (pfn == bottom + page)),
            ready.eq(window.initialised),
            broken.eq(window.corrupt),
        ]
    h.assume("window_fits_the_table", window.pages <= p.pages)
    # The first cycle after the acceptance shows the table with the writes of the cycle of acceptance.
    decides = Signal(len(CODES), name="state_at_acceptance")
    m.d.comb += decides.eq(Mux(fresh, stored, known))
    m.d.sync += known.eq(decides)

    judged, allowed = dut.verdict.valid, dut.verdict.valid & verdict.allow
    secure = ~kept.prot.nonsecure
    opens = {world: sum(code for state, code in CODES.items() if world in ACCESS[state]) for world in World}
    legal = legal_codes(decides)
    h.prove(
        "seen_is_what_was_stored",
        ~(judged & mine & ready & ~broken) | (code_in(dut.table.data, page, group=p.group) == decides),
        lemma=True,
    )
    h.prove(
        "secure_access_to_the_secure_worlds_pages_alone",
        ~(allowed & mine & secure) | (legal & (decides & opens[World.SECURE]).any()),
        sec="SEC-03 SEC-11",
    )
    h.prove(
        "normal_access_to_normal_pages_alone",
        ~(allowed & mine & ~secure) | (legal & (decides & opens[World.NORMAL]).any()),
        sec="SEC-01 SEC-02 SEC-11",
    )
    h.prove("nothing_passes_before_the_table_is_written", ~(allowed & inside) | ready, sec="SEC-03")
    h.prove("nothing_passes_a_corrupt_window", ~allowed | ~broken, sec="SEC-11")
    h.prove("corrupt_window_raises_the_alarm", ~(judged & broken) | verdict.corrupt, sec="SEC-11")
    h.prove(
        "corrupt_state_raises_the_alarm",
        ~(judged & mine & ready & ~legal) | (verdict.corrupt & ~verdict.allow),
        sec="SEC-11",
    )
    h.prove(
        "no_false_alarm",
        ~(judged & verdict.corrupt & (mine | ~inside)) | broken | (mine & ready & ~legal),
        sec="SEC-11",
    )
    h.prove(
        "verdict_is_for_what_was_accepted",
        ~judged | ((verdict.request.as_value() == kept.as_value()) & (verdict.epoch == turn)),
        sec="SEC-06",
    )
    waits = h.past(judged & ~dut.verdict.ready)
    h.prove("verdict_stands", ~waits | (judged & (verdict.as_value() == h.past(verdict))), sec="SEC-01 SEC-02")
    h.prove("accepts_while_open", ~accepted | dut.open, sec="SEC-03")
    h.cover("last_page_of_the_window", allowed & mine & (page == window.pages - 1) & secure)
    h.cover("first_page_beyond", allowed & ~inside & (kept.addr >> PAGE_SHIFT == top[:8]))
    h.cover("state_changes_under_a_verdict", judged & mine & ready & (stored != decides))
    h.cover("upset_state_is_met", judged & mine & verdict.corrupt)

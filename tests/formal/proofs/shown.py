"""What software is shown: registers that hardware writes, state queries, interrupts and alarms tell the truth."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal

from flexserve_hw.params import BusParams, FlexMemParams
from flexserve_hw.tzasc.core import FlexCore
from flexserve_hw.tzasc.frames import ManagementFrames
from flexserve_hw.tzasc.layouts import PAGE_SHIFT, group_shift
from flexserve_sw.regs import FLEX_NORMAL, FLEX_SECURE, RecallState
from tests.formal.harness import Harness, proof
from tests.formal.management import CODES, code_in

PARAMS = FlexMemParams(
    bus=BusParams(id_width=4),
    pages=64,
    group=4,
    timers=2,
    freed_depth=4,
    grace_min=40,
    grace_max=4000,
)
"""Wide enough for page numbers, counts and times to have bits of their own."""

REDUCTIONS = {
    "64 pages, 4 to a table word": "numbers are copied, added and compared; pages are told apart by word and by place",
    "2 timers": "each has registers of its own, all alike",
}


class _Bus:
    """The register bus of one frame, and the registers read on it."""

    def __init__(self, h: Harness, bus):
        self._h, self._bus = h, bus

    def _at(self, address: int):
        return self._bus.valid & (self._bus.addr[2:] == (address & 0xFFF) >> 2)

    def shows(self, address: int, value):
        """What is read at ``address`` is ``value``, of the cycle in which it was asked for."""
        asked = self._h.past(self._at(address) & ~self._bus.write)
        return ~asked | (self._bus.rdata == self._h.past(value))

    def writes(self, address: int, lanes: int = 0b1111):
        """All of the byte ``lanes`` of a register are written."""
        return self._at(address) & self._bus.write & ((self._bus.strb & lanes) == lanes)


@proof(reductions=REDUCTIONS)
def registers(h: Harness) -> None:
    """Each register of the two frames that hardware writes shows its value, with the filter's limits and clamps."""
    dut = h.dut(ManagementFrames(params=PARAMS))
    h.drive(dut, "in")
    normal, secure, window = _Bus(h, dut.normal), _Bus(h, dut.secure), dut.window
    shown = {
        (normal, FLEX_NORMAL): {
            "CAPACITY": Const(PARAMS.pages),
            "WINDOW_BASE": window.base,
            "WINDOW_PAGES": Mux(dut.ready, window.pages, 0),
            "GRACE": dut.grace,
            "SIZE_REQUEST": dut.owed,
            "FREED_COUNT": dut.freed_count,
            "FREED_POP": Cat(dut.freed_pfn, Const(0, 31 - len(dut.freed_pfn)), dut.freed_valid),
            "LENT": dut.lent,
            "SCRUB_BACKLOG": dut.backlog,
        },
        (secure, FLEX_SECURE): {
            "CAPACITY": Const(PARAMS.pages),
            "WINDOW_BASE": dut.base,
            "WINDOW_PAGES": dut.pages,
            "CONTROL": Cat(dut.locked, dut.enable, dut.ready),
            "MANAGERS": dut.managers,
            "TABLE_BASE": dut.table_base,
            "TABLE_PAGES": Const(0),
            "SIZE_OWED": dut.owed,
            "VIOLATIONS": dut.violations,
        },
    }
    for (bus, block), values in shown.items():
        for name, value in values.items():
            frame = "normal" if bus is normal else "secure"
            h.prove(f"{frame}_shows_{name.lower()}", bus.shows(getattr(block, name), value), sec="SEC-08")
    for port, bus, block, frame in zip(
        dut.commands, (normal, secure), (FLEX_NORMAL, FLEX_SECURE), ("normal", "secure"), strict=True
    ):
        status = Cat(port.busy, Const(0, 3), port.result)
        h.prove(f"{frame}_shows_status", bus.shows(block.CMD.STATUS, status), sec="SEC-08")
        h.prove(f"{frame}_shows_offender", bus.shows(block.CMD.OFFENDER, port.offender), sec="SEC-05")
    wanted = Signal(32, name="grace_given")
    bus = dut.secure
    for lane in range(4):
        with h.m.If(secure.writes(FLEX_SECURE.GRACE, 1 << lane) & ~dut.locked):
            h.m.d.sync += wanted[8 * lane : 8 * lane + 8].eq(bus.wdata[8 * lane : 8 * lane + 8])
    low, high = PARAMS.grace_min, PARAMS.grace_max
    clamped = Mux(wanted < low, low, Mux(wanted > high, high, wanted))
    h.prove("grace_is_what_was_given_within_its_limits", dut.grace == clamped, sec="SEC-07")
    for n, (running, pages, left) in enumerate(zip(dut.running, dut.ranges, dut.left, strict=True)):
        timer = FLEX_SECURE.TIMER[n]
        for name, value in {
            "FIRST": (window.base + pages.first)[:32],
            "COUNT": (pages.last - pages.first + 1)[:32],
            "LEFT": left,
        }.items():
            says = secure.shows(getattr(timer, name), Mux(running, value, 0)[:32])
            # A timer's range is in order, as it is proved of the engine.
            h.prove(f"timer{n}_shows_{name.lower()}", h.past(running & (pages.last < pages.first)) | says, sec="SEC-07")
    h.cover("a_timer_is_read", secure.shows(FLEX_SECURE.TIMER[1].LEFT, Const(0)) & (dut.secure.rdata == 0x123))


@proof(reductions=REDUCTIONS)
def interrupts(h: Harness) -> None:
    """Interrupts stand for the events that software enabled and has not cleared; the first alarm's page is kept."""
    dut = h.dut(ManagementFrames(params=PARAMS))
    h.drive(dut, "in")
    requested = dut.request & (dut.request_pages != 0)
    events = {
        "normal": (dut.commands[0].finished, dut.arrived, dut.paid),
        "secure": (dut.commands[1].finished, requested, dut.recalled, dut.expired, dut.corrupt),
    }
    for frame, block in (("normal", FLEX_NORMAL), ("secure", FLEX_SECURE)):
        bus, signals = getattr(dut, frame), Cat(events[frame])
        status, enable = Signal(len(signals), name=f"{frame}_status"), Signal(len(signals), name=f"{frame}_enable")
        clears = Mux(_Bus(h, bus).writes(block.IRQ_STATUS, 1), bus.wdata, 0)
        h.m.d.sync += status.eq((status & ~clears[: len(signals)]) | signals)
        with h.m.If(_Bus(h, bus).writes(block.IRQ_ENABLE, 1)):
            h.m.d.sync += enable.eq(bus.wdata)
        h.prove(f"{frame}_shows_its_events", _Bus(h, bus).shows(block.IRQ_STATUS, status), sec="SEC-08")
        irq = dut.irq_normal if frame == "normal" else dut.irq_secure
        h.prove(f"{frame}_is_interrupted_by_them", irq == (status & enable).any(), sec="SEC-08")
        h.cover(f"{frame}_interrupt", irq)

    secure = _Bus(h, dut.secure)
    alarm, page = Signal(name="alarm"), Signal.like(dut.corrupt_pfn, name="alarm_page")
    cleared = secure.writes(FLEX_SECURE.ALARM, 1) & dut.secure.wdata[0]
    h.m.d.sync += alarm.eq((alarm & ~cleared) | dut.corrupt)
    with h.m.If(dut.corrupt & (~alarm | cleared)):
        h.m.d.sync += page.eq(dut.corrupt_pfn)
    h.prove("alarm_is_held_until_cleared", secure.shows(FLEX_SECURE.ALARM, alarm), sec="SEC-11")
    h.prove("first_alarm_s_page_is_kept", secure.shows(FLEX_SECURE.ALARM_PAGE, page), sec="SEC-11")
    h.cover("second_alarm", alarm & dut.corrupt & (dut.corrupt_pfn != page))


@proof(reductions=REDUCTIONS, depth=4, cover_depth=8, induction=True)
def queries(h: Harness) -> None:
    """A state query is answered within four cycles with the page's state, and not if the page is not in the window."""
    dut = h.dut(ManagementFrames(params=PARAMS))
    h.drive(dut, "in", but=("window", "table"))
    m, group = h.m, PARAMS.group
    # The window stands still once it is there, and so does what is stored of any one page of it.
    window = dut.window
    for name in ("base", "pages"):
        value = getattr(window, name)
        m.d.comb += value.eq(h.constant(name, len(value)))
    m.d.comb += [window.initialised.eq(h.constant("initialised", 1)), window.corrupt.eq(h.constant("corrupt", 1))]
    page, stored = h.constant("page", 6), h.constant("stored", len(CODES))
    m.d.comb += [dut.table.valid.eq(1), dut.table.data.eq(h.free("word", group * len(CODES)))]
    shift = group_shift(PARAMS)
    asked = h.past(dut.table.en & (dut.table.word == page >> shift))
    h.assume("page_is_stored", ~asked | (code_in(dut.table.data, page, group=group) == stored))
    state = Signal(3, name="state", init=RecallState.CORRUPT)
    m.d.comb += state.eq(RecallState.CORRUPT)
    for known, code in CODES.items():
        with m.If(stored == code):
            m.d.comb += state.eq(known)
    live = window.initialised & ~window.corrupt
    for n, (frame, block) in enumerate((("normal", FLEX_NORMAL), ("secure", FLEX_SECURE))):
        bus, port = getattr(dut, frame), _Bus(h, getattr(dut, frame))
        query, age = Signal(32, name=f"{frame}_query"), Signal(3, name=f"{frame}_age")
        m.d.sync += age.eq(Mux(age == 4, 4, age + 1))
        # A question takes all its bytes or is none.
        with m.If(port.writes(block.QUERY_PAGE)):
            m.d.sync += [query.eq(bus.wdata), age.eq(0)]
        index = (query - window.base)[:32]
        inside = live & (query >= window.base) & (index < window.pages)
        # The one question of each frame is looked up in turn, and what came of it is kept.
        known, answered = h.inner(f"known{n}"), h.inner(f"valid{n}")
        here = (query >= window.base) & (index == page)
        asks = h.inner(f"{frame}.QUERY_PAGE__pfn__value")
        h.prove(f"{frame}_asks_what_was_written", asks == query, lemma=True)
        h.prove(f"{frame}_keeps_an_answer", Mux(answered, inside & (~here | (known == state)), known == 0), lemma=True)
        # At most one cycle until its turn, one for the table, one to keep the answer.
        h.prove(f"{frame}_waits_no_longer", (age < 3) | ~inside | answered, lemma=True)
        read = h.past(bus.valid & ~bus.write & (bus.addr[2:] == (block.QUERY_STATE & 0xFFF) >> 2))
        valid = bus.rdata[8]
        this, within, ripe = h.past(here), h.past(inside), h.past(age == 4)
        h.prove(f"{frame}_query_outside_is_not_answered", ~read | within | (bus.rdata == 0), sec="SEC-08")
        h.prove(f"{frame}_query_is_answered_in_time", ~(read & within & ripe) | valid, sec="SEC-08")
        h.prove(f"{frame}_answer_is_the_state", ~(read & this & valid) | (bus.rdata[:3] == h.past(state)), sec="SEC-08")
        h.prove(f"{frame}_no_state_without_answer", ~read | valid | (bus.rdata == 0), sec="SEC-08")
        h.cover(f"{frame}_is_answered", read & this & valid & (bus.rdata[:3] == RecallState.SEALED))


@proof(reductions={"64 pages, 4 to a table word": "numbers are copied and chosen"})
def alarms(h: Harness) -> None:
    """The core passes on every alarm, with the page of one: of the engine's, else the read's, else the write's."""
    core = FlexCore(params=PARAMS)
    module = core.elaborate(None)
    parts = module.submodules
    for part in (parts.window, parts.engine, parts.read_path, parts.write_path):
        part.elaborate = lambda platform: Module()
    core.elaborate = lambda platform: module
    h.dut(core)
    window, engine = h.free("upset", 1), h.free("engine", 1)
    reads, writes = h.free("reads", 1), h.free("writes", 1)
    pages = {name: h.free(f"{name}_page", len(core.corrupt_pfn)) for name in ("engine", "reads", "writes")}
    h.m.d.comb += [
        parts.window.upset.eq(window),
        parts.engine.corrupt.eq(engine),
        parts.engine.corrupt_pfn.eq(pages["engine"]),
        parts.read_path.corrupt.eq(reads),
        parts.read_path.violation.address.eq(pages["reads"] << PAGE_SHIFT | h.free("read_offset", PAGE_SHIFT)),
        parts.write_path.corrupt.eq(writes),
        parts.write_path.violation.address.eq(pages["writes"] << PAGE_SHIFT | h.free("write_offset", PAGE_SHIFT)),
    ]
    page = Mux(engine, pages["engine"], Mux(reads, pages["reads"], pages["writes"]))
    some = window | engine | reads | writes
    h.prove("every_alarm_is_raised", ~h.started | (core.corrupt == some), sec="SEC-11")
    h.prove("page_of_the_alarm", ~(h.started & some) | (core.corrupt_pfn == Mux(window, 0, page)), sec="SEC-11")
    h.cover("all_at_once", h.started & window & engine & reads & writes)

"""SEC-13: the first violation is kept, later ones are counted."""

from amaranth.hdl import Cat, Mux, Signal, Value

from flexserve_hw.tzasc.fail import FailRecord
from tests.formal.harness import Harness, proof
from tests.formal.reduced import PATH


@proof(
    fast=True,
    depth=3,
    reductions={"14 address bits, 1 ID bit": "a violation is copied as it is; of its fields only overlap is looked at"},
)
def record(h: Harness) -> None:
    """The record holds the first violation since the last clear, whatever follows, and counts every one."""
    dut = h.dut(FailRecord(params=PATH))
    h.drive(dut, "in")
    m, some = h.m, dut.deny[0] | dut.deny[1]
    some_before, clear = h.past(some), h.past(dut.clear)
    incoming = h.past(Cat(Mux(dut.deny[0], *(Value.cast(v) for v in dut.violation)), ~dut.deny[0]))
    record = Cat(dut.first, dut.write)
    kept, status, overrun = h.past(record), h.past(dut.status), h.past(dut.overrun)
    first = ~status | clear
    h.prove("violation_is_recorded", ~h.started | ~some_before | dut.status, sec="SEC-13")
    h.prove("first_is_taken_as_it_is", ~(some_before & first) | (record == incoming), sec="SEC-13")
    held = (some_before & first) | ~h.started | (record == kept)
    h.prove("record_is_held_until_cleared_and_violated_anew", held, sec="SEC-13")
    h.prove("record_goes_by_a_clear_alone", ~status | clear | dut.status, sec="SEC-13")
    h.prove("nothing_is_recorded_without_a_violation", ~dut.status | some_before | status, sec="SEC-13")
    h.prove("later_ones_are_noticed", ~(status & ~clear & some_before) | dut.overrun, sec="SEC-13")
    h.prove("overrun_goes_by_a_clear_alone", ~overrun | clear | dut.overrun, sec="SEC-13")

    both = h.past(dut.deny[0] & dut.deny[1])
    reason = (overrun & ~clear) | both | (some_before & status & ~clear)
    h.prove("overrun_tells_of_more_than_one", ~dut.overrun | reason, sec="SEC-13")
    h.prove("two_in_a_cycle_are_noticed", ~both | dut.overrun, sec="SEC-13")
    overlaps = Cat(deny & violation.overlap for deny, violation in zip(dut.deny, dut.violation, strict=True)).any()
    overlap = (h.past(dut.overlap) & ~clear) | h.past(overlaps)
    h.prove("overlap_is_noticed_and_held_until_cleared", ~h.started | (dut.overlap == overlap), sec="SEC-13")

    # Counted in one bit more than the record has, and held where that is full.
    came, total = h.past(dut.deny[0] + dut.deny[1]), h.past(dut.count)
    most = (1 << len(dut.count)) - 1
    counted = dut.count == Mux(total + came > most, most, total + came)
    h.prove("every_violation_is_counted", ~h.started | counted, sec="SEC-13")
    seen = Signal()
    m.d.sync += seen.eq(seen | (dut.status & dut.overrun))
    h.cover("flood_after_the_first", dut.overrun & dut.status & (record == kept) & some_before)
    h.cover("cleared_and_recorded_anew", seen & dut.status & ~dut.overrun)
    h.cover("both_directions_in_a_cycle", h.past(dut.deny[0] & dut.deny[1]))

"""Parts of the design in what surrounds them, for proofs of equivalence that any input whatever would defeat.

Each is a harness as the proofs have it, with the part in it as ``dut``; nothing is assumed: the surroundings give no
other inputs. Every output of the part is an output here. What always holds is one more, constant, output: an engine
that looks for signals that are equal, or constant, finds it, and rests on it.
"""

from collections.abc import Callable

from amaranth.hdl import Mux, Signal, Value
from amaranth.lib.wiring import Out

from flexserve_hw.bus.axi4 import PAGE_BYTES
from flexserve_hw.params import FlexMemParams
from flexserve_hw.tzasc.core import FlexCore
from flexserve_hw.tzasc.scrubber import Scrubber
from tests.formal.harness import Harness

__all__ = ["SURROUNDINGS"]


def _show(h: Harness, dut) -> None:
    """Make every bit of the outputs of ``dut``, but for probes, one of the harness."""
    for path, member, value in dut.signature.flatten(dut):
        if member.flow == Out and not str(path[0]).startswith("probe_"):
            value = Value.cast(value)
            for bit in range(len(value)):
                h.cover("_".join(map(str, (*path, bit))), value[bit])


def scrubber(params: FlexMemParams) -> Harness:
    """The scrubber before a memory that answers a burst once, after it was taken."""
    h = Harness()
    dut = h.dut(Scrubber(params=params))
    h.drive(dut, "in", but=("b",))
    m, slots = h.m, range(params.scrub_slots)
    bursts = PAGE_BYTES * 8 // params.bus.data_width // params.scrub_beats
    answer, sent, sending = dut.b, dut.aw.valid & dut.aw.ready, h.inner("sending")
    owed = [Signal(range(2 * bursts), name=f"owed{n}") for n in slots]
    some = Signal(name="some_owed")
    with m.Switch(answer.id):
        for n in slots:
            with m.Case(n):
                m.d.comb += some.eq(owed[n] != 0)
    m.d.comb += [
        answer.valid.eq(h.free("answer", 1) & some),
        answer.id.eq(h.free("answer_id", len(answer.id))),
        answer.okay.eq(h.free("answer_okay", 1)),
    ]
    complete = []
    for n in slots:
        busy, unsent, answers = (h.inner(f"slot{n}_{name}") for name in ("busy", "unsent", "answers"))
        here = sending & (h.inner("slot") == n)
        m.d.sync += owed[n].eq(owed[n] + (sent & (dut.aw.payload.id == n)) - (answer.valid & (answer.id == n)))
        h.prove(f"slot{n}_sends_what_is_unsent", (busy & unsent) == here)
        gone = Mux(here, h.inner("burst"), Mux(busy, bursts, 0))
        h.prove(f"slot{n}_counts_its_answers", (owed[n] + Mux(busy, answers, 0)) == gone)
        complete.append(busy & ~unsent & (answers == bursts) & ~h.inner(f"slot{n}_failed"))
    h.prove("burst_of_the_page", sending | (h.inner("burst") == 0))
    # Answers come one at a time: when a page ends its scrub, one that ended before is held, or has been taken.
    for n in slots:
        others = [complete[other] for other in slots if other != n]
        h.prove(f"slot{n}_ends_alone", ~complete[n] | ~_any(others) | h.inner("held"))
        h.prove(f"slot{n}_is_held_complete", ~(h.inner("held") & (h.inner("turn") == n)) | complete[n])
    _show(h, dut)
    return h


def core(params: FlexMemParams) -> Harness:
    """The core with any input: during boot no page is reported."""
    h = Harness()
    dut = h.dut(FlexCore(params=params))
    h.drive(dut, "in")
    h.prove("nothing_is_reported_at_boot", dut.ready | (dut.freed_count == 0))
    _show(h, dut)
    return h


def _any(terms: list) -> Value:
    result = terms[0]
    for term in terms[1:]:
        result = result | term
    return result


SURROUNDINGS: dict[str, Callable[[FlexMemParams], Harness]] = {"core.scrubber": scrubber, "core": core}
"""By the part's path."""

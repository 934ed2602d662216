"""Changes for the worse: each breaks filter or gate in one place, and a claim of ``tests/formal/proofs`` must notice.

``python -m tests.formal.runner --saboteur NAME`` puts one into the design of its proof, asks about the claim that must
fall, and ends with 1 and a waveform when it does. A saboteur writes over one signal of the elaborated design: what it
returns is added to the submodule that drives the signal, and the last assignment wins. What is found in Verilog by name
and switched on in simulation is in ``tests/cosim/saboteur.py``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Value

from flexserve_sw.regs import RecallState

from .harness import Harness
from .management import CODES

__all__ = ["SABOTEURS", "Place", "Saboteur"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """A design in a harness, where a saboteur is at work; ``name`` is that of the design in the harness."""

    h: Harness
    design: Any
    name: str

    def inner(self, path: str) -> Any:
        """See :meth:`.harness.Harness.inner`."""
        return self.h.inner(path, self.name)


@dataclass(frozen=True, kw_only=True)
class Saboteur:
    """``change`` breaks submodule ``module`` of the design of ``proof``, and that refutes ``claim``.

    ``deep``: only after so many cycles that it takes ABC to find it within a minute.
    """

    name: str
    proof: str
    claim: str
    module: str
    change: Callable[[Place], Any]
    deep: bool = False

    @property
    def text(self) -> str:
        """What it breaks."""
        return (self.change.__doc__ or "").strip()

    def __call__(self, h: Harness, design: Any, name: str) -> None:
        """Break ``design``, which is in ``h`` under ``name``."""
        statement = self.change(Place(h=h, design=design, name=name))
        h.fragment(self.module, name).add_statements("comb", statement)


SABOTEURS: dict[str, Saboteur] = {}
"""Every saboteur by name."""


def _saboteur(
    *, proof: str, claim: str, module: str = "", deep: bool = False
) -> Callable[[Callable[[Place], Any]], None]:
    def register(change: Callable[[Place], Any]) -> None:
        name = change.__name__
        SABOTEURS[name] = Saboteur(name=name, proof=proof, claim=claim, module=module, change=change, deep=deep)

    return register


@_saboteur(proof="read_path.protocol[on_chip]", claim="denied_read_returns_zeros")
def denied_read_leaks(at: Place) -> Any:
    """The answer to a denied read carries what memory has on its data wires just then (SEC-01)."""
    return at.design.up_r.payload.data.eq(at.design.down_r.payload.data)


@_saboteur(proof="write_path.protocol[on_chip]", claim="beats_of_a_denied_write_reach_nothing")
def denied_write_goes_on(at: Place) -> Any:
    """Beats of a denied write are offered to memory like those of an allowed one (SEC-02)."""
    return at.design.down_w.valid.eq(at.design.up_w.valid)


@_saboteur(proof="verdict.lookup[words reads]", claim="normal_access_to_normal_pages_alone")
def page_state_is_not_asked(at: Place) -> Any:
    """What the region side permits passes, whatever state the page is in (SEC-01, SEC-02)."""
    return at.design.verdict.payload.allow.eq(at.inner("permitted"))


@_saboteur(proof="verdict.lookup[words reads]", claim="corrupt_state_raises_the_alarm")
def upset_is_overlooked(at: Place) -> Any:
    """A stored state that is no code word is taken for one: it may open the page, and nobody is told (SEC-11)."""
    return at.inner("legal").eq(1)


@_saboteur(
    proof="pages.isolation[words]",
    claim="frame0_reports_when_earlier_accesses_are_answered",
    module="drain",
    deep=True,
)
def drain_waits_for_nothing(at: Place) -> Any:
    """A drain is over in its first cycle: a change is reported while accesses of the old state go on (SEC-06)."""
    return at.inner("drain.drained").eq(at.inner("drain.draining"))


@_saboteur(proof="scrub.answers[words]", claim="every_burst_is_answered_before_the_page_returns", module="scrubber")
def page_returns_unscrubbed(at: Place) -> Any:
    """A page is handed back when its zeros are sent, not when memory has answered them (SEC-01)."""
    sent = [at.inner(f"scrubber.slot{n}_busy") & ~at.inner(f"scrubber.slot{n}_unsent") for n in range(2)]
    return at.inner("scrubber.finish__valid").eq(sent[0] | sent[1])


@_saboteur(proof="secrets.lookup[read]", claim="verdict_valid_is_equal")
def denial_takes_longer_for_a_sealed_page(at: Place) -> Any:
    """The verdict on a sealed page comes a cycle late, so that denials tell its state by the clock (SEC-12)."""
    taken = at.inner("taken")
    sealed: Value = at.design.table.data == CODES[RecallState.SEALED]
    return at.design.verdict.valid.eq(taken & (~sealed | at.h.past(taken)))


@_saboteur(proof="gate.gate_hands_over", claim="scrub_follows_the_drain")
def gate_scrubs_without_a_drain(at: Place) -> Any:
    """The NPU gate scrubs at once, while a job may still fill what was scrubbed (SEC-09)."""
    return at.design.scrub.eq(at.inner("moving"))

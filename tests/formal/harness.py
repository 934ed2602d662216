"""What a proof is made of.

A *proof* is a function that gets a :class:`Harness`, puts the design under proof into ``h.m`` and says what is assumed,
what is claimed, and what must be reachable::

    @proof(reductions={"width 2": "the claim does not look at the value"})
    def counter(h: Harness) -> None:
        "A counter that never skips."
        dut = h.dut(Counter(width=2))
        h.drive(dut, "in")
        h.assume("environment_is_kind", dut.en | h.past(dut.en))
        h.prove("counts_by_one", ~h.started | (dut.count == (h.past(dut.count) + 1)[:2]), sec="SEC-06")
        h.cover("wraps", h.started & (dut.count == 0))

Every file of ``tests/formal/proofs/`` is a file of proofs; the proof above would be ``file.counter``. ``make formal``
runs all; ``python -m tests.formal.runner [--limit seconds] [word...]`` those whose names contain one of the words, with
``--fast`` the subset and with ``--pypi`` without ABC. What belongs to a proof (waveforms of refutations too) is in
``build/formal/<name>/``. Rules:

- **One result per name.** ``prove`` is a safety property: it holds in every cycle after power-up in which all
  assumptions have held so far. ``cover`` must be reached under the same assumptions: they do not contradict each other.
- **Every input is free.** ``h.free`` is a new value every cycle; ``h.constant`` is any one value, for ever: a symbolic
  page or ID. ``h.past`` is the value one cycle ago. An input of the design that nobody drives is constant zero:
  ``h.drive`` drives all inputs of an interface freely.
- **Lemmas.** ``prove(..., lemma=True)``: proved first, all of them together, and then taken for granted by the others.
  Where a lemma fails, everything that rests on it fails.
- **Memories come up with unknown contents**: the initial values that Amaranth writes down are removed. Registers come
  up with their reset value, so power-up and reset are the same: a reset in mid-run leads to the power-up state with
  memory contents that power-up allows too. Only where ``same_powerup`` says why do all memories come up as zeros.
  ``upset.any_start`` lets one register come up with any value: what is proved then holds of more runs than there are.
- **Inner signals** are reached by name: ``h.dut(design)`` adds the design, ``h.inner("read_path.tally.full")`` finds
  what is driven there. A memory that is an attribute of its component gets one more port before ``h.dut`` is called:
  ``table.states.read_port(domain="comb")``. So gateware needs no port for the sake of a proof.
- **Liveness as bounded response**: count the cycles that something waits and claim that they stay below a formula.
- **Two copies**: put the design in twice, feed both from the same free inputs, except for what may differ.
- **Every reduction** against the default configuration stands in ``reductions`` with the reason why it loses nothing.
- ``fast=True`` puts a proof into the subset that every test run proves, with PyPI tools alone: k-induction must do.
- ``variants`` are keyword arguments of the function by name of the variant: the same proof over several designs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from amaranth.hdl import Assert, Cat, ClockDomain, Cover, Fragment, Module, Mux, Shape, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import In

__all__ = ["BAD", "PROOFS", "REACHED", "Claim", "Harness", "Proof", "proof"]

BAD, REACHED = "bad_", "reached_"
"""Prefixes of the output ports: high when a claim is refuted, high when a cover is reached."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A named property of a proof. ``bound``: only shown up to this many cycles, and ``why`` no more can be had."""

    name: str
    kind: str
    sec: tuple[str, ...] = ()
    lemma: bool = False
    bound: int | None = None
    why: str = ""


Sabotage = Callable[["Harness", Any, str], None]
"""Breaks a design on purpose: gets the harness, the design and its name there."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """A harness with what is known about it: see :func:`proof`."""

    name: str
    build: Callable[["Harness"], None]
    text: str
    reductions: Mapping[str, str]
    fast: bool
    depth: int
    cover_depth: int
    limit: int
    same_powerup: str = ""
    induction: bool = False

    def harness(self, sabotage: Sabotage | None = None) -> "Harness":
        """Build it anew; every design in it is given to ``sabotage``."""
        harness = Harness(sabotage=sabotage)
        self.build(harness)
        return harness


PROOFS: dict[str, Proof] = {}
"""Every proof of the files imported so far."""


def proof(
    *,
    reductions: Mapping[str, str],
    fast: bool | tuple[str, ...] = False,
    depth: int = 12,
    cover_depth: int = 20,
    limit: int = 300,
    same_powerup: str = "",
    induction: bool = False,
    variants: Mapping[str, Mapping[str, Any]] | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a proof.

    ``depth`` is the greatest k of its k-induction, ``cover_depth`` the cycles in which the same engine looks for
    covers, ``limit`` the seconds that a property may take. ``fast``: whether, or which variants, every test run
    proves. ``same_powerup``: why memories may come up as zeros.
    ``induction``: never by property-directed reachability, which is for what has a state and gets lost in comparators.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        for variant, arguments in (variants or {"": {}}).items():
            name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}" + (f"[{variant}]" if variant else "")
            if name in PROOFS:
                raise ValueError(f"There must be one proof of a name, not two of {name!r}")
            PROOFS[name] = Proof(
                name=name,
                build=lambda h, arguments=arguments: function(h, **arguments),
                text=(function.__doc__ or "").strip(),
                reductions=reductions,
                fast=fast if isinstance(fast, bool) else variant in fast,
                depth=depth,
                cover_depth=cover_depth,
                limit=limit,
                same_powerup=same_powerup,
                induction=induction,
            )
        return function

    return register


@dataclass
class Harness:
    """The module of a proof, and its claims so far. ``sabotage`` breaks every design that is added."""

    sabotage: Sabotage | None = None
    m: Module = field(default_factory=Module)
    claims: list[Claim] = field(default_factory=list)
    inputs: list[Signal] = field(default_factory=list)
    _pasts: int = 0
    _fragments: dict[str, Fragment] = field(default_factory=dict)
    _assumed: dict[str, Value] = field(default_factory=dict)
    _conditions: dict[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Without rst: a run starts at power-up.
        self.m.domains.sync = clock = ClockDomain(reset_less=True)
        self.clock = clock.clk
        self.started = Signal(name="started")
        """Low in the first cycle after power-up only."""
        self.m.d.sync += self.started.eq(1)

    def free(self, name: str, shape) -> Any:
        """A value that is free in every cycle; a view if ``shape`` is a layout."""
        signal = Signal(Shape.cast(shape).width, name=f"free_{name}")
        self.inputs.append(signal)
        return data.View(shape, signal) if isinstance(shape, data.Layout) else signal

    def constant(self, name: str, shape) -> Value:
        """Any one value, the same for ever."""
        chosen, kept = self.free(name, shape), Signal(shape, name=f"kept_{name}")
        value = Signal(shape, name=f"constant_{name}")
        self.m.d.sync += kept.eq(value)
        self.m.d.comb += value.eq(Mux(self.started, kept, chosen))
        return value

    def past(self, value, *, init: int = 0) -> Signal:
        """``value`` one cycle ago, ``init`` in the first cycle."""
        value = Value.cast(value)
        self._pasts += 1
        before = Signal(value.shape(), init=init, name=f"past{self._pasts}")
        self.m.d.sync += before.eq(value)
        return before

    def drive(self, interface, prefix: str, *, but: Sequence[str] = ()) -> None:
        """Drive every input of ``interface``, as it is seen from outside, but those of the members ``but``, freely."""
        for path, member, value in interface.signature.flatten(interface):
            if member.flow == In and path[0] not in but:
                value = Value.cast(value)
                self.m.d.comb += value.eq(self.free("_".join((prefix, *map(str, path))), len(value)))

    def dut(self, design, name: str = "dut") -> Any:
        """Add ``design`` as a submodule whose inner signals :meth:`inner` finds."""
        fragment = Fragment.get(design, None)
        self.m.submodules[name] = self._fragments[name] = fragment
        if self.sabotage is not None:
            self.sabotage(self, design, name)
        return design

    @property
    def designs(self) -> dict[str, Fragment]:
        """What was added by :meth:`dut`, by name."""
        return self._fragments

    def fragment(self, path: str, name: str = "dut") -> Fragment:
        """The submodule ``path`` ``a.b``, the design itself without a path."""
        fragment = self._fragments[name]
        for part in filter(None, path.split(".")):
            fragment = fragment.find_subfragment(part)
        return fragment

    def inner(self, path: str, name: str = "dut") -> Signal:
        """The one signal that submodule ``a.b`` of ``path`` ``a.b.signal`` drives under that name."""
        modules, _, signal = path.rpartition(".")
        fragment = self.fragment(modules, name)
        found = {
            id(driven): driven
            for statements in fragment.statements.values()
            for statement in statements
            for driven in statement._lhs_signals()
            if driven.name == signal
        }
        if len(found) != 1:
            raise LookupError(f"Exactly one signal must be driven as {path}, not {len(found)}")
        return next(iter(found.values()))

    def assume(self, name: str, condition) -> None:
        """From now on look only at runs in which ``condition`` holds in every cycle so far."""
        self._name(self._assumed, name, condition)

    def prove(
        self, name: str, condition, *, sec: str = "", lemma: bool = False, bound: int | None = None, why: str = ""
    ) -> None:
        """Claim that ``condition`` holds in every cycle.

        ``sec`` names the security properties, separated by blanks. ``bound``: no more is expected than a proof for so
        many cycles, because of ``why``.
        """
        self._name(self._conditions, name, condition)
        self.claims.append(
            Claim(name=name, kind="prove", sec=tuple(sec.split()), lemma=lemma, bound=bound, why=why)
        )

    def cover(self, name: str, condition) -> None:
        """Claim that ``condition`` can become true."""
        self._name(self._conditions, name, condition)
        self.claims.append(Claim(name=name, kind="cover"))

    def keep(self, name: str) -> None:
        """Drop all claims but one, which then rests on no lemma."""
        self.claims[:] = [replace(claim, lemma=False) for claim in self.claims if claim.name == name]

    def finish(self) -> tuple[Module, list[Signal]]:
        """The module with its ports: clock, inputs, and one output per claim."""
        m = self.m
        held = self._so_far("assumptions", list(self._assumed.values()))
        lemmas = [self._conditions[c.name] for c in self.claims if c.lemma]
        granted = self._so_far("lemmas", lemmas)
        outputs = []
        # Those that an engine takes together stand together.
        self.claims.sort(key=lambda claim: (claim.kind == "cover", not claim.lemma))
        for claim in self.claims:
            condition = self._conditions[claim.name]
            output = Signal(name=(REACHED if claim.kind == "cover" else BAD) + claim.name)
            outputs.append(output)
            # The cell in a module of its own is named after the claim, for the engine that reads cells.
            cell = Module()
            if claim.kind == "cover":
                m.d.comb += output.eq(held & condition)
                cell.d.comb += Cover(output)
            else:
                m.d.comb += output.eq(held & ~condition & (1 if claim.lemma else granted))
                cell.d.comb += Assert(~output)
            m.submodules[f"{claim.kind}_{claim.name}"] = cell
        return m, [self.clock, *self.inputs, *outputs]

    def _so_far(self, name: str, conditions: list[Value]) -> Signal:
        now, before = Signal(name=f"{name}_hold"), Signal(init=1, name=f"{name}_held")
        self.m.d.comb += now.eq(before & Cat(conditions).all())
        self.m.d.sync += before.eq(now)
        return now

    def _name(self, table: dict[str, Value], name: str, condition) -> None:
        if name in self._assumed or name in self._conditions or not name.isidentifier():
            raise ValueError(f"A claim must have a name of its own that is an identifier, not {name!r}")
        signal = Signal(name=f"says_{name}")
        self.m.d.comb += signal.eq(Value.cast(condition).bool())
        table[name] = signal

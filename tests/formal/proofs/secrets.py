"""SEC-01 and SEC-12 with two copies: what differs between them only in secrets cannot be told apart."""

from amaranth.hdl import Cat, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from flexserve_hw.tzasc.core import FlexCore
from flexserve_hw.tzasc.lookup import Lookup
from tests.formal.axi import fire
from tests.formal.harness import Harness, proof
from tests.formal.ideal import Nothing, replace
from tests.formal.reduced import PATH, PATH_REDUCTIONS

SAME_POWERUP = "both copies start alike; that nothing held in memories at power-up is shown is proved of one copy"


class Copies:
    """Two of a design, whose ports are compared or driven together.

    Parameters
    ----------
    make
        Makes one of them.
    may_differ : tuple of tuple of str
        Paths of ports that are not compared and, as inputs, are driven apart. The last name may be that of a field.
    """

    def __init__(self, h: Harness, make, may_differ: tuple):
        self.h, self.may_differ = h, may_differ
        self.pair = [make(), make()]

    def add(self) -> None:
        """Put both into the harness, with their inputs driven."""
        for n, design in enumerate(self.pair):
            self.h.dut(design, f"copy{n}")
        self.drive(*self.pair, In, "")

    def _apart(self, path: tuple, part: str) -> bool:
        return path in self.may_differ or (*path, part) in self.may_differ

    def _parts(self, path: tuple, value, other):
        """Both values, field by field, and whether they may differ."""
        if isinstance(value, data.View) and isinstance(value.shape(), data.StructLayout):
            for field, _ in value.shape():
                yield field, Value.cast(value[field]), Value.cast(other[field]), self._apart(path, field)
        else:
            yield "", Value.cast(value), Value.cast(other), self._apart(path, "")

    def _ports(self, one, two, flow):
        others = {path: value for path, _, value in two.signature.flatten(two)}
        for path, member, value in one.signature.flatten(one):
            if member.flow == flow and path[0] != "regions":
                yield path, value, others[path]

    def drive(self, one, two, flow, prefix: str) -> None:
        """Drive what has ``flow``, in both alike but for what may differ."""
        h, m = self.h, self.h.m
        for path, value, other in self._ports(one, two, flow):
            for field, mine, theirs, apart in self._parts((*filter(None, (prefix,)), *path), value, other):
                name = "_".join(map(str, (*filter(None, (prefix,)), *path, *filter(None, (field,)))))
                common = h.free(name, len(mine))
                m.d.comb += [mine.eq(common), theirs.eq(h.free(f"{name}_other", len(mine)) if apart else common)]

    def prove_equal(self, sec: str) -> None:
        """Claim of each output that it is the same in both copies, but for what may differ."""
        for path, value, other in self._ports(*self.pair, Out):
            parts = [(mine, theirs) for _, mine, theirs, apart in self._parts(path, value, other) if not apart]
            if parts:
                name = "_".join(map(str, path))
                self.h.prove(f"{name}_is_equal", Cat(mine == theirs for mine, theirs in parts).all(), sec=sec)


@proof(
    depth=3,
    reductions=PATH_REDUCTIONS,
    same_powerup=SAME_POWERUP,
    variants={"read": {"write": False}, "write": {"write": True}},
)
def lookup(h: Harness, write: bool) -> None:
    """What the table answers decides about the verdict and the alarm, and changes nothing else, in no cycle."""
    differ = (("table", "data"), ("verdict", "payload", "allow"), ("verdict", "payload", "corrupt"))
    copies = Copies(h, lambda: Lookup(params=PATH, write=write), differ)
    region = h.free("region", len(copies.pair[0].regions[0].as_value()))
    h.m.d.comb += [copy.regions[0].as_value().eq(region) for copy in copies.pair]
    copies.add()
    copies.prove_equal("SEC-12")
    a, b = copies.pair
    h.cover("verdicts_differ", fire(a.verdict) & (a.verdict.payload.allow != b.verdict.payload.allow))


DATA = (("upstream", "w", "payload", "data"), ("downstream", "r", "payload", "data"))
"""Inputs that carry secrets: all write data and all read data, in every cycle, whoever owns them."""

SHOWN = (("upstream", "r", "payload", "data"), ("downstream", "w", "payload", "data"))
"""Outputs that pass them on."""

ALARM = (("corrupt",), ("corrupt_pfn",), ("read", "verdict", "payload", "corrupt"))
"""The alarm tells a damaged table word, which is no state, from a state that denies."""


@proof(
    depth=3,
    reductions={
        **PATH_REDUCTIONS,
        "2 pages, 1 to a table word": "the copies are compared, whatever the table says",
    },
    same_powerup=SAME_POWERUP,
)
def core(h: Harness) -> None:
    """Data change nothing but the beats that carry them; accesses with the same verdict take the same time and answers.

    The lookups are cut out: their verdicts are free and the same in both copies, while the alarm that goes with a
    denial may differ. By :func:`lookup` nothing else tells the states of two pages apart.
    """
    differ = (*DATA, *SHOWN, *ALARM, ("write", "verdict", "payload", "corrupt"))
    copies = Copies(h, lambda: FlexCore(params=PATH), differ)
    lookups = []
    for copy in copies.pair:
        paths = replace(copy).submodules
        both = (paths.read_path, paths.write_path)
        lookups.append([replace(path, lookup=Nothing).submodules.lookup for path in both])
    copies.add()
    for name, one, two in zip(("read", "write"), *lookups, strict=True):
        copies.drive(one, two, Out, name)
    copies.prove_equal("SEC-01 SEC-12")

    # Nothing that was read or written is kept: what differs came in in this very cycle.
    a, b = copies.pair
    read, written = (Signal(name=name) for name in ("read_data_differ", "written_data_differ"))
    h.m.d.comb += [
        read.eq(a.upstream.r.valid & (a.upstream.r.payload.data != b.upstream.r.payload.data)),
        written.eq(a.downstream.w.valid & (a.downstream.w.payload.data != b.downstream.w.payload.data)),
    ]
    came = a.downstream.r.valid & (a.downstream.r.payload.data != b.downstream.r.payload.data)
    given = a.upstream.w.valid & (a.upstream.w.payload.data != b.upstream.w.payload.data)
    h.prove("read_data_are_those_that_memory_gives", ~read | came, sec="SEC-01")
    h.prove("written_data_are_those_that_a_master_gives", ~written | given, sec="SEC-01")
    h.cover("secret_is_read_while_another_is_written", read & fire(a.upstream.r) & written)
    alarm = a.corrupt != b.corrupt
    h.cover("denied_with_and_without_alarm", alarm)

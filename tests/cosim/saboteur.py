"""Faults put into the filter's Verilog on purpose, each switched on by a plusarg: a check that misses them is none."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """In modules whose name ends in ``module``, ``wire`` is driven by ``becomes``; ``{}`` is what drove it."""

    name: str
    module: str
    wire: str
    becomes: str


_NONSECURE = "\\verdict__payload.request.prot.nonsecure "

FAULTS = (
    Fault("the normal world reads anything", "read_path.lookup", "verdict__payload[56]", "{} | " + _NONSECURE),
    Fault("the normal world writes anything", "write_path.lookup", "verdict__payload[56]", "{} | " + _NONSECURE),
    Fault("a read is counted out of another epoch than into", "read_path.tally", "complete_epoch", "epoch"),
    Fault("a drain waits for nothing", "drain", "drained", "draining"),
    Fault("an allowed read overtakes a denied one of its ID", "read_path.tally", "denied", "1'b0"),
    Fault("a denied write is answered before one of its ID", "write_path.tally", "forwarded", "1'b0"),
    Fault("a command spares a page of each word", "engine", "chosen", "{} & ~1"),
    Fault("regions may overlap", "read_path.lookup.regions", "overlap", "1'b0"),
    Fault("the grace period is short", "frames", "grace", "{} - 9"),
    Fault("a grace period runs on when its pages are gone", "engine", "recalling", "0"),
    Fault("a page is given back while it is scrubbed", "scrubber", "finish__valid", "{} | active"),
)
"""Number n of the list is switched on by ``+fault=n``, counted from one."""

_SWITCH = "  reg [7:0] fault;\n  initial if (!$value$plusargs(\"fault=%d\", fault)) fault = 8'd0;\n"


def sabotaged(verilog: str) -> str:
    """The design with every fault in it, none switched on. Fails if a fault finds no place."""
    parts = re.split(r"(?m)^(?=module )", verilog)
    for number, fault in enumerate(FAULTS, start=1):
        found = 0
        for index, part in enumerate(parts):
            name = re.match(r"module (\S+)", part)
            if name is None or not name[1].endswith(f".{fault.module}"):
                continue
            drive = re.compile(rf"(?m)^  assign {re.escape(fault.wire)} = (.+);$")
            text, count = drive.subn(lambda match, n=number, f=fault: _switched(match, n, f), part)
            if count and "reg [7:0] fault" not in text:
                text = text.replace(");\n", f");\n{_SWITCH}", 1)
            parts[index], found = text, found + count
        assert found == 1, f"fault {fault.name!r} finds {found} places"
    return "".join(parts)


def _switched(match: re.Match, number: int, fault: Fault) -> str:
    other = fault.becomes.format(f"({match[1]})")
    return f"  assign {fault.wire} = fault == 8'd{number} ? {other} : {match[1]};"

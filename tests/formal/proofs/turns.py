"""Both paths: answers take turns, and what is told of a denial is about the access that is denied."""

from amaranth.hdl import Const

from flexserve_hw.tzasc.read_path import ReadPath
from flexserve_hw.tzasc.write_path import WritePath
from tests.formal.harness import Harness, proof
from tests.formal.ideal import replace
from tests.formal.reduced import PATH, PATH_REDUCTIONS

PATHS = {"reads": {"make": ReadPath, "channel": "r"}, "writes": {"make": WritePath, "channel": "b"}}


@proof(reductions=PATH_REDUCTIONS, variants=PATHS, fast=True, depth=2, cover_depth=8, induction=True)
def path(h: Harness, make, channel: str) -> None:
    """Neither memory's answers nor those made here are passed over twice; alarm and violation go with their denial."""
    dut = make(params=PATH)
    lookup = replace(dut).submodules.lookup
    h.dut(dut)
    h.drive(dut, "in")
    up = getattr(dut, f"up_{channel}")
    first, second = (dut.down_r.valid, "zeros") if channel == "r" else (h.inner("below__valid"), "here")
    second, pick = h.inner(f"{second}__valid"), h.inner(f"{channel}_pick")
    ends = up.valid & up.ready & (up.payload.last if channel == "r" else Const(1))
    h.prove("memory_gives_way", ~h.past(ends & ~pick) | ~second | pick, sec="SEC-12")
    h.prove("answers_made_here_give_way", ~h.past(ends & pick) | ~first | ~pick, sec="SEC-12")
    h.cover("both_wait", h.past(ends & ~pick) & first & second)

    verdict, told = lookup.verdict.payload, dut.violation
    request = verdict.request
    h.prove("alarm_goes_up_with_its_denial", dut.corrupt == (dut.deny & verdict.corrupt), sec="SEC-11")
    same = (
        (told.address == request.addr)
        & (told.id == request.id)
        & (told.nsaid == request.user)
        & (told.privileged == request.prot.privileged)
        & (told.nonsecure == request.prot.nonsecure)
        & (told.overlap == verdict.overlap)
    )
    h.prove("violation_is_the_access_denied", ~dut.deny | same, sec="SEC-13")
    h.cover("alarm", dut.corrupt)

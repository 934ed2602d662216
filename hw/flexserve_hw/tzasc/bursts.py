"""Which bursts are legal AXI and stay within one page."""

from amaranth.hdl import Const, Mux, Value
from amaranth.lib.data import View
from amaranth.utils import exact_log2

from flexserve_hw.bus.axi4 import PAGE_BYTES, Burst

__all__ = ["stays_in_page"]

_WRAP_LENGTHS = (1, 3, 7, 15)
"""AxLEN of the wrapping bursts that AXI4 knows."""


def stays_in_page(request: View, *, data_width: int) -> Value:
    """Whether burst ``request`` (an AW or AR payload) is legal and touches no page but that of its address.

    Beats wider than the bus, reserved burst types, FIXED bursts of more than 16 beats and WRAP bursts of other than
    2, 4, 8 or 16 beats are illegal. WRAP and FIXED bursts cannot leave the page when they are legal.
    """
    offset, crosses = request.addr[: exact_log2(PAGE_BYTES)], Const(1)
    for size in range(exact_log2(data_width // 8) + 1):
        beats = PAGE_BYTES >> size
        crosses = Mux(request.size == size, (offset >> size) + request.len >= beats, crosses)
    fits = request.size <= exact_log2(data_width // 8)
    wraps = Const(0)
    for length in _WRAP_LENGTHS:
        wraps = wraps | (request.len == length)
    return fits & Mux(
        request.burst == Burst.INCR,
        ~crosses,
        Mux(request.burst == Burst.WRAP, wraps, (request.burst == Burst.FIXED) & (request.len < 16)),
    )

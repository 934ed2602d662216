"""The bus between the register fabric and a frame: one request at a time, answered in the next cycle."""

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["FRAME_ADDR_WIDTH", "RegisterBusSignature"]

FRAME_ADDR_WIDTH = 12
"""Bits of a byte address within a frame: each frame is 4 KiB."""


class RegisterBusSignature(wiring.Signature):
    """Register bus as the fabric sees it; ``In(RegisterBusSignature())`` is a frame's port.

    Members
    -------
    valid : Out(1)
        A request, for exactly one cycle. The frame always takes it: writes and side effects happen at the end of it.
    write : Out(1)
        The request is a write.
    addr : Out(12)
        Byte address within the frame; the low two bits are ignored.
    wdata : Out(32), strb : Out(4)
        Write data and its byte strobes.
    rdata : In(32)
        Read data, valid in the cycle after the request, zero after a write or an error.
    error : In(1)
        The request is answered SLVERR and changed nothing; valid in the cycle after the request.
    """

    def __init__(self):
        super().__init__(
            {
                "valid": Out(1),
                "write": Out(1),
                "addr": Out(FRAME_ADDR_WIDTH),
                "wdata": Out(32),
                "strb": Out(4),
                "rdata": In(32),
                "error": In(1),
            }
        )

    def __eq__(self, other):
        return isinstance(other, RegisterBusSignature)

"""AXI4-Lite with the two sidebands the register fabric decides on: world and NSAID."""

from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .axi4 import NSAID_WIDTH, Prot, Resp

__all__ = ["AXILiteSignature"]


class AXILiteSignature(wiring.Signature):
    """AXI4-Lite as the master sees it, 32 data bits, streams ``aw``, ``w``, ``b``, ``ar``, ``r``.

    Parameters
    ----------
    addr_width : int
        Byte address width in bits.
    """

    def __init__(self, *, addr_width: int):
        if not 2 <= addr_width <= 64:
            raise ValueError(f"AXI4-Lite address width must be 2 to 64 bits, not {addr_width!r}")
        self.addr_width = addr_width
        address = data.StructLayout({"addr": addr_width, "prot": Prot, "user": NSAID_WIDTH})
        super().__init__(
            {
                "aw": Out(stream.Signature(address)),
                "w": Out(stream.Signature(data.StructLayout({"data": 32, "strb": 4}))),
                "b": In(stream.Signature(data.StructLayout({"resp": Resp}))),
                "ar": Out(stream.Signature(address)),
                "r": In(stream.Signature(data.StructLayout({"data": 32, "resp": Resp}))),
            }
        )

    def __eq__(self, other):
        return isinstance(other, AXILiteSignature) and self.addr_width == other.addr_width

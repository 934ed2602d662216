"""AMBA AXI4: channel payloads and the interface signature.

Only what this project's masters drive and its slaves look at is carried: no QoS, region, cache or lock signals.
``AxPROT[1]`` is the world (1: non-secure); ``AxUSER`` is the NSAID of the master.
"""

from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["PAGE_BYTES", "NSAID_WIDTH", "Burst", "Resp", "Prot", "AXI4Shape", "AXI4Signature"]

PAGE_BYTES = 4096
"""Bytes of a granule. AXI bursts never cross a multiple of it."""

NSAID_WIDTH = 4
"""Bits of the non-secure access identity carried on AxUSER."""


class Burst(enum.Enum, shape=2):
    """``AxBURST``."""

    FIXED = 0
    INCR = 1
    WRAP = 2


class Resp(enum.Enum, shape=2):
    """``RRESP`` and ``BRESP``."""

    OKAY = 0
    EXOKAY = 1
    SLVERR = 2
    DECERR = 3


class Prot(data.Struct):
    """``AxPROT``, least significant bit first."""

    privileged: 1
    nonsecure: 1
    instruction: 1


class AXI4Shape:
    """Payload layouts of the five channels.

    Parameters
    ----------
    addr_width, data_width, id_width : int
        Widths in bits; ``data_width`` is a power of two from 8 to 1024.
    """

    def __init__(self, *, addr_width: int, data_width: int, id_width: int):
        if not 1 <= addr_width <= 64:
            raise ValueError(f"AXI4 address width must be 1 to 64 bits, not {addr_width!r}")
        if data_width not in (8, 16, 32, 64, 128, 256, 512, 1024):
            raise ValueError(f"AXI4 data width must be a power of two from 8 to 1024, not {data_width!r}")
        if not 1 <= id_width <= 16:
            raise ValueError(f"AXI4 ID width must be 1 to 16 bits, not {id_width!r}")
        self.addr_width = addr_width
        self.data_width = data_width
        self.id_width = id_width

    def __eq__(self, other):
        return isinstance(other, AXI4Shape) and self._key == other._key

    def __hash__(self):
        return hash(self._key)

    @property
    def _key(self):
        return self.addr_width, self.data_width, self.id_width

    @property
    def strb_width(self) -> int:
        """Byte lanes."""
        return self.data_width // 8

    @property
    def address(self) -> data.StructLayout:
        """AW and AR."""
        return data.StructLayout(
            {
                "id": self.id_width,
                "addr": self.addr_width,
                "len": 8,
                "size": 3,
                "burst": Burst,
                "prot": Prot,
                "user": NSAID_WIDTH,
            }
        )

    @property
    def write_data(self) -> data.StructLayout:
        """W."""
        return data.StructLayout({"data": self.data_width, "strb": self.strb_width, "last": 1})

    @property
    def write_response(self) -> data.StructLayout:
        """B."""
        return data.StructLayout({"id": self.id_width, "resp": Resp})

    @property
    def read_data(self) -> data.StructLayout:
        """R."""
        return data.StructLayout({"id": self.id_width, "data": self.data_width, "resp": Resp, "last": 1})


class AXI4Signature(wiring.Signature):
    """AXI4 as the master sees it: five streams ``aw``, ``w``, ``b``, ``ar``, ``r``.

    Parameters
    ----------
    addr_width, data_width, id_width : int
        See :class:`AXI4Shape`, kept as ``shape``.
    """

    def __init__(self, *, addr_width: int, data_width: int, id_width: int):
        self.shape = AXI4Shape(addr_width=addr_width, data_width=data_width, id_width=id_width)
        super().__init__(
            {
                "aw": Out(stream.Signature(self.shape.address)),
                "w": Out(stream.Signature(self.shape.write_data)),
                "b": In(stream.Signature(self.shape.write_response)),
                "ar": Out(stream.Signature(self.shape.address)),
                "r": In(stream.Signature(self.shape.read_data)),
            }
        )

    def __eq__(self, other):
        return isinstance(other, AXI4Signature) and self.shape == other.shape

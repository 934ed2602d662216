"""What the dispatcher hands to the units: descriptors, decoded and checked."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..params import NpuParams
from ..regs.enums import NpuSpace

__all__ = ["load_command", "execute_command", "store_command", "TokenCounter"]


def load_command(params: NpuParams) -> data.StructLayout:
    """LOAD: ``beats`` per row; ``linear`` is the beats of all rows together if they lie end to end, else 0."""
    return data.StructLayout(
        {
            "wait_next": 1,
            "signal_next": 1,
            "space": NpuSpace,
            "index": 16,
            "addr": params.bus.addr_width,
            "stride": 32,
            "rows": 16,
            "beats": 13,
            "linear": 29,
            "row_bytes": 16,
            "base": 16,
            "row_step": 16,
            "word_step": 16,
        }
    )


def execute_command(params: NpuParams) -> data.StructLayout:
    """MATMUL: ``k_last`` and ``n_last`` are the lanes used in the last tile, from 1 to N."""
    lanes = (params.n).bit_length()
    return data.StructLayout(
        {
            "wait_prev": 1,
            "wait_next": 1,
            "signal_prev": 1,
            "signal_next": 1,
            "accumulate": 1,
            "m": 16,
            "k_tiles": 16,
            "n_tiles": 16,
            "k_last": lanes,
            "n_last": lanes,
            "a_base": 16,
            "a_step": 16,
            "w_base": 16,
            "w_step": 16,
            "c_base": 16,
            "c_step": 16,
        }
    )


def store_command(params: NpuParams) -> data.StructLayout:
    """STORE: ``beats`` per row, of which the last holds ``last_bytes`` bytes; ``linear`` as for LOAD.

    A row is read in ``pieces``: of four int32 values, or with ``quantise`` of N / 2 channels, whose parameters begin at
    row ``q_row`` of theirs.
    """
    return data.StructLayout(
        {
            "wait_prev": 1,
            "signal_prev": 1,
            "index": 16,
            "addr": params.bus.addr_width,
            "stride": 32,
            "rows": 16,
            "beats": 15,
            "linear": 31,
            "last_bytes": 5,
            "pieces": 16,
            "quantise": 1,
            "relu": 1,
            "q_row": 14,
            "c_base": 16,
            "c_step": 16,
        }
    )


class TokenCounter(wiring.Component):
    """Tokens that one unit gave and another has not yet taken. A job cannot give more than it has descriptors."""

    give: In(1)
    take: In(1)
    some: Out(1)

    def elaborate(self, platform):
        m = Module()
        count = Signal(17)
        m.d.comb += self.some.eq(count != 0)
        m.d.sync += count.eq(count + self.give - self.take)
        return m

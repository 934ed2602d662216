"""Weight-stationary systolic array."""

from amaranth.hdl import Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["SystolicArray", "sum_width"]


def sum_width(n: int) -> int:
    """Bits of a sum of ``n`` products of two int8 values."""
    return 16 + (n - 1).bit_length()


class SystolicArray(wiring.Component):
    """N x N multiply-accumulate cells that each hold one weight.

    Cell (k, c) adds ``a[k] * w[k][c]`` to the sum that comes from cell (k - 1, c). All cells of row k share lane k of a
    word, k cycles after those of row 0 share lane 0, so the N sums of one activation word leave the bottom in the same
    cycle. The whole array is one module: instances per cell cost simulation speed.

    Parameters
    ----------
    n : int
        Rows and columns.

    Members
    -------
    valid : In(n + 2)
        Bit 0: ``a`` holds an activation word. Bit j must repeat bit 0 of j cycles ago; whoever drives the array keeps
        that history anyway, beside the address that the sums belong to.
    swap : In(n)
        Bit 0, in the cycle of a word's ``valid`` bit 0: this and later words use the weights loaded meanwhile. Bit j
        must repeat bit 0 of j cycles ago.
    a : In(n int8)
        Activation word; lane k belongs to weight row k.
    w_en : In(1), w_row : In, w_data : In(n int8)
        Load weight row ``w_row`` of the next tile. Allowed from the cycle of ``swap`` bit ``w_row`` for the tile before
        until the cycle before that bit for this tile, so tiles follow each other without a pause.
    sums : Out(n sums)
        The sums of the word that was in ``a`` n + 2 cycles ago; kept while nothing new arrives.

    Latency and ordering
    --------------------
    One word per cycle, n + 2 cycles from ``a`` to ``sums``; no back-pressure. Registers hold while nothing moves. A
    product has a cycle of its own: in an FPGA the multipliers lie far from the adders.
    """

    def __init__(self, *, n: int):
        if n < 2:
            raise ValueError(f"Array size must be at least 2, not {n!r}")
        self._n = n
        super().__init__(
            {
                "valid": In(n + 2),
                "swap": In(n),
                "a": In(8 * n),
                "w_en": In(1),
                "w_row": In(range(n)),
                "w_data": In(8 * n),
                "sums": Out(data.ArrayLayout(signed(sum_width(n)), n)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        n, width = self._n, sum_width(self._n)
        above = [None] * n
        previous = self.a
        for k in range(n):
            shadow = Signal(8 * n, name=f"shadow_{k}")
            weights = Signal(8 * n, name=f"weights_{k}")
            with m.If(self.w_en & (self.w_row == k)):
                m.d.sync += shadow.eq(self.w_data)
            with m.If(self.swap[k]):
                m.d.sync += weights.eq(shadow)
            # Stage k of the delay line holds a whole word; lanes that no later stage reads vanish in synthesis.
            word = Signal(8 * n, name=f"word_{k}")
            with m.If(self.valid[k]):
                m.d.sync += word.eq(previous)
            previous = word
            lane = Signal(signed(8), name=f"lane_{k}")
            m.d.comb += lane.eq(word[8 * k : 8 * k + 8])
            cells = [Signal(signed(width), name=f"sum_{k}_{c}") for c in range(n)]
            products = [Signal(signed(16), name=f"product_{k}_{c}") for c in range(n)]
            with m.If(self.valid[k + 1]):
                m.d.sync += [p.eq(lane * weights[8 * c : 8 * c + 8].as_signed()) for c, p in enumerate(products)]
            with m.If(self.valid[k + 2]):
                for c, product in enumerate(products):
                    m.d.sync += cells[c].eq(product if above[c] is None else above[c] + product)
            above = cells
        m.d.comb += [self.sums[c].eq(cell) for c, cell in enumerate(above)]
        return m

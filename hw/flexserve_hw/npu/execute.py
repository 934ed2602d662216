"""Execute unit: walks the tiles of a MATMUL through the array."""

from itertools import pairwise

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..params import NpuParams
from .accumulator import Accumulator
from .array import SystolicArray
from .commands import execute_command

__all__ = ["ExecuteUnit"]


def _lanes(count, n):
    """Mask of the lanes below ``count``."""
    return Cat(count > lane for lane in range(n))


class ExecuteUnit(wiring.Component):
    """Runs MATMULs: n tiles outside, k tiles inside, all rows of the activations for each tile.

    A weight walker loads the next tile into the array while the row walker streams activations through the present one.
    Tiles follow each other, also from one MATMUL to the next, every max(M, N) cycles.

    Parameters
    ----------
    params : NpuParams

    Members
    -------
    command : In(stream)
        Checked MATMULs. One is taken when its tokens are there and the walkers have room for it.
    loaded, stored : In(1), take_loaded, take_stored : Out(1)
        Tokens from the load and the store unit.
    give_load, give_store : Out(1)
        Tokens: operands read to the end, accumulators written to the end.
    a_en, a_addr : Out, a_data : In; w_en, w_addr : Out, w_data : In
        Scratchpad reads, two cycles of latency.
    c_en, c_row : In, c_ok : Out, c_data : Out
        Accumulator read-out, see :class:`~flexserve_hw.npu.accumulator.Accumulator`.
    stop : In(1)
        From the next cycle on, issue nothing more; stays high until the unit is reset.
    idle : Out(1)
        Nothing taken is unfinished.
    row : Out(1)
        The array takes a row in this cycle, for counting.
    scrub, scrub_addr : In
        Zeroes the accumulators.

    Latency and ordering
    --------------------
    The first sums are in the accumulators N + 6 cycles after the first read of activations. MATMULs run in order.
    """

    def __init__(self, *, params: NpuParams):
        self._params = params
        n = params.n
        self._accumulator = Accumulator(n=n, rows=params.c_rows)
        super().__init__(
            {
                "command": In(stream.Signature(execute_command(params))),
                "loaded": In(1),
                "stored": In(1),
                "take_loaded": Out(1),
                "take_stored": Out(1),
                "give_load": Out(1),
                "give_store": Out(1),
                "a_en": Out(1),
                "a_addr": Out(range(params.a_words)),
                "a_data": In(8 * n),
                "w_en": Out(1),
                "w_addr": Out(range(params.w_words)),
                "w_data": In(8 * n),
                "c_en": In(1),
                "c_row": In(range(params.c_rows)),
                "c_ok": Out(1),
                "c_data": Out(32 * n),
                "stop": In(1),
                "idle": Out(1),
                "row": Out(1),
                "scrub": In(1),
                "scrub_addr": In(10),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.array = self._array = SystolicArray(n=self._params.n)
        m.submodules.accumulator = self._accumulator
        pending = Signal(execute_command(self._params))
        waiting = Signal()
        take = Signal()
        unfinished = Signal(8)
        finish = Signal()
        tile_taken = Signal()
        picked = Signal()
        loading, loaded_all = Signal(), Signal()
        ahead = Signal()
        command = self.command.payload
        m.d.comb += [
            take.eq(
                self.command.valid
                & (~loading | loaded_all)
                & (~waiting | picked)
                & (self.loaded | ~command.wait_prev)
                & (self.stored | ~command.wait_next)
            ),
            self.command.ready.eq(take),
            self.take_loaded.eq(take & command.wait_prev),
            self.take_stored.eq(take & command.wait_next),
            self.idle.eq(unfinished == 0),
        ]
        m.d.sync += unfinished.eq(unfinished + take - finish)
        self._weight_walker(m, take, loading, loaded_all, ahead, tile_taken)
        self._row_walker(m, pending, waiting, picked, ahead, tile_taken, finish)
        with m.If(take):
            m.d.sync += [pending.eq(command), waiting.eq(1)]
        return m

    def _weight_walker(self, m, take, loading, loaded_all, ahead, tile_taken):
        """Reads the rows of each weight tile and loads them into the array, one tile ahead of the row walker."""
        n = self._params.n
        command, array = self.command.payload, self._array
        k_left = Signal(16)
        n_left = Signal(16)
        k_end, n_end, k_single = Signal(), Signal(), Signal()  # k_left, n_left, k_tiles is 1
        k_tiles = Signal(16)
        n_last = Signal.like(command.n_last)
        row = Signal(range(n))  # 0 again after each tile
        addr = Signal(range(self._params.w_words))
        column = Signal(range(self._params.w_words))
        step = Signal(range(self._params.w_words))
        go = Signal()
        # Stage j is j + 1 cycles after the read.
        w_en = Signal(2)
        w_rows = [Signal(range(n), name=f"w_row_{stage}") for stage in range(2)]
        w_masks = [Signal(n, name=f"w_mask_{stage}") for stage in range(2)]
        m.d.comb += [
            go.eq(loading & ((row != 0) | ~ahead | tile_taken)),
            self.w_en.eq(go),
            self.w_addr.eq(addr),
        ]
        with m.If(tile_taken):
            m.d.sync += ahead.eq(0)
        m.d.sync += [w_en.eq(Cat(go, w_en)), w_rows[1].eq(w_rows[0]), w_masks[1].eq(w_masks[0])]
        with m.If(go):
            m.d.sync += [
                addr.eq(addr + 1),
                row.eq(row + 1),
                w_rows[0].eq(row),
                w_masks[0].eq(Mux(n_end, _lanes(n_last, n), (1 << n) - 1)),
            ]
            with m.If(row == 0):
                m.d.sync += ahead.eq(1)
            with m.If(row == n - 1):
                m.d.sync += [k_left.eq(k_left - 1), k_end.eq(k_left == 2)]
                with m.If(k_end):
                    m.d.sync += [
                        k_left.eq(k_tiles),
                        k_end.eq(k_single),
                        n_left.eq(n_left - 1),
                        n_end.eq(n_left == 2),
                        addr.eq(column + step),
                        column.eq(column + step),
                    ]
                    with m.If(n_end):
                        m.d.sync += loading.eq(0)
                        m.d.comb += loaded_all.eq(1)
        # The next MATMUL's weights follow without a gap.
        with m.If(take):
            m.d.sync += [
                loading.eq(1),
                k_left.eq(command.k_tiles),
                n_left.eq(command.n_tiles),
                k_end.eq(command.k_tiles == 1),
                n_end.eq(command.n_tiles == 1),
                k_single.eq(command.k_tiles == 1),
                k_tiles.eq(command.k_tiles),
                n_last.eq(command.n_last),
                addr.eq(command.w_base),
                column.eq(command.w_base),
                step.eq(command.w_step),
            ]
        with m.If(self.stop):
            m.d.sync += loading.eq(0)
        m.d.comb += [array.w_en.eq(w_en[1]), array.w_row.eq(w_rows[1])]
        for lane in range(n):
            place = slice(8 * lane, 8 * lane + 8)
            m.d.comb += array.w_data[place].eq(Mux(w_masks[1][lane], self.w_data[place], 0))

    def _row_walker(self, m, pending, waiting, picked, ahead, tile_taken, finish):
        """Streams activation rows and carries along where their sums go."""
        n, params = self._params.n, self._params
        array, accumulator = self._array, self._accumulator
        now = Signal(execute_command(params))
        active = Signal()
        first = Signal()
        left = Signal(16)
        k_left = Signal(16)
        n_left = Signal(16)
        # What is asked of these, and of now.m and now.k_tiles: whether it is 1.
        last, k_end, n_end, single, k_single = (
            Signal(name=name) for name in ("last", "k_end", "n_end", "single", "k_single")
        )
        a_tile = Signal(range(params.a_words))
        a_addr = Signal(range(params.a_words))
        c_tile = Signal(range(params.c_rows))
        c_addr = Signal(range(params.c_rows))
        later = Signal()
        a_mask = [Signal(n, name=f"a_mask_{stage}") for stage in range(2)]
        issue = Signal()
        # What travels with a row from its read to its sums: stage j is j + 1 cycles after the read.
        travel = data.StructLayout(
            {"valid": 1, "first": 1, "add": 1, "end": 1, "free": 1, "give": 1, "row": range(params.c_rows)}
        )
        stages = [Signal(travel, name=f"stage_{j}") for j in range(n + 4)]
        tile_end = Signal()
        end = Signal()
        m.d.comb += [
            issue.eq(active & (~first | ahead)),
            tile_taken.eq(issue & first),
            tile_end.eq(issue & last),
            end.eq(tile_end & k_end & n_end),
            self.a_en.eq(issue),
            self.a_addr.eq(a_addr),
            self.row.eq(issue),
            # A tile of few rows ends while its weights are still read: its token goes along until they are.
            self.give_load.eq((end & now.signal_prev & (now.m >= n)) | (stages[n - 2].valid & stages[n - 2].free)),
        ]
        with m.If(issue):
            m.d.sync += [
                first.eq(0),
                left.eq(left - 1),
                last.eq(left == 2),
                a_addr.eq(a_addr + 1),
                c_addr.eq(c_addr + 1),
                a_mask[0].eq(Mux(k_end, _lanes(now.k_last, n), (1 << n) - 1)),
            ]
        with m.If(tile_end):
            m.d.sync += [first.eq(1), left.eq(now.m), last.eq(single)]
            with m.If(k_end):
                m.d.sync += [
                    k_left.eq(now.k_tiles),
                    k_end.eq(k_single),
                    n_left.eq(n_left - 1),
                    n_end.eq(n_left == 2),
                    later.eq(0),
                    a_tile.eq(now.a_base),
                    a_addr.eq(now.a_base),
                    c_tile.eq(c_tile + now.c_step),
                    c_addr.eq(c_tile + now.c_step),
                ]
            with m.Else():
                m.d.sync += [
                    k_left.eq(k_left - 1),
                    k_end.eq(k_left == 2),
                    later.eq(1),
                    a_tile.eq(a_tile + now.a_step),
                    a_addr.eq(a_tile + now.a_step),
                    c_addr.eq(c_tile),
                ]
        m.d.comb += picked.eq((end | ~active) & waiting)
        with m.If(end | ~active):
            m.d.sync += active.eq(waiting)
            with m.If(waiting):
                m.d.sync += [
                    waiting.eq(0),
                    now.eq(pending),
                    first.eq(1),
                    left.eq(pending.m),
                    last.eq(pending.m == 1),
                    single.eq(pending.m == 1),
                    later.eq(0),
                    k_left.eq(pending.k_tiles),
                    k_end.eq(pending.k_tiles == 1),
                    k_single.eq(pending.k_tiles == 1),
                    n_left.eq(pending.n_tiles),
                    n_end.eq(pending.n_tiles == 1),
                    a_tile.eq(pending.a_base),
                    a_addr.eq(pending.a_base),
                    c_tile.eq(pending.c_base),
                    c_addr.eq(pending.c_base),
                ]
        with m.If(self.stop):
            m.d.sync += active.eq(0)
        m.d.sync += [stages[0].valid.eq(issue), stages[0].first.eq(tile_taken), stages[0].end.eq(end)]
        with m.If(issue):
            m.d.sync += [
                stages[0].add.eq(now.accumulate | later),
                stages[0].free.eq(end & now.signal_prev & (now.m < n)),
                stages[0].give.eq(end & now.signal_next),
                stages[0].row.eq(c_addr),
            ]
        m.d.sync += a_mask[1].eq(a_mask[0])
        for before, after in pairwise(stages):
            m.d.sync += after.eq(before)
        m.d.comb += [
            array.valid.eq(Cat(stage.valid for stage in stages[1 : n + 3])),
            array.swap.eq(Cat(stage.first for stage in stages[1 : n + 1])),
            accumulator.ahead_en.eq(stages[n].valid & stages[n].add),
            accumulator.ahead_row.eq(stages[n].row),
            accumulator.en.eq(stages[n + 3].valid),
            accumulator.row.eq(stages[n + 3].row),
            accumulator.sums.eq(array.sums),
            accumulator.read_en.eq(self.c_en & self.c_ok),
            accumulator.read_row.eq(self.c_row),
            self.c_ok.eq(accumulator.read_ok),
            self.c_data.eq(accumulator.read_data),
            accumulator.scrub.eq(self.scrub),
            accumulator.scrub_addr.eq(self.scrub_addr),
        ]
        for lane in range(n):
            place = slice(8 * lane, 8 * lane + 8)
            m.d.comb += array.a[place].eq(Mux(a_mask[1][lane], self.a_data[place], 0))
        m.d.sync += [finish.eq(stages[-1].end), self.give_store.eq(stages[-1].give & stages[-1].valid)]
        return m

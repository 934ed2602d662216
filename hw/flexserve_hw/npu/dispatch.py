"""Dispatcher: decodes and checks descriptors and hands them to the units, in order."""

from amaranth.hdl import C, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..params import NpuParams
from ..regs.enums import NpuFault, NpuOp, NpuSpace
from .commands import execute_command, load_command, store_command
from .parameters import lanes

__all__ = ["Dispatcher"]

_HEAD = {"op": 4, "wait_prev": 1, "wait_next": 1, "signal_prev": 1, "signal_next": 1, "space": 2, "accumulate": 1}
_HEAD |= {"quantise": 1, "relu": 1, "reserved": 19}

_LOAD = data.StructLayout(
    {
        **_HEAD,
        "addr": 64,
        "stride": 32,
        "rows": 16,
        "row_bytes": 16,
        "base": 16,
        "row_step": 16,
        "word_step": 16,
        "reserved1": 48,
    }
)
_MATMUL = data.StructLayout(
    {
        **_HEAD,
        "m": 16,
        "k": 16,
        "n": 16,
        "reserved1": 16,
        "a_base": 16,
        "a_step": 16,
        "w_base": 16,
        "w_step": 16,
        "c_base": 16,
        "c_step": 16,
        "reserved3": 64,
    }
)
_STORE = data.StructLayout(
    {
        **_HEAD,
        "addr": 64,
        "stride": 32,
        "rows": 16,
        "n": 16,
        "c_base": 16,
        "c_step": 16,
        "q_base": 16,
        "reserved1": 48,
    }
)


class Dispatcher(wiring.Component):
    """Takes a job's descriptors one by one.

    A descriptor that must not run ends the job once every earlier one is finished: the job is cut exactly there.

    Parameters
    ----------
    params : NpuParams

    Members
    -------
    start : In(1), addr, count : In
        Begin a job of ``count`` descriptors; ``addr`` is only used to report faults.
    beats : In(stream)
        Two beats of 128 bits per descriptor, each with an error bit on top.
    load, execute, store : Out(stream)
        Checked commands.
    units_idle : In(1)
        Nothing handed out is unfinished; falls in the cycle after a handover at the latest.
    done : Out(1)
        High for a cycle: the job is finished.
    fault : Out(1), code, index, where : Out
        High until the job is cleared away: why, which descriptor, and the 64-bit address that belongs to it.

    Latency and ordering
    --------------------
    Ten cycles per descriptor. One multiplier serves all checks in turn; what depends on a descriptor is in registers
    a cycle before it is needed.
    """

    def __init__(self, *, params: NpuParams):
        self._params = params
        super().__init__(
            {
                "start": In(1),
                "addr": In(params.bus.addr_width),
                "count": In(16),
                "beats": In(stream.Signature(129)),
                "load": Out(stream.Signature(load_command(params))),
                "execute": Out(stream.Signature(execute_command(params))),
                "store": Out(stream.Signature(store_command(params))),
                "units_idle": In(1),
                "done": Out(1),
                "fault": Out(1),
                "code": Out(NpuFault),
                "index": Out(16),
                "where": Out(64),
            }
        )

    def elaborate(self, platform):
        m = Module()
        word = Signal(256)
        place = Signal(64)
        left = Signal(16)
        index = Signal(16)
        code = Signal(NpuFault)
        self._load, self._matmul, self._store = (data.View(shape, word) for shape in (_LOAD, _MATMUL, _STORE))
        op = self._load.op
        self._derive(m)
        multiply = Signal(range(6))
        factors = [Signal(16, name=f"factor_{side}") for side in ("left", "right")]
        failed = Signal()
        products = [Signal(32, name=f"product_{i}") for i in range(3)]
        bad, bad_now = Signal(), Signal()
        range_ok, range_ok_now = Signal(), Signal()
        beyond, beyond_now = Signal(), Signal()
        taken = Signal()
        settled = Signal()  # units are idle, and were so a cycle ago: what says so comes from all over the NPU
        m.d.sync += settled.eq(self.units_idle & ~taken)
        self._judge(m, products, bad_now, range_ok_now, beyond_now)
        m.d.sync += [bad.eq(bad_now), range_ok.eq(range_ok_now), beyond.eq(beyond_now)]
        self._commands(m, index, products)
        m.d.comb += [self.code.eq(code), self.index.eq(index)]
        m.d.comb += self.where.eq(Mux(code == NpuFault.BUS_ERROR, self._load.addr, place))
        with m.FSM(name="dispatch"):
            with m.State("IDLE"):
                with m.If(self.start):
                    m.d.sync += [place.eq(self.addr), left.eq(self.count), index.eq(0)]
                    m.next = "FIRST"
            with m.State("FIRST"):
                with m.If(left == 0):
                    with m.If(settled):
                        m.d.comb += self.done.eq(1)
                        m.next = "IDLE"
                with m.Else():
                    m.d.comb += self.beats.ready.eq(1)
                    with m.If(self.beats.valid):
                        m.d.sync += [word[:128].eq(self.beats.payload), failed.eq(self.beats.payload[128])]
                        m.next = "SECOND"
            with m.State("SECOND"):
                m.d.comb += self.beats.ready.eq(1)
                with m.If(self.beats.valid):
                    m.d.sync += [
                        word[128:].eq(self.beats.payload),
                        failed.eq(failed | self.beats.payload[128]),
                        multiply.eq(0),
                    ]
                    m.next = "MULTIPLY"
            with m.State("MULTIPLY"):
                m.d.sync += [
                    multiply.eq(multiply + 1),
                    *(factor.eq(value) for factor, value in zip(factors, self._factors(m, multiply), strict=True)),
                ]
                for i, product in enumerate(products):
                    with m.If(multiply == i + 1):
                        m.d.sync += product.eq(factors[0] * factors[1])
                with m.If(multiply == 5):
                    m.next = "JUDGE"
            with m.State("JUDGE"):
                m.next = "REFUSE"
                with m.If(failed):
                    m.d.sync += code.eq(NpuFault.FETCH_ERROR)
                with m.Elif(bad):
                    m.d.sync += code.eq(NpuFault.BAD_DESCRIPTOR)
                with m.Elif(~range_ok):
                    m.d.sync += code.eq(NpuFault.SCRATCHPAD_RANGE)
                with m.Elif(beyond):
                    m.d.sync += code.eq(NpuFault.BUS_ERROR)
                with m.Else():
                    m.next = "HAND_OUT"
            with m.State("HAND_OUT"):
                with m.Switch(op):
                    for operation, unit in (
                        (NpuOp.LOAD, self.load),
                        (NpuOp.MATMUL, self.execute),
                        (NpuOp.STORE, self.store),
                    ):
                        with m.Case(operation):
                            m.d.comb += [unit.valid.eq(1), taken.eq(unit.ready)]
                    with m.Default():
                        m.d.comb += taken.eq(settled)
                with m.If(taken):
                    m.d.sync += [left.eq(left - 1), index.eq(index + 1), place.eq(place + 32)]
                    m.next = "FIRST"
            with m.State("REFUSE"):
                with m.If(settled):
                    m.d.comb += self.fault.eq(1)
        return m

    def _derive(self, m):
        """Sizes in tiles, words and beats."""
        shift = (self._params.n - 1).bit_length()
        mask = self._params.n - 1

        def tiles(size):
            return (size + mask) >> shift

        self._k_tiles, self._n_tiles, self._s_tiles = (Signal(16, name=f"tiles_{i}") for i in range(3))
        self._load_beats = Signal(13)
        self._store_beats = Signal(15)
        m.d.comb += [
            self._k_tiles.eq(tiles(self._matmul.k)),
            self._n_tiles.eq(tiles(self._matmul.n)),
            self._s_tiles.eq(tiles(self._store.n)),
            self._load_beats.eq((self._load.row_bytes + 15) >> 4),
            self._store_beats.eq(Mux(self._store.quantise, (self._store.n + 15) >> 4, (self._store.n + 3) >> 2)),
        ]

    def _factors(self, m, multiply):
        """The two factors of product ``multiply`` for the operation at hand. Sizes of zero are refused anyway."""
        shift = (self._params.n - 1).bit_length()
        left = Signal(16)
        right = Signal(16)
        table = {
            NpuOp.LOAD: (
                (self._load.rows - 1, self._load.row_step),
                ((self._load.row_bytes - 1) >> shift, self._load.word_step),
                (self._load.rows, self._load_beats),
            ),
            NpuOp.MATMUL: (
                ((self._matmul.k - 1) >> shift, self._matmul.a_step),
                ((self._matmul.n - 1) >> shift, self._matmul.c_step),
                ((self._matmul.n - 1) >> shift, self._matmul.w_step),
            ),
            NpuOp.STORE: (
                ((self._store.n - 1) >> shift, self._store.c_step),
                (C(0, 16), C(0, 16)),
                (self._store.rows, self._store_beats),
            ),
        }
        with m.Switch(self._load.op):
            for operation, pairs in table.items():
                with m.Case(operation):
                    with m.Switch(multiply):
                        for i, (a, b) in enumerate(pairs):
                            with m.Case(i):
                                m.d.comb += [left.eq(a), right.eq(b)]
        return left, right

    def _judge(self, m, products, bad, range_ok, beyond):
        """Whether the descriptor may run."""
        params = self._params
        load, matmul, store = self._load, self._matmul, self._store
        reaches = self._reach(m, products)
        misplaced = load.addr[:4].any() | load.stride[:4].any()  # LOAD and STORE have both at the same place
        depth = Signal(17)
        with m.Switch(load.space):
            for space, words in (
                (NpuSpace.ACTIVATIONS, params.a_words),
                (NpuSpace.WEIGHTS, params.w_words),
                (NpuSpace.PARAMETERS, params.q_words),
            ):
                with m.Case(space):
                    m.d.comb += depth.eq(words)
        out_of_reach = load.addr[params.bus.addr_width :].any() if params.bus.addr_width < 64 else C(0)
        with m.Switch(load.op):
            with m.Case(NpuOp.LOAD):
                m.d.comb += [
                    bad.eq(
                        (load.rows == 0)
                        | (load.row_bytes == 0)
                        | misplaced
                        | load.wait_prev
                        | load.signal_prev
                        | (depth == 0)
                    ),
                    range_ok.eq(reaches[0] < depth),
                    beyond.eq(out_of_reach),
                ]
            with m.Case(NpuOp.MATMUL):
                m.d.comb += [
                    bad.eq((matmul.m == 0) | (matmul.k == 0) | (matmul.n == 0)),
                    range_ok.eq(
                        (reaches[0] <= params.a_words) & (reaches[1] <= params.c_rows) & (reaches[2] <= params.w_words)
                    ),
                ]
            with m.Case(NpuOp.STORE):
                m.d.comb += [
                    bad.eq(
                        (store.rows == 0)
                        | (store.n == 0)
                        | misplaced
                        | store.wait_next
                        | store.signal_next
                        | (store.relu & ~store.quantise)
                        | (store.quantise & store.q_base[:2].any())
                    ),
                    range_ok.eq((reaches[0] <= params.c_rows) & (~store.quantise | (reaches[1] <= params.q_words))),
                    beyond.eq(out_of_reach),
                ]
            with m.Case(NpuOp.FENCE):
                m.d.comb += [
                    bad.eq(load.wait_prev | load.wait_next | load.signal_prev | load.signal_next),
                    range_ok.eq(1),
                ]
            with m.Default():
                m.d.comb += bad.eq(1)

    def _reach(self, m, products):
        """How far a descriptor reaches into the memories: each sum of three takes two cycles."""
        load, matmul, store = self._load, self._matmul, self._store
        first, second, _ = products
        halves = [Signal(33, name=f"half_{i}") for i in range(3)]
        reaches = [Signal(34, name=f"reach_{i}") for i in range(3)]
        with m.Switch(load.op):
            with m.Case(NpuOp.LOAD):
                m.d.sync += [halves[0].eq(load.base + first), reaches[0].eq(halves[0] + second)]
            with m.Case(NpuOp.MATMUL):
                m.d.sync += [
                    halves[0].eq(matmul.a_base + matmul.m),
                    halves[1].eq(matmul.c_base + matmul.m),
                    halves[2].eq(matmul.w_base + (self._k_tiles << (self._params.n - 1).bit_length())),
                    *(reach.eq(half + product) for reach, half, product in zip(reaches, halves, products, strict=True)),
                ]
            with m.Case(NpuOp.STORE):
                m.d.sync += [
                    halves[0].eq(store.c_base + store.rows),
                    reaches[0].eq(halves[0] + first),
                    reaches[1].eq(store.q_base + (self._s_tiles << 3)),
                ]
        return reaches

    def _commands(self, m, index, products):
        """What the units get."""
        n = self._params.n
        load, matmul, store = self._load, self._matmul, self._store
        to_load, to_execute, to_store = self.load.payload, self.execute.payload, self.store.payload
        load_packed, store_packed = Signal(), Signal()
        per_piece = (lanes(n) - 1).bit_length()
        filled = Mux(store.quantise, store.n[:4] == 0, store.n[:2] == 0)
        m.d.sync += [
            load_packed.eq(load.stride == self._load_beats << 4),
            store_packed.eq((store.stride == self._store_beats << 4) & filled),
        ]
        m.d.comb += [
            *(getattr(to_load, f).eq(getattr(load, f)) for f in ("wait_next", "signal_next", "addr", "stride", "rows")),
            *(getattr(to_load, f).eq(getattr(load, f)) for f in ("row_bytes", "base", "row_step", "word_step")),
            to_load.space.eq(load.space),
            to_load.index.eq(index),
            to_load.beats.eq(self._load_beats),
            to_load.linear.eq(Mux(load_packed, products[2], 0)),
            *(getattr(to_execute, f).eq(getattr(matmul, f)) for f in ("wait_prev", "wait_next", "signal_prev")),
            *(getattr(to_execute, f).eq(getattr(matmul, f)) for f in ("signal_next", "accumulate", "m", "a_base")),
            *(getattr(to_execute, f).eq(getattr(matmul, f)) for f in ("a_step", "w_base", "w_step", "c_base")),
            to_execute.c_step.eq(matmul.c_step),
            to_execute.k_tiles.eq(self._k_tiles),
            to_execute.n_tiles.eq(self._n_tiles),
            to_execute.k_last.eq(((matmul.k - 1) & (n - 1)) + 1),
            to_execute.n_last.eq(((matmul.n - 1) & (n - 1)) + 1),
            *(getattr(to_store, f).eq(getattr(store, f)) for f in ("wait_prev", "signal_prev", "addr", "stride")),
            *(getattr(to_store, f).eq(getattr(store, f)) for f in ("rows", "c_base", "c_step")),
            to_store.index.eq(index),
            to_store.beats.eq(self._store_beats),
            to_store.linear.eq(Mux(store_packed, products[2], 0)),
            to_store.last_bytes.eq(Mux(store.quantise, ((store.n - 1) & 15) + 1, (((store.n - 1) & 3) + 1) << 2)),
            to_store.pieces.eq(Mux(store.quantise, (store.n + lanes(n) - 1) >> per_piece, self._store_beats)),
            to_store.quantise.eq(store.quantise),
            to_store.relu.eq(store.relu),
            to_store.q_row.eq(store.q_base >> 2),
        ]

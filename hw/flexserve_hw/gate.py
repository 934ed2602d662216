"""NPU gate: the recall protocol for the NPU."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from .regs.block import RegisterBlock
from .regs.enums import RecallCommand, RecallResult, RecallState
from .regs.regbus import RegisterBusSignature

__all__ = ["GateState", "NpuGate"]


class GateState(enum.Enum, shape=9):
    """Where the NPU is, one bit each: what is not exactly one of these is corrupt."""

    BOOT = 1
    """After reset: to be scrubbed, whatever it holds. Nobody owns it."""
    NORMAL = 2
    LENDING = 4
    """DELEGATE is underway: drain and scrub of the normal world's work."""
    DELEGATED = 8
    FLEX = 16
    RECALLING = 32
    RETURNING = 64
    """Drain and scrub of the secure world's work, under the secure bit."""
    SEALING = 128
    """SEAL is underway: as LENDING."""
    SEALED = 256


_G = GateState

_REPORTED = {
    _G.BOOT: RecallState.SCRUBBING,
    _G.NORMAL: RecallState.NORMAL,
    _G.LENDING: RecallState.SCRUBBING,
    _G.DELEGATED: RecallState.DELEGATED,
    _G.FLEX: RecallState.FLEX,
    _G.RECALLING: RecallState.RECALLING,
    _G.RETURNING: RecallState.SCRUBBING,
    _G.SEALING: RecallState.SCRUBBING,
    _G.SEALED: RecallState.SEALED,
}
"""State that software reads; during a hand-over nobody has access and the NPU is being zeroed."""

_RULES = {
    RecallCommand.DELEGATE: (0, (_G.NORMAL,)),
    RecallCommand.ACCEPT: (1, (_G.DELEGATED,)),
    RecallCommand.RECALL: (0, (_G.FLEX,)),
    RecallCommand.RELEASE: (1, (_G.FLEX, _G.RECALLING)),
    RecallCommand.CANCEL: (0, (_G.DELEGATED,)),
    RecallCommand.SEAL: (1, (_G.NORMAL, _G.FLEX)),
}
"""Per command: the frame that may give it (0 normal, 1 secure) and the states it starts from."""


class NpuGate(wiring.Component):
    """Lends the NPU to the secure world and takes it back.

    The order of a hand-over is: the old owner's frame goes dead, the NPU drains, the NPU is scrubbed, the secure bit
    flips, and only then the new state is reported. The state is held as one bit of nine, the secure bit three times:
    a single upset turns no state into another and no bit around; it blocks both frames, stops the NPU and raises the
    alarm until reset.

    Parameters
    ----------
    grace_min, grace_max : int
        Limits of the grace period in cycles.

    Members
    -------
    frame_n, frame_s : In(RegisterBusSignature())
        Frames ``gate_normal`` and ``gate_secure``.
    irq_n, irq_s : Out(1)
        Level interrupts.
    managers : Out(16)
        NSAIDs that may use the normal frame.
    secure : Out(1), live_normal, live_secure : Out(1), ticket : Out(32)
        To the NPU; see :class:`~flexserve_hw.npu.top.FlexNpu`.
    drain, scrub : Out(1), drained, scrubbed : In(1)
        Hand-over; likewise.
    state : Out(RecallState)
        Probe: the state that software reads.

    Latency and ordering
    --------------------
    Commands of the two frames are taken one at a time, alternating, each decided two cycles after its write at the
    earliest. DELEGATE and SEAL finish when the NPU is scrubbed, RELEASE when it is drained, the others at once. A
    grace period that ends in the cycle of a decision goes first.
    """

    def __init__(self, *, grace_min: int = 1_000, grace_max: int = 10_000_000):
        if not 1 <= grace_min <= grace_max < 1 << 32:
            raise ValueError(f"Grace limits must satisfy 1 <= min <= max < 2**32, not {(grace_min, grace_max)!r}")
        self._grace_min, self._grace_max = grace_min, grace_max
        super().__init__(
            {
                "frame_n": In(RegisterBusSignature()),
                "frame_s": In(RegisterBusSignature()),
                "irq_n": Out(1),
                "irq_s": Out(1),
                "managers": Out(16),
                "secure": Out(1),
                "live_normal": Out(1),
                "live_secure": Out(1),
                "ticket": Out(32),
                "drain": Out(1),
                "drained": In(1),
                "scrub": Out(1),
                "scrubbed": In(1),
                "state": Out(RecallState, init=RecallState.SCRUBBING),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.regs_normal = self._normal = RegisterBlock("gate_normal")
        m.submodules.regs_secure = self._secure_regs = RegisterBlock("gate_secure")
        wiring.connect(m, wiring.flipped(self.frame_n), self._normal.bus)
        wiring.connect(m, wiring.flipped(self.frame_s), self._secure_regs.bus)
        self._state = Signal(len(_G), init=_G.BOOT.value)
        self._corrupt = Signal()
        self._expire = Signal()
        self._guard(m)
        self._returned = Signal()
        self._recalled = Signal()
        self._lent = Signal()
        self._ticket = Signal(32)
        self._grace(m)
        self._hand_over(m)
        self._commands(m)
        self._registers(m)
        return m

    def _is(self, *states):
        """Whether the stored state is legal and one of these."""
        return ~self._corrupt & (self._state & sum(state.value for state in states)).any()

    def _guard(self, m):
        """Check what is stored, and say what follows from it."""
        state = self._state
        alarm = Signal()
        copies = Signal(3)
        self._copies = copies
        legal = (state != 0) & ((state & (state - 1))[: len(state)] == 0)
        agree = (copies == 0) | copies.all()
        m.d.comb += [
            self._corrupt.eq(alarm | ~legal | ~agree),
            # Transactions that are out keep their world, whatever one copy says.
            self.secure.eq((copies[0] & copies[1]) | (copies[1] & copies[2]) | (copies[0] & copies[2])),
            self.live_normal.eq(self._is(_G.NORMAL)),
            self.live_secure.eq(self._is(_G.FLEX, _G.RECALLING, _G.SEALED)),
            self.state.eq(RecallState.CORRUPT),
        ]
        m.d.sync += [alarm.eq(self._corrupt), copies.eq(self.secure.replicate(3))]
        with m.If(~self._corrupt):
            with m.Switch(state):
                for stored, reported in _REPORTED.items():
                    with m.Case(stored.value):
                        m.d.comb += self.state.eq(reported)

    def _enter(self, m, state, *, secure=None):
        """Statements that enter ``state``."""
        statements = [self._state.eq(state.value)]
        if secure is not None:
            statements.append(self._copies.eq(0b111 if secure else 0))
        m.d.sync += statements

    def _grace(self, m):
        wanted = self._secure_regs.GRACE.cycles.value
        low, high = self._grace_min, self._grace_max
        self._period = Signal(32)
        self._left = Signal(range(self._grace_max))
        m.d.comb += [
            self._period.eq(Mux(wanted < low, low, Mux(wanted > high, high, wanted))),
            self._expire.eq(self._is(_G.RECALLING) & (self._left == 0)),
        ]
        with m.If(self._left != 0):
            m.d.sync += self._left.eq(self._left - 1)
        with m.If(self._expire):
            self._enter(m, _G.RETURNING)

    def _hand_over(self, m):
        """Drain, scrub, flip."""
        moving = Signal()
        scrubbing = Signal()
        m.d.comb += [
            moving.eq(self._is(_G.BOOT, _G.LENDING, _G.RETURNING, _G.SEALING)),
            self.drain.eq(moving | self._corrupt),
            self.scrub.eq(moving & scrubbing),
        ]
        m.d.sync += scrubbing.eq(moving & (scrubbing | self.drained) & ~self._clean)
        with m.If(self._clean):
            with m.Switch(self._state):
                with m.Case(_G.BOOT.value):
                    self._enter(m, _G.NORMAL, secure=False)
                with m.Case(_G.LENDING.value):
                    self._enter(m, _G.DELEGATED, secure=False)
                with m.Case(_G.SEALING.value):
                    self._enter(m, _G.SEALED, secure=True)
                with m.Case(_G.RETURNING.value):
                    self._enter(m, _G.NORMAL, secure=False)
                    m.d.comb += self._returned.eq(1)

    @property
    def _clean(self):
        return self.scrub & self.scrubbed

    def _commands(self, m):
        """One engine for the commands of both frames."""
        ports = (self._normal.CMD, self._secure_regs.CMD)
        self._finished = [Signal(name=f"finished_{i}") for i in range(2)]
        busy = [Signal(name=f"busy_{i}") for i in range(2)]
        codes = [Signal(RecallCommand, name=f"code_{i}") for i in range(2)]
        results = [Signal(RecallResult, name=f"result_{i}") for i in range(2)]
        offenders = [Signal(32, name=f"offender_{i}") for i in range(2)]
        turn = Signal()
        decided = Signal()
        finish = Signal()
        outcome = Signal(RecallResult)
        culprit = Signal(32)
        for i, port in enumerate(ports):
            with m.If(port.COMMAND.code.swmod):
                m.d.sync += [busy[i].eq(1), codes[i].eq(port.COMMAND.code.written)]
            m.d.comb += [
                *(getattr(port, name).reject.eq(busy[i]) for name in ("FIRST", "COUNT", "TICKET", "COMMAND")),
                port.STATUS.busy.value.eq(busy[i]),
                port.STATUS.result.value.eq(results[i]),
                port.OFFENDER.value.value.eq(offenders[i]),
            ]
            with m.If(finish & (turn == i)):
                m.d.comb += self._finished[i].eq(1)
                m.d.sync += [busy[i].eq(0), results[i].eq(outcome), offenders[i].eq(culprit)]
        code, verdict, blame = self._judge(m, turn, codes, ports)
        with m.FSM(name="engine"):
            with m.State("IDLE"):
                with m.If(busy[0] | busy[1]):
                    m.d.sync += turn.eq(Mux(turn, ~busy[0], busy[1]))
                    m.next = "DECIDE"
            with m.State("DECIDE"):
                m.d.comb += decided.eq(~self._expire)
                with m.If(decided):
                    m.d.sync += [outcome.eq(verdict), culprit.eq(Mux(verdict == RecallResult.OK, 0, blame))]
                    m.next = "FINISH"
                    with m.If(verdict == RecallResult.OK):
                        self._apply(m, code)
            with m.State("DRAIN"):
                with m.If(self.drained):
                    m.next = "FINISH"
                with m.If(self._corrupt):
                    m.d.sync += outcome.eq(RecallResult.CORRUPT_STATE)
                    m.next = "FINISH"
            with m.State("SCRUB"):
                with m.If(self._is(_G.DELEGATED, _G.SEALED)):
                    m.d.comb += self._lent.eq(self._is(_G.DELEGATED))
                    m.next = "FINISH"
                with m.If(self._corrupt):
                    m.d.sync += outcome.eq(RecallResult.CORRUPT_STATE)
                    m.next = "FINISH"
            with m.State("FINISH"):
                m.d.comb += finish.eq(1)
                m.next = "IDLE"

    def _judge(self, m, turn, codes, ports):
        """Check the command whose turn it is. Returns code, verdict and the unit to blame."""
        code = Signal(RecallCommand)
        verdict = Signal(RecallResult)
        first = Signal(32)
        count = Signal(32)
        quoted = Signal(32)
        blame = Signal(32)
        known = Signal()
        permitted = Signal()
        fits = Signal()
        m.d.comb += [
            code.eq(Mux(turn, codes[1].as_value(), codes[0].as_value())),
            first.eq(Mux(turn, ports[1].FIRST.value.value, ports[0].FIRST.value.value)),
            count.eq(Mux(turn, ports[1].COUNT.value.value, ports[0].COUNT.value.value)),
            quoted.eq(Mux(turn, ports[1].TICKET.value.value, ports[0].TICKET.value.value)),
            verdict.eq(RecallResult.OK),
            blame.eq(first),
        ]
        locked = self._secure_regs.CONTROL.lock.value
        with m.Switch(code):
            for command, (frame, sources) in _RULES.items():
                with m.Case(command):
                    own = turn == frame
                    m.d.comb += [
                        known.eq(1),
                        permitted.eq(own & ~locked if command is RecallCommand.SEAL else own),
                        fits.eq(self._is(*sources)),
                    ]
        ticketed = (code == RecallCommand.ACCEPT) | (code == RecallCommand.RELEASE)
        with m.If(~known):
            m.d.comb += verdict.eq(RecallResult.BAD_COMMAND)
        with m.Elif(~permitted):
            m.d.comb += verdict.eq(RecallResult.NOT_PERMITTED)
        with m.Elif((count == 0) | (first != 0)):
            m.d.comb += verdict.eq(RecallResult.OUT_OF_WINDOW)
        with m.Elif(count != 1):
            m.d.comb += [verdict.eq(RecallResult.OUT_OF_WINDOW), blame.eq(1)]
        with m.Elif(ticketed & (quoted != self.ticket)):
            m.d.comb += verdict.eq(RecallResult.BAD_TICKET)
        with m.Elif(self._corrupt):
            m.d.comb += verdict.eq(RecallResult.CORRUPT_STATE)
        with m.Elif(~fits):
            m.d.comb += verdict.eq(RecallResult.BAD_STATE)
        return code, verdict, blame

    def _apply(self, m, code):
        """Statements that carry out a legal command."""
        with m.Switch(code):
            with m.Case(RecallCommand.DELEGATE):
                self._enter(m, _G.LENDING)
                m.d.sync += self._ticket.eq(self._ticket + 1)
                m.next = "SCRUB"
            with m.Case(RecallCommand.ACCEPT):
                self._enter(m, _G.FLEX, secure=True)
            with m.Case(RecallCommand.RECALL):
                self._enter(m, _G.RECALLING)
                m.d.sync += self._left.eq(self._period - 1)
                m.d.comb += self._recalled.eq(1)
            with m.Case(RecallCommand.RELEASE):
                self._enter(m, _G.RETURNING)
                m.next = "DRAIN"
            with m.Case(RecallCommand.CANCEL):
                self._enter(m, _G.NORMAL)
            with m.Case(RecallCommand.SEAL):
                with m.If(self._is(_G.FLEX)):
                    self._enter(m, _G.SEALED)
                with m.Else():
                    self._enter(m, _G.SEALING)
                    m.next = "SCRUB"

    def _registers(self, m):
        """What software sees and what it is told."""
        normal, secure = self._normal, self._secure_regs
        lock = secure.CONTROL.lock.value
        alarmed = Signal()
        m.d.sync += alarmed.eq(self._corrupt)
        m.d.comb += [
            *(regs.STATE.state.value.eq(self.state) for regs in (normal, secure)),
            *(regs.TICKET.value.value.eq(self._ticket) for regs in (normal, secure)),
            normal.GRACE.cycles.value.eq(self._period),
            secure.GRACE.cycles.swwel.eq(lock),
            secure.MANAGERS.nsaids.swwel.eq(lock),
            self.managers.eq(secure.MANAGERS.nsaids.value),
            self.ticket.eq(self._ticket),
            normal.IRQ_STATUS.command.hwset.eq(self._finished[0]),
            normal.IRQ_STATUS.returned.hwset.eq(self._returned),
            secure.IRQ_STATUS.command.hwset.eq(self._finished[1]),
            secure.IRQ_STATUS.delegated.hwset.eq(self._lent),
            secure.IRQ_STATUS.recall.hwset.eq(self._recalled),
            secure.IRQ_STATUS.expired.hwset.eq(self._expire),
            secure.IRQ_STATUS.corrupt.hwset.eq(self._corrupt & ~alarmed),
            secure.ALARM.corrupt.hwset.eq(self._corrupt & ~alarmed),
            self.irq_n.eq(normal.irq),
            self.irq_s.eq(secure.irq),
        ]

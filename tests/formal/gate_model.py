"""The golden recall table as gateware, beside an NPU gate: what the gate must show in every cycle."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal

from flexserve_hw.gate import NpuGate
from flexserve_sw.machine import World
from flexserve_sw.recall import ACCESS, TRANSITIONS
from flexserve_sw.regs import GateNormal, GateSecure, RecallCommand, RecallResult, RecallState

__all__ = ["GoldenGate", "GoldenFrame"]

C, R, S = RecallCommand, RecallResult, RecallState
FRAMES = (GateNormal(0), GateSecure(0))
WORLDS = (World.NORMAL, World.SECURE)


class GoldenFrame:
    """What one frame holds, by the requests it was sent and the description of its registers alone.

    ``busy`` is set by an accepted write of COMMAND and falls with ``finished``, an event that the model that uses the
    frame gives; so do ``events``, the bits that IRQ_STATUS shall have set.
    """

    def __init__(self, m, bus, regs, name, *, finished, events):
        self._m, self._bus, self._name = m, bus, name
        self.busy = Signal(name=f"{name}_busy")
        self.code = Signal(4, name=f"{name}_code")
        cmd = regs.CMD
        self.started = self.writes(cmd.COMMAND) & bus.strb[0] & ~self.busy
        with m.If(finished):
            m.d.sync += self.busy.eq(0)
        with m.If(self.started):
            m.d.sync += [self.busy.eq(1), self.code.eq(bus.wdata[:4])]
        self.first = self.register(cmd.FIRST, 32, "first", reject=self.busy)
        self.count = self.register(cmd.COUNT, 32, "count", reject=self.busy)
        self.ticket = self.register(cmd.TICKET, 32, "ticket", reject=self.busy)
        self.enabled = self.register(regs.IRQ_ENABLE, len(events), "enabled")
        self.status = self.sticky(regs.IRQ_STATUS, Cat(events), "status")
        commands = (cmd.FIRST, cmd.COUNT, cmd.TICKET, cmd.COMMAND)
        self.refused = bus.write & self.busy & self._any(self.at(address) for address in commands)

    @staticmethod
    def _any(terms):
        return Cat(terms).any()

    def at(self, address):
        """The request is for the register at ``address``."""
        return self._bus.addr[2:] == address >> 2

    def writes(self, address):
        """A write of the register at ``address`` is asked for."""
        return self._bus.valid & self._bus.write & self.at(address)

    def register(self, address, width, name, *, reject=None, init=0):
        """A plain register: bytes with their strobe take what is written, unless ``reject``."""
        m, bus = self._m, self._bus
        reject = Const(0) if reject is None else reject
        value = Signal(width, name=f"{self._name}_{name}", init=init)
        with m.If(self.writes(address) & ~reject):
            for lane in range((width + 7) // 8):
                part = slice(8 * lane, min(8 * lane + 8, width))
                with m.If(bus.strb[lane]):
                    m.d.sync += value[part].eq(bus.wdata[part])
        return value

    def sticky(self, address, events, name):
        """Bits that events set and software clears by writing ones; setting wins."""
        m, bus = self._m, self._bus
        value = Signal(len(events), name=f"{self._name}_{name}")
        cleared = Mux(self.writes(address) & bus.strb[0], bus.wdata[: len(events)], 0)
        m.d.sync += value.eq((value & ~cleared) | events)
        return value


class GoldenGate:
    """Adds the model to ``m``, fed by the ports of ``gate``.

    The model takes three things from the gate: when a command is judged and whose (``decided``, ``turn``), and when the
    engine reports it (``finished``, one per frame). Everything else it computes: operands from the bus, verdicts and
    state from the table of :mod:`flexserve_sw.recall`, the grace period by counting. ``start``, if given, is the ticket
    to begin with, in the first cycle alone.
    """

    def __init__(self, m: Module, gate: NpuGate, *, decided, turn, finished, grace_min: int, grace_max: int, start=0):
        self._gate = gate
        self.decided, self.turn, self.finished = decided, turn, finished
        self.state = Signal(S, init=S.SCRUBBING)
        self.goal = Signal(S, init=S.NORMAL)
        self.boot = Signal(init=1)
        self.issued, self._issued_before = Signal(32), Signal(32)
        m.d.comb += self.issued.eq(self._issued_before | start)
        m.d.sync += self._issued_before.eq(self.issued)
        self.age = Signal(range(grace_max + 1))
        self.period = Signal(range(grace_max + 1))
        self.clean = Signal()
        self.expired = Signal()
        lent, recalled, corrupt = Signal(), Signal(), Signal()
        returned = self.clean & (self.goal == S.NORMAL) & ~self.boot
        self.normal = GoldenFrame(
            m, gate.frame_n, FRAMES[0], "n", finished=self.finished[0], events=(self.finished[0], returned)
        )
        self.secure = GoldenFrame(
            m,
            gate.frame_s,
            FRAMES[1],
            "s",
            finished=self.finished[1],
            events=(self.finished[1], lent, recalled, self.expired, corrupt),
        )
        self.frames = (self.normal, self.secure)
        regs = FRAMES[1]
        self.pending = Mux(turn, self.secure.busy, self.normal.busy)
        self.lock = Signal()
        with m.If(self.secure.writes(regs.CONTROL) & gate.frame_s.strb[0] & gate.frame_s.wdata[0]):
            m.d.sync += self.lock.eq(1)
        self.grace = self.secure.register(regs.GRACE, 32, "grace", reject=self.lock)
        self.managers = self.secure.register(regs.MANAGERS, 16, "managers", reject=self.lock, init=1)
        self.alarm = self.secure.sticky(regs.ALARM, corrupt, "alarm")
        self.clamped = Signal(32)
        m.d.comb += self.clamped.eq(
            Mux(self.grace < grace_min, grace_min, Mux(self.grace > grace_max, grace_max, self.grace))
        )
        self._decide(m)
        self._hand_over(m, lent)
        m.d.comb += recalled.eq(self.applied & (self.code == C.RECALL))

    def _pick(self, name):
        return Mux(self.turn, getattr(self.secure, name), getattr(self.normal, name))

    def _decide(self, m):
        """The verdict on the command that is judged now, in the order of checks of the golden table."""
        state = self.state
        self.code, self.verdict, self.applied = Signal(4), Signal(R), Signal()
        first, count, ticket = self._pick("first"), self._pick("count"), self._pick("ticket")
        known, own, fits, blame = Signal(), Signal(), Signal(), Signal(32)
        target = Signal(S)
        m.d.comb += self.code.eq(self._pick("code"))
        with m.Switch(self.code):
            for code, (world, sources, goal) in TRANSITIONS.items():
                with m.Case(code):
                    m.d.comb += [
                        known.eq(1),
                        own.eq((self.turn == WORLDS.index(world)) & ~(self.lock if code is C.SEAL else Const(0))),
                        fits.eq(Cat(state == source for source in sources).any()),
                        target.eq(goal),
                    ]
        m.d.comb += blame.eq(first)
        with m.If(~known):
            m.d.comb += self.verdict.eq(R.BAD_COMMAND)
        with m.Elif(~own):
            m.d.comb += self.verdict.eq(R.NOT_PERMITTED)
        with m.Elif((count == 0) | (first >= 1)):
            m.d.comb += self.verdict.eq(R.OUT_OF_WINDOW)
        with m.Elif(count > 1):
            m.d.comb += [self.verdict.eq(R.OUT_OF_WINDOW), blame.eq(1)]
        with m.Elif(((self.code == C.ACCEPT) | (self.code == C.RELEASE)) & (ticket != self.issued)):
            m.d.comb += self.verdict.eq(R.BAD_TICKET)
        with m.Elif(~fits):
            m.d.comb += self.verdict.eq(R.BAD_STATE)
        with m.Else():
            m.d.comb += self.verdict.eq(R.OK)
        m.d.comb += self.applied.eq(self.decided & (self.verdict == R.OK))
        self.result = [Signal(R, name=f"golden_result_{i}") for i in range(2)]
        self.offender = [Signal(32, name=f"golden_offender_{i}") for i in range(2)]
        self.judged = Signal()
        """A command is judged and not yet reported."""
        self.pending_result, self.pending_offender = Signal(R), Signal(32)
        with m.If(Cat(self.finished).any()):
            m.d.sync += self.judged.eq(0)
        with m.If(self.decided):
            m.d.sync += [
                self.judged.eq(1),
                self.pending_result.eq(self.verdict),
                self.pending_offender.eq(Mux(self.verdict == R.OK, 0, blame)),
            ]
        for i in range(2):
            with m.If(self.finished[i]):
                m.d.sync += [self.result[i].eq(self.pending_result), self.offender[i].eq(self.pending_offender)]
        self.awaits = Signal(3)
        """What the judged command still waits for: the end of a scrub into DELEGATED or SEALED, a drain."""
        with m.If(self.applied):
            with m.Switch(self.code):
                with m.Case(C.DELEGATE):
                    m.d.sync += [self._leave(target), self._issued_before.eq(self.issued + 1), self.awaits.eq(0b001)]
                with m.Case(C.SEAL):
                    with m.If(state == S.FLEX):
                        m.d.sync += state.eq(target)
                    with m.Else():
                        m.d.sync += [self._leave(target), self.awaits.eq(0b010)]
                with m.Case(C.RELEASE):
                    m.d.sync += [self._leave(S.NORMAL), self.awaits.eq(0b100)]
                with m.Default():
                    m.d.sync += state.eq(target)
        with m.If(self.applied & (self.code == C.RECALL)):
            m.d.sync += [self.age.eq(1), self.period.eq(self.clamped)]
        with m.Elif(state == S.RECALLING):
            m.d.sync += self.age.eq(self.age + 1)
        m.d.comb += self.expired.eq((state == S.RECALLING) & (self.age == self.period))
        with m.If(self.expired):
            m.d.sync += self._leave(S.NORMAL)

    def _leave(self, goal):
        """Statements that start a hand-over to ``goal``."""
        return [self.state.eq(S.SCRUBBING), self.goal.eq(goal)]

    def _hand_over(self, m, lent):
        """Drained, then scrubbed, then the goal; ``drained`` and ``scrubbed`` of the NPU count while they are asked."""
        gate, state = self._gate, self.state
        self.seen_drained = Signal()
        m.d.comb += self.clean.eq((state == S.SCRUBBING) & gate.scrub & gate.scrubbed)
        with m.If(state != S.SCRUBBING):
            m.d.sync += self.seen_drained.eq(0)
        with m.Elif(gate.drained):
            m.d.sync += self.seen_drained.eq(1)
        with m.If(gate.drained):
            m.d.sync += self.awaits[2].eq(0)
        with m.If(self.applied & (self.code == C.RELEASE)):
            m.d.sync += self.awaits[2].eq(1)
        m.d.sync += lent.eq(0)
        with m.If(self.clean):
            m.d.sync += [state.eq(self.goal), self.boot.eq(0), self.seen_drained.eq(0), self.awaits[:2].eq(0)]
            m.d.sync += lent.eq(self.goal == S.DELEGATED)

    def access(self, world):
        """Whether the table gives ``world`` access now."""
        return Cat(self.state == state for state in S if world in ACCESS[state]).any()

    def words(self, i):
        """What a read of each register of frame ``i`` returns, by address."""
        frame, regs = self.frames[i], FRAMES[i]
        cmd = regs.CMD
        words = {
            regs.ID: Const((0x464C4754, 0x464C4753)[i], 32),
            regs.STATE: self.state,
            regs.TICKET: self.issued,
            regs.GRACE: self.grace if i else self.clamped,
            cmd.FIRST: frame.first,
            cmd.COUNT: frame.count,
            cmd.TICKET: frame.ticket,
            cmd.COMMAND: Const(0, 32),
            cmd.STATUS: Cat(frame.busy, Const(0, 3), self.result[i]),
            cmd.OFFENDER: self.offender[i],
            regs.IRQ_STATUS: frame.status,
            regs.IRQ_ENABLE: frame.enabled,
        }
        if i:
            words |= {regs.CONTROL: self.lock, regs.MANAGERS: self.managers, regs.ALARM: self.alarm}
        return words

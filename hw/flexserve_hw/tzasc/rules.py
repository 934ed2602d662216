"""Which commands are legal, before any page is looked at."""

from amaranth.hdl import C, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from flexserve_hw.params import FlexMemParams
from flexserve_hw.regs.enums import RecallCommand, RecallResult, RecallState

from .layouts import window_layout
from .states import CODE_WIDTH, codes
from .timers import range_layout

__all__ = ["NORMAL_FRAME", "SECURE_FRAME", "TRANSITIONS", "CommandCheck", "command_port"]

NORMAL_FRAME = 0
"""Index of the normal world's frame."""

SECURE_FRAME = 1
"""Index of the secure world's frame."""

_S = RecallState

TRANSITIONS = {
    RecallCommand.DELEGATE: (NORMAL_FRAME, (_S.NORMAL,), _S.DELEGATED),
    RecallCommand.ACCEPT: (SECURE_FRAME, (_S.DELEGATED,), _S.FLEX),
    RecallCommand.RECALL: (NORMAL_FRAME, (_S.FLEX,), _S.RECALLING),
    RecallCommand.RELEASE: (SECURE_FRAME, (_S.FLEX, _S.RECALLING), _S.SCRUBBING),
    RecallCommand.CANCEL: (NORMAL_FRAME, (_S.DELEGATED,), _S.NORMAL),
    RecallCommand.SEAL: (SECURE_FRAME, (_S.NORMAL, _S.FLEX), _S.SEALED),
}
"""Per command: the frame that may give it, the states it starts from, the state it leads to."""


def command_port() -> wiring.Signature:
    """Commands of one frame, as the frame sees them.

    start : Out(1), code : Out(4)
        A command is given; ignored while ``busy``.
    first, count : Out(32)
        Its range in page frame numbers; held by the frame while ``busy``.
    busy : In(1)
        The command, or the drain it waits for, is not over.
    finished : In(1)
        It is over with the end of this cycle.
    result : In(4), offender : In(32)
        Outcome of the last command that is over.
    """
    return wiring.Signature(
        {
            "start": Out(1),
            "code": Out(4),
            "first": Out(32),
            "count": Out(32),
            "busy": In(1),
            "finished": In(1),
            "result": In(RecallResult),
            "offender": In(32),
        }
    )


class CommandCheck(wiring.Component):
    """Decode a command and check its code, its world and its range, in this order.

    Parameters
    ----------
    params : FlexMemParams

    Members
    -------
    window : In, ready : In(1)
        Without ``ready`` every page is outside the window.
    locked : In(1)
        SEAL is refused.
    frame : In(1), code : In(4), first : In(32), count : In(32)
        The command.
    result : Out, offender : Out(32)
        OK, or why it is refused and the page to blame.
    range, sources, target : Out
        Pages as indices in the window, set of states to start from, state to lead to.

    Latency and ordering
    --------------------
    Combinational.
    """

    def __init__(self, *, params: FlexMemParams):
        self._params = params
        super().__init__(
            {
                "window": In(window_layout(params)),
                "ready": In(1),
                "locked": In(1),
                "frame": In(1),
                "code": In(4),
                "first": In(32),
                "count": In(32),
                "result": Out(RecallResult),
                "offender": Out(32),
                "range": Out(range_layout(params)),
                "sources": Out(CODE_WIDTH),
                "target": Out(RecallState),
            }
        )

    def elaborate(self, platform):
        m = Module()
        known, permitted = Signal(), Signal()
        with m.Switch(self.code):
            for command, (frame, sources, target) in TRANSITIONS.items():
                with m.Case(command.value):
                    seal = command is RecallCommand.SEAL
                    m.d.comb += [
                        known.eq(1),
                        permitted.eq((self.frame == frame) & ~(self.locked if seal else C(0))),
                        self.sources.eq(codes(*sources)),
                        self.target.eq(target),
                    ]
        # 34 bits, so that no sum wraps.
        end, beyond = Signal(34), Signal(34)
        m.d.comb += [end.eq(self.window.base + self.window.pages), beyond.eq(self.first + self.count)]
        starts = self.ready & (self.count != 0) & (self.first >= self.window.base) & (self.first < end)
        m.d.comb += [
            self.range.first.eq(self.first - self.window.base),
            self.range.last.eq(beyond - 1 - self.window.base),
            self.offender.eq(Mux(known & permitted & starts, end, self.first)),
            self.result.eq(RecallResult.OK),
        ]
        with m.If(~known):
            m.d.comb += self.result.eq(RecallResult.BAD_COMMAND)
        with m.Elif(~permitted):
            m.d.comb += self.result.eq(RecallResult.NOT_PERMITTED)
        with m.Elif(~starts | (beyond > end)):
            m.d.comb += self.result.eq(RecallResult.OUT_OF_WINDOW)
        return m

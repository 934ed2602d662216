"""Command frames of both worlds, the job queue behind them, and what they report."""

from amaranth.hdl import Module, Mux, ResetInserter, Signal
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from ..bus.buffer import StreamQueue
from ..params import NpuParams
from ..regs.block import RegisterBlock
from ..regs.enums import NpuFault
from ..regs.regbus import RegisterBusSignature
from ..regs.source import elaborate

__all__ = ["JOB", "Event", "Frames"]

JOB = data.StructLayout({"addr": 64, "count": 16, "ticket": 32, "tag": 16})
"""A job as a doorbell queues it."""


class Event(enum.Enum, shape=2):
    """What became of a job."""

    NONE = 0
    DONE = 1
    FAULT = 2


class Frames(wiring.Component):
    """Two register frames of which at most one is live, and one job queue: only the owner's jobs are ever in it.

    Results (fault record and interrupt flags) are kept per frame. The secure frame is cleared by a scrub; the normal
    frame keeps what its own world wrote and what became of its last job, which it can read once it is live again.

    Parameters
    ----------
    params : NpuParams

    Members
    -------
    frame_n, frame_s : In(RegisterBusSignature())
    live_n, live_s : In(1)
        Which frame takes part.
    secure : In(1)
        Owner of the jobs in the queue, also when its frame is not live any more.
    jobs : Out(stream(JOB))
    flush : In(1)
        Empties the queue.
    abort : Out(1)
        CONTROL.abort was written in the cycle before.
    queued : Out(1), ringing : Out(1)
        A job waits; a doorbell was written in the cycle before, its job is not yet among those.
    event : In(Event), tag, code, index, where : In
        A job of the owner ended in this cycle.
    running : In(1), row, beat_read, beat_written : In(1)
        For STATUS and the performance counters.
    scrub : In(1)
        Zeroes queue, counters and the secure frame.
    irq_n, irq_s : Out(1)
        Low while the frame is not live.

    Latency and ordering
    --------------------
    A doorbell shows at ``jobs`` two cycles later.
    """

    def __init__(self, *, params: NpuParams):
        self._params = params
        super().__init__(
            {
                "frame_n": In(RegisterBusSignature()),
                "frame_s": In(RegisterBusSignature()),
                "live_n": In(1),
                "live_s": In(1),
                "secure": In(1),
                "jobs": Out(stream.Signature(JOB)),
                "flush": In(1),
                "abort": Out(1),
                "queued": Out(1),
                "ringing": Out(1),
                "event": In(Event),
                "tag": In(16),
                "code": In(NpuFault),
                "index": In(16),
                "where": In(64),
                "running": In(1),
                "row": In(1),
                "beat_read": In(1),
                "beat_written": In(1),
                "scrub": In(1),
                "irq_n": Out(1),
                "irq_s": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        depth = self._params.queue_depth
        queue = StreamQueue(shape=JOB, depth=max(2, 1 << (depth - 1).bit_length()))
        m.submodules.queue = ResetInserter(self.flush | self.scrub)(queue)
        level = Signal(range(depth + 1))
        push = Signal()
        pop = Signal()
        m.d.comb += [
            pop.eq(queue.o.valid & queue.o.ready),
            push.eq(queue.i.valid & queue.i.ready),
            self.queued.eq(queue.o.valid),
        ]
        m.d.sync += level.eq(Mux(self.flush | self.scrub, 0, level + push - pop))
        wiring.connect(m, queue.o, wiring.flipped(self.jobs))
        counters = self._counters(m)
        for name, live, frame, secure in (
            ("normal", self.live_n, self.frame_n, 0),
            ("secure", self.live_s, self.frame_s, 1),
        ):
            block = RegisterBlock("npu_frame", visible=("ID", "CAPS", "STATUS"))
            m.submodules[f"regs_{name}"] = block
            wiring.connect(m, wiring.flipped(frame), block.bus)
            m.d.comb += block.live.eq(live)
            self._frame(m, name, block, live, self.secure == secure, queue, level)
            if secure:
                m.d.comb += [block.clear.eq(self.scrub), self.irq_s.eq(block.irq & live)]
            else:
                m.d.comb += self.irq_n.eq(block.irq & live)
            for register, field, counter in counters:
                m.d.comb += getattr(getattr(block, register), field).value.eq(counter)
        return m

    def _counters(self, m):
        """Counters since the NPU changed hands: register, field and signal each."""
        done = self.event == Event.DONE
        table = (
            ("DONE_COUNT", "count", done),
            ("PERF_BUSY", "value", self.running),
            ("PERF_ROWS", "value", self.row),
            ("PERF_READ", "value", self.beat_read),
            ("PERF_WRITE", "value", self.beat_written),
        )
        counters = []
        for register, field, step in table:
            counter = Signal(32, name=register.lower())
            with m.If(step):
                m.d.sync += counter.eq(counter + 1)
            counters.append((register, field, counter))
        tag = Signal(16, name="done_tag")
        with m.If(done):
            m.d.sync += tag.eq(self.tag)
        counters.append(("DONE_TAG", "tag", tag))
        with m.If(self.scrub):
            m.d.sync += [counter.eq(0) for *_, counter in counters]
        return counters

    def _frame(self, m, name, block, live, mine, queue, level):
        """One frame: doorbell, abort, fault record."""
        params = self._params
        # What the bus writes has come a long way already.
        ring, aborted = Signal(name=f"{name}_ring"), Signal(name=f"{name}_abort")
        rung_tag = Signal(16, name=f"{name}_rung_tag")
        m.d.sync += [
            ring.eq(block.DOORBELL.tag.swmod),
            rung_tag.eq(Mux(block.DOORBELL.tag.swmod, block.DOORBELL.tag.written, 0)),
            aborted.eq(block.CONTROL.abort.swmod & block.CONTROL.abort.written),
        ]
        full = level == params.queue_depth
        m.d.comb += [
            block.CAPS.array.value.eq(params.n),
            block.CAPS.log2_a.value.eq(params.a_words.bit_length() - 1),
            block.CAPS.log2_w.value.eq(params.w_words.bit_length() - 1),
            block.CAPS.log2_c.value.eq(params.c_rows.bit_length() - 1),
            block.CAPS.log2_q.value.eq(params.q_words.bit_length() - 1),
            block.STATUS.live.value.eq(live),
            block.STATUS.busy.value.eq(live & (self.running | queue.o.valid | ring)),
            block.STATUS.free.value.eq(Mux(live, params.queue_depth - level, 0)),
        ]
        with m.If(aborted):
            m.d.comb += self.abort.eq(1)
        with m.If(ring):
            m.d.comb += self.ringing.eq(1)
        with m.If(ring & ~full):
            m.d.comb += [
                queue.i.valid.eq(1),
                queue.i.payload.addr.eq(block.JOB_ADDR_LO.value.value | block.JOB_ADDR_HI.value.value << 32),
                queue.i.payload.count.eq(block.JOB_COUNT.value.value),
                queue.i.payload.ticket.eq(block.JOB_TICKET.value.value),
                queue.i.payload.tag.eq(rung_tag),
            ]
        code = Signal(NpuFault, name=f"{name}_fault")
        index = Signal(16, name=f"{name}_index")
        where = Signal(64, name=f"{name}_where")
        ended = mine & (self.event == Event.FAULT)
        fault = ended | (ring & full)
        # A flag that is cleared while the next fault sets it again stays up: the record is then the new fault's.
        status = elaborate("npu_frame").get_child_by_name("IRQ_STATUS")
        flag = status.get_child_by_name("fault").lsb
        bus = block.bus
        cleared = bus.valid & bus.write & live & (bus.addr[2:] == status.absolute_address >> 2)
        cleared &= bus.strb[flag // 8] & bus.wdata[flag]
        m.d.comb += [
            block.IRQ_STATUS.done.hwset.eq(mine & (self.event == Event.DONE)),
            block.IRQ_STATUS.fault.hwset.eq(fault),
            block.FAULT.code.value.eq(code),
            block.FAULT.index.value.eq(index),
            block.FAULT_ADDR_LO.value.value.eq(where[:32]),
            block.FAULT_ADDR_HI.value.value.eq(where[32:]),
        ]
        with m.If(block.clear):
            m.d.sync += [code.eq(NpuFault.NONE), index.eq(0), where.eq(0)]
        with m.Elif(fault & (~block.IRQ_STATUS.fault.value | cleared)):
            m.d.sync += [code.eq(NpuFault.QUEUE_OVERFLOW), index.eq(0), where.eq(0)]
            with m.If(ended):
                m.d.sync += [code.eq(self.code), index.eq(self.index), where.eq(self.where)]

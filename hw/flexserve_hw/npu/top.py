"""Flex-NPU: an int8 matrix engine that changes hands between worlds."""

from amaranth.hdl import Cat, Const, Module, Mux, ResetInserter, Signal
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from ..bus.axi4 import AXI4Signature, Burst, Resp
from ..bus.buffer import StreamBuffer, StreamQueue
from ..bus.narrow import NarrowBus
from ..params import NPU_BUS_WIDTHS, NpuParams, Nsaid
from ..regs.enums import NpuFault
from ..regs.regbus import RegisterBusSignature
from .commands import TokenCounter, execute_command, load_command, store_command
from .dispatch import Dispatcher
from .dma import BEAT_BYTES
from .execute import ExecuteUnit
from .fetch import FETCHED_AHEAD, FetchUnit
from .frames import Event, Frames
from .load import LoadUnit
from .parameters import ParameterMemory
from .scratchpad import BANK_WORDS, Scratchpad
from .store import STORE_QUEUE, StoreUnit

__all__ = ["FlexNpu", "Phase"]

_ID_DATA, _ID_FETCH = 0, 1
"""AXI IDs: data and descriptors may overtake each other."""


class Phase(enum.Enum, shape=3):
    """What the NPU is at."""

    IDLE = 0
    CHECK = 1
    RUN = 2
    STOP = 3
    CLEAR = 4
    SCRUB = 5


class FlexNpu(wiring.Component):
    """N x N weight-stationary int8 array with scratchpads, int32 accumulators, DMA and a job queue.

    Jobs are lists of descriptors in memory; the register reference (map ``npu_frame`` and the descriptor maps) says
    what they do. Three units (load, execute, store) run beside each other and pass tokens. A job that faults or is
    stopped is ended cleanly: nothing new goes to the bus, what is out there is answered, then everything a job leaves
    in the units is reset, the queue is emptied and the fault is reported.

    Parameters
    ----------
    params : NpuParams

    Members
    -------
    dma : Out(AXI4)
        Non-secure exactly while ``secure`` is low. Bursts of up to 512 bytes, none across a multiple of that. Inside,
        beats have 128 bits; on a narrower bus each goes as two or four.
    frame_n, frame_s : In(RegisterBusSignature())
        Command frames of the two worlds.
    secure : In(1)
        The secure bit: owner of jobs and transactions. May change only while ``drained``, or while neither frame is
        live and nothing was run since.
    live_normal, live_secure : In(1)
        Which frame is live.
    ticket : In(32)
        The present ticket, which secure jobs must quote.
    drain : In(1), drained : Out(1)
        While ``drain`` is high no job starts and a running one is ended as ABORTED; ``drained`` is high from when
        nothing runs, nothing is queued and nothing is on the bus. No frame may be live while ``drain`` is high.
    scrub : In(1), scrubbed : Out(1)
        Request, only while drained, held until ``scrubbed``: every memory and every register that a job touched is
        zero. ``scrubbed`` stays until ``scrub`` falls. Later, registers at the port follow what its wires carry without
        ``valid``, which the SoC's interconnect holds at zero.
    irq_n, irq_s : Out(1)
    phase : Out(Phase)
        Probe.

    Latency and ordering
    --------------------
    Jobs run in order, one at a time. A scrub takes as many cycles as the largest bank or queue of beats has words, plus
    four. After power-up the memories hold unknown contents: whoever drives ``scrub`` does so before the first job.
    """

    def __init__(self, *, params: NpuParams):
        # Here and not in the parameters, which also say how wide the masters of a filter alone are.
        if params.bus.data_width not in NPU_BUS_WIDTHS:
            raise ValueError(f"NPU bus must have one of {NPU_BUS_WIDTHS} data bits, not {params.bus.data_width!r}")
        self._params = params
        super().__init__(
            {
                "dma": Out(params.bus.axi4),
                "frame_n": In(RegisterBusSignature()),
                "frame_s": In(RegisterBusSignature()),
                "secure": In(1),
                "live_normal": In(1),
                "live_secure": In(1),
                "ticket": In(32),
                "drain": In(1),
                "drained": Out(1),
                "scrub": In(1),
                "scrubbed": Out(1),
                "irq_n": Out(1),
                "irq_s": Out(1),
                "phase": Out(Phase),
            }
        )

    def elaborate(self, platform):
        m = Module()
        self._clearing = Signal()
        self._stop = Signal()
        self._scrubbing, self._scrub_memories = Signal(), Signal()
        self._scrub_addr = Signal(range(BANK_WORDS))
        self._units(m)
        self._tokens(m)
        self._bus(m)
        self._control(m)
        return m

    def _units(self, m):
        params = self._params
        self._fetch, self._dispatch = FetchUnit(params=params), Dispatcher(params=params)
        self._load, self._execute, self._store = (
            LoadUnit(params=params),
            ExecuteUnit(params=params),
            StoreUnit(params=params),
        )
        self._frames = Frames(params=params)
        m.submodules.fetch = self._cleared(m, "fetch", self._fetch)
        m.submodules.dispatch = self._cleared(m, "dispatch", self._dispatch)
        m.submodules.load = self._cleared(m, "load", self._load)
        m.submodules.execute = self._cleared(m, "execute", self._execute)
        m.submodules.store = self._cleared(m, "store", self._store)
        m.submodules.frames = self._frames
        a = Scratchpad(width=8 * params.n, depth=params.a_words, late=True)
        w = Scratchpad(width=8 * params.n, depth=params.w_words, late=True)
        q = ParameterMemory(n=params.n, words=params.q_words)
        for name, memory in (("a_pad", a), ("w_pad", w), ("q_pad", q)):
            m.submodules[name] = self._cleared(m, name, memory)
        wiring.connect(m, self._fetch.beats, self._dispatch.beats)
        busy = []
        for name, layout, depth, source, unit in (
            ("load", load_command(params), 4, self._dispatch.load, self._load),
            ("execute", execute_command(params), 4, self._dispatch.execute, self._execute),
            ("store", store_command(params), 4, self._dispatch.store, self._store),
        ):
            queue, front = StreamQueue(shape=layout, depth=depth), StreamBuffer(shape=layout)
            m.submodules[f"{name}_queue"] = self._cleared(m, f"{name}_queue", queue)
            # A command's flags decide about hundreds of registers.
            m.submodules[f"{name}_front"] = self._cleared(m, f"{name}_front", front)
            wiring.connect(m, source, queue.i)
            wiring.connect(m, queue.o, front.i)
            wiring.connect(m, front.o, unit.command)
            busy.append(queue.o.valid | front.o.valid | ~unit.idle)
            m.d.comb += unit.stop.eq(self._stop)
        m.d.comb += [
            self._fetch.stop.eq(self._stop),
            self._dispatch.units_idle.eq(~Cat(busy).any()),
            a.w_en.eq(self._load.a_en),
            a.w_addr.eq(self._load.addr),
            a.w_data.eq(self._load.word),
            a.r_en.eq(self._execute.a_en),
            a.r_addr.eq(self._execute.a_addr),
            self._execute.a_data.eq(a.r_data),
            w.w_en.eq(self._load.w_en),
            w.w_addr.eq(self._load.addr),
            w.w_data.eq(self._load.word),
            w.r_en.eq(self._execute.w_en),
            w.r_addr.eq(self._execute.w_addr),
            self._execute.w_data.eq(w.r_data),
            q.w_en.eq(self._load.q_en),
            q.w_addr.eq(self._load.addr),
            q.w_data.eq(self._load.word),
            q.r_en.eq(self._store.q_en),
            q.r_row.eq(self._store.q_row),
            self._store.q_data.eq(q.r_data),
            self._execute.c_en.eq(self._store.c_en),
            self._execute.c_row.eq(self._store.c_row),
            self._store.c_ok.eq(self._execute.c_ok),
            self._store.c_data.eq(self._execute.c_data),
        ]
        for memory in (a, w, q, self._execute, self._store, self._fetch):
            m.d.comb += [memory.scrub.eq(self._scrub_memories), memory.scrub_addr.eq(self._scrub_addr)]

    def _cleared(self, m, name, component):
        """``component``, cleared by a register of its own: one for all would reach ten thousand others."""
        clear = Signal(name=f"clear_{name}", attrs={"keep": 1})
        m.d.sync += clear.eq(self._clearing)
        return ResetInserter(clear)(component)

    def _tokens(self, m):
        load, execute, store = self._load, self._execute, self._store
        for name, give, take, some in (
            ("loaded", load.give, execute.take_loaded, execute.loaded),
            ("freed", execute.give_load, load.take_freed, load.freed),
            ("computed", execute.give_store, store.take_computed, store.computed),
            ("stored", store.give, execute.take_stored, execute.stored),
        ):
            counter = TokenCounter()
            m.submodules[f"tokens_{name}"] = self._cleared(m, f"tokens_{name}", counter)
            m.d.comb += [counter.give.eq(give), counter.take.eq(take), some.eq(counter.some)]

    def _port(self, m):
        """Where beats of 128 bits go: the port itself, or what makes narrower ones of them."""
        bus = self._params.bus
        width = 8 * BEAT_BYTES
        if bus.data_width == width:
            return wiring.flipped(self.dma)
        wide = AXI4Signature(addr_width=bus.addr_width, data_width=width, id_width=bus.id_width)
        narrow = NarrowBus(wide=wide, data_width=bus.data_width)
        m.submodules.narrow = self._cleared(m, "narrow", narrow)
        wiring.connect(m, narrow.narrow, wiring.flipped(self.dma))
        return narrow.wide

    def _bus(self, m):
        """Join the units' requests on the AXI port. Descriptors go first: a late one idles three units."""
        dma, fetch, load, store = self._port(m), self._fetch, self._load, self._store
        buffer = StreamBuffer(shape=self._params.bus.axi4.shape.address)
        m.submodules.ar_buffer = self._cleared(m, "ar_buffer", buffer)
        wiring.connect(m, buffer.o, dma.ar)
        pick = Mux(fetch.ar.valid, fetch.ar.payload.as_value(), load.ar.payload.as_value())
        chosen = load.ar.payload.shape()(pick)
        for channel, payload, identity in (
            (buffer.i, chosen, Mux(fetch.ar.valid, _ID_FETCH, _ID_DATA)),
            (dma.aw, store.aw.payload, Const(_ID_DATA)),
        ):
            m.d.comb += [
                channel.payload.id.eq(identity),
                channel.payload.addr.eq(payload.addr),
                channel.payload.len.eq(payload.beats - 1),
                channel.payload.size.eq(4),
                channel.payload.burst.eq(Burst.INCR),
                channel.payload.prot.nonsecure.eq(~self.secure),
                channel.payload.user.eq(Nsaid.NPU),
            ]
        is_fetch = dma.r.payload.id == _ID_FETCH
        m.d.comb += [
            buffer.i.valid.eq(fetch.ar.valid | load.ar.valid),
            fetch.ar.ready.eq(buffer.i.ready),
            load.ar.ready.eq(buffer.i.ready & ~fetch.ar.valid),
            fetch.r.valid.eq(dma.r.valid & is_fetch),
            load.r.valid.eq(dma.r.valid & ~is_fetch),
            dma.r.ready.eq(Mux(is_fetch, fetch.r.ready, load.r.ready)),
            dma.aw.valid.eq(store.aw.valid),
            store.aw.ready.eq(dma.aw.ready),
            dma.w.valid.eq(store.w.valid),
            store.w.ready.eq(dma.w.ready),
            dma.w.payload.eq(store.w.payload),
            store.b.valid.eq(dma.b.valid),
            dma.b.ready.eq(store.b.ready),
            store.b.payload.error.eq(dma.b.payload.resp != Resp.OKAY),
        ]
        for unit in (fetch, load):
            m.d.comb += [
                unit.r.payload.data.eq(dma.r.payload.data),
                unit.r.payload.error.eq(dma.r.payload.resp != Resp.OKAY),
                unit.r.payload.last.eq(dma.r.payload.last),
            ]

    def _control(self, m):
        """Start jobs, end them cleanly, scrub."""
        params, frames, dispatch = self._params, self._frames, self._dispatch
        fetch, load, store = self._fetch, self._load, self._store
        tag = Signal(16)
        where = Signal(64)
        index = Signal(16)
        code = Signal(NpuFault)
        quiet = Signal()
        fail = Signal()
        report = Signal(NpuFault)
        job = frames.jobs.payload
        start = Signal()
        m.d.comb += [
            quiet.eq(fetch.quiet & load.quiet & store.quiet),
            frames.live_n.eq(self.live_normal),
            frames.live_s.eq(self.live_secure),
            frames.secure.eq(self.secure),
            frames.tag.eq(tag),
            frames.code.eq(code),
            frames.index.eq(index),
            frames.where.eq(where),
            frames.row.eq(self._execute.row),
            frames.beat_read.eq(load.r.valid & load.r.ready),
            frames.beat_written.eq(store.w.valid & store.w.ready),
            # As long as the units are cleared: until then, what is on the bus may still be counted.
            frames.scrub.eq(self._scrubbing | self._scrub_memories),
            self.irq_n.eq(frames.irq_n),
            self.irq_s.eq(frames.irq_s),
            fetch.start.eq(start),
            fetch.addr.eq(job.addr),
            fetch.count.eq(job.count),
            dispatch.start.eq(start),
            dispatch.addr.eq(job.addr),
            dispatch.count.eq(job.count),
            frames.running.eq(self.phase != Phase.IDLE),
        ]
        halt = frames.abort | self.drain
        # Of the job that waits, a cycle before it is checked.
        stale, misplaced, out_of_reach = Signal(), Signal(), Signal()
        m.d.sync += [
            stale.eq(frames.queued & self.secure & (job.ticket != self.ticket)),
            misplaced.eq(frames.queued & ((job.count == 0) | job.addr[:5].any())),
            out_of_reach.eq(frames.queued & job.addr[params.bus.addr_width :].any()),
        ]
        depths = (
            *(params.a_words, params.w_words, params.c_rows // 4, params.q_words // 4),
            *(STORE_QUEUE, FETCHED_AHEAD),
        )
        last = max(min(depth, BANK_WORDS) for depth in depths) + 1
        count = Signal(range(last + 1))
        finished = Signal()
        clearing, stopping = self._clearing, Signal()
        cleared = Signal()
        # These reach ten thousand registers and every memory, so they come from registers, a cycle after the state that
        # asks for them. From stop to clear nothing new is requested, read or announced; pipelines run out.
        m.d.sync += [
            cleared.eq(clearing),
            self._stop.eq(stopping),
            self._scrub_memories.eq(self._scrubbing),
            self._scrub_addr.eq(count),
        ]
        m.d.comb += self.scrubbed.eq(finished & self.scrub & ~cleared)
        with m.If(~self.scrub):
            m.d.sync += finished.eq(0)
        with m.FSM(name="control"):
            with m.State("IDLE"):
                m.d.comb += self.phase.eq(Phase.IDLE)
                m.d.sync += [index.eq(0), where.eq(0)]
                with m.If(frames.queued & halt):
                    m.d.sync += code.eq(NpuFault.ABORTED)
                    m.next = "CLEAR"
                with m.Elif(frames.queued):
                    m.next = "CHECK"
                with m.Elif(self.drain & ~frames.ringing):
                    m.d.comb += self.drained.eq(1)
                    with m.If(self.scrub & ~finished):
                        m.d.sync += count.eq(0)
                        m.next = "SCRUB"
            with m.State("CHECK"):
                m.d.comb += self.phase.eq(Phase.CHECK)
                m.d.sync += tag.eq(job.tag)
                m.next = "CLEAR"
                with m.If(halt):
                    m.d.sync += code.eq(NpuFault.ABORTED)
                with m.Elif(stale):
                    m.d.sync += code.eq(NpuFault.BAD_TICKET)
                with m.Elif(misplaced):
                    m.d.sync += [code.eq(NpuFault.BAD_DESCRIPTOR), where.eq(job.addr)]
                with m.Elif(out_of_reach):
                    m.d.sync += [code.eq(NpuFault.FETCH_ERROR), where.eq(job.addr)]
                with m.Else():
                    m.d.comb += [start.eq(1), frames.jobs.ready.eq(1)]
                    m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += self.phase.eq(Phase.RUN)
                with m.If(load.fault):
                    m.d.comb += [fail.eq(1), report.eq(NpuFault.BUS_ERROR)]
                    m.d.sync += [index.eq(load.where.index), where.eq(load.where.addr)]
                with m.Elif(store.fault):
                    m.d.comb += [fail.eq(1), report.eq(NpuFault.BUS_ERROR)]
                    m.d.sync += [index.eq(store.where.index), where.eq(store.where.addr)]
                with m.Elif(halt):
                    m.d.comb += [fail.eq(1), report.eq(NpuFault.ABORTED)]
                with m.Elif(dispatch.fault):
                    m.d.comb += [fail.eq(1), report.eq(dispatch.code)]
                    m.d.sync += [index.eq(dispatch.index), where.eq(dispatch.where)]
                with m.If(fail):
                    m.d.sync += code.eq(report)
                    m.next = "STOP"
                with m.Elif(dispatch.done):
                    m.next = "FINISH"
            with m.State("FINISH"):  # a job leaves no token to the next
                m.d.comb += [self.phase.eq(Phase.CLEAR), clearing.eq(1), frames.event.eq(Event.DONE)]
                m.next = "IDLE"
                with m.If(frames.queued & halt):
                    m.d.sync += [code.eq(NpuFault.ABORTED), index.eq(0), where.eq(0)]
                    m.next = "CLEAR"
            with m.State("STOP"):
                m.d.comb += [self.phase.eq(Phase.STOP), stopping.eq(1)]
                with m.If(quiet & self._stop):
                    m.next = "CLEAR"
                    with m.If(code == NpuFault.ABORTED):  # where the owner may go on
                        m.d.sync += index.eq(store.kept)
            with m.State("CLEAR"):
                m.d.comb += [
                    self.phase.eq(Phase.CLEAR),
                    clearing.eq(1),
                    stopping.eq(1),
                    frames.flush.eq(1),
                    frames.event.eq(Event.FAULT),
                ]
                m.next = "IDLE"
            with m.State("SCRUB"):
                m.d.comb += [self.phase.eq(Phase.SCRUB), self._scrubbing.eq(1), clearing.eq(1)]
                m.d.sync += count.eq(count + 1)
                with m.If(count == last):
                    m.d.sync += [finished.eq(1), tag.eq(0), code.eq(NpuFault.NONE), count.eq(0)]
                    m.next = "IDLE"
        wiring.connect(m, wiring.flipped(self.frame_n), frames.frame_n)
        wiring.connect(m, wiring.flipped(self.frame_s), frames.frame_s)

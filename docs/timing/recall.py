"""Diagrams of a recall, both made from one run."""

from collections.abc import Callable
from functools import cache

from flexserve_sw.regs import FLEX_NORMAL, RecallCommand, RecallState
from tests.hw.tzasc.bench import NORMAL, PAGE, SECURE, Bench, small

from .labels import CONTENT, LENT, names, resp, word
from .record import Diagram, Row

__all__ = ["recall", "reclaim"]


def _who(request) -> str:
    """World and ID of an address."""
    return f"{'N' if request.prot.nonsecure else 'S'}{request.id}"


def _state(page: int, state: RecallState) -> Callable[[object], str]:
    """Label of page events: the state of one page from the cycle on in which the table is written."""
    shown = [state]

    def label(event) -> str:
        if event.valid and event.mask << event.pfn >> page & 1:
            shown[0] = RecallState(event.state.value)
        return shown[0].name

    return label


def _recall_rows(bench: Bench) -> Diagram:
    dut, up, down = bench.dut, bench.dut.upstream, bench.dut.downstream
    page = LENT // PAGE
    scrub = names(P=LENT, **{"+2K": LENT + PAGE // 2})
    return Diagram(
        "Recall of page P",
        {
            "normal frame": [
                Row("COMMAND = RECALL", dut.flex_normal.valid & dut.flex_normal.write),
                Row("STATUS.busy", dut.core.commands[0].busy),
            ],
            "page P": [
                Row("state", dut.probe_page, _state(page, RecallState.FLEX), colour="6"),
                Row("probe_expired", dut.probe_expired),
                Row("irq_flex_n (freed)", dut.irq_flex_n),
            ],
            "reads of P": [
                Row("s_axi_ar", up.ar.payload, _who, up.ar.valid),
                Row("m_axi_ar", down.ar.payload, _who, down.ar.valid),
                Row("s_axi_rid", up.r.payload.id, str, up.r.valid),
                Row("s_axi_rdata", up.r.payload.data, word, up.r.valid, "4"),
                Row("s_axi_rresp", up.r.payload.resp, resp, up.r.valid, "5"),
            ],
            "scrub": [
                Row("m_axi_awvalid", down.aw.valid),
                Row("m_axi_awaddr", down.aw.payload.addr, scrub, down.aw.valid),
                Row("m_axi_wvalid", down.w.valid),
                Row("m_axi_wdata", down.w.payload.data, word, down.w.valid, "4"),
                Row("m_axi_bvalid", down.b.valid),
            ],
        },
        still=2,
    )


@cache
def _recall() -> Diagram:
    """A recall that the secure world ignores, with a read in flight at each of its two steps."""
    made: list[Diagram] = []

    async def scenario(bench, ctx):
        await bench.boot(ctx, grace=24)
        page = LENT // PAGE
        await bench.lend(ctx, page)
        step, memory = bench.params.bus.data_width // 8, bench.memory
        for n, value in enumerate(CONTENT):
            memory.words[LENT // step + n] = (value, SECURE)
        await bench.poke(ctx, FLEX_NORMAL.IRQ_STATUS, 7)
        await bench.poke(ctx, FLEX_NORMAL.IRQ_ENABLE, 2)
        await bench.poke(ctx, FLEX_NORMAL.CMD.FIRST, page)
        await bench.poke(ctx, FLEX_NORMAL.CMD.COUNT, 1)
        bench.open_commands[0] = (RecallCommand.RECALL, page, 1)
        memory.latency, memory.hold_reads = 1, True
        bus, reads = bench.dut.flex_normal, []

        def command(valid):
            for signal, value in ((bus.addr, 0x2C), (bus.write, 1), (bus.wdata, RecallCommand.RECALL), (bus.strb, 0xF)):
                ctx.set(signal, value)
            ctx.set(bus.valid, valid)

        def read(world, identity):
            reads.append(bench.read(LENT, world, id=identity, beats=2))

        diagram = _recall_rows(bench)
        await diagram.record(
            ctx,
            88,
            {
                0: lambda: read(SECURE, 0),
                3: lambda: command(1),
                4: lambda: command(0),
                10: lambda: setattr(memory, "hold_reads", False),
                24: lambda: (setattr(memory, "hold_reads", True), read(SECURE, 1)),
                36: lambda: read(SECURE, 2),
                43: lambda: setattr(memory, "hold_reads", False),
                83: lambda: read(NORMAL, 0),
            },
        )
        bench.decided[0] = None
        assert [burst.allowed for burst in reads] == [True, True, False, True]
        assert reads[3].got == [0, 0]
        made.append(diagram)

    Bench(params=small(grace_min=10)).run(scenario)
    return made[0]


def recall() -> Diagram:
    """From the command to its report."""
    whole = _recall()
    end = whole.row("m_axi_ar").samples.index("S1") + 1
    diagram = whole.part(
        0,
        end,
        "RECALL of page P: reported once S0, accepted before it, is answered; S1 is let in during the grace period",
        ["A~>B last beat of S0: reported", "C~>D 1 cycle"],
        without=("scrub",),
    )
    answered = diagram.mark("A", "s_axi_rdata", "D1")
    diagram.mark("B", "STATUS.busy", 0, after=answered)
    diagram.mark("C", "s_axi_ar", "S1")
    diagram.mark("D", "m_axi_ar", "S1")
    return diagram


def reclaim() -> Diagram:
    """From the end of the grace period to the page's return."""
    whole = _recall()
    diagram = whole.part(
        whole.row("state").samples.index("SCRUBBING") - 3,
        len(whole.row("state").samples) - 1,
        "End of the grace period: S2 is denied at once, the first zero waits for S1, NORMAL for the last answer",
        ["A~>B S2 denied", "C~>D last beat of S1: first zero", "E~>F all answered: NORMAL"],
        without=("normal frame",),
    )
    diagram.mark("A", "s_axi_ar", "S2")
    diagram.mark("B", "s_axi_rresp", "DECERR")
    diagram.mark("C", "s_axi_rdata", "D1")
    diagram.mark("D", "m_axi_awaddr", "P")
    zeroed = diagram.mark("E", "m_axi_bvalid", after=diagram.row("m_axi_bvalid").samples.index(1) + 1)
    diagram.mark("F", "state", "NORMAL", after=zeroed)
    return diagram

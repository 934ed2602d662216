"""The timing diagrams of the integration guide, made from what the filter does in Amaranth's simulator."""

from collections.abc import Callable, Iterator

from tests.hw.tzasc.bench import NORMAL, PAGE, SECURE, Bench, small

from .labels import CONTENT, LENT, OWN, names, resp, word
from .recall import recall, reclaim
from .record import Diagram, Row

__all__ = ["DIAGRAMS"]



def _handshake(prefix: str, stream) -> Iterator[Row]:
    yield Row(f"{prefix}valid", stream.valid)
    yield Row(f"{prefix}ready", stream.ready)


def _beats(prefix: str, stream, label, *, last=True) -> Iterator[Row]:
    """A data channel: handshake, data while valid, last."""
    yield from _handshake(prefix, stream)
    yield Row(f"{prefix}data", stream.payload.data, label, stream.valid, "4")
    if last:
        yield Row(f"{prefix}last", stream.payload.last, valid=stream.valid)


def _address(prefix: str, stream, label) -> Iterator[Row]:
    yield from _handshake(prefix, stream)
    yield Row(f"{prefix}addr", stream.payload.addr, label, stream.valid)


def _response(prefix: str, stream) -> Iterator[Row]:
    yield from _handshake(prefix, stream)
    yield Row(f"{prefix}resp", stream.payload.resp, resp, stream.valid, "5")


def _single(make: Callable[[Bench], Diagram], *, write: bool, address: int, cycles: int) -> Diagram:
    """Record one burst of a booted filter with a page lent."""
    made: list[Diagram] = []

    async def scenario(bench, ctx):
        await bench.boot(ctx)
        await bench.lend(ctx, LENT // PAGE)
        await bench.idle(ctx)
        bench.memory.latency = 2
        if write:
            burst = bench.write(address, data=list(CONTENT), beats=len(CONTENT))
        else:
            step = bench.params.bus.data_width // 8
            for n, value in enumerate(CONTENT):
                bench.memory.words[address // step + n] = (value, NORMAL if address != LENT else SECURE)
            burst = bench.read(address, beats=len(CONTENT))
        diagram = make(bench)
        await diagram.record(ctx, cycles)
        assert burst.answered >= 0
        made.append(diagram)

    Bench(params=small()).run(scenario)
    return made[0]


def read_allowed() -> Diagram:
    """A read burst that passes."""

    def make(bench):
        up, down, name = bench.dut.upstream, bench.dut.downstream, names(A=OWN)
        return Diagram(
            "Allowed read: one cycle on AR, none on R",
            {
                "address": [*_address("s_axi_ar", up.ar, name), *_address("m_axi_ar", down.ar, name)],
                "data": [*_beats("m_axi_r", down.r, word), *_beats("s_axi_r", up.r, word)],
            },
            edges=["A~>B 1 cycle", "C->D same cycle"],
            hscale=2,
        )

    diagram = _single(make, write=False, address=OWN, cycles=11)
    diagram.mark("A", "s_axi_araddr", "A")
    diagram.mark("B", "m_axi_araddr", "A")
    diagram.mark("C", "m_axi_rdata", "D0")
    diagram.mark("D", "s_axi_rdata", "D0")
    return diagram


def write_allowed() -> Diagram:
    """A write burst that passes."""

    def make(bench):
        up, down, name = bench.dut.upstream, bench.dut.downstream, names(A=OWN)
        return Diagram(
            "Allowed write: W follows its address by a cycle, B passes in its cycle",
            {
                "address": [*_address("s_axi_aw", up.aw, name), *_address("m_axi_aw", down.aw, name)],
                "data": [*_beats("m_axi_w", down.w, word), *_beats("s_axi_w", up.w, word)],
                "answer": [*_response("m_axi_b", down.b), *_response("s_axi_b", up.b)],
            },
            edges=["A~>B 1 cycle", "B~>C 1 cycle", "D->E same cycle"],
            hscale=2,
        )

    diagram = _single(make, write=True, address=OWN, cycles=13)
    diagram.mark("A", "s_axi_awaddr", "A")
    diagram.mark("B", "m_axi_awaddr", "A")
    diagram.mark("C", "m_axi_wdata", "D0")
    diagram.mark("D", "m_axi_bresp", "OKAY")
    diagram.mark("E", "s_axi_bresp", "OKAY")
    return diagram


def read_denied() -> Diagram:
    """A read burst of a page that is lent."""

    def make(bench):
        up, down, name = bench.dut.upstream, bench.dut.downstream, names(P=LENT)
        return Diagram(
            "Denied read: zeros, and nothing goes to memory",
            {
                "address": [*_address("s_axi_ar", up.ar, name), Row("m_axi_arvalid", down.ar.valid)],
                "data": [
                    *_beats("s_axi_r", up.r, word),
                    Row("s_axi_rresp", up.r.payload.resp, resp, up.r.valid, "5"),
                ],
                "evidence": [Row("probe_ar_deny", bench.dut.probe_ar_deny), Row("INT_STATUS", bench.dut.core.status)],
            },
            edges=["A~>B 1 cycle", "A~>C 2 cycles, whatever it was denied for"],
            hscale=2,
        )

    diagram = _single(make, write=False, address=LENT, cycles=9)
    diagram.mark("A", "s_axi_araddr", "P")
    diagram.mark("B", "probe_ar_deny")
    diagram.mark("C", "s_axi_rdata", "0")
    return diagram


def write_denied() -> Diagram:
    """A write burst to a page that is lent."""

    def make(bench):
        up, down, name = bench.dut.upstream, bench.dut.downstream, names(P=LENT)
        return Diagram(
            "Denied write: the beats are taken and dropped, the answer follows the last",
            {
                "address": [*_address("s_axi_aw", up.aw, name), Row("m_axi_awvalid", down.aw.valid)],
                "data": [*_beats("s_axi_w", up.w, word), Row("m_axi_wvalid", down.w.valid)],
                "answer": [*_response("s_axi_b", up.b)],
                "evidence": [Row("probe_aw_deny", bench.dut.probe_aw_deny), Row("INT_STATUS", bench.dut.core.status)],
            },
            edges=["A~>B 1 cycle", "C~>D 1 cycle"],
            hscale=2,
        )

    diagram = _single(make, write=True, address=LENT, cycles=12)
    diagram.mark("A", "s_axi_awaddr", "P")
    diagram.mark("B", "probe_aw_deny")
    diagram.mark("C", "s_axi_wlast")
    diagram.mark("D", "s_axi_bresp", "DECERR")
    return diagram


DIAGRAMS: dict[str, Callable[[], Diagram]] = {
    "read_allowed": read_allowed,
    "write_allowed": write_allowed,
    "read_denied": read_denied,
    "write_denied": write_denied,
    "recall": recall,
    "reclaim": reclaim,
}
"""By the names of their files."""

"""Every way in which a job can fail, in the middle of a GEMM; and whether the NPU still computes afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from flexserve_sw.machine import BEAT_BYTES
from flexserve_sw.npu import Descriptor, Fence, Load, Matmul, Store
from flexserve_sw.regs import NpuFault, NpuSpace

from .alone import MEMORY_BYTES, Alone, Conditions
from .campaign import Case, Mismatch, Operands, check, draw

__all__ = ["FAULTS", "Fault", "provoke"]

_SLVERR, _DECERR = 2, 3
_SIZE = (40, 150, 70)
_LATER = (1, 20, 70, 150, 300, 600, 1_000, 2_000)
"""Cycles after the doorbell in which something happens."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault: what may be reported of it, and how to make a job that runs into it. NONE: it may come too late."""

    expect: tuple[NpuFault, ...]
    make: Callable[[Alone, Operands], list[Descriptor]]
    abort_after: int | None = None
    ticket: int | None = None


def _change(kind: type[Load | Matmul | Store], **fields: Any) -> Callable[[Alone, Operands], list[Descriptor]]:
    """Change the last descriptor of a kind, so that the job is well under way."""

    def make(npu: Alone, drawn: Operands) -> list[Descriptor]:
        index = max(i for i, descriptor in enumerate(drawn.program) if isinstance(descriptor, kind))
        changed = drawn.program[index]._replace(**fields)
        return [*drawn.program[:index], changed, *drawn.program[index + 1 :]]

    return make


def _deny(kind: type[Load | Store], response: int, *, after: int = 0) -> Callable[[Alone, Operands], list[Descriptor]]:
    """Deny the page that the last transfer of a kind begins in."""

    def make(npu: Alone, drawn: Operands) -> list[Descriptor]:
        transfers = [descriptor for descriptor in drawn.program if isinstance(descriptor, kind)]
        npu.deny(transfers[-1].address, response=response, after=after)
        return drawn.program

    return make


def _deny_list(npu: Alone, drawn: Operands) -> list[Descriptor]:
    npu.deny(drawn.list_at, response=_DECERR, after=0)
    return drawn.program


def _starve(npu: Alone, drawn: Operands) -> list[Descriptor]:
    waiting = next(descriptor for descriptor in drawn.program if isinstance(descriptor, Matmul))
    return [*drawn.program, waiting._replace(wait_prev=True)]


def _whole(npu: Alone, drawn: Operands) -> list[Descriptor]:
    return drawn.program


def _faults() -> Iterator[tuple[str, Fault]]:
    bad, reach, bus = (NpuFault.BAD_DESCRIPTOR,), (NpuFault.SCRATCHPAD_RANGE,), (NpuFault.BUS_ERROR,)
    for kind in (Load, Store):
        name = kind.__name__.upper()
        yield f"{name} past the end of memory", Fault(expect=bus, make=_change(kind, address=MEMORY_BYTES))
        last = _change(kind, address=MEMORY_BYTES - BEAT_BYTES, rows=2)
        yield f"{name} that runs out of memory", Fault(expect=bus, make=last)
        yield f"{name} past the address space", Fault(expect=bus, make=_change(kind, address=1 << 32))
        yield f"{name} within a beat", Fault(expect=bad, make=_change(kind, address=8))
        yield f"{name} of no rows", Fault(expect=bad, make=_change(kind, rows=0))
        for response, what in ((_DECERR, "denied"), (_SLVERR, "failing")):
            yield f"{name} from a {what} page", Fault(expect=bus, make=_deny(kind, response))
        for after in _LATER:
            made = _deny(kind, _DECERR, after=after)
            yield f"{name} from a page denied after {after}", Fault(expect=(*bus, NpuFault.NONE), make=made)
    yield "LOAD past the scratchpad", Fault(expect=reach, make=_change(Load, base=65_535))
    yield "LOAD past the parameters", Fault(expect=reach, make=_change(Load, space=NpuSpace.PARAMETERS, base=65_535))
    for operand in ("a_base", "w_base", "c_base"):
        yield f"MATMUL past the end by {operand}", Fault(expect=reach, make=_change(Matmul, **{operand: 65_535}))
    yield "MATMUL of nothing", Fault(expect=bad, make=_change(Matmul, k=0))
    yield "STORE past the accumulators", Fault(expect=reach, make=_change(Store, c_base=65_535))
    yield "STORE past the parameters", Fault(expect=reach, make=_change(Store, quantise=True, q_base=65_532))
    yield "FENCE with a token", Fault(expect=bad, make=lambda npu, drawn: [*drawn.program, Fence(wait_prev=True)])
    yield "list in a denied page", Fault(expect=(NpuFault.FETCH_ERROR,), make=_deny_list)
    yield "stale ticket", Fault(expect=(NpuFault.BAD_TICKET,), make=_whole, ticket=0)
    yield "token that never comes", Fault(expect=(NpuFault.ABORTED,), make=_starve, abort_after=20_000)
    for after in _LATER:
        yield f"abort after {after}", Fault(expect=(NpuFault.ABORTED, NpuFault.NONE), make=_whole, abort_after=after)


FAULTS: dict[str, Fault] = dict(_faults())
"""Faults by name."""


def provoke(npu: Alone, name: str, *, seed: int) -> NpuFault:
    """Run a job into a fault in the secure world, then a good GEMM; returns what was reported of the fault.

    Raises :class:`~.campaign.Mismatch` if that is not what it should be, or if the GEMM goes wrong.
    """
    fault = FAULTS[name]
    npu.own(secure=True)
    npu.behave(Conditions(latency=40, jitter=10, stall=50), seed=seed)
    m, k, n = _SIZE
    drawn = draw(npu.memory, m, k, n, int8=True, relu=False, caps=npu.caps, seed=seed)
    job = fault.make(npu, drawn)
    npu.put_list(job, drawn.list_at)
    npu.start(drawn.list_at, len(job), ticket=fault.ticket)
    if fault.abort_after is not None:
        npu.wait(fault.abort_after)
        npu.abort()
    outcome = npu.finish(limit=200_000)
    if outcome.fault not in fault.expect:
        expected = " or ".join(code.name for code in fault.expect)
        raise Mismatch(f"N={npu.caps.n}, {name}, seed {seed}: ended with {outcome.fault.name}, not {expected}")
    again = Case(m=m, k=k, n=n, int8=False, relu=False, secure=True, conditions=Conditions(), seed=seed)
    check(npu, again, own=False)
    return outcome.fault

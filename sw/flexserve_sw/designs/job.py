"""The job that both machines run: one design answers one prompt."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from statistics import median
from typing import Any

from ..llm import complete
from ..machine import Machine, Task
from ..monitor.smc import Call, Status
from ..serving.engine import Answer
from ..timeline import attribute
from .phone import Phone
from .plan import Plan, check

__all__ = ["PHASES", "Emit", "Hook", "serve"]

Emit = Callable[[dict[str, Any]], None]
Hook = Callable[[str, Phone], Awaitable[None]]
"""Called at ``booted``, at ``token:{i}`` for every token, counted from 1, and at ``answered``.

Nothing computes meanwhile.
"""

PHASES = ("compute", "switch", "load", "decrypt", "allocate", "init")
"""Parts of the time to the first token, in the order in which a cycle with several of them is attributed.

Each cycle counts once, so the phases and ``other`` add up. While something is computed, whatever runs beside it is
hidden and counts as compute; what is left is what the user waits for. A stage of the pipeline that starves behind an
earlier one does not run, so such a wait goes to the stage that causes it.
"""


class _Run:
    """One prompt on one phone."""

    def __init__(self, phone: Phone, plan: Plan, emit: Emit, hook: Hook | None) -> None:
        self._phone, self._plan, self._emit, self._hook = phone, plan, emit, hook
        self._known: list[int] = list(plan.prompt)
        self._shown = 0  # characters of what is known
        self._squeeze: Task[None] | None = None
        self._npu_recall: Task[int] | None = None
        self._phase = ""
        self.answer: Answer | None = None

    def phase(self, name: str) -> None:
        """Tell the listener that a new part of the run begins."""
        if self._phase:
            self._emit({"kind": "phase", "name": self._phase, "event": "end"})
        self._phase = name
        if name:
            self._emit({"kind": "phase", "name": name, "event": "begin"})

    async def at(self, point: str) -> None:
        """Let the visitor, if any, do what it came for."""
        if self._hook is not None:
            await self._hook(point, self._phone)

    async def generate(self, call: Call, arguments: tuple[int, ...]) -> tuple[int, ...]:
        """Take the GENERATE call in the secure world."""
        self.answer = await self._answer(arguments[0], self._begin)
        return (Status.OK, len(self.answer.tokens))

    async def ask(self) -> Answer:
        """What the application does: one call, to wherever the model is."""
        self._begin = self._phone.machine.now
        self.phase("prefill")
        self._shown = len(self._plan.checkpoint.tokenizer.decode(self._known))
        if self._plan.design.secure:
            self._phone.monitor.secure = self.generate
            await self._phone.monitor.call(Call.GENERATE, self._plan.tokens)
        else:
            self.answer = await self._answer(self._plan.tokens, self._begin)
        if self.answer is None:
            raise RuntimeError("The secure world refused to answer")
        return self.answer

    async def _answer(self, count: int, begin: int) -> Answer:
        plan = self._plan
        return await self._phone.serving.answer(
            plan.prompt,
            count,
            stops=plan.checkpoint.tokenizer.stops,
            on_token=self._token,
            begin=begin,
            on_forward=lambda: self._forward("begin"),
        )

    def _forward(self, event: str) -> None:
        """Mark the forward pass inside the prefill: what comes before it waits for flash and simulates little."""
        self._emit({"kind": "phase", "name": "prefill-forward", "event": event})

    async def _token(self, token: int) -> None:
        self._known.append(token)
        text = self._plan.checkpoint.tokenizer.decode(self._known)
        text, self._shown = text[self._shown :], len(text)
        index = len(self._known) - len(self._plan.prompt)
        if index == 1:
            self._forward("end")
        self._emit({"kind": "token", "index": index, "token": token, "text": text})
        if index == 1:
            self.phase("decode")
        await self.at(f"token:{index}")
        await self._press(index)

    async def _press(self, index: int) -> None:
        """Let the OS recall in the middle of the answer; computing goes on beside it."""
        plan, phone = self._plan, self._phone
        if plan.pressure and index == plan.pressure_at:
            self._squeeze = phone.machine.spawn(phone.pressure.squeeze(plan.pressure), name="os: memory pressure")
        if plan.pressure and index == plan.pressure_at + plan.pressure_hold:
            await self.ease()
        if plan.npu_recall_at == index and plan.design.npu and plan.design.secure:
            self._npu_recall = phone.machine.spawn(phone.os.npu.recall(), name="os: recall of the NPU")

    async def ease(self) -> None:
        """Wait until the OS has got what it wanted, and let the other program end."""
        if self._squeeze is not None:
            await self._squeeze.join()
            self._squeeze = None
            self._phone.pressure.ease()

    async def npu_latency(self) -> int | None:
        """Cycles that the recall of the NPU took, if there was one."""
        return await self._npu_recall.join() if self._npu_recall is not None else None


async def serve(machine: Machine, argument: dict[str, Any], emit: Emit, *, hook: Hook | None = None) -> dict[str, Any]:
    """Boot a phone, answer the prompt with the design, give everything back; return what happened.

    ``argument`` is described at :data:`~.plan.ARGUMENTS`. Messages: ``phase`` (``boot``, ``prefill``, ``decode``,
    ``close``; begin and end; within ``prefill`` also ``prefill-forward``) and ``token``.
    Raises :class:`~..errors.UserError`.
    """
    plan = check(argument)
    phone = Phone.assemble(machine, plan)
    run = _Run(phone, plan, emit, hook)
    run.phase("boot")
    await phone.boot()
    await run.at("booted")
    answer = await run.ask()
    await run.ease()
    npu_latency = await run.npu_latency()
    await run.at("answered")
    run.phase("close")
    switches = phone.monitor.switches
    await phone.serving.close()
    violations = await phone.violations()
    run.phase("")
    return _result(phone, plan, answer, switches=switches, violations=violations, npu_latency=npu_latency) | (
        _evidence(phone) if argument.get("timeline", True) else {}
    )


def _evidence(phone: Phone) -> dict[str, Any]:
    entries = [span.as_json() for span in phone.timeline.spans]
    entries += [instant.as_json() for instant in phone.timeline.instants]
    sequences = {str(page): states for page, states in sorted(phone.census.sequences.items())}
    return {"timeline": entries, "page_states": phone.census.history, "page_sequences": sequences}


def _result(
    phone: Phone, plan: Plan, answer: Answer, *, switches: int, violations: int, npu_latency: int | None
) -> dict[str, Any]:
    tokenizer = plan.checkpoint.tokenizer
    tensors, first = phone.serving.tensors, answer.token_cycles[0] if answer.token_cycles else phone.machine.now
    if tensors is None:
        raise RuntimeError("Nothing was computed")
    comparison = tensors.comparison
    reference = complete(
        plan.checkpoint, tokenizer.decode(plan.prompt), plan.tokens, model=plan.model, kv=plan.kv.arithmetic
    )
    steps = [b - a for a, b in zip(answer.token_cycles, answer.token_cycles[1:], strict=False)]
    recalls = phone.pressure.as_json()
    return {
        "design": plan.design.name,
        "text": tokenizer.decode([*plan.prompt, *answer.tokens]),
        "prompt_tokens": len(plan.prompt),
        "tokens": answer.tokens,
        "reference_equal": list(reference.tokens) == answer.tokens,
        "bit_exact": comparison.wrong == 0 and comparison.compared > 0,
        "compared_values": comparison.compared,
        "wrong_values": comparison.wrong,
        "ttft_cycles": first - answer.begin,
        "ttft_phases": attribute(phone.timeline.spans, PHASES, answer.begin, first),
        "ttft_busy": {phase: phone.timeline.busy(phase, answer.begin, first) for phase in PHASES},
        "decode_cycles_per_token": median(steps) if steps else None,
        "decode_cycles": steps,
        "npu": _npu(plan, answer),
        "recall": {
            "pages": sum(recall["pages"] for recall in recalls),
            "latency_cycles_max": max((recall["latency_cycles"] for recall in recalls), default=None),
            "recalls": recalls,
            "npu_latency_cycles": npu_latency,
            "npu_jobs_resumed": phone.serving.resumed,
        },
        "pages_moved": asdict(phone.serving.pager.statistics),
        "cma_pages_migrated": phone.os.cma.migrated,
        "world_switches": switches,
        "violations": violations,
        "expired_grace_periods": phone.handler.expired if phone.handler else 0,
        "window_pages": plan.layout.window_pages,
        "model_pages": plan.pages,
    }


def _npu(plan: Plan, answer: Answer) -> dict[str, Any] | None:
    """What the NPU's own counters say about the prefill."""
    counters = answer.prefill
    if counters is None or counters.busy == 0:
        return None
    lanes = plan.caps.n * plan.caps.n
    return {
        "busy_cycles": counters.busy,
        "rows": counters.rows,
        "beats_read": counters.read,
        "beats_written": counters.written,
        "macs": answer.prefill_macs,
        "utilisation": counters.rows / counters.busy,
        "useful_utilisation": answer.prefill_macs / (counters.busy * lanes),
    }

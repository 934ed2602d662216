"""Random GEMMs on the NPU alone, bit by bit against numpy, under random back-pressure and latency."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from flexserve_hw.params import NpuParams
from flexserve_sw.npu import Caps, Descriptor, Requantise, gemm_program, pack_parameters, pack_weights, requantise
from flexserve_sw.regs import NpuFault

from .alone import Alone, Conditions

__all__ = ["LARGEST", "VARIANTS", "Case", "Mismatch", "Operands", "case", "check", "conditions", "draw"]

LARGEST = 200
"""Rows, columns and terms of the largest random GEMM."""

VARIANTS = {
    4: NpuParams(n=4, a_words=512, w_words=512, c_rows=256, q_words=512),
    8: NpuParams(n=8, a_words=1024, w_words=512, c_rows=256, q_words=256),
    16: NpuParams(n=16),
    32: NpuParams(n=32, a_words=1024, w_words=2048, c_rows=512, q_words=64),
}
"""NPUs by array size: the default one, and others whose memories are so small that GEMMs are cut in every direction."""


class Mismatch(AssertionError):
    """A GEMM went wrong; says which and how to run it again."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A random GEMM and the conditions it runs under."""

    m: int
    k: int
    n: int
    int8: bool
    relu: bool
    secure: bool
    conditions: Conditions
    seed: int


def case(seed: int) -> Case:
    """Draw the case of a seed. Sizes are uniform; one in four is of a size at which something changes."""
    rng = np.random.default_rng(seed)
    edges = [edge + step for edge in (4, 8, 16, 32, 64, 128) for step in (-1, 0, 1)]
    m, k, n = (int(rng.choice(edges) if rng.random() < 0.25 else rng.integers(1, LARGEST + 1)) for _ in range(3))
    return Case(
        m=m,
        k=k,
        n=n,
        int8=bool(rng.integers(2)),
        relu=bool(rng.integers(2)),
        secure=bool(rng.integers(2)),
        conditions=conditions(rng),
        seed=seed,
    )


def conditions(rng: np.random.Generator) -> Conditions:
    """Draw how memory behaves."""
    return Conditions(
        latency=int(rng.integers(1, 150)),
        jitter=int(rng.integers(0, 2) * rng.integers(0, 100)),
        stall=int(rng.choice([0, 0, 100, 300, 600])),
        overtake=bool(rng.integers(2)),
        data_first=bool(rng.integers(2)),
    )


@dataclass(frozen=True)
class Operands:
    """A GEMM in memory: its job, where the list may go, what must come out, and what lies around it."""

    program: list[Descriptor]
    list_at: int
    result: int
    stride: int
    width: int
    expected: npt.NDArray[Any]

    def found(self, memory: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8]]:
        """The result in ``memory``, and the bytes around it, which were 0xA5."""
        m = len(self.expected)
        rows = memory[self.result : self.result + m * self.stride].reshape(m, self.stride)
        around = [memory[self.result - _GUARD : self.result], rows[:, self.width :].reshape(-1)]
        around.append(memory[self.result + m * self.stride :][:_GUARD])
        return rows[:, : self.width].copy().view(self.expected.dtype), np.concatenate(around)


_GUARD = 64


def draw(
    memory: npt.NDArray[np.uint8], m: int, k: int, n: int, *, int8: bool, relu: bool, caps: Caps, seed: int
) -> Operands:
    """Put a random GEMM into ``memory``, from address 0 on, with gaps, filled up with values that must not matter."""
    rng = np.random.default_rng([seed, 1])
    memory[: 1 << 20] = rng.integers(0, 256, 1 << 20, dtype=np.uint8)
    a, w = (rng.integers(-128, 128, shape, dtype=np.int8) for shape in ((m, k), (k, n)))
    at = 0

    def room(length: int) -> int:
        nonlocal at
        here = at + 16 * int(rng.integers(0, 300))
        at = here + -(-length // 16) * 16
        return here

    def put(payload: bytes) -> int:
        here = room(len(payload))
        memory[here : here + len(payload)] = np.frombuffer(payload, np.uint8)
        return here

    a_stride = -(-k // 16) * 16 + 16 * int(rng.integers(0, 2) * rng.integers(0, 5))
    a_at = room(m * a_stride)
    memory[a_at : a_at + m * a_stride].reshape(m, a_stride)[:, :k] = a.view(np.uint8)
    w_at = put(pack_weights(w, caps.n))
    wide = rng.random() < 0.1  # shifts and biases at the ends of their ranges
    bias = rng.integers(-(1 << 31) if wide else -20_000, (1 << 31) if wide else 20_000, n).astype(np.int32)
    multiplier = rng.integers(0, 1 << 16, n).astype(np.uint16)
    shift = rng.integers(0 if wide else 18, 64 if wide else 28, n).astype(np.uint8)
    q_at = put(pack_parameters(bias, multiplier, shift, caps.n))
    sums = (a.astype(np.float64) @ w.astype(np.float64)).astype(np.int32)
    width = n * (1 if int8 else 4)
    stride = -(-width // 16) * 16 + 16 * int(rng.integers(0, 2) * rng.integers(0, 5))
    c_at = room(m * stride + 2 * _GUARD) + _GUARD
    memory[c_at - _GUARD : c_at + m * stride + _GUARD] = 0xA5
    at += 2 * _GUARD
    program = gemm_program(
        m=m, k=k, n=n, a_addr=a_at, a_stride=a_stride, w_addr=w_at, c_addr=c_at, c_stride=stride, caps=caps,
        requantise=Requantise(address=q_at, relu=relu) if int8 else None,
    )  # fmt: skip
    parameters = (values.astype(np.int64) for values in (bias, multiplier, shift))
    expected = requantise(sums, *parameters, relu=relu) if int8 else sums
    return Operands(program, -(-at // 4096) * 4096, c_at, stride, width, expected)


def check(npu: Alone, what: Case, *, own: bool = True) -> int:
    """Run a case; returns its cycles. Without ``own`` the NPU stays in whose hands it is. Raises :class:`Mismatch`."""
    if own:
        npu.own(secure=what.secure)
    npu.behave(what.conditions, seed=what.seed)
    drawn = draw(npu.memory, what.m, what.k, what.n, int8=what.int8, relu=what.relu, caps=npu.caps, seed=what.seed)
    outcome = npu.run(drawn.program, drawn.list_at)
    complaint = next(_complaints(npu, drawn, outcome.fault), None)
    if complaint is not None:
        raise Mismatch(
            f"N={npu.caps.n}, {what}: {complaint}; again: flexserve bench gemms --seed {what.seed} --count 1"
        )
    return outcome.cycles


def _complaints(npu: Alone, drawn: Operands, fault: NpuFault) -> Iterator[str]:
    if fault is not NpuFault.NONE:
        yield f"ended with {fault.name}"
    got, around = drawn.found(npu.memory)
    wrong = np.argwhere(got != drawn.expected)
    if len(wrong):
        yield f"{len(wrong)} of {got.size} values differ, first at {wrong[0].tolist()}"
    if (around != 0xA5).any():
        yield "bytes around the result were written"

"""The NPU in the hands of service and attacker: jobs for both sides, and the lending of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..drivers.npu import NpuDriver
from ..machine import PAGE_BYTES, Initiator, Machine
from ..monitor.layout import Extent
from ..npu import Caps, Descriptor, Fence, Load, Matmul, Store, encode_program, gemm_program, pack_weights
from ..recall import Outcome
from ..regs import GATE_NORMAL, GATE_SECURE, NpuSpace, RecallCommand
from ..regs import RecallState as State
from .scene import Scene

__all__ = ["SIDE", "Workbench", "identity", "lend_npu", "npu_state", "serial", "take_npu"]

OS, SECURE = Initiator.NORMAL_CPU, Initiator.SECURE_CPU

SIDE = 16
"""Width of the attack's matrices: bytes of a beat."""


def identity() -> npt.NDArray[np.int8]:
    """Weights that bring activations through unchanged."""
    return np.eye(SIDE, dtype=np.int8)


def serial(descriptors: Sequence[Descriptor]) -> list[Descriptor]:
    """The descriptors one after the other, each finished before the next begins."""
    return [item for descriptor in descriptors for item in (descriptor, Fence())]


async def npu_state(scene: Scene) -> State:
    """State of the NPU as the OS sees it."""
    return State(await scene.machine.read_register(GATE_NORMAL.STATE, by=OS))


async def lend_npu(scene: Scene) -> int:
    """OS and secure world agree on the NPU; return the ticket. Without protection the NPU stays where it is."""
    if not scene.protected:
        return 0
    await scene.os_gate.command(RecallCommand.DELEGATE, 0, 1)
    ticket = await scene.machine.read_register(GATE_SECURE.TICKET, by=SECURE)
    await scene.secure_gate.command(RecallCommand.ACCEPT, 0, 1, ticket=ticket)
    return ticket


async def take_npu(scene: Scene) -> Outcome | None:
    """The OS takes the NPU back and waits until it has it."""
    if not scene.protected:
        return None
    outcome = await scene.os_gate.try_command(RecallCommand.RECALL, 0, 1)
    while await npu_state(scene) is not State.NORMAL:
        await scene.machine.delay(64)
    return outcome


class Workbench:
    """Pages in which one party keeps operands, job list and results; the party's port, and its NPU frame.

    Layout of the pages: job list (3 pages), weights, activations (2 pages), results (the rest).
    """

    PAGES = 14

    def __init__(self, machine: Machine, pages: Extent, *, by: Initiator) -> None:
        self.machine, self.by = machine, by
        self.driver = NpuDriver(machine, by=by)
        base = pages.address
        self.jobs, self.weights, self.activations = base, base + 3 * PAGE_BYTES, base + 4 * PAGE_BYTES
        self.results = base + 6 * PAGE_BYTES

    async def ready(self) -> Caps:
        """Enable interrupts; to be done whenever the NPU was taken."""
        await self.driver.enable_interrupts()
        return await self.driver.capabilities()

    async def put(self, address: int, payload: bytes) -> None:
        """Write into one's own pages."""
        await self.machine.store(address, payload, by=self.by)

    async def get(self, rows: int) -> npt.NDArray[np.int32]:
        """Results as (rows, SIDE)."""
        data = await self.machine.load(self.results, rows * 4 * SIDE, by=self.by)
        return np.frombuffer(data, "<i4").reshape(rows, SIDE)

    async def run(self, program: Sequence[Descriptor], *, ticket: int = 0) -> None:
        """Run a job to its end. Raises ``NpuJobFailed``."""
        await self.put(self.jobs, encode_program(program))
        await self.driver.run(self.jobs, len(program), ticket=ticket)

    def product(self, caps: Caps, rows: int, *, a: int | None = None, c: int | None = None) -> list[Descriptor]:
        """Job that multiplies ``rows`` rows of SIDE bytes at ``a`` with the weights into int32 rows at ``c``."""
        return gemm_program(
            m=rows,
            k=SIDE,
            n=SIDE,
            a_addr=self.activations if a is None else a,
            a_stride=SIDE,
            w_addr=self.weights,
            c_addr=self.results if c is None else c,
            c_stride=4 * SIDE,
            caps=caps,
        )

    async def set_weights(self, weights: npt.NDArray[np.int8], caps: Caps) -> None:
        """Put packed weights (SIDE, SIDE) in place."""
        await self.put(self.weights, pack_weights(weights, caps.n))

    def fill(self, caps: Caps, space: NpuSpace, address: int, *, base: int, rows: int) -> Load:
        """Descriptor that brings ``rows`` rows of SIDE bytes into a scratchpad, tile beside tile."""
        weights = space is NpuSpace.WEIGHTS
        if weights:
            words = caps.tiles(SIDE) ** 2 * caps.n
            return Load(
                space=space, address=address, stride=0, rows=1, row_bytes=words * caps.n, base=base, row_step=0,
                word_step=1,
            )  # fmt: skip
        return Load(
            space=space, address=address, stride=SIDE, rows=rows, row_bytes=SIDE, base=base, row_step=1, word_step=rows
        )

    @staticmethod
    def multiply(rows: int, *, a_base: int, w_base: int, c_base: int = 0, accumulate: bool = False) -> Matmul:
        """Descriptor over what the scratchpads hold."""
        return Matmul(
            m=rows, k=SIDE, n=SIDE, a_base=a_base, a_step=rows, w_base=w_base, w_step=SIDE, c_base=c_base, c_step=rows,
            accumulate=accumulate,
        )  # fmt: skip

    def save(self, rows: int, *, at: int = 0, c_base: int = 0) -> Store:
        """Descriptor that writes accumulators as (rows, SIDE) at result row ``at``."""
        address = self.results + at * 4 * SIDE
        return Store(address=address, stride=4 * SIDE, rows=rows, n=SIDE, c_base=c_base, c_step=rows)

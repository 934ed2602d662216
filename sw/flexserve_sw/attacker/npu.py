"""Attacks with and on the NPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..drivers.npu import NpuJobFailed
from ..machine import PAGE_BYTES, BusFault, Initiator
from ..monitor.layout import Extent
from ..npu import Caps, Descriptor
from ..regs import GATE_SECURE, NPU_NORMAL, NPU_SECURE, NpuFrame, NpuSpace, RecallCommand, RecallResult
from .accelerator import SIDE, Workbench, identity, lend_npu, serial, take_npu
from .case import ControlKind, Evidence, attack
from .memory import ORDINARY
from .scene import Scene, Sweep
from .weakness import Weakness

OS, SECURE = Initiator.NORMAL_CPU, Initiator.SECURE_CPU

IN_PLACE = "The NPU never leaves the normal world: service and OS both use its normal frame, with no scrub in between."

ROWS = 64
PAGE_ROWS = PAGE_BYTES // SIDE


def _bench(scene: Scene, at: int) -> Workbench:
    """The attacker's own workbench."""
    return Workbench(scene.machine, scene.os_pages(Workbench.PAGES, at=at), by=OS)


async def _service_bench(scene: Scene) -> Workbench:
    """The service's workbench: lent pages, or without protection ordinary ones."""
    place = scene.layout.lendable if scene.protected else scene.os_pages(48, at=16)
    pages = Extent(place.first + 16, Workbench.PAGES)
    if scene.protected:
        await scene.lend(list(pages.pages()))
    return Workbench(scene.machine, pages, by=scene.service)


async def _done(sweep: Sweep, bench: Workbench, program: Sequence[Descriptor]) -> None:
    """Run a job of the attacker's that touches nothing but its own: what it brings counts only if it ran."""
    sweep.attempts += 1
    await bench.run(program)
    sweep.responses["done"] += 1


async def _attempt(sweep: Sweep, bench: Workbench, program: Sequence[Descriptor]) -> None:
    sweep.attempts += 1
    try:
        await bench.run(program)
        sweep.responses["done"] += 1
    except NpuJobFailed as failure:
        sweep.responses[failure.fault.name] += 1


@attack("npu-read", "SEC-01", weakness=Weakness.SHARED_RESOURCE, control=ORDINARY)
async def npu_read(scene: Scene) -> Evidence:
    """The OS has the NPU, in its own hands, bring the secret's pages, times the identity, into its memory."""
    sweep, bench = Sweep(), _bench(scene, 0)
    caps = await bench.ready()
    await bench.set_weights(identity(), caps)
    for page in scene.pages:
        await bench.put(bench.results, bytes(4 * PAGE_BYTES))
        await _attempt(sweep, bench, bench.product(caps, PAGE_ROWS, a=page * PAGE_BYTES))
        sweep.leaked_bytes += scene.leak((await bench.get(PAGE_ROWS)).astype(np.int8).tobytes())
    return Evidence(sweep.leaked_bytes > 0, sweep.seen())


@attack("npu-write", "SEC-02", weakness=Weakness.SHARED_RESOURCE, control=ORDINARY)
async def npu_write(scene: Scene) -> Evidence:
    """The OS has the NPU store results over the secret's pages."""
    sweep, bench = Sweep(), _bench(scene, 0)
    caps = await bench.ready()
    await bench.set_weights(identity(), caps)
    await bench.put(bench.activations, scene.forged(ROWS * SIDE))
    for page in scene.pages:
        await _attempt(sweep, bench, bench.product(caps, ROWS, c=page * PAGE_BYTES))
    sweep.changed_bytes = await scene.damage()
    return Evidence(sweep.changed_bytes > 0, sweep.seen())


def _leavings(bench: Workbench, caps: Caps) -> list[Descriptor]:
    """Job that brings operands in and leaves operands and product behind."""
    steps: list[Descriptor] = [
        bench.fill(caps, NpuSpace.WEIGHTS, bench.weights, base=0, rows=SIDE),
        bench.fill(caps, NpuSpace.ACTIVATIONS, bench.activations, base=0, rows=ROWS),
        bench.multiply(ROWS, a_base=0, w_base=0),
    ]
    return serial(steps)


def _operands(scene: Scene) -> tuple[bytes, bytes]:
    """Weights and activations of the service, both secret."""
    return scene.secret[: SIDE * SIDE], scene.secret[SIDE * SIDE : SIDE * SIDE + ROWS * SIDE]


def _matrix(data: bytes) -> np.ndarray[tuple[int, int], np.dtype[np.int8]]:
    return np.frombuffer(data, np.int8).reshape(-1, SIDE)


async def _use_npu(scene: Scene) -> Caps:
    """The service runs a job over secrets, and leaves them in the NPU."""
    service = await _service_bench(scene)
    ticket = await lend_npu(scene)
    caps = await service.ready()
    weights, activations = (_matrix(part) for part in _operands(scene))
    await service.set_weights(weights, caps)
    await service.put(service.activations, activations.tobytes())
    await service.run(_leavings(service, caps), ticket=ticket)
    return caps


async def _harvest(scene: Scene, sweep: Sweep, caps: Caps) -> tuple[dict[str, int], int]:
    """The OS looks for what is in the NPU: values of the service by place, and values that are not zero.

    It stores the accumulators as they are, and multiplies what the scratchpads hold with identities of its own. Raises
    ``NpuJobFailed`` if it could not look.
    """
    bench = _bench(scene, 0)
    await bench.ready()
    await bench.set_weights(identity(), caps)
    await bench.put(bench.activations, identity().tobytes())
    await bench.put(bench.results, bytes((2 * ROWS + SIDE) * 4 * SIDE))
    far_a, far_w = caps.tiles(SIDE) * ROWS, caps.tiles(SIDE) ** 2 * caps.n
    steps: list[Descriptor] = [
        bench.save(ROWS),
        bench.fill(caps, NpuSpace.WEIGHTS, bench.weights, base=far_w, rows=SIDE),
        bench.multiply(ROWS, a_base=0, w_base=far_w),
        bench.save(ROWS, at=ROWS),
        bench.fill(caps, NpuSpace.ACTIVATIONS, bench.activations, base=far_a, rows=SIDE),
        bench.multiply(SIDE, a_base=far_a, w_base=0),
        bench.save(SIDE, at=2 * ROWS),
    ]
    await _done(sweep, bench, serial(steps))
    found = await bench.get(2 * ROWS + SIDE)
    weights, activations = (_matrix(part) for part in _operands(scene))
    parts = {
        "accumulators": (found[:ROWS], activations.astype(np.int32) @ weights.astype(np.int32)),
        "activations": (found[ROWS : 2 * ROWS], activations),
        "weights": (found[2 * ROWS :], weights),
    }
    leaks = {name: int(np.count_nonzero((seen == true) & (true != 0))) for name, (seen, true) in parts.items()}
    return leaks, int(np.count_nonzero(found))


@attack("npu-residue", "SEC-09", weakness=Weakness.RESIDUE, control=IN_PLACE)
async def npu_residue(scene: Scene) -> Evidence:
    """After a job of the service, the OS takes the NPU back and looks for operands and results in its memories."""
    caps, sweep = await _use_npu(scene), Sweep()
    await take_npu(scene)
    leaks, residue = await _harvest(scene, sweep, caps)
    return Evidence(residue > 0, {**sweep.seen(), "values_leaked": leaks, "values_not_zero": residue})


@attack("warm-reset", "SEC-01", weakness=Weakness.RESIDUE, control=ORDINARY)
async def warm_reset(scene: Scene) -> Evidence:
    """The OS resets the phone while the secret is in memory, which keeps its contents over a reset, and reads it.

    One read is waiting from before the monitor has started.
    """
    machine, sweep = scene.machine, Sweep()
    await machine.reset()
    early = machine.spawn(scene.read(sweep, scene.address, len(scene.secret), by=OS), name="early read")
    await scene.boot()
    await early.join()
    for by in (OS, Initiator.HOSTILE_DEVICE):
        await scene.read(sweep, scene.address, len(scene.secret), by=by)
    return Evidence(sweep.learnt, sweep.seen())


@attack("npu-poison", "SEC-09", weakness=Weakness.SHARED_RESOURCE, control=IN_PLACE)
async def npu_poison(scene: Scene) -> Evidence:
    """Before it lends the NPU, the OS fills its memories, for a job of the service to compute on top of.

    The service's job adds to accumulators that a fresh NPU promises to be zero.
    """
    bench, sweep = _bench(scene, 0), Sweep()
    caps = await bench.ready()
    weights, activations = (_matrix(part) for part in _operands(scene))
    await bench.set_weights(_matrix(scene.forged(SIDE * SIDE)), caps)
    await bench.put(bench.activations, scene.forged(ROWS * SIDE))
    await _done(sweep, bench, _leavings(bench, caps))

    service = await _service_bench(scene)
    ticket = await lend_npu(scene)
    await service.ready()
    await service.set_weights(weights, caps)
    await service.put(service.activations, activations.tobytes())
    steps: list[Descriptor] = [
        service.fill(caps, NpuSpace.WEIGHTS, service.weights, base=0, rows=SIDE),
        service.fill(caps, NpuSpace.ACTIVATIONS, service.activations, base=0, rows=ROWS),
        service.multiply(ROWS, a_base=0, w_base=0, accumulate=True),
        service.save(ROWS),
    ]
    await service.run(serial(steps), ticket=ticket)
    wrong = int(np.count_nonzero(await service.get(ROWS) != activations.astype(np.int32) @ weights.astype(np.int32)))
    return Evidence(wrong > 0, {**sweep.seen(), "wrong_results": wrong})


@attack("npu-interference", "SEC-10", weakness=Weakness.SHARED_RESOURCE, control=IN_PLACE)
async def npu_interference(scene: Scene) -> Evidence:
    """While a job of the service runs, the OS aborts, rings doorbells, and writes to the secure command frame."""
    machine, rows = scene.machine, 2 * PAGE_ROWS
    service = await _service_bench(scene)
    ticket = await lend_npu(scene)
    caps = await service.ready()
    weights = _matrix(scene.secret[: SIDE * SIDE])
    activations = _matrix(scene.secret[PAGE_BYTES : PAGE_BYTES + rows * SIDE])
    await service.set_weights(weights, caps)
    await service.put(service.activations, activations.tobytes())
    await service.put(service.results, bytes(rows * 4 * SIDE))

    async def work() -> str:
        try:
            await service.run(service.product(caps, rows), ticket=ticket)
        except NpuJobFailed as failure:
            return failure.fault.name
        return "done"

    task, sweep = machine.spawn(work(), name="service job"), Sweep()
    before = await machine.read_register(service.driver.frame.DONE_COUNT, by=scene.service)
    while not task.done():
        for frame in (NPU_NORMAL, NPU_SECURE):
            for address, value in ((frame.JOB_COUNT, 1), (frame.DOORBELL, 0x666), (frame.CONTROL, 1)):
                sweep.attempts += 1
                try:
                    await machine.write_register(address, value, by=OS)
                    sweep.responses["OKAY"] += 1
                except BusFault as fault:
                    sweep.responses[fault.response.name] += 1
    end = await task.join()
    jobs = await machine.read_register(service.driver.frame.DONE_COUNT, by=scene.service) - before
    wrong = int(np.count_nonzero(await service.get(rows) != activations.astype(np.int32) @ weights.astype(np.int32)))
    seen = {**sweep.seen(), "service_job": end, "jobs_finished": jobs, "wrong_results": wrong}
    return Evidence(end != "done" or jobs != 1 or wrong > 0, seen)


@attack(
    "npu-replay",
    "SEC-10",
    weakness=Weakness.REPLAY,
    control="The service's driver reads the present ticket each time, and keeps none.",
    kind=ControlKind.CARELESS,
)
async def npu_replay(scene: Scene) -> Evidence:
    """The OS takes the NPU, lends it anew, and has the schedule of the earlier lending played once more."""
    remembers, machine = not scene.control, scene.machine

    async def quoted(ticket: int) -> int:
        """The ticket that the service's driver quotes."""
        return ticket if remembers else await machine.read_register(GATE_SECURE.TICKET, by=SECURE)

    service = await _service_bench(scene)
    ticket = await lend_npu(scene)
    caps = await service.ready()
    await service.set_weights(identity(), caps)
    await service.put(service.activations, scene.secret[: ROWS * SIDE])
    program = service.product(caps, ROWS)
    await service.run(program, ticket=ticket)
    await take_npu(scene)

    await scene.os_gate.command(RecallCommand.DELEGATE, 0, 1)
    old = await quoted(ticket)
    accept = await scene.secure_gate.try_command(RecallCommand.ACCEPT, 0, 1, ticket=old)
    if accept.result is not RecallResult.OK:
        present = await machine.read_register(GATE_SECURE.TICKET, by=SECURE)
        await scene.secure_gate.command(RecallCommand.ACCEPT, 0, 1, ticket=present)
    await service.ready()
    try:
        await service.run(program, ticket=old)
        replayed = "done"
    except NpuJobFailed as failure:
        replayed = failure.fault.name
    count = NpuFrame.DONE_COUNT__COUNT.get(await machine.read_register(NPU_SECURE.DONE_COUNT, by=SECURE))
    seen = {"attempts": 2, "accept": accept.result.name, "job": replayed, "jobs_finished": count}
    return Evidence(accept.result is RecallResult.OK or count > 0, seen)

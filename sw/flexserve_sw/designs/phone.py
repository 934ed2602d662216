"""A phone put together: machine, monitor, OS and serving framework of one design."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from secrets import token_bytes
from typing import Any

from ..census import PageCensus
from ..drivers.npu import NpuDriver
from ..errors import UserError
from ..machine import Initiator, Machine
from ..monitor.monitor import Monitor
from ..normal.pressure import PressureSource
from ..normal.system import NormalOs
from ..regs import FLEX_SECURE
from ..serving.crypto import KEY_BYTES, derive_key, device_key
from ..serving.engine import DEVICE_KEY, SWAP_DOMAIN, SWAP_KEY, Secrets, Serving
from ..serving.image import FlashImage, build_image
from ..serving.npu import BorrowedNpu, NpuLease, OwnNpu
from ..serving.pages import CmaPages, FlexPages, OrdinaryPages, PageSource
from ..serving.recall import RecallHandler
from ..serving.side import Side
from ..serving.storage import BounceBuffers, DirectStorage, RequestedStorage, Storage
from ..serving.vault import Vault
from ..sync import Mutex
from ..timeline import Timeline
from .design import MemoryKind
from .plan import Plan

__all__ = ["Phone"]


@dataclass(kw_only=True)
class Phone:
    """Every part of a phone, for whoever looks into it: the job, a test, or an attacker."""

    machine: Machine
    plan: Plan
    timeline: Timeline
    census: PageCensus
    monitor: Monitor
    os: NormalOs
    pressure: PressureSource
    image: FlashImage
    vault: Vault
    serving: Serving
    handler: RecallHandler | None

    @classmethod
    def assemble(cls, machine: Machine, plan: Plan, listener: Callable[[dict[str, Any]], None] | None = None) -> Phone:
        """Put the parts together and the model's image into flash; nothing runs yet.

        Raises :class:`UserError` if the machine is not the one that the plan was made for.
        """
        layout, platform = plan.layout, plan.platform
        if (machine.dram.base, machine.dram.size) != (layout.dram_base, layout.dram_bytes):
            raise UserError(
                f"The machine has {machine.dram.size} bytes of memory but the run was planned for {layout.dram_bytes};"
                " give the same size to both."
            )
        timeline = Timeline(lambda: machine.now, listener)
        census = PageCensus(lambda: machine.now)
        monitor = Monitor(machine, layout, platform, timeline)
        os = NormalOs(machine, layout, platform, timeline, census, seed=plan.seed)
        monitor.os = os.serve
        vault = Vault(machine, layout)
        secure = plan.design.secure
        image = build_image(plan.model, device_key(plan.seed) if secure else None)
        if image.size + vault.slots * 4096 > machine.flash.size:
            raise UserError(
                f"The model's image and swap area don't fit flash of {machine.flash.size} bytes; choose more."
            )
        machine.flash.bytes[: image.size] = image.data
        source, storage = _memory(plan, monitor, os, timeline, census)
        lease: NpuLease | None = None
        borrowed: BorrowedNpu | None = None
        if plan.design.npu and secure:
            lease = borrowed = BorrowedNpu(machine, monitor, platform, timeline)
        elif plan.design.npu:
            lease = OwnNpu(machine, platform)
        serving = Serving(
            side=Side(machine, platform, secure=secure),
            source=source,
            storage=storage,
            bounces=BounceBuffers(machine, layout),
            lease=lease,
            secrets=Secrets(vault, image.size, plan.design.recallable) if secure else None,
            pipeline=plan.design.pipeline,
            model=plan.model,
            caps=plan.caps,
            timeline=timeline,
            kv=plan.kv,
        )
        handler = RecallHandler(machine, monitor, serving.pager, borrowed, timeline) if secure else None
        return cls(
            machine=machine,
            plan=plan,
            timeline=timeline,
            census=census,
            monitor=monitor,
            os=os,
            pressure=PressureSource(os, plan.recall_by),
            image=image,
            vault=vault,
            serving=serving,
            handler=handler,
        )

    async def boot(self) -> None:
        """Reset, monitor, keys into sealed memory, OS, secure world."""
        await self.machine.reset()
        await self.monitor.boot(grace=self.plan.grace, npu_grace=self.plan.npu_grace)
        self.census.sealed(self.plan.layout.sealed.pages())
        key = device_key(self.plan.seed)
        await self.vault.put_key(DEVICE_KEY, key)
        # A key of this boot only: counts of swap slots start anew at reset, and no nonce may be used twice. What the
        # phone's random number generator gives changes ciphertext, never timing or an answer, so runs stay repeatable.
        await self.vault.put_key(SWAP_KEY, derive_key(key, SWAP_DOMAIN, token_bytes(KEY_BYTES)))
        await self._look_at_npu()
        await self.os.start()
        await self.serving.pager.bounces.fill()
        if self.handler is not None:
            self.handler.start()

    async def _look_at_npu(self) -> None:
        """Compare the NPU with the one that the model was packed for; its memories may be of any size."""
        caps = await NpuDriver(self.machine, by=Initiator.NORMAL_CPU).capabilities()
        if caps.n != self.plan.caps.n:
            raise UserError(
                f"The machine's array is {caps.n} wide but the run was planned for {self.plan.caps.n}; give the same"
                " size to both."
            )
        self.serving.caps = caps

    async def violations(self) -> int:
        """Denied transactions since boot."""
        return await self.machine.read_register(FLEX_SECURE.VIOLATIONS, by=Initiator.SECURE_CPU)


def _memory(
    plan: Plan, monitor: Monitor, os: NormalOs, timeline: Timeline, census: PageCensus
) -> tuple[PageSource, Storage]:
    match plan.design.memory:
        case MemoryKind.FLEX:
            return FlexPages(monitor, timeline, census), RequestedStorage(monitor)
        case MemoryKind.CMA:
            return CmaPages(monitor, timeline, Mutex(monitor.machine)), RequestedStorage(monitor)
        case MemoryKind.ORDINARY:
            return OrdinaryPages(os, timeline), DirectStorage(os)

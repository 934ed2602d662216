"""The serving framework: opens a model from flash, answers a prompt, lives with whatever memory the OS leaves it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from ..drivers.npu import NpuCounters
from ..llm.config import ModelConfig
from ..llm.image import ImageTensors, QuantModel
from ..llm.model import Choose, QuantWeights, generate, greedy
from ..machine import PAGE_BYTES
from ..npu import Caps
from ..sync import Mutex
from ..timeline import Timeline
from .attention import NpuAttention
from .cpu import CpuProducts
from .crypto import PageCipher
from .image import HEADER_BYTES, Header, StoredSegment, parse_manifest
from .kv import AttentionProducts, CpuAttention, Kv, KvLayout, PagedInt8Cache
from .loader import Loader
from .npu import NpuLease, NpuProducts
from .pager import Pager
from .pages import PageSource
from .segments import Kind, PagedSegment
from .side import CpuClock, Side
from .space import Space
from .storage import BounceBuffers, Storage
from .swap import SwapArea
from .tensors import ComputeTrack, PagedCache, PagedTensors
from .vault import Vault

__all__ = ["DEVICE_KEY", "SWAP_DOMAIN", "SWAP_KEY", "Answer", "Secrets", "Serving", "layer_pages", "working_pages"]

_DESCRIPTOR_PAGES, _ATTENTION_DESCRIPTOR_PAGES = 8, 4
"""Pages for job lists of linear layers, and for those of attention."""

_MANIFEST_LIMIT = 1 << 22
"""Bytes of manifest that a header may announce."""

DEVICE_KEY, SWAP_KEY = 0, 1
"""Numbers of the keys in the vault."""

SWAP_DOMAIN = b"flexserve swap"


def working_pages(config: ModelConfig, caps: Caps, kv: Kv, *, rows: int, positions: int) -> tuple[int, int]:
    """Pages for job lists, and for what jobs read and write beside weights, keys and values; for a prompt of ``rows``.

    ``positions`` is how long prompt and answer are at most.
    """
    length = NpuProducts.work_bytes(list(config.linears.values()), rows, caps)
    if kv is not Kv.INT8:
        return _DESCRIPTOR_PAGES, -(-length // PAGE_BYTES)
    layout = KvLayout.of(config, caps.n)
    length = max(length, NpuAttention.work_bytes(layout, rows, caps))
    length = max(length, NpuAttention.work_bytes(layout, 1, caps, position=positions - 1))
    return _DESCRIPTOR_PAGES + _ATTENTION_DESCRIPTOR_PAGES, -(-length // PAGE_BYTES)


def layer_pages(config: ModelConfig, caps: Caps, kv: Kv, positions: int) -> tuple[int, ...]:
    """Pages of each segment of a layer's keys and values."""
    if kv is Kv.FLOAT:
        return PagedCache.layer_pages(config, positions)
    return KvLayout.of(config, caps.n).pages(positions)


@dataclass(kw_only=True)
class Answer:
    """An answer as it was made.

    ``begin`` is the cycle of the request, ``token_cycles`` those in which tokens were known; ``prefill`` what the NPU
    counted until the first token, None without an NPU; ``prefill_macs`` the multiply-accumulates of its products.
    """

    begin: int
    tokens: list[int]
    token_cycles: list[int]
    prefill: NpuCounters | None
    prefill_macs: int


@dataclass(frozen=True)
class Secrets:
    """What protects a model in flash and its swapped-out pages; the keys themselves are in the vault."""

    vault: Vault
    swap_offset: int
    swap: bool


class Serving:
    """One model, one conversation.

    Parameters
    ----------
    side
        CPU, world and costs.
    source, storage, bounces
        Where pages come from, and how ciphertext gets in and out.
    lease
        The NPU, or None: then the CPU multiplies.
    secrets
        None: the model lies in flash in the clear and nothing is swapped out.
    pipeline
        Load beside computing instead of before it.
    model
        The same model in this computer's memory: sizes, and the reference that every product is compared with.
    caps
        Sizes of the NPU that the model was packed for.
    kv
        What keys and values are, and who multiplies with them.
    """

    def __init__(
        self,
        *,
        side: Side,
        source: PageSource,
        storage: Storage,
        bounces: BounceBuffers,
        lease: NpuLease | None,
        secrets: Secrets | None,
        pipeline: bool,
        model: QuantModel,
        caps: Caps,
        timeline: Timeline,
        kv: Kv = Kv.FLOAT,
    ) -> None:
        self._kv = kv
        self._side, self._secrets, self._lease, self._pipeline = side, secrets, lease, pipeline
        self._model, self.caps, self._timeline = model, caps, timeline
        self.space = Space(side)
        self.clock = CpuClock(side)
        self.track = ComputeTrack(timeline, self.clock)
        self.pager = Pager(
            side=side,
            space=self.space,
            source=source,
            storage=storage,
            bounces=bounces,
            cipher=None,
            timeline=timeline,
            lock=Mutex(side.machine),
        )
        self.loader = Loader(self.pager)
        self.tensors: PagedTensors | None = None

    async def _open(self) -> tuple[StoredSegment, ...]:
        """Fetch keys from the vault and the manifest from flash."""
        pager, machine = self.pager, self._side.machine
        device: bytes | None = None
        if self._secrets is not None:
            vault = self._secrets.vault
            device = await vault.key(DEVICE_KEY)
            if self._secrets.swap:
                pager.swap = SwapArea(
                    side=self._side,
                    space=self.space,
                    storage=pager.storage,
                    bounces=pager.bounces,
                    cipher=PageCipher(await vault.key(SWAP_KEY), SWAP_DOMAIN),
                    vault=vault,
                    timeline=self._timeline,
                    offset=self._secrets.swap_offset,
                )
        await machine.delay(
            self._side.platform.at_rate(self._model.size, self._side.platform.system.init_rate, machine.clock_hz)
        )
        header = Header.parse(await self._read(0, HEADER_BYTES), limit=_MANIFEST_LIMIT)
        stored = parse_manifest(await self._read(HEADER_BYTES, header.length), header, device)
        pager.cipher = None if device is None else header.page_cipher(device)
        return stored

    async def _read(self, offset: int, length: int) -> bytes:
        """Bytes of flash, through a bounce buffer."""
        pager = self.pager
        buffer = await pager.bounces.take()
        try:
            parts = []
            for start in range(0, length, buffer.length):
                piece = min(buffer.length, length - start)
                await pager.storage.read(offset + start, buffer.address, piece)
                parts.append(await self._side.load_foreign(buffer.address, piece))
        finally:
            pager.bounces.give(buffer)
        return b"".join(parts)

    async def answer(
        self,
        prompt: Sequence[int],
        count: int,
        *,
        stops: frozenset[int],
        on_token: Callable[[int], Awaitable[None]],
        choose: Choose = greedy,
        begin: int | None = None,
        on_forward: Callable[[], None] = lambda: None,
    ) -> Answer:
        """Load the model and continue ``prompt`` by up to ``count`` tokens.

        ``begin`` is the cycle from which the time to the first token counts; now, if not given.
        ``on_forward`` is called when the first weights are in memory and the forward pass begins.
        """
        machine, config = self._side.machine, self._model.config
        begin = machine.now if begin is None else begin
        with self._timeline.span("init", "open model"):
            stored = await self._open()
            if self._lease is not None:
                await self._lease.take()
        tensors, cache = await self._prepare(stored, config, rows=len(prompt), positions=len(prompt) + count)
        before = await self._counters()
        result = Answer(begin=begin, tokens=[], token_cycles=[], prefill=None, prefill_macs=0)

        async def known(token: int) -> None:
            await self.clock.settle()
            self.track.stop(machine.now)
            if not result.tokens and before is not None:
                after = await self._counters()
                result.prefill = after.since(before) if after is not None else None
            if not result.tokens:
                result.prefill_macs = self._products.macs
            result.tokens.append(token)
            result.token_cycles.append(machine.now)
            await on_token(token)
            self.track.start("decode", machine.now)

        await next(segment for segment in self.pager.segments if segment.kind is Kind.WEIGHTS).loaded.wait()
        on_forward()
        self.track.start("prefill", machine.now)
        try:
            await generate(
                config,
                list(prompt),
                count,
                weights=QuantWeights(tensors=tensors, cpu=self.clock),
                cache=cache,
                cpu=self.clock,
                stops=stops,
                choose=choose,
                on_token=known,
            )
        finally:
            self.track.stop(machine.now)
        await self.loader.finish()
        tensors.comparison.finish()
        return result

    async def _counters(self) -> NpuCounters | None:
        return await self._lease.driver.counters() if self._lease is not None else None

    @property
    def resumed(self) -> int:
        """NPU jobs of the last answer that were stopped and went on, as the OS had wanted the NPU in between."""
        return self._products.resumed if isinstance(self._products, NpuProducts) else 0

    async def _prepare(
        self, stored: tuple[StoredSegment, ...], config: ModelConfig, *, rows: int, positions: int
    ) -> tuple[PagedTensors, PagedCache | PagedInt8Cache]:
        """Lay the address space out, get working memory, and load, or begin to."""
        pager = self.pager
        list_pages, work_pages = working_pages(config, self.caps, self._kv, rows=rows, positions=positions)
        descriptors = pager.add("descriptors", Kind.WORK, list_pages) if self._lease is not None else None
        work = pager.add("activations", Kind.WORK, work_pages) if self._lease is not None else None
        weights = [pager.add(s.name, Kind.WEIGHTS, s.pages, s) for s in stored]
        if self._lease is not None and descriptors is not None and work is not None:
            await pager.allocate(descriptors)
            await pager.allocate(work)
            self._products: NpuProducts | CpuProducts = NpuProducts(
                space=self.space,
                lease=self._lease,
                caps=self.caps,
                work=work,
                descriptors=descriptors,
                timeline=self._timeline,
            )
        else:
            self._products = CpuProducts(
                side=self._side, space=self.space, clock=self.clock, array=self.caps.n, timeline=self._timeline
            )
        scratch = [segment for segment in (descriptors, work) if segment is not None]
        self.tensors = PagedTensors(
            pager=pager,
            clock=self.clock,
            track=self.track,
            products=self._products,
            scratch=scratch,
            reference=ImageTensors(self._model),
        )
        for segment in weights:
            self.tensors.publish(segment)
        cache = self._cache(config, positions, work, scratch, self.tensors)
        if self._pipeline:
            self.loader.start(weights)
        else:
            await self.loader.run(weights)
        return self.tensors, cache

    def _cache(
        self,
        config: ModelConfig,
        positions: int,
        work: PagedSegment | None,
        scratch: Sequence[PagedSegment],
        tensors: PagedTensors,
    ) -> PagedCache | PagedInt8Cache:
        """Room for keys and values, empty yet."""
        pager, clock, track = self.pager, self.clock, self.track
        if self._kv is Kv.FLOAT:
            return PagedCache(pager=pager, clock=clock, track=track, config=config, positions=positions)
        layout = KvLayout.of(config, self.caps.n)
        products: AttentionProducts = CpuAttention(space=self.space, clock=clock, layout=layout)
        if self._kv is Kv.INT8 and work is not None and isinstance(self._products, NpuProducts):
            products = NpuAttention(products=self._products, space=self.space, caps=self.caps, layout=layout, work=work)
        return PagedInt8Cache(
            pager=pager,
            clock=clock,
            track=track,
            config=config,
            layout=layout,
            positions=positions,
            products=products,
            scratch=scratch if self._kv is Kv.INT8 else (),
            check=tensors.comparison.check,
        )

    async def close(self) -> None:
        """Give memory and NPU back to the OS."""
        await self.pager.drop_all()
        if self._lease is not None:
            await self._lease.give()

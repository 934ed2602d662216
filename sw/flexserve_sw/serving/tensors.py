"""The model's tensors and its keys and values in pages, as the forward pass asks for them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from ..drivers.npu import NpuJobFailed
from ..llm.arithmetic import Float, Int8, Int32
from ..llm.attention import attend_float
from ..llm.config import ModelConfig
from ..llm.image import ImageTensors, Tensor
from ..llm.model import Cpu
from ..machine import BEAT_BYTES, PAGE_BYTES, BusFault
from ..timeline import Span, Timeline
from .comparison import Comparison
from .pager import Pager
from .segments import Kind, PagedSegment
from .side import CpuClock

__all__ = ["ComputeTrack", "Paged", "PagedCache", "PagedTensors", "Products"]

T = TypeVar("T")


class Products(Protocol):
    """Who multiplies."""

    macs: int

    async def product(self, name: str, tensor: Tensor, weights: int, x: Int8) -> Int32:
        """``x[T, K]`` times the packed matrix at address ``weights``, exactly."""


class ComputeTrack:
    """Spans in which the forward pass gets on, without the time it waits for weights that are not there yet."""

    def __init__(self, timeline: Timeline, clock: CpuClock) -> None:
        self._timeline, self._clock = timeline, clock
        self._begin: int | None = None
        self._name = ""

    def start(self, name: str, now: int) -> None:
        """The forward pass begins or goes on."""
        self._name, self._begin = name, now

    def stop(self, now: int) -> None:
        """The forward pass ends or waits."""
        if self._begin is not None and now > self._begin:
            self._timeline.add(Span("compute", self._name, self._begin, now))
        self._begin = None

    @property
    def name(self) -> str:
        """What is computed."""
        return self._name

    @property
    def running(self) -> bool:
        """Whether a span is open."""
        return self._begin is not None


class Paged:
    """Use of segments under the pager's lock, once they are loaded and in memory."""

    def __init__(self, pager: Pager, clock: CpuClock, track: ComputeTrack) -> None:
        self._pager, self._clock, self._track = pager, clock, track
        self._usable: dict[tuple[PagedSegment, int, int, bool], int] = {}  # and the epoch in which it all was in memory

    async def _attempt(
        self,
        segment: PagedSegment,
        use: Callable[[], Awaitable[T]],
        *,
        pages: range | None = None,
        scratch: Sequence[PagedSegment] = (),
    ) -> T:
        """Use a segment; once more if the OS took a page of it, which shows as a fault and never as data."""
        pager, space, lock = self._pager, self._pager.space, self._pager.lock
        first, stop = (0, segment.pages) if pages is None else (pages.start, pages.stop)
        key = segment, first, stop, bool(scratch)
        for last in (False, True):
            if self._clock.due:
                await self._clock.settle()
            if self._usable.get(key) == space.epoch and lock.take():
                waits = False
            else:
                waits = await self._loaded(segment, pages)
                await lock.acquire()
            try:
                try:
                    if self._usable.get(key) != space.epoch:
                        await self._ensure(segment, pages, scratch)
                        self._usable[key] = space.epoch
                    if waits:
                        self._track.start(self._track.name, pager.side.machine.now)
                    return await use()
                except (BusFault, NpuJobFailed) as error:
                    fault = error
                if not await pager.reconcile() or last:
                    raise fault
            finally:
                lock.release()
        raise AssertionError("The second attempt returns or raises")

    async def _ensure(self, segment: PagedSegment, pages: range | None, scratch: Sequence[PagedSegment]) -> None:
        """Have all in memory, scratch first: what it takes must not come from what is ensured after it."""
        for other in scratch:
            if not self._pager.whole(other):
                await self._pager.ensure(other)
        if not self._pager.whole(segment, pages):
            await self._pager.ensure(segment, pages)

    async def _loaded(self, segment: PagedSegment, pages: range | None) -> bool:
        """Wait for the first loading of a segment.

        Whether the forward pass, which was running, stands still until the segment can be used.
        """
        pager = self._pager
        waits = self._track.running and (
            pager.lock.held or not segment.loaded.is_set() or not pager.whole(segment, pages)
        )
        if waits:
            self._track.stop(pager.side.machine.now)
        if not segment.loaded.is_set():
            await segment.loaded.wait()
        if segment.failure is not None:
            raise segment.failure
        return waits


class PagedTensors(Paged):
    """Quantised tensors by name. Every product goes to ``comparison``; ``scratch`` are the segments they work in."""

    def __init__(
        self,
        *,
        pager: Pager,
        clock: CpuClock,
        track: ComputeTrack,
        products: Products,
        scratch: Sequence[PagedSegment],
        reference: ImageTensors,
    ) -> None:
        super().__init__(pager, clock, track)
        self._products, self._scratch = products, scratch
        self.comparison = Comparison(reference)
        self._where: dict[str, tuple[PagedSegment, Tensor, int]] = {}  # and at which address

    def publish(self, segment: PagedSegment) -> None:
        """Make a segment's tensors known by name."""
        if segment.stored is None:
            raise ValueError(f"Only a segment with a directory can be published, not {segment.name!r}")
        for tensor in segment.stored.tensors:
            self._where[tensor.name] = (segment, tensor, segment.address + tensor.offset)

    async def rows(self, name: str, indices: Sequence[int]) -> Int8:
        """Rows of an int8 table."""
        segment, tensor, at = self._where[name]

        async def read() -> list[bytes]:
            return [await self._pager.space.load(at + i * tensor.row_bytes, tensor.row_bytes) for i in indices]

        return np.stack([tensor.row(raw) for raw in await self._attempt(segment, read)])

    async def vector(self, name: str) -> Float:
        """A float32 vector."""
        segment, tensor, at = self._where[name]
        length = -(-tensor.size // BEAT_BYTES) * BEAT_BYTES
        return tensor.vector(await self._attempt(segment, lambda: self._pager.space.load(at, length)))

    async def product(self, name: str, x: Int8) -> Int32:
        """Exact int32 product."""
        segment, tensor, at = self._where[name]
        sums = await self._attempt(segment, lambda: self._products.product(name, tensor, at, x), scratch=self._scratch)
        self.comparison.add(name, x, sums)
        return sums


class PagedCache(Paged):
    """Keys and values: one segment per layer, a row of keys and a row of values per position."""

    def __init__(
        self, *, pager: Pager, clock: CpuClock, track: ComputeTrack, config: ModelConfig, positions: int
    ) -> None:
        super().__init__(pager, clock, track)
        self._kv_dim, self._row_bytes = config.kv_dim, self.row_bytes(config)
        self._used = [0] * config.layers
        (pages,) = self.layer_pages(config, positions)
        self.segments = [pager.add(f"kv.{layer}", Kind.KV, pages) for layer in range(config.layers)]

    @classmethod
    def layer_pages(cls, config: ModelConfig, positions: int) -> tuple[int]:
        """Pages of each segment of a layer."""
        return (-(-positions * cls.row_bytes(config) // PAGE_BYTES),)

    @staticmethod
    def row_bytes(config: ModelConfig) -> int:
        """Bytes of a position: keys and values, each whole beats."""
        return 2 * (-(-config.kv_dim * 4 // BEAT_BYTES) * BEAT_BYTES)

    def _pages(self, first: int, last: int) -> range:
        size = self._row_bytes
        return range(first * size // PAGE_BYTES, (last * size - 1) // PAGE_BYTES + 1)

    async def attend(self, layer: int, q: Float, k: Float, v: Float, position: int, *, cpu: Cpu) -> Float:
        """Attention in float32."""
        return await attend_float(self, layer, q, k, v, position, cpu=cpu)

    async def append(self, layer: int, keys: Float, values: Float) -> None:
        """Add rows; pages are got as they are needed."""
        segment, start = self.segments[layer], self._used[layer]
        rows = np.zeros((len(keys), 2, self._row_bytes // 8), "<f4")
        rows[:, 0, : self._kv_dim] = keys
        rows[:, 1, : self._kv_dim] = values
        at = segment.address + start * self._row_bytes
        await self._attempt(
            segment,
            lambda: self._pager.space.store(at, rows.tobytes()),
            pages=self._pages(start, start + len(keys)),
        )
        self._used[layer] = start + len(keys)

    async def view(self, layer: int) -> tuple[Float, Float]:
        """All rows so far."""
        segment, used = self.segments[layer], self._used[layer]
        length = used * self._row_bytes
        raw = await self._attempt(
            segment, lambda: self._pager.space.load(segment.address, length), pages=self._pages(0, used)
        )
        rows = np.frombuffer(raw, "<f4").reshape(used, 2, -1)[:, :, : self._kv_dim]
        return rows[:, 0], rows[:, 1]

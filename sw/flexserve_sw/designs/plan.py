"""What a run will do, decided and checked before anything is simulated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from ..errors import UserError
from ..llm import Checkpoint, QuantModel, check_length, quantise, read_checkpoint
from ..machine import PAGE_BYTES, WINDOW_GRANULE
from ..monitor.layout import Layout
from ..normal.pressure import RecallBy
from ..npu import Caps
from ..platforms import Platform, load_platform
from ..serving.attention import NpuAttention
from ..serving.engine import layer_pages, working_pages
from ..serving.kv import Kv
from ..serving.vault import Vault
from .design import Design, MemoryKind, find_design

__all__ = ["ARGUMENTS", "DRAM_BASE", "Plan", "check"]

DRAM_BASE = 0x8000_0000
"""Byte address at which memory begins."""

ARGUMENTS: dict[str, Any] = {
    "design": "flexserve",
    "checkpoint": None,
    "tokenizer": None,
    "prompt": "Once upon a time",
    "tokens": 24,
    "kv": "float",
    "pressure": 0,
    "recall_by": "both",
    "pressure_at": None,
    "pressure_hold": 3,
    "npu_recall_at": None,
    "seed": 1,
    "platform": None,
    "array": 16,
    "capacity": 2048,
    "dram_bytes": 16 << 20,
    "flash_bytes": 64 << 20,
    "grace": 4_000_000,
    "npu_grace": 16_000,
    "timeline": True,
}
"""Argument of the job and defaults.

``kv`` is in what keys and values are kept: ``float``; ``int8``, with the products of attention on the NPU of a design
that has one; or ``int8-cpu``, with the same products on the CPU.

``pressure`` pages are taken back when token ``pressure_at`` (default: half-way) is known, by ``recall_by`` (``size``,
``range`` or ``both``), and given up again ``pressure_hold`` tokens later; the NPU is taken back when token
``npu_recall_at`` is known. ``checkpoint``, ``tokenizer``, ``platform`` are paths, None the project's own. ``array``,
``capacity`` (pages of the filter's table), ``dram_bytes`` and ``flash_bytes`` describe the machine; ``grace`` and
``npu_grace`` are cycles. ``timeline``: whether the result carries it.
"""

_SEALED_PAGES = 4
_SLACK = 1.15
"""Room for what is allocated on the way, over what is counted below."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A checked run."""

    design: Design
    checkpoint: Checkpoint
    model: QuantModel
    platform: Platform
    layout: Layout
    prompt: tuple[int, ...]
    tokens: int
    kv: Kv
    pressure: int
    recall_by: RecallBy
    pressure_at: int
    pressure_hold: int
    npu_recall_at: int | None
    seed: int
    caps: Caps
    grace: int
    npu_grace: int
    pages: int


def _number(argument: dict[str, Any], name: str, low: int, high: int) -> int:
    value = argument[name]
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UserError(f"Option {name} must be a whole number from {low} to {high}, not {value!r}.")
    return value


@lru_cache(maxsize=4)
def _read(checkpoint: str | None, tokenizer: str | None, array: int) -> tuple[Checkpoint, QuantModel]:
    read = read_checkpoint(checkpoint, tokenizer)
    return read, quantise(read, array=array)


def check(argument: dict[str, Any]) -> Plan:
    """Check a job's argument and work out sizes.

    Raises :class:`UserError` with one sentence on the first thing wrong.
    """
    unknown = sorted(set(argument) - set(ARGUMENTS))
    if unknown:
        raise UserError(f"There is no option {unknown[0]!r}; options are {', '.join(ARGUMENTS)}.")
    argument = {**ARGUMENTS, **argument}
    design = find_design(argument["design"])
    platform = load_platform(argument["platform"])
    array = _number(argument, "array", 4, 32)
    if array not in (4, 8, 16, 32):
        raise UserError(f"The array must be 4, 8, 16 or 32 wide, not {array}.")
    tokens = _number(argument, "tokens", 1, 1 << 16)
    if not isinstance(argument["prompt"], str):
        raise UserError(f"The prompt must be text, not {argument['prompt']!r}.")
    paths = [None if argument[name] is None else str(argument[name]) for name in ("checkpoint", "tokenizer")]
    checkpoint, model = _read(paths[0], paths[1], array)
    prompt = checkpoint.tokenizer.encode(argument["prompt"])
    check_length(checkpoint.config, prompt, tokens)
    caps = Caps(n=array)
    kv = _kv(argument["kv"], caps if design.npu else None, positions=len(prompt) + tokens)
    counts = _Counts.of(model, caps, kv, rows=len(prompt), positions=len(prompt) + tokens)
    layout = _layout(argument, design, platform, counts.total)
    _check_flash(argument, model)
    try:
        recall_by = RecallBy(argument["recall_by"])
    except ValueError:
        names = ", ".join(by.value for by in RecallBy)
        raise UserError(f"Pages are recalled by {names}, not by {argument['recall_by']!r}.") from None
    pressure = _number(argument, "pressure", 0, 1 << 20)
    at = argument["pressure_at"]
    at = max(1, tokens // 2) if at is None else _number(argument, "pressure_at", 1, tokens)
    hold = _number(argument, "pressure_hold", 1, 1 << 16)
    if design.recallable:
        _check_pressure(pressure, at, counts, before=len(prompt) + at - 1, after=len(prompt) + min(at + hold, tokens))
    npu_at = argument["npu_recall_at"]
    return Plan(
        design=design,
        checkpoint=checkpoint,
        model=model,
        platform=platform,
        layout=layout,
        prompt=tuple(prompt),
        tokens=tokens,
        kv=kv,
        pressure=pressure if design.recallable else 0,
        recall_by=recall_by,
        pressure_at=at,
        pressure_hold=hold,
        npu_recall_at=None if npu_at is None else _number(argument, "npu_recall_at", 1, tokens),
        seed=_number(argument, "seed", 0, (1 << 32) - 1),
        caps=caps,
        grace=_number(argument, "grace", 1, (1 << 32) - 1),
        npu_grace=_number(argument, "npu_grace", 1, (1 << 32) - 1),
        pages=counts.total,
    )


def _kv(name: Any, caps: Caps | None, *, positions: int) -> Kv:
    """Keys and values as they are wanted; ``caps`` are of the NPU that has to attend over them, if one has."""
    try:
        kv = Kv(name)
    except ValueError:
        names = ", ".join(choice.value for choice in Kv)
        raise UserError(f"Keys and values are kept as {names}, not as {name!r}.") from None
    if kv is Kv.INT8 and caps is not None and positions > (most := NpuAttention.most_positions(caps)):
        raise UserError(
            f"The NPU attends over {most} positions at most but prompt and answer have {positions}; choose a shorter"
            f" answer or keys and values as {Kv.INT8_CPU.value}."
        )
    return kv


@dataclass(frozen=True)
class _Counts:
    """Pages that a run touches: working memory, weights, the largest segment of them, and all there are with KV.

    ``kv_pages`` tells the pages of each segment of keys and values that a layer has, for so many positions.
    """

    work: int
    weights: int
    segment: int
    total: int
    kv_pages: Callable[[int], tuple[int, ...]]
    layers: int

    @classmethod
    def of(cls, model: QuantModel, caps: Caps, kv: Kv, *, rows: int, positions: int) -> _Counts:
        """Count for a prompt of ``rows`` tokens and an answer up to ``positions``."""
        config = model.config
        work = sum(working_pages(config, caps, kv, rows=rows, positions=positions))
        segments = [-(-len(segment.payload) // PAGE_BYTES) for segment in model.segments]
        kv_pages = partial(layer_pages, config, caps, kv)
        total = work + sum(segments) + sum(kv_pages(positions)) * config.layers
        return cls(work, sum(segments), max(segments), total, kv_pages, config.layers)

    def kv(self, positions: int) -> int:
        """Pages of one layer's keys and values."""
        return sum(self.kv_pages(positions))

    def lent(self, positions: int) -> int:
        """Pages that are lent once ``positions`` positions are known; keys and values get theirs as they grow."""
        return self.work + self.weights + self.kv(positions) * self.layers

    def least(self, positions: int, slots: int) -> int:
        """The fewest pages in which the answer gets on up to ``positions``.

        Working memory stays. Beside it one thing at a time is needed whole: a segment of weights or of a layer's keys
        and values, of which those that the ``slots`` of the swap area don't hold stay too. A segment that is brought
        back keeps its slots until it is there.
        """
        largest = max(self.kv_pages(positions))
        stuck = max(0, self.kv(positions) * self.layers - max(0, slots - largest))
        return self.work + max(self.segment, largest) + stuck


def _check_pressure(pressure: int, at: int, counts: _Counts, *, before: int, after: int) -> None:
    """Whether what is lent with ``before`` positions can spare ``pressure`` pages until there are ``after``."""
    lent = counts.lent(before)
    least = counts.least(after, Vault.slots_of(_SEALED_PAGES))
    most = max(0, lent - least)
    if pressure > most:
        raise UserError(
            f"The OS can't take {pressure} pages back: at token {at} the model has {lent} pages and needs {least}"
            f" to go on; choose a pressure of at most {most}."
        )


def _layout(argument: dict[str, Any], design: Design, platform: Platform, pages: int) -> Layout:
    """Memory map with a window, or a CMA area, that has room for the model beside the other program's memory."""
    dram_bytes = _number(argument, "dram_bytes", 1 << 20, 1 << 31)
    capacity = _number(argument, "capacity", 2 * WINDOW_GRANULE, 1 << 20)
    share = platform.system.occupied_share.value
    needed = int(pages * _SLACK / (1 - share)) + _SEALED_PAGES + 32
    in_window = design.memory is not MemoryKind.CMA
    window = _groups(needed if in_window else 64)
    area = _groups(int(pages * _SLACK)) if not in_window else 64
    if window > capacity:
        raise UserError(
            f"The model needs {pages} pages, with other programs a window of {window}, but the filter's table has"
            f" {capacity}; choose a smaller model, a shorter prompt or a larger table."
        )
    # Other programs' pages that lie in the CMA area need somewhere to go.
    ordinary = _groups(int(area / (1 - share))) + 64
    if (window + area + ordinary) * PAGE_BYTES > dram_bytes:
        raise UserError(
            f"The model needs {pages} pages of memory in a machine with {dram_bytes // PAGE_BYTES}; with the OS and"
            " other programs that is too much: choose a smaller model or more memory."
        )
    return Layout(
        dram_base=DRAM_BASE, dram_bytes=dram_bytes, window_pages=window, cma_pages=area, sealed_pages=_SEALED_PAGES
    )


def _groups(pages: int) -> int:
    """Rounded up to whole granules of the window."""
    return -(-pages // WINDOW_GRANULE) * WINDOW_GRANULE


def _check_flash(argument: dict[str, Any], model: QuantModel) -> None:
    flash_bytes = _number(argument, "flash_bytes", 1 << 16, 1 << 32)
    pages = sum(-(-len(segment.payload) // PAGE_BYTES) for segment in model.segments)
    # Header, manifest and swap area come on top.
    if (pages * 2 + 1024) * PAGE_BYTES > flash_bytes:
        raise UserError(
            f"The model's image does not fit flash of {flash_bytes} bytes; choose a smaller model or more flash."
        )

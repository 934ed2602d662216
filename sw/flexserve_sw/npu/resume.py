"""What is left of a job that was stopped in the middle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from .descriptors import CHANNEL_BYTES, Caps, Descriptor, Fence, Load, Matmul, Store
from .model import tokens_of

__all__ = ["remainder"]

_Places = npt.NDArray[np.int64]


class _Live:
    """Words and rows of the NPU's memories whose present value some later descriptor reads."""

    def __init__(self, caps: Caps) -> None:
        self._caps = caps
        self._words = {
            "a": np.zeros(caps.a_words, bool),
            "w": np.zeros(caps.w_words, bool),
            "q": np.zeros(caps.q_words, bool),
        }
        self._sums = np.zeros(caps.c_rows, bool)

    @property
    def sums(self) -> bool:
        """Whether any accumulator is read later."""
        return bool(self._sums.any())

    @property
    def words(self) -> bool:
        """Whether any word of the scratchpads or parameters is read later."""
        return any(bool(memory.any()) for memory in self._words.values())

    def written_by(self, load: Load) -> bool:
        """Whether a LOAD writes a word that is read later; its words are not read from before it."""
        memory = self._words["awq"[load.space]]
        places = _grid(load.base, (load.rows, load.row_step), (self._caps.tiles(load.row_bytes), load.word_step))
        found = bool(memory[places].any())
        memory[places] = False
        return found

    def before(self, descriptor: Descriptor) -> None:
        """Go one descriptor back."""
        caps = self._caps
        match descriptor:
            case Load():
                self.written_by(descriptor)
            case Matmul(m=m):
                k_tiles, n_tiles = caps.tiles(descriptor.k), caps.tiles(descriptor.n)
                rows = _grid(descriptor.c_base, (n_tiles, descriptor.c_step), (m, 1))
                self._sums[rows] = descriptor.accumulate
                self._words["a"][_grid(descriptor.a_base, (k_tiles, descriptor.a_step), (m, 1))] = True
                weights = _grid(descriptor.w_base, (n_tiles, descriptor.w_step), (k_tiles * caps.n, 1))
                self._words["w"][weights] = True
            case Store(rows=count):
                tiles = caps.tiles(descriptor.n)
                self._sums[_grid(descriptor.c_base, (tiles, descriptor.c_step), (count, 1))] = True
                if descriptor.quantise:
                    self._words["q"][descriptor.q_base : descriptor.q_base + tiles * CHANNEL_BYTES] = True


def _grid(base: int, outer: tuple[int, int], inner: tuple[int, int]) -> _Places:
    """Places base + i * step + j * step, all of them."""
    (outer_count, outer_step), (inner_count, inner_step) = outer, inner
    steps = outer_step * np.arange(outer_count)[:, None] + inner_step * np.arange(inner_count)
    return np.asarray(base + steps.reshape(-1), dtype=np.int64)


def remainder(program: Sequence[Descriptor], kept: int, caps: Caps) -> list[Descriptor]:
    """The job that does what is left of ``program``, from an NPU that holds nothing.

    ``kept`` is the index that an ABORTED job reports: every STORE before it is in memory. The job goes on behind the
    last such STORE at which no sums are wanted any more: what scratchpads must hold there is loaded first. It begins at
    the start if there is no such place. ``program`` must be a job of its own (it reads nothing that an earlier job left
    in the NPU) and must not write where it reads from.
    """
    if not 0 <= kept <= len(program):
        raise ValueError(f"Descriptors that need no repetition must be 0 to {len(program)}, not {kept!r}")
    live = _Live(caps)
    cut = len(program)
    while cut and (cut > kept or live.sums):
        cut -= 1
        live.before(program[cut])
    if cut == 0:
        return list(program)
    loads = list(_needed(program[:cut], live))
    lead: list[Descriptor] = [*reversed(loads), Fence()] if loads else []
    return [*lead, *_without_early_waits(program, cut)]


def _needed(before: Sequence[Descriptor], live: _Live) -> Iterator[Load]:
    """LOADs, the last first, that leave what is read later; tokens are not theirs any more."""
    for descriptor in reversed(before):
        if not live.words:
            return
        if isinstance(descriptor, Load) and live.written_by(descriptor):
            yield descriptor._replace(wait_next=False, signal_next=False)


def _without_early_waits(program: Sequence[Descriptor], cut: int) -> Iterator[Descriptor]:
    """Descriptors from ``cut`` on; they do not wait for tokens that were given before it."""
    given: Counter[str | None] = Counter()
    for descriptor in program[:cut]:
        links = tokens_of(descriptor)
        given.update(links[2:])
        given.subtract(links[:2])
    given[None] = 0
    for descriptor in program[cut:]:
        early = [bool(given[link]) for link in tokens_of(descriptor)[:2]]
        given.subtract(link for link in tokens_of(descriptor)[:2] if given[link])
        yield descriptor._replace(
            wait_prev=descriptor.wait_prev and not early[0],
            wait_next=descriptor.wait_next and not early[1],
        )

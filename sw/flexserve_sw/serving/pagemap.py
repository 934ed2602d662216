"""Where the pages of a model's own address space are, and what that makes of an NPU job over it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..machine import PAGE_BYTES
from ..npu import CHANNEL_BYTES, Caps, Descriptor, Load, Store

__all__ = ["NotResident", "PageMap"]


_MOST_RANGES = 4096
"""Ranges whose pieces are remembered."""


class NotResident(Exception):
    """An address was used whose page is not in memory."""


class PageMap:
    """Maps page numbers to page frames, the first pages to ``frames``. ``epoch`` counts changes."""

    def __init__(self, frames: Sequence[int] = ()) -> None:
        self._frames = dict(enumerate(frames))
        self._changes: dict[int, int] = {}
        self._ends: dict[int, int] = {}  # ends of runs of pages that are neighbours on the bus, found in this epoch
        self._pieces: dict[tuple[int, int], list[tuple[int, int]]] = {}  # of ranges used in this epoch
        self._held: dict[tuple[int, int], int] = {}  # runs of pages that all had a frame, and in which epoch
        self.epoch = 0

    def map(self, page: int, frame: int) -> None:
        """Put a page into a frame."""
        self._change(page)
        self._frames[page] = frame

    def unmap(self, page: int) -> int:
        """Take a page out; return its frame."""
        self._change(page)
        return self._frames.pop(page)

    def _change(self, page: int) -> None:
        self.epoch += 1
        self._changes[page] = self.epoch
        self._ends.clear()
        self._pieces.clear()

    def changed(self, address: int, length: int) -> int:
        """Epoch in which a page of a range was last put somewhere else, or taken out; 0 if none ever was."""
        pages = range(address // PAGE_BYTES, (address + length - 1) // PAGE_BYTES + 1)
        return max([self._changes.get(page, 0) for page in pages])

    def frame(self, page: int) -> int | None:
        """The frame of a page, or None."""
        return self._frames.get(page)

    def frames(self, address: int, length: int) -> list[int]:
        """Frames of the pages that a range lies in. Raises :class:`NotResident`."""
        pages = range(address // PAGE_BYTES, (address + length - 1) // PAGE_BYTES + 1)
        try:
            return [self._frames[page] for page in pages]
        except KeyError as error:
            raise NotResident(f"Page {error.args[0]} is not in memory") from None

    def holds(self, first: int, count: int) -> bool:
        """Whether all of ``count`` pages from ``first`` on have a frame."""
        run = first, count
        if self._held.get(run) == self.epoch:
            return True
        if any(page not in self._frames for page in range(first, first + count)):
            return False
        self._held[run] = self.epoch
        return True

    def physical(self, address: int) -> int:
        """Byte address on the bus. Raises :class:`NotResident`."""
        page, offset = divmod(address, PAGE_BYTES)
        frame = self._frames.get(page)
        if frame is None:
            raise NotResident(f"Page {page} is not in memory")
        return frame * PAGE_BYTES + offset

    def reach(self, address: int) -> int:
        """Bytes from ``address`` on that lie one after the other on the bus."""
        page = address // PAGE_BYTES
        end = self._ends.get(page)
        if end is None:
            frame = self.physical(address) // PAGE_BYTES
            end = page + 1
            while self._frames.get(end) == frame + end - page:
                end += 1
            self._ends.update(dict.fromkeys(range(page, end), end))
        return end * PAGE_BYTES - address

    def pieces(self, address: int, length: int) -> Sequence[tuple[int, int]]:
        """Cut a range into ``(physical address, length)`` pieces that are contiguous on the bus."""
        pieces = self._pieces.get((address, length))
        if pieces is None:
            if len(self._pieces) == _MOST_RANGES:
                self._pieces.clear()
            pieces = self._pieces[address, length] = self._cut(address, length)
        return pieces

    def _cut(self, address: int, length: int) -> list[tuple[int, int]]:
        pieces = []
        while length:
            piece = min(length, self.reach(address))
            pieces.append((self.physical(address), piece))
            address, length = address + piece, length - piece
        return pieces

    def scatter(self, program: Iterable[Descriptor], caps: Caps) -> list[Descriptor]:
        """Turn a job over this address space into one over physical addresses.

        A transfer that is not contiguous on the bus becomes several. Each unit of the NPU runs its descriptors in
        order, so the first of them takes the tokens and the last gives them.
        """
        scattered: list[Descriptor] = []
        for descriptor in program:
            match descriptor:
                case Load():
                    scattered += self._loads(descriptor, caps)
                case Store():
                    scattered += self._stores(descriptor, caps)
                case _:
                    scattered.append(descriptor)
        return scattered

    def _groups(self, address: int, stride: int, rows: int, row_bytes: int) -> Iterator[tuple[int, int, int, int]]:
        """Cut rows into ``(first row, rows, offset in the row, bytes)`` that are contiguous from first to last byte."""
        row = 0
        while row < rows:
            start = address + row * stride
            left = self.reach(start)
            if left < row_bytes:
                yield from self._split(row, start, row_bytes)
                row += 1
                continue
            count = rows - row if stride == 0 else min(rows - row, (left - row_bytes) // stride + 1)
            yield row, count, 0, row_bytes
            row += count

    def _split(self, row: int, start: int, row_bytes: int) -> Iterator[tuple[int, int, int, int]]:
        offset = 0
        while offset < row_bytes:
            length = min(row_bytes - offset, self.reach(start + offset))
            yield row, 1, offset, length
            offset += length

    def _loads(self, d: Load, caps: Caps) -> Iterator[Load]:
        space, address, stride, _, _, base, row_step, word_step, wait_prev, wait_next, signal_prev, signal_next = d
        groups = list(self._groups(address, stride, d.rows, d.row_bytes))
        last = len(groups) - 1
        for i, (row, rows, offset, length) in enumerate(groups):
            if offset % caps.n:
                raise ValueError(f"Rows must be cut at words of {caps.n} bytes, not at byte {offset!r}")
            yield Load(
                space, self.physical(address + row * stride + offset), stride, rows, length,
                base + row * row_step + offset // caps.n * word_step, row_step, word_step,
                wait_prev and i == 0, wait_next and i == 0, signal_prev and i == last, signal_next and i == last,
            )  # fmt: skip

    def _stores(self, d: Store, caps: Caps) -> Iterator[Store]:
        address, stride, rows, n, c_base, c_step, quantise, relu, q_base, *tokens = d
        wait_prev, wait_next, signal_prev, signal_next = tokens
        value_bytes = 1 if quantise else 4
        groups = list(self._groups(address, stride, rows, value_bytes * n))
        last = len(groups) - 1
        for i, (row, rows, offset, length) in enumerate(groups):
            tile, cut = divmod(offset, value_bytes * caps.n)
            if cut:
                whole = value_bytes * caps.n
                raise ValueError(f"Rows must be cut at accumulator rows of {whole} bytes, not at byte {offset!r}")
            yield Store(
                self.physical(address + row * stride + offset), stride, rows, length // value_bytes,
                c_base + tile * c_step + row, c_step, quantise, relu, q_base + tile * CHANNEL_BYTES if quantise else 0,
                wait_prev and i == 0, wait_next and i == 0, signal_prev and i == last, signal_next and i == last,
            )  # fmt: skip

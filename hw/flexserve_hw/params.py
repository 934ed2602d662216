"""Parameters of every IP, checked where they are made."""

from dataclasses import dataclass, field

from .bus.axi4 import NSAID_WIDTH, PAGE_BYTES, AXI4Signature

__all__ = ["BusParams", "FlexMemParams", "NpuParams", "SocParams", "Nsaid", "DRAM_BASE", "NPU_BUS_WIDTHS"]

DRAM_BASE = 0x8000_0000
"""Byte address at which memory begins; everything below is registers or nothing."""

NPU_BUS_WIDTHS = (32, 64, 128)
"""Data bits that the bus of an NPU can have."""


class Nsaid:
    """NSAIDs that the SoC hands to its masters."""

    CPU = 0
    NPU = 1
    STORAGE = 2
    HOSTILE = 3


def _power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


@dataclass(frozen=True, kw_only=True)
class BusParams:
    """Widths of an AXI4 port in bits."""

    addr_width: int = 32
    data_width: int = 128
    id_width: int = 6

    @property
    def axi4(self) -> AXI4Signature:
        """The port's signature, as the master sees it."""
        return AXI4Signature(addr_width=self.addr_width, data_width=self.data_width, id_width=self.id_width)


@dataclass(frozen=True, kw_only=True)
class FlexMemParams:
    """Flex-Mem filter.

    ``pages`` is the capacity of the page-state table; ``group`` the pages of a table
    word, which a command checks or applies per cycle and which the window is a multiple of; ``timers`` the
    grace periods that can run at once; ``freed_depth`` the entries of the freed-page queue; ``outstanding`` the
    accepted transactions per direction and AXI ID; ``grace_min`` and ``grace_max`` bound the grace period in cycles;
    ``scrub_share`` is n in "the scrubber gets at least one of n write slots under load"; ``scrub_beats`` the beats of a
    scrub burst, short because other writers wait for its end; ``scrub_slots`` the pages it has in work at once, one
    whose bursts go out and others that wait for their answers; ``bursts_ahead`` the writes whose addresses may go ahead
    of their data; ``denied_depth`` the denied reads that may wait for their answers, ``denied_writes`` the denied
    writes that may wait for their data or answers, by default as many as ``bursts_ahead``, so as not to bound those.

    ``cache_lines`` None: the page-state table is on chip. Else it lies in memory, and so many words of it are cached.
    """

    bus: BusParams = field(default_factory=BusParams)
    pages: int = 2048
    group: int = 64
    timers: int = 4
    freed_depth: int = 64
    outstanding: int = 31
    grace_min: int = 1_000
    grace_max: int = 10_000_000
    scrub_share: int = 8
    scrub_beats: int = 16
    scrub_slots: int = 4
    bursts_ahead: int = 16
    denied_depth: int = 4
    denied_writes: int = 16
    cache_lines: int | None = None

    def __post_init__(self) -> None:
        if not _power_of_two(self.group):
            raise ValueError(f"Pages per cycle must be a power of two, not {self.group!r}")
        if not _power_of_two(self.pages) or self.pages < 2 * self.group:
            raise ValueError(
                f"Table capacity must be a power of two of at least {2 * self.group} pages, not {self.pages!r}"
            )
        words = self.pages // self.group
        if self.cache_lines is not None and not (_power_of_two(self.cache_lines) and self.cache_lines < words):
            raise ValueError(
                f"Cached table words must be a power of two below the table's {words}, not {self.cache_lines!r}"
            )
        if not 1 <= self.timers <= 4:
            raise ValueError(f"Recall timers must be 1 to 4, not {self.timers!r}")
        if not 1 <= self.outstanding <= 255:
            raise ValueError(f"Outstanding transactions per ID must be 1 to 255, not {self.outstanding!r}")
        if not 2 <= self.freed_depth < 1 << 16:
            raise ValueError(f"Freed-page queue must have 2 to 65535 entries, not {self.freed_depth!r}")
        if self.scrub_share < 1:
            raise ValueError(f"Scrubber's share must be one of at least 1 slots, not {self.scrub_share!r}")
        beats = PAGE_BYTES * 8 // self.bus.data_width
        if not _power_of_two(self.scrub_beats) or self.scrub_beats > min(256, beats):
            raise ValueError(
                f"Beats of a scrub burst must be a power of two of at most {min(256, beats)}, not {self.scrub_beats!r}"
            )
        if not 1 <= self.scrub_slots <= 1 << self.bus.id_width:
            raise ValueError(f"Pages being scrubbed at once must be 1 to one per ID, not {self.scrub_slots!r}")
        if self.bursts_ahead < 2:
            raise ValueError(f"Writes ahead of their data must be at least 2, not {self.bursts_ahead!r}")
        if self.denied_depth < 1:
            raise ValueError(f"Denied reads that wait must be at least 1, not {self.denied_depth!r}")
        if self.denied_writes < 1:
            raise ValueError(f"Denied writes that wait must be at least 1, not {self.denied_writes!r}")
        if not 1 <= self.grace_min <= self.grace_max < 1 << 32:
            raise ValueError(
                f"Grace limits must satisfy 1 <= min <= max < 2**32, not {(self.grace_min, self.grace_max)!r}"
            )

    @property
    def grace_width(self) -> int:
        """Bits of a grace period in cycles."""
        return self.grace_max.bit_length()


@dataclass(frozen=True, kw_only=True)
class NpuParams:
    """Flex-NPU: array size N and the depths of its memories in words of N bytes (accumulators: rows of N int32).

    ``q_words`` holds eight bytes of requantisation parameters per output channel.
    """

    n: int = 16
    bus: BusParams = field(default_factory=lambda: BusParams(id_width=3))
    a_words: int = 4096
    w_words: int = 4096
    c_rows: int = 2048
    q_words: int = 1024
    queue_depth: int = 4

    def __post_init__(self) -> None:
        if self.n not in (4, 8, 16, 32):
            raise ValueError(f"Array size must be 4, 8, 16 or 32, not {self.n!r}")
        for name in ("a_words", "w_words", "c_rows"):
            value = getattr(self, name)
            if not _power_of_two(value) or not 2 * self.n <= value <= 65536:
                raise ValueError(f"Depth {name} must be a power of two from 2 N to 65536, not {value!r}")
        if not _power_of_two(self.q_words) or not 8 <= self.q_words <= 65536:
            raise ValueError(f"Depth q_words must be a power of two from 8 to 65536, not {self.q_words!r}")
        if not 1 <= self.queue_depth <= 15:
            raise ValueError(f"Job queue must hold 1 to 15 jobs, not {self.queue_depth!r}")


@dataclass(frozen=True, kw_only=True)
class SocParams:
    """The whole SoC. Master ports carry ``NpuParams.bus`` widths; the filter's IDs are three bits wider.

    ``bypass`` leads every access past the filter: for measuring what it costs, and nothing is protected.
    """

    flex: FlexMemParams = field(default_factory=FlexMemParams)
    npu: NpuParams = field(default_factory=NpuParams)
    dram_bytes: int = 16 << 20
    bypass: bool = False

    def __post_init__(self) -> None:
        master, memory = self.npu.bus, self.flex.bus
        if (master.addr_width, master.data_width, master.id_width + 3) != (
            memory.addr_width,
            memory.data_width,
            memory.id_width,
        ):
            raise ValueError(f"Filter port must be the master port with three more ID bits, not {memory!r}")
        if (
            self.dram_bytes % 4096
            or not self.flex.pages * 4096 <= self.dram_bytes <= (1 << memory.addr_width) - DRAM_BASE
        ):
            raise ValueError(
                f"Memory must be whole pages, hold the table's window and fit the map, not {self.dram_bytes!r} bytes"
            )

    @property
    def nsaid_width(self) -> int:
        """Bits of an NSAID."""
        return NSAID_WIDTH

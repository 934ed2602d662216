"""Registers, descriptors and code words. Generated from the SystemRDL sources by ``make regs``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, TypeVar


class Field:
    """Bits ``lsb`` to ``lsb + width - 1`` of a 32-bit register or descriptor word."""

    __slots__ = ("_end", "_mask", "lsb", "width")

    def __init__(self, lsb: int, width: int) -> None:
        self.lsb, self.width = lsb, width
        self._end = 1 << width
        self._mask = self._end - 1

    def get(self, word: int) -> int:
        """Value of the field in ``word``."""
        return word >> self.lsb & self._mask

    def put(self, value: int) -> int:
        """``value`` shifted into place; ``ValueError`` if it does not fit."""
        if not 0 <= value < self._end:
            raise ValueError(f"Field value must fit {self.width} bits, not {value!r}")
        return value << self.lsb


@dataclass(frozen=True)
class Block:
    """A group of registers at byte address ``base``."""

    base: int


class Reg:
    """Offset in a block; on an instance, the register's byte address, which the instance keeps."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self._name = ""

    def __set_name__(self, owner: type[Block], name: str) -> None:
        self._name = name

    def __get__(self, block: Block, owner: type[Block]) -> int:
        address: int = block.__dict__.setdefault(self._name, block.base + self.offset)
        return address


B = TypeVar("B", bound=Block)


class Sub(Generic[B]):
    """A block within a block; on an instance, that block, which the instance keeps."""

    def __init__(self, offset: int, kind: type[B]) -> None:
        self.offset = offset
        self.kind = kind
        self._name = ""

    def __set_name__(self, owner: type[Block], name: str) -> None:
        self._name = name

    def __get__(self, block: Block, owner: type[Block]) -> B:
        part: B = block.__dict__.setdefault(self._name, self.kind(block.base + self.offset))
        return part


class Subs(Generic[B]):
    """An array of blocks within a block; on an instance, the tuple of them."""

    def __init__(self, offset: int, kind: type[B], count: int, step: int) -> None:
        self.offset, self.kind, self.count, self.step = offset, kind, count, step

    def __get__(self, block: Block, owner: type[Block]) -> tuple[B, ...]:
        return tuple(self.kind(block.base + self.offset + i * self.step) for i in range(self.count))


class RecallCommand(IntEnum):
    """Code words of ``recall_command``."""

    NONE = 0
    """No command."""
    DELEGATE = 1
    """Normal world: NORMAL to DELEGATED."""
    ACCEPT = 2
    """Secure world: DELEGATED to FLEX."""
    RECALL = 3
    """Normal world: FLEX to RECALLING; starts the grace period."""
    RELEASE = 4
    """Secure world: FLEX or RECALLING to SCRUBBING."""
    CANCEL = 5
    """Normal world: DELEGATED back to NORMAL."""
    SEAL = 6
    """Secure world, until locked: NORMAL or FLEX to SEALED."""


class RecallResult(IntEnum):
    """Code words of ``recall_result``."""

    OK = 0
    """Applied to every page of the range."""
    BAD_STATE = 1
    """A page is not in a state the command starts from."""
    OUT_OF_WINDOW = 2
    """A page lies outside the flexible window, or the range is empty or wraps."""
    NOT_PERMITTED = 3
    """The command belongs to the other world, or configuration is locked."""
    NO_SLOT = 4
    """Every recall timer is in use, or one already runs over part of the range; try again when it has ended."""
    BAD_TICKET = 5
    """The ticket is not the one of the present lending."""
    BAD_COMMAND = 6
    """The command code is not assigned."""
    CORRUPT_STATE = 7
    """A stored state of the range failed its check."""


class RecallState(IntEnum):
    """Code words of ``recall_state``."""

    NORMAL = 0
    """The normal world reads and writes; secure accesses are denied."""
    DELEGATED = 1
    """Lent but not yet accepted: nobody has access."""
    FLEX = 2
    """Lent and accepted: the secure world alone has access."""
    RECALLING = 3
    """Asked back: the secure world has access until it releases or the grace period ends."""
    SCRUBBING = 4
    """Being zeroed by hardware: nobody has access."""
    SEALED = 5
    """Secure for good, until reset: never recallable."""
    CORRUPT = 7
    """The stored state is not a legal code word: nobody has access and an alarm is raised."""


class NpuFault(IntEnum):
    """Code words of ``npu_fault``."""

    NONE = 0
    """No fault."""
    BAD_DESCRIPTOR = 1
    """Unassigned operation, zero size, misaligned address, dependence bit towards no unit, or an empty list."""
    SCRATCHPAD_RANGE = 2
    """A descriptor reaches past a scratchpad or the accumulators."""
    BUS_ERROR = 3
    """SLVERR or DECERR on a data transfer, denied pages included."""
    FETCH_ERROR = 4
    """SLVERR or DECERR on a descriptor fetch, or a list that reaches past the end of the address space."""
    BAD_TICKET = 5
    """The job's ticket is not the present one; nothing was run."""
    ABORTED = 6
    """Stopped by CONTROL.abort or because the NPU changes hands; FAULT.index tells what is done."""
    QUEUE_OVERFLOW = 7
    """Doorbell with a full queue; the job was not taken."""


class NpuOp(IntEnum):
    """Code words of ``npu_op``."""

    FENCE = 1
    """Later descriptors start when every earlier one is finished and its writes are answered."""
    LOAD = 2
    """Memory to scratchpad."""
    MATMUL = 3
    """Scratchpads to accumulators."""
    STORE = 4
    """Accumulators to memory."""


class NpuSpace(IntEnum):
    """Code words of ``npu_space``."""

    ACTIVATIONS = 0
    """Activation scratchpad."""
    WEIGHTS = 1
    """Weight scratchpad."""
    PARAMETERS = 2
    """Requantisation parameters."""


class Tzc400Region(Block):
    """One REGION of Region control, TZC-400 programmer's view."""

    BASE_LOW = Reg(0x000)
    BASE_LOW__ADDRESS = Field(12, 20)
    BASE_HIGH = Reg(0x004)
    BASE_HIGH__ADDRESS = Field(0, 32)
    TOP_LOW = Reg(0x008)
    TOP_LOW__ONES = Field(0, 12)
    TOP_LOW__ADDRESS = Field(12, 20)
    TOP_HIGH = Reg(0x00C)
    TOP_HIGH__ADDRESS = Field(0, 32)
    ATTRIBUTES = Reg(0x010)
    ATTRIBUTES__FILTER_EN = Field(0, 1)
    ATTRIBUTES__S_RD_EN = Field(30, 1)
    ATTRIBUTES__S_WR_EN = Field(31, 1)
    ID_ACCESS = Reg(0x014)
    ID_ACCESS__NSAID_RD_EN = Field(0, 16)
    ID_ACCESS__NSAID_WR_EN = Field(16, 16)


class Tzc400(Block):
    """Region control, TZC-400 programmer's view."""

    BUILD_CONFIG = Reg(0x000)
    BUILD_CONFIG__REGIONS = Field(0, 5)
    BUILD_CONFIG__ADDRESS_WIDTH = Field(8, 6)
    BUILD_CONFIG__FILTERS = Field(24, 2)
    ACTION = Reg(0x004)
    ACTION__REACTION = Field(0, 2)
    GATE_KEEPER = Reg(0x008)
    GATE_KEEPER__REQUEST = Field(0, 1)
    GATE_KEEPER__STATUS = Field(16, 1)
    SPECULATION_CTRL = Reg(0x00C)
    SPECULATION_CTRL__READ_DISABLE = Field(0, 1)
    SPECULATION_CTRL__WRITE_DISABLE = Field(1, 1)
    INT_STATUS = Reg(0x010)
    INT_STATUS__STATUS = Field(0, 1)
    INT_STATUS__OVERRUN = Field(8, 1)
    INT_STATUS__OVERLAP = Field(16, 1)
    INT_CLEAR = Reg(0x014)
    INT_CLEAR__CLEAR = Field(0, 1)
    FAIL_ADDRESS_LOW = Reg(0x020)
    FAIL_ADDRESS_LOW__ADDRESS = Field(0, 32)
    FAIL_ADDRESS_HIGH = Reg(0x024)
    FAIL_ADDRESS_HIGH__ADDRESS = Field(0, 32)
    FAIL_CONTROL = Reg(0x028)
    FAIL_CONTROL__PRIVILEGED = Field(20, 1)
    FAIL_CONTROL__NON_SECURE = Field(21, 1)
    FAIL_CONTROL__WRITE = Field(24, 1)
    FAIL_ID = Reg(0x02C)
    FAIL_ID__ID = Field(0, 16)
    FAIL_ID__VNET = Field(24, 4)
    REGION = Subs(0x100, Tzc400Region, 9, 0x20)
    PID4 = Reg(0xFD0)
    PID4__VALUE = Field(0, 8)
    PID0 = Reg(0xFE0)
    PID0__VALUE = Field(0, 8)
    PID1 = Reg(0xFE4)
    PID1__VALUE = Field(0, 8)
    PID2 = Reg(0xFE8)
    PID2__VALUE = Field(0, 8)
    PID3 = Reg(0xFEC)
    PID3__VALUE = Field(0, 8)
    CID0 = Reg(0xFF0)
    CID0__VALUE = Field(0, 8)
    CID1 = Reg(0xFF4)
    CID1__VALUE = Field(0, 8)
    CID2 = Reg(0xFF8)
    CID2__VALUE = Field(0, 8)
    CID3 = Reg(0xFFC)
    CID3__VALUE = Field(0, 8)


class RecallCommandPort(Block):
    """Command port of the recall protocol."""

    FIRST = Reg(0x000)
    FIRST__VALUE = Field(0, 32)
    COUNT = Reg(0x004)
    COUNT__VALUE = Field(0, 32)
    TICKET = Reg(0x008)
    TICKET__VALUE = Field(0, 32)
    COMMAND = Reg(0x00C)
    COMMAND__CODE = Field(0, 4)
    STATUS = Reg(0x010)
    STATUS__BUSY = Field(0, 1)
    STATUS__RESULT = Field(4, 4)
    OFFENDER = Reg(0x014)
    OFFENDER__VALUE = Field(0, 32)


class FlexmemNormal(Block):
    """Flex-Mem, normal-world frame."""

    ID = Reg(0x000)
    ID__VALUE = Field(0, 32)
    CAPACITY = Reg(0x004)
    CAPACITY__PAGES = Field(0, 32)
    WINDOW_BASE = Reg(0x008)
    WINDOW_BASE__PFN = Field(0, 32)
    WINDOW_PAGES = Reg(0x00C)
    WINDOW_PAGES__PAGES = Field(0, 32)
    GRACE = Reg(0x010)
    GRACE__CYCLES = Field(0, 32)
    CMD = Sub(0x020, RecallCommandPort)
    QUERY_PAGE = Reg(0x040)
    QUERY_PAGE__PFN = Field(0, 32)
    QUERY_STATE = Reg(0x044)
    QUERY_STATE__STATE = Field(0, 3)
    QUERY_STATE__VALID = Field(8, 1)
    SIZE_REQUEST = Reg(0x050)
    SIZE_REQUEST__PAGES = Field(0, 32)
    FREED_COUNT = Reg(0x054)
    FREED_COUNT__COUNT = Field(0, 16)
    FREED_POP = Reg(0x058)
    FREED_POP__PFN = Field(0, 31)
    FREED_POP__VALID = Field(31, 1)
    LENT = Reg(0x05C)
    LENT__LENT = Field(0, 32)
    SCRUB_BACKLOG = Reg(0x060)
    SCRUB_BACKLOG__PAGES = Field(0, 32)
    IRQ_STATUS = Reg(0x070)
    IRQ_STATUS__COMMAND = Field(0, 1)
    IRQ_STATUS__FREED = Field(1, 1)
    IRQ_STATUS__SIZE_PAID = Field(2, 1)
    IRQ_ENABLE = Reg(0x074)
    IRQ_ENABLE__COMMAND = Field(0, 1)
    IRQ_ENABLE__FREED = Field(1, 1)
    IRQ_ENABLE__SIZE_PAID = Field(2, 1)


class FlexmemSecureTimer(Block):
    """One TIMER of Flex-Mem, secure-world frame."""

    FIRST = Reg(0x000)
    FIRST__PFN = Field(0, 32)
    COUNT = Reg(0x004)
    COUNT__PAGES = Field(0, 32)
    LEFT = Reg(0x008)
    LEFT__CYCLES = Field(0, 32)


class FlexmemSecure(Block):
    """Flex-Mem, secure-world frame."""

    ID = Reg(0x000)
    ID__VALUE = Field(0, 32)
    CAPACITY = Reg(0x004)
    CAPACITY__PAGES = Field(0, 32)
    WINDOW_BASE = Reg(0x008)
    WINDOW_BASE__PFN = Field(0, 32)
    WINDOW_PAGES = Reg(0x00C)
    WINDOW_PAGES__PAGES = Field(0, 32)
    GRACE = Reg(0x010)
    GRACE__CYCLES = Field(0, 32)
    CONTROL = Reg(0x014)
    CONTROL__LOCK = Field(0, 1)
    CONTROL__ENABLE = Field(1, 1)
    CONTROL__READY = Field(2, 1)
    MANAGERS = Reg(0x018)
    MANAGERS__NSAIDS = Field(0, 16)
    TABLE_BASE = Reg(0x01C)
    TABLE_BASE__PFN = Field(0, 32)
    CMD = Sub(0x020, RecallCommandPort)
    QUERY_PAGE = Reg(0x040)
    QUERY_PAGE__PFN = Field(0, 32)
    QUERY_STATE = Reg(0x044)
    QUERY_STATE__STATE = Field(0, 3)
    QUERY_STATE__VALID = Field(8, 1)
    SIZE_OWED = Reg(0x050)
    SIZE_OWED__PAGES = Field(0, 32)
    ALARM = Reg(0x058)
    ALARM__CORRUPT = Field(0, 1)
    ALARM_PAGE = Reg(0x05C)
    ALARM_PAGE__PFN = Field(0, 32)
    VIOLATIONS = Reg(0x060)
    VIOLATIONS__COUNT = Field(0, 32)
    TABLE_PAGES = Reg(0x064)
    TABLE_PAGES__PAGES = Field(0, 32)
    IRQ_STATUS = Reg(0x070)
    IRQ_STATUS__COMMAND = Field(0, 1)
    IRQ_STATUS__SIZE_REQUEST = Field(1, 1)
    IRQ_STATUS__RECALL = Field(2, 1)
    IRQ_STATUS__EXPIRED = Field(3, 1)
    IRQ_STATUS__CORRUPT = Field(4, 1)
    IRQ_ENABLE = Reg(0x074)
    IRQ_ENABLE__COMMAND = Field(0, 1)
    IRQ_ENABLE__SIZE_REQUEST = Field(1, 1)
    IRQ_ENABLE__RECALL = Field(2, 1)
    IRQ_ENABLE__EXPIRED = Field(3, 1)
    IRQ_ENABLE__CORRUPT = Field(4, 1)
    TIMER = Subs(0x080, FlexmemSecureTimer, 4, 0x10)


class NpuFrame(Block):
    """Flex-NPU command frame."""

    ID = Reg(0x000)
    ID__VALUE = Field(0, 32)
    CAPS = Reg(0x004)
    CAPS__ARRAY = Field(0, 6)
    CAPS__LOG2_A = Field(6, 5)
    CAPS__LOG2_W = Field(11, 5)
    CAPS__LOG2_C = Field(16, 5)
    CAPS__LOG2_Q = Field(21, 5)
    STATUS = Reg(0x008)
    STATUS__LIVE = Field(0, 1)
    STATUS__BUSY = Field(1, 1)
    STATUS__FREE = Field(8, 4)
    CONTROL = Reg(0x00C)
    CONTROL__ABORT = Field(0, 1)
    JOB_ADDR_LO = Reg(0x010)
    JOB_ADDR_LO__VALUE = Field(0, 32)
    JOB_ADDR_HI = Reg(0x014)
    JOB_ADDR_HI__VALUE = Field(0, 32)
    JOB_COUNT = Reg(0x018)
    JOB_COUNT__VALUE = Field(0, 16)
    JOB_TICKET = Reg(0x01C)
    JOB_TICKET__VALUE = Field(0, 32)
    DOORBELL = Reg(0x020)
    DOORBELL__TAG = Field(0, 16)
    DONE_COUNT = Reg(0x024)
    DONE_COUNT__COUNT = Field(0, 32)
    DONE_TAG = Reg(0x028)
    DONE_TAG__TAG = Field(0, 16)
    FAULT = Reg(0x02C)
    FAULT__CODE = Field(0, 4)
    FAULT__INDEX = Field(16, 16)
    FAULT_ADDR_LO = Reg(0x030)
    FAULT_ADDR_LO__VALUE = Field(0, 32)
    FAULT_ADDR_HI = Reg(0x034)
    FAULT_ADDR_HI__VALUE = Field(0, 32)
    PERF_BUSY = Reg(0x040)
    PERF_BUSY__VALUE = Field(0, 32)
    PERF_ROWS = Reg(0x044)
    PERF_ROWS__VALUE = Field(0, 32)
    PERF_READ = Reg(0x048)
    PERF_READ__VALUE = Field(0, 32)
    PERF_WRITE = Reg(0x04C)
    PERF_WRITE__VALUE = Field(0, 32)
    IRQ_STATUS = Reg(0x070)
    IRQ_STATUS__DONE = Field(0, 1)
    IRQ_STATUS__FAULT = Field(1, 1)
    IRQ_ENABLE = Reg(0x074)
    IRQ_ENABLE__DONE = Field(0, 1)
    IRQ_ENABLE__FAULT = Field(1, 1)


class GateNormal(Block):
    """NPU gate, normal-world frame."""

    ID = Reg(0x000)
    ID__VALUE = Field(0, 32)
    STATE = Reg(0x004)
    STATE__STATE = Field(0, 3)
    TICKET = Reg(0x008)
    TICKET__VALUE = Field(0, 32)
    GRACE = Reg(0x010)
    GRACE__CYCLES = Field(0, 32)
    CMD = Sub(0x020, RecallCommandPort)
    IRQ_STATUS = Reg(0x070)
    IRQ_STATUS__COMMAND = Field(0, 1)
    IRQ_STATUS__RETURNED = Field(1, 1)
    IRQ_ENABLE = Reg(0x074)
    IRQ_ENABLE__COMMAND = Field(0, 1)
    IRQ_ENABLE__RETURNED = Field(1, 1)


class GateSecure(Block):
    """NPU gate, secure-world frame."""

    ID = Reg(0x000)
    ID__VALUE = Field(0, 32)
    STATE = Reg(0x004)
    STATE__STATE = Field(0, 3)
    TICKET = Reg(0x008)
    TICKET__VALUE = Field(0, 32)
    GRACE = Reg(0x010)
    GRACE__CYCLES = Field(0, 32)
    CONTROL = Reg(0x014)
    CONTROL__LOCK = Field(0, 1)
    MANAGERS = Reg(0x018)
    MANAGERS__NSAIDS = Field(0, 16)
    CMD = Sub(0x020, RecallCommandPort)
    ALARM = Reg(0x058)
    ALARM__CORRUPT = Field(0, 1)
    IRQ_STATUS = Reg(0x070)
    IRQ_STATUS__COMMAND = Field(0, 1)
    IRQ_STATUS__DELEGATED = Field(1, 1)
    IRQ_STATUS__RECALL = Field(2, 1)
    IRQ_STATUS__EXPIRED = Field(3, 1)
    IRQ_STATUS__CORRUPT = Field(4, 1)
    IRQ_ENABLE = Reg(0x074)
    IRQ_ENABLE__COMMAND = Field(0, 1)
    IRQ_ENABLE__DELEGATED = Field(1, 1)
    IRQ_ENABLE__RECALL = Field(2, 1)
    IRQ_ENABLE__EXPIRED = Field(3, 1)
    IRQ_ENABLE__CORRUPT = Field(4, 1)


class Storage(Block):
    """Storage DMA."""

    ID = Reg(0x000)
    ID__VALUE = Field(0, 32)
    STATUS = Reg(0x004)
    STATUS__BUSY = Field(0, 1)
    STATUS__ERROR = Field(1, 1)
    FLASH_OFFSET = Reg(0x008)
    FLASH_OFFSET__VALUE = Field(0, 32)
    MEM_ADDR_LO = Reg(0x00C)
    MEM_ADDR_LO__VALUE = Field(0, 32)
    MEM_ADDR_HI = Reg(0x010)
    MEM_ADDR_HI__VALUE = Field(0, 32)
    LENGTH = Reg(0x014)
    LENGTH__VALUE = Field(0, 32)
    COMMAND = Reg(0x018)
    COMMAND__TO_FLASH = Field(0, 1)
    IRQ_STATUS = Reg(0x070)
    IRQ_STATUS__DONE = Field(0, 1)
    IRQ_ENABLE = Reg(0x074)
    IRQ_ENABLE__DONE = Field(0, 1)


class NpuDependence(Block):
    """First word of a descriptor."""

    HEAD = Reg(0x000)
    HEAD__OP = Field(0, 4)
    HEAD__WAIT_PREV = Field(4, 1)
    HEAD__WAIT_NEXT = Field(5, 1)
    HEAD__SIGNAL_PREV = Field(6, 1)
    HEAD__SIGNAL_NEXT = Field(7, 1)
    HEAD__SPACE = Field(8, 2)
    HEAD__ACCUMULATE = Field(10, 1)
    HEAD__QUANTISE = Field(11, 1)
    HEAD__RELU = Field(12, 1)


class NpuDescriptorLoad(Block):
    """LOAD descriptor."""

    HEAD = Sub(0x000, NpuDependence)
    ADDRESS_LO = Reg(0x004)
    ADDRESS_LO__VALUE = Field(0, 32)
    ADDRESS_HI = Reg(0x008)
    ADDRESS_HI__VALUE = Field(0, 32)
    STRIDE = Reg(0x00C)
    STRIDE__VALUE = Field(0, 32)
    SIZE = Reg(0x010)
    SIZE__ROWS = Field(0, 16)
    SIZE__ROW_BYTES = Field(16, 16)
    PLACE = Reg(0x014)
    PLACE__BASE = Field(0, 16)
    PLACE__ROW_STEP = Field(16, 16)
    STEP = Reg(0x018)
    STEP__WORD_STEP = Field(0, 16)
    RESERVED = Reg(0x01C)
    RESERVED__VALUE = Field(0, 32)
    SIZE_BYTES = 32


class NpuDescriptorMatmul(Block):
    """MATMUL descriptor."""

    HEAD = Sub(0x000, NpuDependence)
    SIZE_MK = Reg(0x004)
    SIZE_MK__M = Field(0, 16)
    SIZE_MK__K = Field(16, 16)
    SIZE_N = Reg(0x008)
    SIZE_N__N = Field(0, 16)
    A = Reg(0x00C)
    A__BASE = Field(0, 16)
    A__STEP = Field(16, 16)
    W = Reg(0x010)
    W__BASE = Field(0, 16)
    W__STEP = Field(16, 16)
    C = Reg(0x014)
    C__BASE = Field(0, 16)
    C__STEP = Field(16, 16)
    RESERVED0 = Reg(0x018)
    RESERVED0__VALUE = Field(0, 32)
    RESERVED1 = Reg(0x01C)
    RESERVED1__VALUE = Field(0, 32)
    SIZE_BYTES = 32


class NpuDescriptorStore(Block):
    """STORE descriptor."""

    HEAD = Sub(0x000, NpuDependence)
    ADDRESS_LO = Reg(0x004)
    ADDRESS_LO__VALUE = Field(0, 32)
    ADDRESS_HI = Reg(0x008)
    ADDRESS_HI__VALUE = Field(0, 32)
    STRIDE = Reg(0x00C)
    STRIDE__VALUE = Field(0, 32)
    SIZE = Reg(0x010)
    SIZE__ROWS = Field(0, 16)
    SIZE__N = Field(16, 16)
    C = Reg(0x014)
    C__BASE = Field(0, 16)
    C__STEP = Field(16, 16)
    Q = Reg(0x018)
    Q__BASE = Field(0, 16)
    RESERVED = Reg(0x01C)
    RESERVED__VALUE = Field(0, 32)
    SIZE_BYTES = 32


TZC = Tzc400(0x00010000)
FLEX_NORMAL = FlexmemNormal(0x00020000)
FLEX_SECURE = FlexmemSecure(0x00030000)
NPU_NORMAL = NpuFrame(0x00040000)
NPU_SECURE = NpuFrame(0x00050000)
GATE_NORMAL = GateNormal(0x00060000)
GATE_SECURE = GateSecure(0x00070000)
STORAGE = Storage(0x00080000)

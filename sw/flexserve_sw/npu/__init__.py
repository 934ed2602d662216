"""Flex-NPU as software sees it: descriptors, weight packing, the golden executor and programs for whole GEMMs."""

from .descriptors import (
    CHANNEL_BYTES,
    DESCRIPTOR_BYTES,
    Caps,
    Descriptor,
    Fence,
    Load,
    Matmul,
    Store,
    decode,
    encode_program,
    pack_parameters,
    pack_weights,
)
from .model import NpuFaulted, NpuStalled, NpuState, check, execute, perform, requantise, run_job, stalls
from .program import Gemm, Requantise, gemm_program, packed_program, single_program
from .resume import remainder
from .timing import JobTimes, job_bursts, job_cycles, job_times

__all__ = [
    "CHANNEL_BYTES",
    "DESCRIPTOR_BYTES",
    "Caps",
    "Descriptor",
    "Fence",
    "Gemm",
    "JobTimes",
    "Load",
    "Matmul",
    "NpuFaulted",
    "NpuStalled",
    "NpuState",
    "Requantise",
    "Store",
    "check",
    "decode",
    "encode_program",
    "execute",
    "gemm_program",
    "job_bursts",
    "job_cycles",
    "job_times",
    "pack_parameters",
    "pack_weights",
    "packed_program",
    "perform",
    "remainder",
    "requantise",
    "run_job",
    "single_program",
    "stalls",
]

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
from .model import NpuFaulted, NpuStalled, NpuState, check, execute, requantise, run_job
from .program import Gemm, Requantise, gemm_program, packed_program
from .resume import remainder
from .timing import job_cycles

__all__ = [
    "CHANNEL_BYTES",
    "DESCRIPTOR_BYTES",
    "Caps",
    "Descriptor",
    "Fence",
    "Gemm",
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
    "job_cycles",
    "pack_parameters",
    "pack_weights",
    "packed_program",
    "remainder",
    "requantise",
    "run_job",
]

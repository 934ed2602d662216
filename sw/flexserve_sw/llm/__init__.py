"""Language models: checkpoint readers, tokenizer, int8 quantisation, the forward pass and its references."""

from .attention import Int8KvCache, KvArithmetic
from .checkpoint import Checkpoint
from .config import ModelConfig
from .image import ImageTensors, QuantModel, Segment, Tensor, TensorKind, quantise
from .load import default_checkpoint, held_out_text, read_checkpoint
from .model import (
    Cache,
    Cpu,
    FreeCpu,
    QuantTensors,
    QuantWeights,
    Sampler,
    Weights,
    Work,
    check_length,
    drive,
    forward,
    generate,
    greedy,
)
from .reference import Completion, FloatWeights, KvCache, complete, perplexity, reference_cache, reference_weights
from .tokenizer import Tokenizer, read_llama2c_tokenizer

__all__ = [
    "Cache",
    "Checkpoint",
    "Completion",
    "Cpu",
    "FloatWeights",
    "FreeCpu",
    "ImageTensors",
    "Int8KvCache",
    "KvArithmetic",
    "KvCache",
    "ModelConfig",
    "QuantModel",
    "QuantTensors",
    "QuantWeights",
    "Sampler",
    "Segment",
    "Tensor",
    "TensorKind",
    "Tokenizer",
    "Weights",
    "Work",
    "check_length",
    "complete",
    "default_checkpoint",
    "drive",
    "forward",
    "generate",
    "greedy",
    "held_out_text",
    "perplexity",
    "quantise",
    "read_checkpoint",
    "read_llama2c_tokenizer",
    "reference_cache",
    "reference_weights",
]

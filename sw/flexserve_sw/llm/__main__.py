"""`python -m flexserve_sw.llm`: how good a checkpoint is in each arithmetic, without any machine."""

from __future__ import annotations

import argparse
import sys

from ..errors import UserError
from .attention import KvArithmetic
from .image import quantise
from .load import held_out_text, read_checkpoint
from .reference import Arithmetic, complete, perplexity

KINDS: tuple[tuple[Arithmetic, KvArithmetic], ...] = (("float32", "float"), ("int8", "float"), ("int8", "int8"))
"""Of weights and activations, and of keys, values and attention."""


def main() -> int:
    """Print sizes, perplexity on the held-out stories and an answer; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m flexserve_sw.llm", description=__doc__)
    parser.add_argument("--checkpoint", help="model file or directory; the embedded one if left out")
    parser.add_argument("--tokenizer", help="llama2.c tokenizer file")
    parser.add_argument("--prompt", default="Once upon a time")
    parser.add_argument("--tokens", type=int, default=80)
    arguments = parser.parse_args()
    try:
        checkpoint = read_checkpoint(arguments.checkpoint, arguments.tokenizer)
        config = checkpoint.config
        print(f"{config.parameters} parameters, {config.macs_per_token} multiply-accumulates per token,")
        print(f"{quantise(checkpoint).size} bytes as int8 image")
        for kind, kv in KINDS:
            measured = perplexity(checkpoint, held_out_text(), arithmetic=kind, kv=kv)
            print(f"{kind}, {kv} keys and values: held-out perplexity {measured:.4f}")
            print(f"  {complete(checkpoint, arguments.prompt, arguments.tokens, arithmetic=kind, kv=kv).text}")
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

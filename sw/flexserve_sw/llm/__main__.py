"""`python -m flexserve_sw.llm`: how good a checkpoint is, float32 and int8, without any machine."""

from __future__ import annotations

import argparse
import sys

from ..errors import UserError
from .image import quantise
from .load import held_out_text, read_checkpoint
from .reference import Arithmetic, complete, perplexity

KINDS: tuple[Arithmetic, ...] = ("float32", "int8")


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
        for kind in KINDS:
            print(f"{kind}: held-out perplexity {perplexity(checkpoint, held_out_text(), arithmetic=kind):.4f}")
            print(f"  {complete(checkpoint, arguments.prompt, arguments.tokens, arithmetic=kind).text}")
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

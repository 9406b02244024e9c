"""`tinygrad-llm generate`: continue a prompt, and print the text while it is generated."""

import argparse
import json
from pathlib import Path

import numpy as np

from tinygrad_llm.cli import UsageError
from tinygrad_llm.cli.options import add_json, add_seed, add_special, integer
from tinygrad_llm.generation import Sampling, start_ids, write
from tinygrad_llm.models import GPT
from tinygrad_llm.random import Generator
from tinygrad_llm.tokenizer import encode_text
from tinygrad_llm.weights import tokenizer_for

EXAMPLE = 'tinygrad-llm generate runs/demo --prompt "Once upon a time" --max-new-tokens 200 --seed 1'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="the folder of a run or a GPT-2, or the name of a downloaded one: gpt2")
    parser.add_argument("--prompt", default="", help="the text to continue (default: none, a new text)")
    parser.add_argument(
        "--max-new-tokens", type=integer(0), default=200, metavar="N", help="most tokens to write (default 200)"
    )
    parser.add_argument("--temperature", type=float, default=0.8, help="0: always the likeliest token (default 0.8)")
    parser.add_argument("--top-k", type=int, metavar="K", help="draw only from the K likeliest tokens")
    parser.add_argument(
        "--top-p", type=float, metavar="P", help="draw only from the fewest likeliest tokens that sum to P"
    )
    add_special(parser)
    add_seed(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    model = GPT.from_pretrained(args.run)
    tokenizer = tokenizer_for(args.run, model.config)
    ids = encode_text(tokenizer, args.prompt, args.special) or start_ids(tokenizer)
    if not ids:
        raise UsageError("this model has no end-of-text token and no newline to start from: give a --prompt")
    try:
        sampling = Sampling(args.temperature, args.top_k, args.top_p)
        with np.errstate(all="ignore"):  # damaged weights are one line of ours, not warnings of NumPy's
            pieces = write(model, tokenizer, ids, args.max_new_tokens, sampling, Generator(args.seed))
            if args.json:
                print(json.dumps({"prompt": args.prompt, "text": "".join(pieces), "seed": args.seed}))
                return 0
            print(args.prompt, end="", flush=True)
            for piece in pieces:
                print(piece, end="", flush=True)
            print()
    except ValueError as error:  # a prompt longer than the block, a temperature below 0, …
        raise UsageError(str(error)) from None
    return 0

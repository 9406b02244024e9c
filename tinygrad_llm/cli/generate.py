"""`tinygrad-llm generate`: a prompt in, its continuation out, as it is written."""

import argparse
import json
from pathlib import Path

from tinygrad_llm.cli import UsageError
from tinygrad_llm.cli.options import add_json, add_seed, integer
from tinygrad_llm.random import Generator
from tinygrad_llm.training import load_run, write

EXAMPLE = 'tinygrad-llm generate runs/demo --prompt "Once upon a time" --max-new-tokens 200 --seed 1'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="the folder of a run, such as runs/demo")
    parser.add_argument("--prompt", default="", help="the text to continue (default: none, a new text)")
    parser.add_argument("--max-new-tokens", type=integer(0), default=200, metavar="N", help="at most (default 200)")
    parser.add_argument("--temperature", type=float, default=0.8, help="0: always the likeliest token (default 0.8)")
    parser.add_argument("--top-k", type=int, metavar="K", help="draw only from the K likeliest tokens")
    parser.add_argument("--top-p", type=float, metavar="P", help="draw only from the likeliest that reach P together")
    add_seed(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    model, tokenizer = load_run(args.run)
    ids = tokenizer.encode(args.prompt)
    if not ids:
        if tokenizer.eot_token is None:
            raise UsageError("this model has no end-of-text token to start from: give a --prompt")
        ids = [tokenizer.eot_token]
    try:
        pieces = write(
            model, tokenizer, ids, args.max_new_tokens, args.temperature, args.top_k, args.top_p, Generator(args.seed)
        )
    except ValueError as error:  # a prompt longer than the block, a temperature below 0, …
        raise UsageError(str(error)) from None
    if args.json:
        print(json.dumps({"prompt": args.prompt, "text": "".join(pieces), "seed": args.seed}))
        return 0
    print(args.prompt, end="", flush=True)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()
    return 0

"""`tinygrad-llm generate`: continue a prompt, and print the text while it is generated."""

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from tinygrad_llm.cli import UsageError
from tinygrad_llm.cli.options import (
    add_block_size,
    add_checkpoint,
    add_crop,
    add_json,
    add_sampling,
    add_seed,
    add_special,
    color,
    integer,
    sampling_of,
    say_cropped,
    set_block_size,
    weights_of,
)
from tinygrad_llm.cli.progress import flowing, is_terminal
from tinygrad_llm.generation import crop, start_ids, write, write_all
from tinygrad_llm.random import MAX_SEED, Generator
from tinygrad_llm.runs.folder import keeps_newlines, load_run
from tinygrad_llm.storage.files import not_utf8
from tinygrad_llm.tokenizer import encode_text
from tinygrad_llm.tokenizer.files import normalize_newlines

EXAMPLE = 'tinygrad-llm generate runs/demo --prompt "Once upon a time" --seed 1'
LONGEST = 1_000_000  # bytes of a prompt from stdin: more than any model reads


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="the folder of a run or a GPT-2, or the name of a downloaded one: gpt2")
    parser.add_argument(
        "--prompt", default="", help="the text to continue; -: read it from stdin (default: a new text)"
    )
    parser.add_argument(
        "--max-new-tokens", type=integer(0), default=200, metavar="N", help="most tokens to write (default 200)"
    )
    parser.add_argument(
        "--samples", type=integer(1), default=1, metavar="N", help="texts, from seeds SEED, SEED + 1, …"
    )
    add_checkpoint(parser)
    add_sampling(parser)
    add_block_size(parser)
    add_crop(parser)
    add_special(parser)
    add_seed(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    sampling_of(args)
    prompt = _from_stdin(keeps_newlines(args.run)) if args.prompt == "-" else args.prompt
    model, tokenizer = load_run(weights_of(args, args.run))
    set_block_size(args, model)
    sampling = sampling_of(args, tokenizer)
    ids = encode_text(tokenizer, prompt, args.special) or start_ids(tokenizer)
    if not ids:
        raise UsageError("this model has no end-of-text token and no newline to start from: give a --prompt")
    seeds = range(args.seed, args.seed + args.samples)
    if seeds[-1] > MAX_SEED:
        raise UsageError(f"--samples {args.samples}: the last seed would be {seeds[-1]}, more than {MAX_SEED}")
    try:
        length, ids = len(ids), crop(ids, model.block_size, not args.crop, what="the prompt")
        say_cropped(args, length > len(ids), 1, model.block_size)
        rngs = [Generator(seed) for seed in seeds]
        with np.errstate(all="ignore"):  # damaged weights are one line of ours, not warnings of NumPy's
            if len(rngs) == 1:
                pieces = write(model, tokenizer, ids, args.max_new_tokens, sampling, rngs[0], args.stop)
                _show(prompt, pieces, args)
                return 0
            texts = write_all(model, tokenizer, [ids] * len(rngs), args.max_new_tokens, sampling, rngs, args.stop)
    except ValueError as error:  # a prompt that must not be cropped, damaged weights, …
        raise UsageError(str(error)) from None
    if args.json:
        samples = [{"text": text, "seed": seed} for text, seed in zip(texts, seeds, strict=True)]
        print(json.dumps({"prompt": prompt, "samples": samples}))
        return 0
    for seed, text in zip(seeds, texts, strict=True):
        print(color(f"seed {seed}", "bold"))
        _print(chain([prompt, text.rstrip(), "\n\n"]))
    return 0


def _from_stdin(keep_newlines: bool) -> str:
    """The text on stdin, without the line break at its end, which `echo` adds; line ends as the run has them."""
    if sys.stdin is None:
        raise UsageError("--prompt -: there is no stdin")
    data = sys.stdin.buffer.read(LONGEST + 1)
    if len(data) > LONGEST:
        raise UsageError(f"--prompt -: stdin has more than {LONGEST:,} bytes")
    try:
        text = data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise UsageError(f"--prompt -: stdin is {not_utf8(error)}") from None
    return text if keep_newlines else normalize_newlines(text)


def _show(prompt: str, pieces: Iterator[str], args: argparse.Namespace) -> None:
    if args.json:
        print(json.dumps({"prompt": prompt, "text": "".join(pieces), "seed": args.seed}))
    else:
        first = next(pieces, "")  # an error of damaged weights comes here, before anything is printed
        _print(chain([prompt, first], pieces, ["\n"]))


def _print(pieces: Iterator[str]) -> None:
    """Print a text piece by piece; on a terminal, with line breaks between words. A file gets the text itself."""
    for piece in flowing(pieces) if is_terminal(sys.stdout) else pieces:
        print(piece, end="", flush=True)

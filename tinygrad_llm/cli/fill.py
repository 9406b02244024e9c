"""`tinygrad-llm fill`: the words that an encoder would put in the place of each [MASK]."""

import argparse
import json
from pathlib import Path

from tinygrad_llm.cli import UsageError
from tinygrad_llm.cli.options import add_checkpoint, add_json, color, integer, weights_of
from tinygrad_llm.cli.progress import fold
from tinygrad_llm.generation.fill import HIDDEN, fill, missing_tokens
from tinygrad_llm.models import Encoder
from tinygrad_llm.storage.text import printable
from tinygrad_llm.tokenizer import encode_text
from tinygrad_llm.weights import tokenizer_for

EXAMPLE = 'tinygrad-llm fill runs/encoder "Once there was a [MASK] fox."'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="the folder of an encoder, of a run or a BERT of Hugging Face")
    parser.add_argument("text", help=f"a text with {HIDDEN} in the place of one or more words")
    parser.add_argument(
        "--top-k", type=integer(1), default=5, metavar="K", help="how many words for each [MASK] (default 5)"
    )
    add_checkpoint(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    path = weights_of(args, args.run)
    model = Encoder.from_pretrained(path)
    tokenizer = tokenizer_for(path, model.config)
    if lost := missing_tokens(tokenizer):
        raise UsageError(f"{args.run}: its tokenizer has no {' and no '.join(lost)}: it is not that of an encoder")
    ids = encode_text(tokenizer, args.text, "allow")
    try:
        found = fill(model, tokenizer, ids, args.top_k)
    except ValueError as error:
        raise UsageError(str(error)) from None
    words = [[(printable(tokenizer.decode([token])), p) for token, p in one] for one in found]
    best = iter([one[0][0] for one in found])
    filled = tokenizer.decode([next(best) if token == tokenizer.special_tokens[HIDDEN] else token for token in ids])
    if args.json:
        masks = [[{"word": word, "probability": p} for word, p in one] for one in words]
        print(json.dumps({"text": args.text, "masks": masks, "filled": filled}))
        return 0
    for number, one in enumerate(words, 1):
        if len(words) > 1:
            print(color(f"{HIDDEN} {number}", "bold"))
        for word, p in one:
            print(f"{p:>6.1%}  {word}")
    print(f"\n{fold(printable(filled))}")
    return 0

"""`tinygrad-llm translate`: translate a sentence, or each line of a file or of stdin."""

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np

from tinygrad_llm.cli import UsageError
from tinygrad_llm.cli.options import add_checkpoint, add_json, integer, read_lines, weights_of
from tinygrad_llm.cli.progress import say
from tinygrad_llm.generation.search import attention_of, translate
from tinygrad_llm.models import Translator
from tinygrad_llm.storage.figure import attention_map, save_figure
from tinygrad_llm.weights import tokenizer_for

EXAMPLE = 'tinygrad-llm translate runs/german "The little fox finds a red ball." --attention attention.png'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="the folder of a translator")
    parser.add_argument("text", nargs="?", help="the sentence to translate; -: each line of stdin")
    parser.add_argument("--file", type=Path, metavar="FILE", help="translate each line of a UTF-8 text instead")
    parser.add_argument(
        "--beam",
        type=integer(1, 100),
        default=1,
        metavar="N",
        help="hypotheses to keep, up to 100 (default 1: greedy; the paper: 4)",
    )
    parser.add_argument(
        "--length-penalty",
        type=float,
        metavar="A",
        help="of a beam: 0 prefers short translations, more prefers longer ones (default 0.6)",
    )
    parser.add_argument(
        "--attention",
        type=Path,
        metavar="FILE.png",
        help="of one sentence: draw how much each word of the translation looks at each word of the sentence",
    )
    add_checkpoint(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    if (args.text is None) == (args.file is None):
        raise UsageError("give a sentence, - for the lines of stdin, or --file FILE")
    if args.length_penalty is not None and args.beam == 1:
        raise UsageError("--length-penalty: is for a beam, and --beam is 1: give --beam 4, for example")
    penalty = 0.6 if args.length_penalty is None else args.length_penalty
    if not 0 <= penalty < math.inf:
        raise UsageError(f"--length-penalty: must be finite and at least 0, got {penalty:g}")
    lines = args.file is not None or args.text == "-"
    named = read_lines(args.file) if lines else {"the sentence": args.text}
    named = {name: text for name, text in named.items() if text.strip()}
    texts = list(named.values())
    if not texts:
        raise UsageError("there is no sentence: give at least one that is not empty")
    if args.attention is not None and lines:
        raise UsageError("--attention: draws one sentence: give it as an argument")
    path = weights_of(args, args.run)
    model = Translator.from_pretrained(path)
    tokenizer = tokenizer_for(path, model.config)
    try:
        with np.errstate(all="ignore"):  # damaged weights are one line of ours, not warnings of NumPy's
            found = translate(model, tokenizer, texts, args.beam, penalty, names=list(named))
            looks = None if args.attention is None else attention_of(model, tokenizer, texts[0], found[0])
    except ValueError as error:
        raise UsageError(str(error)) from None
    if looks is not None:
        try:
            save_figure(attention_map(*looks), args.attention)
        except (ImportError, ValueError) as error:
            raise UsageError(f"--attention: {error}") from None
    for text, translation in zip(texts, found, strict=True):
        print(json.dumps({"text": text, "translation": translation}, ensure_ascii=False) if args.json else translation)
    if args.attention is not None:
        say(f"drawn: {args.attention}", sys.stderr)
    return 0

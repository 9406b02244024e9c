"""`tinygrad-llm classify`: the class of a text, or of each line of a file."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_llm.cli import UsageError
from tinygrad_llm.cli.options import (
    add_checkpoint,
    add_crop,
    add_json,
    color,
    read_lines,
    say_cropped,
    visible,
    weights_of,
)
from tinygrad_llm.cli.progress import WIDTH, fold
from tinygrad_llm.finetuning import classify, token_influence
from tinygrad_llm.finetuning.classifier import encode_messages, ends_for
from tinygrad_llm.models import read_classifier
from tinygrad_llm.storage.text import columns, padded, printable, shortened
from tinygrad_llm.weights import tokenizer_for

_MAX_BYTES = 20_000_000
_LONGEST_LABEL = 40  # columns
EXAMPLE = 'tinygrad-llm classify runs/spam "WINNER! Claim your free prize now, text WIN to 80086" --explain'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="the folder of a classifier")
    parser.add_argument("text", nargs="?", help="the text to classify")
    parser.add_argument("--file", type=Path, metavar="FILE", help="classify each line of a UTF-8 text instead")
    parser.add_argument(
        "--explain", action="store_true", help="show how much each token speaks for the class (gradient × input)"
    )
    add_checkpoint(parser)
    add_crop(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    if (args.text is None) == (args.file is None):
        raise UsageError("give a text, or --file FILE with one text on each line")
    texts = {"the text": args.text} if args.file is None else read_lines(args.file)  # by name
    texts = {name: text for name, text in texts.items() if text.strip()}
    if not texts:
        raise UsageError("there is no text: give at least one that is not empty")
    path = weights_of(args, args.run)
    model = read_classifier(path)
    tokenizer = tokenizer_for(path, model.config)
    names = list(texts)
    try:
        how = (not args.crop, names.__getitem__, ends_for(model, tokenizer))
        rows, cut = encode_messages(list(texts.values()), tokenizer, model.block_size, *how)
    except ValueError as error:
        raise UsageError(str(error)) from None
    say_cropped(args, cut, len(texts), model.block_size, "end")
    with np.errstate(all="ignore"):
        probabilities = classify(model, rows)
    if not np.isfinite(probabilities).all():
        raise UsageError(f"{args.run}: the model's scores are NaN or infinite: its weights are damaged")
    show = _print_json if args.json else _print
    for text, row, p in zip(texts.values(), rows, probabilities.tolist(), strict=True):
        tokens = None
        if args.explain:
            shown = [visible(tokenizer.decode_bytes([i])) for i in row]
            tokens = list(zip(shown, token_influence(model, row)[1].tolist(), strict=True))
        show(text, dict(zip(model.config.labels, p, strict=True)), tokens, args.file is None)
    return 0


def _print_json(text: str, p: dict[str, float], tokens: list[tuple[str, float]] | None, alone: bool) -> None:
    found: dict[str, Any] = {"text": text, "label": max(p, key=p.__getitem__), "probabilities": p}
    print(json.dumps(found if tokens is None else {**found, "influence": tokens}))


def _print(text: str, p: dict[str, float], tokens: list[tuple[str, float]] | None, alone: bool) -> None:
    """A text with its label, for readers. alone: whether it is the only one, and shown whole."""
    label = max(p, key=p.__getitem__)
    name = shortened(label, _LONGEST_LABEL)
    verdict = f"{padded(name, 12)} {p[label]:>6.1%}  "
    if alone:
        print(fold(printable(text), verdict, " " * columns(verdict)))
    else:
        print(verdict + shortened(text, WIDTH - columns(verdict)))
    if tokens is not None:
        print(f"\n   nats  token (above 0: speaks for {name})")
        for token, value in tokens:
            print(color(f"{value:>+7.2f}  {token}", "green" if value > 0 else "red"))

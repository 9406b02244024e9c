"""`tinygrad-llm classify`: the class of a text, or of each line of a file."""

import argparse
import json
from pathlib import Path

import numpy as np

from tinygrad_llm.cli import UsageError
from tinygrad_llm.cli.options import add_checkpoint, add_crop, add_json, color, say_cropped, visible, weights_of
from tinygrad_llm.cli.progress import WIDTH, fold
from tinygrad_llm.finetuning import classify, token_influence
from tinygrad_llm.finetuning.classifier import encode_messages
from tinygrad_llm.models import GPTClassifier
from tinygrad_llm.storage.files import open_regular
from tinygrad_llm.weights import tokenizer_for

_MAX_BYTES = 20_000_000
EXAMPLE = 'tinygrad-llm classify runs/spam "You have won a prize! Call now." --explain'


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
    texts = [args.text] if args.file is None else _lines(args.file)
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise UsageError("there is no text: give at least one that is not empty")
    path = weights_of(args, args.run)
    model = GPTClassifier.from_pretrained(path)
    tokenizer = tokenizer_for(path, model.config)
    try:
        rows, cut = encode_messages(texts, tokenizer, model.block_size, not args.crop)
    except ValueError as error:
        raise UsageError(str(error)) from None
    say_cropped(args, cut, len(texts), model.block_size, "end")
    with np.errstate(all="ignore"):
        probabilities = classify(model, rows)
    if not np.isfinite(probabilities).all():
        raise UsageError(f"{args.run}: the model's scores are NaN or infinite: its weights are damaged")
    labels = model.config.labels
    for text, row, p in zip(texts, rows, probabilities, strict=True):
        best = int(p.argmax())
        influence = token_influence(model, row)[1].tolist() if args.explain else None
        if args.json:
            by_label = dict(zip(labels, p.tolist(), strict=True))
            found = {"text": text, "label": labels[best], "probabilities": by_label}
            if influence is not None:
                tokens = [visible(tokenizer.decode_bytes([i])) for i in row]
                found["influence"] = [[token, value] for token, value in zip(tokens, influence, strict=True)]
            print(json.dumps(found))
            continue
        verdict = f"{labels[best]:<12} {p[best]:>6.1%}  "
        print(fold(text, verdict, " " * len(verdict)) if args.file is None else _cut(verdict + text))
        if influence is not None:
            print(f"\n   nats  token (above 0: speaks for {labels[best]})")
            for token_id, value in zip(row, influence, strict=True):
                shown = f"{value:>+7.2f}  {visible(tokenizer.decode_bytes([token_id]))}"
                print(color(shown, "green" if value > 0 else "red"))
    return 0


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else line[: WIDTH - 2].rstrip() + " …"


def _lines(path: Path) -> list[str]:
    with open_regular(path) as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise UsageError(f"{path}: longer than {_MAX_BYTES} bytes: split it")
    try:
        return data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text: {error}") from None

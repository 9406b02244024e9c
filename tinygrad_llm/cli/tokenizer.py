"""`tinygrad-llm tokenizer`: train one; encode and decode."""

import argparse
import json
import sys
from pathlib import Path

from tinygrad_llm.cli import UsageError
from tinygrad_llm.cli.options import add_json, add_special, encode, integer
from tinygrad_llm.datasets import load_corpus
from tinygrad_llm.tokenizer import Tokenizer, load_tokenizer
from tinygrad_llm.training import AnyTokenizer

EXAMPLE = 'tinygrad-llm tokenizer encode "Hello, do you like tea?"'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    which = argparse.ArgumentParser(add_help=False)
    which.add_argument(
        "--tokenizer", default="gpt2", metavar="NAME", help="gpt2 (default), a tokenizer file, or the folder of a run"
    )
    add_json(which)

    train = actions.add_parser(
        "train",
        help="learn merges from a text, and save them",
        epilog="example: tinygrad-llm tokenizer train stories --vocab-size 512 --out stories.json",
    )
    train.add_argument("corpus", help="a UTF-8 text file, or the name of a bundled corpus")
    train.add_argument("--vocab-size", type=integer(1), default=1024, metavar="N", help="tokens (default 1024)")
    train.add_argument("--out", type=Path, required=True, metavar="FILE", help="where to save it, as JSON")
    add_json(train)

    encoding = actions.add_parser("encode", parents=[which], help="text → ids", epilog=f"example: {EXAMPLE}")
    encoding.add_argument("text")
    add_special(encoding)

    decoding = actions.add_parser(
        "decode", parents=[which], help="ids → text", epilog="example: tinygrad-llm tokenizer decode 15496 11 995"
    )
    decoding.add_argument("ids", nargs="+", help="numbers, separated by spaces or commas")


def run(args: argparse.Namespace) -> int:
    if args.action == "train":
        return _train(args)
    tokenizer = _find(args.tokenizer)
    if args.action == "encode":
        ids = encode(tokenizer, args.text, args.allow_special)
        pieces = [tokenizer.decode([i]) for i in ids]
        if args.json:
            print(json.dumps({"ids": ids, "tokens": pieces}))
        else:
            print(*ids)
            print("|".join(pieces))
        return 0
    words = " ".join(args.ids).replace(",", " ").split()
    try:
        ids = [int(word) for word in words]
    except ValueError:
        raise UsageError(f"ids are whole numbers, not {' '.join(words)!r}") from None
    text = tokenizer.decode(ids)
    print(json.dumps({"text": text}) if args.json else text)
    return 0


def _train(args: argparse.Namespace) -> int:
    if args.out.exists():
        raise UsageError(f"{args.out}: exists already; choose another --out")
    tokenizer = Tokenizer.train(load_corpus(args.corpus), args.vocab_size)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(args.out)
    figures = {"out": str(args.out), "n_vocab": tokenizer.n_vocab}
    print(json.dumps(figures) if args.json else f"wrote {args.out}: {tokenizer.n_vocab} tokens")
    if tokenizer.n_vocab < args.vocab_size:
        print(f"(nothing more repeats in this text, so they are fewer than {args.vocab_size})", file=sys.stderr)
    return 0


def _find(name: str) -> AnyTokenizer:
    if name == "gpt2":
        return Tokenizer.gpt2()
    path = Path(name)
    return load_tokenizer(path / "tokenizer.json" if path.is_dir() else path)

"""`tinygrad-llm trace`: write the page that steps through the forward and backward pass of a text or a first lesson."""

import argparse
from pathlib import Path

import numpy as np

from tinygrad_llm.cli import UsageError
from tinygrad_llm.cli.options import (
    add_checkpoint,
    add_json,
    add_overwrite,
    add_seed,
    add_special,
    check_new,
    weights_of,
)
from tinygrad_llm.cli.progress import fold, say
from tinygrad_llm.models import GPT
from tinygrad_llm.runs.folder import METRICS, load_run
from tinygrad_llm.runs.metrics import read_metrics
from tinygrad_llm.storage.text import to_json
from tinygrad_llm.study import EXAMPLES, Trace, example, print_trace, trace
from tinygrad_llm.tokenizer import AnyTokenizer, encode_text

EXAMPLE = 'tinygrad-llm trace runs/demo --prompt "Once there was a" --out trace.html'
MOST = 64  # tokens: more would not fit on a screen
OUT = Path("trace.html")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run", nargs="?", type=Path, help="the folder of a run or a GPT-2, or the name of a downloaded one: gpt2"
    )
    parser.add_argument("--prompt", help=f"the text whose loss is traced, at most {MOST} tokens")
    parser.add_argument("--example", metavar="NAME", help="trace a first lesson instead of a model: see --list")
    parser.add_argument("--list", action="store_true", help="list the first lessons")
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"the page to write (default {OUT})")
    parser.add_argument("--print", action="store_true", help="print every step here, and write a page only with --out")
    add_checkpoint(parser)
    add_special(parser)
    add_overwrite(parser)
    add_seed(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    if args.list:
        _list(args.json)
        return 0
    _check(args)
    out = args.out or (None if args.print else OUT)
    if out is not None:
        check_new(out, args.overwrite)
        if not out.absolute().parent.is_dir():
            raise UsageError(f"{out}: its folder does not exist: make it first")
    with np.errstate(all="ignore"):  # NaN has a color of its own on the page
        try:
            made = _of_run(args) if args.example is None else example(args.example, args.seed)
        except ValueError as error:
            raise UsageError(str(error)) from None
    if args.print:
        print_trace(made)
    if out is not None:
        made.save(out)
    if args.json:
        print(to_json(_figures(made, out)))
    elif out is not None:
        say(fold(f"wrote {out}: open it in a browser"))
    return 0


def _check(args: argparse.Namespace) -> None:
    if (args.run is None) is (args.example is None):
        raise UsageError("name a run or an --example: --list shows the examples")
    if args.example is not None and args.prompt is not None:
        raise UsageError("--prompt is for a run: an example has its own numbers")
    if args.run is not None and args.prompt is None:
        raise UsageError("give a --prompt: the text whose loss is traced")
    if args.print and args.json:
        raise UsageError("--print and --json both print: choose one")


def _of_run(args: argparse.Namespace) -> Trace:
    model, tokenizer = load_run(weights_of(args, args.run))
    ids = encode_text(tokenizer, args.prompt, args.special)
    return trace_text(model, tokenizer, ids, args.run)


def trace_text(model: GPT, tokenizer: AnyTokenizer, ids: list[int], folder: Path) -> Trace:
    """Trace a text with the model of a run.

    Raises:   ValueError: fewer than two tokens, or more than `MOST` or than the model reads.
    """
    most = min(MOST, model.block_size)
    if not 2 <= len(ids) <= most:
        raise ValueError(f"--prompt: got {len(ids)} tokens, give from 2 to {most}: each predicts the next one")
    metrics, text = folder / METRICS, tokenizer.decode(ids)
    return trace(
        model,
        np.array([ids]),
        decode=lambda i: tokenizer.decode([i]) if i < tokenizer.n_vocab else f"<{i}>",
        title=f"{folder.name}: {text[:59]}" + ("…" if len(text) > 59 else ""),
        intro="The loss of a text, from its tokens to the loss and back. Each token predicts the next one; the last "
        "one has none to predict.",
        training=read_metrics(metrics) if metrics.is_file() else None,
    )


def _list(as_json: bool) -> None:
    if as_json:
        print(to_json([{"name": e.name, "summary": e.summary} for e in EXAMPLES.values()]))
        return
    for e in EXAMPLES.values():
        say(fold(f"{e.name:<15} {e.summary}", "  ", " " * 18))
    say("\nfor one of them: tinygrad-llm trace --example attention --out attention.html")


def _figures(made: Trace, out: Path | None) -> dict[str, object]:
    data = made.data
    proofs = data["proofs"]
    return {
        "out": None if out is None else str(out),
        "loss": data["meta"]["loss"],
        "steps": len(data["steps"]),
        "gradients": len(data["grads"]),
        "exact": data["meta"]["exact"],
        "proofs": len(proofs),
        "worst_error": max((p["error"] for p in proofs), default=None),
    }

"""`tinygrad-llm eval`: the loss of a model on a text, the endings it prefers, or the next tokens it expects.

`eval_tasks.py` has the rest: labels by prompting alone, and the answers of an assistant.
"""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinygrad_llm.cli import UsageError
from tinygrad_llm.cli.options import (
    add_block_size,
    add_checkpoint,
    add_crop,
    add_json,
    add_newlines,
    add_seed,
    add_special,
    find_tokenizer,
    integer,
    read_newlines,
    say_cropped,
    set_block_size,
    visible,
    weights_of,
)
from tinygrad_llm.cli.progress import fold, progress
from tinygrad_llm.evaluation import ChoiceScore, default_stride, next_tokens, read_choices, score_choices, score_file
from tinygrad_llm.generation import crop, start_ids
from tinygrad_llm.models import GPT
from tinygrad_llm.runs.folder import load_run
from tinygrad_llm.storage.text import to_json
from tinygrad_llm.tokenizer import AnyTokenizer, encode_text
from tinygrad_llm.weights import check_stated, fit

EXAMPLE = "tinygrad-llm eval runs/demo stories --allow-special --stride 64"
WAYS = {
    "file": "a FILE to score",
    "choices": "--choices FILE",
    "next": "--next TEXT",
    "prompts": "--prompts FILE",
    "instructions": "--instructions FILE",
}
OPTIONS: dict[tuple[str, ...], tuple[str, ...]] = {  # that are for some of them
    ("file",): ("stride", "dtype", "keep_newlines"),
    ("next",): ("top",),
    ("prompts",): ("shots", "classifier"),
    ("instructions",): ("style", "max_new_tokens", "judge", "judge_model"),
    ("file", "choices", "prompts"): ("batch_size",),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="the folder of a run, such as runs/demo; or a model, with --tokenizer")
    parser.add_argument(
        "file", nargs="?", help="score this: a UTF-8 text, the name of a bundled corpus, or a file of token ids"
    )
    parser.add_argument(
        "--choices",
        metavar="FILE",
        help='score this: lines of {"ctx": …, "endings": [4 texts], "label": 0 … 3} (HellaSwag\'s format); or choices, '
        "the file that ships with the package",
    )
    parser.add_argument("--next", metavar="TEXT", help="list the likeliest tokens after this text")
    _add_tasks(parser)
    parser.add_argument(
        "--stride",
        type=integer(1),
        metavar="N",
        help="tokens from one window to the next, at most the block: each token is scored once, with at least "
        "block − N + 1 tokens before it (default: half the block)",
    )
    parser.add_argument("--top", type=integer(1), metavar="K", help="how many tokens --next lists (default 10)")
    parser.add_argument("--batch-size", type=integer(1), metavar="N", help="windows at once (default: by memory)")
    parser.add_argument("--tokenizer", metavar="NAME", help="gpt2, a tokenizer file, or the folder of another run")
    parser.add_argument("--dtype", choices=["uint16", "uint32"], help="type of the ids in a file without its .json")
    add_checkpoint(parser)
    add_newlines(parser)
    add_special(parser)
    add_block_size(parser)
    add_crop(parser)
    add_seed(parser)
    add_json(parser)


def _add_tasks(parser: argparse.ArgumentParser) -> None:
    """Add the options of `prompts` and `instructions`."""
    parser.add_argument(
        "--prompts",
        metavar="FILE",
        help='score this: JSON with instruction, labels and their words, and examples: {"instruction": …, "labels": '
        '{"ham": "no", …}, "examples": [{"text": …, "label": "ham"}, …]}; or spam, which ships with the package',
    )
    parser.add_argument(
        "--shots",
        type=integer(0),
        nargs="+",
        metavar="N",
        help="--prompts: solved examples before each text (default 0 1 4)",
    )
    parser.add_argument(
        "--classifier", type=Path, metavar="RUN", help="--prompts: the figure of this classifier beside the others"
    )
    parser.add_argument(
        "--instructions",
        metavar="FILE",
        help="score the answers to these (JSON with instruction, input and output); of a file that the run was trained "
        "on, to its test part; or instructions, which ship with the package",
    )
    parser.add_argument(
        "--style", metavar="NAME", help="--instructions: prompt style (default: the assistant's, or alpaca)"
    )
    parser.add_argument(
        "--max-new-tokens", type=integer(1), metavar="N", help="--instructions: most tokens of an answer (default 100)"
    )
    parser.add_argument(
        "--judge",
        metavar="URL",
        help="--instructions: send each answer to this OpenAI-compatible endpoint, for a score from 0 to 100; such as "
        "http://localhost:11434/v1; TINYGRAD_LLM_JUDGE_KEY may hold its key",
    )
    parser.add_argument("--judge-model", metavar="NAME", help="--judge: the name of the model there")


def run(args: argparse.Namespace) -> int:
    ways: dict[str, Callable[[argparse.Namespace, GPT, AnyTokenizer], dict[str, Any]]] = {
        "file": _file,
        "choices": _choices,
        "next": _next,
        "prompts": _prompts,
        "instructions": _instructions,
    }
    asked = [name for name in WAYS if getattr(args, name) is not None]
    if len(asked) != 1:
        raise UsageError(f"give one of these: {', '.join(WAYS.values())}")
    for those, options in OPTIONS.items():
        for option in options:
            if getattr(args, option) is not None and asked[0] not in those:
                raise UsageError(f"--{option.replace('_', '-')} is for {', '.join(WAYS[way] for way in those)}")
    model, tokenizer = _load(args)
    set_block_size(args, model)
    try:
        figures = ways[asked[0]](args, model, tokenizer)
    except ValueError as error:  # a stride beyond the block, damaged weights, …
        raise UsageError(str(error)) from None
    if args.json:
        print(to_json({"run": str(args.run), **figures}))
    return 0


# These two need the training package, which the other ways to score leave alone.


def _prompts(args: argparse.Namespace, model: GPT, tokenizer: AnyTokenizer) -> dict[str, Any]:
    from tinygrad_llm.cli.eval_tasks import prompts

    return prompts(args, model, tokenizer)


def _instructions(args: argparse.Namespace, model: GPT, tokenizer: AnyTokenizer) -> dict[str, Any]:
    from tinygrad_llm.cli.eval_tasks import instructions

    return instructions(args, model, tokenizer)


def _load(args: argparse.Namespace) -> tuple[GPT, AnyTokenizer]:
    path = weights_of(args, args.run)
    if args.tokenizer is None:
        return load_run(path)
    model, tokenizer = GPT.from_pretrained(path), find_tokenizer(args.tokenizer)
    fitting = fit(tokenizer, model.config.vocab_size)
    if fitting is None:
        raise UsageError(
            f"{args.tokenizer} has {tokenizer.n_vocab} tokens and {args.run} {model.config.vocab_size}: they do not "
            "belong together"
        )
    check_stated(path, tokenizer, f"{args.tokenizer}: the tokenizer", "leave --tokenizer out, or name that one")
    return model, fitting


def _file(args: argparse.Namespace, model: GPT, tokenizer: AnyTokenizer) -> dict[str, Any]:
    stride = default_stride(model) if args.stride is None else args.stride
    with progress("token", Path(args.file).name) as update:

        def show(nats: float, tokens: int, expected: int) -> None:
            update(tokens, expected, [f"{nats / tokens:.4f} nats per token"])

        score = score_file(
            model,
            tokenizer,
            args.file,
            stride,
            args.batch_size,
            args.special,
            args.dtype,
            show,
            read_newlines(args, args.run),
        )
    if not args.json:
        first = "predicted from the end of text" if tokenizer.eot_token is not None else "not scored"
        counts = f"{score.tokens:,} tokens scored, {score.words:,} words, {score.bytes:,} bytes"
        print(fold(f"{args.file}: {counts}", hang="    "))
        print(f"loss                   {score.loss:.4f} nats per token")
        print(f"perplexity per token   {_rounded(score.perplexity)}")
        print(f"perplexity per word    {_rounded(score.word_perplexity)}   (words are separated by white space)")
        print(f"bits per byte          {score.bits_per_byte:.4f}   (bytes of UTF-8)")
        how = f"each token scored once, with at least {model.block_size - stride + 1} before it, except at the start"
        print(fold(f"stride {stride} of {model.block_size}: {how} (the first is {first})", hang="    "))
    return {
        "file": args.file,
        "loss": score.loss,
        "perplexity": score.perplexity,
        "word_perplexity": score.word_perplexity,
        "bits_per_byte": score.bits_per_byte,
        "tokens": score.tokens,
        "words": score.words,
        "bytes": score.bytes,
        "stride": stride,
        "block_size": model.block_size,
    }


def _rounded(x: float) -> str:
    return f"{x:,.2f}" if x < 1e6 else f"{x:.2e}"


def _choices(args: argparse.Namespace, model: GPT, tokenizer: AnyTokenizer) -> dict[str, Any]:
    items = read_choices(args.choices)
    scores: list[ChoiceScore] = []
    with progress("item", Path(args.choices).name, len(items)) as update:
        for score in score_choices(model, tokenizer, items, args.batch_size, args.special, not args.crop):
            scores.append(score)
            update(len(scores))
    n = len(scores)
    acc = sum(score.right for score in scores) / n
    acc_norm = sum(score.right_normalized for score in scores) / n
    cut = sum(score.cut for score in scores)
    chance = 1 / len(items[0].endings)
    spread = math.sqrt(chance * (1 - chance) / n)
    if not args.json:
        print(f"{args.choices}: n = {n} items")
        print(f"acc        {acc:6.1%}   the right ending has the largest Σ ln p(token)")
        print(f"acc_norm   {acc_norm:6.1%}   the right ending has the largest Σ ln p(token) / characters")
        print(f"chance     {chance:6.1%}   ± {spread:.1%} (standard deviation of guessing {n} times)")
    say_cropped(args, cut, n, model.block_size)
    return {
        "choices": args.choices,
        "n": n,
        "acc": acc,
        "acc_norm": acc_norm,
        "chance": chance,
        "cut": cut,
        "items": [
            {"label": score.label, "sums": score.sums, "normalized": score.normalized, "cut": score.cut}
            for score in scores
        ],
    }


def _next(args: argparse.Namespace, model: GPT, tokenizer: AnyTokenizer) -> dict[str, Any]:
    ids = encode_text(tokenizer, args.next, args.special) or start_ids(tokenizer)
    if not ids:
        raise UsageError("this model has no end-of-text token and no newline to start from: give --next a text")
    read = crop(ids, model.block_size, not args.crop)
    rows = next_tokens(model, read, args.top or 10, tokenizer.n_vocab)
    tokens = [visible(tokenizer.decode_bytes([token_id])) for token_id, _ in rows]
    if not args.json:
        print("probability      id  token")
        for (token_id, probability), token in zip(rows, tokens, strict=True):
            print(f"{probability:>11.4%}  {token_id:>6}  {token}")
        print("(␣ is a space; two digits such as F0 or 0A are one byte, in hexadecimal)")
    say_cropped(args, len(ids) > len(read), 1, model.block_size)
    return {
        "text": args.next,
        "read": len(read),
        "next": [
            {"id": token_id, "token": token, "probability": probability}
            for (token_id, probability), token in zip(rows, tokens, strict=True)
        ],
    }

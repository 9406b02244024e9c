"""`tinygrad-llm tokenizer`: train one; encode and decode; explain the merges of a text; statistics of a file."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from tinygrad_llm.cli import UsageError
from tinygrad_llm.cli.options import (
    add_json,
    add_newlines,
    add_overwrite,
    add_special,
    check_new,
    color,
    find_tokenizer,
    integer,
    read_newlines,
    visible,
)
from tinygrad_llm.cli.progress import progress
from tinygrad_llm.datasets import TokenFile, encode_file, read_corpus, uncut
from tinygrad_llm.tokenizer import (
    AnyTokenizer,
    CharTokenizer,
    StreamDecoder,
    Tokenizer,
    TokenizerError,
    WordPieceTokenizer,
    encode_text,
    refuse_special,
)
from tinygrad_llm.tokenizer.bpe import END_OF_TEXT, split_at
from tinygrad_llm.tokenizer.files import make_folder
from tinygrad_llm.tokenizer.huggingface import VOCAB
from tinygrad_llm.tokenizer.statistics import TokenStatistics, token_statistics
from tinygrad_llm.tokenizer.wordpiece import SPECIAL

EXAMPLE = 'tinygrad-llm tokenizer encode "Hello, do you like tea?"'
EXPLAINED = 200  # characters of a word
DECODED_AT_ONCE = 1 << 16  # ids
LEGEND = "(␣ is a space; two digits such as F0 or 0A are one byte, in hexadecimal)"


def _shared_arguments() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """Return the parents of several actions: which tokenizer and --json; what a special token becomes."""
    which = argparse.ArgumentParser(add_help=False)
    which.add_argument(
        "--tokenizer", default="gpt2", metavar="NAME", help="gpt2 (default), a tokenizer file, or the folder of a run"
    )
    add_json(which)
    special = argparse.ArgumentParser(add_help=False)
    add_special(special)
    return which, special


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    which, special = _shared_arguments()

    train = actions.add_parser(
        "train",
        help="learn merges or pieces from texts, and save them",
        epilog="example: tinygrad-llm tokenizer train stories --vocab-size 512 --out stories.json",
    )
    train.add_argument("corpus", nargs="+", help="UTF-8 text files, or names of bundled corpora")
    train.add_argument("--vocab-size", type=integer(1), default=1024, metavar="N", help="tokens (default 1024)")
    train.add_argument(
        "--special", nargs="+", default=[], metavar="TOKEN", help=f"special tokens in addition to {END_OF_TEXT}"
    )
    train.add_argument(
        "--kind", choices=["bpe", "wordpiece"], default="bpe", help="bpe: GPT-2's (default); wordpiece: BERT's"
    )
    train.add_argument("--cased", action="store_true", help="wordpiece: keep upper case and accents")
    train.add_argument("--out", type=Path, required=True, metavar="FILE", help="where to save it, as JSON")
    add_newlines(train)
    add_overwrite(train)
    add_json(train)

    encoding = actions.add_parser(
        "encode",
        parents=[which, special],
        help="encode a text as ids, or a file as a file of ids",
        epilog=f"example: {EXAMPLE}",
    )
    encoding.add_argument("text", help="the text; with --out, the name of a UTF-8 file")
    encoding.add_argument("--out", type=Path, metavar="FILE", help="write the ids of a file here, in binary")
    encoding.add_argument(
        "--workers", type=integer(1), metavar="N", help="number of processes; only with --out (default: all cores)"
    )
    encoding.add_argument(
        "--dtype",
        choices=["uint16", "uint32"],
        help="type of the ids in the file; only with --out (default: the smaller one that holds all)",
    )
    add_newlines(encoding)
    add_overwrite(encoding)

    decoding = actions.add_parser(
        "decode",
        parents=[which],
        help="decode ids, or a file of ids, into text",
        epilog="example: tinygrad-llm tokenizer decode 15496 11 995",
    )
    decoding.add_argument("ids", nargs="+", help="numbers, separated by spaces or commas; or one file of ids")
    decoding.add_argument(
        "--dtype", choices=["uint16", "uint32"], help="type of the ids in a raw file, without its .json"
    )

    explaining = actions.add_parser(
        "explain",
        parents=[which, special],
        help="show how a text is split into words, and then every merge",
        epilog='example: tinygrad-llm tokenizer explain " Hello, do you like tea?"',
    )
    explaining.add_argument("text")

    stats = actions.add_parser(
        "stats",
        parents=[which, special],
        help="count the tokens of a text: how many, how long, which ones",
        epilog="example: tinygrad-llm tokenizer stats stories --allow-special",
    )
    stats.add_argument("file", help="a UTF-8 text file, or the name of a bundled corpus")
    add_newlines(stats)
    stats.add_argument("--top", type=integer(1), default=10, metavar="N", help="how many tokens to list (default 10)")

    export = actions.add_parser(
        "export",
        help="write GPT-2's two tokenizer files, or BERT's vocab.txt, for other tools",
        epilog="example: tinygrad-llm tokenizer export stories.json stories-gpt2",
    )
    export.add_argument("tokenizer", metavar="NAME", help="gpt2, a tokenizer file, or the folder of a run")
    export.add_argument("folder", type=Path, help="where to write vocab.bpe and encoder.json, or vocab.txt")
    add_overwrite(export)
    add_json(export)


def run(args: argparse.Namespace) -> int:
    actions: dict[str, Callable[[argparse.Namespace], int]] = {
        "train": _train,
        "encode": _encode,
        "decode": _decode,
        "explain": _explain,
        "stats": _stats,
        "export": _export,
    }
    return actions[args.action](args)


def _train(args: argparse.Namespace) -> int:
    pieces = args.kind == "wordpiece"
    if pieces and args.special:
        raise UsageError("--special: wordpiece has BERT's special tokens and no others: leave it out")
    if args.cased and not pieces:
        raise UsageError("--cased is for wordpiece, since bpe always keeps upper case: add --kind wordpiece")
    check_new(args.out, args.overwrite)
    try:
        args.out.parent.mkdir(parents=True, exist_ok=True)  # now, not after minutes of training
    except OSError as error:
        raise UsageError(f"{args.out}: its folder cannot be made: {error.strerror}; choose another --out") from error
    special_tokens = list(SPECIAL if pieces else dict.fromkeys([END_OF_TEXT, *args.special]))
    texts = (stretch.text for name in args.corpus for stretch in read_corpus(name, special_tokens, read_newlines(args)))
    with progress("merges") as update:
        tokenizer: Tokenizer | WordPieceTokenizer
        if pieces:
            tokenizer = WordPieceTokenizer.train(texts, args.vocab_size, lowercase=not args.cased, progress=update)
        else:
            tokenizer = Tokenizer.train(texts, args.vocab_size, special_tokens, progress=update)
    tokenizer.save(args.out)
    figures = {"out": str(args.out), "n_vocab": tokenizer.n_vocab, "special_tokens": tokenizer.special_tokens}
    print(json.dumps(figures) if args.json else f"wrote {args.out}: {tokenizer.n_vocab} tokens")
    if tokenizer.n_vocab < args.vocab_size:
        print(f"(fewer than {args.vocab_size}: no other pair occurs twice in this text)", file=sys.stderr)
    return 0


def _encode(args: argparse.Namespace) -> int:
    if args.out is not None:
        return _encode_file(args)
    if args.workers or args.dtype or args.overwrite or args.keep_newlines is not None:
        names = "--workers, --dtype, --overwrite and --keep-newlines"
        raise UsageError(f"{names} are for files: add --out, and give the name of a file")
    tokenizer = find_tokenizer(args.tokenizer)
    ids = encode_text(tokenizer, args.text, args.special)
    tokens = [tokenizer.decode([i]) for i in ids]
    if args.json:
        print(json.dumps({"ids": ids, "tokens": tokens}))
    else:
        print(*ids)
        print("|".join(_printable(token) for token in tokens))
    return 0


def _printable(text: str) -> str:
    """Return the text with escapes for the characters that would move the cursor or color the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _encode_file(args: argparse.Namespace) -> int:
    tokenizer = find_tokenizer(args.tokenizer)
    keep = read_newlines(args, args.tokenizer)
    with progress("B", "read") as update:
        made = encode_file(
            tokenizer, args.text, args.out, args.workers, args.dtype, args.special, update, args.overwrite, keep
        )
    kind, source = made.ids.dtype.name, os.path.getsize(args.text)
    if args.json:
        figures = {"out": str(made.path), "tokens": len(made), "dtype": kind, "n_vocab": made.n_vocab, "bytes": source}
        print(json.dumps(figures | {"tokenizer": made.tokenizer, "source": made.source}))
    else:
        per_token = f"{source / len(made):.2f} bytes per token" if source else "from a pipe"
        print(
            f"wrote {made.path}: {len(made):,} tokens as {kind} ({per_token}), and their description, {made.path}.json"
        )
    return 0


def _decode(args: argparse.Namespace) -> int:
    tokenizer = find_tokenizer(args.tokenizer)
    words = " ".join(args.ids).replace(",", " ").split()
    try:
        ids = [int(word) for word in words]
    except ValueError:
        if len(args.ids) > 1 or not Path(args.ids[0]).exists():
            raise UsageError(
                f"ids must be whole numbers, or one file of ids; got {' '.join(words)!r}, and no file has that name"
            ) from None
        texts = _decode_file(tokenizer, TokenFile.open(args.ids[0], args.dtype))
    else:
        texts = iter([tokenizer.decode(ids), "" if args.json else "\n"])
    if args.json:
        print(json.dumps({"text": "".join(texts)}))
        return 0
    for text in texts:
        print(text, end="")
    return 0


def _decode_file(tokenizer: AnyTokenizer, file: TokenFile) -> Iterator[str]:
    """Yield the text of a token file, in pieces of whole characters."""
    file.check(tokenizer)
    decoder = StreamDecoder(tokenizer)
    for start in range(0, len(file), DECODED_AT_ONCE):
        yield "".join(map(decoder.push, file.ids[start : start + DECODED_AT_ONCE].tolist()))
    yield decoder.finish()


def _explain(args: argparse.Namespace) -> int:
    tokenizer = find_tokenizer(args.tokenizer)
    ids = encode_text(tokenizer, args.text, args.special)
    words: list[tuple[str, list[list[int]]]] = []  # each with its tokens after 0, 1, 2, … merges
    for index, part in enumerate(split_at(tokenizer.special_tokens if args.special == "allow" else (), args.text)):
        if index % 2:  # a special token: one id, which is not split
            words.append((part, [[tokenizer.special_tokens[part]]]))
            continue
        for word in tokenizer.split(part):
            if len(word) > EXPLAINED:
                raise UsageError(f"a word may have at most {EXPLAINED} characters to be explained, got {len(word)}")
            words.append((word, tokenizer.explain_word(word)))
    if args.json:
        shown = [
            {"text": word, "steps": steps, "tokens": [visible(tokenizer.decode_bytes([i])) for i in steps[-1]]}
            for word, steps in words
        ]
        print(json.dumps({"text": args.text, "pre_tokens": shown, "ids": ids}))
        return 0
    pieces = isinstance(tokenizer, WordPieceTokenizer)
    no = "piece" if pieces else "merge"
    print(f"{color('1. split', 'bold')} into {_count(len(words), 'pre-token')}, which no {no} crosses")
    print("   " + color("|", "dim").join(visible(word.encode()) for word, _ in words))
    if pieces:
        print(f"{color('2. pieces', 'bold')}: from the left, the longest that the vocabulary has; ## continues a word")
    else:
        print(f"{color('2. merge', 'bold')} neighbors inside each: start with the pair that was learned earliest")
    for word, steps in dict(words).items():
        _print_merges(tokenizer, word, steps)
    print(f"{color('3. ids', 'bold')}: {_count(len(ids), 'token')}")
    print("   " + " ".join(map(str, ids)))
    print(color(LEGEND, "dim"))
    return 0


def _print_merges(tokenizer: AnyTokenizer, word: str, steps: list[list[int]]) -> None:
    """Print a pre-token as bytes, then one line per merge, with the new token in green."""
    print(f"\n   {color(visible(word.encode()), 'blue')}")
    lines: list[tuple[str, str, list[int], int]] = [("", "", steps[0], -1)]  # pair, number of the merge, ids, new id
    for before, after in pairwise(steps):
        at = next(i for i, token_id in enumerate(after) if token_id != before[i])
        left, right = (visible(tokenizer.decode_bytes([i])) for i in before[at : at + 2])
        lines.append((f"{left} + {right}", f"merge {after[at] - 255:,}", after, after[at]))
    widths = max(len(line[0]) for line in lines), max(len(line[1]) for line in lines)
    for pair, rank, ids, made in lines:
        tokens = [visible(tokenizer.decode_bytes([i])) for i in ids]
        colored = [color(t, "green") if i == made else t for i, t in zip(ids, tokens, strict=True)]
        note = f"{pair:<{widths[0]}}  {rank:<{widths[1]}}  " if len(lines) > 1 else ""
        print(f"      {note}{color('|', 'dim').join(colored)}")
    print(f"      {color('→', 'dim')} {' '.join(map(str, steps[-1]))}")


def _stats(args: argparse.Namespace) -> int:
    tokenizer = find_tokenizer(args.tokenizer)

    def texts() -> Iterator[str]:
        for stretch in read_corpus(args.file, uncut(tokenizer), read_newlines(args, args.tokenizer)):
            if args.special == "error":
                refuse_special(tokenizer, stretch.text, stretch.where(args.file), stretch.place)
            yield stretch.text

    try:
        counts = token_statistics(tokenizer, texts(), args.special == "allow")
    except TokenizerError as error:
        raise UsageError(error if str(error).startswith(args.file) else f"{args.file}: {error}") from None
    figures = _figures(tokenizer, counts, args.top)
    if args.json:
        print(json.dumps(figures))
        return 0
    print(
        f"{counts.characters:,} characters, {counts.bytes:,} bytes, {figures['tokens']:,} tokens: "
        f"{figures['bytes_per_token']:.2f} bytes per token"
    )
    used, single = figures["distinct_tokens"], figures["single_byte_share"]
    print(f"{used:,} of {tokenizer.n_vocab:,} tokens are used; {single:.1%} of the text's are single bytes")
    if counts.words:
        print(f"{figures['tokens_per_word']:.2f} tokens per word (words are separated by white space)")
    total = counts.pre_tokens.total()
    shares = [f"{counts.pre_tokens[n] / total:.1%} take {n}" for n in (1, 2, 3) if counts.pre_tokens[n]]
    if more := sum(count for n, count in counts.pre_tokens.items() if n > 3):
        shares.append(f"{more / total:.1%} more")
    if shares:
        print(f"of {total:,} pre-tokens, {', '.join(shares)}")
    for title, rows in (("most frequent", figures["most_frequent"]), ("longest", figures["longest"])):
        print("\n" + color(f"{title} tokens", "bold"))
        for entry in rows:
            print(f"{entry['count']:>10,} ×  {entry['id']:>6}  {entry['token']}")
    print(color(LEGEND, "dim"))
    return 0


def _figures(tokenizer: AnyTokenizer, counts: TokenStatistics, top: int) -> dict[str, Any]:
    """Return what `stats --json` prints."""
    used, total = counts.tokens, counts.tokens.total()
    spelled = {token_id: tokenizer.decode_bytes([token_id]) for token_id in used}

    def rows(ids: list[int]) -> list[dict[str, Any]]:
        return [{"id": i, "token": visible(spelled[i]), "bytes": len(spelled[i]), "count": used[i]} for i in ids[:top]]

    return {
        "characters": counts.characters,
        "bytes": counts.bytes,
        "tokens": total,
        "bytes_per_token": counts.bytes / total,
        "distinct_tokens": len(used),
        "n_vocab": tokenizer.n_vocab,
        "single_byte_share": sum(count for i, count in used.items() if len(spelled[i]) == 1) / total,
        "words": counts.words,
        "tokens_per_word": total / counts.words if counts.words else None,
        "pre_tokens_by_length": {str(length): counts.pre_tokens[length] for length in sorted(counts.pre_tokens)},
        "most_frequent": rows(sorted(used, key=lambda i: (-used[i], i))),
        "longest": rows(sorted(used, key=lambda i: (-len(spelled[i]), i))),
    }


def _export(args: argparse.Namespace) -> int:
    tokenizer = find_tokenizer(args.tokenizer)
    if isinstance(tokenizer, CharTokenizer):
        raise UsageError(f"{args.tokenizer}: its tokens are characters; GPT-2's files hold byte pairs")
    names = ("vocab.bpe", "encoder.json") if isinstance(tokenizer, Tokenizer) else (VOCAB,)
    for name in names:
        check_new(args.folder / name, args.overwrite)
    if isinstance(tokenizer, Tokenizer):
        tokenizer.save_gpt2(args.folder)
    else:
        make_folder(args.folder)
        tokenizer.save_vocab(args.folder / VOCAB)
    written = [str(args.folder / name) for name in names]
    print(json.dumps({"written": written}) if args.json else f"wrote {' and '.join(written)}")
    return 0


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

"""`tinygrad-llm tokenizer`: train one; encode and decode; explain the merges of a text; statistics of a file."""

import argparse
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from tinygrad_llm.cli import UsageError
from tinygrad_llm.cli.options import add_json, closest, color, find_tokenizer, integer, visible
from tinygrad_llm.cli.progress import bar_on_terminal
from tinygrad_llm.datasets import CORPORA, TokenFile, encode_file, load_corpus, read_stretches, refuse_special
from tinygrad_llm.datasets.tokens import Special, Stretch
from tinygrad_llm.tokenizer import AnyTokenizer, StreamDecoder, Tokenizer
from tinygrad_llm.tokenizer.bpe import END_OF_TEXT

EXAMPLE = 'tinygrad-llm tokenizer encode "Hello, do you like tea?"'
EXPLAINED = 200  # characters of a word
DECODED_AT_ONCE = 1 << 16  # ids
MEND_SPECIAL = "add --allow-special to mean it as such, or --plain-special to take it for plain text"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    which = argparse.ArgumentParser(add_help=False)
    which.add_argument(
        "--tokenizer", default="gpt2", metavar="NAME", help="gpt2 (default), a tokenizer file, or the folder of a run"
    )
    add_json(which)
    special = argparse.ArgumentParser(add_help=False)
    either = special.add_mutually_exclusive_group()
    either.add_argument(
        "--allow-special", action="store_true", help="read a special token such as <|endoftext|> as that token"
    )
    either.add_argument("--plain-special", action="store_true", help="… as plain text (without either, as an error)")

    train = actions.add_parser(
        "train",
        help="learn merges from texts, and save them",
        epilog="example: tinygrad-llm tokenizer train stories --vocab-size 512 --out stories.json",
    )
    train.add_argument("corpus", nargs="+", help="UTF-8 text files, or names of bundled corpora")
    train.add_argument("--vocab-size", type=integer(1), default=1024, metavar="N", help="tokens (default 1024)")
    train.add_argument(
        "--special", nargs="+", default=[], metavar="TOKEN", help=f"special tokens to have besides {END_OF_TEXT}"
    )
    train.add_argument("--out", type=Path, required=True, metavar="FILE", help="where to save it, as JSON")
    add_json(train)

    encoding = actions.add_parser(
        "encode", parents=[which, special], help="text → ids; a file → a file of ids", epilog=f"example: {EXAMPLE}"
    )
    encoding.add_argument("text", help="the text; with --out, the name of a UTF-8 file")
    encoding.add_argument("--out", type=Path, metavar="FILE", help="write the ids of a file here, in binary")
    encoding.add_argument("--workers", type=integer(1), metavar="N", help="processes, with --out (default: all cores)")
    encoding.add_argument(
        "--dtype", choices=["uint16", "uint32"], help="of an id, with --out (default: the smaller one that holds all)"
    )

    decoding = actions.add_parser(
        "decode",
        parents=[which],
        help="ids, or a file of them → text",
        epilog="example: tinygrad-llm tokenizer decode 15496 11 995",
    )
    decoding.add_argument("ids", nargs="+", help="numbers, separated by spaces or commas; or one file of ids")
    decoding.add_argument("--dtype", choices=["uint16", "uint32"], help="of a raw file, without its .json")

    explaining = actions.add_parser(
        "explain",
        parents=[which, special],
        help="show how a text is split, and then every merge",
        epilog='example: tinygrad-llm tokenizer explain " Hello, do you like tea?"',
    )
    explaining.add_argument("text")

    stats = actions.add_parser(
        "stats",
        parents=[which, special],
        help="what the tokens of a text are like",
        epilog="example: tinygrad-llm tokenizer stats stories --allow-special",
    )
    stats.add_argument("file", help="a UTF-8 text file, or the name of a bundled corpus")
    stats.add_argument("--top", type=integer(1), default=10, metavar="N", help="how many tokens to list (default 10)")

    export = actions.add_parser(
        "export",
        help="write GPT-2's pair of files, for other tools",
        epilog="example: tinygrad-llm tokenizer export stories.json stories-gpt2",
    )
    export.add_argument("tokenizer", metavar="NAME", help="gpt2, a tokenizer file, or the folder of a run")
    export.add_argument("folder", type=Path, help="where vocab.bpe and encoder.json go; made if it is not there")
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
    if os.path.lexists(args.out):
        raise UsageError(f"{args.out}: exists already; choose another --out")
    try:
        args.out.parent.mkdir(parents=True, exist_ok=True)  # now, not after minutes of training
    except OSError as error:
        raise UsageError(f"{args.out}: its folder cannot be made: {error.strerror}; choose another --out") from error
    special_tokens = list(dict.fromkeys([END_OF_TEXT, *args.special]))
    texts = (stretch.text for name in args.corpus for stretch in _pieces(name, special_tokens))
    with bar_on_terminal("merges") as progress:
        tokenizer = Tokenizer.train(texts, args.vocab_size, special_tokens, progress=progress)
    tokenizer.save(args.out)
    figures = {"out": str(args.out), "n_vocab": tokenizer.n_vocab, "special_tokens": tokenizer.special_tokens}
    print(json.dumps(figures) if args.json else f"wrote {args.out}: {tokenizer.n_vocab} tokens")
    if tokenizer.n_vocab < args.vocab_size:
        print(f"(nothing more repeats in this text, so they are fewer than {args.vocab_size})", file=sys.stderr)
    return 0


def _encode(args: argparse.Namespace) -> int:
    if args.out is not None:
        return _encode_file(args)
    if args.workers or args.dtype:
        raise UsageError("--workers and --dtype are for files: add --out, and give the name of a file")
    tokenizer = find_tokenizer(args.tokenizer)
    ids = _ids(tokenizer, args.text, args)
    tokens = [tokenizer.decode([i]) for i in ids]
    if args.json:
        print(json.dumps({"ids": ids, "tokens": tokens}))
    else:
        print(*ids)
        print("|".join(_printable(token) for token in tokens))
    return 0


def _printable(text: str) -> str:
    """The text, with what would move the cursor or colour the terminal written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _encode_file(args: argparse.Namespace) -> int:
    tokenizer = find_tokenizer(args.tokenizer)
    special: Special = "allow" if args.allow_special else "plain" if args.plain_special else "error"
    with bar_on_terminal("B", "read") as progress:
        made = encode_file(tokenizer, args.text, args.out, args.workers, args.dtype, special, progress)
    kind, source = made.ids.dtype.name, os.path.getsize(args.text)
    if args.json:
        figures = {"out": str(made.path), "tokens": len(made), "dtype": kind, "n_vocab": made.n_vocab, "bytes": source}
        print(json.dumps(figures | {"tokenizer": made.tokenizer, "source": made.source}))
    else:
        per_token = f"{source / len(made):.2f} bytes a token" if source else "from a pipe"
        print(f"wrote {made.path}: {len(made):,} tokens as {kind} ({per_token}), and {made.path}.json, what they are")
    return 0


def _decode(args: argparse.Namespace) -> int:
    tokenizer = find_tokenizer(args.tokenizer)
    words = " ".join(args.ids).replace(",", " ").split()
    try:
        ids = [int(word) for word in words]
    except ValueError:
        if len(args.ids) > 1 or not Path(args.ids[0]).exists():
            raise UsageError(
                f"ids are whole numbers, not {' '.join(words)!r}; nor is there a file of that name"
            ) from None
        texts = _decoded(tokenizer, TokenFile.open(args.ids[0], args.dtype))
    else:
        texts = iter([tokenizer.decode(ids), "" if args.json else "\n"])
    if args.json:
        print(json.dumps({"text": "".join(texts)}))
        return 0
    for text in texts:
        print(text, end="")
    return 0


def _decoded(tokenizer: AnyTokenizer, file: TokenFile) -> Iterator[str]:
    """The text of a token file, piece by piece, each a row of whole characters."""
    file.check(tokenizer)
    decoder = StreamDecoder(tokenizer)
    for start in range(0, len(file), DECODED_AT_ONCE):
        yield "".join(map(decoder.push, file.ids[start : start + DECODED_AT_ONCE].tolist()))
    yield decoder.finish()


def _explain(args: argparse.Namespace) -> int:
    tokenizer = find_tokenizer(args.tokenizer)
    ids = _ids(tokenizer, args.text, args)
    # In turn plain text and, where they are allowed, special tokens: each of these is one id, and not split.
    special = sorted(tokenizer.special_tokens, key=len, reverse=True) if args.allow_special else []
    parts = re.split(f"({'|'.join(map(re.escape, special))})", args.text) if special else [args.text]
    words: list[tuple[str, list[list[int]]]] = []
    longest = max((len(word) for part in parts for word in tokenizer.split(part)), default=0)
    if longest > EXPLAINED:
        raise UsageError(f"a word of {longest} characters is too long to read merge by merge: give at most {EXPLAINED}")
    for index, part in enumerate(parts):
        if index % 2:
            words.append((part, [[tokenizer.special_tokens[part]]]))
        else:
            words += [(word, tokenizer.explain_word(word)) for word in tokenizer.split(part)]
    if args.json:
        shown = [
            {"text": word, "steps": steps, "tokens": [visible(tokenizer.decode_bytes([i])) for i in steps[-1]]}
            for word, steps in words
        ]
        print(json.dumps({"text": args.text, "pre_tokens": shown, "ids": ids}))
        return 0
    print(f"{color('1. split', 'bold')} into {_count(len(words), 'pre-token')}, which no merge crosses")
    print("   " + color("|", "dim").join(visible(word.encode()) for word, _ in words))
    print(f"{color('2. merge', 'bold')} neighbours inside each, the pair that was learned first coming first")
    told: set[str] = set()
    for word, steps in words:
        if word not in told:
            told.add(word)
            _tell(tokenizer, word, steps)
    print(f"{color('3. ids', 'bold')}: {_count(len(ids), 'token')}")
    print("   " + " ".join(map(str, ids)))
    print(color("(␣ is a space; two digits such as F0 or 0A are one byte, in hexadecimal)", "dim"))
    return 0


def _tell(tokenizer: AnyTokenizer, word: str, steps: list[list[int]]) -> None:
    """Print a pre-token as bytes, then a line a merge, with what it made in green."""
    print(f"\n   {color(visible(word.encode()), 'blue')}")
    lines: list[tuple[str, str, list[int], int]] = [("", "", steps[0], -1)]
    for before, after in pairwise(steps):
        at = next(i for i, token_id in enumerate(after) if token_id != before[i])
        left, right = (visible(tokenizer.decode_bytes([i])) for i in before[at : at + 2])
        lines.append((f"{left} + {right}", f"merge {after[at] - 255:,}", after, after[at]))
    widths = [max(map(len, column)) for column in ([line[0] for line in lines], [line[1] for line in lines])]
    for pair, rank, ids, made in lines:
        tokens = [visible(tokenizer.decode_bytes([i])) for i in ids]
        coloured = [color(t, "green") if i == made else t for i, t in zip(ids, tokens, strict=True)]
        note = f"{pair:<{widths[0]}}  {rank:<{widths[1]}}  " if len(lines) > 1 else ""
        print(f"      {note}{color('|', 'dim').join(coloured)}")
    print(f"      {color('→', 'dim')} {' '.join(map(str, steps[-1]))}")


def _stats(args: argparse.Namespace) -> int:
    tokenizer = find_tokenizer(args.tokenizer)
    special = tokenizer.special_tokens if args.allow_special else ()
    pattern = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or r"(?!)")
    words: Counter[str] = Counter()
    used: Counter[int] = Counter()
    characters = size = spaced = 0
    for start, _, text in _pieces(args.file, tokenizer.special_tokens):
        if not args.plain_special and not args.allow_special:
            refuse_special(tokenizer, text, args.file, start, MEND_SPECIAL)
        characters += len(text)
        size += len(text.encode())
        spaced += len(text.split())
        for part in pattern.split(text):
            words.update(tokenizer.split(part))
        used.update(tokenizer.special_tokens[token] for token in pattern.findall(text))
    lengths: Counter[int] = Counter()  # tokens of a pre-token → how many pre-tokens
    for word, count in words.items():
        ids = tokenizer.encode(word, disallowed_special=())
        lengths[len(ids)] += count
        for token_id in ids:
            used[token_id] += count
    total, pre_tokens = used.total(), lengths.total()
    spelled = {token_id: tokenizer.decode_bytes([token_id]) for token_id in used}
    frequent = sorted(used, key=lambda i: (-used[i], i))[: args.top]
    longest = sorted(used, key=lambda i: (-len(spelled[i]), i))[: args.top]
    single = sum(count for token_id, count in used.items() if len(spelled[token_id]) == 1)

    def row(token_id: int) -> dict[str, Any]:
        token = spelled[token_id]
        return {"id": token_id, "token": visible(token), "bytes": len(token), "count": used[token_id]}

    figures: dict[str, Any] = {
        "characters": characters,
        "bytes": size,
        "tokens": total,
        "bytes_per_token": size / total,
        "distinct_tokens": len(used),
        "n_vocab": tokenizer.n_vocab,
        "single_byte_share": single / total,
        "words": spaced,
        "tokens_per_word": total / spaced if spaced else None,
        "pre_tokens_by_length": {str(length): lengths[length] for length in sorted(lengths)},
        "most_frequent": [row(i) for i in frequent],
        "longest": [row(i) for i in longest],
    }
    if args.json:
        print(json.dumps(figures))
        return 0
    print(f"{characters:,} characters, {size:,} bytes, {total:,} tokens: {size / total:.2f} bytes a token")
    print(
        f"{len(used):,} of {tokenizer.n_vocab:,} tokens are used; {single / total:.1%} of the text's are single bytes"
    )
    if spaced:
        print(f"{total / spaced:.2f} tokens a word (white space between words)")
    share = [f"{lengths[length] / pre_tokens:.1%} take {length}" for length in (1, 2, 3) if lengths[length]]
    if more := sum(count for length, count in lengths.items() if length > 3):
        share.append(f"{more / pre_tokens:.1%} more")
    if share:
        print(f"of {pre_tokens:,} pre-tokens, {', '.join(share)}")
    for title, rows in (("most frequent", figures["most_frequent"]), ("longest", figures["longest"])):
        print("\n" + color(f"{title} tokens", "bold"))
        for entry in rows:
            print(f"{entry['count']:>10,} ×  {entry['id']:>6}  {entry['token']}")
    print(color("(␣ is a space; two digits such as F0 or 0A are one byte, in hexadecimal)", "dim"))
    return 0


def _export(args: argparse.Namespace) -> int:
    tokenizer = find_tokenizer(args.tokenizer)
    if not isinstance(tokenizer, Tokenizer):
        raise UsageError(f"{args.tokenizer}: its tokens are characters; GPT-2's files hold byte pairs")
    names = ("vocab.bpe", "encoder.json")
    for name in names:
        if os.path.lexists(args.folder / name):
            raise UsageError(f"{args.folder / name}: exists already; choose another folder")
    tokenizer.save_gpt2(args.folder)
    written = [str(args.folder / name) for name in names]
    print(json.dumps({"written": written}) if args.json else f"wrote {' and '.join(written)}")
    return 0


def _ids(tokenizer: AnyTokenizer, text: str, args: argparse.Namespace) -> list[int]:
    """The ids of a text from the command line; the two options say what a special token in it is."""
    if args.plain_special:
        return tokenizer.encode(text, disallowed_special=())
    if not args.allow_special:
        refuse_special(tokenizer, text, "the text", mend=MEND_SPECIAL)
    return tokenizer.encode(text, allowed_special="all")


def _pieces(name: str, special_tokens: Sequence[str] | dict[str, int]) -> Iterator[Stretch]:
    """The text of a bundled corpus, or of a file, in stretches that no token crosses."""
    if name in CORPORA:
        text = load_corpus(name)
        yield Stretch(0, len(text.encode()), text)
        return
    if not Path(name).exists():
        raise UsageError(f"{name}: no such file, and no such corpus{closest(name, list(CORPORA))}")
    empty = True
    for stretch in read_stretches(name, special_tokens):
        empty = empty and not stretch.text.strip()
        yield stretch
    if empty:
        raise UsageError(f"{name}: the file is empty; give one with text in it")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"

"""What several subcommands share: argument types, which refuse with a clear line what they cannot use; words."""

import argparse
import difflib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tinygrad_llm.cli import UsageError
from tinygrad_llm.datasets import refuse_special
from tinygrad_llm.runs.run import FILES, holds_run
from tinygrad_llm.tokenizer import AnyTokenizer, Tokenizer, load_tokenizer


def integer(least: int) -> Callable[[str], int]:
    """An argparse type: an integer of at least `least`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least {least}")
        return value

    return parse


def folder(text: str) -> Path:
    """An argparse type: a folder's path; of nothing at all, which a forgotten variable gives, Path makes this one."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty: name a folder")
    return Path(text)


def add_seed(parser: argparse.ArgumentParser, default: int = 0) -> None:
    """Add --seed."""
    parser.add_argument(
        "--seed", type=integer(0), default=default, metavar="N", help=f"of all randomness (default {default})"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def add_special(parser: argparse.ArgumentParser) -> None:
    """Add --allow-special."""
    parser.add_argument("--allow-special", action="store_true", help="read <|endoftext|> in the text as that token")


def encode(tokenizer: AnyTokenizer, text: str, allow_special: bool) -> list[int]:
    """The ids of a text from the command line; a special token in it needs --allow-special."""
    if not allow_special:
        refuse_special(tokenizer, text, "the text")
    return tokenizer.encode(text, allowed_special="all" if allow_special else frozenset())


def find_tokenizer(name: str) -> AnyTokenizer:
    """The tokenizer that --tokenizer names: gpt2, a tokenizer file, or the folder of a run."""
    return Tokenizer.gpt2() if name == "gpt2" else load_tokenizer(name)


def visible(data: bytes) -> str:
    """The characters of some bytes; a space as ␣; in hexadecimal what cannot be shown, half a character for one."""
    shown: list[tuple[bool, str]] = []  # whether it is in hexadecimal, and how it is written
    # What is no UTF-8 comes as U+DC80 … U+DCFF, byte by byte.
    for character in data.decode(errors="surrogateescape"):
        if "\udc80" <= character <= "\udcff":
            shown.append((True, f"{ord(character) - 0xDC00:02X}"))
        elif character == " ":
            shown.append((False, "␣"))
        elif character.isprintable():
            shown.append((False, character))
        else:
            shown += [(True, f"{byte:02X}") for byte in character.encode()]
    text = ""
    for index, (hexadecimal, written) in enumerate(shown):
        text += " " * (index > 0 and (hexadecimal or shown[index - 1][0])) + written
    return text


def check_out(folder: Path, overwrite: bool) -> Path:
    """A folder to write a run into, looked at before the work and not after it.

    An earlier run there is not written over unless that was asked for.
    """
    nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise UsageError(f"{nearest}: is a file; --out names a folder")
    if not os.access(nearest, os.W_OK):
        raise UsageError(f"{nearest}: cannot be written to; choose another --out")
    if folder.is_symlink() and not folder.exists():
        raise UsageError(f"{folder}: is a link to nothing; choose another --out")
    blocked = [folder / name for name in FILES if (folder / name).is_dir()]
    if blocked:
        raise UsageError(f"{blocked[0]}: is a folder, where a file of the run would go; move it away")
    if holds_run(folder) and not overwrite:
        raise UsageError(f"{folder}: holds a run already; choose another --out, or add --overwrite")
    return folder


_CODES = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "bold": 1, "dim": 2}


def colour(text: str, name: str) -> str:
    """Text in colour where a terminal shows it, and the user has not asked for none (no-color.org)."""
    shown = sys.stdout is not None and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return f"\x1b[{_CODES[name]}m{text}\x1b[0m" if shown else text


def closest(name: str, known: Sequence[str]) -> str:
    """A question that names the known names most like `name`; empty if none is."""
    like = difflib.get_close_matches(name, known, n=3)
    return f", did you mean {' or '.join(like)}?" if like else ""

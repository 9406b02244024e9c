"""Parts that several subcommands share: types of arguments, options, checks of folders, and colors."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from tinygrad_llm.cli import UsageError
from tinygrad_llm.cli.progress import fold, is_terminal, say
from tinygrad_llm.generation import Sampling, words_cropped
from tinygrad_llm.models import GPT
from tinygrad_llm.random import MAX_SEED
from tinygrad_llm.runs.folder import FILES, choose_weights, holds_run, keeps_newlines, made_from
from tinygrad_llm.storage.files import not_utf8, open_regular
from tinygrad_llm.tokenizer import AnyTokenizer, Tokenizer, encode_text, load_tokenizer
from tinygrad_llm.tokenizer.files import normalize_newlines

_MAX_BYTES = 20_000_000  # of the lines of a file


def integer(least: int, most: int | None = None) -> Callable[[str], int]:
    """An argparse type: an integer of at least `least`, and at most `most`."""
    allowed = f"of at least {least}" if most is None else f"from {least} to {most}"

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"got {text!r}, but it must be an integer {allowed}")
        return value

    return parse


def folder(text: str) -> Path:
    """An argparse type: the path of a folder. Path("") would be the current folder, so an empty text is refused."""
    if not text.strip():
        raise argparse.ArgumentTypeError("got an empty name: name a folder")
    return Path(text)


def add_seed(parser: argparse.ArgumentParser, default: int | None = 0) -> None:
    """Add --seed; without a default, the preset decides it."""
    parser.add_argument(
        "--seed",
        type=integer(0, MAX_SEED),
        default=default,
        metavar="N",
        help=f"seed of all random numbers (default: {'that of the preset' if default is None else default})",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def add_special(parser: argparse.ArgumentParser) -> None:
    """Add --allow-special and --plain-special; `args.special` is then the `tokenizer.Special` of the user."""
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--allow-special",
        dest="special",
        action="store_const",
        const="allow",
        default="error",
        help="read a special token in the text, such as <|endoftext|>, as that token (default: an error)",
    )
    either.add_argument(
        "--plain-special", dest="special", action="store_const", const="plain", help="read it as plain text"
    )


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Add --checkpoint; see `weights_of`."""
    parser.add_argument(
        "--checkpoint",
        type=_checkpoint,
        metavar="WHICH",
        help="read a checkpoint of the run: best (the lowest held-out loss), last, or the number of its step (default: "
        "the saved model; the last checkpoint, where that is newer)",
    )


def _checkpoint(text: str) -> str | int:
    if text in ("best", "last"):
        return text
    try:
        return integer(0)(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"got {text!r}, but it must be best, last or the number of a step") from None


def weights_of(args: argparse.Namespace, path: Path) -> Path:
    """The path of a run's weights, as --checkpoint asks for them; a checkpoint is named on stderr.

    Raises:   LoadError: the checkpoint is not there.
    """
    chosen = choose_weights(path, args.checkpoint)
    if chosen.note:
        say(f"tinygrad-llm {args.command}: {chosen.note}", sys.stderr)
    return chosen.path


def add_newlines(parser: argparse.ArgumentParser) -> None:
    """Add --keep-newlines; see `read_newlines`."""
    parser.add_argument(
        "--keep-newlines",
        action=argparse.BooleanOptionalAction,
        help="leave the line ends \\r\\n and \\r of Windows in the text, instead of reading them as \\n (default: as "
        "the run did; without a run, no)",
    )


def read_newlines(args: argparse.Namespace, run: str | Path | None = None) -> bool:
    """Whether line ends stay as they are in a text: as the user says, else as the run did."""
    if args.keep_newlines is not None:
        return bool(args.keep_newlines)
    return run is not None and keeps_newlines(run)


def add_crop(parser: argparse.ArgumentParser) -> None:
    """Add --no-crop; `args.crop` is then whether a text that is too long is cut, which `say_cropped` tells."""
    words = "refuse a text that is longer than the model reads (default: it is cut, with a note)"
    parser.add_argument("--no-crop", dest="crop", action="store_false", help=words)


def add_block_size(parser: argparse.ArgumentParser) -> None:
    """Add --block-size: how many tokens a model without absolute positions reads at once; see `set_block_size`."""
    words = "tokens read at once, also more than in training; not for absolute positions (default: as in training). "
    words += "Trained at 64, rotary positions had a loss of 1.21 at 64 and 1.27 at 128; sinusoidal ones 1.48 and 2.54"
    parser.add_argument("--block-size", type=integer(1), metavar="N", help=words)


def set_block_size(args: argparse.Namespace, model: GPT) -> None:
    """Let a model read as many tokens at once as --block-size says.

    Raises:   UsageError: the model's positions are absolute.
    """
    if args.block_size is not None:
        try:
            model.set_block_size(args.block_size)
        except ValueError as error:
            raise UsageError(f"--block-size {args.block_size}: {error}") from None


def say_cropped(args: argparse.Namespace, count: int, of: int, longest: int, part: str = "beginning") -> None:
    """Tell on stderr that texts lost a part, if some did."""
    if count:
        say(fold(f"tinygrad-llm {args.command}: {words_cropped(count, of, longest, part)}", hang="    "), sys.stderr)


def add_sampling(parser: argparse.ArgumentParser, temperature: float = 0.8) -> None:
    """Add --stop, and the options of `sampling_of`."""
    words = f"0: always the likeliest token (default {temperature})"
    parser.add_argument("--temperature", type=float, default=temperature, metavar="T", help=words)
    parser.add_argument("--top-k", type=int, metavar="K", help="draw only from the K likeliest tokens")
    words = "draw only from the fewest likeliest tokens that sum to P"
    parser.add_argument("--top-p", type=float, metavar="P", help=words)
    words = "above 1: tokens that the text has already are less likely (default 1)"
    parser.add_argument("--repetition-penalty", type=float, default=1.0, metavar="R", help=words)
    words = 'never write the tokens that this text is made of, such as " the"; may be repeated'
    parser.add_argument("--forbid", action="append", default=[], metavar="TEXT", help=words)
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before this; may be repeated")


def sampling_of(args: argparse.Namespace, tokenizer: AnyTokenizer | None = None) -> Sampling:
    """How the user wants tokens to be chosen; without a tokenizer, only to check the numbers before the work.

    Raises:   UsageError: a number is out of range, a text to forbid or to stop at is empty, all tokens are forbidden.
              TokenizerError: a text to forbid has a character that the tokenizer lacks.
    """
    for option in ("forbid", "stop"):
        if "" in getattr(args, option):
            raise UsageError(f"--{option}: got an empty text")
    forbidden: set[int] = set()
    if tokenizer is not None:
        for text in args.forbid:
            forbidden.update(encode_text(tokenizer, text, "allow", f"--forbid {text}"))
        if len(forbidden) >= tokenizer.n_vocab:
            raise UsageError(f"--forbid: all {tokenizer.n_vocab} tokens are forbidden")
    try:
        return Sampling(args.temperature, args.top_k, args.top_p, args.repetition_penalty, tuple(sorted(forbidden)))
    except ValueError as error:
        raise UsageError(str(error)) from None


def find_tokenizer(name: str) -> AnyTokenizer:
    """The tokenizer that --tokenizer names: gpt2, the file of a tokenizer, or the folder of a run."""
    return Tokenizer.gpt2() if name == "gpt2" else load_tokenizer(name)


def visible(data: bytes) -> str:
    """Bytes as printable text: a space as ␣, and bytes that are no printable character in hexadecimal."""
    shown: list[tuple[bool, str]] = []  # (whether in hexadecimal, the text)
    # Bytes that are not UTF-8 are decoded as U+DC80 … U+DCFF, one character per byte.
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


def add_overwrite(parser: argparse.ArgumentParser, what: str = "a file that is already there") -> None:
    """Add --overwrite. Without it, every command refuses to write over what is there."""
    parser.add_argument("--overwrite", action="store_true", help=f"replace {what}")


def check_new(path: Path, overwrite: bool) -> None:
    """Check before the work that a file may be written.

    Raises:   UsageError: it is there already, and `overwrite` is false; it is a folder.
    """
    if os.path.lexists(path) and not overwrite:
        raise UsageError(f"{path}: exists already: choose another name, or add --overwrite")
    if path.is_dir():
        raise UsageError(f"{path}: is a folder: name a file")


def check_out(folder: Path, overwrite: bool, start: str = "") -> Path:
    """Check before the work that a run can be written into a folder. Returns the folder.

    Args:     start: the model that the run starts from, if any. Neither its files nor those of the models that it was
              made from are replaced, or mixed with those of the run.
    Raises:   UsageError: the folder cannot be written to; it holds a run and `overwrite` is false; it is a folder of
              `start`, is inside one, or holds one.
    """
    for source in made_from(start):
        own, place = folder.resolve(), source.resolve()
        if own == place or own in place.parents or place in own.parents:
            how = "is the folder" if own == place else "holds the folder" if own in place.parents else "is inside that"
            raise UsageError(f"{folder}: {how} of {source}, which the run starts from: choose another --out")
    nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise UsageError(f"{nearest}: is a file, but --out must name a folder")
    if not os.access(nearest, os.W_OK):
        raise UsageError(f"{nearest}: cannot be written to: choose another --out")
    if folder.is_symlink() and not folder.exists():
        raise UsageError(f"{folder}: is a link to a missing folder: choose another --out")
    blocked = [folder / name for name in FILES if (folder / name).is_dir()]
    if blocked:
        raise UsageError(f"{blocked[0]}: is a folder, but the run writes a file of this name: move the folder away")
    if holds_run(folder) and not overwrite:
        raise UsageError(f"{folder}: already holds a run: choose another --out, or add --overwrite")
    return folder


_CODES = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "bold": 1, "dim": 2}


def color(text: str, name: str) -> str:
    """The text in a color, if stdout is a terminal that has them and the user has not set NO_COLOR (no-color.org)."""
    shown = is_terminal(sys.stdout) and not os.environ.get("NO_COLOR")
    return f"\x1b[{_CODES[name]}m{text}\x1b[0m" if shown else text


def read_lines(path: Path | None) -> dict[str, str]:
    """The lines of a UTF-8 text by name: "FILE: line 1". None: those of stdin."""
    where = "stdin" if path is None else str(path)
    if path is not None:
        with open_regular(path) as file:
            data = file.read(_MAX_BYTES + 1)
    elif sys.stdin is None:
        raise UsageError("there is no stdin: give a text, or --file FILE")
    else:
        data = sys.stdin.buffer.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise UsageError(f"{where}: longer than {_MAX_BYTES} bytes: split it")
    try:
        text = normalize_newlines(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}: {not_utf8(error)}") from None
    return {f"{where}: line {number}": line for number, line in enumerate(text.split("\n"), 1)}

"""The command line: one small file per subcommand.

Every error that a user can cause ends with exit status 2 and one line on stderr: what, where, and how to mend it.
"""

import argparse
import contextlib
import errno
import importlib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn, Protocol

from tinygrad_llm import __version__
from tinygrad_llm.runtime import started
from tinygrad_llm.storage.text import nearest, one_line

COMMANDS = {
    "demo": "train a small GPT on stories, prove its gradient, and let it write",
    "train": "train a GPT or an encoder on a text, or a translator on pairs of sentences",
    "finetune": "make a classifier or an assistant out of a trained model",
    "classify": "name the class of a text, with the classifier of a fine-tuning run",
    "sweep": "train a model with every combination of some settings, and rank them",
    "eval": "score a model: loss and perplexity on a text, multiple choice, next tokens",
    "generate": "let a trained model continue a prompt",
    "fill": "guess the words that a text hides behind [MASK], with an encoder",
    "translate": "translate sentences with a translator of `train`",
    "chat": "talk with an assistant, in the terminal or on a page in the browser",
    "gradcheck": "prove the gradient of every kernel and layer",
    "explain": "show the formula, derivation, source, numbers and proof of a kernel, function or layer",
    "book": "compute every number that the book prints, and compare",
    "trace": "write a page that steps through a forward and backward pass, number by number",
    "tokenizer": "train a tokenizer; encode and decode text",
    "bench": "time this package against others, alternating, on the same work",
    "convert": "convert a model to other files: OpenAI's, Hugging Face's, NumPy's or ours",
    "download": "fetch a GPT-2, from OpenAI or the model hub",
    "doctor": "report what this machine offers, and what would make it faster",
}


class UsageError(ValueError):
    """Arguments that cannot be used; the message is for the user."""


class Parser(argparse.ArgumentParser):
    """argparse with errors of one line, which suggest a name that is like an unknown one."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {one_line(message)} (see {self.prog} --help)\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Also called for the arguments of a command, whose parser alone knows its options."""
        known, unknown = super().parse_known_args(args, namespace)
        options = [word.partition("=")[0] for word in unknown if word.startswith("-")]
        if options:
            self.error(f"unknown option {options[0]}{nearest(options[0], self._option_string_actions)}")
        if unknown:
            self.error(f"got more than it takes: {' '.join(unknown)}")
        return known, unknown

    def _match_arguments_partial(self, actions: Any, arg_strings_pattern: str) -> list[int]:
        """How many words each argument takes. One that may be missing waits for the words behind later options."""
        counts: list[int] = super()._match_arguments_partial(actions, arg_strings_pattern)
        while counts and not counts[-1] and "O" in arg_strings_pattern:  # an O is an option
            counts.pop()
        return counts

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, f"got {value!r}{nearest(str(value), map(str, action.choices))}")

    def _print_message(self, message: str, file: Any = None) -> None:
        if started()[0] == 0:  # under mpiexec, only one of the processes prints
            super()._print_message(message, file)


class Command(Protocol):
    """The interface of a subcommand's module."""

    EXAMPLE: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...
    def run(self, args: argparse.Namespace) -> int: ...


def main(argv: Sequence[str] | None = None) -> int:
    """Run `tinygrad-llm` with these arguments (None: those of the process). Returns the exit status."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if sys.stderr is None:  # `2>&-`: print(file=None) would write to stdout, and the next open file would be number 2
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a console that lacks a character shows "?" instead of raising
            stream.reconfigure(errors="replace")
    parser = Parser(
        prog="tinygrad-llm",
        description="Build a large language model from scratch, in NumPy.",
        epilog="tinygrad-llm COMMAND --help explains one command.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if argv and argv[0] == name:  # only the requested module is loaded
            _load(name).add_arguments(subparser)
            subparser.epilog = f"example: {_load(name).EXAMPLE}"
    try:
        args = parser.parse_args(argv)
    except SystemExit as exit:  # argparse ends so after --help and after an error
        return int(exit.code or 0)
    try:
        with _terminated(), _warnings_in_one_line(args.command):
            status = _load(args.command).run(args)
        if sys.stdout is not None:
            sys.stdout.flush()  # a closed pipe then raises here, where it is caught, and not when Python ends
        return status
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader has closed the pipe (`… | head`). Redirect stdout, so that closing it raises no second error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MemoryError:
        print(
            f"tinygrad-llm {args.command}: there is not enough memory for this: choose smaller sizes", file=sys.stderr
        )
        return 2
    except Exception as error:
        code = _user_error(error)
        if code is None:
            raise
        print(f"tinygrad-llm {args.command}: {one_line(_words(error))}", file=sys.stderr)
        return code


@contextlib.contextmanager
def _terminated() -> Iterator[None]:
    """Inside the block, SIGTERM raises SystemExit in the main thread, so that nothing is left half-written."""
    mine = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if mine:
        signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        if mine:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def _warnings_in_one_line(command: str) -> Iterator[None]:
    """Inside the block, a warning of this package is printed as one line for the user, without a source file."""
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if category.__module__.startswith("tinygrad_llm."):
            print(f"tinygrad-llm {command}: warning: {one_line(message)}", file=sys.stderr)
        else:
            usual(message, category, *where, **more)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _terminate(*_: object) -> NoReturn:
    raise SystemExit(143)


def _user_error(error: Exception) -> int | None:
    """The exit status for an error that a user can cause. None for a bug, which keeps its traceback."""
    from tinygrad_llm.datasets import DataError
    from tinygrad_llm.storage.files import LoadError
    from tinygrad_llm.storage.lock import InUseError
    from tinygrad_llm.tokenizer import TokenizerError
    from tinygrad_llm.training import ConfigError, TrainingError

    if isinstance(error, TrainingError):
        return 3
    ours = UsageError | ConfigError | DataError | InUseError | LoadError | TokenizerError | OSError
    return 2 if isinstance(error, ours) else None


def _words(error: Exception) -> str:
    """The message of an error. For one of the operating system: the file and the reason, without its number."""
    if isinstance(error, OSError) and isinstance(error.filename, str | bytes) and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror[:1].lower()}{error.strerror[1:]}"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:  # without a file name: what is printed
        return "stdout: no space left on device"
    return str(error)


def _load(name: str) -> Command:
    module: Command = importlib.import_module(f"tinygrad_llm.cli.{name}")
    return module

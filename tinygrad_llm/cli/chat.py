"""`tinygrad-llm chat`: talk with a model in the terminal, or on a page in the browser."""

import argparse
import contextlib
import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_llm.cli import UsageError
from tinygrad_llm.cli.options import add_checkpoint, add_crop, add_sampling, add_seed, integer, sampling_of, weights_of
from tinygrad_llm.cli.progress import flowing, is_terminal
from tinygrad_llm.finetuning import STYLES
from tinygrad_llm.finetuning.conversation import Conversation
from tinygrad_llm.random import Generator
from tinygrad_llm.runs.folder import load_run, stated_style
from tinygrad_llm.storage.atomic import atomic_write

EXAMPLE = "tinygrad-llm chat runs/assistant"
HELP = """\
/reset        forget this conversation
/system TEXT  put a text before the conversation; without a text: none
/save FILE    write the conversation to a JSON file
/help         show this list
/quit         end, as Ctrl-D does; Ctrl-C stops an answer"""

_STYLE = "alpaca"  # of a model that was trained without one


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = f"Talk with an assistant that `finetune assistant` has trained.\n\n{HELP}"
    parser.add_argument("run", type=Path, help="the folder of the assistant; or of another model")
    parser.add_argument("--style", choices=list(STYLES), help=f"prompt style (default: the assistant's, or {_STYLE})")
    parser.add_argument(
        "--max-new-tokens", type=integer(1), default=200, metavar="N", help="most tokens of an answer (default 200)"
    )
    add_checkpoint(parser)
    add_sampling(parser, temperature=0)
    add_crop(parser)
    words = (
        "earlier turns that the model reads (default: 0 for an assistant of `finetune`, which is trained on single "
        "questions and answers them best; all that fit for another model)"
    )
    parser.add_argument("--history", type=integer(0), metavar="N", help=words)
    parser.add_argument("--system", default="", metavar="TEXT", help="a text that stands before the conversation")
    parser.add_argument("--web", action="store_true", help="serve a page on 127.0.0.1, for this computer alone")
    parser.add_argument(
        "--port", type=integer(0, 65535), default=8000, metavar="N", help="with --web; 0: any (default 8000)"
    )
    add_seed(parser)


def run(args: argparse.Namespace) -> int:
    sampling_of(args)
    style = args.style or stated_style(args.run)
    if style is not None and style not in STYLES:
        raise UsageError(f"{args.run}: was trained with the unknown style {style!r}: choose a --style")
    model, tokenizer = load_run(weights_of(args, args.run))
    sampling = sampling_of(args, tokenizer)
    history = 0 if args.history is None and stated_style(args.run) is not None else args.history

    def new() -> Conversation:
        words, how = STYLES[style or _STYLE], (args.max_new_tokens, history, args.stop, not args.crop)
        chat = Conversation(model, tokenizer, words, sampling, Generator(args.seed), *how)
        chat.system = args.system
        return chat

    chat = new()
    try:
        chat.prompt("")
    except ValueError as error:
        raise UsageError(f"--style {style or _STYLE}, even for an empty text: {error}") from None
    if style is None:
        print(f"({args.run} does not say that it is an assistant: it may not answer)", file=sys.stderr)
    return _serve(new, args) if args.web else _Terminal(chat).run()


def _serve(new: Callable[[], Conversation], args: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    from tinygrad_llm.cli.chat_server import ChatServer

    try:
        server = ChatServer(new, str(args.run), args.port)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"port {args.port}: {reason}: choose another --port; 0 is any free one") from None
    with server:
        print(f"{server.url}  (Ctrl-C ends)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
    return 0


class _Terminal:
    """A conversation line by line. Answers go to stdout, and all other words to stderr."""

    def __init__(self, chat: Conversation) -> None:
        if sys.stdin is None:
            raise UsageError("there is no standard input to read from")
        self.chat = chat
        self.is_watched = sys.stdin.isatty()  # else Ctrl-C ends the program, as it ends others
        self.saved: set[Path] = set()
        self.status = 0

    def run(self) -> int:
        """Answer each line until the input ends. Returns the exit status."""
        if hasattr(sys.stdin, "reconfigure"):
            sys.stdin.reconfigure(errors="replace")
        if self.is_watched:
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401 (input() then has line editing and a history)
            _note("/help lists the commands")
        while True:
            try:
                line = input("you> " if self.is_watched and sys.stdout.isatty() else "")
                if line.strip() in ("/quit", "/exit"):
                    return self.status
                if line.startswith("/"):
                    _note(self.command(line.strip()))
                elif line.strip():
                    self.say(line.strip())
            except EOFError:
                if self.is_watched:
                    print()
                return self.status
            except KeyboardInterrupt:
                if not self.is_watched:
                    raise
                print("\n", end="", flush=True)
                _note("/quit or Ctrl-D ends")

    def say(self, text: str) -> None:
        """Print the answer to a text while it is generated."""
        try:
            pieces = self.chat.answer(text)
            for note in self.chat.notes:
                _note(note)
            with _ctrl_c(self.is_watched) as pressed, contextlib.closing(pieces), np.errstate(all="ignore"):
                line = _line(pieces, pressed)
                for piece in flowing(line) if is_terminal(sys.stdout) else line:
                    print(piece, end="", flush=True)
            if self.chat.cut:
                _note(self.chat.ending)
        except ValueError as error:  # too long; a special token; damaged weights
            _note(str(error))
            self.status = 0 if self.is_watched else 2

    def command(self, line: str) -> str:
        """Do what a line that begins with / says, and return what to print."""
        word, _, rest = line.partition(" ")
        match word:
            case "/reset":
                self.chat.reset()
                return "a new conversation"
            case "/system":
                self.chat.system = rest.strip()
                return "system: " + (self.chat.system or "none")
            case "/save":
                return self.save(rest.strip())
            case "/help":
                return HELP
            case _:
                return f"unknown command {word}\n{HELP}\nA text that begins with / needs a space before it."

    def save(self, name: str) -> str:
        """Write the conversation to a file, which may be there already only if this conversation wrote it."""
        if not name:
            return "name a file: /save FILE"
        try:
            path = Path(name).expanduser().absolute()
            if path.exists() and path not in self.saved:
                return f"{name}: exists already: name another file"
            with atomic_write(path) as file:
                file.write(to_json(self.chat).encode())
        except (OSError, ValueError, RuntimeError) as error:  # no such folder; a NUL in the name; no such user
            return f"{name}: cannot be written: {getattr(error, 'strerror', None) or error}"
        self.saved.add(path)
        return f"saved to {name}"


def to_json(chat: Conversation) -> str:
    """The conversation as a list of messages with roles, the form that most programs for chats read."""
    said: list[tuple[str, str]] = [("system", chat.system)] if chat.system else []
    for turn in chat.turns:
        said += [("user", turn.user), ("assistant", turn.assistant)]
    content: dict[str, Any] = {"messages": [{"role": role, "content": text} for role, text in said]}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _line(pieces: Iterator[str], pressed: list[int]) -> Iterator[str]:
    """The pieces until Ctrl-C was pressed, and a line break."""
    for piece in pieces:
        yield piece
        if pressed:
            yield " …"
            break
    yield "\n"


def _note(text: str) -> None:
    print(text if "\n" in text else f"({text})", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _ctrl_c(noted: bool) -> Iterator[list[int]]:
    """Inside the block, the first Ctrl-C is only noted, so that an answer ends between two tokens; a second raises."""
    pressed: list[int] = []
    if not noted:
        yield pressed
        return

    def note(number: int, _: object) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)

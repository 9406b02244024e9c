"""Lines and progress on the terminal: a bar where tqdm is installed, plain lines where it is not."""

import contextlib
import os
import re
import shlex
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from tinygrad_llm.storage.text import one_line, printable

WIDTH = 80  # columns of all output for readers
_SECONDS = 5.0  # between two plain lines
_DELAY = 1.0  # seconds: what takes less shows no bar, except for steps of training
_BAR = 10  # columns of a bar that can be read
_LAYOUT = "{n_fmt}/{total_fmt} |{bar}| {desc}  {remaining} left"  # tqdm's own leaves little room for the bar


def say(text: str, file: TextIO | None = None) -> None:
    """Print a line at once, to stdout or to `file`.

    If the reader has gone (`… | head`, a terminal that was closed), this line and all later ones are dropped. So
    training continues without its output, which the run's folder also holds.
    """
    file = file or sys.stdout
    try:
        print(text, file=file, flush=True)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, file.fileno())  # the rest of the buffer goes there too
        os.close(nowhere)


def sample_lines(text: str, indent: str) -> str:
    """A text that a model wrote, for readers."""
    text = printable(text.strip())
    return fold(text or "(nothing: it ends the text at once)", indent, break_words=True)


def fold(text: str, indent: str = "", hang: str | None = None, break_words: bool = False) -> str:
    """The text in lines of at most 80 columns, each line of it by itself: words stay whole.

    Args:     indent: before each line of the text. hang: before what continues a line; None: as indent.
              break_words: also break words that are longer than a line; else they stick out, and can be copied.
    """
    folded = textwrap.TextWrapper(
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent if hang is None else hang,
        break_long_words=break_words,
        break_on_hyphens=False,
    )
    return "\n".join(folded.fill(line) for line in text.split("\n"))


def flowing(pieces: Iterable[str]) -> Iterator[str]:
    """Pieces of a text that ends with a line break, for a terminal: a word that would cross its edge begins a new line.

    A word is held back until it is complete.
    """
    columns, column, held = shutil.get_terminal_size().columns, 0, ""
    for piece in pieces:
        held += printable(piece)
        while found := re.match(r"([^\S\n]*)(\n|\S+(?=\s))", held):
            gap, word = found.groups()
            held = held[found.end() :]
            if word != "\n" and column and column + len(gap + word) > columns:
                gap, column = "\n", -1
            yield gap + word
            column = 0 if word == "\n" else column + len(gap + word)


def listed(paths: Sequence[Path]) -> str:
    """Files that were written, as "wrote FOLDER: a, b", with each folder named once."""
    folders: dict[Path, list[str]] = {}
    for path in paths:
        folders.setdefault(path.parent, []).append(path.name)
    lines = (one_line(f"wrote {folder}: {', '.join(names)}") for folder, names in folders.items())
    return fold("\n".join(lines), hang="    ")


def command_line(words: Sequence[str], indent: str = "") -> str:
    """A command to copy, in lines of at most 80 columns where the shell can continue it on the next one."""
    # Double quotes also work in shells that are not POSIX's.
    quoted = [f'"{word}"' if re.fullmatch(r"[\w,.?-]+( [\w,.?-]+)+", word) else shlex.quote(word) for word in words]
    lines = [indent + quoted[0]]
    for word in quoted[1:]:
        if len(lines[-1]) + 1 + len(word) > WIDTH - 2 and os.name == "posix":
            lines.append(f"{indent}    {word}")
        else:
            lines[-1] += f" {word}"
    return " \\\n".join(lines)


class Bar:
    """The progress of one long task: a bar on a terminal that has tqdm, plain lines elsewhere.

    Args:     unit: what is counted, such as "step"; "B" is shown as MB. name: the task, in front. total: None: unknown.
              done: how much was done before. file: where to write; None: stderr. lines: about how many plain lines
              there are in all; 0: one every five seconds.
    """

    def __init__(
        self,
        unit: str,
        name: str = "",
        total: int | None = None,
        done: int = 0,
        file: TextIO | None = None,
        lines: int = 0,
    ) -> None:
        self.unit, self.name, self.total, self.lines = unit, name, total, lines
        self.file = file or sys.stderr
        self._start, self._shown = done, 0
        self._began = self._reported = time.monotonic()
        self._bar: Any = None
        if is_terminal(self.file):
            try:
                from tqdm import tqdm
            except ImportError:
                return
            self._front = "" if unit == "step" else f"{name or unit} "
            self._bar = tqdm(
                total=total,
                initial=done,
                file=self.file,
                unit=unit,
                dynamic_ncols=True,
                bar_format=self._front.replace("{", "{{").replace("}", "}}") + _LAYOUT,
                unit_scale=unit == "B",
                delay=0 if unit == "step" else _DELAY,
            )

    def update(self, done: int, total: int | None = None, words: Sequence[str] = ()) -> None:
        """Show how much is done now, out of how much, and some words about it: the last ones where there is room."""
        self.total = self.total if total is None else total
        if self._bar is not None:
            self._bar.total = self.total
            self._bar.set_description_str(self._fitting(words or self._rate(done)), refresh=False)
            self._bar.update(done - self._bar.n)
        elif self.file is not None and self._due(done):
            say("  ".join(part for part in (self._position(done), *words, self._time_left(done)) if part), self.file)

    def _fitting(self, words: Sequence[str]) -> str:
        """As many of the words as leave room for the bar."""
        room = (
            shutil.get_terminal_size().columns - len(f"{self._front}{self.total}/{self.total} ||   00:00 left") - _BAR
        )
        shown = ""
        for word in words:
            longer = f"{shown}  {word}".strip()
            if len(longer) > room:
                break
            shown = longer
        return shown

    def write(self, text: str, file: TextIO | None = None) -> None:
        """`say` a line without breaking the bar."""
        if self._bar is not None:
            self._bar.clear()
        say(text, file)
        if self._bar is not None:
            self._bar.refresh()

    def close(self) -> None:
        """Leave the bar as it is, and go to the next line."""
        if self._bar is not None:
            self._bar.close()

    def _due(self, done: int) -> bool:
        if self.lines and self.total is not None:
            share = (done - self._start) * self.lines // max(1, self.total - self._start)
            before, self._shown = self._shown, share
            return share > before
        now = time.monotonic()
        if now < self._reported + _SECONDS:
            return False
        self._reported = now
        return True

    def _position(self, done: int) -> str:
        counts = [done] if self.total is None else [done, self.total]
        megabytes = self.unit == "B"
        numbers = "/".join(f"{count / 1e6:.1f}" if megabytes else str(count) for count in counts)
        return f"{self.name or self.unit} {numbers}{' MB' if megabytes else ''}"

    def _rate(self, done: int) -> list[str]:
        seconds = time.monotonic() - self._began
        if not seconds or done <= self._start:
            return []
        rate = (done - self._start) / seconds
        return [f"{rate / 1e6:.1f} MB/s" if self.unit == "B" else f"{rate:,.0f} {self.unit}/s"]

    def _time_left(self, done: int) -> str:
        if self.total is None or done <= self._start:
            return ""
        seconds = (time.monotonic() - self._began) / (done - self._start) * (self.total - done)
        return f"{seconds:.0f} s left"


@contextlib.contextmanager
def progress(unit: str, name: str = "", total: int | None = None) -> Iterator[Callable[..., None]]:
    """Yield the `update` of a Bar that is open during the block."""
    bar = Bar(unit, name, total)
    try:
        yield bar.update
    finally:
        bar.close()


def is_terminal(file: TextIO | None) -> bool:
    """Whether colors and bars can be shown there. `2>&-` leaves a program without stderr; TERM=dumb has no colors."""
    return file is not None and file.isatty() and os.environ.get("TERM") != "dumb"

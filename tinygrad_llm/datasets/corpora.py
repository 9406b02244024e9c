"""Texts to train on: two that are bundled, and any UTF-8 file, whole or in stretches."""

import hashlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from tinygrad_llm.datasets.checks import DataError
from tinygrad_llm.storage.files import LoadError, data_folder, open_regular
from tinygrad_llm.tokenizer import TokenizerError, files
from tinygrad_llm.tokenizer.files import StrPath

CORPORA = {
    "stories": "short stories made by a seeded grammar (1 MB, ships with the package)",
    "python-docs": "the language reference that every CPython carries in pydoc_data.topics (0.5 MB)",
}
STRETCH = 1 << 21  # bytes: a few tenths of a second of encoding, and all that a worker holds at a time


class Stretch(NamedTuple):
    """A part of a text file: bytes `start` to `stop`, decoded."""

    start: int
    stop: int
    text: str


def load_corpus(name_or_path: str) -> str:
    """Return the text of a bundled corpus, by name, or of a UTF-8 file, by path.

    Raises:   DataError: no such corpus or file; not UTF-8; empty.
    """
    if name_or_path == "python-docs":
        return _python_docs()
    path = data_folder() / "stories.txt" if name_or_path == "stories" else Path(name_or_path)
    try:
        with open_regular(path) as file:
            data = file.read()
    except LoadError as error:  # a pipe, or a device without an end
        raise DataError(f"{error}: copy the text into a file") from None
    except FileNotFoundError:
        names = ", ".join(CORPORA)
        raise DataError(f"{name_or_path}: no such file, and no such corpus (there are: {names})") from None
    except OSError as error:
        raise DataError(f"{name_or_path}: cannot be read: {error.strerror}") from error
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name_or_path}: not UTF-8 text (byte {data[error.start]:#04x} at position {error.start}): "
            "save it as UTF-8, or give a text file"
        ) from None
    if not text.strip():
        raise DataError(f"{name_or_path}: the file is empty; give a file with text in it")
    return text


def read_corpus(name_or_path: str, special_tokens: Collection[str] = ()) -> Iterator[Stretch]:
    """Yield what `load_corpus` returns, in stretches that no token and no special token crosses.

    A bundled corpus is one stretch. A file may be larger than memory.

    Raises:   DataError: as `load_corpus`, when the defect is read; a word of more than 4 million characters.
    """
    if name_or_path in CORPORA or not Path(name_or_path).exists():  # for the latter, load_corpus raises
        text = load_corpus(name_or_path)
        yield Stretch(0, len(text.encode()), text)
        return
    empty = True
    for stretch in read_stretches(name_or_path, special_tokens):
        empty = empty and not stretch.text.strip()
        yield stretch
    if empty:
        raise DataError(f"{name_or_path}: the file is empty; give a file with text in it")


def read_stretches(path: StrPath, special_tokens: Collection[str] = ()) -> Iterator[Stretch]:
    """Yield a UTF-8 file in stretches of about 2 MB that no token and no special token crosses.

    A byte order mark at the beginning is left out.

    Raises:   DataError: the file cannot be read or is not UTF-8; a word of more than 4 million characters.
    """
    start = 0
    try:
        for text in files.read_stretches(path, special_tokens, STRETCH):
            stop = start + len(text.encode())
            if start == 0 and text.startswith("\ufeff"):
                text, start = text[1:], 3
            if text:
                yield Stretch(start, stop, text)
            start = stop
    except TokenizerError as error:
        raise DataError(str(error)) from error


def corpus_hash(text: str) -> str:
    """Return the SHA-256 of the text as UTF-8, which a run records of its corpus."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _python_docs() -> str:
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise DataError(
            "python-docs: this Python comes without pydoc_data; install the complete standard library, or use "
            "another corpus"
        ) from None
    return "\n\n".join(topics[name].strip() for name in sorted(topics)) + "\n"

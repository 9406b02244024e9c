"""Texts to train on: two that are bundled, and any UTF-8 file, whole or in stretches."""

import hashlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from tinygrad_llm.datasets.checks import DataError
from tinygrad_llm.datasets.public import PUBLIC, public_file
from tinygrad_llm.storage.files import LoadError, data_folder, open_regular
from tinygrad_llm.tokenizer import AnyTokenizer, CharTokenizer, TokenizerError, files
from tinygrad_llm.tokenizer.files import Stretch, StrPath

CORPORA = {
    "stories": "short stories made by a seeded grammar (1 MB, ships with the package)",
    "python-docs": "the language reference that every CPython carries in pydoc_data.topics (0.5 MB)",
}
MAX_TEXT = 1 << 30  # bytes of a text that is read as a whole; with its ids, it takes several times as much
STRETCH = 1 << 21  # bytes: a few tenths of a second of encoding, and all that a worker holds at a time


def load_corpus(name_or_path: str, keep_newlines: bool = False) -> str:
    """Return the text of a bundled or downloaded corpus, by name, or of a UTF-8 file, by path, as `read_corpus` does.

    Raises:   DataError: no such corpus or file; a public text that has not been downloaded; not a regular file; not
              UTF-8; empty; too large for a text in memory.
    """
    if name_or_path == "python-docs":
        return _python_docs()
    path = data_folder() / "stories.txt" if name_or_path == "stories" else Path(name_or_path)
    if name_or_path in PUBLIC:
        path = public_file(name_or_path)
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
    except LoadError as error:  # a pipe, or a device without an end
        raise DataError(f"{error}: copy the text into a file") from None
    except FileNotFoundError:
        names = ", ".join(CORPORA)
        raise DataError(f"{name_or_path}: no such file, and no such corpus (there are: {names})") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise DataError(f"{name_or_path}: cannot be read: {getattr(error, 'strerror', error)}") from error
    if size > MAX_TEXT:
        raise DataError(
            f"{name_or_path}: {size} bytes, more than the {MAX_TEXT} that a text in memory may have: encode it with "
            "`tinygrad-llm tokenizer encode`, and train on the token file (--data)"
        )
    text = "".join(stretch.text for stretch in read_stretches(path, None, keep_newlines))
    if not text.strip():
        raise _empty(name_or_path)
    return text


def read_corpus(
    name_or_path: str, special_tokens: Collection[str] | None = (), keep_newlines: bool = False
) -> Iterator[Stretch]:
    """Yield the text of a bundled corpus or of a UTF-8 file in stretches that no token and no special token crosses.

    A bundled corpus is one stretch. A file may be larger than memory.

    Args:     as `read_stretches`.
    Raises:   DataError: as `load_corpus` and `read_stretches`, when the defect is read.
    """
    named = name_or_path in CORPORA or name_or_path in PUBLIC
    if named or not Path(name_or_path).exists():  # for the latter, load_corpus raises
        text = load_corpus(name_or_path, keep_newlines)
        yield Stretch(0, len(text.encode()), text, 0)
        return
    empty = True
    for stretch in read_stretches(name_or_path, special_tokens, keep_newlines):
        empty = empty and not stretch.text.strip()
        yield stretch
    if empty:
        raise _empty(name_or_path)


def read_stretches(
    path: StrPath, special_tokens: Collection[str] | None = (), keep_newlines: bool = False
) -> Iterator[Stretch]:
    """Yield a UTF-8 file in stretches of about 2 MB that no token and no special token crosses.

    A byte order mark at the beginning is left out. The line ends of Windows are read as "\\n".

    Args:     special_tokens: None: each character is a token. keep_newlines: leave line ends as they are.
    Raises:   DataError: the file cannot be read or is not UTF-8; more than 4 million characters without white space,
              unless each is a token.
    """
    try:
        yield from files.read_stretches(path, special_tokens, STRETCH, keep_newlines)
    except TokenizerError as error:
        raise DataError(str(error)) from error


def uncut(tokenizer: AnyTokenizer) -> Collection[str] | None:
    """Return the `special_tokens` with which `read_stretches` reads a text for this tokenizer."""
    return None if isinstance(tokenizer, CharTokenizer) else tokenizer.special_tokens


def _empty(name: str) -> DataError:
    return DataError(f"{name}: the file is empty; give a file with text in it")


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

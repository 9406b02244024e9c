"""Texts to train on: two that are always at hand, and any file."""

import hashlib
from pathlib import Path

from tinygrad_llm.datasets.windows import DataError
from tinygrad_llm.storage.data import data_folder

CORPORA = {
    "stories": "short stories made by a seeded grammar (1 MB, ships with the package)",
    "python-docs": "the language reference that every CPython carries in pydoc_data.topics (0.5 MB)",
}


def load_corpus(name_or_path: str) -> str:
    """The text of a bundled corpus, by name, or of a UTF-8 file, by path.

    Raises:   DataError: no such corpus or file; not UTF-8; empty. One line that says how to mend it.
    """
    if name_or_path == "python-docs":
        return _python_docs()
    path = data_folder() / "stories.txt" if name_or_path == "stories" else Path(name_or_path)
    try:
        data = path.read_bytes()
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
        raise DataError(f"{name_or_path}: the file is empty; give a text to learn from")
    return text


def corpus_hash(text: str) -> str:
    """SHA-256 of the text as UTF-8: what a run notes of its corpus."""
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

"""The checks that all data sets share, and the one exception that they raise."""

import contextlib
import operator
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygrad_llm.storage.files import LoadError, not_utf8, open_regular, parse_json
from tinygrad_llm.tokenizer.files import normalize_newlines

IDS_AT_ONCE = 1 << 22  # ids of a mapped file that are checked at a time


class DataError(ValueError):
    """Data that cannot be used; the message says what was given, and what is needed."""


@contextlib.contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turn the errors of opening, reading and parsing a file inside the block into a DataError."""
    try:
        yield
    except LoadError as error:
        raise DataError(str(error)) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def read_bytes(path: str | Path, most: int) -> bytes:
    """Return the content of a file.

    Raises:   DataError: it cannot be read, or is longer than `most` bytes.
    """
    with reading(path), open_regular(path) as file:
        data: bytes = file.read(most + 1)
    if len(data) > most:
        raise DataError(f"{path}: longer than the {most} bytes accepted")
    return data


def as_text(path: str | Path, data: bytes) -> str:
    """Return UTF-8 as a text without a byte order mark, with the line ends of Windows as "\\n".

    Raises:   DataError: it is not UTF-8.
    """
    try:
        return normalize_newlines(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {not_utf8(error)}") from None


def parsed(where: str, text: bytes, mend: str) -> Any:
    """The JSON value of a text.

    Args:     where: names the text in an error. mend: what to give instead, for the end of the message.
    Raises:   DataError: it is not JSON, or too long.
    """
    try:
        return parse_json(where, text)
    except LoadError as error:
        raise DataError(f"{error}: {mend}") from None


def at_least_one(name: str, value: int) -> int:
    """Return an argument as an int.

    Raises:   ValueError: it is not an integer, or it is below 1.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
    return number


def check_batch(batch_size: int, n: int, what: str) -> None:
    """Check that an epoch has at least one batch.

    Args:     n: how many examples the data have. what: their name in errors, and how to mend it.
    Raises:   DataError: a batch would need more examples than there are.
    """
    if batch_size > n:
        raise DataError(f"batch_size is {batch_size}, and the data have {n} {what}")


def check_ids(ids: NDArray[Any], n_vocab: int, name: str) -> None:
    """Check that all ids are in the vocabulary; a mapped file is read piece by piece.

    Args:     ids: (n,) integers. name: of the ids, for errors.
    Raises:   DataError: an id is negative, or n_vocab or more; the message names the first one and its index.
    """
    for start in range(0, len(ids), IDS_AT_ONCE):
        some = ids[start : start + IDS_AT_ONCE]
        if some.min() < 0 or some.max() >= n_vocab:
            wrong = int(np.argmax((some < 0) | (some >= n_vocab)))
            raise DataError(
                f"{name}: token {start + wrong} is id {some[wrong]}, and the vocabulary has ids 0 to {n_vocab - 1}: "
                f"were these {ids.dtype} ids made by another tokenizer, or written as another dtype?"
            )


def plain(text: str) -> str:
    """What a text has in common with those that differ from it only in white space and capitals."""
    return " ".join(text.casefold().split())

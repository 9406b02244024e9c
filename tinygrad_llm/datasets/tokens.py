"""Token files: ids on the disk, which are read as if they were an array in memory.

`tokens.bin` holds the ids alone: little-endian uint16 or uint32, one after the other, as other tools write and expect
them. The description of the ids is in `tokens.bin.json`, next to it:

{"format": "tinygrad_llm.tokens", "version": 1, "dtype": "uint16", "count": 338025, "n_vocab": 50257,
 "tokenizer": SHA-256 (see `vocabulary_hash`), "source": SHA-256 (see `corpus_hash`)}
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import reprlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tinygrad_llm.datasets.checks import DataError, check_ids
from tinygrad_llm.storage.atomic import atomic_write
from tinygrad_llm.storage.files import is_text
from tinygrad_llm.tokenizer import AnyTokenizer, vocabulary_hash
from tinygrad_llm.tokenizer.files import StrPath

FORMAT, VERSION = "tinygrad_llm.tokens", 1
DTYPES: dict[str, np.dtype[Any]] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}
MAX_DESCRIPTION_BYTES = 1 << 16

# Pairs of ids that `_halves_of_wider` looks at: at most, at least, and at least if id 0 is white space.
_PAIRS, _FEW_PAIRS, _MANY_PAIRS = 1 << 16, 9, 5000

# How files that hold more than ids begin, as NumPy, PyTorch, pickle, Parquet and Arrow write them.
_OTHERS = {
    rb"\x93NUMPY": "an .npy file",
    rb"PK\x03\x04": "a zip archive, such as an .npz or a file of PyTorch",
    rb"\x80[\x02-\x05](\x95.{5}\0\0\0|c)": "a pickle",
    rb"PAR1|ARROW1": "a table of Parquet or Arrow",
    rb"\x89HDF\r\n": "an HDF5 file",
}
_LEAST_TEXT = 32  # bytes; ids whose first 32 bytes are all letters do not occur by chance


@dataclass(frozen=True, eq=False)
class TokenFile:
    """Token ids in a file that is mapped into memory: only the ids that are used are read.

    `ids` is (n,), read-only. A field is None if it is unknown, because there was no `….json` next to the file. The ids
    are not compared with `n_vocab` here: that would read all of them (see `check`).
    """

    path: Path
    ids: NDArray[Any]
    n_vocab: int | None = None
    tokenizer: str | None = None  # vocabulary_hash of the tokenizer
    source: str | None = None  # corpus_hash of the text

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def open(cls, path: StrPath, dtype: DTypeLike | None = None) -> TokenFile:
        """Open a file that `encode_file` wrote, or the raw ids of another tool.

        Args:     dtype: uint16 or uint32; needed if no `….json` is next to the file.
        Raises:   DataError: the first defect of the file or of its description, after the path.
        """
        path = Path(path)
        try:
            if path.is_dir():
                raise DataError(f"{path}: is a folder; name a file of token ids")
            size = path.stat().st_size
            described = _read_description(path)
            kind = _agreed_dtype(path, described, dtype)
            if size == 0 or size % kind.itemsize:
                raise DataError(f"{path}: {size} bytes cannot be a row of {kind.name} ids")
            if described is not None and size != described["count"] * kind.itemsize:
                raise DataError(
                    f"{path}: {size} bytes, but {described['count']} {kind.name} ids take "
                    f"{described['count'] * kind.itemsize}: the file was cut off, or {description_path(path).name} "
                    "belongs to another file"
                )
            if described is None:
                _check_raw(path)
            ids = np.memmap(path, kind, mode="r")
        except OSError as error:
            raise DataError(f"{error.filename or path}: cannot be read: {error.strerror}") from error
        if described is None:
            return cls(path, ids)
        return cls(path, ids, described["n_vocab"], described["tokenizer"], described["source"])

    def check(self, tokenizer: AnyTokenizer) -> None:
        """Check that this tokenizer can have made the ids; reads all of them.

        Raises:   DataError: the description names another tokenizer; an id is outside the vocabulary; the ids are
                  wider than the dtype they were read as, or narrower.
        """
        if self.tokenizer is not None and self.tokenizer != (own := vocabulary_hash(tokenizer)):
            raise DataError(
                f"{self.path}: its ids are of another tokenizer ({self.n_vocab} tokens, SHA-256 "
                f"{str(self.tokenizer)[:12]}…) than this one ({tokenizer.n_vocab} tokens, {own[:12]}…): name that one"
            )
        check_ids(self.ids, tokenizer.n_vocab, str(self.path))
        if _halves_of_wider(self.ids, tokenizer.decode([0]).isspace()):
            wider = "uint32 or int64" if self.ids.dtype == DTYPES["uint16"] else "int64"
            raise DataError(
                f"{self.path}: every second id is 0: they are {wider}, not {self.ids.dtype}: convert them to uint16 or "
                "uint32, little-endian"
            )
        if _pairs_of_bytes(self.ids):
            raise DataError(
                f"{self.path}: both bytes of its ids have the same few values: they are uint8, not uint16: convert them"
            )


def check_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return uint16 or uint32 as a little-endian dtype.

    Raises:   DataError: another dtype.
    """
    try:
        return DTYPES[np.dtype(dtype).name]
    except (KeyError, TypeError):
        raise DataError(f"dtype must be {' or '.join(DTYPES)}, got {dtype!r}") from None


def capacity(kind: np.dtype[Any]) -> int:
    """Return how many different ids a dtype can hold."""
    return 1 << 8 * kind.itemsize


def description_path(path: Path) -> Path:
    """Return where the description of a token file is."""
    return Path(f"{path}.json")


@contextlib.contextmanager
def new_token_file(out: Path, overwrite: bool = False) -> Iterator[tuple[BinaryIO, Callable[[dict[str, Any]], None]]]:
    """Open a new token file; yields the file for the ids, and a function that writes their description.

    Both files appear when they are complete; if the block raises, neither does.

    Args:     overwrite: replace files of these names.
    Raises:   DataError: one of the two exists already, or cannot be written.
    """
    if not out.parent.is_dir():
        raise DataError(f"{out}: there is no folder {out.parent}; make it first")
    for place in (out, description_path(out)):
        if os.path.lexists(place) and not overwrite:
            raise DataError(f"{place}: exists already: choose another name, or overwrite it (--overwrite)")
        if place.is_dir():
            raise DataError(f"{place}: is a folder: choose another name")
    described = complete = False

    def describe(fields: dict[str, Any]) -> None:
        nonlocal described
        if overwrite:
            out.unlink(missing_ok=True)  # the new ids are complete; old ones must not stay with a new description
        with atomic_write(description_path(out)) as file:
            file.write(json.dumps({"format": FORMAT, "version": VERSION, **fields}).encode() + b"\n")
        described = True
        if out.exists():  # another process has made it in the meantime
            raise DataError(f"{out}: exists already: choose another name")

    try:
        with atomic_write(out) as file:
            yield file, describe
        complete = True
    except OSError as error:
        raise DataError(f"{out}: cannot be written: {error.strerror}") from error
    finally:
        if described and not complete:  # a description must not stay without its ids
            description_path(out).unlink(missing_ok=True)


def _agreed_dtype(path: Path, described: dict[str, Any] | None, dtype: DTypeLike | None) -> np.dtype[Any]:
    """Return the dtype that the description names, or that the caller gave; they must agree."""
    given = None if dtype is None else check_dtype(dtype)
    if described is not None:
        kind = DTYPES[described["dtype"]]
        if given not in (None, kind):
            raise DataError(f"{path}: its ids are {kind.name}, not {given}")
        return kind
    if given is None:
        raise DataError(
            f"{path}: {description_path(path).name} is missing; give the dtype of the ids: uint16 or uint32"
        )
    return given


def _halves_of_wider(ids: NDArray[Any], zero_is_space: bool) -> bool:
    """Return whether these ids are the halves of small wider ids: then every second one, the upper, is 0.

    White space with id 0 can be every second token of a text too, if its lines hold one character each. But an empty
    line among them swaps the two sequences, so in a long text neither is 0 throughout.
    """
    halves = [ids[start : 2 * _PAIRS : 2] for start in (0, 1)]
    if len(halves[1]) < (_MANY_PAIRS if zero_is_space else _FEW_PAIRS):
        return False
    for other, upper in (halves, halves[::-1]):  # the upper halves come second; first, if the byte order is big-endian
        if not upper.any() and (not zero_is_space or bool(other.any() and not other.all())):
            return True
    return False


def _pairs_of_bytes(ids: NDArray[Any]) -> bool:
    """Return whether these uint16 ids are pairs of uint8 ids: then the same few bytes come first and second as often.

    Of uint16 ids, the second byte is small for frequent tokens, and the first one has all values.
    """
    some = ids[:_PAIRS]
    if ids.dtype != DTYPES["uint16"] or len(some) < _MANY_PAIRS // 5:
        return False
    first, second = (np.bincount(byte, minlength=256) for byte in (some & 255, some >> 8))
    few = 8 <= np.count_nonzero(first + second) <= 200
    return bool(few and np.abs(first - second).sum() < 0.4 * len(some))


def _check_raw(path: Path) -> None:
    """Raise DataError for a file of something else: its bytes would be read as ids, and no check of ids finds that."""
    with open(path, "rb") as file:
        head = file.read(512)
    for sign, what in _OTHERS.items():
        if re.match(sign, head, re.S):
            raise DataError(f"{path}: {what}, and not ids alone: write them with numpy.ndarray.tofile")
    if len(head) >= _LEAST_TEXT and is_text(head):
        raise DataError(f"{path}: a text, and not ids: encode it first with `tinygrad-llm tokenizer encode`")


def _read_description(path: Path) -> dict[str, Any] | None:
    """Return the checked description of the token file at `path`; None if there is none."""
    place = description_path(path)
    try:
        with open(place, "rb") as file:
            data = file.read(MAX_DESCRIPTION_BYTES)
    except FileNotFoundError:
        return None
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: not JSON: {error}") from error
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise DataError(f'{place}: does not describe a token file: it does not say "format": "{FORMAT}"')
    checks: dict[str, Callable[[Any], bool]] = {
        "version": lambda value: type(value) is int and value == VERSION,
        "dtype": lambda value: isinstance(value, str) and value in DTYPES,
        "count": lambda value: type(value) is int and value > 0,
        "n_vocab": lambda value: type(value) is int and 0 < value <= capacity(DTYPES[fields["dtype"]]),
        "tokenizer": lambda value: isinstance(value, str),
        "source": lambda value: isinstance(value, str),
    }
    for name, holds in checks.items():
        if name not in fields:
            raise DataError(f"{place}: {name} is missing")
        if not holds(fields[name]):
            raise DataError(f"{place}: {name} is {reprlib.repr(fields[name])}")
    return fields

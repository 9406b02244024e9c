"""How files of unknown origin are read: one error for all that is wrong, no waiting, bounded memory, strict JSON.

`data_folder` has the files of known origin, which ship with the package.
"""

import contextlib
import json
import math
import os
import re
import reprlib
import stat
from collections.abc import Iterator, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any

# The most bytes of JSON, such as a header of safetensors: few real ones have a megabyte. A value takes up to fifty
# times its text in memory, so the number of values is bounded too. A tensor of four dimensions has ten of them: there
# is room for 100,000 tensors.
MAX_JSON = 20_000_000
_MAX_VALUES = 1_200_000

_short = reprlib.Repr()  # a hostile name or number may have megabytes
_short.maxstring = _short.maxother = 200
show = _short.repr


def data_folder() -> Path:
    """The files that ship with the package: `data/` inside it once it is installed; next to it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "data"
    return inside if inside.is_dir() else package.parent / "data"


class LoadError(ValueError):
    """A file is not what it should be; the message names the file and the field."""


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a file for reading, without waiting for the other end of a pipe.

    Raises:   LoadError: a pipe, a device or the like.
              OSError: the file cannot be opened; a folder, too.
    """
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))  # noqa: SIM115 (the caller closes it)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise LoadError(f"{os.fspath(path)}: not a regular file")
    return file


@contextlib.contextmanager
def in_memory(where: str, size: int) -> Iterator[None]:
    """Turn a MemoryError inside the block into a LoadError that states the size."""
    try:
        yield
    except MemoryError:
        raise LoadError(f"{where}: its {size} bytes do not fit into memory") from None


def array_size(where: str, shape: Sequence[int], item: int) -> int:
    """Return the size in bytes of an array of this shape, whose items have `item` bytes each.

    Raises:   LoadError: NumPy could not hold it.
    """
    # NumPy multiplies sizes in int64, without the zeros, and has at most 64 dimensions.
    if len(shape) > 64 or math.prod(max(size, 1) for size in shape) * item >= 2**62:
        raise LoadError(f"{where}: shape: {show(shape)} is too large for an array")
    return math.prod(shape) * item


def disguise(start: bytes) -> str:
    """Return what a failed download left instead of a file, by its first bytes; "" if they look like neither."""
    if start.startswith(b"version "):
        return "a git-LFS pointer, not the file itself: fetch it with `git lfs pull`"
    if re.match(rb"(\xef\xbb\xbf)?\s*<", start):
        return "an HTML or XML page: did the download fail?"
    return ""


def is_text(head: bytes) -> bool:
    """Return whether this is UTF-8 without control characters, perhaps cut within its last letter."""
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return False
        text = head[: error.start].decode()
    return bool(text) and all(letter >= " " or letter in "\t\n\r\f" for letter in text)


def not_utf8(error: UnicodeDecodeError) -> str:
    """Return what is wrong with bytes that are not UTF-8, where, and how to mend it."""
    text, at = error.object, error.start
    line = text.count(b"\n", 0, at) + 1
    place = f"in line {line}" if b"\n" in text else f"at position {at}"
    return f"not UTF-8 text (byte {text[at]:#04x} {place}): save it as UTF-8"


def check_json_size(text: bytes) -> None:
    """Raise ValueError for more text than `parse_json` accepts."""
    if len(text) > MAX_JSON:
        raise ValueError(f"{len(text)} bytes, more than the {MAX_JSON} accepted")
    values = sum(text.count(mark) for mark in (b",", b"[", b"{"))
    if values > _MAX_VALUES:
        raise ValueError(f"about {values} values, more than the {_MAX_VALUES} accepted")


def parse_json(where: str, text: bytes) -> Any:
    """Parse JSON of unknown origin: UTF-8, unique keys, no NaN or infinity, short numbers, bounded size and depth.

    Raises:   LoadError: begins with `where`.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for name, value in pairs:
            if name in result:
                raise ValueError(f"the key {show(name)} appears twice")
            result[name] = value
        return result

    def integer(digits: str) -> int:
        if len(digits) > 20:  # no offset or size is that long, and converting thousands of digits takes long
            raise ValueError(f"an integer of {len(digits)} digits")
        return int(digits)

    def real(digits: str) -> float:
        if len(digits) > 100:  # a float64 needs 24 at most
            raise ValueError(f"a number of {len(digits)} digits")
        if math.isinf(value := float(digits)):
            raise ValueError(f"{digits} is beyond float64")
        return value

    def refuse(literal: str) -> None:
        raise ValueError(f"{literal} is not JSON")

    try:
        check_json_size(text)
        return json.loads(
            text.decode(), object_pairs_hook=unique, parse_int=integer, parse_float=real, parse_constant=refuse
        )
    except UnicodeDecodeError as error:
        raise LoadError(f"{where}: {not_utf8(error)}") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column" if b"\n" in text else "column"
        raise LoadError(f"{where}: not JSON: {error.msg}: {place} {error.colno}") from None
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise LoadError(f"{where}: {reason}") from None

"""NumPy's own files, read without evaluating or unpickling anything: `.npy` is one array, `.npz` a zip of them.

    6 bytes     \\x93NUMPY
    2 bytes     the version: 1.0, 2.0 or 3.0
    2 bytes     n, the header's length, little-endian (4 bytes from version 2.0 on)
    n bytes     {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }, padded with spaces, then a line feed
    the rest    the array, in C order or Fortran's

The header is a piece of Python, which `numpy.load` evaluates; a pattern is enough, and cannot be led astray.
Numbers and booleans only: no Python objects (they would be pickles), no text, no structures.

Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

import contextlib
import io
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import PureWindowsPath
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinygrad_llm.storage.atomic import atomic_write
from tinygrad_llm.storage.files import (
    LoadError,
    array_size,
    in_memory,
    open_regular,
    show,
)

MAGIC = b"\x93NUMPY"
PICKLE = "a pickle: it can run code, so it is never read; convert it to safetensors where you trust it"

_MAX_HEADER = 10_000  # as in NumPy; only structures need more than some hundred
_DTYPE = re.compile(r"[<>=|]?(b1|[iu][1248]|f[248]|c8|c16)")
_VALUE = r"""'[^']*'|"[^"]*"|True|False|\([^()]*\)|\[.*\]"""
_ITEM = re.compile(rf"""\s*(['"])(\w+)\1\s*:\s*({_VALUE})\s*(?:,|(?=\}}))""", re.S)

# Deflate reaches 1:1032, weights 1:1.1. What is below the allowance may be all zeros.
_MAX_RATIO = 10
_ALLOWANCE = 4_000_000
_MAX_DIRECTORY = 2_000_000  # of a zip; each of its bytes takes some fifteen in memory; room for 20,000 arrays
_CHUNK = 1_000_000


def load_npy(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read a `.npy` file: one array, in writable memory of the machine's byte order.

    Raises:   LoadError: the file is damaged, or holds something else than numbers; names the file and the field.
              OSError: the file cannot be opened or read.
    """
    with open_regular(path) as file:
        return _read_npy(os.fspath(path), file, os.fstat(file.fileno()).st_size)


def load_npz(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Read a `.npz` file: its arrays by name, in the order of the zip's directory, each as in `load_npy`.

    The sizes are checked before anything of that size is allocated: all members together may be ten
    times as large as the file, and four megabytes. The checksum of every member is verified.
    Raises:   LoadError: the file is damaged, hostile or something else; names the file and the member.
              OSError: the file cannot be opened or read.
    """
    arrays = {}
    with _Bounded(open_regular(path).detach()) as file:
        with _zip_errors(os.fspath(path)):
            archive = zipfile.ZipFile(file)
        with archive:
            _check_count(os.fspath(path), archive, file)
            _check_members(os.fspath(path), archive.infolist(), os.fstat(file.fileno()).st_size)
            for info in archive.infolist():
                where = f"{os.fspath(path)}: member {show(info.filename)}"
                with _zip_errors(where), archive.open(info) as member:
                    arrays[info.filename.removesuffix(".npy")] = _read_npy(where, member, info.file_size)
    return arrays


def save_npz(path: str | os.PathLike[str], arrays: Mapping[str, ArrayLike]) -> None:
    """Write named arrays to a `.npz` file that `numpy.load` reads, uncompressed and atomically (see `atomic_write`).

    The members are sorted by name and carry no date: the same arrays always give the same bytes.
    Raises:   ValueError: a name that could not be a file's, or an array that is not of numbers; named.
              OSError: the file cannot be written.
    """
    members = []
    for name, value in arrays.items():
        array = np.asarray(value)
        code = array.dtype.newbyteorder("<").str
        if not isinstance(name, str) or _bad_name(name):
            raise ValueError(f"{os.fspath(path)}: {show(name)} cannot be the name of a member")
        if not _DTYPE.fullmatch(code):
            raise ValueError(f"{os.fspath(path)}: array {show(name)}: {array.dtype} is not numbers or booleans")
        members.append((name, array, code))
    if sum(100 + len(name.encode()) for name, *_ in members) > _MAX_DIRECTORY:
        raise ValueError(f"{os.fspath(path)}: {len(members)} arrays are more than would be read again")

    with atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array, code in sorted(members, key=lambda member: member[0]):
            header = f"{{'descr': '{code}', 'fortran_order': False, 'shape': {array.shape}, }}"
            header += " " * (-(len(MAGIC) + 4 + len(header) + 1) % 64) + "\n"  # the data begins at a multiple of 64
            prefix = MAGIC + b"\x01\x00" + struct.pack("<H", len(header)) + header.encode()
            info = zipfile.ZipInfo(name + ".npy")  # of 1980, where a zip's calendar begins
            info.create_system = 3  # on every system
            info.file_size = len(prefix) + array.nbytes
            with archive.open(info, "w") as member:
                member.write(prefix)
                member.write(np.ascontiguousarray(array, code).data)


class _Bounded(io.BufferedReader):
    """A file of which `zipfile` cannot read a gigabyte of directory at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MAX_DIRECTORY:
            raise ValueError(f"its directory has {size} bytes, more than the {_MAX_DIRECTORY} accepted")
        return super().read(size)


@contextlib.contextmanager
def _zip_errors(where: str) -> Iterator[None]:
    """Whatever `zipfile` raises for a damaged file, as a LoadError."""
    try:
        yield
    except LoadError:
        raise
    # RuntimeError covers NotImplementedError, ValueError what cannot be decoded.
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OverflowError, RuntimeError, ValueError) as error:
        raise LoadError(f"{where}: damaged zip: {show(str(error))}") from None


def _check_count(path: str, archive: zipfile.ZipFile, file: io.BufferedReader) -> None:
    """The record at the end says how many members there are; `zipfile` overlooks one that another's comment covers."""
    file.seek(-22 - len(archive.comment), os.SEEK_END)
    end = file.read(22)
    count = int.from_bytes(end[10:12], "little")
    if end[:4] != b"PK\x05\x06" or count != len(archive.infolist()):
        raise LoadError(f"{path}: damaged zip: {len(archive.infolist())} members found, its end says otherwise")


def _check_members(path: str, members: list[zipfile.ZipInfo], size: int) -> None:
    total = sum(info.file_size for info in members)
    if total > _MAX_RATIO * size + _ALLOWANCE:
        raise LoadError(
            f"{path}: its {size} bytes would inflate to {total}: a zip bomb? "
            "If you trust it, save it again with numpy.savez, uncompressed"
        )
    seen = set()
    for info in members:
        name = info.filename
        where = f"{path}: member {show(name)}"
        if name.endswith(".pkl"):
            raise LoadError(f"{where}: {PICKLE} (this is how PyTorch saves)")
        if not name.endswith(".npy"):
            raise LoadError(f"{where}: the name does not end in .npy: not an .npz file")
        # zipfile cuts a name at its first NUL.
        if name != info.orig_filename or _bad_name(name.removesuffix(".npy")):
            raise LoadError(f"{where}: the name could lead out of a folder, or is no file's")
        if name in seen:
            raise LoadError(f"{where}: appears twice")
        seen.add(name)
        if not 0 <= info.header_offset < size:
            raise LoadError(f"{where}: begins at {info.header_offset}, outside the file")
        if info.flag_bits & 1:
            raise LoadError(f"{where}: encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise LoadError(f"{where}: compression {info.compress_type}: only none (0) and deflate (8) are read")


def _bad_name(name: str) -> bool:
    """Slashes are part of TensorFlow's names, but someone may unpack the file."""
    if any(part in ("", ".", "..") for part in name.split("/")):
        return True
    return "\\" in name or PureWindowsPath(name).is_absolute() or not name.isprintable() or len(name) > 1000


def _read_npy(where: str, file: IO[bytes], size: int) -> NDArray[Any]:
    """The array in a file, or in a member, of `size` bytes."""
    code, fortran, shape, begin = _read_header(where, file)
    expected = array_size(where, shape, np.dtype(code).itemsize)
    if begin + expected != size:
        raise LoadError(f"{where}: data: {code} of shape {show(shape)} has {expected} bytes, {size - begin} found")
    with in_memory(where, expected):
        return _read_data(where, file, np.empty(shape[::-1] if fortran else shape, code), fortran)


def _read_data(where: str, file: IO[bytes], array: NDArray[Any], fortran: bool) -> NDArray[Any]:
    """The array, filled with all that is left of the file."""
    memory = array.reshape(-1).view(np.uint8).data
    for start in range(0, array.nbytes, _CHUNK):  # a zip's member makes a copy of all it is asked for
        piece = memory[start : start + _CHUNK]
        if file.readinto(piece) != len(piece):  # type: ignore[attr-defined]
            raise LoadError(f"{where}: data: ended early: truncated?")
    if file.read(1):  # the end, where a zip's member compares its checksum
        raise LoadError(f"{where}: data: goes on after the array; is it being written?")
    if array.dtype == np.bool_ and array.view(np.uint8).max(initial=0) > 1:
        raise LoadError(f"{where}: data: a bool byte is neither 0 nor 1")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return array.T if fortran else array


def _read_header(where: str, file: IO[bytes]) -> tuple[str, bool, tuple[int, ...], int]:
    """dtype, whether in Fortran's order, shape, and where the data begins."""
    prefix = file.read(8)
    if not prefix.startswith(MAGIC):
        what = PICKLE if prefix.startswith(b"\x80") else f"not an .npy array, it begins with {prefix!r}"
        raise LoadError(f"{where}: {what}")
    if prefix[6:] not in (b"\x01\x00", b"\x02\x00", b"\x03\x00"):
        raise LoadError(f"{where}: version: {tuple(prefix[6:])} is unknown")
    width = 2 if prefix[6] == 1 else 4
    length = int.from_bytes(file.read(width), "little")
    if length > _MAX_HEADER:
        raise LoadError(f"{where}: header length: {length} bytes, more than the {_MAX_HEADER} accepted")
    header = file.read(length).decode("latin-1")
    if len(header) < length:
        raise LoadError(f"{where}: header: {length} bytes expected, {len(header)} found: truncated?")

    fields: dict[str, str] = {}
    position = 1
    while header.startswith("{") and (item := _ITEM.match(header, position)):
        if item[2] in fields:
            raise LoadError(f"{where}: header: the key {item[2]!r} appears twice")
        fields[item[2]], position = item[3], item.end()
    if set(fields) != {"descr", "fortran_order", "shape"} or header[position:].strip() != "}":
        raise LoadError(f"{where}: header: must hold descr, fortran_order and shape, is {show(header.strip())}")
    if fields["fortran_order"] not in ("True", "False"):
        raise LoadError(f"{where}: fortran_order: must be True or False, is {show(fields['fortran_order'])}")
    code, shape = _dtype(where, fields["descr"]), _shape(where, fields["shape"])
    return code, fields["fortran_order"] == "True", shape, 8 + width + length


def _dtype(where: str, text: str) -> str:
    code = text[1:-1]
    if text.startswith("["):
        raise LoadError(f"{where}: descr: {show(text)} is a structure; only numbers and booleans are read")
    if code in ("O", "|O"):
        raise LoadError(f"{where}: descr: Python objects, and so {PICKLE}")
    if text[0] not in "'\"" or not _DTYPE.fullmatch(code):
        raise LoadError(f"{where}: descr: {show(text)} is unknown; only numbers and booleans are read")
    return code


def _shape(where: str, text: str) -> tuple[int, ...]:
    """The sizes of a tuple in Python's notation, where one size needs a comma after it."""
    sizes = [size.strip() for size in text[1:-1].split(",")]
    if sizes[-1] == "":
        sizes.pop()
    elif len(sizes) == 1:
        sizes = [text]
    if text[0] != "(" or not all(re.fullmatch("[0-9]{1,20}", size) for size in sizes):
        raise LoadError(f"{where}: shape: must be a tuple of integers ≥ 0, is {show(text)}")
    return tuple(int(size) for size in sizes)

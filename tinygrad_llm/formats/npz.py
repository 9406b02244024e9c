"""NumPy's own files, read with every check that a hostile file needs: `.npy` is one array, `.npz` a zip of them.

NumPy's reader does the reading: `numpy.lib.format` parses the header as a Python literal, which cannot run code, and
with allow_pickle=False it never unpickles. Added here: sizes are compared before memory is allocated; names cannot
lead out of a folder or appear twice; a zip cannot inflate without bound; the checksum of every member is verified.
Only numbers and booleans are read: no Python objects, no text, no structures.

Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

import contextlib
import io
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import PureWindowsPath
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import ArrayLike, NDArray

from tinygrad_llm.formats.dtypes import BOOL, checked, decode
from tinygrad_llm.storage.atomic import atomic_write
from tinygrad_llm.storage.files import LoadError, array_size, in_memory, open_regular, show

MAGIC = npy.MAGIC_PREFIX
PICKLE = "a pickle: it can run code, so it is never read; convert it to safetensors where you trust it"

_DTYPES = {BOOL, "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8", "<c8", "<c16"}
_MAX_HEADER = 10_000  # NumPy's own limit; only structures need more than some hundred

# Deflate reaches 1:1032, weights 1:1.1. Below the allowance an array may be all zeros.
_MAX_RATIO = 10
_ALLOWANCE = 4_000_000
_MAX_DIRECTORY = 2_000_000  # of a zip; each of its bytes takes some fifteen in memory; room for 20,000 arrays


def load_npy(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read a `.npy` file: one array, in writable memory of the machine's byte order.

    Raises:   LoadError: the file is damaged, or does not hold numbers; names the file and the field.
              OSError: the file cannot be opened or read.
    """
    with open_regular(path) as file:

        def reopen() -> contextlib.AbstractContextManager[IO[bytes]]:
            file.seek(0)
            return contextlib.nullcontext(file)

        return _read_npy(os.fspath(path), reopen, os.fstat(file.fileno()).st_size)


def load_npz(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Read a `.npz` file: its arrays by name, in the order of the zip's directory, each as in `load_npy`.

    All members together may be ten times as large as the file, plus four megabytes. The checksum of every member is
    verified.

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

                with _zip_errors(where):
                    array = _read_npy(where, partial(archive.open, info), info.file_size)
                arrays[info.filename.removesuffix(".npy")] = array
    return arrays


def save_npz(path: str | os.PathLike[str], arrays: Mapping[str, ArrayLike]) -> None:
    """Write named arrays to a `.npz` file that `numpy.load` reads, uncompressed and atomically (see `atomic_write`).

    The members are sorted by name and have no date: the same arrays always give the same bytes.

    Raises:   ValueError: a name that no file can have, or an array that is not of numbers; named.
              OSError: the file cannot be written.
    """
    members = checked(path, arrays, _DTYPES, _bad_name)
    if sum(100 + len(name.encode()) for name, *_ in members) > _MAX_DIRECTORY:
        raise ValueError(f"{os.fspath(path)}: {len(members)} arrays are more than the reader accepts")

    with atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array, code in sorted(members, key=lambda member: member[0]):
            info = zipfile.ZipInfo(name + ".npy")  # of 1980, where a zip's calendar begins
            info.create_system = 3  # the same bytes on every system
            info.file_size = array.nbytes + _MAX_HEADER  # at most, so that zipfile chooses zip64 where needed
            with archive.open(info, "w") as member:
                npy.write_array(member, np.asarray(array, code, order="C"), (1, 0), allow_pickle=False)


# ---- the zip -------------------------------------------------------------------------------------------------------


class _Bounded(io.BufferedReader):
    """A file that refuses to read a gigabyte of directory at once for `zipfile`."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MAX_DIRECTORY:
            raise ValueError(f"its directory has {size} bytes, more than the {_MAX_DIRECTORY} accepted")
        return super().read(size)


@contextlib.contextmanager
def _zip_errors(where: str) -> Iterator[None]:
    """Turn whatever `zipfile` raises for a damaged file into a LoadError."""
    try:
        yield
    except LoadError:
        raise
    # RuntimeError includes NotImplementedError; ValueError includes text that cannot be decoded.
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OverflowError, RuntimeError, ValueError) as error:
        raise LoadError(f"{where}: damaged zip: {show(str(error))}") from None


def _check_count(path: str, archive: zipfile.ZipFile, file: io.BufferedReader) -> None:
    """Compare the number of members with the record at the end: `zipfile` misses one inside another's comment."""
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
            raise LoadError(f"{where}: the name could lead out of a folder, or no file can have it")
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
    """Return whether a name is unsafe for someone who unpacks the file. TensorFlow's names may have slashes."""
    if any(part in ("", ".", "..") for part in name.split("/")):
        return True
    return "\\" in name or PureWindowsPath(name).is_absolute() or not name.isprintable() or len(name) > 1000


# ---- one array -----------------------------------------------------------------------------------------------------


def _read_npy(
    where: str, reopen: Callable[[], contextlib.AbstractContextManager[IO[bytes]]], size: int
) -> NDArray[Any]:
    """Read the array in a file, or in a member, of `size` bytes: once for its header, and once for all of it.

    A member is opened again instead of rewound, because `zipfile` may skip the checksum after a seek. It compares the
    checksum when the last byte of the member is read, which is the last byte of the array.
    """
    with reopen() as file:
        code, needed = _check_header(where, file.read(_MAX_HEADER + 12), size)
    with in_memory(where, needed), reopen() as file:
        try:
            array: NDArray[Any] = npy.read_array(file, allow_pickle=False, max_header_size=_MAX_HEADER)
        except ValueError as error:  # the file has changed since
            raise LoadError(f"{where}: data: {show(str(error))}") from None
    return decode(where, array.view(np.uint8) if code == BOOL else array, code)


def _check_header(where: str, start: bytes, size: int) -> tuple[str, int]:
    """Check what the beginning of an `.npy` file says; return the dtype and the size of the data in bytes."""
    if not start.startswith(MAGIC):
        what = PICKLE if start.startswith(b"\x80") else f"not an .npy array, it begins with {start[:8]!r}"
        raise LoadError(f"{where}: {what}")
    if start[6:8] not in (b"\x01\x00", b"\x02\x00"):  # 3.0 is for structures with names beyond Latin-1
        raise LoadError(f"{where}: version: {tuple(start[6:8])} is unknown, known are (1, 0) and (2, 0)")
    head = io.BytesIO(start)  # of bounded length, however long the header claims to be
    try:
        with warnings.catch_warnings():  # Python's parser warns of odd literals
            warnings.simplefilter("ignore")
            read = npy.read_array_header_1_0 if npy.read_magic(head) == (1, 0) else npy.read_array_header_2_0
            shape, _, dtype = read(head, _MAX_HEADER)
    except Exception as error:  # a hostile literal can make NumPy or the parser raise nearly anything
        raise LoadError(f"{where}: header: {show(str(error) or type(error).__name__)}") from None
    code = dtype.newbyteorder("<").str
    if dtype.hasobject:
        raise LoadError(f"{where}: descr: Python objects, and so {PICKLE}")
    if code not in _DTYPES:
        raise LoadError(f"{where}: descr: {show(dtype)} is unknown; only numbers and booleans are read")
    if not all(type(length) is int and length >= 0 for length in shape):
        raise LoadError(f"{where}: shape: must be a tuple of integers ≥ 0, got {show(shape)}")
    needed = array_size(where, shape, dtype.itemsize)
    if head.tell() + needed != size:
        raise LoadError(f"{where}: data: {code} of shape {show(shape)} has {needed} bytes, {size - head.tell()} found")
    return code, needed

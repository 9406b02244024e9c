"""Safetensors: named arrays in a file whose structure can be checked completely before any data is read.

    8 bytes     n, the header's length, little-endian
    n bytes     JSON: {name: {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, …,
                       "__metadata__": {str: str}}, padded with spaces
    the rest    the arrays, C-contiguous and little-endian; the offsets count from here and leave no gap

Our files hold in `__metadata__` also "sha256": the SHA-256 of the whole file, with 64 zeros in this place. The arrays
are sorted by falling element size, then by name. The header is JSON without spaces in that order, the metadata first
and sorted, padded with spaces to a multiple of 8. So the arrays and the metadata determine every byte of the file. The
reader computes the hash from the arrays in memory, so a file that another library saved again still verifies.

Source: the format's description at https://github.com/huggingface/safetensors.
"""

import errno
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from io import BufferedReader
from mmap import ACCESS_READ
from mmap import mmap as MemoryMap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinygrad_llm.formats.dtypes import BFLOAT16, BOOL, Part, checked, decode, stored_dtype
from tinygrad_llm.storage.atomic import atomic_write
from tinygrad_llm.storage.files import (
    MAX_JSON,
    LoadError,
    array_size,
    check_json_size,
    disguise,
    in_memory,
    open_regular,
    parse_json,
    show,
)

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": BFLOAT16,
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1",
    "BOOL": BOOL,
}  # fmt: skip
_NAMES = {code: name for name, code in _DTYPES.items()}
_NO_HASH = "0" * 64
_CHUNK = 1_000_000


def save_safetensors(
    path: str | os.PathLike[str], arrays: Mapping[str, ArrayLike], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named arrays and their SHA-256 to a file, which is read back before it replaces an older file.

    Each array begins at a multiple of its element size. As with `atomic_write`, `path` is at every moment the old file
    or the complete new one. The same arrays and metadata always give the same bytes.

    Raises:   ValueError: an array or a piece of metadata that the format cannot hold; named.
              OSError: the file cannot be written, or the disk returns other bytes than were written.
    """
    path = Path(path)
    blank, parts = layout(path, arrays, {**(metadata or {}), "sha256": _NO_HASH})
    digest = _hash(blank, pieces(parts))
    # Quotes inside other metadata are escaped, so this text is the field itself.
    header = blank.replace(f'"sha256":"{_NO_HASH}'.encode(), f'"sha256":"{digest}'.encode(), 1)

    def verify(temporary: Path) -> None:
        with open(temporary, "rb") as file:
            same = file.read(len(header)) == header
            if not same or _hash(blank, iter(lambda: file.read(_CHUNK), b"")) != digest:
                raise OSError(errno.EIO, "What was written reads back differently", os.fspath(path))

    with atomic_write(path, verify) as file:
        file.write(header)
        for piece in pieces(parts):
            file.write(piece)


def layout(path: Path, arrays: Mapping[str, ArrayLike], metadata: Mapping[str, str]) -> tuple[bytes, list[Part]]:
    """Return the header of a safetensors file, with its length, and the arrays in the order of the file.

    Raises:   ValueError: an array or a piece of metadata that the format cannot hold; `path` is for the message.
    """
    header: dict[str, Any] = {}
    if metadata:
        if not all(isinstance(text, str) for item in metadata.items() for text in item):
            raise ValueError(f"{path}: metadata must map strings to strings")
        header["__metadata__"] = dict(sorted(metadata.items()))

    tensors = checked(path, arrays, _NAMES, lambda name: name == "__metadata__")
    tensors.sort(key=lambda tensor: (-tensor[1].itemsize, tensor[0]))

    position = 0
    for name, array, code in tensors:
        end = position + array.nbytes
        header[name] = {"dtype": _NAMES[code], "shape": array.shape, "data_offsets": (position, end)}
        position = end
    try:
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        raise ValueError(f"{path}: a name or metadata holds a lone surrogate, which UTF-8 cannot") from None
    text += b" " * (-len(text) % 8)
    try:
        check_json_size(text)
    except ValueError as error:
        raise ValueError(f"{path}: header: {error}") from None
    return len(text).to_bytes(8, "little") + text, tensors


def pieces(parts: Iterable[Part]) -> Iterator[memoryview]:
    """Yield the bytes of each array in turn; one that is not C-contiguous is copied at its turn."""
    for _, array, code in parts:
        yield np.ascontiguousarray(array, code).data


def _hash(blank: bytes, data: Iterable[bytes | memoryview]) -> str:
    """Return the SHA-256 of a file, given its header with zeros for the hash, and the rest in pieces."""
    import hashlib  # here, because it takes longer to load than most of this package

    total = hashlib.sha256(blank)
    for piece in data:
        total.update(piece)
    return total.hexdigest()


def load_safetensors(
    path: str | os.PathLike[str], mmap: bool = False
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Read a safetensors file: its arrays, in the order of the file, and its metadata.

    Every array owns writable memory of the machine's byte order. BF16, which NumPy lacks, becomes float32; all others
    keep their dtype, F16 too. Names, shapes and offsets are compared with the file's size before memory is allocated.
    A SHA-256 in the metadata is compared with the file's; files of other programs have none.

    Args:     mmap: compare no SHA-256, and return read-only views of the file. The system reads it when they are used,
              and it stays open while one of them lives. Arrays that must be converted are read-only copies. After a
              file was mapped, it may be replaced (`atomic_write`) or deleted: these arrays stay whole. Another program
              that writes into the file changes them, and one that truncates it ends this process at their next use.
              Windows refuses to replace a mapped file.
    Raises:   LoadError: the file is damaged or something else; names the file and the field.
              OSError: the file cannot be opened or read.
    """
    path = Path(path)
    with open_regular(path) as file:
        header_bytes, data_size = _read_header(path, file)
        tensors, metadata = _parse_header(path, header_bytes)
        _check_offsets(path, tensors, data_size)
        source = _map(path, file, 8 + len(header_bytes), data_size) if mmap else file
        arrays = {}
        for name, tensor in tensors.items():
            with in_memory(f"{path}: tensor {show(name)}", tensor["end"] - tensor["begin"]):
                arrays[name] = _read_array(path, source, name, **tensor)
    if not mmap and "sha256" in metadata:
        _check_hash(path, arrays, metadata)
    return arrays, metadata


def _check_hash(path: Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> None:
    stated = metadata["sha256"]
    if not re.fullmatch("[0-9a-f]{64}", stated):
        raise LoadError(f"{path}: __metadata__: sha256: must be 64 hex digits, got {show(stated)}")
    try:
        blank, parts = layout(path, arrays, {**metadata, "sha256": _NO_HASH})
    except ValueError as error:
        raise LoadError(str(error)) from None
    if (found := _hash(blank, pieces(parts))) != stated:
        raise LoadError(
            f"{path}: sha256: should be {show(stated)}, is {found}: the file is damaged, or another program changed "
            "it and kept its metadata; use an earlier file or a copy"
        )


def _map(path: Path, file: BufferedReader, start: int, size: int) -> memoryview:
    """Map the data after the header into memory."""
    try:
        return memoryview(MemoryMap(file.fileno(), start + size, access=ACCESS_READ))[start:]
    except ValueError:
        raise LoadError(f"{path}: data: the file became shorter; is it being written?") from None


def _read_header(path: Path, file: BufferedReader) -> tuple[bytes, int]:
    """Return the header, and how many bytes of data follow it."""
    size = os.fstat(file.fileno()).st_size
    prefix = file.read(8)
    if len(prefix) < 8:
        raise LoadError(f"{path}: header length: needs 8 bytes, the file has {size}")
    length = int.from_bytes(prefix, "little")
    if length > MAX_JSON:
        if known := disguise(prefix):
            raise LoadError(f"{path}: {known}")
        raise LoadError(
            f"{path}: header length: {length} bytes, more than the {MAX_JSON} accepted; "
            f"not a safetensors file (it begins with {prefix!r})"
        )
    if length > size - 8:
        raise LoadError(f"{path}: header length: {length} bytes, but only {size - 8} follow: truncated?")
    return file.read(length), size - 8 - length


def _parse_header(path: Path, header: bytes) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Return {name: {dtype, shape, begin, end}} in the order of the data, and the metadata."""
    entries = parse_json(f"{path}: header", header)
    if not isinstance(entries, dict):
        raise LoadError(f"{path}: header: must be a JSON object, got {show(entries)}")

    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise LoadError(f"{path}: __metadata__: must map strings to strings")
    tensors = {name: _parse_entry(f"{path}: tensor {show(name)}", entry) for name, entry in entries.items()}
    in_order = sorted(tensors.items(), key=lambda item: (item[1]["begin"], item[1]["end"]))
    return dict(in_order), metadata


def _parse_entry(where: str, entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise LoadError(f"{where}: must have exactly dtype, shape and data_offsets, got {show(entry)}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise LoadError(f"{where}: dtype: unknown {show(dtype)}, known are {' '.join(sorted(_DTYPES))}")
    if not _is_sizes(shape):
        raise LoadError(f"{where}: shape: must be a list of integers ≥ 0, got {show(shape)}")
    if not _is_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise LoadError(f"{where}: data_offsets: must be [begin, end], got {show(offsets)}")
    size = array_size(where, shape, stored_dtype(_DTYPES[dtype]).itemsize)
    if size != offsets[1] - offsets[0]:
        raise LoadError(
            f"{where}: data_offsets: {show(offsets)} are {offsets[1] - offsets[0]} bytes, "
            f"but {dtype} of shape {show(shape)} has {size}"
        )
    return {"dtype": dtype, "shape": tuple(shape), "begin": offsets[0], "end": offsets[1]}


def _is_sizes(value: Any) -> bool:
    """Return whether a value is a list of integers ≥ 0. JSON's true and 1.0 are not integers."""
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)


def _check_offsets(path: Path, tensors: Mapping[str, Mapping[str, Any]], data_size: int) -> None:
    """Check that each tensor begins where the one before it ends, and that the last ends with the file."""
    position = 0
    for name, tensor in tensors.items():
        if tensor["begin"] != position:
            what = "overlap with the tensor" if tensor["begin"] < position else "leave a hole after the one"
            raise LoadError(
                f"{path}: tensor {show(name)}: data_offsets: {what} before it: "
                f"begin at {tensor['begin']}, not {position}"
            )
        position = tensor["end"]
    if position > data_size:
        raise LoadError(f"{path}: data: {position} bytes expected, {data_size} found: truncated?")
    if position < data_size:
        raise LoadError(f"{path}: data: {data_size - position} bytes follow the last tensor")


def _read_array(
    path: Path,
    source: BufferedReader | memoryview,
    name: str,
    *,
    dtype: str,
    shape: tuple[int, ...],
    begin: int,
    end: int,
) -> NDArray[Any]:
    """Read the next array of a file, or return a view of mapped memory."""
    array: NDArray[Any]
    code = _DTYPES[dtype]
    if isinstance(source, memoryview):
        array = np.ndarray(shape, stored_dtype(code), source, begin)
    else:
        array = np.empty(shape, stored_dtype(code))
        if source.readinto(array.data) != end - begin:
            raise LoadError(f"{path}: tensor {show(name)}: data: the file ended early; is it being written?")
    array = decode(f"{path}: tensor {show(name)}", array, code)
    if isinstance(source, memoryview):  # a converted copy as well
        array.flags.writeable = False
    return array

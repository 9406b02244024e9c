"""TensorFlow's checkpoints (TensorBundle): an index of names, and shards of raw array bytes.

    P.index                 a sorted table of keys and values: see `table`
    P.data-00000-of-00001   the arrays' bytes, C order and little-endian; there may be several such shards

The key "" comes first, with a header {1: number of shards, 2: endianness, 3: version}. Any other key is the name of
an array and has {1: dtype, 2: shape, 3: shard, 4: offset, 5: size, 6: CRC, 7: slices}. Both are protobuf messages.

Source: tensorflow/core/util/tensor_bundle and tensorflow/core/protobuf/tensor_bundle.proto.
"""

import os
import re
from collections.abc import Mapping
from io import BufferedReader
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinygrad_llm.formats.crc32c import crc32c, mask
from tinygrad_llm.formats.dtypes import BFLOAT16, BOOL, checked, decode, stored_dtype
from tinygrad_llm.formats.table import MAX_ENTRIES, MAX_ITEM, MAX_TABLE, Cursor, Pair, pack_table, read_table, varint
from tinygrad_llm.storage.atomic import atomic_write
from tinygrad_llm.storage.files import LoadError, array_size, disguise, in_memory, open_regular, show

_DTYPES = {
    1: "<f4", 2: "<f8", 19: "<f2", 14: BFLOAT16, 10: BOOL,
    6: "|i1", 5: "<i2", 3: "<i4", 9: "<i8", 4: "|u1", 17: "<u2", 22: "<u4", 23: "<u8",
}  # fmt: skip
_NUMBERS = {code: number for number, code in _DTYPES.items()}
_STRING = 7

_VERSION = 1
_HEADER = bytes.fromhex("08 01 1a 02 08 01")  # one shard, little-endian, written by version 1
_MAX_SHARDS = 99_999  # their names have five digits
_PIECE = 1_000_000  # bytes

_SLICES = "slices: a variable saved in parts, which are not joined here; save it whole"


class Entry(NamedTuple):
    """An array in the index: `dtype` is TensorFlow's number, `offset` and `size` are bytes in the shard."""

    name: str
    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int


def read_tensorbundle(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Read a TensorFlow checkpoint: its arrays by name, sorted.

    All shapes, sizes and offsets are compared with the shards before memory is allocated. Tensors may not overlap, or
    a small file could claim any amount of memory; there may be padding between them. Every CRC is checked.

    Args:     path: the prefix P; or P.index; or the folder with one .index file, or with several and a file
              `checkpoint` that names the latest; or that file.
    Returns:  arrays that own writable memory of the machine's byte order. bfloat16, which NumPy lacks, becomes
              float32; all others keep their dtype.
    Raises:   LoadError: a file of the bundle is missing, damaged, or something else; or the bundle holds something
              that is not an array of numbers, such as TensorFlow 2's strings. Names the file and the field or tensor.
              OSError: a file cannot be opened or read.
    """
    arrays: dict[str, NDArray[Any]] = {}
    entries, shards = _open(path)
    for file_name, inside in shards.items():
        with open_regular(file_name) as file:
            for entry in inside:
                where = f"{file_name}: tensor {show(entry.name)}"
                with in_memory(where, entry.size):
                    arrays[entry.name] = _read_array(file, where, entry)
    return {entry.name: arrays[entry.name] for entry in entries}


def verify_tensorbundle(path: str | os.PathLike[str]) -> dict[str, tuple[int, ...]]:
    """Check the places and CRCs of a TensorFlow checkpoint, piece by piece: it need not fit into memory.

    Args:     path: as for `read_tensorbundle`.
    Returns:  the shapes of its arrays by name, sorted.
    Raises:   as `read_tensorbundle`.
    """
    entries, shards = _open(path)
    for file_name, inside in shards.items():
        with open_regular(file_name) as file:
            for entry in inside:
                crc, left = 0, entry.size
                file.seek(entry.offset)
                while left and (piece := file.read(min(left, _PIECE))):
                    crc, left = crc32c(piece, crc), left - len(piece)
                _check_crc(f"{file_name}: tensor {show(entry.name)}", entry, crc, left)
    return {entry.name: entry.shape for entry in entries}


def write_tensorbundle(prefix: str | os.PathLike[str], arrays: Mapping[str, ArrayLike]) -> None:
    """Write named arrays as a checkpoint that TensorFlow reads: `prefix`.index and `prefix`.data-00000-of-00001.

    Both files are written aside and then replaced, the data first (see `atomic_write`). No file system replaces two
    files at once: after a power cut just between, the old index is next to the new data, and its CRCs reveal it. A new
    prefix for every checkpoint avoids that. The same arrays always give the same bytes.

    Raises:   ValueError: an array or a name that the format cannot hold; named.
              OSError: a file cannot be written.
    """
    prefix = os.fspath(prefix)
    tensors = []
    for name, array, code in checked(prefix, arrays, _NUMBERS, lambda name: not name or name[0] == "\0"):
        try:
            tensors.append((name.encode(), array, code))
        except UnicodeEncodeError:
            raise ValueError(f"{prefix}: the name {show(name)} holds a lone surrogate, which UTF-8 cannot") from None
    longest = max((len(key) for key, *_ in tensors), default=0)
    if longest > MAX_ITEM or len(tensors) > MAX_ENTRIES or sum(len(key) + 100 for key, *_ in tensors) > MAX_TABLE:
        raise ValueError(f"{prefix}: {len(tensors)} tensors, names up to {longest} bytes: the reader accepts fewer")
    tensors.sort(key=lambda tensor: tensor[0])

    entries: list[Pair] = [(b"", _HEADER)]
    position = 0
    with atomic_write(f"{prefix}.index") as index, atomic_write(f"{prefix}.data-00000-of-00001") as data:
        for key, array, code in tensors:
            octets = np.ascontiguousarray(array, code).reshape(-1).view(np.uint8)
            data.write(octets.data)
            shape = b"".join(_field(2, _field(1, size)) for size in array.shape)
            value = _field(1, _NUMBERS[code]) + _field(2, shape) + _field(4, position) + _field(5, octets.size)
            entries.append((key, value + b"\x35" + mask(crc32c(octets)).to_bytes(4, "little")))
            position += octets.size
        index.write(pack_table(entries))


# ---- which files ---------------------------------------------------------------------------------------------------


def find_prefix(path: str) -> str:
    """Return the prefix of the bundle that a path of `read_tensorbundle` means."""
    if os.path.isfile(path + ".index"):
        return path
    if os.path.isdir(path):
        found = sorted(name for name in os.listdir(path) if name.endswith(".index"))
        if len(found) == 1:
            return os.path.join(path, found[0]).removesuffix(".index")
        if not found:
            raise LoadError(f"{path}: no .index file in this folder")
        path = os.path.join(path, "checkpoint")
        if not os.path.isfile(path):
            raise LoadError(f"{path}: missing, so name one of the {len(found)} bundles: {show(found)}")
    if os.path.basename(path) == "checkpoint" and os.path.isfile(path):
        return _latest(path)
    if os.path.isfile(path) and not path.endswith(".index"):
        raise LoadError(f"{path}: the name of a TensorBundle's index must end in .index, with its data next to it")
    return path.removesuffix(".index")


def _latest(path: str) -> str:
    """Return the prefix that a `checkpoint` file names, if it is in the same folder."""
    with open_regular(path) as file:
        found = re.search(rb'^model_checkpoint_path:\s*"([^"\\\x00-\x1f]*)"', file.read(100_000), re.MULTILINE)
    where = f"{path}: model_checkpoint_path"
    if not found:
        raise LoadError(f"{where}: none found that is a plain name; give the path of the .index file instead")
    folder = os.path.dirname(path)
    name = os.fsdecode(found[1])
    head, tail = os.path.split(os.path.join(folder, name))
    if os.path.abspath(head) != os.path.abspath(folder):
        raise LoadError(f"{where}: {show(name)} is outside the folder; give the path of the .index file instead")
    return os.path.join(folder, tail)


def _open(path: str | os.PathLike[str]) -> tuple[list[Entry], dict[str, list[Entry]]]:
    """Return the entries sorted by name; and those of each shard, sorted by place, after checking the places."""
    prefix = find_prefix(os.fspath(path))
    entries, shards = read_index(prefix + ".index")
    by_shard: dict[str, list[Entry]] = {}
    for entry in sorted(entries, key=lambda entry: (entry.shard, entry.offset, entry.size)):
        by_shard.setdefault(f"{prefix}.data-{entry.shard:05d}-of-{shards:05d}", []).append(entry)
    for file_name, inside in by_shard.items():
        _check_places(file_name, inside)
    return entries, by_shard


# ---- the index: protobuf messages ----------------------------------------------------------------------------------


class _Message:
    """A protobuf message: numbered fields, each an integer or bytes. Unknown fields are ignored."""

    def __init__(self, data: bytes, where: str) -> None:
        self.where = where
        self.integers: dict[int, list[int]] = {}
        self.parts: dict[int, list[bytes]] = {}
        cursor = Cursor(data, where)
        while cursor:
            number, kind = divmod(cursor.varint(), 8)
            if kind == 0:
                self.integers.setdefault(number, []).append(cursor.varint())
            elif kind == 2:
                self.parts.setdefault(number, []).append(cursor.take(cursor.varint()))
            elif kind in (1, 5):
                octets = cursor.take(8 if kind == 1 else 4)
                self.integers.setdefault(number, []).append(int.from_bytes(octets, "little"))
            else:
                raise LoadError(f"{where}: field {number} is of kind {kind}, which is unknown")

    def integer(self, number: int, name: str) -> int:
        values = self.integers.get(number, [0])  # a zero is never written
        if len(values) > 1:
            raise LoadError(f"{self.where}: {name}: stated {len(values)} times")
        return values[0]

    def message(self, number: int, name: str) -> "_Message":
        return _Message(b"".join(self.parts.get(number, [])), f"{self.where}: {name}")  # parts of one message merge


def _field(number: int, value: int | bytes) -> bytes:
    """Return one field of a protobuf message; an integer that is zero is left out."""
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value) if value else b""


def read_index(path: str) -> tuple[list[Entry], int]:
    """Return the entries sorted by name, and the number of shards.

    Raises:   as `read_tensorbundle`.
    """
    pairs = read_table(path)
    key, value = next(pairs, (b"?", b""))
    if key:
        raise LoadError(f"{path}: header: missing; the first key must be ''")
    header = _Message(value, f"{path}: header")
    shards = header.integer(1, "num_shards")
    if not 0 < shards <= _MAX_SHARDS:
        raise LoadError(f"{header.where}: num_shards: must be at least 1 and at most {_MAX_SHARDS}, got {shards}")
    if header.integer(2, "endianness") != 0:
        raise LoadError(f"{header.where}: endianness: big-endian, only little-endian is read")
    needed = header.message(3, "version").integer(2, "min_consumer")
    if needed > _VERSION:
        raise LoadError(f"{header.where}: version: needs a reader of version {needed}, this one is {_VERSION}")
    return [_parse_entry(path, key, value, shards) for key, value in pairs], shards


def _parse_entry(path: str, key: bytes, value: bytes, shards: int) -> Entry:
    if key.startswith(b"\0"):  # the keys of parts begin so; the variable they belong to comes later
        raise LoadError(f"{path}: {show(key)}: {_SLICES}")
    try:
        name = key.decode()
    except UnicodeDecodeError:
        raise LoadError(f"{path}: name {show(key)}: not UTF-8") from None
    where = f"{path}: tensor {show(name)}"
    entry = _Message(value, where)
    dtype = entry.integer(1, "dtype")
    if dtype == _STRING:
        raise LoadError(f"{where}: dtype: strings, not numbers; save the variables without it")
    if dtype not in _DTYPES:
        raise LoadError(f"{where}: dtype: number {dtype} of TensorFlow's is unknown here")
    if 7 in entry.parts:
        raise LoadError(f"{where}: {_SLICES}")

    dimensions = entry.message(2, "shape")
    if dimensions.integer(3, "unknown_rank"):
        raise LoadError(f"{where}: shape: of unknown rank")
    shape = tuple(_Message(part, f"{where}: shape").integer(1, "size") for part in dimensions.parts.get(2, []))
    if any(size >= 2**63 for size in shape):
        raise LoadError(f"{where}: shape: a dimension is negative")
    needed = array_size(where, shape, stored_dtype(_DTYPES[dtype]).itemsize)
    shard, offset, size = entry.integer(3, "shard_id"), entry.integer(4, "offset"), entry.integer(5, "size")
    if needed != size:
        raise LoadError(f"{where}: size: {size} bytes, but the shape {show(shape)} has {needed}")
    if offset + size >= 2**63:  # no file is that long, and `seek` takes no more
        raise LoadError(f"{where}: offset: {offset}, beyond the end of any file")
    if shard >= shards:
        raise LoadError(f"{where}: shard_id: {shard}, but there are {shards} shards")
    return Entry(name, dtype, shape, shard, offset, size, entry.integer(6, "crc32c"))


# ---- the shards ----------------------------------------------------------------------------------------------------


def _check_places(path: str, entries: list[Entry]) -> None:
    """Check that each tensor is inside this shard and overlaps no other; `entries` are sorted by offset."""
    if not os.path.isfile(path):
        raise LoadError(f"{path}: missing; the index has {len(entries)} tensors in it, one is {show(entries[0].name)}")
    with open_regular(path) as file:
        length, start = os.fstat(file.fileno()).st_size, file.read(100)
    position = 0
    for entry in entries:
        where = f"{path}: tensor {show(entry.name)}"
        if entry.offset + entry.size > length:
            known = disguise(start)
            raise LoadError(
                f"{where}: {entry.size} bytes at offset {entry.offset}, but the file has {length}: truncated?"
                + (f"; it is {known}" if known else "")
            )
        if entry.size:
            if entry.offset < position:
                raise LoadError(f"{where}: offset: {entry.offset}, but the tensor before it ends at {position}")
            position = entry.offset + entry.size


def _check_crc(where: str, entry: Entry, crc: int, left: int) -> None:
    """Check the CRC of the bytes that were read, and that none are left to read."""
    if left:
        raise LoadError(f"{where}: data: the file ended early; is it being written?")
    if mask(crc) != entry.crc:
        raise LoadError(f"{where}: CRC mismatch: the file is damaged, or of another checkpoint than the index")


def _read_array(file: BufferedReader, where: str, entry: Entry) -> NDArray[Any]:
    code = _DTYPES[entry.dtype]
    array = np.empty(entry.shape, stored_dtype(code))
    octets = array.reshape(-1).view(np.uint8)
    file.seek(entry.offset)
    left = entry.size - file.readinto(octets.data)
    _check_crc(where, entry, 0 if left else crc32c(octets), left)
    return decode(where, array, code)

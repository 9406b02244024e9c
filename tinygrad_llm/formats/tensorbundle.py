"""TensorFlow's checkpoints (TensorBundle): an index of names, and shards of raw array bytes.

    P.index                 a sorted table of (key, value) pairs, in LevelDB's format
    P.data-00000-of-00001   the arrays' bytes, C order and little-endian; there may be several such shards

The index, from its end. The last 48 bytes are the footer: two handles (offset and size of a block, each a varint),
zeros up to 40 bytes, and a magic number. The handles lead to the metaindex, which is empty, and to the index block,
whose values are the handles of the data blocks. Those lie first in the file, then the metaindex, then the index
block. Each block is followed by a type (0: not compressed) and the masked CRC of block and type. Inside it:

    entries     varint shared, varint unshared, varint n, the key without its first `shared` bytes, which are those
                of the key before, and n bytes of value
    restarts    positions of the entries that share nothing, every sixteenth, as u32; then their number, as u32

The key "" comes first, with a header {1: number of shards, 2: endianness, 3: version}. Any other key is the name of
an array and has {1: dtype, 2: shape, 3: shard, 4: offset, 5: size, 6: CRC, 7: slices}. Both are protobuf messages.

Source: tensorflow/core/util/tensor_bundle and tensorflow/core/protobuf/tensor_bundle.proto;
https://github.com/google/leveldb/blob/main/doc/table_format.md.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from io import BufferedReader
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinygrad_llm.formats.crc32c import crc32c, mask
from tinygrad_llm.storage.atomic import atomic_write
from tinygrad_llm.storage.files import (
    LoadError,
    array_size,
    disguise,
    in_memory,
    open_regular,
    show,
)

_DTYPES = {
    1: "<f4", 2: "<f8", 19: "<f2", 10: "|b1",
    6: "|i1", 5: "<i2", 3: "<i4", 9: "<i8", 4: "|u1", 17: "<u2", 22: "<u4", 23: "<u8",
}  # fmt: skip
_NUMBERS = {code: number for number, code in _DTYPES.items()}
_BOOL, _STRING, _BFLOAT16 = 10, 7, 14
_READ_AS = _DTYPES | {_BFLOAT16: "<u2", _BOOL: "|u1"}  # the two whose bytes need a second look

_VERSION = 1
_HEADER = bytes.fromhex("08 01 1a 02 08 01")  # one shard, little-endian, written by version 1
MAGIC = bytes.fromhex("57 fb 80 8b 24 75 47 db")
_FOOTER, _TRAILER = 48, 5
_RESTART_INTERVAL = 16
_BLOCK_SIZE = 262_144
_PIECE = 1_000_000

# A shared prefix makes a long name out of a few bytes, and a parsed entry takes many times its bytes: neither the
# size of the index nor anything it says bounds the memory, so these do. Real ones have some thousand entries.
_MAX_INDEX = 10_000_000  # bytes of the file, and of all its keys together
_MAX_TENSORS = 100_000
_MAX_SHARDS = 99_999  # their names have five digits
_MAX_ITEM = 10_000  # bytes of one key or value; 64 dimensions take under a thousand

_SLICES = "slices: a variable saved in parts, which are not put together here; save it whole"


class _Entry(NamedTuple):
    name: str
    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int


def read_tensorbundle(path: str | os.PathLike[str], verify: bool = True) -> dict[str, NDArray[Any]]:
    """Read a TensorFlow checkpoint: its arrays by name, sorted.

    Args:     path: the prefix P; or P.index; or the folder with one .index file, or with several and a file
              `checkpoint` that names the latest; or that file. verify: check the CRCs of the arrays too, not only
              those of the index.
    Returns:  arrays that own writable memory of the machine's byte order. bfloat16, which NumPy lacks, becomes
              float32; all else keeps its type.
    Raises:   LoadError: a file is missing from the bundle, damaged, or something else; or it holds what is no array,
              such as the strings TensorFlow 2 keeps of Python objects. Names the file and the field or tensor.
              OSError: a file cannot be opened or read.

    All shapes, sizes and offsets are checked against the shards before an array is allocated. Tensors may not
    overlap, or a small file could claim any amount of memory; there may be padding between them.
    """
    arrays: dict[str, NDArray[Any]] = {}
    entries, shards = _open(path)
    for file_name, inside in shards.items():
        with open_regular(file_name) as file:
            for entry in inside:
                where = f"{file_name}: tensor {show(entry.name)}"
                with in_memory(where, entry.size):
                    arrays[entry.name] = _read_array(file, where, entry, verify)
    return {entry.name: arrays[entry.name] for entry in entries}


def verify_tensorbundle(path: str | os.PathLike[str]) -> dict[str, tuple[int, ...]]:
    """Check a TensorFlow checkpoint, places and CRCs, piece by piece: it need not fit into memory.

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

    Both files are written aside and then take their places, first the data (see `atomic_write`). No file system
    replaces two files at once: if the power fails just between, the old index is found beside the new data, and
    its CRCs tell. A new prefix for every checkpoint has no such moment. The same arrays always give the same bytes.
    Raises:   ValueError: an array or a name that the format cannot hold; named.
              OSError: a file cannot be written.
    """
    prefix = os.fspath(prefix)
    tensors = []
    for name, value in arrays.items():
        array = np.asarray(value)
        code = array.dtype.newbyteorder("<").str
        if not isinstance(name, str) or not name or name[0] == "\0":
            raise ValueError(f"{prefix}: {show(name)} cannot be the name of a tensor")
        if code not in _NUMBERS:
            raise ValueError(f"{prefix}: tensor {show(name)}: no dtype of TensorFlow's for {array.dtype}")
        try:
            tensors.append((name.encode(), array, code))
        except UnicodeEncodeError:
            raise ValueError(f"{prefix}: the name {show(name)} holds a lone surrogate, which UTF-8 cannot") from None
    longest = max((len(key) for key, *_ in tensors), default=0)
    if longest > _MAX_ITEM or len(tensors) > _MAX_TENSORS or sum(len(key) + 100 for key, *_ in tensors) > _MAX_INDEX:
        raise ValueError(f"{prefix}: {len(tensors)} tensors, names up to {longest} bytes: the reader accepts fewer")
    tensors.sort(key=lambda tensor: tensor[0])

    entries, position = [(b"", _HEADER)], 0
    with atomic_write(f"{prefix}.index") as index, atomic_write(f"{prefix}.data-00000-of-00001") as data:
        for key, array, code in tensors:
            octets = np.ascontiguousarray(array, code).reshape(-1).view(np.uint8)
            data.write(octets.data)
            shape = b"".join(_field(2, _field(1, size)) for size in array.shape)
            value = _field(1, _NUMBERS[code]) + _field(2, shape) + _field(4, position) + _field(5, octets.size)
            entries.append((key, value + b"\x35" + mask(crc32c(octets)).to_bytes(4, "little")))
            position += octets.size
        index.write(_table(entries))


# Which files


def find_prefix(path: str) -> str:
    """The prefix of the bundle that a path means, as `read_tensorbundle` takes it."""
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
        raise LoadError(f"{path}: the name of a TensorBundle's index must end in .index, and its data lie beside it")
    return path.removesuffix(".index")


def _latest(path: str) -> str:
    """The prefix that a `checkpoint` file names, if it lies in the same folder."""
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


def _open(path: str | os.PathLike[str]) -> tuple[list[_Entry], dict[str, list[_Entry]]]:
    """The entries in the order of their names; and by the shard they lie in, in the order of their places."""
    prefix = find_prefix(os.fspath(path))
    entries, shards = read_index(prefix + ".index")
    by_shard: dict[str, list[_Entry]] = {}
    for entry in sorted(entries, key=lambda entry: (entry.shard, entry.offset, entry.size)):
        by_shard.setdefault(f"{prefix}.data-{entry.shard:05d}-of-{shards:05d}", []).append(entry)
    for file_name, inside in by_shard.items():
        _check_places(file_name, inside)
    return entries, by_shard


def _told(start: bytes) -> str:
    return f"; it is {known}" if (known := disguise(start)) else ""


# The index: bytes → blocks → keys and values → entries


class _Cursor:
    """Bytes, read from the front; those that are missing are a LoadError."""

    def __init__(self, data: bytes, where: str) -> None:
        self.data, self.where, self.position = data, where, 0

    def __bool__(self) -> bool:
        return self.position < len(self.data)

    def take(self, size: int) -> bytes:
        end = self.position + size
        if end > len(self.data):
            raise LoadError(f"{self.where}: {size} bytes at {self.position} are not inside its {len(self.data)}")
        taken, self.position = self.data[self.position : end], end
        return taken

    def varint(self) -> int:
        """Seven bits a byte, the lowest first; the eighth says that another byte follows."""
        start, value = self.position, 0
        for shift in range(0, 70, 7):
            octet = self.take(1)[0]
            value |= (octet & 0x7F) << shift
            if octet < 0x80:
                if value >= 2**64 or (shift and octet == 0):
                    break
                return value
        raise LoadError(f"{self.where}: the varint at {start} has more than 64 bits, or more bytes than it needs")


class _Message:
    """A protobuf message: numbered fields, each an integer or bytes. Unknown ones count for nothing."""

    def __init__(self, data: bytes, where: str) -> None:
        self.where = where
        self.integers: dict[int, list[int]] = {}
        self.parts: dict[int, list[bytes]] = {}
        cursor = _Cursor(data, where)
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
                raise LoadError(f"{where}: field {number} is of kind {kind}, which is none")

    def integer(self, number: int, name: str) -> int:
        values = self.integers.get(number, [0])  # zero is never written
        if len(values) > 1:
            raise LoadError(f"{self.where}: {name}: stated {len(values)} times")
        return values[0]

    def message(self, number: int, name: str) -> "_Message":
        return _Message(b"".join(self.parts.get(number, [])), f"{self.where}: {name}")  # parts of one message merge


def read_index(path: str) -> tuple[list[_Entry], int]:
    """The entries in the order of their names, and the number of shards."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > _MAX_INDEX:
            raise LoadError(f"{path}: {size} bytes, more than the {_MAX_INDEX} that are accepted for an index")
        data = file.read(size)
    if len(data) < _FOOTER or data[-8:] != MAGIC:
        raise LoadError(f"{path}: footer: magic number: not found at the end of {len(data)} bytes{_told(data)}")

    footer = _Cursor(data[-_FOOTER:-8], f"{path}: footer")
    metaindex = footer.varint(), footer.varint()
    index = footer.varint(), footer.varint()
    if any(footer.take(40 - footer.position)):
        raise LoadError(f"{path}: footer: padding: must be zeros")
    handles = []
    for key, value in _entries([(f"{path}: index block", _block(path, "index block", data, *index))]):
        handle = _Cursor(value, f"{path}: index block: handle {show(key)}")
        handles.append((handle.varint(), handle.varint()))
    _block(path, "metaindex", data, *metaindex)
    position = 0
    for offset, size in [*handles, metaindex, index]:  # so that every byte is in one block, under one CRC
        if offset != position:
            raise LoadError(f"{path}: block at {offset}: must begin at {position}, where the one before it ends")
        position += size + _TRAILER
    if position != len(data) - _FOOTER:
        raise LoadError(f"{path}: index block: must end at the footer, {len(data) - _FOOTER}, ends at {position}")

    blocks = ((f"{path}: data block {i}", _block(path, f"data block {i}", data, *h)) for i, h in enumerate(handles))
    pairs = _entries(blocks)
    key, value = next(pairs, (b"?", b""))
    if key:
        raise LoadError(f"{path}: header: missing; the first key must be ''")
    shards = _parse_header(_Message(value, f"{path}: header"))
    return [_parse_entry(path, key, value, shards) for key, value in pairs], shards


def _block(path: str, name: str, data: bytes, offset: int, size: int) -> bytes:
    """The contents of a block, whose CRC is right."""
    end = offset + size
    if end + _TRAILER > len(data) - _FOOTER:
        raise LoadError(f"{path}: {name}: handle: {size} bytes at {offset} are outside the file")
    stored = int.from_bytes(data[end + 1 : end + _TRAILER], "little")
    if mask(crc32c(memoryview(data)[offset : end + 1])) != stored:
        raise LoadError(f"{path}: {name}: CRC mismatch: the file is damaged")
    if data[end] == 1:
        raise LoadError(f"{path}: {name}: compressed with snappy, which TensorFlow never does to a checkpoint")
    if data[end] != 0:
        raise LoadError(f"{path}: {name}: type {data[end]} is unknown")
    return data[offset:end]


def _entries(blocks: Iterable[tuple[str, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of some blocks, whose keys rise from the first to the last."""
    before: bytes | None = None
    count = length = 0
    for where, block in blocks:
        restarts = int.from_bytes(block[-4:], "little")
        if 4 * restarts + 4 > len(block):
            raise LoadError(f"{where}: restarts: {restarts} do not fit into {len(block)} bytes")
        cursor = _Cursor(block[: len(block) - 4 * restarts - 4], where)
        key = b""
        while cursor:
            shared, unshared, size = cursor.varint(), cursor.varint(), cursor.varint()
            if shared > len(key):
                raise LoadError(f"{where}: shared: {shared} bytes of a key before that has {len(key)}")
            if shared + unshared > _MAX_ITEM or size > _MAX_ITEM:
                raise LoadError(f"{where}: key after {show(key)}: it or its value has more than {_MAX_ITEM} bytes")
            count, length = count + 1, length + shared + unshared
            if count > _MAX_TENSORS + 1 or length > _MAX_INDEX:
                raise LoadError(f"{where}: more than {_MAX_TENSORS} keys, or {_MAX_INDEX} bytes of keys")
            key = key[:shared] + cursor.take(unshared)
            if before is not None and key <= before:
                what = "twice" if key == before else f"after {show(before)}"
                raise LoadError(f"{where}: key {show(key)}: comes {what}; keys must rise")
            yield key, cursor.take(size)
            before = key


def _parse_header(header: _Message) -> int:
    shards = header.integer(1, "num_shards")
    if not 0 < shards <= _MAX_SHARDS:
        raise LoadError(f"{header.where}: num_shards: must be at least 1 and at most {_MAX_SHARDS}, is {shards}")
    if header.integer(2, "endianness") != 0:
        raise LoadError(f"{header.where}: endianness: big-endian, only little-endian is read")
    needed = header.message(3, "version").integer(2, "min_consumer")
    if needed > _VERSION:
        raise LoadError(f"{header.where}: version: needs a reader of version {needed}, this one is {_VERSION}")
    return shards


def _parse_entry(path: str, key: bytes, value: bytes, shards: int) -> _Entry:
    if key.startswith(b"\0"):  # so do the keys of the parts; the variable they belong to comes later
        raise LoadError(f"{path}: {show(key)}: {_SLICES}")
    try:
        name = key.decode()
    except UnicodeDecodeError:
        raise LoadError(f"{path}: name {show(key)}: not UTF-8") from None
    where = f"{path}: tensor {show(name)}"
    entry = _Message(value, where)
    dtype = entry.integer(1, "dtype")
    if dtype == _STRING:
        raise LoadError(f"{where}: dtype: strings, which are no array of numbers; save the variables without it")
    if dtype not in _READ_AS:
        raise LoadError(f"{where}: dtype: number {dtype} of TensorFlow's is unknown here")
    if 7 in entry.parts:
        raise LoadError(f"{where}: {_SLICES}")

    dimensions = entry.message(2, "shape")
    if dimensions.integer(3, "unknown_rank"):
        raise LoadError(f"{where}: shape: of unknown rank")
    shape = tuple(_Message(part, f"{where}: shape").integer(1, "size") for part in dimensions.parts.get(2, []))
    if any(size >= 2**63 for size in shape):
        raise LoadError(f"{where}: shape: a dimension is negative")
    needed = array_size(where, shape, np.dtype(_READ_AS[dtype]).itemsize)
    shard, offset, size = entry.integer(3, "shard_id"), entry.integer(4, "offset"), entry.integer(5, "size")
    if needed != size:
        raise LoadError(f"{where}: size: {size} bytes, but the shape {show(shape)} has {needed}")
    if offset + size >= 2**63:  # of which no file is; `seek` takes no more
        raise LoadError(f"{where}: offset: {offset}, where no file reaches")
    if shard >= shards:
        raise LoadError(f"{where}: shard_id: {shard}, but there are {shards} shards")
    return _Entry(name, dtype, shape, shard, offset, size, entry.integer(6, "crc32c"))


# The shards


def _check_places(path: str, entries: list[_Entry]) -> None:
    """Every tensor lies inside this shard and on no other; `entries` are those in it, sorted by offset."""
    if not os.path.isfile(path):
        raise LoadError(f"{path}: missing; the index has {len(entries)} tensors in it, one is {show(entries[0].name)}")
    with open_regular(path) as file:
        length, start = os.fstat(file.fileno()).st_size, file.read(100)
    position = 0
    for entry in entries:
        where = f"{path}: tensor {show(entry.name)}"
        if entry.offset + entry.size > length:
            raise LoadError(
                f"{where}: {entry.size} bytes at offset {entry.offset}, but the file has {length}: truncated?"
                f"{_told(start)}"
            )
        if entry.size:
            if entry.offset < position:
                raise LoadError(f"{where}: offset: {entry.offset}, but the tensor before it ends at {position}")
            position = entry.offset + entry.size


def _check_crc(where: str, entry: _Entry, crc: int, left: int) -> None:
    """The CRC of what was read, and that nothing is left to read."""
    if left:
        raise LoadError(f"{where}: data: the file ended early; is it being written?")
    if mask(crc) != entry.crc:
        raise LoadError(f"{where}: CRC mismatch: the file is damaged, or of another checkpoint than the index")


def _read_array(file: BufferedReader, where: str, entry: _Entry, verify: bool) -> NDArray[Any]:
    array = np.empty(entry.shape, _READ_AS[entry.dtype])
    octets = array.reshape(-1).view(np.uint8)
    file.seek(entry.offset)
    left = entry.size - file.readinto(octets.data)
    if left or verify:
        _check_crc(where, entry, 0 if left else crc32c(octets), left)
    if entry.dtype == _BFLOAT16:  # the upper half of a float32
        bits = array.astype(np.uint32)
        bits <<= 16
        return bits.view(np.float32)
    if entry.dtype == _BOOL:
        if array.max(initial=0) > 1:
            raise LoadError(f"{where}: data: a bool is neither 0 nor 1")
        return array.view(np.bool_)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


# Writing


def _varint(value: int) -> bytes:
    octets = bytearray()
    while value >= 0x80:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


def _field(number: int, value: int | bytes) -> bytes:
    """One field of a protobuf message; an integer that is zero is left out."""
    if isinstance(value, bytes):
        return _varint(number << 3 | 2) + _varint(len(value)) + value
    return _varint(number << 3) + _varint(value) if value else b""


def _table(entries: list[tuple[bytes, bytes]]) -> bytes:
    """The whole index of sorted keys and values."""
    table = bytearray()

    def add_block(pairs: list[tuple[bytes, bytes]]) -> bytes:
        block = _pack(pairs) + b"\0"
        handle = _varint(len(table)) + _varint(len(block) - 1)
        table.extend(block + mask(crc32c(block)).to_bytes(4, "little"))
        return handle

    handles: list[tuple[bytes, bytes]] = []
    pairs: list[tuple[bytes, bytes]] = []
    length = 0
    for number, (key, value) in enumerate(entries, 1):
        pairs.append((key, value))
        length += len(key) + len(value)
        if length >= _BLOCK_SIZE or number == len(entries):
            # Any key will do that is not below this block's, but below the next's: TensorFlow takes a short one.
            separator = bytes([key[0] + 1]) if key and number == len(entries) else key
            handles.append((separator, add_block(pairs)))
            pairs, length = [], 0
    handles_at = add_block([]) + add_block(handles)  # metaindex, index block
    return bytes(table) + handles_at.ljust(40, b"\0") + MAGIC


def _pack(pairs: list[tuple[bytes, bytes]]) -> bytes:
    """A block of entries, the restarts and their number."""
    block, restarts, before = bytearray(), [0], b""
    for number, (key, value) in enumerate(pairs):
        if number and number % _RESTART_INTERVAL == 0:
            restarts.append(len(block))
            before = b""
        # Keys rise, so one that differs nowhere from the key before goes on where that ends.
        differ = (i for i, (a, b) in enumerate(zip(before, key, strict=False)) if a != b)
        shared = next(differ, len(before))
        block += _varint(shared) + _varint(len(key) - shared) + _varint(len(value)) + key[shared:] + value
        before = key
    return bytes(block) + np.array([*restarts, len(restarts)], "<u4").tobytes()

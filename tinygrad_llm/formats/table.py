"""Sorted tables of keys and values in LevelDB's format: the `.index` of TensorFlow's checkpoints is one.

From its end: the last 48 bytes are the footer, with two handles (offset and size of a block, each a varint), zeros up
to 40 bytes, and a magic number. The handles lead to the metaindex, which is empty, and to the index block, whose values
are the handles of the data blocks. The data blocks come first in the file, then the metaindex, then the index block.
Each block is followed by a type (0: not compressed) and the masked CRC of block and type. A block contains

    entries     varint shared, varint unshared, varint n, the key without its first `shared` bytes, which are those
                of the key before, and n bytes of value
    restarts    positions of the entries that share nothing, every sixteenth, as u32; then their number, as u32

Source: https://github.com/google/leveldb/blob/main/doc/table_format.md.
"""

import os
from collections.abc import Iterable, Iterator

import numpy as np

from tinygrad_llm.formats.crc32c import crc32c, mask
from tinygrad_llm.storage.files import LoadError, disguise, open_regular, show

MAGIC = bytes.fromhex("57 fb 80 8b 24 75 47 db")

# A shared prefix makes a long key out of a few bytes, and a parsed entry takes many times its bytes. So neither the
# size of the file nor any field bounds the memory; these limits do. Real tables have some thousand entries.
MAX_TABLE = 10_000_000  # bytes of the file, and of all its keys together
MAX_ENTRIES = 100_000
MAX_ITEM = 10_000  # bytes of one key or value; 64 dimensions take less than a thousand

_FOOTER, _TRAILER = 48, 5  # bytes
_RESTART_INTERVAL = 16
_BLOCK_SIZE = 262_144

Pair = tuple[bytes, bytes]


class Cursor:
    """Bytes that are read from the front; reading past the end is a LoadError."""

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
        """Read an integer: seven bits per byte, the lowest first; the eighth bit says that another byte follows."""
        start, value = self.position, 0
        for shift in range(0, 70, 7):
            octet = self.take(1)[0]
            value |= (octet & 0x7F) << shift
            if octet < 0x80:
                if value >= 2**64 or (shift and octet == 0):
                    break
                return value
        raise LoadError(f"{self.where}: the varint at {start} has more than 64 bits, or more bytes than it needs")


def varint(value: int) -> bytes:
    """Return an integer as `Cursor.varint` reads it."""
    octets = bytearray()
    while value >= 0x80:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


# ---- reading: bytes → blocks → keys and values ---------------------------------------------------------------------


def read_table(path: str) -> Iterator[Pair]:
    """Yield the keys and values of a table, in the order of the keys.

    Raises:   LoadError: the file is damaged or something else; names the file, the block and the field.
              OSError: the file cannot be opened or read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_TABLE:
            raise LoadError(f"{path}: {size} bytes, more than the {MAX_TABLE} that are accepted for an index")
        data = file.read(size)
    if len(data) < _FOOTER or data[-8:] != MAGIC:
        known = disguise(data)
        known = f"; it is {known}" if known else ""
        raise LoadError(f"{path}: footer: magic number: not found at the end of {len(data)} bytes{known}")

    footer = Cursor(data[-_FOOTER:-8], f"{path}: footer")
    metaindex = footer.varint(), footer.varint()
    index = footer.varint(), footer.varint()
    if any(footer.take(40 - footer.position)):
        raise LoadError(f"{path}: footer: padding: must be zeros")
    handles = []
    for key, value in _entries([(f"{path}: index block", _block(path, "index block", data, *index))]):
        handle = Cursor(value, f"{path}: index block: handle {show(key)}")
        handles.append((handle.varint(), handle.varint()))
    _block(path, "metaindex", data, *metaindex)
    position = 0
    for offset, size in [*handles, metaindex, index]:  # so every byte is in exactly one block, under one CRC
        if offset != position:
            raise LoadError(f"{path}: block at {offset}: must begin at {position}, where the one before it ends")
        position += size + _TRAILER
    if position != len(data) - _FOOTER:
        raise LoadError(f"{path}: index block: must end at the footer, {len(data) - _FOOTER}, ends at {position}")
    blocks = ((f"data block {i}", handle) for i, handle in enumerate(handles))
    return _entries((f"{path}: {name}", _block(path, name, data, *handle)) for name, handle in blocks)


def _block(path: str, name: str, data: bytes, offset: int, size: int) -> bytes:
    """Return the contents of a block, after checking its CRC."""
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


def _entries(blocks: Iterable[tuple[str, bytes]]) -> Iterator[Pair]:
    """Yield the keys and values of some blocks, whose keys must rise from the first to the last."""
    before: bytes | None = None
    count = length = 0
    for where, block in blocks:
        restarts = int.from_bytes(block[-4:], "little")
        if 4 * restarts + 4 > len(block):
            raise LoadError(f"{where}: restarts: {restarts} do not fit into {len(block)} bytes")
        cursor = Cursor(block[: len(block) - 4 * restarts - 4], where)
        key = b""
        while cursor:
            shared, unshared, size = cursor.varint(), cursor.varint(), cursor.varint()
            if shared > len(key):
                raise LoadError(f"{where}: shared: {shared} bytes of a key before that has {len(key)}")
            if shared + unshared > MAX_ITEM or size > MAX_ITEM:
                raise LoadError(f"{where}: key after {show(key)}: it or its value has more than {MAX_ITEM} bytes")
            count, length = count + 1, length + shared + unshared
            if count > MAX_ENTRIES + 1 or length > MAX_TABLE:
                raise LoadError(f"{where}: more than {MAX_ENTRIES} keys, or {MAX_TABLE} bytes of keys")
            key = key[:shared] + cursor.take(unshared)
            if before is not None and key <= before:
                what = "twice" if key == before else f"after {show(before)}"
                raise LoadError(f"{where}: key {show(key)}: comes {what}; keys must rise")
            yield key, cursor.take(size)
            before = key


# ---- writing -------------------------------------------------------------------------------------------------------


def pack_table(entries: list[Pair]) -> bytes:
    """Return the whole table of sorted keys and values."""
    table = bytearray()

    def add_block(pairs: list[Pair]) -> bytes:
        block = _pack_block(pairs) + b"\0"
        handle = varint(len(table)) + varint(len(block) - 1)
        table.extend(block + mask(crc32c(block)).to_bytes(4, "little"))
        return handle

    handles: list[Pair] = []
    pairs: list[Pair] = []
    length = 0
    for number, (key, value) in enumerate(entries, 1):
        pairs.append((key, value))
        length += len(key) + len(value)
        if length >= _BLOCK_SIZE or number == len(entries):
            # Any key from this block's last to below the next block's first will do. TensorFlow takes a short one.
            separator = bytes([key[0] + 1]) if key and number == len(entries) else key
            handles.append((separator, add_block(pairs)))
            pairs, length = [], 0
    handles_at = add_block([]) + add_block(handles)  # metaindex, index block
    return bytes(table) + handles_at.ljust(40, b"\0") + MAGIC


def _pack_block(pairs: list[Pair]) -> bytes:
    """Return a block: the entries, the restarts and their number."""
    block, restarts, before = bytearray(), [0], b""
    for number, (key, value) in enumerate(pairs):
        if number and number % _RESTART_INTERVAL == 0:
            restarts.append(len(block))
            before = b""
        # Keys rise, so a key that differs nowhere from the key before is a longer one.
        differ = (i for i, (a, b) in enumerate(zip(before, key, strict=False)) if a != b)
        shared = next(differ, len(before))
        block += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    return bytes(block) + np.array([*restarts, len(restarts)], "<u4").tobytes()

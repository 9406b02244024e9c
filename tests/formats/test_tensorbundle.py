"""TensorFlow's checkpoints: TensorFlow's own files, files built byte by byte, and bad ones."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest

from tinygrad_llm.formats import read_arrays, table, tensorbundle
from tinygrad_llm.formats.tensorbundle import read_tensorbundle, verify_tensorbundle, write_tensorbundle
from tinygrad_llm.storage.files import LoadError

BY_TENSORFLOW = Path(__file__).with_name("tensorflow_bundle")  # by scripts/make_tensorflow_reference.py
DATA = ".data-00000-of-00001"
DTYPES = {
    1: "f4", 2: "f8", 3: "i4", 4: "u1", 5: "i2", 6: "i1", 9: "i8", 10: "?", 17: "u2", 19: "f2", 22: "u4", 23: "u8",
}  # fmt: skip


def same(left, right):
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


# A second writer, as plain as the format's description


def crc(data):
    register = 0xFFFFFFFF
    for octet in data:
        register ^= octet
        for _ in range(8):
            register = register >> 1 ^ 0x82F63B78 * (register & 1)
    register ^= 0xFFFFFFFF
    return struct.pack("<I", ((register >> 15 | register << 17) + 0xA282EAD8) % 2**32)


def varint(value):
    return bytes([value]) if value < 128 else bytes([value % 128 + 128]) + varint(value // 128)


def pair(key, value, shared=0):
    return varint(shared) + varint(len(key)) + varint(len(value)) + key + value


def block(*pairs, restarts=(0,)):
    return b"".join(pairs) + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def with_trailer(contents, kind=b"\0"):
    return contents + kind + crc(contents + kind)


def footer(metaindex, index):
    return b"".join(varint(number) for number in (*metaindex, *index)).ljust(40, b"\0") + MAGIC


def index_file(*data_blocks, kind=b"\0"):
    file, handles = b"", []
    for number, contents in enumerate(data_blocks):
        handles.append(pair(b"%05d" % number, varint(len(file)) + varint(len(contents))))
        file += with_trailer(contents, kind)
    metaindex = len(file), len(block())
    file += with_trailer(block())
    index = len(file), len(block(*handles))
    return file + with_trailer(block(*handles)) + footer(metaindex, index)


def one_handle(value):
    """An index without a data block, but for the handle of one."""
    handles = block(pair(b"a", value))
    start = len(block()) + 5
    return with_trailer(block()) + with_trailer(handles) + footer((0, start - 5), (start, len(handles)))


MAGIC = bytes.fromhex("57fb808b247547db")
HEADER = pair(b"", bytes.fromhex("08011a020801"))
ONE = struct.pack("<f", 1)
SCALAR = bytes.fromhex("080112002804 35") + crc(ONE)


def entry(dtype=1, dims=(1,), offset=0, size=4, data=ONE, extra=b""):
    """The value of an array: every number is written, zeros too."""
    sizes = [b"\x08" + varint(dim % 2**64) for dim in dims]
    shape = b"".join(b"\x12" + varint(len(dim)) + dim for dim in sizes)
    numbers = b"\x20" + varint(offset) + b"\x28" + varint(size)
    return b"\x08" + varint(dtype) + b"\x12" + varint(len(shape)) + shape + numbers + b"\x35" + crc(data) + extra


def with_header(header, *pairs):
    return index_file(block(pair(b"", header), *(pairs or [pair(b"x", SCALAR)])))


def with_entry(value, name=b"x"):
    return index_file(block(HEADER, pair(name, value)))


def save(prefix, index, data=ONE):
    for path, content in ((Path(f"{prefix}.index"), index), (Path(f"{prefix}{DATA}"), data)):
        path.unlink(missing_ok=True)  # to overwrite a file takes some file systems a hundred times as long
        path.write_bytes(content)


# Verified without being held


def test_a_bundle_is_verified_in_pieces(tmp_path, monkeypatch, peak_memory):
    named = {"a": np.arange(100_000.0), "b": np.zeros((0, 3)), "c": np.array(True)}
    write_tensorbundle(tmp_path / "x", named)
    monkeypatch.setattr(tensorbundle, "_PIECE", 4096)
    assert verify_tensorbundle(tmp_path / "x") == {"a": (100_000,), "b": (0, 3), "c": ()}
    assert peak_memory(lambda: verify_tensorbundle(tmp_path / "x"), 150_000) < 150_000


def test_damage_is_found_by_verification(tmp_path):
    save(tmp_path / "x", with_entry(entry()))
    verify_tensorbundle(tmp_path / "x")
    for data in (b"\0\0\x80\x3e", b"\1\0\x80\x3f"):
        save(tmp_path / "x", with_entry(entry()), data)
        with pytest.raises(LoadError, match=r"data-00000-of-00001: tensor 'x': CRC mismatch"):
            verify_tensorbundle(tmp_path / "x")
    save(tmp_path / "x", with_entry(entry()), ONE[:3])
    with pytest.raises(LoadError, match="truncated"):
        verify_tensorbundle(tmp_path / "x")


def test_an_index_of_another_name_is_refused(tmp_path):
    save(tmp_path / "x", with_entry(entry()))
    (tmp_path / "x.index").rename(tmp_path / "index.bin")
    for read in (read_tensorbundle, verify_tensorbundle, read_arrays):
        with pytest.raises(LoadError, match=r"index\.bin: .* must end in \.index"):
            read(tmp_path / "index.bin")


# Written and read


@pytest.mark.parametrize("block_size", [1, 300, 262_144])
def test_many_entries_over_many_blocks(tmp_path, monkeypatch, block_size):
    monkeypatch.setattr(table, "_BLOCK_SIZE", block_size)
    named = {f"model/{'long/' * 30}h{i}/w": np.full((i % 3, 2), i, np.int32) for i in range(1000)}
    write_tensorbundle(tmp_path / "x", named)
    loaded = read_tensorbundle(tmp_path / "x")
    assert list(loaded) == sorted(named)
    assert all(same(loaded[name], named[name]) for name in named)
    assert (tmp_path / "x.index").stat().st_size < 100_000 or block_size < 1000  # each name alone is 160 bytes


def test_an_index_next_to_the_data_of_another_checkpoint_is_refused(tmp_path):
    write_tensorbundle(tmp_path / "old", {"x": np.ones(3)})
    write_tensorbundle(tmp_path / "new", {"x": np.zeros(3)})
    os.replace(tmp_path / f"new{DATA}", tmp_path / f"old{DATA}")
    with pytest.raises(LoadError, match=r"old\.data.*'x': CRC mismatch.*another checkpoint"):
        read_tensorbundle(tmp_path / "old")


# TensorFlow's own files, and files built by hand


def test_a_checkpoint_written_by_tensorflow():
    loaded = read_tensorbundle(BY_TENSORFLOW)
    assert len(loaded) == 29
    step = loaded.pop("global_step")
    assert step.dtype == np.int64
    assert step.shape == ()
    assert step == 1234
    count = 0
    for name, array in loaded.items():  # they count on from name to name
        assert array.dtype == np.float32, name
        np.testing.assert_array_equal(array.reshape(-1), np.arange(count, count + array.size) / 8)
        count += array.size
    assert loaded["model/wte"].shape == (11, 4)
    assert loaded["model/h1/attn/c_attn/w"].shape == (1, 4, 12)
    assert loaded["model/h0/mlp/c_proj/w"].shape == (1, 16, 4)
    assert loaded["model/ln_f/g"].shape == (4,)


def test_we_write_the_bytes_that_tensorflow_writes(tmp_path):
    write_tensorbundle(tmp_path / "x", read_tensorbundle(BY_TENSORFLOW))
    for suffix in (".index", DATA):
        assert (tmp_path / f"x{suffix}").read_bytes() == Path(f"{BY_TENSORFLOW}{suffix}").read_bytes()


def test_a_scalar_by_hand(tmp_path):
    save(tmp_path / "x", with_entry(SCALAR))
    assert same(read_tensorbundle(tmp_path / "x")["x"], np.array(1, np.float32))
    write_tensorbundle(tmp_path / "y", {"x": np.array(1, np.float32)})
    ours = (tmp_path / "y.index").read_bytes()
    contents = block(HEADER, pair(b"x", SCALAR))
    assert ours.startswith(with_trailer(contents) + with_trailer(block()))
    assert (tmp_path / f"y{DATA}").read_bytes() == ONE


def test_dtypes_by_hand(tmp_path, for_each):
    def check(number):
        code = DTYPES[number]
        data = np.array([1, 0, 1], np.dtype(code).newbyteorder("<")).tobytes()
        save(tmp_path / "x", with_entry(entry(number, [3], 0, len(data), data)), data)
        assert same(read_tensorbundle(tmp_path / "x")["x"], np.array([1, 0, 1], code))

    for_each(DTYPES, check)


def test_bfloat16_becomes_float32(tmp_path):
    # 1, −2, 2⁻¹³³ (subnormal), ∞, NaN: a bfloat16 is the upper half of a float32
    data = struct.pack("<5H", 0x3F80, 0xC000, 1, 0x7F80, 0x7FC0)
    save(tmp_path / "x", with_entry(entry(14, [5], 0, 10, data)), data)
    loaded = read_tensorbundle(tmp_path / "x")["x"]
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, np.array([1, -2, 2.0**-133, np.inf, np.nan], np.float32))


def test_bundles_of_other_writers_are_read(tmp_path):
    """Shared keys, many restarts, an unknown field, padding between and after tensors, an empty bundle."""
    data = b"pad!" + ONE + b"pad!" + ONE + b"pad!"
    contents = block(
        HEADER,
        pair(b"model/a", entry(offset=4, extra=b"\x52\x03abc\x58\x07")),
        pair(b"b", entry(dims=[1, 1], offset=12), shared=6),
        pair(b"zero", entry(dims=[0, 3], size=0, data=b""), shared=6),
        restarts=(0, 0, 0, 7),
    )
    save(tmp_path / "x", index_file(contents), data)
    loaded = read_tensorbundle(tmp_path / "x")
    assert {name: array.tolist() for name, array in loaded.items()} == {
        "model/a": [1],
        "model/b": [[1]],
        "model/zero": [],
    }
    assert loaded["model/zero"].shape == (0, 3)
    assert verify_tensorbundle(tmp_path / "x") == {name: array.shape for name, array in loaded.items()}
    save(tmp_path / "none", index_file(block(HEADER)), b"")
    assert read_tensorbundle(tmp_path / "none") == {}


def test_several_shards_are_read(tmp_path):
    header = pair(b"", bytes.fromhex("08031a020801"))
    first, last = (entry(data=data, extra=b"\x18" + varint(shard)) for shard, data in ((0, ONE), (2, b"abcd")))
    path = tmp_path / "x.index"
    path.write_bytes(index_file(block(header, pair(b"a", last), pair(b"b", first))))
    (tmp_path / "x.data-00000-of-00003").write_bytes(ONE)
    with pytest.raises(LoadError, match=r"x\.data-00002-of-00003: missing.* 1 tensors.*'a'"):
        read_tensorbundle(path)
    (tmp_path / "x.data-00002-of-00003").write_bytes(b"abcd")
    loaded = read_tensorbundle(path)
    assert list(loaded) == ["a", "b"]
    assert loaded["a"].tobytes() == b"abcd"
    assert loaded["b"] == 1


# Which files are meant


@pytest.fixture
def two_bundles(tmp_path):
    for step in (1, 2):
        write_tensorbundle(tmp_path / f"step-{step}", {"step": step})
    return tmp_path


def test_a_bundle_is_named_by_prefix_index_or_folder(tmp_path):
    write_tensorbundle(tmp_path / "model.ckpt", {"x": 7})
    for path in (tmp_path / "model.ckpt", tmp_path / "model.ckpt.index", tmp_path):
        for kind in (str, Path):
            assert read_tensorbundle(kind(path))["x"] == 7


def test_a_prefix_may_have_an_empty_name(tmp_path):
    write_tensorbundle(f"{tmp_path}/", {"x": 7})  # .index, .data-00000-of-00001
    for path in (tmp_path, tmp_path / ".index", f"{tmp_path}/"):
        assert read_tensorbundle(path)["x"] == 7


def test_the_checkpoint_file_names_one_of_several(two_bundles):
    for name in ("step-1", "./step-1", f"{two_bundles}/step-1"):
        text = f'# latest\nmodel_checkpoint_path: "{name}"\nall_model_checkpoint_paths: "step-2"\n'
        (two_bundles / "checkpoint").write_text(text)
        for path in (two_bundles, two_bundles / "checkpoint"):
            assert read_tensorbundle(path)["step"] == 1


def test_a_checkpoint_file_that_names_no_bundle_of_its_folder_is_refused(two_bundles, for_each):
    def check(case):
        content, message = case
        (two_bundles / "checkpoint").write_bytes(content)
        with pytest.raises(LoadError, match=rf"checkpoint: model_checkpoint_path: .*{message}"):
            read_tensorbundle(two_bundles)

    outside = [b"../step-1", b"/etc/passwd", b"elsewhere/step-1", b"/", b"../"]
    empty = [b"", b"\xff\xfe", b'model_checkpoint_path: "a\\303"', b'model_checkpoint_path: "\0"']
    cases = [(b'model_checkpoint_path: "%s"' % name, "outside the folder") for name in outside]
    for_each(cases + [(content, "none found") for content in empty], check)


def test_a_folder_of_no_or_many_bundles_is_refused(two_bundles):
    with pytest.raises(LoadError, match=r"checkpoint: missing.* 2 bundles: \['step-1\.index', 'step-2\.index'\]"):
        read_tensorbundle(two_bundles)
    (two_bundles / "empty").mkdir()
    with pytest.raises(LoadError, match=r"empty: no \.index file"):
        read_tensorbundle(two_bundles / "empty")
    with pytest.raises(FileNotFoundError, match=r"absent\.index"):
        read_tensorbundle(two_bundles / "absent")


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
def test_links_are_followed(tmp_path):
    (tmp_path / "blobs").mkdir()
    write_tensorbundle(tmp_path / "blobs" / "x", {"x": 7})
    (tmp_path / "m.index").symlink_to(tmp_path / "blobs" / "x.index")
    (tmp_path / f"m{DATA}").symlink_to(tmp_path / "blobs" / f"x{DATA}")
    assert read_tensorbundle(tmp_path)["x"] == 7


# Bad files


def flipped(data, place):
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


GOOD = with_entry(SCALAR)
SIZE = len(GOOD) - 48
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 497759232\n"
HTML = b"\n<!DOCTYPE html>\n<html><body>404 Not Found</body></html>"
BAD_INDEXES = {
    "an offset no file reaches": (with_entry(entry(offset=2**63 - 4)), r"tensor 'x': offset: 9223372036854775804, bey"),
    "the largest offset": (with_entry(entry(offset=2**64 - 1)), r"tensor 'x': offset: 18446744073709551615, beyond"),
    "100,000 shards": (with_header(b"\x08" + varint(100_000)), r"header: num_shards: must be .* at most 99999"),
    "empty": (b"", r"footer: magic number: not found at the end of 0 bytes"),
    "seven bytes": (b"1234567", r"footer: magic number"),
    "bad magic": (flipped(GOOD, len(GOOD) - 1), r"footer: magic number"),
    "git-LFS pointer": (LFS, r"git-LFS pointer"),
    "HTML": (HTML, r"HTML"),
    "eleven-byte varint in the footer": (
        GOOD[:-48] + (b"\xff" * 10 + b"\1").ljust(40, b"\0") + MAGIC,
        r"footer: the va",
    ),
    "varint of 70 bits": (GOOD[:-48] + (b"\xff" * 9 + b"\x7f").ljust(40, b"\0") + MAGIC, r"footer: the varint at 0"),
    "varint with a byte too many": (GOOD[:-48] + b"\x80\0".ljust(40, b"\0") + MAGIC, r"footer: the varint at 0"),
    "varint without an end": (GOOD[:-48] + b"\1" * 3 + b"\xff" * 37 + MAGIC, r"footer: the varint at 3"),
    "padding": (GOOD[:-9] + b"\1" + MAGIC, r"footer: padding"),
    "handle outside the file": (GOOD[:-48] + footer((0, 8), (SIZE, 100)), r"index block: handle: 100 bytes"),
    "handle far outside": (GOOD[:-48] + footer((0, 8), (2**63, 2**63)), r"index block: handle: "),
    "handle of a data block outside": (one_handle(varint(9) + varint(2**40)), r"data block 0: handle|block at 9"),
    "handle cut off": (one_handle(b"\x80"), r"index block: handle b'a': 1 bytes at 1"),
    "block trailer damaged": (flipped(GOOD, len(block(HEADER, pair(b"x", SCALAR))) + 1), r"data block 0: CRC mismatch"),
    "entry damaged": (flipped(GOOD, 20), r"data block 0: CRC mismatch"),
    "snappy": (index_file(block(HEADER), kind=b"\1"), r"data block 0: compressed with snappy"),
    "unknown compression": (index_file(block(HEADER), kind=b"\4"), r"data block 0: type 4"),
    "no data block": (index_file(), r"header: missing"),
    "block of two bytes": (index_file(b"ab"), r"data block 0: restarts"),
    "too many restarts": (index_file(block(HEADER)[:-4] + b"\xff\xff\xff\x7f"), r"data block 0: restarts: 2147483647"),
    "entry cut off": (index_file(block(HEADER[:-2])), r"data block 0: 6 bytes at 3 are not inside its 7"),
    "eleven-byte varint": (index_file(block(b"\x80" * 10 + b"\1" + HEADER)), r"data block 0: the varint at 0"),
    "shared longer than the key before": (
        index_file(block(HEADER, pair(b"a", SCALAR), pair(b"b", SCALAR, shared=2))),
        r"data block 0: shared: 2 bytes of a key before that has 1",
    ),
    "shared at the beginning of a block": (
        index_file(block(HEADER, pair(b"a", SCALAR)), block(pair(b"b", SCALAR, shared=1))),
        r"data block 1: shared: 1 bytes",
    ),
    "unsorted": (
        index_file(block(HEADER, pair(b"b", SCALAR), pair(b"a", SCALAR))),
        r"data block 0: key b'a': comes after b'b'",
    ),
    "duplicate": (
        index_file(block(HEADER, pair(b"a", SCALAR), pair(b"a", SCALAR))),
        r"data block 0: key b'a': comes twice",
    ),
    "unsorted over blocks": (
        index_file(block(HEADER, pair(b"b", SCALAR)), block(pair(b"a", SCALAR))),
        r"data block 1: key b'a': comes after b'b'",
    ),
    "long key": (with_entry(SCALAR, b"x" * 10_001), r"data block 0: key after b'': it or its value"),
    "long value": (
        with_entry(SCALAR + b"\x52" + varint(10_000) + bytes(10_000)),
        r"data block 0: key after b'': it or its value",
    ),
    "claimed key": (
        index_file(block(HEADER, b"\0" + varint(2**60) + b"\0")),
        r"data block 0: key after b'': it or its value",
    ),
    "name that is not UTF-8": (with_entry(SCALAR, b"\xff"), r"name b'\\xff': not UTF-8"),
    "no header": (index_file(block(pair(b"x", SCALAR))), r"header: missing"),
    "header twice": (index_file(block(HEADER, HEADER)), r"data block 0: key b'': comes twice"),
    "header of version 1 files": (with_header(b"\x0a\x02ab"), r"header: num_shards"),
    "no shards": (with_header(b"\x1a\x02\x08\x01"), r"header: num_shards: must be at least 1.* 0"),
    "very many shards": (with_header(b"\x08" + varint(2**40)), r"header: num_shards"),
    "big-endian": (with_header(b"\x08\x01\x10\x01"), r"header: endianness: big-endian"),
    "newer version": (with_header(b"\x08\x01\x1a\x04\x08\x03\x10\x02"), r"header: version: .*version 2"),
    "stated twice": (with_header(b"\x08\x01\x08\x01"), r"header: num_shards: stated 2 times"),
    "header cut off": (with_header(b"\x08\x01\x1a\x09"), r"header: 9 bytes at 4 are not inside its 4"),
    "group field": (with_header(b"\x0b"), r"header: field 1 is of kind 3"),
    "strings": (with_entry(entry(7)), r"'x': dtype: strings"),
    "no dtype": (with_entry(b"\x28\x04"), r"'x': dtype: number 0"),
    "unknown dtype": (with_entry(entry(8)), r"'x': dtype: number 8"),
    "slices": (with_entry(entry(extra=b"\x3a\x02\x0a\x00")), r"'x': slices"),
    "a slice": (with_entry(entry(), b"\0x\0\1\1\1\x80\x81"), r"slices"),
    "unknown rank": (with_entry(b"\x08\x01\x12\x02\x18\x01\x28\x04"), r"'x': shape: of unknown rank"),
    "shape that is no message": (with_entry(b"\x08\x01\x12\x01\x12\x28\x04"), r"'x': shape: 1 bytes at 1 are not"),
    "negative dimension": (with_entry(entry(dims=[-1])), r"'x': shape: a dimension is negative"),
    "two negative dimensions": (with_entry(entry(dims=[-1, -1])), r"'x': shape: a dimension is negative"),
    "overflow to the right size": (with_entry(entry(dims=[2**32, 2**32, 1])), r"'x': shape: .*too large"),
    "overflow next to a zero": (with_entry(entry(dims=[0, 2**40, 2**40], size=0)), r"'x': shape: .*too large"),
    "65 dimensions": (with_entry(entry(dims=[1] * 65)), r"'x': shape: .*too large"),
    "shape of another size": (with_entry(entry(dims=[2])), r"'x': size: 4 bytes, but the shape \(2,\) has 8"),
    "shard_id": (with_entry(entry(extra=b"\x18\x01")), r"'x': shard_id: 1, but there are 1"),
}


@pytest.fixture
def refuse(tmp_path, peak_memory):
    """A function (index, data, message): assert that this bundle is refused with this message, in little memory."""

    def check(index, data, message):
        save(tmp_path / "bad", index, data)

        def read():
            with pytest.raises(LoadError, match=rf"^\S*bad\.{message}") as caught:
                read_tensorbundle(tmp_path / "bad")
            assert len(str(caught.value).splitlines()) == 1
            assert len(str(caught.value)) < 1000 + len(str(tmp_path))

        assert peak_memory(read, 1_000_000) < 1_000_000

    return check


def test_bad_indexes_are_refused_by_name_and_field(refuse, for_each):
    def check(name):
        index, message = BAD_INDEXES[name]
        refuse(index, ONE, rf"index: .*{message}")

    for_each(BAD_INDEXES, check)


TWO = index_file(block(HEADER, pair(b"x", entry()), pair(b"y", entry(offset=2))))
BAD_DATA = {
    "empty": (GOOD, b"", r"'x': 4 bytes at offset 0, but the file has 0"),
    "cut off": (GOOD, ONE[:-1], r"'x': 4 bytes at offset 0, but the file has 3: truncated"),
    "offset past the end": (with_entry(entry(offset=2**62)), ONE, r"'x': 4 bytes at offset 4611686018427387904, but"),
    "size past the end": (with_entry(entry(dims=[2**40], size=2**42)), ONE, r"'x': 4398046511104 bytes at offset 0"),
    "CRC": (GOOD, b"1234", r"'x': CRC mismatch"),
    "no CRC": (with_entry(b"\x08\x01\x12\x00\x28\x04"), ONE, r"'x': CRC mismatch"),
    "overlap": (TWO, ONE * 2, r"'y': offset: 2, but the tensor before it ends at 4"),
    "the same place": (
        index_file(block(HEADER, pair(b"x", entry()), pair(b"y", entry()))),
        ONE,
        r"'y': offset: 0, but the tensor before it ends at 4",
    ),
    "bool of 2": (with_entry(entry(10, [2], 0, 2, b"\1\2")), b"\1\2", r"'x': data: a bool"),
    "git-LFS pointer": (with_entry(entry(dims=[99], size=396)), LFS, r"'x': 396 bytes.*git-LFS pointer"),
    "HTML": (with_entry(entry(dims=[99], size=396)), HTML, r"'x': 396 bytes.*HTML"),
}


def test_bad_data_is_refused_by_name_and_tensor(refuse, for_each):
    def check(name):
        index, data, message = BAD_DATA[name]
        refuse(index, data, rf"data-00000-of-00001: tensor {message}")

    for_each(BAD_DATA, check)


def test_a_missing_shard_is_named(tmp_path):
    (tmp_path / "x.index").write_bytes(GOOD)
    with pytest.raises(LoadError, match=r"x\.data-00000-of-00001: missing; the index has 1 tensors"):
        read_tensorbundle(tmp_path)
    (tmp_path / f"x{DATA}").mkdir()
    with pytest.raises(LoadError, match=r"x\.data-00000-of-00001: missing"):
        read_tensorbundle(tmp_path)


@pytest.mark.parametrize(
    ("handles", "message"),
    [
        (["metaindex"], r"block at \d+: must begin at 0"),
        (["data", "data"], r"block at 0: must begin at \d+"),
        ([], r"block at \d+: must begin at 0"),
        (["data", "metaindex"], r"block at \d+: must begin at \d+"),
    ],
)
def test_every_byte_of_the_index_is_in_one_block(tmp_path, handles, message):
    """Blocks whose CRCs are right, but which are used twice or not at all."""
    contents = block(HEADER, pair(b"x", SCALAR))
    places = {"data": (0, len(contents)), "metaindex": (len(contents) + 5, len(block()))}
    index_block = block(*(pair(b"%d" % i, varint(places[h][0]) + varint(places[h][1])) for i, h in enumerate(handles)))
    file = with_trailer(contents) + with_trailer(block())
    index = len(file), len(index_block)
    save(tmp_path / "bad", file + with_trailer(index_block) + footer(places["metaindex"], index))
    with pytest.raises(LoadError, match=rf"bad\.index: {message}"):
        read_tensorbundle(tmp_path)


def test_bytes_between_the_index_block_and_the_footer(tmp_path):
    save(tmp_path / "bad", GOOD[:-48] + b"more" + GOOD[-48:])
    with pytest.raises(
        LoadError, match=rf"bad\.index: index block: must end at the footer, {SIZE + 4}, ends at {SIZE}"
    ):
        read_tensorbundle(tmp_path)


@pytest.mark.parametrize(("limit", "value"), [("MAX_ENTRIES", 50), ("MAX_TABLE", 30_000)])
def test_an_index_that_claims_too_much_is_refused(tmp_path, monkeypatch, limit, value):
    monkeypatch.setattr(table, limit, value)
    nothing = entry(dims=[0], size=0, data=b"")
    long = b"x" * 1000  # shared by all, so that a hundred of them are a hundred times as long as they look
    pairs = [pair(b"%04d" % i, nothing, shared=1000 * (i > 0)) for i in range(100)]
    pairs[0] = pair(long + b"0000", nothing)
    save(tmp_path / "bad", index_file(block(HEADER, *pairs)))
    with pytest.raises(LoadError, match=r"bad\.index: data block 0: more than \d+ keys, or \d+ bytes of keys"):
        read_tensorbundle(tmp_path)


def test_an_index_of_too_many_bytes_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "MAX_TABLE", len(GOOD) - 1)
    save(tmp_path / "bad", GOOD)
    with pytest.raises(LoadError, match=r"bad\.index: \d+ bytes, more than"):
        read_tensorbundle(tmp_path)

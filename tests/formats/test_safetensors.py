"""Safetensors files: the layout by hand, maps, the format's own library, and everything a bad file can be."""

import hashlib
import json
import mmap
import pickle
import struct
import weakref

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinygrad_llm.formats import load_safetensors, save_safetensors
from tinygrad_llm.storage.files import LoadError

DTYPES = {
    "F64": "f8", "F32": "f4", "F16": "f2", "BOOL": "?",
    "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1", "U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1",
}  # fmt: skip


def raw(header, data=b""):
    """A file of this header, which may be any object, text or bytes."""
    if not isinstance(header, bytes):
        header = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(header)) + header + data


def entry(dtype="F32", shape=(1,), begin=0, end=4):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def same(left, right):
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


# Layout and dtypes


def test_layout_by_hand(tmp_path):
    path = tmp_path / "x.safetensors"
    save_safetensors(path, {"b": np.array([1, 2], np.int8), "a": np.array([[1.5]], np.float32)}, {"k": "v"})
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    digest = load_safetensors(path)[1]["sha256"]
    assert hashlib.sha256(data.replace(digest.encode(), b"0" * 64)).hexdigest() == digest
    assert json.loads(data[8 : 8 + length]) == {
        "__metadata__": {"k": "v", "sha256": digest},
        "a": {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]},
        "b": {"dtype": "I8", "shape": [2], "data_offsets": [4, 6]},
    }
    assert data[8 : 8 + length].rstrip(b" ").endswith(b"}")
    assert data[8 + length :] == b"\x00\x00\xc0\x3f\x01\x02"


def test_bfloat16_becomes_float32(tmp_path):
    path = tmp_path / "x.safetensors"
    # 1, −2, 2⁻¹³³ (subnormal), ∞, NaN: a bfloat16 is the upper half of a float32
    upper_halves = struct.pack("<5H", 0x3F80, 0xC000, 1, 0x7F80, 0x7FC0)
    path.write_bytes(raw({"x": entry("BF16", [5], 0, 10)}, upper_halves))
    loaded = load_safetensors(path)[0]["x"]
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, np.array([1, -2, 2.0**-133, np.inf, np.nan], np.float32))


def test_every_array_is_aligned_to_its_elements(tmp_path):
    path = tmp_path / "x.safetensors"
    save_safetensors(path, {f"{i}{code}": np.zeros(3, code) for i, code in enumerate(DTYPES.values())})
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    assert len(header.pop("__metadata__")) == 1
    for value in header.values():
        assert (8 + length + value["data_offsets"][0]) % np.dtype(DTYPES[value["dtype"]]).itemsize == 0


def test_metadata_that_cannot_be_saved_is_refused_and_the_old_file_stays(tmp_path, for_each):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"old")

    def check(case):
        metadata, message = case
        with pytest.raises(ValueError, match=rf"^.*x\.safetensors: .*{message}"):
            save_safetensors(path, {}, metadata)

    cases = [({"k": "\ud800"}, "surrogate"), ({"k": 1}, "metadata"), ({1: "v"}, "metadata")]
    for_each([*cases, ({"k": "," * 2_000_001}, "values")], check)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


# Memory-mapped


def test_mapped_arrays_are_read_only_views_of_one_map(tmp_path):
    path = tmp_path / "x.safetensors"
    named = {f"{code} {i}": np.ones(i, code) for code in DTYPES.values() for i in range(3)}
    save_safetensors(path, named, {"k": "v"})
    loaded, metadata = load_safetensors(path, mmap=True)
    assert metadata == load_safetensors(path)[1]
    assert list(loaded) == list(load_safetensors(path)[0])
    assert not any(array.flags.writeable or array.flags.owndata for array in loaded.values())
    assert len({id(_map_of(array)) for array in loaded.values()}) == 1


def _map_of(array):
    while isinstance(array, np.ndarray):
        array = array.base
    assert isinstance(array, mmap.mmap)
    return array


def test_a_mapped_array_that_must_be_converted_is_a_read_only_copy(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(raw({"x": entry("BF16", [2], 0, 4)}, struct.pack("<2H", 0x3F80, 0xC000)))
    loaded = load_safetensors(path, mmap=True)[0]["x"]
    assert loaded.tolist() == [1, -2]
    assert loaded.dtype == np.float32
    assert not loaded.flags.writeable


def test_a_map_outlives_a_file_that_is_replaced_or_deleted(tmp_path):
    path = tmp_path / "x.safetensors"
    old = np.arange(100_000.0)
    save_safetensors(path, {"x": old})
    loaded = load_safetensors(path, mmap=True)[0]["x"]
    save_safetensors(path, {"x": old + 1})
    assert (loaded == old).all()
    path.unlink()
    assert (loaded == old).all()


def test_a_map_takes_no_memory_and_is_closed_with_its_last_array(tmp_path, peak_memory):
    path = tmp_path / "x.safetensors"
    save_safetensors(path, {"x": np.zeros(1_000_000), "y": np.zeros(1_000_000)})
    assert peak_memory(lambda: load_safetensors(path, mmap=True), 100_000) < 100_000
    loaded, _ = load_safetensors(path, mmap=True)
    mapped = weakref.ref(_map_of(loaded["x"]))
    last = loaded.pop("y")
    del loaded
    assert mapped() is not None
    del last
    assert mapped() is None


def test_an_unaligned_file_can_be_mapped(tmp_path):
    path = tmp_path / "x.safetensors"
    header = '{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'.ljust(61)
    path.write_bytes(raw(header, np.array([1.5, 2.5], "<f4").tobytes()))
    loaded = load_safetensors(path, mmap=True)[0]["x"]
    assert not loaded.flags.aligned
    assert (loaded * 2).tolist() == [3, 5]


# The format's own library


def test_the_safetensors_library_reads_what_we_write(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "x.safetensors"
    named = {f"é{name}": np.arange(6).reshape(2, 3).astype(code) for name, code in DTYPES.items()}
    named |= {"empty": np.zeros((2, 0), np.float32), "scalar": np.array(2.5)}
    save_safetensors(path, named, {"k": "v"})
    theirs = library.load_file(path)
    assert set(theirs) == set(named)
    assert all(same(theirs[name], named[name]) for name in named)


def test_we_read_what_the_safetensors_library_writes(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "x.safetensors"
    named = {name: np.arange(6).reshape(2, 3).astype(code) for name, code in DTYPES.items()}
    named |= {"empty": np.zeros((2, 0), np.float32), "scalar": np.array(2.5)}
    library.save_file(named, path, {"k": "v"})
    ours, metadata = load_safetensors(path)
    assert metadata == {"k": "v"}
    assert set(ours) == set(named)
    assert all(same(ours[name], named[name]) for name in named)


# Bad files

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 548105171\n"
BIG = 2**63

BAD_FILES = {
    "empty file": (b"", "header length.*the file has 0"),
    "seven bytes": (b"\x02\0\0\0\0\0\0", "header length.*the file has 7"),
    "header length 2⁶³": (struct.pack("<Q", BIG) + b"{}", f"header length: {BIG}"),
    "header over the limit": (struct.pack("<Q", 100_000_001) + b"{}", "header length: 100000001"),
    "header longer than the file": (struct.pack("<Q", 3) + b"{}", "header length: 3 bytes, but only 2"),
    "invalid UTF-8": (raw(b'{"\xff":{}}'), "header: not UTF-8 text"),
    "not JSON": (raw("{"), "header: "),
    "no object": (raw([1]), "header: must be a JSON object"),
    "100,000 nested": (raw("[" * 100_000), "header: nested too deeply"),
    "nested in a field": (raw('{"x":' + "[" * 100_000 + "]" * 100_000 + "}"), "header: nested too deeply"),
    "integer of 5,000 digits": (
        raw('{"x":{"dtype":"U8","shape":[' + "9" * 5000 + '],"data_offsets":[0,1]}}'),
        "header: an integer of 5000 digits",
    ),
    "NaN": (raw('{"x":{"dtype":"U8","shape":[NaN],"data_offsets":[0,1]}}', b"0"), "header: NaN"),
    "Infinity": (raw('{"x":-Infinity}'), "header: -Infinity"),
    "duplicate tensor": (
        raw('{"x":' + json.dumps(entry()) + ',"x":' + json.dumps(entry()) + "}", b"1234"),
        "header: the key 'x' appears twice",
    ),
    "duplicate field": (
        raw('{"x":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"1234"),
        "header: the key 'dtype' appears twice",
    ),
    "overlap": (raw({"x": entry(), "y": entry(begin=2, end=6)}, b"123456"), "'y': data_offsets: overlap"),
    "same place": (raw({"x": entry(), "y": entry()}, b"1234"), "'y': data_offsets: overlap"),
    "hole": (raw({"x": entry(), "y": entry(begin=5, end=9)}, b"x" * 9), "'y': data_offsets: leave a hole"),
    "hole at the start": (raw({"x": entry(begin=1, end=5)}, b"12345"), "'x': data_offsets: leave a hole"),
    "trailing bytes": (raw({"x": entry()}, b"12345"), "data: 1 bytes follow"),
    "trailing bytes after no tensor": (raw({}, b"1"), "data: 1 bytes follow"),
    "too few bytes": (raw({"x": entry()}, b"123"), "data: 4 bytes expected, 3 found"),
    "far too few bytes": (raw({"x": entry("U8", [2**60], 0, 2**60)}, b"1"), f"data: {2**60} bytes expected"),
    "negative dimension": (raw({"x": entry(shape=[-1])}, b"1234"), "'x': shape"),
    "two negative dimensions": (raw({"x": entry(shape=[-1, -1])}, b"1234"), "'x': shape"),
    "bool dimension": (raw({"x": entry(shape=[True])}, b"1234"), "'x': shape"),
    "float dimension": (raw({"x": entry(shape=[1.0])}, b"1234"), "'x': shape"),
    "null shape": (raw({"x": entry() | {"shape": None}}, b"1234"), "'x': shape"),
    "shape that overflows to the right size": (
        raw({"x": entry(shape=[2**32, 2**32, 1])}, b"1234"),
        "'x': shape.*too large",
    ),
    "shape that overflows next to a zero": (raw({"x": entry(shape=[0, 2**40, 2**40], end=0)}), "'x': shape.*too large"),
    "dimensions": (raw({"x": entry(shape=[1] * 65)}, b"1234"), "'x': shape.*too large"),
    "shape of another size": (raw({"x": entry(shape=[2])}, b"1234"), "'x': data_offsets.*4 bytes.*has 8"),
    "offsets reversed": (raw({"x": entry(begin=4, end=0)}, b"1234"), "'x': data_offsets"),
    "negative offset": (raw({"x": entry(begin=-4, end=0)}, b"1234"), "'x': data_offsets"),
    "float offset": (raw({"x": entry(end=4.0)}, b"1234"), "'x': data_offsets"),
    "three offsets": (raw({"x": entry() | {"data_offsets": [0, 2, 4]}}, b"1234"), "'x': data_offsets"),
    "unknown dtype": (raw({"x": entry("F8_E4M3")}, b"1234"), "'x': dtype: unknown 'F8_E4M3'"),
    "NumPy's dtype": (raw({"x": entry("<f4")}, b"1234"), "'x': dtype: unknown '<f4'"),
    "dtype that is a list": (raw({"x": entry(["F32"])}, b"1234"), "'x': dtype"),
    "missing field": (raw({"x": {"dtype": "F32", "shape": [1]}}, b"1234"), "'x': must have"),
    "extra field": (raw({"x": entry() | {"z": 1}}, b"1234"), "'x': must have"),
    "entry that is a number": (raw({"x": 3}), "'x': must have"),
    "metadata that is a list": (raw({"__metadata__": []}), "__metadata__"),
    "metadata with a number": (raw({"__metadata__": {"k": 1}}), "__metadata__"),
    "bool of 2": (raw({"x": entry("BOOL", [2], 0, 2)}, b"\1\2"), "'x': data: a bool byte"),
    "name of a megabyte": (raw({"x" * 1_000_000: 3}), "xxx.*must have"),
    "HTML": (b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>", "HTML"),
    "HTML after blanks": (b"\n  <html><body>404 Not Found</body></html>", "HTML"),
    "git-LFS pointer": (LFS, "git-LFS pointer"),
    "pickle": (pickle.dumps(np.zeros(100)), "header length.*not a safetensors file"),
    "zip": (b"PK\x03\x04" + b"\0" * 4 + b"\xff" * 100, "header"),
}


@pytest.mark.parametrize("mapped", [False, True], ids=["read", "mapped"])
def test_bad_files_are_refused_by_name_and_field(tmp_path, peak_memory, mapped, for_each):
    path = tmp_path / "bad.safetensors"

    def check(name):
        content, message = BAD_FILES[name]
        path.write_bytes(content)

        def read():
            with pytest.raises(LoadError, match=rf"^\S*bad\.safetensors: .*{message}") as caught:
                load_safetensors(path, mmap=mapped)
            assert len(str(caught.value).splitlines()) == 1
            assert len(str(caught.value)) < 1000 + len(str(path))

        # The largest of these files is a megabyte; a reader that believes a size would take 4 GB and more.
        assert peak_memory(read, 20_000_000) < 20_000_000

    for_each(BAD_FILES, check)


@pytest.mark.parametrize("item", ['"":0,', "[],", '"x":{"a":', "["])
def test_a_header_of_two_million_values_is_refused_before_it_is_parsed(tmp_path, peak_memory, item):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(raw('{"x":' + item * 2_000_000))
    limit = 2 * path.stat().st_size

    def read():
        with pytest.raises(LoadError, match=r"bad\.safetensors: header: about \d+ values"):
            load_safetensors(path)

    assert peak_memory(read, limit) < limit


def test_megabytes_of_metadata_are_refused_before_they_are_read(tmp_path, peak_memory):
    path = tmp_path / "bad.safetensors"
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", 97_000_027) + b'{"__metadata__":{"x":"')
        file.truncate(8 + 97_000_027)  # zeros that take no place on the disk

    def read():
        with pytest.raises(LoadError, match="header length: 97000027 bytes, more than the 20000000 accepted"):
            load_safetensors(path)

    assert peak_memory(read, 1_000_000) < 1_000_000
    with pytest.raises(ValueError, match=r"header: 20000\d* bytes, more than the 20000000 accepted"):
        save_safetensors(path, {}, {"x": "y" * 20_000_000})


@pytest.mark.slow
def test_a_hundred_thousand_tensors_are_read(tmp_path):
    zero = np.zeros((1, 1, 1, 1), np.uint8)
    named = {f"transformer.h.{i:06d}.attn.c_attn.weight": zero for i in range(100_000)}
    save_safetensors(tmp_path / "x.safetensors", named)
    assert len(load_safetensors(tmp_path / "x.safetensors", mmap=True)[0]) == 100_000


def test_a_repeated_name_is_found_among_many_tensors(tmp_path):
    path = tmp_path / "bad.safetensors"
    items = [f'"{i}":0' for i in range(100_000)] + ['"99999":0']
    path.write_bytes(raw("{" + ",".join(items) + "}"))
    with pytest.raises(LoadError, match="the key '99999' appears twice"):
        load_safetensors(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=200)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=60).map(raw)
    | st.dictionaries(st.text(max_size=8), st.integers() | st.none()).map(raw)
)
def test_junk_raises_only_load_errors(tmp_path, content):
    path = tmp_path / "junk.safetensors"
    path.write_bytes(content)
    try:
        named, _ = load_safetensors(path)
    except LoadError:
        return
    assert named == {}


def test_headers_of_other_writers_are_read(tmp_path):
    """Unpadded (60 = "<" bytes long, like an HTML page), entries out of order, spaces in the JSON."""
    path = tmp_path / "x.safetensors"
    header = '{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'.ljust(60)
    path.write_bytes(raw(header, b"\7"))
    assert load_safetensors(path)[0]["x"].tolist() == [7]
    path.write_bytes(raw({"late": entry("U8", [1], 1, 2), "early": entry("U8", [], 0, 1)}, b"\1\2"))
    loaded, _ = load_safetensors(path)
    assert [(name, array.tolist()) for name, array in loaded.items()] == [("early", 1), ("late", [2])]

"""NumPy's files: there and back, against NumPy itself, and everything a bad file can be."""

import io
import pickle
import struct
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinygrad_llm.formats.npz import load_npy, load_npz, save_npz
from tinygrad_llm.storage.files import LoadError

CODES = ["f2", "f4", "f8", "c8", "c16", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"]

names = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="\\:"), min_size=1, max_size=8).filter(
    lambda name: not {"", ".", ".."} & set(name.split("/"))
)
shapes = hnp.array_shapes(min_dims=0, min_side=0, max_side=4)
arrays = hnp.arrays(st.sampled_from(CODES), shapes)


GOOD_HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }"


def npy(header=GOOD_HEADER, data=b"12345678", version=(1, 0), length=None):
    """A file of this header, whatever it says."""
    text = header.encode("latin-1")
    width = "<H" if version == (1, 0) else "<I"
    return b"\x93NUMPY" + bytes(version) + struct.pack(width, len(text) if length is None else length) + text + data


def described(descr="'<f4'", order="False", shape="(2,)", data=b"12345678"):
    return npy(f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}", data)


def zipped(*members, method=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two members with one name
        with zipfile.ZipFile(file, "w", method) as archive:
            for name, content in members:
                archive.writestr(name, content)
    return file.getvalue()


def changed(content, old, new):
    assert old in content
    return content.replace(old, new)


def same(left, right):
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


# There and back


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(names, arrays, max_size=4))
def test_round_trip_and_numpy_reads_the_same(tmp_path, named):
    path = tmp_path / "x.npz"
    save_npz(path, named)
    loaded = load_npz(path)
    assert list(loaded) == sorted(named)
    assert all(same(loaded[name], named[name]) for name in named)
    with np.load(path, allow_pickle=False) as theirs:
        assert sorted(theirs.files) == sorted(named)
        assert all(same(theirs[name], named[name]) for name in named)
    before = path.read_bytes()
    save_npz(path, dict(reversed(named.items())))
    assert path.read_bytes() == before


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([np.savez, np.savez_compressed]), st.dictionaries(names, arrays, max_size=4))
def test_we_read_numpys_archives(tmp_path, save, named):
    path = tmp_path / "x.npz"
    with open(path, "wb") as file:
        save(file, **{f"n{name}": array for name, array in named.items()})
    loaded = load_npz(path)
    assert set(loaded) == {f"n{name}" for name in named}
    assert all(same(loaded[f"n{name}"], named[name]) for name in named)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("code", [*CODES, ">f4", ">i2", ">c16"])
def test_we_read_numpys_arrays(tmp_path, code, order, version):
    path = tmp_path / "x.npy"
    array = np.asarray(np.arange(24).reshape(2, 3, 4) % 5, code, order=order)
    with open(path, "wb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a version newer than it needs
        np.lib.format.write_array(file, array, version)
    loaded = load_npy(path)
    assert loaded.dtype.isnative
    assert loaded.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(loaded, array)
    loaded[...] = 0  # its own memory


@pytest.mark.parametrize("array", [np.float64(2.5), np.zeros((2, 0, 3)), np.zeros(0, bool), np.zeros((1,) * 32)])
def test_scalars_and_empty_arrays(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    assert same(load_npy(tmp_path / "x.npy"), np.asarray(array))


def test_a_header_as_others_write_it(tmp_path):
    """Other quotes, blanks and order; no comma at the end; no padding."""
    path = tmp_path / "x.npy"
    path.write_bytes(npy('{"shape":(2, 1),"fortran_order" : True,\n "descr":"|u1"}', b"\1\2"))
    assert load_npy(path).tolist() == [[1], [2]]


def test_layout_by_hand(tmp_path):
    path = tmp_path / "x.npz"
    save_npz(path, {"b/w:0": [[1, 2]], "a": np.array(True)})
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["a.npy", "b/w:0.npy"]
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        content = archive.read("b/w:0.npy")
    header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (1, 2), }"
    assert content == b"\x93NUMPY\1\0\x76\0" + header.ljust(117) + b"\n" + struct.pack("<2q", 1, 2)


def test_other_memory_orders_are_saved_as_what_they_mean(tmp_path):
    path = tmp_path / "x.npz"
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    save_npz(path, {"t": x.T, "step": x[:, ::2, ::-1], "big": x.astype(">f4")})
    loaded = load_npz(path)
    assert same(loaded["t"], np.ascontiguousarray(x.T))
    assert same(loaded["step"], np.ascontiguousarray(x[:, ::2, ::-1]))
    assert same(loaded["big"], x)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"x": np.array([None])}, "'x': object"),
        ({"x": np.array(["text"])}, "'x': <U4"),
        ({"x": np.zeros(1, [("a", "f4")])}, "'x': .*'a'"),
        ({"x": np.zeros(1, np.longdouble)}, "'x': "),
        ({"good": np.zeros(1), "../evil": np.zeros(1)}, "'../evil' cannot be"),
        ({f"{i}": np.int8(0) for i in range(20_000)}, "20000 arrays are more"),
        *(({name: np.zeros(1)}, "cannot be the name") for name in
          (3, "", ".", "..", "/x", "a//b", "a/../b", "a/", "a\\b", "C:/x", "a\0b", "a\nb", "\ud800", "x" * 1001)),
    ],
)  # fmt: skip
def test_what_cannot_be_saved_is_refused_and_the_old_file_stays(tmp_path, named, message):
    path = tmp_path / "x.npz"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match=rf"^\S*x\.npz: .*{message}"):
        save_npz(path, named)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


# Bad files


class Trap:
    """A pickle of it calls this when it is read."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was read",)


def object_array():
    file = io.BytesIO()
    np.lib.format.write_array(file, np.array([Trap()]), allow_pickle=True)
    return file.getvalue()


DEEP = "(" * 4000
BAD_ARRAYS = {
    "1 empty file": (b"", "not an .npy array"),
    "2 seven bytes": (npy()[:7], "version"),
    "3 header length 2³²−1": (npy(version=(2, 0), length=2**32 - 1), f"header length: {2**32 - 1}"),
    "4 header longer than the file": (npy(length=9999), "header: 9999 bytes expected"),
    "5 not ASCII": (described(shape="(²,)"), "shape"),
    "6 no dictionary": (npy("[1]"), "header: must hold descr"),
    "7 nested deeply": (described(shape=DEEP), "header: must hold"),
    "7 nested deeply as descr": (described("[" * 9000 + "]" * 900), "header|structure"),
    "7 minus signs": (described(shape="-" * 9000 + "1"), "header: must hold"),
    "8 an integer of 5,000 digits": (described(shape="(" + "9" * 5000 + ",)"), "shape: must be"),
    "9 NaN": (described(shape="(nan,)"), "shape: must be"),
    "10 duplicate key": (
        npy("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,)}"),
        "'descr' appears twice",
    ),
    "missing key": (npy("{'descr': '<f4', 'fortran_order': False}"), "header: must hold"),
    "extra key": (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'x': True}"), "header: must hold"),
    "code after the header": (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}.x"), "header: must hold"),
    "a call": (described(shape="print('run')"), "header: must hold"),
    "13 trailing bytes": (npy(data=b"123456789"), "data: .* has 8 bytes, 9 found"),
    "too few bytes": (npy(data=b"1234567"), "data: .* has 8 bytes, 7 found"),
    "14 negative dimension": (described(shape="(-2,)"), "shape: must be"),
    "14 two negative dimensions": (described(shape="(-2, -1)"), "shape: must be"),
    "14 bool dimension": (described(shape="(True,)"), "shape: must be"),
    "14 float dimension": (described(shape="(2.0,)"), "shape: must be"),
    "shape that is a number": (described(shape="(2)"), "shape: must be"),
    "shape with a hole": (described(shape="(2,,1)"), "shape: must be"),
    "shape of a comma": (described(shape="(,)"), "shape: must be"),
    "shape that is text": (described(shape="'2'"), "shape: must be"),
    "15 a shape whose product overflows": (described(shape=f"({2**32}, {2**32}, 2)"), "shape: .*too large"),
    "15 the same beside a zero": (described(shape=f"(0, {2**40}, {2**40})", data=b""), "shape: .*too large"),
    "15 a large shape": (described(shape=f"({2**58},)"), f"data: .* has {2**60} bytes, 8 found"),
    "65 dimensions": (described(shape="(" + "1, " * 64 + "2)"), "shape: .*too large"),
    "16 unknown dtype": (described("'<f3'"), "descr: .*unknown"),
    "16 long double": (described("'<f16'"), "descr: .*unknown"),
    "16 text": (described("'<U1'"), "descr: .*unknown"),
    "16 a date": (described("'<M8[s]'"), "descr: .*unknown"),
    "16 void": (described("'|V4'"), "descr: .*unknown"),
    "16 dtype that is a tuple": (described("('<f4', (2,))"), "header: must hold|descr"),
    "16 dtype that is True": (described("True"), "descr: .*unknown"),
    "structure": (described("[('a', '<f4')]"), "descr: .*structure"),
    "order that is text": (described(order="'no'"), "fortran_order"),
    "bool of 2": (described("'|b1'", data=b"\1\2"), "data: a bool"),
    "18 object array": (object_array(), "Python objects.*never read"),
    "19 a pickle named .npy": (pickle.dumps(Trap()), "a pickle: it can run code, so it is never read"),
    "19 a pickle of protocol 0": (pickle.dumps(Trap(), 0), "not an .npy array, it begins with b'c"),
    "version 9": (npy(version=(9, 0)), r"version: \(9, 0\)"),
    "25 an HTML error page": (b"<html>404 Not Found</html>", "not an .npy array, it begins with b'<html"),
}


def refuse(load, path, content, message):
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(LoadError, match=rf"^\S*bad\.np[yz]: .*{message}") as caught:
            load(path)
        # What is believed would be more; 64 kB is what zipfile searches for the end of a zip.
        assert tracemalloc.get_traced_memory()[1] < 400_000 + 20 * len(content)
    finally:
        tracemalloc.stop()
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 1000 + len(str(path))


@pytest.mark.parametrize(("content", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_bad_arrays_are_refused_by_file_and_field(tmp_path, content, message):
    refuse(load_npy, tmp_path / "bad.npy", content, message)


@pytest.mark.parametrize(("content", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_bad_members_are_refused_by_file_member_and_field(tmp_path, content, message):
    whole = zipped(("good.npy", npy()), ("x.npy", content))
    refuse(load_npz, tmp_path / "bad.npz", whole, rf"member 'x\.npy': .*({message})")


def bomb(size, stated=None):
    """An archive of one array of zeros; `stated` is what the zip says of its size, where it lies."""
    array = described("'|u1'", shape=f"({size},)", data=bytes(size))
    content = zipped(("x.npy", array), method=zipfile.ZIP_DEFLATED)
    if stated is not None:
        content = changed(content, struct.pack("<I", len(array)), struct.pack("<I", stated))
    return content


def many_bombs(count, size):
    """One compressed member that many directory entries point to."""
    single = bomb(size)
    directory, end = single.index(b"PK\1\2"), single.index(b"PK\5\6")
    entries = single[directory:end] * count
    record = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(entries), directory, 0)
    return single[:directory] + entries + record


def end_record(size, offset=0):
    return struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, size, offset, 0)


GOOD = zipped(("x.npy", npy()))
LOCAL, CENTRAL = GOOD.index(b"PK\3\4"), GOOD.index(b"PK\1\2")
HEADER = len(described("'|u1'", shape="(100,)", data=b""))


def patched(offset, value):
    return GOOD[:offset] + value + GOOD[offset + len(value) :]


TWO = zipped(("x.npy", npy()), ("y.npy", npy()))
HIDDEN = TWO[: TWO.index(b"PK\1\2") + 32] + struct.pack("<H", 51) + TWO[TWO.index(b"PK\1\2") + 34 :]


BAD_ARCHIVES = {
    "1 empty file": (b"", "damaged zip"),
    "2 seven bytes": (GOOD[:7], "damaged zip"),
    "not a zip": (b"x" * 1000, "damaged zip"),
    "19 a pickle": (zipped(("x.npy", pickle.dumps(Trap()))), r"member 'x\.npy': a pickle: .*never read"),
    "19 a pickle of PyTorch": (zipped(("archive/data.pkl", pickle.dumps(Trap()))), "data.pkl': a pickle.*PyTorch"),
    "20 inflates a thousandfold": (bomb(50_000_000), "zip bomb"),
    "20 inflates a thousandfold, says less": (bomb(50_000_000, HEADER + 100), "'x.npy': (data|damaged zip): "),
    "20 says 4 GB": (bomb(100, 2**32 - 2), "zip bomb"),
    "20 many of one": (many_bombs(1000, 10_000), "zip bomb"),
    "21 member ../evil.npy": (zipped(("../evil.npy", npy())), r"member '\.\./evil\.npy': the name could lead out"),
    "21 inside": (zipped(("a/../../evil.npy", npy())), "the name could lead out"),
    "21 absolute": (zipped(("/evil.npy", npy())), "the name could lead out"),
    "21 a drive": (zipped(("C:/evil.npy", npy())), "the name could lead out"),
    "21 backslash": (zipped(("..\\evil.npy", npy())), "the name could lead out"),
    "21 a NUL in the name": (changed(zipped(("a.npy_x.npy", npy())), b"a.npy_", b"a.npy\0"), "the name could lead out"),
    "21 a line feed in the name": (zipped(("a\nb.npy", npy())), "the name could lead out"),
    "21 no name": (zipped((".npy", npy())), "the name could lead out"),
    "22 duplicate member": (zipped(("x.npy", npy()), ("x.npy", npy())), r"member 'x\.npy': appears twice"),
    "no .npy": (zipped(("x.txt", b"text")), r"member 'x\.txt': the name does not end in \.npy"),
    "a folder": (zipped(("x/", b"")), "member 'x/': the name does not end"),
    "encrypted": (patched(CENTRAL + 8, b"\1\0"), "member 'x.npy': encrypted"),
    "compressed by bzip2": (zipped(("x.npy", npy()), method=zipfile.ZIP_BZIP2), "'x.npy': compression 12"),
    "compressed by an unknown method": (patched(CENTRAL + 10, b"\x63\0"), "'x.npy': compression 99"),
    "a newer zip": (patched(CENTRAL + 6, b"\xff\0"), "damaged zip"),
    "a strong encryption": (patched(CENTRAL + 8, b"\x40\0"), "'x.npy': damaged zip"),
    "another name in the header": (patched(LOCAL + 30, b"y"), "'x.npy': damaged zip"),
    "a name that is not UTF-8": (patched(CENTRAL + 8, b"\0\x08").replace(b"x.npy", b"\xff.npy"), "damaged zip"),
    "a wrong checksum": (changed(GOOD, b"12345678", b"12345679"), "'x.npy': damaged zip: .*CRC"),
    "says deflated, is stored": (patched(CENTRAL + 10, b"\x08\0"), "'x.npy': damaged zip"),
    "a member under the comment of another": (HIDDEN, "damaged zip: 1 members found"),
    "bytes after the end": (GOOD + b"junk", "damaged zip"),
    "a directory of 4 GB": (GOOD[: GOOD.index(b"PK\5\6")] + end_record(2**32 - 2), "damaged zip: .*directory"),
    "a directory before the file": (GOOD[: GOOD.index(b"PK\5\6")] + end_record(2000), "damaged zip"),
    "a header beyond the file": (patched(CENTRAL + 42, b"\xff\xff\xff\x7f"), "'x.npy': begins at .*, outside"),
    "25 an HTML error page": (b"<html>404 Not Found</html>", "damaged zip"),
}


@pytest.mark.parametrize(("content", "message"), BAD_ARCHIVES.values(), ids=BAD_ARCHIVES)
def test_bad_archives_are_refused_by_file_and_member(tmp_path, content, message):
    refuse(load_npz, tmp_path / "bad.npz", content, message)


def test_the_bombs_are_bombs():
    """A thousandfold, and whole where they do not lie."""
    content = bomb(50_000_000)
    assert 900 * len(content) < 50_000_000
    with np.load(io.BytesIO(bomb(1000))) as theirs:
        assert theirs["x"].tolist() == [0] * 1000


def test_a_small_file_does_not_take_fifty_times_its_size(tmp_path):
    noise = np.random.default_rng(0).bytes(200_000)
    np.savez_compressed(tmp_path / "x.npz", x=np.frombuffer(noise + bytes(12_000_000), np.uint8))
    with pytest.raises(LoadError, match="zip bomb"):
        load_npz(tmp_path / "x.npz")


def test_compressed_zeros_of_a_usual_size_are_no_bomb(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", b=np.zeros(100_000))
    assert load_npz(tmp_path / "x.npz")["b"].size == 100_000


def overwrite(path, content):
    """Faster than to truncate a file, which waits for the disk."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def two_methods():
    """An archive of a stored member and a deflated one."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", npy(), zipfile.ZIP_STORED)
        archive.writestr("b.npy", described("'|b1'", data=b"\1\0"), zipfile.ZIP_DEFLATED)
    return file.getvalue()


def test_23_every_truncation_is_found(tmp_path):
    path, whole = tmp_path / "cut.npz", two_methods()
    for length in range(len(whole)):
        overwrite(path, whole[:length])
        with pytest.raises(LoadError, match=r"cut\.npz: "):
            load_npz(path)
    for length in range(len(npy())):
        overwrite(path, npy()[:length])
        with pytest.raises(LoadError, match=r"cut\.npz: "):
            load_npy(path)


def test_24_every_flipped_bit_is_found_or_changes_nothing(tmp_path):
    """A zip's checksum covers the array and its header; dates, permissions and the like are not looked at."""
    path, whole = tmp_path / "x.npz", two_methods()
    path.write_bytes(whole)
    good = load_npz(path)
    refused = 0
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        overwrite(path, flipped)
        try:
            loaded = load_npz(path)
        except LoadError:
            refused += 1
        else:
            assert list(loaded) == list(good)
            assert all(same(loaded[name], good[name]) for name in good)
    assert refused > 0.5 * 8 * len(whole)


@pytest.mark.parametrize("load", [load_npy, load_npz])
def test_a_missing_file_is_the_usual_error(tmp_path, load):
    with pytest.raises(FileNotFoundError, match=r"none\.npz"):
        load(tmp_path / "none.npz")

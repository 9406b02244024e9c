"""NumPy's files: against NumPy itself, and everything a bad file can be."""

import io
import pickle
import struct
import warnings
import zipfile

import numpy as np
import pytest

from tinygrad_llm.formats.npz import load_npy, load_npz, save_npz
from tinygrad_llm.storage.files import LoadError

CODES = ["f2", "f4", "f8", "c8", "c16", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"]

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


# NumPy itself


VALUES = {
    **{code: np.asarray(np.arange(24).reshape(2, 3, 4) % 5, code) for code in [*CODES, ">f4", ">i2", ">c16"]},
    "transposed": np.arange(24.0).reshape(2, 3, 4).T,
    "bools transposed": np.eye(3, dtype=bool).T,
    "scalar": np.float64(2.5),
    "empty": np.zeros((2, 0, 3)),
    "no bools": np.zeros(0, bool),
    "dimensions": np.zeros((1,) * 32),
}


def assert_read(loaded, array):
    assert loaded.dtype.isnative
    assert loaded.flags.writeable
    assert same(loaded, np.asarray(array, np.asarray(array).dtype.newbyteorder("=")))


def test_numpy_reads_what_we_write(tmp_path):
    save_npz(tmp_path / "x.npz", VALUES)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as theirs:
        assert set(theirs.files) == set(VALUES)
        for name in theirs.files:
            assert_read(theirs[name], VALUES[name])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_we_read_the_archives_that_numpy_writes(tmp_path, save):
    save(tmp_path / "x.npz", **{f"n{name}": array for name, array in VALUES.items()})
    loaded = load_npz(tmp_path / "x.npz")
    assert set(loaded) == {f"n{name}" for name in VALUES}
    for name, array in VALUES.items():
        assert_read(loaded[f"n{name}"], array)


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_we_read_the_arrays_that_numpy_writes(tmp_path, version, for_each):
    path = tmp_path / "x.npy"

    def check(name):
        with open(path, "wb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a version newer than it needs
            np.lib.format.write_array(file, np.asarray(VALUES[name]), version)
        assert_read(load_npy(path), VALUES[name])

    for_each(VALUES, check)


def test_a_header_as_others_write_it(tmp_path):
    """Other quotes, blanks and order; no comma at the end; no padding."""
    path = tmp_path / "x.npy"
    path.write_bytes(npy('{"shape":(2, 1),"fortran_order" : True,\n "descr":"|u1"}', b"\1\2"))
    assert load_npy(path).tolist() == [[1], [2]]


def test_members_are_sorted_and_have_no_date(tmp_path):
    save_npz(tmp_path / "x.npz", {"b/w:0": [[1, 2]], "a": np.array(True)})
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        assert archive.namelist() == ["a.npy", "b/w:0.npy"]
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {(info.create_system, info.compress_type) for info in archive.infolist()} == {(3, zipfile.ZIP_STORED)}


def test_more_arrays_than_are_read_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="20000 arrays are more than the reader accepts"):
        save_npz(tmp_path / "x.npz", {f"{i}": np.int8(0) for i in range(20_000)})
    assert not list(tmp_path.iterdir())


# Bad files


class Trap:
    """A pickle of it calls this when it is read."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was read",)


def object_array():
    file = io.BytesIO()
    np.lib.format.write_array(file, np.array([Trap()]), allow_pickle=True)
    return file.getvalue()


DEEP = "(" * 2000
BAD_ARRAYS = {
    "empty file": (b"", "not an .npy array"),
    "seven bytes": (npy()[:7], "version"),
    "header length 2³²−1": (npy(version=(2, 0), length=2**32 - 1), "header: .*expected 4294967295 bytes"),
    "header longer than the file": (npy(length=9999), "header: .*expected 9999 bytes"),
    "header over the limit": (described(shape=f"(2,{' ' * 10_000})"), "header: .*expected 10057 bytes"),
    "not ASCII": (described(shape="(²,)"), "header: "),
    "no dictionary": (npy("[1]"), "header: "),
    "nested deeply": (described(shape=DEEP), "header: "),
    "nested deeply as descr": (described("[" * 2000 + "]" * 200), "header: "),
    "minus signs": (described(shape="-" * 9000 + "1"), "header: "),
    "an integer of 5,000 digits": (described(shape="(" + "9" * 5000 + ",)"), "header: "),
    "an invalid escape": (described(r"'<f4\d'"), "header: "),
    "NaN": (described(shape="(nan,)"), "header: "),
    "missing key": (npy("{'descr': '<f4', 'fortran_order': False}"), "header: "),
    "extra key": (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'x': True}"), "header: "),
    "code after the header": (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}.x"), "header: "),
    "a call": (described(shape="print('run')"), "header: "),
    "trailing bytes": (npy(data=b"123456789"), "data: .* has 8 bytes, 9 found"),
    "too few bytes": (npy(data=b"1234567"), "data: .* has 8 bytes, 7 found"),
    "negative dimension": (described(shape="(-2,)"), "shape: must be"),
    "two negative dimensions": (described(shape="(-2, -1)"), "shape: must be"),
    "bool dimension": (described(shape="(True,)"), "shape: must be"),
    "float dimension": (described(shape="(2.0,)"), "header: .*shape"),
    "shape that is a number": (described(shape="(2)"), "header: .*shape"),
    "shape with a hole": (described(shape="(2,,1)"), "header: "),
    "shape that is text": (described(shape="'2'"), "header: .*shape"),
    "a shape whose product overflows": (described(shape=f"({2**32}, {2**32}, 2)"), "shape: .*too large"),
    "the same next to a zero": (described(shape=f"(0, {2**40}, {2**40})", data=b""), "shape: .*too large"),
    "a large shape": (described(shape=f"({2**58},)"), f"data: .* has {2**60} bytes, 8 found"),
    "dimensions": (described(shape="(" + "1, " * 64 + "2)"), "shape: .*too large"),
    "unknown dtype": (described("'<f3'"), "header: .*descr"),
    "long double": (described("'<f16'"), "descr: .*unknown"),
    "text": (described("'<U1'"), "descr: .*unknown"),
    "a date": (described("'<M8[s]'"), "descr: .*unknown"),
    "void": (described("'|V4'"), "descr: .*unknown"),
    "dtype that is a tuple": (described("('<f4', (2,))"), "descr: .*unknown"),
    "dtype that is True": (described("True"), "header: .*descr"),
    "structure": (described("[('a', '<f4')]"), "descr: .*unknown"),
    "structure of objects": (described("[('a', '|O')]"), "Python objects.*never read"),
    "order that is text": (described(order="'no'"), "header: .*fortran_order"),
    "bool of 2": (described("'|b1'", data=b"\1\2"), "data: a bool"),
    "object array": (object_array(), "Python objects.*never read"),
    "a pickle named .npy": (pickle.dumps(Trap()), "a pickle: it can run code, so it is never read"),
    "a pickle of protocol 0": (pickle.dumps(Trap(), 0), "not an .npy array, it begins with b'c"),
    "version 3": (npy(version=(3, 0)), r"version: \(3, 0\) is unknown"),
    "an HTML error page": (b"<html>404 Not Found</html>", "not an .npy array, it begins with b'<html"),
}


@pytest.fixture
def refuse(peak_memory):
    """A function (load, path, content, message): assert that this content is refused, in memory that fits it."""

    def check(load, path, content, message):
        path.write_bytes(content)
        # zipfile searches 64 kB for the end of a zip, and a parsed header of 10 kB may take some megabytes.
        limit = 4_000_000 + 20 * len(content)

        def read():
            with pytest.raises(LoadError, match=rf"^\S*bad\.np[yz]: .*{message}") as caught:
                load(path)
            assert len(str(caught.value).splitlines()) == 1
            assert len(str(caught.value)) < 1000 + len(str(path))

        assert peak_memory(read, limit) < limit

    return check


def test_bad_arrays_are_refused_by_file_and_field(tmp_path, refuse, for_each):
    for_each(BAD_ARRAYS, lambda name: refuse(load_npy, tmp_path / "bad.npy", *BAD_ARRAYS[name]))


def test_bad_members_are_refused_by_file_member_and_field(tmp_path, refuse, for_each):
    def check(name):
        content, message = BAD_ARRAYS[name]
        whole = zipped(("good.npy", npy()), ("x.npy", content))
        refuse(load_npz, tmp_path / "bad.npz", whole, rf"member 'x\.npy': .*({message})")

    for_each(BAD_ARRAYS, check)


def bomb(size, stated=None):
    """An archive of one array of zeros; `stated` is a false size in the zip."""
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
    "empty file": (b"", "damaged zip"),
    "seven bytes": (GOOD[:7], "damaged zip"),
    "not a zip": (b"x" * 1000, "damaged zip"),
    "a pickle": (zipped(("x.npy", pickle.dumps(Trap()))), r"member 'x\.npy': a pickle: .*never read"),
    "a pickle of PyTorch": (zipped(("archive/data.pkl", pickle.dumps(Trap()))), "data.pkl': a pickle.*PyTorch"),
    "inflates a thousandfold": (bomb(50_000_000), "zip bomb"),
    "inflates a thousandfold, says less": (bomb(50_000_000, HEADER + 100), "'x.npy': (data|damaged zip): "),
    "says 4 GB": (bomb(100, 2**32 - 2), "zip bomb"),
    "many of one": (many_bombs(1000, 10_000), "zip bomb"),
    "member ../evil.npy": (zipped(("../evil.npy", npy())), r"member '\.\./evil\.npy': the name could lead out"),
    "inside": (zipped(("a/../../evil.npy", npy())), "the name could lead out"),
    "absolute": (zipped(("/evil.npy", npy())), "the name could lead out"),
    "a drive": (zipped(("C:/evil.npy", npy())), "the name could lead out"),
    "backslash": (zipped(("..\\evil.npy", npy())), "the name could lead out"),
    "a NUL in the name": (changed(zipped(("a.npy_x.npy", npy())), b"a.npy_", b"a.npy\0"), "the name could lead out"),
    "a line feed in the name": (zipped(("a\nb.npy", npy())), "the name could lead out"),
    "no name": (zipped((".npy", npy())), "the name could lead out"),
    "duplicate member": (zipped(("x.npy", npy()), ("x.npy", npy())), r"member 'x\.npy': appears twice"),
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
    "an HTML error page": (b"<html>404 Not Found</html>", "damaged zip"),
}


def test_bad_archives_are_refused_by_file_and_member(tmp_path, refuse, for_each):
    for_each(BAD_ARCHIVES, lambda name: refuse(load_npz, tmp_path / "bad.npz", *BAD_ARCHIVES[name]))


def test_the_bombs_inflate_a_thousandfold():
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


def test_compressed_zeros_of_a_usual_size_are_read(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", b=np.zeros(100_000))
    assert load_npz(tmp_path / "x.npz")["b"].size == 100_000


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_the_checksum_of_every_member_is_compared(tmp_path, method, for_each):
    """Also of one that is empty, of one that is large, and of the last."""
    arrays = {"empty": np.zeros(0), "one": np.ones(1), "large": np.arange(300_000), "last": np.array(True)}
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)

    def check(damaged):
        path = tmp_path / "x.npz"
        with zipfile.ZipFile(path, "w", method) as archive:
            for name in arrays:
                archive.write(tmp_path / f"{name}.npy", f"{name}.npy")
            archive.getinfo(f"{damaged}.npy").CRC ^= 1  # in the directory, which is written last
        with pytest.raises(LoadError, match=rf"member '{damaged}\.npy': damaged zip: .*CRC"):
            load_npz(path)

    for_each(arrays, check)

"""Rules for every format: round trips, refusals, damage, and files that are no files.

The table FORMATS has one row per reader. What only one format does is tested in the file of that format.
"""

import errno
import io
import os
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinygrad_llm.formats import (
    Checkpoints,
    DamagedCheckpointWarning,
    load_checkpoint,
    load_npy,
    load_npz,
    load_safetensors,
    npz,
    read_arrays,
    read_tensorbundle,
    save_checkpoint,
    save_npz,
    save_safetensors,
    table,
    verify_tensorbundle,
    write_tensorbundle,
)
from tinygrad_llm.storage.files import LoadError

DATA = ".data-00000-of-00001"
CODES = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"]

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
in_zip = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="\\:"), min_size=1, max_size=8).filter(
    lambda name: not {"", ".", ".."} & set(name.split("/"))
)
# Half of TensorFlow's names are long and alike, so that entries share a prefix and a small block holds only a few.
in_bundle = texts.filter(lambda name: name[:1] not in ("", "\0")) | texts.map(lambda text: "model/h0/c_attn/" + text)


class Format(NamedTuple):
    """How arrays are saved and loaded, which names and dtypes are possible, and the files that are written."""

    save: Callable[..., None]
    load: Callable[..., dict[str, Any]]
    names: Any = texts.filter(lambda name: name != "__metadata__")
    codes: list[str] = CODES
    files: tuple[str, ...] = ("",)


FORMATS = {
    "safetensors": Format(save_safetensors, lambda path: load_safetensors(path)[0]),
    "mapped": Format(save_safetensors, lambda path: load_safetensors(path, mmap=True)[0]),
    "checkpoint": Format(save_checkpoint, lambda path: load_checkpoint(path)[0]),
    "npz": Format(save_npz, load_npz, in_zip, [*CODES, "c8", "c16"]),
    "tensorbundle": Format(write_tensorbundle, read_tensorbundle, in_bundle, files=(".index", DATA)),
}
every_format = pytest.mark.parametrize("name", FORMATS)
SMALL = {"a": np.arange(3, dtype=np.int16), "b": np.array([True]), "c": np.zeros((0, 3)), "d": np.array(1, np.float16)}


def same(left, right):
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def content(path, name):
    return [path.with_name(path.name + suffix).read_bytes() for suffix in FORMATS[name].files]


def replace(path, data):
    path.unlink(missing_ok=True)  # to truncate a file takes some file systems a hundred times as long
    path.write_bytes(data)


# ---- round trips ---------------------------------------------------------------------------------------------------


@every_format
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_arrays_come_back_bit_for_bit(tmp_path, name, data):
    save, load, names, codes, files = FORMATS[name]
    finite = {"allow_nan": False, "allow_infinity": False} if name == "checkpoint" else {}
    shapes = hnp.array_shapes(min_dims=0, min_side=0, max_side=4)
    arrays = st.sampled_from(codes).flatmap(
        lambda code: hnp.arrays(code, shapes, elements=finite if "f" in code and finite else None)
    )
    named = data.draw(st.dictionaries(names, arrays, max_size=5 if name != "tensorbundle" else 40))
    path = tmp_path / "x"
    save(path, named)
    before = content(path, name)
    assert len(list(tmp_path.iterdir())) == len(files)
    loaded = load(path)
    assert set(loaded) == set(named)
    for key, array in loaded.items():
        assert same(array, named[key])
        assert array.dtype.isnative
        assert array.flags.writeable != (name == "mapped")
    if name in ("npz", "tensorbundle"):
        assert list(loaded) == sorted(named, key=str.encode)
    save(path, dict(reversed(named.items())))
    assert content(path, name) == before


@every_format
def test_arrays_in_another_memory_order_are_saved_by_value(tmp_path, name):
    save, load, *_ = FORMATS[name]
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    save(tmp_path / "x", {"t": x.T, "step": x[:, ::2, ::-1], "big": x.astype(">f4"), "list": [1, 2], "number": 1.5})
    loaded = load(tmp_path / "x")
    assert same(loaded["t"], np.ascontiguousarray(x.T))
    assert same(loaded["step"], np.ascontiguousarray(x[:, ::2, ::-1]))
    assert same(loaded["big"], x)
    assert loaded["list"].tolist() == [1, 2]
    assert same(loaded["number"], np.array(1.5))


@every_format
def test_an_array_is_read_straight_into_its_memory(tmp_path, peak_memory, name):
    save, load, *_ = FORMATS[name]
    size = 20_000_000
    save(tmp_path / "x", {"a": np.ones(size // 8, np.float32), "b": np.ones(size // 8, np.float32)})
    limit = (0.1 if name == "mapped" else 1.1) * size
    assert peak_memory(lambda: load(tmp_path / "x"), limit) < limit


# ---- what is not saved ---------------------------------------------------------------------------------------------

BAD_NAMES = {
    "safetensors": [3, "__metadata__", "\ud800"],
    "npz": [3, "", ".", "..", "/x", "a//b", "a/../b", "a/", "a\\b", "C:/x", "a\0b", "a\nb", "\ud800", "x" * 1001],
    "tensorbundle": [3, "", "\0x", "\ud800", "x" * 10_001],
}
BAD_NAMES["checkpoint"] = BAD_NAMES["mapped"] = BAD_NAMES["safetensors"]


@every_format
def test_arrays_that_a_format_cannot_hold_are_refused_and_the_old_file_stays(tmp_path, name, for_each):
    save = FORMATS[name].save
    path = tmp_path / "model"
    save(path, {"old": np.ones(3)})
    before = content(path, name)

    def check(bad):
        key, array = bad
        with pytest.raises(ValueError, match=rf"^{path}: ") as caught:
            save(path, {"fine": np.ones(1), key: array})
        assert len(str(caught.value).splitlines()) == 1
        assert not isinstance(caught.value, LoadError)

    arrays = [np.array([None]), np.array(["text"]), np.zeros(1, [("a", "f4")]), np.zeros(1, np.longdouble)]
    arrays += [] if name == "npz" else [np.zeros(1, complex)]
    for_each([*(("x", array) for array in arrays), *((key, np.ones(1)) for key in BAD_NAMES[name])], check)
    assert content(path, name) == before
    assert len(list(tmp_path.iterdir())) == len(before)


@every_format
@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_failing_disk_leaves_the_old_file_and_is_named(tmp_path, monkeypatch, name, function):
    save, load, *_ = FORMATS[name]
    save(tmp_path / "model", {"old": np.ones(3)})

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, function, fail)
        with pytest.raises(OSError, match=r"No space left.*model"):
            save(tmp_path / "model", {"new": np.ones(5)})
    assert load(tmp_path / "model")["old"].tolist() == [1, 1, 1]
    assert len(list(tmp_path.iterdir())) == len(FORMATS[name].files)


# ---- damage --------------------------------------------------------------------------------------------------------


def write_small(path, name, monkeypatch):
    """A small file; of `.npz` one with both methods, of a bundle one with several blocks."""
    if name == "npz":
        with zipfile.ZipFile(path, "w") as archive:
            for key, method in (("a", zipfile.ZIP_STORED), ("b", zipfile.ZIP_DEFLATED)):
                member = io.BytesIO()
                np.lib.format.write_array(member, SMALL[key])
                archive.writestr(f"{key}.npy", member.getvalue(), method)
    else:
        monkeypatch.setattr(table, "_BLOCK_SIZE", 40)
        FORMATS[name].save(path, SMALL)


@every_format
def test_every_truncation_is_found(tmp_path, monkeypatch, name):
    path = tmp_path / "whole"
    write_small(path, name, monkeypatch)
    for suffix in FORMATS[name].files:
        file = path.with_name(path.name + suffix)
        whole = file.read_bytes()
        for length in range(len(whole)):
            replace(file, whole[:length])
            with pytest.raises(LoadError, match=file.name):
                FORMATS[name].load(path)
        replace(file, whole)
    FORMATS[name].load(path)


def flip_bits(path, name, bits):
    """Every flip is refused, or changes no array: it hit a byte that no checksum covers, or the checksum's name."""
    good = FORMATS[name].load(path)
    refused = flips = 0
    for suffix in FORMATS[name].files:
        file = path.with_name(path.name + suffix)
        whole = file.read_bytes()
        for bit in bits(len(whole)):
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            replace(file, damaged)
            flips += 1
            try:
                loaded = FORMATS[name].load(path)
            except LoadError:
                refused += 1
            else:
                if name != "mapped":  # of an npz, dates and the like are not read
                    assert list(loaded) == list(good)
                    assert all(same(loaded[key], good[key]) for key in good)
        replace(file, whole)
    allowed = {"checkpoint": 0, "tensorbundle": 0, "safetensors": 8 * len("sha256")}
    assert flips - refused <= allowed.get(name, 0.5 * flips)


@every_format
def test_a_flipped_bit_in_every_byte_is_found_where_a_checksum_covers_it(tmp_path, monkeypatch, name):
    write_small(tmp_path / "whole", name, monkeypatch)
    flip_bits(tmp_path / "whole", name, lambda length: (8 * byte + byte % 8 for byte in range(length)))


@pytest.mark.slow
@every_format
def test_every_flipped_bit_is_found_where_a_checksum_covers_it(tmp_path, monkeypatch, name):
    write_small(tmp_path / "whole", name, monkeypatch)
    flip_bits(tmp_path / "whole", name, lambda length: range(8 * length))


# ---- files that are no files ---------------------------------------------------------------------------------------


@every_format
def test_a_missing_file_is_the_usual_error(tmp_path, name):
    with pytest.raises(FileNotFoundError, match="none"):
        FORMATS[name].load(tmp_path / "none")


def shard_of(folder):
    (folder / "i.json").write_text('{"weight_map": {"x": "x.safetensors"}}')
    return folder / "x.safetensors"


def bundle_without(suffix):
    def make(folder):
        write_tensorbundle(folder / "m", SMALL)
        (folder / f"m{suffix}").unlink()
        return folder / f"m{suffix}"

    return make


# What reads, which file of the folder it is given, and a function that prepares the folder and gives the pipe's path.
PIPES = {
    **{name: (row.load, "x", lambda folder: folder / "x") for name, row in FORMATS.items() if name != "tensorbundle"},
    "npy": (load_npy, "x", lambda folder: folder / "x"),
    "any": (read_arrays, "x", lambda folder: folder / "x"),
    "folder": (read_arrays, ".", lambda folder: folder / "x.safetensors"),
    "shard": (read_arrays, "i.json", shard_of),
    "index": (read_tensorbundle, "m.index", bundle_without(".index")),
    "prefix": (read_tensorbundle, "m", bundle_without(".index")),
    "data": (read_tensorbundle, "m", bundle_without(DATA)),
    "verified": (verify_tensorbundle, "m", bundle_without(DATA)),
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_a_pipe_is_not_waited_for(tmp_path, for_each):
    def check(name):
        read, file, prepare = PIPES[name]
        folder = tmp_path / name
        folder.mkdir()
        os.mkfifo(prepare(folder))
        with pytest.raises(LoadError, match=str(folder)):
            read(folder / file)

    for_each(PIPES, check)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_a_pipe_among_checkpoints_is_skipped(tmp_path):
    Checkpoints(tmp_path).save(1, SMALL)
    os.mkfifo(tmp_path / "step-00000002.ckpt.safetensors")
    with pytest.warns(DamagedCheckpointWarning, match="not a regular file"):
        assert Checkpoints(tmp_path).load_latest()[1]["step"] == 1
    assert Checkpoints(tmp_path).best() is None


@pytest.mark.parametrize("name", ["safetensors", "checkpoint", "npz", "npy", "tensorbundle"])
def test_an_array_beyond_the_memory_is_named_with_its_size(tmp_path, monkeypatch, name):
    def no_memory(*_, **__):
        raise MemoryError

    path = tmp_path / "file"
    x = np.arange(6, dtype=np.float32)
    if name == "npy":
        with open(path, "wb") as file:
            np.save(file, x)
    else:
        FORMATS[name].save(path, {"x": x})
    with monkeypatch.context() as patch:
        patch.setattr(np, "empty", no_memory)
        patch.setattr(npz.npy, "read_array", no_memory)
        with pytest.raises(LoadError, match=r"file.*24 bytes do not fit into memory"):
            load_npy(path) if name == "npy" else FORMATS[name].load(path)

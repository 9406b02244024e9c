"""Every format is recognised by its content, and what is none of them by name."""

import gzip
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest

from tinygrad_llm.formats import save_safetensors
from tinygrad_llm.formats.arrays import read_arrays, write_arrays
from tinygrad_llm.formats.npz import save_npz
from tinygrad_llm.storage.files import LoadError

NAMED = {
    "model/wte": np.arange(6, dtype=np.float32).reshape(2, 3),
    "model/h0/ln_1/g": np.ones(3, np.float32),
    "step": np.array(7),
    "empty": np.zeros((0, 2), np.float32),
}


def assert_same(loaded, expected):
    assert set(loaded) == set(expected)
    for name, array in loaded.items():
        assert array.dtype == expected[name].dtype, name
        np.testing.assert_array_equal(array, expected[name])


# Good files


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".index"])
def test_there_and_back_in_every_format(tmp_path, suffix):
    path = tmp_path / f"model.ckpt{suffix}"
    write_arrays(path, NAMED)
    for place in (path, str(path), tmp_path):
        found = read_arrays(place)
        assert_same(found.arrays, NAMED)
        assert found.format == {".index": "tensorbundle"}.get(suffix, suffix[1:])
        assert found.metadata == {}
    for array in found.arrays.values():
        array[...] = 0


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@pytest.mark.parametrize("name", ["data", "x.npy", "x.index", "pytorch_model.bin"])
def test_the_name_does_not_matter(tmp_path, suffix, name):
    write_arrays(tmp_path / f"x{suffix}", NAMED)
    (tmp_path / f"x{suffix}").rename(tmp_path / name)
    found = read_arrays(tmp_path / name)
    assert_same(found.arrays, NAMED)
    assert found.format == suffix[1:]


def test_an_npy_file_has_one_array(tmp_path):
    np.save(tmp_path / "wte.npy", NAMED["model/wte"])
    found = read_arrays(tmp_path / "wte.npy")
    assert_same(found.arrays, {"arr_0": NAMED["model/wte"]})
    assert found.format == "npy"


def test_an_empty_npz(tmp_path):
    np.savez(tmp_path / "x.npz")
    assert read_arrays(tmp_path / "x.npz").arrays == {}


def test_a_tensorbundle_by_its_prefix(tmp_path):
    write_arrays(tmp_path / "model.ckpt.index", NAMED)
    assert_same(read_arrays(tmp_path / "model.ckpt").arrays, NAMED)


def test_metadata(tmp_path):
    path = tmp_path / "x.safetensors"
    write_arrays(path, NAMED, {"k": "v"})
    assert read_arrays(path).metadata == {"k": "v"}


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".index"])
def test_half_precision_becomes_float32(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    half = np.array([1.5, -(2.0**-24), np.inf, np.nan], np.float16)
    write_arrays(path, {"x": half, "y": np.zeros(2)})
    loaded = read_arrays(path).arrays
    assert_same(loaded, {"x": half.astype(np.float32), "y": np.zeros(2)})


def test_mapped_safetensors(tmp_path):
    path = tmp_path / "x.safetensors"
    write_arrays(path, NAMED | {"half": np.ones(2, np.float16)})
    loaded = read_arrays(path, mmap=True).arrays
    assert_same(loaded, NAMED | {"half": np.ones(2, np.float32)})
    assert not any(array.flags.writeable for array in loaded.values())


@pytest.mark.parametrize(
    ("name", "metadata", "message"),
    [("x.bin", None, "must end in"), ("x.npz", {"k": "v"}, "metadata"), ("x.index", {"k": "v"}, "metadata")],
)
def test_what_cannot_be_written(tmp_path, name, metadata, message):
    with pytest.raises(ValueError, match=rf"{name}: .*{message}"):
        write_arrays(tmp_path / name, NAMED, metadata)
    assert not list(tmp_path.iterdir())


# Folders


def test_a_folder_as_the_hub_and_openai_fill_it(tmp_path):
    write_arrays(tmp_path / "model.safetensors", NAMED)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(1))
    (tmp_path / "config.json").write_text("{}")
    assert read_arrays(tmp_path).format == "safetensors"
    (tmp_path / "model.safetensors").unlink()
    write_arrays(tmp_path / "model.ckpt.index", NAMED)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt"')
    assert read_arrays(tmp_path).format == "tensorbundle"


def test_folders_without_a_single_answer(tmp_path):
    with pytest.raises(LoadError, match="holds nothing"):
        read_arrays(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(LoadError, match=r"holds \['config.json'\], no arrays"):
        read_arrays(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(1))
    with pytest.raises(LoadError, match=r"holds only pytorch_model\.bin, a pickle: it can run code"):
        read_arrays(tmp_path)
    save_npz(tmp_path / "b.npz", NAMED)
    save_safetensors(tmp_path / "a.safetensors", NAMED)
    with pytest.raises(LoadError, match=r"holds \['a.safetensors', 'b.npz'\]: name the one"):
        read_arrays(tmp_path)


# Files that are split


@pytest.fixture
def sharded(tmp_path):
    """A function: changes to the weight_map → the index' path."""

    def write(**changes):
        shards = [("model-1.safetensors", ["model/wte", "step"]), ("model-2.safetensors", ["model/h0/ln_1/g", "empty"])]
        for shard, inside in shards:
            save_safetensors(tmp_path / shard, {name: NAMED[name] for name in inside}, {"format": "pt", shard: "here"})
        weight_map = {name: shard for shard, inside in shards for name in inside} | changes
        path = tmp_path / "model.safetensors.index.json"
        path.write_text(json.dumps({"metadata": {"total_size": 1e9}, "weight_map": weight_map}, indent=2))
        return path

    return write


@pytest.mark.parametrize("mmap", [False, True])
def test_an_index_of_shards(sharded, mmap):
    path = sharded()
    for place in (path, path.parent):
        found = read_arrays(place, mmap=mmap)
        assert_same(found.arrays, NAMED)
        assert found.format == "safetensors"
        assert found.metadata == {"format": "pt", "model-1.safetensors": "here", "model-2.safetensors": "here"}


@pytest.mark.parametrize(
    "shard",
    ["../x.safetensors", "/x.safetensors", "a/x.safetensors", "..\\x.safetensors", "C:x.safetensors", "..", "",
     "pytorch_model-00001-of-00002.bin", "a\0.safetensors", ".safetensors", "x.safetensors\n"],
)  # fmt: skip
def test_a_shard_elsewhere_is_refused(sharded, shard):
    with pytest.raises(LoadError, match=r"index\.json: weight_map: .* must be a \.safetensors file of the same folder"):
        read_arrays(sharded(step=shard))


def test_an_index_that_does_not_fit_its_shards(sharded):
    with pytest.raises(LoadError, match=r"'model-1.safetensors' holds more or less than it says: \['ghost'\]"):
        read_arrays(sharded(ghost="model-1.safetensors"))
    with pytest.raises(LoadError, match=r"'model-1.safetensors' holds more or less than it says: \['step'\]"):
        read_arrays(sharded(step="model-2.safetensors"))
    with pytest.raises(LoadError, match="weight_map: must map"):
        read_arrays(sharded(step=3))
    with pytest.raises(LoadError, match=r"weight_map: 'model-0\.safetensors' is missing"):
        read_arrays(sharded(step="model-0.safetensors"))
    path = sharded()
    path.with_name("model-2.safetensors").write_bytes(b"")
    with pytest.raises(LoadError, match=r"model-2\.safetensors: header length"):
        read_arrays(path)


# What it is instead


def archive(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        for name, content in members.items():
            opened.writestr(name.replace("__", "/"), content)
    return file.getvalue()


def tar():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as opened:
        opened.addfile(tarfile.TarInfo("model.safetensors"))
    return file.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 548105171\n"
OTHERS = {
    "1 empty file": (b"", "an empty file"),
    "2 seven bytes": (b"\2\0\0\0\0\0\0", "unknown"),
    "19 a pickle": (pickle.dumps(np.zeros(100)), "a pickle: it can run code"),
    "19 a pickle of protocol 2": (pickle.dumps({"a": 1}, 2), "a pickle: it can run code"),
    "a PyTorch zip": (archive(model__data__0=b"1234", **{"model__data.pkl": pickle.dumps(1)}), "PyTorch|not end in"),
    "a PyTorch zip that begins with its pickle": (archive(**{"a__data.pkl": pickle.dumps(1)}), "a pickle.*PyTorch"),
    "a zip of other things": (archive(**{"a.txt": b"a"}), r"'a\.txt': .*not an \.npz file"),
    "25 an HTML error page": (b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>", "an HTML or XML page"),
    "25 HTML after blanks": (b"\n \t<html>", "an HTML or XML page"),
    "25 XML after a mark": (b"\xef\xbb\xbf<?xml version='1.0'?><Error/>", "an HTML or XML page"),
    "26 a git-LFS pointer": (LFS, "a git-LFS pointer, not the file itself: fetch it with `git lfs pull`"),
    "gzip": (gzip.compress(b"text"), "a compressed file"),
    "tar": (tar(), "a tar archive"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file"),
    "GGUF": (b"GGUF\3\0\0\0" + bytes(100), "a GGUF file"),
    "TensorFlow Lite": (b"\x1c\0\0\0TFL3" + bytes(100), "a TensorFlow Lite model"),
    "ONNX": (b"\x08\x08\x12\x07pytorch\x1a\x042.1.0" + bytes(100), "an ONNX model"),
    "a JSON config": (b'{"n_layer": 12}', "JSON without a weight_map"),
    "broken JSON": (b'{"weight_map": ', "JSON: "),
    "10 JSON with a duplicate key": (b'{"weight_map": {}, "weight_map": {}}', "JSON: the key 'weight_map' appears"),
    "7 JSON nested 100,000 deep": (b'{"weight_map":' + b"[" * 100_000, "JSON: nested too deeply"),
    "a list in JSON": (b"[1, 2]", "text, it begins with"),
    "text": ("Gewichte für später".encode(), "text, it begins with 'Gewichte für später'"),
    "text cut within a letter": (("x" + "ü" * 300).encode(), "text"),
    "a truncated npy": (b"\x93NUMPY", "version"),
    "a truncated npz": (archive(**{"a.npy": b"x"})[:-1], "damaged zip"),
    "zeros": (bytes(1000), "unknown, it begins with b'"),
    "a bundle's magic on nothing": (bytes(8) + bytes.fromhex("57fb808b247547db"), "unknown"),
}


@pytest.mark.parametrize(("content", "message"), OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("name", ["file", "model.npz", "pytorch_model.bin"])
def test_what_it_is_instead_is_named(tmp_path, content, message, name):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(LoadError, match=rf"^{path}: .*({message})") as caught:
        read_arrays(path)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\2\0\0\0\0\0\0", "header length: needs 8 bytes"),
        (struct.pack("<Q", 2**63) + b"{}", "header length: "),
        (struct.pack("<Q", 2) + b"[]", "header: must be a JSON object"),
    ],
    ids=["2 seven bytes", "3 header length 2⁶³", "6 no object"],
)
def test_a_damaged_safetensors_file_is_told_by_its_name(tmp_path, content, message):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(LoadError, match=rf"x\.safetensors: {message}"):
        read_arrays(path)


def test_the_data_of_a_bundle_is_not_its_index(tmp_path):
    write_arrays(tmp_path / "model.ckpt.index", {"x": np.full(100, 1e-9)})
    with pytest.raises(LoadError, match=r"data-00000-of-00001: the data of a TensorBundle: read its \.index"):
        read_arrays(tmp_path / "model.ckpt.data-00000-of-00001")


def test_a_missing_file_is_the_usual_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        read_arrays(tmp_path / "none")


def test_a_folder_with_an_npy_file(tmp_path):
    np.save(tmp_path / "x.npy", np.ones(3))
    assert_same(read_arrays(tmp_path).arrays, {"arr_0": np.ones(3)})


def test_of_two_bundles_the_one_named_by_checkpoint_is_read(tmp_path):
    for step in (1, 2):
        write_arrays(tmp_path / f"model.ckpt-{step}.index", {"step": np.array(step)})
    with pytest.raises(LoadError, match="name the one to read"):
        read_arrays(tmp_path)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-1"\n')
    assert_same(read_arrays(tmp_path).arrays, {"step": np.array(1)})
    save_safetensors(tmp_path / "x.safetensors", {})
    with pytest.raises(LoadError, match="name the one to read"):
        read_arrays(tmp_path)


def test_thousands_of_shards_are_refused(tmp_path):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {str(i): f"{i}.safetensors" for i in range(1001)}}))
    with pytest.raises(LoadError, match="weight_map: names 1001 files"):
        read_arrays(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LoadError, match="not a regular file"):
        read_arrays(tmp_path / "pipe")

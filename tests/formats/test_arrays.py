"""Every format is recognized by its content, and other kinds of files are named."""

import gzip
import io
import itertools
import json
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tinygrad_llm.formats import read_arrays, save_npz, save_safetensors, write_tensorbundle
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

SAVE = {"safetensors": save_safetensors, "npz": save_npz, "tensorbundle": write_tensorbundle}


def save(path, kind, arrays=NAMED):
    """Write a file of a kind; return its path."""
    SAVE[kind](path, arrays)
    return path.with_name(path.name + ".index") if kind == "tensorbundle" else path


@pytest.mark.parametrize("kind", SAVE)
def test_every_format_is_recognized_by_its_content(tmp_path, kind):
    path = save(tmp_path / "pytorch_model.bin", kind)
    if kind != "tensorbundle":
        for name in ("data", "x.npy", "x.index"):
            found = read_arrays(path.rename(tmp_path / name))
            path = tmp_path / name
            assert_same(found.arrays, NAMED)
    for place in (path, str(path)):
        found = read_arrays(place)
        assert_same(found.arrays, NAMED)
        assert (found.format, list(found.metadata)) == (kind, ["sha256"] if kind == "safetensors" else [])


def test_an_npy_file_has_one_array(tmp_path):
    np.save(tmp_path / "wte.npy", NAMED["model/wte"])
    for place in (tmp_path / "wte.npy", tmp_path):
        found = read_arrays(place)
        assert_same(found.arrays, {"arr_0": NAMED["model/wte"]})
        assert found.format == "npy"


def test_an_empty_npz_has_no_arrays(tmp_path):
    np.savez(tmp_path / "x.npz")
    assert read_arrays(tmp_path / "x.npz").arrays == {}


def test_a_tensorbundle_is_found_by_its_prefix(tmp_path):
    save(tmp_path / "model.ckpt", "tensorbundle")
    assert_same(read_arrays(tmp_path / "model.ckpt").arrays, NAMED)


def test_metadata_comes_along(tmp_path):
    save_safetensors(tmp_path / "x.safetensors", NAMED, {"k": "v"})
    assert read_arrays(tmp_path / "x.safetensors").metadata["k"] == "v"


@pytest.mark.parametrize("kind", SAVE)
def test_half_precision_becomes_float32(tmp_path, kind):
    half = np.array([1.5, -(2.0**-24), np.inf, np.nan], np.float16)
    path = save(tmp_path / "x", kind, {"x": half, "y": np.zeros(2)})
    assert_same(read_arrays(path).arrays, {"x": half.astype(np.float32), "y": np.zeros(2)})


# Folders


def test_a_folder_as_the_hub_and_openai_fill_it(tmp_path):
    save_safetensors(tmp_path / "model.safetensors", NAMED)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(1))
    (tmp_path / "config.json").write_text("{}")
    assert read_arrays(tmp_path).format == "safetensors"
    (tmp_path / "model.safetensors").unlink()
    write_tensorbundle(tmp_path / "model.ckpt", NAMED)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt"')
    assert read_arrays(tmp_path).format == "tensorbundle"


def test_folders_without_a_single_answer(tmp_path, monkeypatch):
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
    monkeypatch.setattr(Path, "glob", lambda *given, glob=Path.glob: sorted(glob(*given), reverse=True))
    save_safetensors(tmp_path / "c.safetensors", NAMED)
    with pytest.raises(LoadError, match=r"holds \['a.safetensors', 'c.safetensors', 'b.npz'\]: name the one"):
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


def test_an_index_of_shards_is_read_as_one_file(sharded):
    path = sharded()
    for place in (path, path.parent):
        found = read_arrays(place)
        assert_same(found.arrays, NAMED)
        assert found.format == "safetensors"
        assert found.metadata.keys() - {"sha256"} == {"format", "model-1.safetensors", "model-2.safetensors"}


def test_a_shard_in_another_place_is_refused(sharded, for_each):
    def check(shard):
        words = r"index\.json: weight_map: .* must be a \.safetensors file of the same folder"
        with pytest.raises(LoadError, match=words):
            read_arrays(sharded(step=shard))

    shards = ["../x.safetensors", "/x.safetensors", "a/x.safetensors", "..\\x.safetensors", "C:x.safetensors", "..", "",
              "pytorch_model-00001-of-00002.bin", "a\0.safetensors", ".safetensors", "x.safetensors\n"]  # fmt: skip
    for_each(shards, check)


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
    "empty file": (b"", "an empty file"),
    "seven bytes": (b"\2\0\0\0\0\0\0", "unknown"),
    "a pickle": (pickle.dumps(np.zeros(100)), "a pickle: it can run code"),
    "a pickle of protocol 2": (pickle.dumps({"a": 1}, 2), "a pickle: it can run code"),
    "a PyTorch zip": (archive(model__data__0=b"1234", **{"model__data.pkl": pickle.dumps(1)}), "PyTorch|not end in"),
    "a PyTorch zip that begins with its pickle": (archive(**{"a__data.pkl": pickle.dumps(1)}), "a pickle.*PyTorch"),
    "a zip of other things": (archive(**{"a.txt": b"a"}), r"'a\.txt': .*not an \.npz file"),
    "an HTML error page": (b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>", "an HTML or XML page"),
    "HTML after blanks": (b"\n \t<html>", "an HTML or XML page"),
    "XML after a mark": (b"\xef\xbb\xbf<?xml version='1.0'?><Error/>", "an HTML or XML page"),
    "a git-LFS pointer": (LFS, "a git-LFS pointer, not the file itself: fetch it with `git lfs pull`"),
    "gzip": (gzip.compress(b"text"), "a compressed file"),
    "tar": (tar(), "a tar archive"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file"),
    "GGUF": (b"GGUF\3\0\0\0" + bytes(100), "a GGUF file"),
    "TensorFlow Lite": (b"\x1c\0\0\0TFL3" + bytes(100), "a TensorFlow Lite model"),
    "ONNX": (b"\x08\x08\x12\x07pytorch\x1a\x042.1.0" + bytes(100), "an ONNX model"),
    "a JSON config": (b'{"n_layer": 12}', "JSON without a weight_map"),
    "broken JSON": (b'{"weight_map": ', "JSON: "),
    "JSON with a duplicate key": (b'{"weight_map": {}, "weight_map": {}}', "JSON: the key 'weight_map' appears"),
    "JSON nested 100,000 deep": (b'{"weight_map":' + b"[" * 100_000, "JSON: nested too deeply"),
    "a list in JSON": (b"[1, 2]", "text, it begins with"),
    "text": ("Gewichte für später".encode(), "text, it begins with 'Gewichte für später'"),
    "text cut within a letter": (("x" + "ü" * 300).encode(), "text"),
    "a truncated npy": (b"\x93NUMPY", "version"),
    "a truncated npz": (archive(**{"a.npy": b"x"})[:-1], "damaged zip"),
    "zeros": (bytes(1000), "unknown, it begins with b'"),
    "a bundle's magic on nothing": (bytes(8) + bytes.fromhex("57fb808b247547db"), "unknown"),
}


def test_another_kind_of_file_is_named(tmp_path, for_each):
    def check(case):
        kind, name = case
        content, message = OTHERS[kind]
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(LoadError, match=rf"^{path}: .*({message})") as caught:
            read_arrays(path)
        assert len(str(caught.value).splitlines()) == 1
        assert len(str(caught.value)) < 1000

    for_each(itertools.product(OTHERS, ["file", "model.npz", "pytorch_model.bin"]), check)


def test_a_damaged_safetensors_file_is_recognized_by_its_name(tmp_path):
    path = tmp_path / "x.safetensors"
    for content, message in [
        (b"\2\0\0\0\0\0\0", "header length: needs 8 bytes"),
        (struct.pack("<Q", 2**63) + b"{}", "header length: "),
        (struct.pack("<Q", 2) + b"[]", "header: must be a JSON object"),
    ]:
        path.write_bytes(content)
        with pytest.raises(LoadError, match=rf"x\.safetensors: {message}"):
            read_arrays(path)


def test_the_data_of_a_bundle_is_not_its_index(tmp_path):
    write_tensorbundle(tmp_path / "model.ckpt", {"x": np.full(100, 1e-9)})
    with pytest.raises(LoadError, match=r"data-00000-of-00001: the data of a TensorBundle: read its \.index"):
        read_arrays(tmp_path / "model.ckpt.data-00000-of-00001")


def test_a_missing_file_is_the_usual_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        read_arrays(tmp_path / "none")


def test_the_checkpoint_file_decides_which_of_two_bundles_is_read(tmp_path):
    for step in (1, 2):
        write_tensorbundle(tmp_path / f"model.ckpt-{step}", {"step": np.array(step)})
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

"""What all readers of files share: none waits for a pipe, or dies of memory; JSON of strangers."""

import os

import numpy as np
import pytest

from tinygrad_llm.formats import (
    Checkpoints,
    DamagedCheckpointWarning,
    load_checkpoint,
    load_npy,
    load_npz,
    load_safetensors,
    read_arrays,
    read_tensorbundle,
    save_checkpoint,
    save_npz,
    save_safetensors,
    verify_tensorbundle,
    write_tensorbundle,
)
from tinygrad_llm.storage.files import LoadError, open_regular, parse_json

X = {"x": np.arange(6, dtype=np.float32)}
DATA = "m.data-00000-of-00001"
INDEX = '{"weight_map": {"x": "x.safetensors"}}'


def bundle_without(folder, missing):
    write_tensorbundle(folder / "m", X)
    (folder / missing).unlink()
    return folder / missing


def shard(folder):
    (folder / "i.json").write_text(INDEX)
    return folder / "x.safetensors"


# reader, what is made for it, which gives the path where the pipe comes
PIPES = {
    "open_regular": (lambda folder: open_regular(folder / "x"), lambda folder: folder / "x"),
    "safetensors": (lambda folder: load_safetensors(folder / "x"), lambda folder: folder / "x"),
    "mapped": (lambda folder: load_safetensors(folder / "x", mmap=True), lambda folder: folder / "x"),
    "checkpoint": (lambda folder: load_checkpoint(folder / "x"), lambda folder: folder / "x"),
    "npz": (lambda folder: load_npz(folder / "x"), lambda folder: folder / "x"),
    "npy": (lambda folder: load_npy(folder / "x"), lambda folder: folder / "x"),
    "any": (lambda folder: read_arrays(folder / "x"), lambda folder: folder / "x"),
    "index": (lambda folder: read_tensorbundle(folder / "m.index"), lambda folder: bundle_without(folder, "m.index")),
    "prefix": (lambda folder: read_tensorbundle(folder / "m"), lambda folder: bundle_without(folder, "m.index")),
    "data": (lambda folder: read_tensorbundle(folder / "m"), lambda folder: bundle_without(folder, DATA)),
    "verified": (lambda folder: verify_tensorbundle(folder / "m"), lambda folder: bundle_without(folder, DATA)),
    "shard": (lambda folder: read_arrays(folder / "i.json"), shard),
    "folder": (read_arrays, lambda folder: folder / "x.safetensors"),
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
@pytest.mark.parametrize(("read", "prepare"), PIPES.values(), ids=PIPES)
def test_a_pipe_is_not_waited_for(tmp_path, read, prepare):
    os.mkfifo(prepare(tmp_path))
    with pytest.raises(LoadError, match=str(tmp_path)):
        read(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_a_pipe_among_checkpoints_is_passed_over(tmp_path):
    Checkpoints(tmp_path).save(1, X)
    os.mkfifo(tmp_path / "step-00000002.ckpt.safetensors")
    with pytest.warns(DamagedCheckpointWarning, match="not a regular file"):
        assert Checkpoints(tmp_path).load_latest()[1]["step"] == 1
    Checkpoints(tmp_path).best()


def test_a_missing_file_and_a_folder_are_the_usual_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        open_regular(tmp_path / "none")
    with pytest.raises(OSError, match=tmp_path.name):
        open_regular(tmp_path)


def no_memory(*_):
    raise MemoryError


@pytest.mark.parametrize(
    ("save", "load", "tensor"),
    [
        (save_safetensors, load_safetensors, "tensor 'x'"),
        (save_checkpoint, load_checkpoint, "tensor 'x'"),
        (save_npz, load_npz, "member 'x.npy'"),
        (lambda path, arrays: np.save(open_new(path), arrays["x"]), load_npy, ""),
        (write_tensorbundle, read_tensorbundle, "tensor 'x'"),
    ],
    ids=["safetensors", "checkpoint", "npz", "npy", "tensorbundle"],
)
def test_an_array_beyond_the_memory_is_named_with_its_size(tmp_path, monkeypatch, save, load, tensor):
    save(tmp_path / "file", X)
    with monkeypatch.context() as patch:
        patch.setattr(np, "empty", no_memory)
        with pytest.raises(LoadError, match=rf"file.*{tensor}.*24 bytes do not fit into memory"):
            load(tmp_path / "file")


def open_new(path):
    """Under its own name: `numpy.save` would add one."""
    path.with_suffix(".npy").symlink_to(path)
    return path.with_suffix(".npy")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1." + "1" * 1000, "a number of 1002 digits"),
        ("1e999", "1e999 is beyond float64"),
        ("-1e400", "beyond float64"),
        ("9" * 21, "an integer of 21 digits"),
        ("NaN", "NaN is not JSON"),
        ('{"a": 1, "a": 2}', "'a' appears twice"),
    ],
)
def test_json_that_other_readers_would_differ_on(text, message):
    with pytest.raises(LoadError, match=rf"^here: .*{message}"):
        parse_json("here", f"[{text}]".encode())


@pytest.mark.parametrize("number", [1.7976931348623157e308, -2.2250738585072014e-308, 5e-324, 0.1, -0.0])
def test_every_float64_is_read(number):
    assert parse_json("here", repr(number).encode()) == number

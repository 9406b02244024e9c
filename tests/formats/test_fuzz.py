"""Thousands of damaged files: each loads, or is refused in the package's own words, in bounded memory."""

import contextlib
import functools
import io
import itertools
import json
import random
import struct
import tempfile
import zipfile

import numpy as np
import pytest

from tinygrad_llm.formats import (
    load_checkpoint,
    load_safetensors,
    read_tensorbundle,
    save_checkpoint,
    save_safetensors,
    write_tensorbundle,
)
from tinygrad_llm.formats.arrays import read_arrays
from tinygrad_llm.formats.npz import load_npy, load_npz, save_npz
from tinygrad_llm.formats.table import pack_table, read_table
from tinygrad_llm.storage.files import LoadError

NAMED = {
    "wte": np.arange(12, dtype=np.float32).reshape(4, 3),
    "h/0/b": np.zeros(0, np.float16),
    "mask": np.array([[True, False]]),
    "step": np.array(3),
}
LENGTHS = [0, 1, 7, 8, 255, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63, 2**64 - 1]
WORDS = [b"9" * 400, b"-1", b"(", b"[" * 200, b"{" * 50, b"'", b'"', b",", b"NaN", b"1e999", b"True", b"null", b"../",
         b"\0", b"\xff", b"\xed\xa0\x80", b"|O", b"PK\1\2", b"PK\5\6", b"\x93NUMPY", b"}", b"]", b":"]  # fmt: skip


def mutate(rng, whole, others):
    """One to three changes: cut, flip bits, put in lengths and words, take pieces of another file or of itself."""
    data = bytearray(whole)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(8)
        if kind == 0:
            del data[at:]
        elif kind == 1 and data:
            for _ in range(rng.randint(1, 8)):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif kind == 2:  # a length, of any width
            number = rng.choice([*LENGTHS, len(data), len(data) - 8, rng.randrange(2 * len(data) + 1)])
            field = struct.pack("<Q", number % 2**64)[: rng.choice([1, 2, 4, 8])]
            data[at : at + len(field)] = field
        elif kind == 3:  # a word, over others or between
            word = rng.choice(WORDS)
            data[at : at + rng.choice([0, len(word)])] = word
        elif kind == 4:  # a piece of another, over its own or between
            other = rng.choice(others)
            begin = rng.randrange(len(other))
            piece = other[begin : begin + rng.randint(1, 100)]
            data[at : at + rng.choice([0, len(piece)])] = piece
        elif kind == 5:  # a spliced header
            other = rng.choice(others)
            data[:at] = other[: rng.randrange(len(other))]
        elif kind == 6:
            del data[at : at + rng.randint(1, 20)]
        else:  # a digit
            digits = [place for place, byte in enumerate(data) if 0x30 <= byte < 0x3A]
            if digits:
                data[rng.choice(digits)] = 0x30 + rng.randrange(10)
    return bytes(data)


def written(tmp_path, save, *args):
    path = tmp_path / "good"
    save(path, *args)
    return path.read_bytes()


def safetensors(tmp_path):
    """Good files, as seeds and as donors."""
    return [
        written(tmp_path, save_safetensors, NAMED, {"format": "pt"}),
        written(tmp_path, save_safetensors, {f"h.{i}.b": np.ones(2, np.int8) for i in range(5)}),
    ]


def npy(array, version=(1, 0)):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version)
    return file.getvalue()


def npys(tmp_path):
    """Good files, as seeds and as donors."""
    return [*(npy(array) for array in NAMED.values()), npy(np.ones((2, 3), ">f4", order="F"), (2, 0))]


def npzs(tmp_path):
    """Good files, as seeds and as donors."""
    file = io.BytesIO()
    np.savez_compressed(file, a=np.zeros(50), b=np.arange(3))
    return [written(tmp_path, save_npz, NAMED), file.getvalue(), written(tmp_path, save_npz, {"b": np.ones(1)})]


def mutate_inside(rng, whole, others):
    """A damaged archive, or a damaged array in a good archive, which no checksum stops."""
    if not whole.startswith(b"\x93NUMPY"):
        return mutate(rng, whole, others)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
        archive.writestr("x.npy", mutate(rng, whole, others))
    return file.getvalue()


def checkpoints(tmp_path):
    """Good files, as seeds and as donors."""
    return [
        written(tmp_path, save_checkpoint, NAMED, {"step": 3, "losses": [1.5, None], "config": {"name": "é"}}),
        written(tmp_path, save_checkpoint, {"x": np.ones(2)}),
    ]


def shard_indices(tmp_path):
    """Good files, as seeds and as donors, next to the shards they name."""
    for shard, names in {"a": ["wte", "mask"], "b": ["step", "h/0/b"]}.items():
        save_safetensors(tmp_path / f"{shard}.safetensors", {name: NAMED[name] for name in names})
    both = {"wte": "a.safetensors", "mask": "a.safetensors", "step": "b.safetensors", "h/0/b": "b.safetensors"}
    one = {"wte": "a.safetensors", "mask": "a.safetensors"}
    return [
        json.dumps({"metadata": {"total_size": 59}, "weight_map": both}, indent=2).encode(),
        json.dumps({"weight_map": one}).encode(),
    ]


def bundles(tmp_path):
    """Good indices, as seeds and as donors, next to their data."""
    write_tensorbundle(tmp_path / "file", NAMED)
    return [(tmp_path / "file.index").read_bytes()]


@functools.cache
def pairs_of(index):
    with tempfile.NamedTemporaryFile() as file:
        file.write(index)
        file.flush()
        return list(read_table(file.name))


def mutate_under_crc(rng, whole, others):
    """A damaged index, or one with right CRCs in which a value is damaged."""
    if rng.randrange(4) == 0:
        return mutate(rng, whole, others)
    pairs = list(pairs_of(whole))
    i = rng.randrange(len(pairs))
    pairs[i] = (pairs[i][0], mutate(rng, pairs[i][1], others))
    return pack_table(pairs)


# reader, good files, how they are damaged
FUZZED = {
    "safetensors": (load_safetensors, safetensors, mutate),
    "safetensors mapped": (lambda path: load_safetensors(path, mmap=True), safetensors, mutate),
    "npy": (load_npy, npys, mutate),
    "npz": (load_npz, lambda folder: npzs(folder) + npys(folder), mutate_inside),
    "checkpoint": (load_checkpoint, checkpoints, mutate),
    "shard index": (read_arrays, shard_indices, mutate),
    "tensorbundle": (read_tensorbundle, bundles, mutate_under_crc),
    "any": (
        read_arrays,
        lambda folder: safetensors(folder) + npys(folder) + npzs(folder) + checkpoints(folder) + 3 * bundles(folder),
        mutate,
    ),
}


def fuzz(tmp_path, peak_memory, fuzzed, count, seed):
    read, good_files, damage = fuzzed
    rng = random.Random(seed)
    good = good_files(tmp_path)
    path = tmp_path / "file.index"  # always the same: pathlib keeps every name, in a table that grows by megabytes
    refused = None

    def call():
        nonlocal refused
        refused = None
        try:
            read(path)
        except LoadError as error:
            refused = str(error)

    loaded = 0
    for number in range(count):
        content = damage(rng, rng.choice(good), good)
        path.unlink(missing_ok=True)  # to truncate it would wait for the disk
        path.write_bytes(content)
        limit = 200_000 + 50 * len(content)  # zipfile searches 64 kB at the end of a file; deflate packs a lot
        assert peak_memory(call, limit) < limit, f"file {number}"
        loaded += refused is None
        if refused is not None:
            assert str(path.with_suffix("")) in refused or ".safetensors: " in refused  # a shard
            assert len(refused.splitlines()) == 1
            assert len(refused) < 2000
    assert 0 < loaded < count / 2  # neither all junk nor hardly touched


@pytest.mark.parametrize("reader", FUZZED)
def test_300_damaged_files(tmp_path, peak_memory, reader):
    fuzz(tmp_path, peak_memory, FUZZED[reader], 300, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("reader", FUZZED)
def test_5000_damaged_files(tmp_path, peak_memory, reader):
    fuzz(tmp_path, peak_memory, FUZZED[reader], 5000, seed=2)


@pytest.mark.parametrize("every", [1, 100], ids=["each", "now and then"])
def test_memory_that_a_reader_takes_for_each_file_is_seen(tmp_path, peak_memory, every):
    """A reader that allocates 2 MB each time is caught; one that does so for every 100th file is not."""
    reads = itertools.count(1)

    def read(path):
        if next(reads) % every == 0:
            bytearray(2_000_000)
        return load_safetensors(path)

    with pytest.raises(AssertionError, match="file 0") if every == 1 else contextlib.nullcontext():
        fuzz(tmp_path, peak_memory, (read, safetensors, mutate), 300, seed=1)

"""Named arrays from a file of any of these formats, which is recognized by its content and not by its name."""

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygrad_llm.formats.npz import MAGIC, PICKLE, load_npy, load_npz
from tinygrad_llm.formats.safetensors import load_safetensors
from tinygrad_llm.formats.table import MAGIC as TABLE_MAGIC
from tinygrad_llm.formats.tensorbundle import find_prefix, read_tensorbundle
from tinygrad_llm.storage.files import LoadError, disguise, in_memory, is_text, open_regular, parse_json, show

_READS = "safetensors, .npz, .npy and TensorFlow's .index are read"
_MAX_JSON = 10_000_000
_MAX_SHARDS = 1000  # of a safetensors model; each is a file to open

# Files that people download instead of weights, or next to them, by their first bytes.
_KNOWN = [
    (rb"\x80[\x02-\x05]", f"{PICKLE} (pytorch_model.bin was often one)"),
    (rb"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras saves (tf_model.h5)"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ\0|\x28\xb5\x2f\xfd|7z\xbc\xaf", "a compressed file: unpack it first"),
    (rb".{257}ustar", "a tar archive: unpack it first"),
    (rb"GGUF", "a GGUF file, as llama.cpp uses"),
    (rb"....TFL3", "a TensorFlow Lite model"),
    (rb"\x08[\x01-\x20](\x12.[a-zA-Z]|:)", "an ONNX model"),
]


@dataclasses.dataclass(frozen=True)
class Arrays:
    """The result of `read_arrays`: arrays by name, "safetensors", "npz", "npy" or "tensorbundle", and the metadata."""

    arrays: dict[str, NDArray[Any]]
    format: str
    metadata: dict[str, str]


def read_arrays(path: str | os.PathLike[str]) -> Arrays:
    """Read a file of named arrays in whatever format it is; or the only such file of a folder.

    A safetensors index (`model.safetensors.index.json`) stands for all the files it lists, a TensorBundle's
    prefix (`model.ckpt`) for its `.index`. The array of an `.npy` file is called `arr_0`, NumPy's name for an array
    without one. Half precision, bfloat16 and float16, becomes float32; all others keep their dtype.

    Raises:   LoadError: the file is damaged, or is something else, which the message names.
              OSError: the file is missing or cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        path = _in_folder(path)
    elif not path.exists() and (index := path.with_name(path.name + ".index")).is_file():
        path = index
    kind = _recognize(path)
    metadata: dict[str, str] = {}
    if kind == "safetensors":
        arrays, metadata = load_safetensors(path)
    elif kind == "json":
        kind = "safetensors"
        arrays, metadata = _read_shards(path)
    elif kind == "npz":
        arrays = load_npz(path)
    elif kind == "npy":
        arrays = {"arr_0": load_npy(path)}
    else:
        arrays = read_tensorbundle(path)
    for name, array in arrays.items():  # one by one, so that the narrow ones are freed on the way
        if array.dtype == np.float16:
            with in_memory(f"{path}: array {show(name)}", 2 * array.nbytes):
                arrays[name] = array.astype(np.float32)
    return Arrays(arrays, kind, metadata)


def _in_folder(folder: Path) -> Path:
    """Return the only file of arrays in a folder."""
    indices = sorted(folder.glob("*.safetensors.index.json"))
    found = indices or sorted(folder.glob("*.safetensors"))  # the files that an index lists are its parts
    bundles = sorted(folder.glob("*.index"))
    if len(bundles) > 1 and (folder / "checkpoint").is_file():
        bundles = [Path(find_prefix(str(folder)) + ".index")]  # the latest of them
    found += [*bundles, *sorted([*folder.glob("*.npz"), *folder.glob("*.npy")])]
    if len(found) == 1:
        return found[0]
    if found:
        raise LoadError(f"{folder}: holds {show([file.name for file in found])}: name the one to read")
    pickles = sorted(folder.glob("pytorch_model*.bin"))
    if pickles:
        raise LoadError(f"{folder}: holds only {pickles[0].name}, {PICKLE}")
    inside = sorted(file.name for file in folder.iterdir())
    raise LoadError(f"{folder}: holds {show(inside) if inside else 'nothing'}, no arrays: {_READS}")


def _recognize(path: Path) -> str:
    """Return the format of a file; "json" is an index of safetensors files.

    Raises:   LoadError: none of these formats; says what the file is.
    """
    with open_regular(path) as file:
        head = file.read(512)
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - 8))
        tail = file.read(8)

    # This comes first, because a header's length may look like the start of any other format.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**32:
        return "safetensors"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "npz"
    if head.startswith(MAGIC):
        return "npy"
    if size >= 48 and tail == TABLE_MAGIC:
        return "tensorbundle"
    if not head:
        raise LoadError(f"{path}: an empty file")
    if known := disguise(head):
        raise LoadError(f"{path}: {known}")
    for pattern, description in _KNOWN:
        if re.match(pattern, head, re.S):
            raise LoadError(f"{path}: {description}; {_READS}")
    if is_text(head):
        if head.lstrip().startswith(b"{"):
            return "json"
        raise LoadError(f"{path}: text, it begins with {show(head.decode(errors='replace')[:40])}; {_READS}")
    if path.suffix == ".safetensors":
        return "safetensors"  # its reader says which field is wrong
    if re.search(r"\.data-\d{5}-of-\d{5}$", path.name):
        raise LoadError(f"{path}: the data of a TensorBundle: read its .index")
    raise LoadError(f"{path}: unknown, it begins with {head[:16]!r}; {_READS}")


def _read_shards(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Return the arrays of all files that an index lists. Each file must hold exactly what the index says."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > _MAX_JSON:
            raise LoadError(f"{path}: JSON of {size} bytes, too long for an index of safetensors files")
        text = file.read(size)
    index = parse_json(f"{path}: JSON", text)
    shards = index.get("weight_map")
    if shards is None:
        raise LoadError(f"{path}: JSON without a weight_map, so not an index of safetensors files; {_READS}")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise LoadError(f"{path}: weight_map: must map names to files")

    files = sorted(set(shards.values()))
    if len(files) > _MAX_SHARDS:
        raise LoadError(f"{path}: weight_map: names {len(files)} files, more than the {_MAX_SHARDS} accepted")
    for shard in files:
        if not re.fullmatch(r"[^/\\:\0]+\.safetensors", shard):
            raise LoadError(f"{path}: weight_map: {show(shard)} must be a .safetensors file of the same folder")
    arrays: dict[str, NDArray[Any]] = {}
    metadata: dict[str, str] = {}
    for shard in files:
        place = os.path.join(path.parent, shard)  # pathlib would keep every name, which the file chooses, in a table
        if not os.path.isfile(place):
            raise LoadError(f"{path}: weight_map: {show(shard)} is missing next to it")
        held, more = load_safetensors(place)
        wrong = {name for name, file in shards.items() if file == shard} ^ set(held)
        if wrong:
            raise LoadError(f"{path}: weight_map: {show(shard)} holds more or less than it says: {show(sorted(wrong))}")
        arrays |= held
        metadata |= more
    return arrays, metadata

"""Downloads of the four GPT-2s: their addresses, how each file is verified, and the folder they go to.

A file gets its name only when it is complete and verified: by its SHA-256 where that is known, else by its contents:

    model.ckpt.data-…     the CRC of every tensor in the index, which has a CRC itself
    model.ckpt.index      the names, shapes and dtypes of all tensors
    model.safetensors     the same, in a header that accounts for every byte; no NaN or infinity
    all others            the statements that this model's file must have; and a SHA-256 that the server states
"""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_llm.formats import load_safetensors
from tinygrad_llm.formats.tensorbundle import read_index, verify_tensorbundle
from tinygrad_llm.kernels import Array
from tinygrad_llm.storage.files import LoadError, parse_json
from tinygrad_llm.tokenizer import Tokenizer
from tinygrad_llm.weights.collect import Fetched, File, collect, mirror_url
from tinygrad_llm.weights.find import CONFIG, DATA, HPARAMS, INDEX, PUBLISHED, WEIGHTS, cache_folder
from tinygrad_llm.weights.names import from_hparams, from_huggingface, recognize, to_ours
from tinygrad_llm.weights.tensors import check_tensors, drop_tied_head, not_finite

# The variable that names a mirror, and the address without one.
SERVERS = {
    "openai": ("TINYGRAD_LLM_OPENAI_URL", "https://openaipublic.blob.core.windows.net/gpt-2/models"),
    "huggingface": ("HF_ENDPOINT", "https://huggingface.co"),
}

_FLOAT32 = 1  # TensorFlow's number of the dtype

# Of OpenAI's 124M. The hash of the merges is also that of our data/gpt2/vocab.bpe.
_SHA256 = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    INDEX: "71916f763f9746f9b2a06b12d91996cf1084ae008d0424543d39391c5f2dc687",
    DATA: "2060c885360cc0cf41d7a6dbc4d24b5127aae20260c8b5ae521b5a6578407118",
}
_SIZES = {"vocab.bpe": 456_318, INDEX: 5_215}  # bytes


def model_url(name: str, source: str) -> str:
    """Return the URL, with a slash at its end, of the folder that holds the files of a model.

    Raises:   DownloadError: a variable names a mirror that is not an https or http URL.
    """
    path = PUBLISHED[name] if source == "openai" else f"openai-community/{name}/resolve/main"
    return f"{mirror_url(*SERVERS[source])}/{path}/"


def model_files(name: str, config: Any, source: str) -> list[File]:
    """Return the files of a model, each after those that its check needs."""
    weights = 4 * config.num_parameters
    if source == "huggingface":
        masks = 4 * config.n_layer * (config.block_size**2 + 1)  # the first files hold them as tensors
        return [
            File(CONFIG, 100_000, partial(_check_sizes, from_huggingface, config=config)),
            File("merges.txt", 2_000_000, partial(_check_merges, config=config)),
            File("vocab.json", 4_000_000, partial(_check_vocabulary, "merges.txt", config=config)),
            File(WEIGHTS, weights + masks + 1_000_000, partial(_check_safetensors, config=config)),
        ]
    files = [
        File(HPARAMS, 10_000, partial(_check_sizes, from_hparams, config=config)),
        File("checkpoint", 10_000, _check_checkpoint),
        File("vocab.bpe", 2_000_000, partial(_check_merges, config=config)),
        File("encoder.json", 4_000_000, partial(_check_vocabulary, "vocab.bpe", config=config)),
        File(INDEX, 200_000, partial(_check_index, config=config)),
        File(DATA, weights, _check_data, size=weights),
    ]
    if name != "gpt2":
        return files
    return [file._replace(sha256=_SHA256.get(file.name), size=_SIZES.get(file.name, file.size)) for file in files]


def download(
    name: str, config: Any, folder: str | Path | None = None, source: str = "openai", **options: Any
) -> list[Fetched]:
    """Fetch the missing files of a GPT-2 into a folder, and verify those that are there.

    Args:     config: the published sizes, a GPTConfig. folder: the cache's by default. source: "openai" or
              "huggingface". options: those of `collect`.
    Raises:   as `collect`.
    """
    folder = cache_folder(name) if folder is None else Path(folder)
    return collect(model_url(name, source), model_files(name, config, source), folder, SERVERS[source][0], **options)


# ---- the contents of the files -------------------------------------------------------------------------------------


def _check_sizes(read: Callable[[Any], dict[str, Any]], path: Path, beside: Path, config: Any) -> None:
    fields = parse_json(str(path), path.read_bytes())
    try:
        stated = read(fields)
    except (AttributeError, TypeError, ValueError) as error:
        raise LoadError(f"{path}: not the sizes of a GPT-2: {error}") from None
    missing = {"vocab_size", "block_size", "n_layer", "n_head", "n_embd"} - set(stated)
    wrong = sorted(missing | {name for name, value in stated.items() if value != getattr(config, name)})
    if wrong:
        raise LoadError(f"{path}: of another model: {', '.join(wrong)}")


def _check_checkpoint(path: Path, beside: Path) -> None:
    if b'model_checkpoint_path: "model.ckpt"' not in path.read_bytes():
        raise LoadError(f"{path}: does not name model.ckpt")


def _check_merges(path: Path, beside: Path, config: Any) -> None:
    if Tokenizer.from_merges_file(path).n_vocab != config.vocab_size:
        raise LoadError(f"{path}: not the merges of {config.vocab_size} tokens")


def _check_vocabulary(merges: str, path: Path, beside: Path, config: Any) -> None:
    if Tokenizer.from_gpt2_files(beside / merges, path).n_vocab != config.vocab_size:
        raise LoadError(f"{path}: not {config.vocab_size} tokens")


def _check_index(path: Path, beside: Path, config: Any) -> None:
    entries, shards = read_index(str(path))
    if shards != 1:
        raise LoadError(f"{path}: of another model: in {shards} shards")
    one = {entry.dtype: np.zeros((), np.float32 if entry.dtype == _FLOAT32 else np.int32) for entry in entries}
    _check_weights(path, {entry.name: np.broadcast_to(one[entry.dtype], entry.shape) for entry in entries}, config)


def _check_data(path: Path, beside: Path) -> None:
    """Check the CRC of each tensor, piece by piece: the whole model need not fit into memory."""
    index = path.with_name(INDEX)
    copied = index != beside / INDEX
    if copied:
        shutil.copyfile(beside / INDEX, index)
    try:
        verify_tensorbundle(index)
    finally:
        if copied:
            index.unlink()


def _check_safetensors(path: Path, beside: Path, config: Any) -> None:
    arrays, _ = load_safetensors(path, mmap=True)  # the header, which must account for every byte
    broken = not_finite(_check_weights(path, arrays, config))
    if broken:
        raise LoadError(f"{path}: NaN or infinity in {', '.join(broken)}")


def _check_weights(path: Path, arrays: dict[str, Array], config: Any) -> dict[str, Array]:
    """Check the names, shapes and dtypes of the tensors; return them under our names."""
    state = to_ours(arrays, recognize(arrays))
    drop_tied_head(state)
    check_tensors(path, "the model asked for", config, state)
    return state

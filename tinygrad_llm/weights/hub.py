"""Downloads of the four GPT-2s: their addresses, how each file is verified, and the folder they go to.

A file gets its name only when it is complete and verified: by its SHA-256 where that is known, else by its contents:

    model.ckpt.data-…     the CRC of every tensor in the index, which has a CRC itself
    model.ckpt.index      the names, shapes and dtypes of all tensors
    model.safetensors     the same, in a header that accounts for every byte; no NaN or infinity
    all others            the statements that this model's file must have; and a SHA-256 that the server states
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from tinygrad_llm.formats import load_safetensors
from tinygrad_llm.formats.tensorbundle import read_index, verify_tensorbundle
from tinygrad_llm.kernels import Array
from tinygrad_llm.storage.atomic import rename
from tinygrad_llm.storage.files import LoadError, parse_json
from tinygrad_llm.storage.lock import folder_lock
from tinygrad_llm.storage.text import one_line
from tinygrad_llm.tokenizer import Tokenizer
from tinygrad_llm.weights.connection import DownloadError, Unreachable
from tinygrad_llm.weights.fetch import fetch, finish, tidy
from tinygrad_llm.weights.find import CONFIG, DATA, HPARAMS, INDEX, PUBLISHED, WEIGHTS, cache_folder
from tinygrad_llm.weights.names import from_hparams, from_huggingface, recognize, to_ours
from tinygrad_llm.weights.tensors import check_tensors, drop_tied_head, not_finite

# The variable that names a mirror, and the address without one.
SERVERS = {
    "openai": ("TINYGRAD_LLM_OPENAI_URL", "https://openaipublic.blob.core.windows.net/gpt-2/models"),
    "huggingface": ("HF_ENDPOINT", "https://huggingface.co"),
}

_STAGING = ".download"  # the folder in a model's folder for files that are incomplete or not yet verified
_FLOAT32 = 1  # TensorFlow's number of the dtype

# Of OpenAI's 124M. The hash of the merges is also that of our data/gpt2/vocab.bpe.
_SHA256 = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    INDEX: "71916f763f9746f9b2a06b12d91996cf1084ae008d0424543d39391c5f2dc687",
    DATA: "2060c885360cc0cf41d7a6dbc4d24b5127aae20260c8b5ae521b5a6578407118",
}
_SIZES = {"vocab.bpe": 456_318, INDEX: 5_215}  # bytes

_WRONG = (ValueError, OverflowError, OSError)  # what a check of a damaged file may raise


class File(NamedTuple):
    """A file of a model: how large it may be, and how it is verified: by size and SHA-256 where known, or `check`."""

    name: str
    limit: int
    check: Callable[[Path, Path, Any], None]  # the file, the folder of those before it, the model's config
    size: int | None = None
    sha256: str | None = None


class Fetched(NamedTuple):
    """A file that is there: its bytes, whether it was fetched or there before, and "SHA-256" or "contents"."""

    name: str
    size: int
    fetched: bool
    verified: str


def model_url(name: str, source: str) -> str:
    """Return the URL, with a slash at its end, of the folder that holds the files of a model.

    Raises:   DownloadError: a variable names a mirror that is not an https or http URL.
    """
    variable, server = SERVERS[source]
    mirror = os.environ.get(variable)
    parts = urlsplit(mirror or server)
    if parts.scheme not in ("https", "http") or not parts.netloc or parts.query or parts.fragment:
        raise DownloadError(f"{variable}={mirror}: not the URL of a mirror, which begins with https://")
    path = PUBLISHED[name] if source == "openai" else f"openai-community/{name}/resolve/main"
    return f"{(mirror or server).rstrip('/')}/{path}/"


def model_files(name: str, config: Any, source: str) -> list[File]:
    """Return the files of a model, each after those that its check needs."""
    weights = 4 * config.num_parameters
    if source == "huggingface":
        masks = 4 * config.n_layer * (config.block_size**2 + 1)  # the first files hold them as tensors
        return [
            File(CONFIG, 100_000, partial(_check_sizes, from_huggingface)),
            File("merges.txt", 2_000_000, _check_merges),
            File("vocab.json", 4_000_000, partial(_check_vocabulary, "merges.txt")),
            File(WEIGHTS, weights + masks + 1_000_000, _check_safetensors),
        ]
    files = [
        File(HPARAMS, 10_000, partial(_check_sizes, from_hparams)),
        File("checkpoint", 10_000, _check_checkpoint),
        File("vocab.bpe", 2_000_000, _check_merges),
        File("encoder.json", 4_000_000, partial(_check_vocabulary, "vocab.bpe")),
        File(INDEX, 200_000, _check_index),
        File(DATA, weights, _check_data, size=weights),
    ]
    if name != "gpt2":
        return files
    return [file._replace(sha256=_SHA256.get(file.name), size=_SIZES.get(file.name, file.size)) for file in files]


def download(
    name: str,
    config: Any,
    folder: str | Path | None = None,
    source: str = "openai",
    *,
    overwrite: bool = False,
    report: Callable[[str, int, int | None], None] | None = None,
    **options: Any,
) -> list[Fetched]:
    """Fetch the missing files of a GPT-2 into a folder, and verify those that are there.

    Args:     config: the published sizes, a GPTConfig. folder: the cache's by default. source: "openai" or
              "huggingface". overwrite: replace files that are wrong. report: called with a file's name, its bytes so
              far, and of how many (or None). options: timeout, attempts, pause of `fetch`.
    Raises:   DownloadError: a file of the server, or one that is there, is not what it should be.
              Unreachable, a DownloadError: no connection; the message says what to try.
              OSError: the folder cannot be written to, or the disk is full.
    """
    url, files = model_url(name, source), model_files(name, config, source)
    folder = (cache_folder(name) if folder is None else Path(folder)).absolute()
    done = []
    with _alone(folder) as staging:
        for file in files:
            path, verified = folder / file.name, ""
            if os.path.lexists(path):
                try:
                    verified = _verify(file, path, folder, config)
                except _WRONG as error:
                    if not overwrite:
                        words = f"{_line(error)}: replace it with --overwrite, or choose another folder"
                        raise DownloadError(words) from None
            if fetched := not verified:
                tell = partial(report, file.name) if report else None
                try:
                    verified = _get(url, file, staging, folder, config, report=tell, **options)
                except Unreachable as error:
                    raise Unreachable(
                        f"{error}: try again later, through a proxy (HTTPS_PROXY) or from a mirror "
                        f"({SERVERS[source][0]}); or put {', '.join(file.name for file in files)} from {url} "
                        f"into {folder} yourself"
                    ) from None
            done.append(Fetched(file.name, path.stat().st_size, fetched, verified))
    return done


def _get(url: str, file: File, staging: Path, folder: Path, config: Any, **options: Any) -> str:
    """Fetch a file, verify it, and give it its name; return what was verified."""
    url, staged = url + file.name, staging / file.name
    if not staged.exists():  # else an earlier call ended just before the verification
        part = staging / f"{file.name}.part"
        try:
            fetch(url, part, limit=file.limit, size=file.size, **options)
        except LoadError:
            raise
        except ValueError as error:  # of Python's web client
            raise DownloadError(f"{url}: the server's answer makes no sense: {_line(error)}") from None
        finish(part, staged)
    try:
        verified = _verify(file, staged, folder, config)
    except _WRONG as error:
        staged.unlink()
        raise DownloadError(f"{url}: not what it should be: {_line(error)}") from None
    rename(staged, folder / file.name)
    return verified


def _verify(file: File, path: Path, beside: Path, config: Any) -> str:
    """Check a file by all that is known of it; return "SHA-256" or "contents".

    Raises:   ValueError, OverflowError: what is wrong with it.
              OSError: it, or a file that its check needs, cannot be read.
    """
    if not path.is_file():
        raise LoadError(f"{path}: not a file")
    size = path.stat().st_size
    if size > file.limit or (file.size is not None and size != file.size):
        raise LoadError(f"{path}: has {size} bytes, not {file.size or f'at most {file.limit}'}")
    if not file.sha256:
        file.check(path, beside, config)
        return "contents"
    with open(path, "rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != file.sha256:
            raise LoadError(f"{path}: its SHA-256 differs from the published one")
    return "SHA-256"


def _line(error: Exception) -> str:
    return one_line(error)[:2000]


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[Path]:
    """Create the folder, allow one download at a time into it, and yield its staging folder.

    Afterwards only files that can be continued stay in the staging folder. (Windows has no such lock. An open file
    cannot be replaced there, which has the same effect.)
    """
    staging = folder / _STAGING
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with folder_lock(folder) as taken:
        if taken is False:
            raise DownloadError(f"{folder}: another download into it is running: wait for it")
        try:
            staging.mkdir(exist_ok=True)
            (staging / INDEX).unlink(missing_ok=True)  # the copy that `_check_data` left when it was killed
            yield staging
        finally:
            for part in staging.glob("*.part"):
                tidy(part)
            with contextlib.suppress(OSError):  # it holds something to continue
                staging.rmdir()
                if made and not any(folder.iterdir()):
                    folder.rmdir()


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


def _check_checkpoint(path: Path, beside: Path, config: Any) -> None:
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


def _check_data(path: Path, beside: Path, config: Any) -> None:
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

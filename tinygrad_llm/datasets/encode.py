"""A text file of any size → a token file, on all cores, in bounded memory."""

import contextlib
import hashlib
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import DTypeLike

from tinygrad_llm.datasets import corpora
from tinygrad_llm.datasets.checks import DataError
from tinygrad_llm.datasets.corpora import read_stretches, uncut
from tinygrad_llm.datasets.encode_workers import in_order
from tinygrad_llm.datasets.tokens import DTYPES, TokenFile, capacity, check_dtype, new_token_file
from tinygrad_llm.runtime import cores
from tinygrad_llm.tokenizer import AnyTokenizer, Special, TokenizerError, encode_text, vocabulary_hash
from tinygrad_llm.tokenizer.files import Stretch, StrPath


def encode_file(
    tokenizer: AnyTokenizer,
    path: StrPath,
    out: StrPath,
    workers: int | None = None,
    dtype: DTypeLike | None = None,
    special: Special = "error",
    progress: Callable[[int, int], None] | None = None,
    overwrite: bool = False,
    keep_newlines: bool = False,
) -> TokenFile:
    """Write the ids of a UTF-8 file to a token file: the ids of `tokenizer.encode(text)`, in bounded memory.

    The text is cut where no token can cross, into stretches of about 2 MB. Other processes encode the stretches; this
    one writes the ids in order. The text is read as by `read_corpus`: without a byte order mark, and with the line ends
    of Windows as "\\n". `out` and `out` + ".json" appear when they are complete, or not at all.

    Worker processes start from nothing ("spawn"): a script that uses them must do its own work inside
    `if __name__ == "__main__":`.

    Args:     workers: processes; None: one per core, but no more than stretches; 1: only this process.
              dtype: uint16 or uint32; None: uint16 if it holds every id of the vocabulary.
              special: what a special token in the text becomes (see `tokenizer.special`).
              progress: called with (bytes done, bytes in total). overwrite: replace files that are already there.
              keep_newlines: leave line ends as they are.
    Raises:   DataError: the file is missing, empty or not UTF-8 (the byte is named), or it contains text that the
              tokenizer cannot encode, a special token that is not allowed, or 4 million characters without white
              space; `out` exists already or cannot be written; dtype cannot hold the ids; a worker died.
    """
    path, out = Path(path), Path(out)
    if special not in get_args(Special):
        raise ValueError(f'special must be "error", "allow" or "plain", got {special!r}')
    kind = _dtype_for(tokenizer, dtype)
    try:
        total = path.stat().st_size
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', error)}") from error
    workers = min(cores() if workers is None else workers, -(-total // corpora.STRETCH) or 1)
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")

    source = hashlib.sha256()
    count = read = 0
    stretches = read_stretches(path, uncut(tokenizer), keep_newlines)
    encoded = in_order(partial(_encode, tokenizer, special, kind, str(path)), stretches, workers)
    try:
        with new_token_file(out, overwrite) as (file, describe), contextlib.closing(encoded):
            for stretch, ids in encoded:
                file.write(ids)
                source.update(stretch.text.encode())
                count += len(ids) // kind.itemsize
                read = stretch.stop
                if progress is not None:
                    progress(read, max(total, read))
            if count == 0:
                raise DataError(f"{path}: the file is empty; give a file with text in it")
            if path.is_file() and read != total:
                raise DataError(f"{path}: changed while it was read ({total} bytes, then {read}): start again")
            hashes = {"tokenizer": vocabulary_hash(tokenizer), "source": source.hexdigest()}
            describe({"dtype": kind.name, "count": count, "n_vocab": tokenizer.n_vocab, **hashes})
    except TokenizerError as error:
        raise DataError(str(error)) from error
    except BrokenProcessPool as error:
        raise DataError(
            f"{path}: a worker process died: out of memory, or a script that does its work outside of "
            '`if __name__ == "__main__":`; workers=1 needs no processes'
        ) from error
    return TokenFile.open(out)


def _dtype_for(tokenizer: AnyTokenizer, dtype: DTypeLike | None) -> np.dtype[Any]:
    """Return the dtype that was asked for, or the smaller one that holds every id."""
    if dtype is None:
        return DTYPES["uint16" if tokenizer.n_vocab <= capacity(DTYPES["uint16"]) else "uint32"]
    kind = check_dtype(dtype)
    if tokenizer.n_vocab > capacity(kind):
        raise DataError(f"{kind.name} holds ids below {capacity(kind)}; {tokenizer.n_vocab} tokens need dtype uint32")
    return kind


def _encode(tokenizer: AnyTokenizer, special: Special, kind: np.dtype[Any], path: str, stretch: Stretch) -> bytes:
    """Return the ids of a stretch as the bytes of the token file; runs in a worker."""
    return np.array(encode_text(tokenizer, stretch.text, special, stretch.where(path), stretch.place), kind).tobytes()

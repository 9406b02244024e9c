"""A large text file → a file of its token ids, which is then read as if it were an array in memory.

`tokens.bin` is the ids alone: little-endian uint16 or uint32, one after the other, as other tools write and expect
them. What they are stands beside it, in `tokens.bin.json`:

{"format": "tinygrad_llm.tokens", "version": 1, "dtype": "uint16", "count": 338025, "n_vocab": 50257,
 "tokenizer": SHA-256 (see `vocabulary_hash`), "source": SHA-256 (see `corpus_hash`)}
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import reprlib
import signal
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path
from threading import Thread
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tinygrad_llm.datasets.windows import DataError, check_ids
from tinygrad_llm.runtime import cores
from tinygrad_llm.storage.atomic import atomic_write
from tinygrad_llm.tokenizer import AnyTokenizer, TokenizerError, files
from tinygrad_llm.tokenizer.files import StrPath

Special = Literal["error", "allow", "plain"]

STRETCH = 1 << 21  # bytes: a few tenths of a second of work, and all that a worker holds at a time
FORMAT, VERSION = "tinygrad_llm.tokens", 1
DTYPES: dict[str, np.dtype[Any]] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}
MAX_SIDECAR_BYTES = 1 << 16

# Pairs of ids: of how many the dtype is told; how few are too few; the same, where id 0 is white space.
_LOOKED_AT, _FEW, _LONG = 1 << 16, 9, 5000
_MEND_SPECIAL = (
    'allow it with special="allow" (--allow-special), or take it for plain text with special="plain" (--plain-special)'
)


class Stretch(NamedTuple):
    """A part of a text file: bytes `start` to `stop`, decoded."""

    start: int
    stop: int
    text: str


@dataclass(frozen=True, eq=False)
class TokenFile:
    """Token ids in a file, mapped into memory: only what is looked at is read.

    `ids` is (n,), read-only. What is None is not known: there was no `….json` beside the file. Ids are not compared
    with `n_vocab` here, since that would read them all.
    """

    path: Path
    ids: NDArray[Any]
    n_vocab: int | None = None
    tokenizer: str | None = None  # vocabulary_hash of the tokenizer
    source: str | None = None  # corpus_hash of the text

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def open(cls, path: StrPath, dtype: DTypeLike | None = None) -> TokenFile:
        """Open what `encode_file` wrote, or the raw ids of another tool.

        Args:     dtype: uint16 or uint32; needed where no `….json` stands beside the file.
        Raises:   DataError: whatever is wrong with the file or its description, after its path.
        """
        path = Path(path)
        try:
            if path.is_dir():
                raise DataError(f"{path}: is a folder; name a file of token ids")
            size = path.stat().st_size
            described = _read_sidecar(path)
            given = None if dtype is None else _dtype(dtype)
            if described is not None:
                kind = DTYPES[described["dtype"]]
                if given not in (None, kind):
                    raise DataError(f"{path}: its ids are {kind.name}, not {given}")
            elif given is not None:
                kind = given
            else:
                raise DataError(f"{path}: {_sidecar(path).name} is missing; say what it holds: dtype uint16 or uint32")
            if size == 0 or size % kind.itemsize:
                raise DataError(f"{path}: {size} bytes are no row of {kind.name} ids")
            if described is not None and size != described["count"] * kind.itemsize:
                raise DataError(
                    f"{path}: {size} bytes, but {described['count']} {kind.name} ids take "
                    f"{described['count'] * kind.itemsize}: it was cut off, or {_sidecar(path).name} is another file's"
                )
            ids = np.memmap(path, kind, mode="r")
        except OSError as error:
            raise DataError(f"{error.filename or path}: cannot be read: {error.strerror}") from error
        if described is None:
            return cls(path, ids)
        return cls(path, ids, described["n_vocab"], described["tokenizer"], described["source"])

    def check(self, tokenizer: AnyTokenizer) -> None:
        """Refuse ids that this tokenizer has not made; all of them are read.

        Raises:   DataError: the description names another tokenizer; an id is outside the vocabulary; the ids are
                  uint32, and were read as uint16.
        """
        own = vocabulary_hash(tokenizer)
        if self.tokenizer not in (None, own):
            raise DataError(
                f"{self.path}: its ids are of another tokenizer ({self.n_vocab} tokens, SHA-256 "
                f"{str(self.tokenizer)[:12]}…) than this one ({tokenizer.n_vocab} tokens, {own[:12]}…): name that one"
            )
        check_ids(self.ids, tokenizer.n_vocab, str(self.path))
        # The upper halves of small uint32 ids are 0. White space can be every second token, of lines of one character;
        # but an empty line among them would make it the others', so that it is not among both of a long text.
        lower, upper = (self.ids[start : 2 * _LOOKED_AT : 2] for start in (0, 1))
        white = tokenizer.decode([0]).isspace()
        if (
            self.ids.dtype == DTYPES["uint16"]
            and len(upper) >= (_LONG if white else _FEW)
            and not upper.any()
            and (not white or (lower.any() and not lower.all()))
        ):
            raise DataError(f"{self.path}: every second of its ids is 0: they are uint32, and not uint16")


def encode_file(
    tokenizer: AnyTokenizer,
    path: StrPath,
    out: StrPath,
    workers: int | None = None,
    dtype: DTypeLike | None = None,
    special: Special = "error",
    progress: Callable[[int, int], None] | None = None,
) -> TokenFile:
    """Write the ids of a UTF-8 file to a file of ids: those of `tokenizer.encode(text)`, in bounded memory.

    The text is cut before white space that follows something else, where no token can cross, into stretches of
    about 2 MB, which are encoded in processes of their own and written in order. A byte order mark at the
    beginning is left out, as in `load_corpus`. `out` and `out` + ".json" appear when they are whole, or not at all.

    Workers are started afresh ("spawn"): a script that asks for them must keep its own work below
    `if __name__ == "__main__":`.

    Args:     workers: processes; None: as many as there are cores, and stretches; 1: none but this one.
              dtype: uint16 or uint32; None: uint16 if it holds every id of the vocabulary.
              special: a special token in the text is an error, or its own id ("allow"), or plain text ("plain").
              progress: called with (bytes done, bytes in all).
    Raises:   DataError: the file is missing, empty, not UTF-8 (the byte is named) or holds what `tokenizer` cannot
              encode or must not; it has a word of more than 4 million characters; `out` exists already or cannot be
              written; dtype does not hold the ids; a worker died.
    """
    path, out = Path(path), Path(out)
    if special not in ("error", "allow", "plain"):
        raise ValueError(f'special is {special!r}; choose "error", "allow" or "plain"')
    kind = DTYPES["uint16" if tokenizer.n_vocab <= 1 << 16 else "uint32"] if dtype is None else _dtype(dtype)
    if tokenizer.n_vocab > _room(kind):
        raise DataError(f"{kind.name} holds ids below {_room(kind)}; {tokenizer.n_vocab} tokens need dtype uint32")
    _check_out(out)
    try:
        total = path.stat().st_size
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', error)}") from error
    workers = min(cores() if workers is None else workers, -(-total // STRETCH) or 1)
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")

    source = hashlib.sha256()
    count = read = 0

    def checked() -> Iterator[Stretch]:
        for stretch in read_stretches(path, tokenizer.special_tokens):
            if special == "error":
                refuse_special(tokenizer, stretch.text, str(path), stretch.start, _MEND_SPECIAL)
            source.update(stretch.text.encode())
            yield stretch

    described = done = False
    encoded = _in_order(partial(_encode, tokenizer, special, kind), checked(), path, workers)
    try:
        with atomic_write(out) as file, contextlib.closing(encoded):
            for stretch, ids in encoded:
                file.write(ids)
                count += len(ids) // kind.itemsize
                read = stretch.stop
                if progress is not None:
                    progress(stretch.stop, max(total, stretch.stop))
            if count == 0:
                raise DataError(f"{path}: the file is empty; give a text to encode")
            if path.is_file() and read != total:
                raise DataError(f"{path}: changed while it was read ({total} bytes, then {read}): start again")
            fields = {"dtype": kind.name, "count": count, "n_vocab": tokenizer.n_vocab}
            hashes = {"tokenizer": vocabulary_hash(tokenizer), "source": source.hexdigest()}
            with atomic_write(_sidecar(out)) as sidecar:
                sidecar.write(json.dumps({"format": FORMAT, "version": VERSION, **fields, **hashes}).encode() + b"\n")
            described = True
            if out.exists():  # since this began
                raise DataError(f"{out}: exists already; choose another name")
        done = True
    except BrokenProcessPool as error:
        raise DataError(
            f"{path}: a worker process died: out of memory, or a script that does its work outside of "
            '`if __name__ == "__main__":`; workers=1 needs no processes'
        ) from error
    except OSError as error:
        raise DataError(f"{out}: cannot be written: {error.strerror}") from error
    finally:
        if described and not done:  # our description must not stay without what it describes
            _sidecar(out).unlink(missing_ok=True)
    return TokenFile.open(out)


def read_stretches(path: StrPath, special_tokens: Collection[str] = ()) -> Iterator[Stretch]:
    """Yield a UTF-8 file in stretches of about 2 MB; no token and no special token is cut.

    A byte order mark at the beginning is left out.

    Raises:   DataError: the file cannot be read or is not UTF-8; a word of more than 4 million characters.
    """
    start = 0
    try:
        for text in files.read_stretches(path, special_tokens, STRETCH):
            stop = start + len(text.encode())
            if start == 0 and text.startswith("\ufeff"):
                text, start = text[1:], 3
            if text:
                yield Stretch(start, stop, text)
            start = stop
    except TokenizerError as error:
        raise DataError(str(error)) from error


def vocabulary_hash(tokenizer: AnyTokenizer) -> str:
    """SHA-256 of what every id stands for: each token's length and bytes in order, then the special tokens."""
    digest = hashlib.sha256()
    for token_id in range(tokenizer.n_vocab):
        token = tokenizer.decode_bytes([token_id])
        digest.update(len(token).to_bytes(8, "little") + token)
    digest.update(json.dumps(tokenizer.special_tokens).encode())
    return digest.hexdigest()


def refuse_special(
    tokenizer: AnyTokenizer,
    text: str,
    where: str,
    start: int = 0,
    mend: str = "add --allow-special to mean it as such",
) -> None:
    """Refuse a special token in a text: whoever wrote it may not have meant it.

    Args:     where: what errors call the text. start: its first byte, if it is a part of something. mend: what can be
              done about it.
    Raises:   DataError: there is one; its place is named.
    """
    for token in tokenizer.special_tokens:
        before, found, _ = text.partition(token)
        if found:
            place = start + len(before.encode(errors="surrogatepass"))
            raise DataError(f"{where}: holds the special token {token!r} at byte {place}: {mend}")


def _encode(tokenizer: AnyTokenizer, special: Special, kind: np.dtype[Any], text: str) -> bytes:
    """The ids of a stretch, as they stand in the file."""
    allowed: Literal["all"] | frozenset[str] = "all" if special == "allow" else frozenset()
    return np.array(tokenizer.encode(text, allowed_special=allowed, disallowed_special=()), kind).tobytes()


# A worker process is told its job once, through the queue of tasks; `_gate` opens when each of them has been told.
# As initargs a large tokenizer would block this process for ever, should a worker die before it has read it.
_job: Callable[[str], bytes]
_gate: Barrier


def _start_worker(gate: Barrier) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the first one ends all
    Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    global _gate
    _gate = gate


def _end_with(parent: Any) -> None:
    """End when the parent does, even if it was killed: nobody would be left to take the results."""
    parent.join()
    os._exit(1)


def _learn(job: Callable[[str], bytes]) -> None:
    global _job
    _job = job
    _gate.wait()


def _work(text: str) -> bytes:
    return _job(text)


def _in_order(
    job: Callable[[str], bytes], stretches: Iterator[Stretch], path: Path, workers: int
) -> Generator[tuple[Stretch, bytes], None, None]:
    """Yield each stretch with its ids; at most two stretches a worker are read ahead."""
    if workers == 1:
        for stretch in stretches:
            with _named(path, stretch):
                ids = job(stretch.text)
            yield stretch, ids
        return
    spawn = multiprocessing.get_context("spawn")  # a fork would copy the locks of BLAS threads, taken
    gate = spawn.Barrier(workers)
    pool = ProcessPoolExecutor(workers, spawn, _start_worker, (gate,))
    waiting: deque[tuple[Stretch, Future[bytes]]] = deque()
    try:
        for _ in range(workers):
            pool.submit(_learn, job)
        for stretch in stretches:
            waiting.append((stretch, pool.submit(_work, stretch.text)))
            if len(waiting) == 2 * workers:
                yield _result(path, *waiting.popleft())
        while waiting:
            yield _result(path, *waiting.popleft())
    finally:
        gate.abort()  # nobody waits for a worker that will not come
        pool.shutdown(cancel_futures=True)


def _result(path: Path, stretch: Stretch, future: Future[bytes]) -> tuple[Stretch, bytes]:
    with _named(path, stretch):
        return stretch, future.result()


@contextlib.contextmanager
def _named(path: Path, stretch: Stretch) -> Iterator[None]:
    """Say of an error in which file it is, and from where its positions count."""
    try:
        yield
    except TokenizerError as error:
        where = f", after byte {stretch.start}" if stretch.start else ""
        raise DataError(f"{path}{where}: {error}") from error


def _check_out(out: Path) -> None:
    """Look at the place for the result before the work, and not after it."""
    if not out.parent.is_dir():
        raise DataError(f"{out}: there is no folder {out.parent}; make it first")
    for place in (out, _sidecar(out)):
        if os.path.lexists(place):
            raise DataError(f"{place}: exists already; choose another name, or remove it")


def _dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """One of the two, whatever the machine's byte order."""
    try:
        return DTYPES[np.dtype(dtype).name]
    except (KeyError, TypeError):
        raise DataError(f"dtype is {dtype!r}; token files hold {' or '.join(DTYPES)}") from None


def _room(kind: np.dtype[Any]) -> int:
    """How many ids there can be."""
    return 1 << 8 * kind.itemsize


def _sidecar(path: Path) -> Path:
    return Path(f"{path}.json")


def _read_sidecar(path: Path) -> dict[str, Any] | None:
    """What is written about the token file at `path`, checked; None if nothing is."""
    sidecar = _sidecar(path)
    try:
        with open(sidecar, "rb") as file:
            data = file.read(MAX_SIDECAR_BYTES)
    except FileNotFoundError:
        return None
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{sidecar}: not JSON: {error}") from error
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise DataError(f'{sidecar}: does not describe a token file: it does not say "format": "{FORMAT}"')
    checks: dict[str, Callable[[Any], bool]] = {
        "version": lambda value: type(value) is int and value == VERSION,
        "dtype": lambda value: isinstance(value, str) and value in DTYPES,
        "count": lambda value: type(value) is int and value > 0,
        "n_vocab": lambda value: type(value) is int and 0 < value <= _room(DTYPES[fields["dtype"]]),
        "tokenizer": lambda value: isinstance(value, str),
        "source": lambda value: isinstance(value, str),
    }
    for name, holds in checks.items():
        if name not in fields:
            raise DataError(f"{sidecar}: {name} is missing")
        if not holds(fields[name]):
            raise DataError(f"{sidecar}: {name} is {reprlib.repr(fields[name])}")
    return fields

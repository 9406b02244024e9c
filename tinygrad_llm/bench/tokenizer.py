"""GPT-2's tokenizer: ours against tiktoken and tokenizers, in encoding, decoding and training, one thread each.

All three are built from our merges, so nothing is downloaded. All three must give the same ids.
"""

import hashlib
import json
import statistics
import sysconfig
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from tinygrad_llm.bench.harness import BenchError, Subject, Timing, alternate
from tinygrad_llm.bench.measure import OURS, Case, Measure, contender
from tinygrad_llm.datasets import load_corpus
from tinygrad_llm.tokenizer import Tokenizer
from tinygrad_llm.tokenizer.bpe import END_OF_TEXT
from tinygrad_llm.tokenizer.pattern import PATTERN

THEIRS = ("tiktoken", "tokenizers")
ONE_THREAD = {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

TRAIN_BYTES = 4_700_000
TRAIN_VOCAB = 4096


def measures(
    against: Sequence[str], rounds: int, corpora: Mapping[str, Sequence[str]], vocab_size: int = TRAIN_VOCAB
) -> Iterator[Measure]:
    """Measure everything, and yield each measure when it is done.

    Encoding is measured on each corpus; decoding and training are measured on the last one.

    Args:     against: some of THEIRS. corpora: name → texts.
    Raises:   BenchError: a worker failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, texts) in enumerate(corpora.items()):
            path = Path(folder) / f"{number}.json"
            path.write_text(json.dumps(list(texts)))
            for cold in (True, False):
                timings = _alternate("encoding", against, rounds, path=str(path), cold=cold)
                yield _measure(f"encode {name}, {'cold' if cold else 'warm'}", timings, _size(texts))
        yield _measure(f"decode {name}", _alternate("decoding", against, rounds, path=str(path)), _size(texts))
        texts = cut(texts, TRAIN_BYTES)
        path.write_text(json.dumps(texts))
        trainers = [other for other in against if other in TRAINERS]
        timings = _alternate("training", trainers, rounds, path=str(path), vocab_size=vocab_size)
        yield _measure(f"train {_size(texts) / 1e6:.1f} MB to {vocab_size:,} tokens", timings)


def _alternate(subject: str, against: Sequence[str], rounds: int, **options: Any) -> list[Timing]:
    return alternate(
        [contender(name, f"{__name__}:{subject}", {"name": name, **options}, ONE_THREAD) for name in (OURS, *against)],
        rounds,
    )


def _measure(name: str, timings: Sequence[Timing], size: int | None = None) -> Measure:
    """One line of the table. `size`: bytes of UTF-8, to report MB/s."""
    megabytes = None if size is None else size / 1e6
    return Measure(Case(name, {}, {}, amount=megabytes, unit="MB/s"), timings)


def standard_corpora() -> dict[str, Sequence[str]]:
    """Two texts that come with Python: its documentation in English, and the source of the standard library (5 MB).

    Raises:   BenchError, DataError: this Python comes without them.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    source = [path.read_bytes().decode(errors="replace") for path in sorted(folder.glob("*.py"))]
    if not source:
        raise BenchError(f"{folder}: got no *.py, which is the text to encode: name other texts with --corpus")
    return {"English": [load_corpus("python-docs")], "Python source": source}


def cut(texts: Sequence[str], size: int) -> list[str]:
    """The first texts that together fit into `size` bytes, but at least one."""
    kept, total = [texts[0]], _size(texts[:1])
    for text in texts[1:]:
        total += _size([text])
        if total > size:
            break
        kept.append(text)
    return kept


def _size(texts: Sequence[str]) -> int:
    return sum(len(text.encode()) for text in texts)


# ---- in the worker -----------------------------------------------------------------------------------------------

Coder = tuple[Callable[[str], list[int]], Callable[[list[int]], str]]  # encode and decode
Merges = list[tuple[bytes, bytes]]


def _ours() -> Callable[[], Coder]:
    """A function that creates GPT-2's tokenizer, for this package."""

    def fresh() -> Coder:
        tokenizer = Tokenizer.gpt2()
        return lambda text: tokenizer.encode(text, disallowed_special=()), tokenizer.decode

    return fresh


def _tiktoken() -> Callable[[], Coder]:
    """A function that creates GPT-2's tokenizer, for tiktoken."""
    import tiktoken

    ours = Tokenizer.gpt2()
    *plain, last = range(ours.n_vocab)
    ranks = {ours.decode_bytes([token_id]): token_id for token_id in plain}

    def fresh() -> Coder:
        special = {END_OF_TEXT: last}
        encoding = tiktoken.Encoding("gpt2", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=special)
        return encoding.encode_ordinary, encoding.decode

    return fresh


def _tokenizers() -> Callable[[], Coder]:
    """A function that creates GPT-2's tokenizer, for tokenizers, which writes each byte as GPT-2's character for it."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    names = sorted(pre_tokenizers.ByteLevel.alphabet())  # ids 0 … 255 are the bytes in this order
    merges = []
    for left, right in Tokenizer.gpt2().merges:
        merges.append((names[left], names[right]))
        names.append(names[left] + names[right])
    vocabulary = {name: token_id for token_id, name in enumerate(names)}

    def fresh() -> Coder:
        tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        return lambda text: tokenizer.encode(text).ids, tokenizer.decode

    return fresh


def _train_ours(texts: Sequence[str], vocab_size: int) -> tuple[float, Merges]:
    """Train ours. Returns the seconds and the merges."""
    began = time.perf_counter()
    trained = Tokenizer.train(texts, vocab_size, special_tokens=(END_OF_TEXT,))
    seconds = time.perf_counter() - began
    return seconds, [(trained.decode_bytes([left]), trained.decode_bytes([right])) for left, right in trained.merges]


def _train_tokenizers(texts: Sequence[str], vocab_size: int) -> tuple[float, Merges]:
    """Train tokenizers by our rules: a merge occurs at least twice, and every byte is a token."""
    import tokenizers
    from tokenizers import models, pre_tokenizers, trainers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    began = time.perf_counter()
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, min_frequency=2, special_tokens=[END_OF_TEXT], initial_alphabet=alphabet,
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    seconds = time.perf_counter() - began
    spelled = Tokenizer([], special_tokens=())
    byte = {name: spelled.decode_bytes([token_id]) for token_id, name in enumerate(alphabet)}
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return seconds, [(b"".join(byte[c] for c in left), b"".join(byte[c] for c in right)) for left, right in merges]


CODERS = {OURS: _ours, "tiktoken": _tiktoken, "tokenizers": _tokenizers}
TRAINERS = {OURS: _train_ours, "tokenizers": _train_tokenizers}  # tiktoken's trainer is only an example


@dataclass
class _Work:
    """The Subject. `do` does the work once and returns its seconds and its result."""

    name: str
    do: Callable[[], tuple[float, bytes]]
    construction: Callable[[], float | None]

    def answer(self) -> str:
        return hashlib.sha256(self.do()[1]).hexdigest()

    def round(self) -> float:
        return self.do()[0]

    def about(self) -> dict[str, Any]:
        version = {"version": metadata.version(self.name)} if self.name in THEIRS else {}
        return {**version, "construction_seconds": self.construction()}


class _Fresh:
    """Creates tokenizers, and records the seconds that each took."""

    def __init__(self, name: str) -> None:
        self._make, self._seconds = CODERS[name](), list[float]()

    def __call__(self) -> Coder:
        began = time.perf_counter()
        coder = self._make()
        self._seconds.append(time.perf_counter() - began)
        return coder

    def seconds(self) -> float:
        return statistics.median(self._seconds)


def encoding(name: str, path: str, cold: bool) -> Subject:
    """Encode every text of the file. Cold: with a new tokenizer in each round, whose construction is not timed."""
    texts = json.loads(Path(path).read_text())
    fresh = _Fresh(name)
    encode, _ = fresh()

    def do() -> tuple[float, bytes]:
        chosen = fresh()[0] if cold else encode
        began = time.perf_counter()
        ids = [chosen(text) for text in texts]
        return time.perf_counter() - began, b"".join(array("I", some).tobytes() for some in ids)

    return _Work(name, do, fresh.seconds)


def decoding(name: str, path: str) -> Subject:
    """Decode the ids of every text of the file."""
    texts = json.loads(Path(path).read_text())
    fresh = _Fresh(name)
    encode, decode = fresh()
    ids = [encode(text) for text in texts]

    def do() -> tuple[float, bytes]:
        began = time.perf_counter()
        decoded = [decode(some) for some in ids]
        return time.perf_counter() - began, "".join(decoded).encode()

    return _Work(name, do, fresh.seconds)


def training(name: str, path: str, vocab_size: int) -> Subject:
    """Learn merges from the texts of the file."""
    texts = json.loads(Path(path).read_text())

    def do() -> tuple[float, bytes]:
        seconds, merges = TRAINERS[name](texts, vocab_size)
        return seconds, repr(merges).encode()

    return _Work(name, do, lambda: None)

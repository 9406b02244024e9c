"""How well a model knows a text: its loss on it, the endings it prefers, and what it expects next.

All of it is one number per token, −ln p(token | the tokens before it) in nats, averaged in different ways:

    loss             Σ −ln p / tokens                 perplexity per token     exp(loss)
    bits per byte    Σ −ln p / (ln 2 · bytes)         perplexity per word      exp(Σ −ln p / words)

A perplexity of k is that of a choice among k equally likely tokens. Per token it depends on how the tokenizer cuts;
per word, and in bits per byte (what a compressor driven by the model would take), models with different tokenizers
can be compared.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tinygrad_llm import functional as F
from tinygrad_llm.datasets import (
    CORPORA,
    DataError,
    TokenFile,
    load_corpus,
    read_stretches,
    refuse_special,
)
from tinygrad_llm.generation import next_token_probs
from tinygrad_llm.kernels import IGNORE_INDEX, Array
from tinygrad_llm.models import GPT
from tinygrad_llm.tokenizer import AnyTokenizer, StreamDecoder, TokenizerError

Window: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]

LOGITS_AT_ONCE = 1 << 24  # numbers: 64 MB as float32, and a few times that while the loss is taken
IDS_AT_ONCE = 1 << 16


def token_losses(model: GPT, inputs: Array, targets: Array) -> Array:
    """−ln p(target) in nats at each place; 0 where the target is −100.

    Args:     inputs, targets: (B, T) ids; a target is what follows its input.
    Returns:  (B, T) float64.
    Raises:   ValueError: a loss is infinite or not a number. Others as `GPT.forward`.
    """
    with model.evaluating(), np.errstate(all="ignore"):
        logits = model(inputs)
        losses = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), reduction="none").data
    if not np.isfinite(losses).all():
        raise ValueError("the model's scores are not finite: its weights are damaged, or its training went astray")
    return losses.astype(np.float64).reshape(targets.shape)


def scoring_windows(pieces: Iterable[NDArray[Any]], block_size: int, stride: int) -> Iterator[Window]:
    """Cut a row of ids, which comes in pieces, into windows that score every id but the first exactly once.

    Each window ends `stride` ids behind the one before it, the last one where the row ends. The targets that an earlier
    window has scored are −100. So an id is predicted from at least the block_size − stride + 1 ids before it, or from
    all there are; with stride = block_size the windows do not overlap, with stride = 1 every id has a whole block.

    Returns:  inputs and targets, (block_size,) each; if the row is shorter, one window of all of it. No more than one
              piece and one window are held at a time.
    Raises:   ValueError: stride is not in 1 … block_size.
    """
    if not 1 <= stride <= block_size:
        raise ValueError(f"stride must lie in 1 … {block_size}, the model's block_size, not {stride}")
    return _windows(pieces, block_size, stride)


def _windows(pieces: Iterable[NDArray[Any]], block_size: int, stride: int) -> Iterator[Window]:
    ids: NDArray[np.int64] = np.empty(0, np.int64)
    done = 0  # of the ids held, how many have been inputs whose target is scored

    def window(end: int) -> Window:
        start = max(0, end - block_size)
        targets = ids[start + 1 : end + 1].copy()
        targets[: done - start] = IGNORE_INDEX
        return ids[start:end], targets

    end = block_size
    for piece in pieces:
        ids = np.concatenate([ids, piece])
        while end < len(ids):
            yield window(end)
            done, end = end, end + stride
        unneeded = max(0, done - block_size)  # the next window ends behind `done`
        ids, done, end = ids[unneeded:], done - unneeded, end - unneeded
    if done < len(ids) - 1:
        yield window(len(ids) - 1)


def score_tokens(
    model: GPT, pieces: Iterable[NDArray[Any]], stride: int | None = None, batch_size: int | None = None
) -> Iterator[Array]:
    """−ln p of every id but the first, in their order, by windows (see `scoring_windows`).

    Args:     pieces: rows of ids that follow each other. stride: None: half the block. batch_size: windows at once;
              None: as many as 64 MB of logits allow.
    Returns:  the losses in nats, some at a time: (n,) float64.
    Raises:   ValueError: stride or batch_size out of range; scores that are not finite.
    """
    windows = scoring_windows(pieces, model.block_size, default_stride(model) if stride is None else stride)
    size = default_batch_size(model, batch_size)

    def losses() -> Iterator[Array]:
        for batch in batches_of(windows, size):
            inputs, targets = (np.stack(part) for part in zip(*batch, strict=True))
            yield token_losses(model, inputs, targets)[targets != IGNORE_INDEX]

    return losses()


def default_stride(model: GPT) -> int:
    """Half the block: each token has at least the other half as context, for twice the work of no overlap."""
    return max(1, model.block_size // 2)


def default_batch_size(model: GPT, batch_size: int | None) -> int:
    if batch_size is None:
        return max(1, LOGITS_AT_ONCE // (model.block_size * model.config.vocab_size))
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    return batch_size


def batches_of(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    batch = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


@dataclass(frozen=True)
class TextScore:
    """What a text costs a model. Words are what white space separates; bytes are those of the text as UTF-8."""

    nats: float  # Σ −ln p of all tokens scored
    tokens: int  # scored
    words: int
    bytes: int

    @property
    def loss(self) -> float:
        """Nats a token."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """exp(loss), per token."""
        return _exp(self.loss)

    @property
    def word_perplexity(self) -> float:
        """exp(nats / words); infinite where that is no floating-point number."""
        return _exp(self.nats / self.words)

    @property
    def bits_per_byte(self) -> float:
        """nats / (ln 2 · bytes)."""
        return self.nats / math.log(2) / self.bytes


def _exp(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def score_file(
    model: GPT,
    tokenizer: AnyTokenizer,
    file: str,
    stride: int | None = None,
    batch_size: int | None = None,
    allow_special: bool = False,
    dtype: DTypeLike | None = None,
    progress: Callable[[float, int], None] | None = None,
) -> TextScore:
    """Score a text, or a file of its tokens, in bounded memory, however large it is.

    The first token is predicted from the end-of-text token. A tokenizer that has none (characters) leaves it
    unscored. A special token in a text counts as one token, and with the words and bytes it is written in.

    Args:     file: a UTF-8 text, the name of a bundled corpus, or a token file: one that ends in .bin, has its .json
              beside it, or whose dtype (uint16 or uint32) is given. stride, batch_size: as in `score_tokens`.
              progress: called with (nats, tokens) so far.
    Raises:   DataError: the file cannot be read as what it is; it holds no words, no token to score, a special token
              that is not allowed, a character the tokenizer does not know, an id outside the vocabulary, or the ids
              of another tokenizer. ValueError: as `score_tokens`.
    Source:   perplexity: Jelinek et al. 1977, J. Acoust. Soc. Am. 62, S63. Bits per byte: Gao et al. 2020 (the Pile),
              arXiv:2101.00027, section 3.1.
    """
    count = _Count(tokenizer, _pieces(tokenizer, file, allow_special, dtype))
    nats, tokens = 0.0, 0
    for losses in score_tokens(model, count.ids(), stride, batch_size):
        nats += float(np.sum(losses))
        tokens += len(losses)
        if progress is not None:
            progress(nats, tokens)
    if not count.words:
        raise DataError(f"{file}: the file is empty; give a text to score")
    if not tokens:
        raise DataError(f"{file}: holds one token, and nothing to predict it from; give a longer text")
    return TextScore(nats, tokens, count.words, count.bytes)


class _Piece(NamedTuple):
    """Some ids, their text (whole characters of it), and how many bytes they stand for."""

    ids: NDArray[Any]
    text: str
    bytes: int


class _Count:
    """Counts words and bytes while the ids go by."""

    def __init__(self, tokenizer: AnyTokenizer, pieces: Iterable[_Piece]) -> None:
        self.words = self.bytes = 0
        self._eot = tokenizer.eot_token
        self._pieces = pieces

    def ids(self) -> Iterator[NDArray[Any]]:
        """End of text, where there is such a token, and then the ids of the pieces."""
        if self._eot is not None:
            yield np.array([self._eot])
        inside = False  # a word, where the piece before ended
        for ids, text, size in self._pieces:
            self.bytes += size
            if text:
                self.words += len(text.split()) - (inside and not text[0].isspace())
                inside = not text[-1].isspace()
            yield ids


def _pieces(tokenizer: AnyTokenizer, file: str, allow_special: bool, dtype: DTypeLike | None) -> Iterator[_Piece]:
    if dtype is not None or (
        file not in CORPORA and (file.endswith(".bin") or Path(file + ".json").exists()) and Path(file).exists()
    ):
        return _of_tokens(tokenizer, TokenFile.open(file, dtype))
    return _of_text(tokenizer, file, allow_special)


def _of_text(tokenizer: AnyTokenizer, file: str, allow_special: bool) -> Iterator[_Piece]:
    if file in CORPORA or not Path(file).exists():
        stretches: Iterable[tuple[int, int, str]] = [(0, 0, load_corpus(file))]  # or its error
    else:
        stretches = read_stretches(file, tokenizer.special_tokens)
    for start, _, text in stretches:
        ids = encode(tokenizer, text, allow_special, file, start)
        yield _Piece(np.array(ids, np.int64), text, len(text.encode()))


def _of_tokens(tokenizer: AnyTokenizer, file: TokenFile) -> Iterator[_Piece]:
    file.check(tokenizer)
    decoder = StreamDecoder(tokenizer)
    for start in range(0, len(file), IDS_AT_ONCE):
        ids = file.ids[start : start + IDS_AT_ONCE]
        each = ids.tolist()
        yield _Piece(ids, "".join(map(decoder.push, each)), len(tokenizer.decode_bytes(each)))


def encode(tokenizer: AnyTokenizer, text: str, allow_special: bool, where: str, start: int = 0) -> list[int]:
    if not allow_special:
        refuse_special(tokenizer, text, where, start)
    try:
        return tokenizer.encode(text, allowed_special="all" if allow_special else ())
    except TokenizerError as error:
        raise DataError(f"{where}, after byte {start}: {error}" if start else f"{where}: {error}") from None


def next_tokens(model: GPT, ids: Sequence[int], top: int) -> list[tuple[int, float]]:
    """The `top` likeliest tokens after ids, and their probabilities; of more than a block of ids only the last count.

    Raises:   ValueError: no ids, top below 1, or scores that are not finite.
    """
    if top < 1:
        raise ValueError(f"top must be at least 1, not {top}")
    with model.evaluating(), np.errstate(all="ignore"):
        probs = next_token_probs(model(np.array([ids[-model.block_size :]])).data[:, -1])[0]
    return [(int(i), float(probs[i])) for i in np.argsort(-probs, kind="stable")[:top]]

"""How well a model predicts a text: loss, perplexity and bits per byte.

All of them average one number per token, −ln p(token | the tokens before it) in nats:

    loss             Σ −ln p / tokens                 perplexity per token     exp(loss)
    bits per byte    Σ −ln p / (ln 2 · bytes)         perplexity per word      exp(Σ −ln p / words)

A perplexity of k is that of a choice among k equally likely tokens. Per token, it depends on how the tokenizer cuts the
text. Per word, and in bits per byte, models with different tokenizers can be compared; bits per byte are also what a
compressor that uses the model would need.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tinygrad_llm.datasets import CORPORA, DataError, TokenFile, read_corpus, uncut
from tinygrad_llm.evaluation.losses import score_tokens
from tinygrad_llm.models import GPT
from tinygrad_llm.tokenizer import AnyTokenizer, Special, StreamDecoder, TokenizerError, encode_text

IDS_AT_ONCE = 1 << 16  # ids of a token file that are decoded at a time, to count words and bytes


@dataclass(frozen=True)
class TextScore:
    """The score of a text by a model. Words are separated by white space; bytes are those of the text as UTF-8."""

    nats: float  # Σ −ln p of all scored tokens
    tokens: int  # scored
    words: int
    bytes: int

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """exp(loss), per token."""
        return _exp(self.loss)

    @property
    def word_perplexity(self) -> float:
        """exp(nats / words); infinite if it is beyond float64."""
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
    special: Special = "error",
    dtype: DTypeLike | None = None,
    progress: Callable[[float, int, int], None] | None = None,
    keep_newlines: bool = False,
) -> TextScore:
    """Score a text, or a file of its tokens, of any size, in bounded memory.

    The first token is predicted from the end-of-text token. A tokenizer without one (characters) leaves the first token
    unscored. A special token that is allowed counts as one token, and with the words and bytes that it is written in.

    Args:     file: a UTF-8 text, the name of a bundled corpus, or a token file. A token file ends in .bin, has its
              .json next to it, or comes with dtype (uint16 or uint32). stride, batch_size: see `score_tokens`.
              special: what a special token in a text becomes (see `tokenizer.special`).
              progress: called with (nats, tokens) so far, and about how many tokens there will be.
              keep_newlines: leave the line ends of a text as they are; else "\\r\\n" and "\\r" are read as "\\n", and
              counted so.
    Raises:   DataError: the file cannot be read; it has no words or no token to score, a special token that is not
              allowed, a character the tokenizer does not know, an id outside the vocabulary, or the ids of another
              tokenizer. ValueError: as `score_tokens`.
    Source:   perplexity: Jelinek et al. 1977, J. Acoust. Soc. Am. 62, S63. Bits per byte: Gao et al. 2020 (the Pile),
              arXiv:2101.00027, section 3.1.
    """
    counter = _Counter(tokenizer.eot_token, _read_pieces(tokenizer, file, special, dtype, keep_newlines))
    nats, tokens = 0.0, 0
    for losses in score_tokens(model, counter.ids(), stride, batch_size):
        nats += float(np.sum(losses))
        tokens += len(losses)
        if progress is not None:
            progress(nats, tokens, max(tokens, counter.expected))
    if not counter.words:
        raise DataError(f"{file}: holds no words; give a file with text in it")
    if not tokens:
        raise DataError(f"{file}: holds one token, and nothing to predict it from; give a longer text")
    return TextScore(nats, tokens, counter.words, counter.bytes)


class _Piece(NamedTuple):
    """Some ids, their text (whole characters of it), the number of bytes that they stand for, and how much is read."""

    ids: NDArray[Any]
    text: str
    bytes: int
    share: float  # of the file, up to the end of this piece


class _Counter:
    """Counts words and bytes while the ids are read, and expects so many tokens in all."""

    def __init__(self, eot_token: int | None, pieces: Iterable[_Piece]) -> None:
        self.words = self.bytes = self.expected = 0
        self._eot = eot_token
        self._pieces = pieces

    def ids(self) -> Iterator[NDArray[Any]]:
        """Yield the end-of-text token, if there is one, and then the ids of the pieces."""
        if self._eot is not None:
            yield np.array([self._eot])
        inside_word = False  # whether the piece before ended inside a word
        read = 0 if self._eot is not None else -1  # without an end of text, the first one is not scored
        for ids, text, size, share in self._pieces:
            self.bytes += size
            read += len(ids)
            self.expected = round(read / share)
            if text:
                self.words += len(text.split()) - (inside_word and not text[0].isspace())
                inside_word = not text[-1].isspace()
            yield ids


def _read_pieces(
    tokenizer: AnyTokenizer, file: str, special: Special, dtype: DTypeLike | None, keep_newlines: bool
) -> Iterator[_Piece]:
    is_tokens = file not in CORPORA and (file.endswith(".bin") or Path(file + ".json").exists()) and Path(file).exists()
    if dtype is not None or is_tokens:
        return _read_tokens(tokenizer, TokenFile.open(file, dtype))
    return _read_text(tokenizer, file, special, keep_newlines)


def _read_text(tokenizer: AnyTokenizer, file: str, special: Special, keep_newlines: bool) -> Iterator[_Piece]:
    size = Path(file).stat().st_size if file not in CORPORA and Path(file).is_file() else 0
    for stretch in read_corpus(file, uncut(tokenizer), keep_newlines):
        try:
            ids = encode_text(tokenizer, stretch.text, special, stretch.where(file), stretch.place)
        except TokenizerError as error:
            raise DataError(str(error)) from error
        share = stretch.stop / size if stretch.stop < size else 1.0
        yield _Piece(np.array(ids, np.int64), stretch.text, len(stretch.text.encode()), share)


def _read_tokens(tokenizer: AnyTokenizer, file: TokenFile) -> Iterator[_Piece]:
    file.check(tokenizer)
    decoder = StreamDecoder(tokenizer)
    for start in range(0, len(file), IDS_AT_ONCE):
        ids = file.ids[start : start + IDS_AT_ONCE]
        each = ids.tolist()
        text, share = "".join(map(decoder.push, each)), (start + len(ids)) / len(file)
        yield _Piece(ids, text, len(tokenizer.decode_bytes(each)), share)

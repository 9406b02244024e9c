"""Search for the likeliest target of a source: greedily, or with a beam. For any model that reads a source."""

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from tinygrad_llm.generation.sampling import Ids, check_logits
from tinygrad_llm.kernels import Array
from tinygrad_llm.tokenizer import AnyTokenizer


class State(Protocol):
    """What a model keeps of the sources that it read and of the targets so far."""

    def select(self, rows: Array) -> None:
        """Keep these rows in this order: a row may be left out, or come twice."""
        ...


class TranslationModel(Protocol):
    """The part of a model that this file uses."""

    @property
    def block_size(self) -> int:
        """The most tokens of a target, with its start."""
        ...

    def evaluating(self) -> AbstractContextManager[None]: ...
    def begin(self, source: Any, lengths: Any = None) -> Any:
        """Read sources (B, S) and return a `State`."""
        ...

    def next_logits(self, ids: Ids, state: Any) -> Array:
        """Read one more token of each target, (B,), and return the logits (B, V) of the next."""
        ...


@dataclass(frozen=True)
class Hypothesis:
    """A possible target, without its start and end. score: log-probability in nats, divided by the length penalty."""

    ids: tuple[int, ...]
    score: float


def greedy_search(
    model: TranslationModel, source: Any, lengths: Any, start: int, end: int, max_new_tokens: int | None = None
) -> list[list[int]]:
    """The target of each source, whose every token is the likeliest next one.

    Args:     source: (B, S) ids. lengths: (B,) tokens of each; None: all S. start, end: the ids before and after every
              target. max_new_tokens: None: as many as the model can write.
    Returns:  B lists of ids, without start and end.
    Raises:   ValueError: max_new_tokens is not in 1 … block_size; a logit is NaN or +∞; as the model.
    """
    most = _checked(model, max_new_tokens)
    with model.evaluating():
        state = model.begin(source, lengths)
        found: list[list[int]] = [[] for _ in range(len(source))]
        open_rows, ids = np.arange(len(source)), np.full(len(source), start)
        for _ in range(most):
            logits = model.next_logits(ids, state)
            check_logits(logits)
            ids = logits.argmax(axis=-1)
            (kept,) = np.nonzero(ids != end)
            if len(kept) < len(ids):
                state.select(kept)
                open_rows, ids = open_rows[kept], ids[kept]
            for row, token in zip(open_rows, ids, strict=True):
                found[row].append(int(token))
            if not len(ids):
                break
    return found


def beam_search(
    model: TranslationModel,
    source: Any,
    lengths: Any,
    start: int,
    end: int,
    width: int = 4,
    length_penalty: float = 0.6,
    max_new_tokens: int | None = None,
) -> list[list[Hypothesis]]:
    """The best targets that a beam finds for each source.

    In each step, the `width` likeliest continuations of all hypotheses stay; those that end leave the beam, which is
    narrower from then on. A source is done when all have ended, or when no open hypothesis can become the best one. A
    beam of width 1 is greedy. One as wide as there are targets is exhaustive.

    The score of n tokens, the end among them, is their log-probability divided by ((5 + n) / 6)^length_penalty. With 0,
    that is the log-probability itself, which prefers short targets.

    Args:     source, lengths, start, end, max_new_tokens: as `greedy_search`. width: hypotheses of each source.
              length_penalty: ≥ 0.
    Returns:  for each source its finished hypotheses, the best first. One of max_new_tokens counts without an end.
    Raises:   as `greedy_search`; ValueError: width below 1, a negative or infinite length_penalty.
    Source:   Wu et al. 2016, arXiv:1609.08144, equation 14 (length penalty); Vaswani et al. 2017, section 6.1: width
              4 and penalty 0.6.
    """
    most = _checked(model, max_new_tokens)
    if width < 1 or not 0 <= length_penalty < math.inf:
        raise ValueError(f"a beam needs a width ≥ 1 and a finite length_penalty ≥ 0, got {width} and {length_penalty}")

    def penalty(n: int) -> float:
        return float(((5 + n) / 6) ** length_penalty)

    done: list[list[Hypothesis]] = [[] for _ in range(len(source))]
    with model.evaluating():
        state = model.begin(source, lengths)
        owner = np.arange(len(source))  # of each open hypothesis: the source it belongs to
        texts = np.empty((len(source), 0), np.int64)
        scores, ids = np.zeros(len(source)), np.full(len(source), start)
        for n in range(1, most + 1):
            logits = model.next_logits(ids, state)
            check_logits(logits)
            totals = scores[:, None] + _log_softmax(logits)
            rows, tokens = [], []
            for i, group in _groups(owner):
                best = _largest(totals[group], width - len(done[i]))
                for row, token in zip(group.start + best // totals.shape[1], best % totals.shape[1], strict=True):
                    score = float(totals[row, token])
                    if token == end or n == most:
                        text = (*texts[row].tolist(), *([] if token == end else [int(token)]))
                        done[i].append(Hypothesis(text, score / penalty(n)))
                    else:
                        rows.append(row)
                        tokens.append(token)
            chosen, ids = np.array(rows, np.int64), np.array(tokens, np.int64)
            scores = totals[chosen, ids] if len(chosen) else scores[:0]
            # A log-probability only falls, so this is the best score that an open hypothesis can reach.
            bounds = scores / penalty(most)
            best_done = np.array([max((h.score for h in done[i]), default=-np.inf) for i in owner[chosen]])
            alive = bounds > best_done if len(chosen) else np.zeros(0, bool)
            chosen, ids, scores = chosen[alive], ids[alive], scores[alive]
            if not len(chosen):
                break
            state.select(chosen)
            owner, texts = owner[chosen], np.concatenate([texts[chosen], ids[:, None]], axis=1)
    return [sorted(own, key=lambda h: -h.score) for own in done]


def _groups(owner: Array) -> Iterator[tuple[int, slice]]:
    """The rows of each source that has some; they are next to each other."""
    starts = [0, *(np.nonzero(np.diff(owner))[0] + 1).tolist(), len(owner)]
    for a, b in itertools.pairwise(starts):
        yield int(owner[a]), slice(a, b)


def _largest(totals: Array, count: int) -> Array:
    """Where the `count` largest numbers are in the flat array, the largest first; of equal ones, the first."""
    flat = totals.reshape(-1)
    if count < flat.size:
        (some,) = np.nonzero(flat >= np.partition(flat, -count)[-count])
    else:
        some = np.arange(flat.size)
    order = some[np.argsort(-flat[some], kind="stable")][:count]
    return order[flat[order] > -np.inf]


def _log_softmax(logits: Array) -> Array:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    found: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return found


def _checked(model: TranslationModel, max_new_tokens: int | None) -> int:
    """The most tokens of a target, its end among them."""
    most = model.block_size if max_new_tokens is None else max_new_tokens
    if not 1 <= most <= model.block_size:
        raise ValueError(f"max_new_tokens must lie in 1 … {model.block_size}, got {max_new_tokens}")
    return most


# ---- from text to text -----------------------------------------------------------------------------------------------


def encode_source(tokenizer: AnyTokenizer, text: str, end: int) -> list[int]:
    """The ids of a sentence, with the end after them. A special token is read as text."""
    return [*tokenizer.encode(text, disallowed_special=()), end]


def end_of(tokenizer: AnyTokenizer) -> int:
    """The id that a translator begins and ends a target with: end of text.

    Raises:   ValueError: the tokenizer has none.
    """
    if tokenizer.eot_token is None:
        raise ValueError("a translator needs a tokenizer with an end-of-text token, such as bpe or gpt2")
    return tokenizer.eot_token


def translate(
    model: TranslationModel,
    tokenizer: AnyTokenizer,
    texts: Sequence[str],
    width: int = 1,
    length_penalty: float = 0.6,
    batch_size: int = 32,
    names: Sequence[str] = (),
) -> list[str]:
    """The translation of each sentence.

    Args:     width: of the beam; 1: greedy. length_penalty: see `beam_search`. batch_size: sentences at a time, which
              changes no translation, except where two scores are equal up to rounding. names: of the sentences, for
              errors.
    Raises:   ValueError: a sentence is empty, or has more tokens than the model reads; as `beam_search`.
    """
    end = end_of(tokenizer)
    rows = [encode_source(tokenizer, text.strip(), end) for text in texts]
    for number, row in enumerate(rows, 1):
        where = names[number - 1] if names else f"sentence {number}" if len(rows) > 1 else "the sentence"
        if len(row) < 2:
            raise ValueError(f"{where} is empty")
        if len(row) > model.block_size:
            raise ValueError(
                f"{where} has {len(row)} tokens with its end, and the model reads at most {model.block_size}: shorten "
                "or divide it"
            )
    found = [""] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # sentences of similar length together: less padding
    for first in range(0, len(rows), batch_size):
        some = order[first : first + batch_size]
        lengths = np.array([len(rows[i]) for i in some])
        source = np.full((len(some), lengths.max()), end)
        for row, i in zip(source, some, strict=True):
            row[: len(rows[i])] = rows[i]
        if width == 1:
            targets = greedy_search(model, source, lengths, end, end)
        else:
            beams = beam_search(model, source, lengths, end, end, width, length_penalty)
            targets = [list(beam[0].ids) for beam in beams]
        for i, ids in zip(some, targets, strict=True):
            found[i] = tokenizer.decode(ids)
    return found


class Looks(NamedTuple):
    """How much each word of a translation looks at each word of the sentence: (target, source), each row sums to 1."""

    source: list[str]
    target: list[str]
    weights: Array


def attention_of(model: Any, tokenizer: AnyTokenizer, text: str, translation: str) -> Looks:
    """The cross-attention of a sentence and its translation, averaged over all layers and heads.

    The tokens of a word count together: their weights are added over the source, and averaged over the target.

    Raises:   ValueError: as `translate`; the translation is empty; the model has no cross-attention.
    """
    end = end_of(tokenizer)
    source, target = (encode_source(tokenizer, side.strip(), end) for side in (text, translation))
    if target == [end]:
        raise ValueError("the translation is empty: there is no attention to show")
    target = target[:-1][: model.block_size]
    found = model.attention_to_source(np.array([source]), np.array([[end, *target[:-1]]]))
    weights = found.mean(axis=(0, 1))  # position t looks at the source to choose token t
    (sources, of_source), (targets, of_target) = _words(tokenizer, source), _words(tokenizer, target)
    members = np.arange(len(sources))[:, None] == of_source  # (words, tokens)
    followers = np.arange(len(targets))[:, None] == of_target
    by_word = followers @ weights @ members.T / followers.sum(axis=1, keepdims=True)
    return Looks(sources, targets, by_word)


def _words(tokenizer: AnyTokenizer, ids: list[int]) -> tuple[list[str], list[int]]:
    """The words that tokens spell, and the number of the word that each token belongs to; a sign stands alone."""
    words: list[bytes] = []
    places = []
    for token in ids:
        piece = b"end" if token == tokenizer.eot_token else tokenizer.decode_bytes([token])
        last = words[-1] if words else b""
        # A space that is a token of its own belongs to what follows.
        continues = last.isspace() or (_is_letter(piece[:1]) and _is_letter(last[-1:]))
        if token == tokenizer.eot_token or not continues:
            words.append(b"")
        words[-1] += piece
        places.append(len(words) - 1)
    return [word.decode(errors="replace").strip() for word in words], places


def _is_letter(byte: bytes) -> bool:
    """Whether a byte is a letter or digit, or a part of one beyond ASCII."""
    return byte.isalnum() or byte >= b"\x80"

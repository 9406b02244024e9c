"""Writing: choose the next token, append it, go on. Works on ids, for any model that can be called with them."""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tinygrad_llm.autograd import Tensor
from tinygrad_llm.generation.cache import KVCache
from tinygrad_llm.kernels import Array
from tinygrad_llm.random import Generator

Ids: TypeAlias = NDArray[np.int64]
Prompt: TypeAlias = Array | Sequence[int] | Sequence[Sequence[int]] | Sequence[Array]


class LanguageModel(Protocol):
    """What `generate` needs of a model."""

    @property
    def block_size(self) -> int:
        """Most positions it can read at once."""
        ...

    def new_cache(self) -> KVCache: ...
    def evaluating(self) -> AbstractContextManager[None]: ...
    def __call__(
        self, ids: Ids, cache: KVCache | Sequence[KVCache] | None = None, logits_to_keep: int | None = None
    ) -> Tensor:
        """(B, T) ids, which follow those in the cache, or in the cache of each row, → logits of the last positions.

        Shapes: (B, logits_to_keep, V); (B, T, V) for None.
        """
        ...


def next_token_probs(
    logits: Array, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Array:
    """The distribution the next token is drawn from.

    Args:     logits: (B, V). temperature: < 1 sharpens, > 1 flattens; 0 leaves only the likeliest token.
              top_k: only the k likeliest (and equals of the k-th). top_p: of those, the fewest whose probabilities
              reach p.
    Returns:  (B, V) float64 rows that sum to 1.
    Raises:   ValueError: an argument out of range.
    Source:   top-p: Holtzman et al. 2020, arXiv:1904.09751.
    """
    check_sampling(temperature, top_k, top_p)
    _check_scores(logits)
    logits = logits.astype(np.float64)
    if temperature == 0:
        return np.asarray(np.arange(logits.shape[-1]) == np.argmax(logits, axis=-1)[:, None], dtype=np.float64)
    with np.errstate(over="ignore"):  # so far below the largest that it never comes
        logits = (logits - np.max(logits, axis=-1, keepdims=True)) / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        kth = np.partition(logits, -top_k, axis=-1)[:, -top_k, None]
        logits = np.where(logits < kth, -np.inf, logits)
    probs = np.exp(logits)
    probs /= np.sum(probs, axis=-1, keepdims=True)
    if top_p is not None and top_p < 1:
        for row in probs:
            # All that are less likely than (1 − p) / V reach less than 1 − p together, so the others reach p without
            # them. Few are left to sort; half the bound leaves room for rounding.
            (likely,) = np.nonzero(row > (1 - top_p) / (2 * row.size))
            order = likely[np.argsort(-row[likely], kind="stable")]
            falling = row[order]
            falling[np.cumsum(falling) - falling >= top_p] = 0  # where the likelier ones reach p already
            row[:] = 0
            row[order] = falling
        probs /= np.sum(probs, axis=-1, keepdims=True)
    return probs


def check_sampling(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Raise ValueError, in one clear line, for an argument out of range."""
    if not temperature >= 0:
        raise ValueError(f"temperature must be ≥ 0, not {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be ≥ 1, not {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must lie in (0, 1], not {top_p}")


def _check_scores(logits: Array) -> None:
    if not (logits < np.inf).all():  # NaN is not; −∞, a token ruled out, is
        raise ValueError("the model's scores are not finite: its weights are damaged, or its training went astray")


def window_start(length: int, block_size: int) -> int:
    """Where the part begins that a model reads of a text of `length` tokens.

    At 0 while all of it fits. GPT-2's positions are absolute, so keys made for one place cannot be used at another: a
    window that moved with every token would have to be read anew for every token. This one moves by half a block,
    whenever it is full: half a block is read again, and then written to token by token.

    Returns:  the least multiple of max(1, block_size // 2) that leaves at most block_size tokens.
    """
    step = max(1, block_size // 2)
    return max(0, math.ceil((length - block_size) / step)) * step


def stream(
    model: LanguageModel,
    ids: Prompt,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    rng: Generator | Sequence[Generator] | None = None,
    use_cache: bool = True,
) -> Iterator[Ids]:
    """Generate token by token: yields (B,) new ids, one for each row of the prompt.

    The model reads the text from `window_start` on: beyond block_size, its last half block to whole block. Rows of
    unequal lengths are written as each would be alone, and so they are without the cache: only rounding differs, which
    no id shows but where two scores are equal to rounding.

    Args:     ids: the prompt, (T,) or (B, T), or B rows of unequal lengths; 1 ≤ T ≤ block_size.
              temperature, top_k, top_p: `next_token_probs`. temperature 0 draws nothing.
              rng: where tokens are drawn, by one row after the other for each new token; Generator(0) if None. Or one
              for each row, which then draws as if it were alone.
    Raises:   ValueError: an empty or too long prompt, or an argument out of range; before anything is generated.
              IndexError: an id outside the vocabulary; when the first token is asked for.
    """
    check_sampling(temperature, top_k, top_p)
    rows = _rows(ids)
    longest = max(len(row) for row in rows)
    if longest > model.block_size:
        raise ValueError(f"the prompt has {longest} tokens, and the model reads at most {model.block_size}")
    if not isinstance(max_new_tokens, int | np.integer) or max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must be an integer ≥ 0, not {max_new_tokens}")
    own = rng if isinstance(rng, Sequence) else [rng or Generator(0)]
    if not all(isinstance(one, Generator) for one in own):
        raise ValueError(f"rng must be one Generator, or one for each row, not {rng!r}")
    if isinstance(rng, Sequence) and len(rng) != len(rows):
        raise ValueError(f"rng must be one Generator, or one for each of the {len(rows)} rows, not {len(rng)}")
    # Rows of one length are one (B, T) text; others are B texts of one row.
    texts = [np.stack(rows)] if len({len(row) for row in rows}) == 1 else [row[None] for row in rows]
    # The checks above must not wait for the first next(), so the loop is a generator of its own.
    return _loop(model, texts, max_new_tokens, (temperature, top_k, top_p), rng or Generator(0), use_cache)


def _rows(ids: Prompt) -> list[Ids]:
    """The rows of a prompt."""
    try:
        array = np.asarray(ids)
        rows = [array] if array.ndim < 2 else list(array)
    except ValueError:  # rows of unequal lengths
        rows = [_array(row) for row in ids]
    if not rows:
        raise ValueError("the prompt must be one row of ids or more, not none")
    for row in rows:
        if row.size == 0:
            raise ValueError("the prompt must be at least one id a row; it is empty, or a row of it is")
        if row.ndim != 1 or row.dtype.kind not in "iu":
            found = f"{row.dtype} of shape {row.shape}"
            raise ValueError(f"the prompt must be (T,) or rows of integer ids, at least one a row, not {found}")
    return [row.astype(np.int64) for row in rows]  # uint64 and int64 together would become float64


def _array(row: Any) -> Array:
    try:
        return np.asarray(row)
    except ValueError:  # lists of unequal lengths in it
        return np.asarray(row, dtype=object)


def _loop(
    model: LanguageModel,
    texts: list[Ids],
    max_new_tokens: int,
    sampling: tuple[float, int | None, float | None],
    rng: Generator | Sequence[Generator],
    use_cache: bool,
) -> Iterator[Ids]:
    caches = [model.new_cache() for _ in texts] if use_cache else None
    for _ in range(max_new_tokens):
        # Around each call, not around the loop: between two tokens the model is the caller's.
        with model.evaluating():
            logits = _next_logits(model, texts, caches)
        chosen = _choose(logits, sampling, rng)
        columns = chosen.reshape(len(texts), -1, 1)  # each text's own
        texts = [np.concatenate([text, column], axis=1) for text, column in zip(texts, columns, strict=True)]
        yield chosen


def _next_logits(model: LanguageModel, texts: list[Ids], caches: list[KVCache] | None) -> Array:
    """(B, V) logits of the token after each row of the texts; what of it the caches do not hold is read."""
    windows = [text[:, window_start(text.shape[1], model.block_size) :] for text in texts]
    if caches is None:
        return np.concatenate([model(window, logits_to_keep=1).data[:, -1] for window in windows])
    unread = []
    for window, cache in zip(windows, caches, strict=True):
        if cache.length >= window.shape[1]:  # the window has moved on, and all in it stand at other positions
            cache.clear()
        unread.append(window[:, cache.length :])
    if len(texts) == 1:
        return model(unread[0], caches[0], logits_to_keep=1).data[:, -1]
    # Each alone up to its last token, then the last tokens of all together: the weights are read once for all rows.
    for ids, cache in zip(unread, caches, strict=True):
        if ids.shape[1] > 1:
            model(ids[:, :-1], cache, logits_to_keep=1)
    return model(np.concatenate([ids[:, -1:] for ids in unread]), caches, logits_to_keep=1).data[:, -1]


def _choose(
    logits: Array, sampling: tuple[float, int | None, float | None], rng: Generator | Sequence[Generator]
) -> Ids:
    """The next token of each row, (B,)."""
    if sampling[0] == 0:
        _check_scores(logits)
        likeliest: Ids = np.argmax(logits, axis=-1)
        return likeliest
    probs = next_token_probs(logits, *sampling)
    if isinstance(rng, Generator):
        return rng.multinomial(probs)[:, 0]
    return np.concatenate([own.multinomial(row) for own, row in zip(rng, probs, strict=True)])


def generate(
    model: LanguageModel,
    ids: Prompt,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    rng: Generator | Sequence[Generator] | None = None,
    use_cache: bool = True,
) -> Any:
    """The prompt and max_new_tokens more, as `stream` writes them.

    Returns:  int64 ids of the prompt's own rank, (T + n,) or (B, T + n); a list of B such rows, if theirs are of
              unequal lengths.
    Raises:   as `stream`.
    """
    new = list(stream(model, ids, max_new_tokens, temperature, top_k, top_p, rng, use_cache))
    rows = _rows(ids)
    columns = np.stack(new, axis=1) if new else np.empty((len(rows), 0), np.int64)
    texts = [np.concatenate([row, written]) for row, written in zip(rows, columns, strict=True)]
    if len({len(row) for row in rows}) > 1:
        return texts
    return np.stack(texts) if np.ndim(ids) == 2 else texts[0]

"""The loop of generation: read the text, choose the next token, append it, repeat. For any model that takes ids."""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeAlias

import numpy as np

from tinygrad_llm.autograd import Tensor
from tinygrad_llm.generation.cache import KVCache, read_by_threads
from tinygrad_llm.generation.sampling import Ids, Sampling, choose
from tinygrad_llm.kernels import Array
from tinygrad_llm.random import Generator, check_generator
from tinygrad_llm.runtime import Pace

Prompt: TypeAlias = Array | Sequence[int] | Sequence[Sequence[int]] | Sequence[Array]


class LanguageModel(Protocol):
    """The part of a model that `generate` uses."""

    @property
    def block_size(self) -> int:
        """The number of positions that the model can read at once."""
        ...

    def new_cache(self) -> KVCache: ...
    def evaluating(self) -> AbstractContextManager[None]: ...
    def __call__(
        self, ids: Ids, cache: KVCache | Sequence[KVCache] | None = None, logits_to_keep: int | None = None
    ) -> Tensor:
        """Compute the logits of the last positions.

        Args:     ids: (B, T); they follow the ids in the cache, or in the cache of each row.
        Returns:  (B, logits_to_keep, V), which may be none; (B, T, V) for None.
        """
        ...


def generate(
    model: LanguageModel,
    ids: Prompt,
    max_new_tokens: int,
    sampling: Sampling = Sampling(),
    rng: Generator | Sequence[Generator] | None = None,
    use_cache: bool = True,
    eos_id: int | None = None,
) -> Any:
    """Return the prompt followed by max_new_tokens more ids, or fewer where all rows have ended.

    Args:     as `stream`.
    Returns:  int64 ids of the prompt's rank, (T + n,) or (B, T + n); for rows of different lengths, a list of B rows.
    Raises:   as `stream`.
    """
    new = list(stream(model, ids, max_new_tokens, sampling, rng, use_cache, eos_id=eos_id))
    rows = _prompt_rows(ids)
    columns = np.stack(new, axis=1) if new else np.empty((len(rows), 0), np.int64)
    texts = [np.concatenate([row, more]) for row, more in zip(rows, columns, strict=True)]
    if len({len(row) for row in rows}) > 1:
        return texts
    return np.stack(texts) if np.ndim(ids) == 2 else texts[0]


def stream(
    model: LanguageModel,
    ids: Prompt,
    max_new_tokens: int,
    sampling: Sampling = Sampling(),
    rng: Generator | Sequence[Generator] | None = None,
    use_cache: bool = True,
    n_vocab: int | None = None,
    eos_id: int | None = None,
) -> Iterator[Ids]:
    """Generate token by token: yields (B,) new ids, one for each row of the prompt.

    The model reads each text from `window_start` on. Rows of different lengths get the ids that each would get alone,
    and neither the cache nor a busy machine (`runtime.Pace`) changes an id, except where two scores are equal up to
    rounding.

    Args:     ids: the prompt, (T,) or (B, T), or B rows of different lengths; 1 ≤ T ≤ block_size.
              rng: the rows draw from it in turn for each new token; None: Generator(0). Or one generator for each row,
              which then draws as if it were alone.
              n_vocab: draw only ids below it, where the rows of a vocabulary are padded; None: all.
              eos_id: a row ends with this id, and repeats it; the stream ends when all rows have ended. None: no end.
    Raises:   ValueError: the prompt is empty or too long, or an argument is out of range; raised by the call itself.
              IndexError: an id is outside the vocabulary; raised when the first token is asked for.
    """
    rows = _prompt_rows(ids)
    longest = max(len(row) for row in rows)
    if longest > model.block_size:
        raise ValueError(f"the prompt has {longest} tokens, and the model reads at most {model.block_size}")
    if not isinstance(max_new_tokens, int | np.integer) or max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must be an integer ≥ 0, got {max_new_tokens}")
    if eos_id is not None and (not isinstance(eos_id, int | np.integer) or eos_id < 0):
        raise ValueError(f"eos_id must be an id ≥ 0, or None: got {eos_id!r}")
    rng = Generator(0) if rng is None else rng
    for one in rng if isinstance(rng, list | tuple) else [rng]:
        check_generator(one)
    if isinstance(rng, Sequence) and len(rng) != len(rows):
        raise ValueError(f"rng must be one Generator, or one for each of the {len(rows)} rows, got {len(rng)}")
    # Rows of one length make one (B, T) text; rows of different lengths make B texts of one row.
    texts = [np.stack(rows)] if len({len(row) for row in rows}) == 1 else [row[None] for row in rows]
    # The checks above must not wait for the first next(), so the loop is a separate generator function.
    return _loop(model, texts, max_new_tokens, sampling, rng, use_cache, n_vocab, eos_id)


def _loop(
    model: LanguageModel,
    texts: list[Ids],
    max_new_tokens: int,
    sampling: Sampling,
    rng: Generator | Sequence[Generator],
    use_cache: bool,
    n_vocab: int | None,
    eos_id: int | None,
) -> Iterator[Ids]:
    ended = np.zeros(sum(map(len, texts)), bool)
    caches = [model.new_cache() for _ in texts] if use_cache else None
    pace = Pace()
    for _ in range(max_new_tokens):
        # Evaluation mode lasts for this call only: between two tokens, the caller may train the model.
        with model.evaluating(), pace.step():
            logits = _next_logits(model, texts, caches)
        logits = sampling.adjusted(logits[:, :n_vocab], [row for text in texts for row in text])
        chosen = choose(logits, sampling, rng)
        if eos_id is not None:
            chosen = np.where(ended, eos_id, chosen)
            ended |= chosen == eos_id
        columns = chosen.reshape(len(texts), -1, 1)  # (text, row of the text, 1)
        texts = [np.concatenate([text, column], axis=1) for text, column in zip(texts, columns, strict=True)]
        yield chosen
        if ended.all():
            return


def _next_logits(model: LanguageModel, texts: list[Ids], caches: list[KVCache] | None) -> Array:
    """Compute the logits (B, V) of the token after each row; only positions that the caches lack are read."""
    windows = [text[:, window_start(text.shape[1], model.block_size) :] for text in texts]
    if caches is None:
        return np.concatenate([model(window, logits_to_keep=1).data[:, -1] for window in windows])
    unread = []
    for window, cache in zip(windows, caches, strict=True):
        if cache.length >= window.shape[1]:  # the window has moved, so all its tokens have other positions
            cache.clear()
        unread.append(window[:, cache.length :])
    if len(texts) == 1:
        return read_prompt(model, unread[0], caches[0]).data[:, -1]
    # Each text alone up to its last token, then the last tokens of all texts together: so the weights are read once per
    # token for all rows.
    for ids, cache in zip(unread, caches, strict=True):
        if ids.shape[1] > 1:
            read_prompt(model, ids[:, :-1], cache, keep=0)
    return model(np.concatenate([ids[:, -1:] for ids in unread]), caches, logits_to_keep=1).data[:, -1]


def read_prompt(model: LanguageModel, ids: Ids, cache: KVCache, keep: int = 1) -> Tensor:
    """Read ids (B, T) into the cache. Returns the logits of the last `keep` positions, (B, keep, V)."""
    length = ids.shape[1]

    def read(part: slice, cache: KVCache) -> Tensor:
        return model(ids[:, part], cache, logits_to_keep=keep if part.stop == length else 0)

    return read_by_threads(read, length, cache)[-1]


def window_start(length: int, block_size: int) -> int:
    """Return the index at which the model begins to read a text of `length` tokens.

    It is 0 as long as the whole text fits. GPT-2's positions are absolute, so the keys of one position cannot be used
    at another. A window that moved with every token would have to be read again for every token. This one moves by half
    a block when it is full: then half a block is read again, and the next half block costs one position per token.

    Returns:  the smallest multiple of max(1, block_size // 2) that leaves at most block_size tokens.
    """
    step = max(1, block_size // 2)
    return max(0, math.ceil((length - block_size) / step)) * step


def _prompt_rows(ids: Prompt) -> list[Ids]:
    """Return the rows of a prompt, each as int64.

    Raises:   ValueError: no rows, an empty row, or ids that are not integers.
    """
    try:
        array = np.asarray(ids)
        rows = [array] if array.ndim < 2 else list(array)
    except ValueError:  # rows of different lengths
        rows = [_row(row) for row in ids]
    if not rows:
        raise ValueError("the prompt must be at least one row of ids, got none")
    for row in rows:
        if row.size == 0:
            raise ValueError("the prompt must be at least one id per row, but it is empty, or a row of it is")
        if row.ndim != 1 or row.dtype.kind not in "iu":
            found = f"{row.dtype} of shape {row.shape}"
            raise ValueError(f"the prompt must be (T,) or rows of integer ids, at least one per row, got {found}")
    return [row.astype(np.int64) for row in rows]  # uint64 and int64 together would become float64


def _row(row: Any) -> Array:
    try:
        return np.asarray(row)
    except ValueError:  # a row of lists of different lengths, which the check above refuses
        return np.asarray(row, dtype=object)

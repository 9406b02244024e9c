"""Writing: choose the next token, append it, go on. Works on ids, for any model that can be called with them."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tinygrad_llm.autograd import Tensor
from tinygrad_llm.kernels import Array
from tinygrad_llm.random import Generator

Ids: TypeAlias = NDArray[np.int64]


class KVCache:
    """The keys and values of every layer for the positions already read, so that a new token costs one position.

    Args:     n_layer: how many attention layers. capacity: most positions it can hold.
    """

    def __init__(self, n_layer: int, capacity: int) -> None:
        self.layers = [_Layer(capacity) for _ in range(n_layer)]

    @property
    def length(self) -> int:
        """How many positions have been read."""
        return self.layers[0].length


class _Layer:
    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self._keys: Array | None = None
        self._values: Array | None = None

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append (B, H, T, D) keys and values; return all so far, as views of what is kept."""
        B, H, T, D = k.shape
        if self._keys is not None and len(self._keys) != B:
            raise ValueError(f"the cache holds {len(self._keys)} texts, not {B}: make a new one")
        if self._keys is None or self._values is None:
            self._keys = np.empty((B, H, self.capacity, D), dtype=k.dtype)
            self._values = np.empty_like(self._keys)
        end = self.length + T
        if end > self.capacity:
            raise ValueError(f"the cache holds {self.capacity} positions, and {end} are needed")
        self._keys[:, :, self.length : end] = k.data
        self._values[:, :, self.length : end] = v.data
        self.length = end
        return Tensor(self._keys[:, :, :end]), Tensor(self._values[:, :, :end])


class LanguageModel(Protocol):
    """What `generate` needs of a model."""

    @property
    def block_size(self) -> int:
        """Most positions it can read at once."""
        ...

    def new_cache(self) -> KVCache: ...
    def evaluating(self) -> AbstractContextManager[None]: ...
    def __call__(self, ids: Ids, cache: KVCache | None = None) -> Tensor:
        """(B, T) ids, which follow those in the cache, → (B, T, V) logits."""
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
    if not (logits < np.inf).all():  # NaN is not; −∞, a token ruled out, is
        raise ValueError("the model's scores are not finite: its weights are damaged, or its training went astray")
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
        order = np.argsort(-probs, axis=-1, kind="stable")
        falling = np.take_along_axis(probs, order, axis=-1)
        before = np.cumsum(falling, axis=-1) - falling  # what the likelier ones already reach
        falling[before >= top_p] = 0
        np.put_along_axis(probs, order, falling, axis=-1)
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


def stream(
    model: LanguageModel,
    ids: Ids | Sequence[int] | Sequence[Sequence[int]],
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    rng: Generator | None = None,
    use_cache: bool = True,
) -> Iterator[Ids]:
    """Generate token by token: yields (B,) new ids, one for each row of the prompt.

    Past `block_size` the model reads the last block_size tokens anew for each one: GPT-2's positions are absolute, so
    keys made for one place cannot be used at another. With and without the cache the ids are the same.

    Args:     ids: the prompt, (T,) or (B, T), 1 ≤ T ≤ block_size. temperature, top_k, top_p: `next_token_probs`.
              rng: where tokens are drawn; Generator(0) if None. temperature 0 draws nothing.
    Raises:   ValueError: an empty or too long prompt, or an argument out of range; before anything is generated.
              IndexError: an id outside the vocabulary; when the first token is asked for.
    """
    prompt = np.asarray(ids)
    check_sampling(temperature, top_k, top_p)
    if prompt.ndim not in (1, 2) or prompt.dtype.kind not in "iu" or prompt.size == 0:
        raise ValueError(
            "the prompt must be (T,) or (B, T) integer ids, at least one a row, "
            f"not {prompt.dtype} of shape {prompt.shape}"
        )
    text = np.atleast_2d(prompt).astype(np.int64)  # uint64 and int64 together would become float64
    if text.shape[1] > model.block_size:
        raise ValueError(f"the prompt has {text.shape[1]} tokens, and the model reads at most {model.block_size}")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must be ≥ 0, not {max_new_tokens}")
    # The checks above must not wait for the first next(), so the loop is a generator of its own.
    return _loop(model, text, max_new_tokens, (temperature, top_k, top_p), rng or Generator(0), use_cache)


def _loop(
    model: LanguageModel,
    text: Ids,
    max_new_tokens: int,
    sampling: tuple[float, int | None, float | None],
    rng: Generator,
    use_cache: bool,
) -> Iterator[Ids]:
    cache = model.new_cache() if use_cache else None
    for _ in range(max_new_tokens):
        # Around each call, not around the loop: between two tokens the model is the caller's.
        with model.evaluating():
            if cache is not None and text.shape[1] <= model.block_size:
                logits = model(text[:, cache.length :], cache)
            else:
                logits = model(text[:, -model.block_size :])
        probs = next_token_probs(logits.data[:, -1], *sampling)
        chosen = np.argmax(probs, axis=-1) if sampling[0] == 0 else rng.multinomial(probs, 1)[:, 0]
        text = np.concatenate([text, chosen[:, None]], axis=1)
        yield chosen


def generate(
    model: LanguageModel,
    ids: Ids | Sequence[int] | Sequence[Sequence[int]],
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    rng: Generator | None = None,
    use_cache: bool = True,
) -> Ids:
    """The prompt and max_new_tokens more, in the prompt's own rank: (T + n,) or (B, T + n). See `stream`."""
    prompt = np.asarray(ids)
    new = list(stream(model, ids, max_new_tokens, temperature, top_k, top_p, rng, use_cache))
    return np.concatenate([prompt.astype(np.int64), *(np.reshape(n, (*prompt.shape[:-1], 1)) for n in new)], axis=-1)

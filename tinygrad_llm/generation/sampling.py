"""How the next token is chosen from the model's logits: `choose`, from the distribution of `next_token_probs`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tinygrad_llm.kernels import Array
from tinygrad_llm.random import Generator

Ids: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Sampling:
    """The settings by which a next token is chosen.

    Args:     temperature: below 1 sharpens, above 1 flattens; 0 leaves only the likeliest token, and draws no random
              number. top_k: keep the k likeliest tokens, and those as likely as the k-th. top_p: of these, keep the
              fewest whose probabilities sum to at least p. repetition_penalty: above 1, tokens that the text has
              already become less likely. forbidden: ids that are never chosen.
    Raises:   ValueError: one is out of range.
    Source:   top-p: Holtzman et al. 2020, arXiv:1904.09751; penalty: Keskar et al. 2019, arXiv:1909.05858.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0
    forbidden: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise ValueError(f"temperature must be ≥ 0, got {self.temperature}")
        if not isinstance(self.top_k, int | np.integer | None):
            raise ValueError(f"top_k must be an integer, got {self.top_k!r}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be ≥ 1, got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], got {self.top_p}")
        if not 0 < self.repetition_penalty < math.inf:
            raise ValueError(f"repetition_penalty must be finite and above 0, got {self.repetition_penalty}")
        if not all(isinstance(token, int | np.integer) and token >= 0 for token in self.forbidden):
            raise ValueError(f"forbidden must be ids ≥ 0, got {self.forbidden!r}")

    def adjusted(self, logits: Array, texts: Sequence[Ids]) -> Array:
        """The logits after the penalty, and without the forbidden tokens.

        The penalty divides a logit above 0, and multiplies one below 0.

        Args:     logits: (B, V). texts: the ids of each row so far.
        Raises:   ValueError: every token is forbidden.
        """
        if self.repetition_penalty == 1 and not self.forbidden:
            return logits
        logits = logits.copy()
        for row, text in zip(logits, texts, strict=True):
            seen = np.unique(text[text < row.size])
            row[seen] = np.where(
                row[seen] > 0, row[seen] / self.repetition_penalty, row[seen] * self.repetition_penalty
            )
        logits[:, [token for token in self.forbidden if token < logits.shape[1]]] = -np.inf
        if (logits == -np.inf).all(axis=1).any():
            raise ValueError(f"every one of the {logits.shape[1]} tokens is forbidden")
        return logits


def choose(logits: Array, sampling: Sampling, rng: Generator | Sequence[Generator]) -> Ids:
    """Choose the next token of each row.

    Args:     logits: (B, V), `adjusted`. rng: one generator that the rows draw from in turn, or one for each row.
    Returns:  (B,) ids: the likeliest ones if temperature is 0, else drawn from `next_token_probs`.
    Raises:   ValueError: a logit is NaN or +∞.
    """
    if sampling.temperature == 0:
        check_logits(logits)
        likeliest: Ids = np.argmax(logits, axis=-1)
        return likeliest
    probs = next_token_probs(logits, sampling)
    if isinstance(rng, Generator):
        return rng.multinomial(probs)[:, 0]
    return np.concatenate([own.multinomial(row) for own, row in zip(rng, probs, strict=True)])


def next_token_probs(logits: Array, sampling: Sampling = Sampling()) -> Array:
    """Compute the distribution that the next token is drawn from.

    Args:     logits: (B, V), `adjusted`.
    Returns:  (B, V) float64; each row sums to 1.
    Raises:   ValueError: a logit is NaN or +∞.
    """
    temperature, top_k, top_p = sampling.temperature, sampling.top_k, sampling.top_p
    check_logits(logits)
    logits = logits.astype(np.float64)
    if temperature == 0:
        return np.asarray(np.arange(logits.shape[-1]) == np.argmax(logits, axis=-1)[:, None], dtype=np.float64)
    with np.errstate(over="ignore"):  # −∞: a token that is never drawn
        logits = (logits - np.max(logits, axis=-1, keepdims=True)) / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        kth = np.partition(logits, -top_k, axis=-1)[:, -top_k, None]
        logits = np.where(logits < kth, -np.inf, logits)
    probs = np.exp(logits)
    probs /= np.sum(probs, axis=-1, keepdims=True)
    if top_p is not None and top_p < 1:
        for row in probs:
            _keep_top_p(row, top_p)
        probs /= np.sum(probs, axis=-1, keepdims=True)
    return probs


def _keep_top_p(row: Array, top_p: float) -> None:
    """Set to 0, in place, all probabilities (V,) except the fewest that sum to at least top_p."""
    # All tokens below (1 − p) / V sum to less than 1 − p, so the others reach p without them. Only these few are
    # sorted; half of the bound leaves room for rounding.
    (likely,) = np.nonzero(row > (1 - top_p) / (2 * row.size))
    order = likely[np.argsort(-row[likely], kind="stable")]
    falling = row[order]
    # A token is dropped if the likelier ones before it reach p already.
    falling[np.cumsum(falling) - falling >= top_p] = 0
    row[:] = 0
    row[order] = falling


def check_logits(logits: Array) -> None:
    """Refuse scores that nothing can be chosen from.

    Raises:   ValueError: one is NaN or +∞.
    """
    if not (logits < np.inf).all():  # false for NaN; −∞ is allowed, it rules a token out
        raise ValueError("the model's scores are NaN or infinite: its weights are damaged, or its training diverged")

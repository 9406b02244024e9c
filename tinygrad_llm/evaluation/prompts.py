"""What a model expects after a prompt: the likeliest next tokens."""

from collections.abc import Sequence

import numpy as np

from tinygrad_llm.generation import next_token_probs
from tinygrad_llm.models import GPT


def next_tokens(model: GPT, ids: Sequence[int], top: int, n_vocab: int | None = None) -> list[tuple[int, float]]:
    """Return the `top` likeliest tokens after ids, with their probabilities, the likeliest first.

    Ids of `n_vocab` or more, which only pad the vocabulary, are left out; None: all are listed.

    Args:     ids: (T,), at least one; if they are more than a block, the model reads the last block of them.
    Raises:   ValueError: no ids, top below 1, or scores that are NaN or infinite.
    """
    if top < 1:
        raise ValueError(f"top must be at least 1, got {top}")
    with model.evaluating(), np.errstate(all="ignore"):
        probs = next_token_probs(model(np.array([ids[-model.block_size :]])).data[:, -1])[0]
    return [(int(i), float(probs[i])) for i in np.argsort(-probs[:n_vocab], kind="stable")[:top]]
